//! Packs: runs of records in one file of a server's store.
//!
//! Owns: the pack's header, appending, and finding every whole record again. Does not
//! own: which chunk is in which pack (the server's index, which can be rebuilt by
//! [`crate::salvage`]).
//!
//! A pack is: header of 32 bytes (`DEPLOYPK`, version u16 = 1 or 2, 18 reserved zero bytes,
//! CRC-32 of the 28 bytes before), then records, one after the other.

use crate::Error;
use crate::record::{self, RecordHeader, RecordReader};
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Length of a pack's header.
pub const HEADER_LEN: u64 = 32;
const MAGIC: &[u8; 8] = b"DEPLOYPK";
/// Version 1 had no encrypted records.
const VERSION: u16 = 2;

/// Appends records to a new pack.
pub struct PackWriter {
    file: File,
    at: u64,
}

impl PackWriter {
    /// Creates a pack that must not be there yet, and writes its header.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        let mut header = [0; HEADER_LEN as usize];
        header[..8].copy_from_slice(MAGIC);
        header[8..10].copy_from_slice(&VERSION.to_le_bytes());
        let crc = crc32fast::hash(&header[..28]);
        header[28..].copy_from_slice(&crc.to_le_bytes());
        file.write_all(&header)?;
        Ok(PackWriter {
            file,
            at: HEADER_LEN,
        })
    }

    /// Appends a record (header and payload) and returns its offset. It is durable only
    /// after [`Self::sync`].
    pub fn append(&mut self, record: &[u8]) -> io::Result<u64> {
        let at = self.at;
        // Written by position: after a failed write the next one overwrites the torn bytes.
        self.file.write_all_at(record, at)?;
        self.at += record.len() as u64;
        Ok(at)
    }

    /// Bytes so far.
    pub fn len(&self) -> u64 {
        self.at
    }

    /// Whether there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.at == HEADER_LEN
    }

    /// Makes everything appended durable.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Reads one record of a pack: header and payload.
pub fn read_record(
    file: &File,
    offset: u64,
    stored_len: u32,
) -> Result<(RecordHeader, Vec<u8>), Error> {
    let length = record::HEADER_LEN + stored_len.min(record::MAX_STORED) as usize;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset)
        .map_err(|e| Error::io("reading a pack", e, offset))?;
    let mut head = [0; record::HEADER_LEN];
    head.copy_from_slice(&bytes[..record::HEADER_LEN]);
    let header = RecordHeader::decode(&head, offset)?;
    if header.stored_len != stored_len {
        return Err(Error::damaged(
            "a record is not the one that the index means",
            offset,
        ));
    }
    bytes.drain(..record::HEADER_LEN);
    Ok((header, bytes))
}

/// Reads one record of a pack in pieces of `buffer`'s length (at least a header's) and
/// compares its payload with its checksum.
pub fn check_record(
    file: &File,
    offset: u64,
    stored_len: u32,
    buffer: &mut [u8],
) -> Result<RecordHeader, Error> {
    let failed = |e: io::Error| Error::io("reading a pack", e, offset);
    let mut head = [0; record::HEADER_LEN];
    file.read_exact_at(&mut head, offset).map_err(failed)?;
    let header = RecordHeader::decode(&head, offset)?;
    if header.stored_len != stored_len {
        return Err(Error::damaged(
            "a record is not the one that the index means",
            offset,
        ));
    }
    let mut crc = crc32fast::Hasher::new();
    let mut at = offset.saturating_add(record::HEADER_LEN as u64);
    let mut left = stored_len as usize;
    while left > 0 {
        let wanted = left.min(buffer.len());
        let Some(piece) = buffer.get_mut(..wanted).filter(|piece| !piece.is_empty()) else {
            return Err(failed(io::Error::other("no room to read a record")));
        };
        file.read_exact_at(piece, at).map_err(failed)?;
        crc.update(piece);
        at = at.saturating_add(wanted as u64);
        left -= wanted;
    }
    if crc.finalize() != header.payload_crc {
        return Err(Error::damaged(
            "the record's payload is damaged (CRC-32)",
            offset,
        ));
    }
    Ok(header)
}

/// Whether the file is a pack of a version that is known.
///
/// # Errors
/// It is not; [`Error::Version`] for a newer version.
pub(crate) fn check_header(file: &File) -> Result<(), Error> {
    let mut header = [0; HEADER_LEN as usize];
    file.read_exact_at(&mut header, 0)
        .map_err(|e| Error::io("reading a pack", e, 0))?;
    let version = u16::from_le_bytes([header[8], header[9]]);
    if header[..8] != *MAGIC || crc32fast::hash(&header[..28]).to_le_bytes() != header[28..] {
        return Err(Error::damaged("this is not a pack", 0));
    }
    if version > VERSION {
        return Err(Error::Version {
            found: version,
            supported: VERSION,
        });
    }
    Ok(())
}

/// What [`scan`] found.
#[derive(Debug)]
pub struct Scan {
    /// Offset and header of each whole record whose payload checksum holds.
    pub records: Vec<(u64, RecordHeader)>,
    /// Why reading ended before the end of the file, if it did.
    pub damage: Option<Error>,
}

/// Lists the records of a pack. Damage ends the list; what stands before it is good.
pub fn scan(path: &Path) -> Result<Scan, Error> {
    let file = File::open(path).map_err(|e| Error::io("opening a pack", e, 0))?;
    check_header(&file)?;
    let mut input = BufReader::with_capacity(1 << 20, file);
    input
        .seek(SeekFrom::Start(HEADER_LEN))
        .map_err(|e| Error::io("reading a pack", e, 0))?;
    let mut reader = RecordReader::new(input, HEADER_LEN);
    let mut found = Scan {
        records: Vec::new(),
        damage: None,
    };
    let mut payload = Vec::new();
    loop {
        let at = reader.position();
        match reader.next_record(&mut payload) {
            Ok(Some(header)) if crc32fast::hash(&payload) == header.payload_crc => {
                found.records.push((at, header));
            }
            Ok(Some(_)) => {
                found.damage = Some(Error::damaged("a record's payload is damaged (CRC-32)", at));
                return Ok(found);
            }
            Ok(None) => return Ok(found),
            Err(error @ Error::Damaged { .. }) => {
                found.damage = Some(error);
                return Ok(found);
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{PackWriter, check_record};
    use crate::record::{Compression, Encoder};
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_changed_bit_is_found_whatever_the_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pack");
        let plain: Vec<u8> = (0..3000u32).map(|n| (n * n / 7) as u8).collect();
        let mut record = Vec::new();
        let header = Encoder::new(Compression::Zstd(1))
            .unwrap()
            .encode(&plain, &mut record)
            .unwrap();
        let mut writer = PackWriter::create(&path).unwrap();
        let at = writer.append(&record).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        for room in [1, 7, record.len(), 1 << 16] {
            let mut buffer = vec![0; room];
            let found = check_record(&file, at, header.stored_len, &mut buffer);
            assert_eq!(found.unwrap(), header);
        }
        let mut buffer = [0; 100];
        for (byte, &whole) in record.iter().enumerate() {
            let place = at + byte as u64;
            file.write_all_at(&[whole ^ 1 << (byte % 8)], place)
                .unwrap();
            assert!(check_record(&file, at, header.stored_len, &mut buffer).is_err());
            file.write_all_at(&[whole], place).unwrap();
        }
        assert!(check_record(&file, at, header.stored_len, &mut []).is_err());
        assert!(check_record(&file, at, header.stored_len + 1, &mut buffer).is_err());
    }
}
