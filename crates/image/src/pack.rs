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
