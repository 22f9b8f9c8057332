//! Signing images that are there already.
//!
//! Owns: where a signature goes in a finished manifest or container. Does not own: keys
//! and what they sign ([`crate::signature`]).

use crate::index::{self, FOOTER_LEN};
use crate::section::{self, FileKind, HEADER_LEN, Kind};
use crate::signature::{MAX_SIGNATURES, SigningKey};
use crate::{Error, Signature, Version, signature, structure};
use std::io::{self, Read, Seek, SeekFrom, Write};

/// Adds a signature to a whole manifest, which is version 3 then. An interrupted call
/// leaves damage: the caller does this before the manifest gets its name.
///
/// # Errors
/// I/O errors, and a file that is no manifest.
pub fn add_to_manifest<F: Read + Write + Seek>(
    file: &mut F,
    signature: &Signature,
) -> Result<(), Error> {
    file.seek(SeekFrom::Start(0)).map_err(writing)?;
    section::read_file_header(file, FileKind::Manifest)?;
    file.seek(SeekFrom::End(0)).map_err(writing)?;
    signature::write(file, signature).map_err(writing)?;
    file.seek(SeekFrom::Start(0)).map_err(writing)?;
    section::write_file_header(file, FileKind::Manifest, Version::V3).map_err(writing)?;
    file.flush().map_err(writing)
}

/// Copies a container and signs the copy; `false` and an empty copy if the key has signed
/// it already. The records are copied as they are: prove them first.
///
/// # Errors
/// I/O errors, and a container whose structure is damaged.
pub fn copy_signed<R: Read + Seek>(
    input: &mut R,
    out: &mut impl Write,
    key: &SigningKey,
) -> Result<bool, Error> {
    let found = structure::read(input)?;
    if found.signatures.iter().any(|s| s.key == key.public()) {
        return Ok(false);
    }
    if found.signatures.len() >= MAX_SIGNATURES {
        let source = io::Error::other("the image has as many signatures as it can have");
        return Err(writing(source));
    }
    input.seek(SeekFrom::Start(0)).map_err(writing)?;
    let copied = io::copy(&mut input.by_ref().take(found.index_at), out).map_err(writing)?;
    if copied != found.index_at {
        return Err(Error::damaged("the container became shorter", copied));
    }
    let added = signature::write(out, &key.sign(found.root.root)).map_err(writing)?;
    let body = index::encode(&found.places);
    section::write_section(out, Kind::Index, &body).map_err(writing)?;
    let index_at = found.index_at + added;
    let length = index_at + (HEADER_LEN + body.len() + FOOTER_LEN) as u64;
    let footer = index::encode_footer(index_at, length);
    out.write_all(&footer).map_err(writing)?;
    out.flush().map_err(writing)?;
    Ok(true)
}

