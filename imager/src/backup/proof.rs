//! That encrypted records give back what was put in, before they leave.
//!
//! Owns: opening each of them again. A server decodes and hashes every record in the clear
//! that comes to it, but of an encrypted one it can only tell that it came whole: what bad
//! memory or a bad processor makes of it here would be stored as good, shared with all
//! machines of the key, and found by a restore. Does not own: how records are made and read
//! (`image::record`).

use super::Options;
use image::Hash;
use image::record::{Decoder, HEADER_LEN, RecordHeader};
use wire::{Code, DiskState, Report};

/// Opens records again. One for each thread.
pub struct Proof {
    /// None if records are in the clear.
    decoder: Option<Decoder>,
    plain: Vec<u8>,
}

impl Proof {
    /// For the records that are made with these options.
    pub fn new(options: &Options) -> Self {
        let sealed = options.key();
        Proof {
            decoder: sealed.map(|key| Decoder::new().opened_with(Some(key))),
            plain: Vec::new(),
        }
    }

    /// Whether `record` is that of the chunk `name`; nothing is done with one in the clear.
    ///
    /// # Errors
    /// `internal`: it is not.
    pub fn of(&mut self, record: &[u8], name: Hash) -> Result<(), Report> {
        let Some(decoder) = &mut self.decoder else {
            return Ok(());
        };
        let wrong = |what: String| {
            let found = format!("an encrypted chunk did not open again: {what}");
            Report::new(Code::Internal, found, DiskState::NotInvolved)
                .with_advice("Test the memory of this machine, and make the backup again.")
        };
        let (header, payload) = record
            .split_first_chunk::<HEADER_LEN>()
            .ok_or_else(|| wrong("it has no header".into()))?;
        let header = RecordHeader::decode(header, 0).map_err(|e| wrong(e.to_string()))?;
        decoder
            .decode(&header, payload, 0, &mut self.plain)
            .map_err(|e| wrong(e.to_string()))?;
        match header.name == name {
            true => Ok(()),
            false => Err(wrong("it is another chunk".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Proof;
    use crate::backup::Options;
    use crate::keyring::Opened;
    use image::{Hash, ImageKey};
    use std::sync::Arc;
    use wire::Code;

    #[test]
    fn a_record_that_does_not_open_again_does_not_leave() {
        let options = Options {
            seal: Some(Opened {
                key: Arc::new(ImageKey::new(&[1; 32])),
                wrapped: "a key file".into(),
            }),
            ..Options::default()
        };
        let (mut record, mut proof) = (Vec::new(), Proof::new(&options));
        let plain = b"Deploy-OS ".repeat(40);
        let mut encoder = options.encoder().unwrap();
        let name = encoder.name(&plain);
        encoder.encode(&plain, &mut record).unwrap();
        proof.of(&record, name).unwrap();
        assert!(proof.of(&record, Hash::of(&plain)).is_err());
        // As if the memory had forgotten a bit before checksums were made.
        let (mut other, at) = (plain.clone(), record.len());
        other[7] ^= 1;
        encoder.encode(&other, &mut record).unwrap();
        assert!(proof.of(&record[at..], name).is_err());
        for byte in [0, 20, 60, 70, at - 1] {
            let mut changed = record[..at].to_vec();
            changed[byte] ^= 4;
            assert_eq!(proof.of(&changed, name).unwrap_err().code, Code::Internal);
        }
        // The server proves those in the clear.
        assert!(Proof::new(&Options::default()).of(&[], name).is_ok());
    }
}