fn writing(source: io::Error) -> Error {
    Error::Io {
        operation: "signing an image",
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::{ContainerReader, ContainerWriter, Event};
    use crate::layout::tests::small;
    use crate::manifest::{ManifestReader, ManifestWriter};
    use crate::record::{Compression, Encoder};
    use crate::{ChunkRef, Hash, cells};
    use std::io::Cursor;
    use std::sync::Arc;

    const SIZE: u64 = 3 << 16;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32]).unwrap()
    }

    fn manifest() -> Vec<u8> {
        let layout = small(SIZE);
        let cells: Vec<_> = cells::cut(0, layout.cell_size, [(0, SIZE)]).collect();
        let chunk = |cell: &crate::CellMap| ChunkRef {
            name: Hash::default(),
            plain_len: cell.used.len(),
        };
        let chunks: Vec<_> = cells.iter().map(chunk).collect();
        let mut writer = ManifestWriter::new(Vec::new(), &layout).unwrap();
        writer.page(&cells, &chunks).unwrap();
        writer.finish().unwrap().0
    }

    fn read(manifest: &[u8]) -> Result<Vec<Signature>, Error> {
        let mut reader = ManifestReader::open(manifest)?;
        while reader.next_page()?.is_some() {}
        Ok(reader.signatures().to_vec())
    }

    fn container(signer: Option<SigningKey>) -> Vec<u8> {
        let layout = small(SIZE);
        let cells: Vec<_> = cells::cut(0, layout.cell_size, [(0, SIZE)]).collect();
        let mut writer = ContainerWriter::new(Vec::new(), &layout).unwrap();
        if let Some(key) = signer {
            writer = writer.signed_by(Arc::new(key));
        }
        writer.begin_page(&cells).unwrap();
        let mut encoder = Encoder::new(Compression::None).unwrap();
        for cell in &cells {
            let mut record = Vec::new();
            let plain = vec![7; cell.used.len() as usize];
            let header = encoder.encode(&plain, &mut record).unwrap();
            writer.record(&header, &record).unwrap();
        }
        writer.finish().unwrap().0
    }

    /// Who signed, as a reader of the stream and one that seeks see it.
    fn signers(container: &[u8]) -> Result<Vec<Signature>, Error> {
        let found = structure::read(&mut Cursor::new(container))?;
        let mut reader = ContainerReader::open(container)?;
        let mut payload = Vec::new();
        while !matches!(reader.next_event(&mut payload)?, Event::End(_)) {}
        assert_eq!(reader.signatures(), found.signatures);
        Ok(found.signatures)
    }

    #[test]
    fn a_manifest_is_signed_afterwards_and_every_change_is_noticed() {
        let plain = manifest();
        assert!(read(&plain).unwrap().is_empty());
        let root = {
            let mut reader = ManifestReader::open(&plain[..]).unwrap();
            while reader.next_page().unwrap().is_some() {}
            reader.root().unwrap().root
        };
        let mut file = Cursor::new(plain.clone());
        add_to_manifest(&mut file, &key(1).sign(root)).unwrap();
        add_to_manifest(&mut file, &key(2).sign(root)).unwrap();
        let signed = file.into_inner();
        let keys: Vec<_> = read(&signed).unwrap().iter().map(|s| s.key).collect();
        assert_eq!(keys, [key(1).public(), key(2).public()]);
        for at in (0..signed.len()).filter(|at| *at < 300 || *at > plain.len()) {
            let mut changed = signed.clone();
            changed[at] ^= 4;
            assert!(read(&changed).is_err(), "byte {at}");
        }
        // A signature in a version that has none is damage.
        let mut old = plain;
        old.extend_from_slice(&signed[signed.len() - 132..]);
        assert!(read(&old).is_err());
        let mut foreign = Cursor::new(manifest());
        add_to_manifest(&mut foreign, &key(1).sign(Hash::default())).unwrap();
        assert!(read(&foreign.into_inner()).is_err());
    }

    #[test]
    fn a_container_signed_afterwards_is_the_one_that_is_signed_at_once() {
        let mut copy = Vec::new();
        let made = copy_signed(&mut Cursor::new(container(None)), &mut copy, &key(1)).unwrap();
        assert!(made);
        assert_eq!(copy, container(Some(key(1))));
        assert_eq!(signers(&copy).unwrap()[0].key, key(1).public());

        let again = copy_signed(&mut Cursor::new(&copy), &mut Vec::new(), &key(1)).unwrap();
        assert!(!again);
        let mut twice = Vec::new();
        copy_signed(&mut Cursor::new(&copy), &mut twice, &key(2)).unwrap();
        assert_eq!(signers(&twice).unwrap().len(), 2);
    }

    #[test]
    fn no_flip_behind_the_records_of_a_signed_container_is_unseen() {
        let signed = container(Some(key(1)));
        let from = signed.len() - 400;
        for at in from..signed.len() {
            let mut changed = signed.clone();
            changed[at] ^= 1;
            assert!(signers(&changed).is_err(), "byte {at}");
        }
        for cut in from..signed.len() {
            assert!(signers(&signed[..cut]).is_err(), "cut at {cut}");
        }
    }
}
