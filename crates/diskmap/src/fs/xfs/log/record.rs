//! Records of the log.
//!
//! Owns: the header of a record (`struct xlog_rec_header`) and the checksum of header
//! and data. Does not own: the operations in the data.

use super::super::super::Fault;
use super::{Log, SECTOR, dirty};
use crate::bytes::{array, be32, be64, le32};
use crate::checksum::crc32c;

/// Magic number in the first sector of a record.
pub(super) const MAGIC: u32 = 0xfeed_babe;
/// Data bytes for which one header sector has room to keep what was replaced by cycles.
const PER_HEADER: u64 = 32 << 10;
/// Longest data of a record, in bytes.
const MOST: u64 = 256 << 10;
/// Bytes of a header, with and without the padding that some machines add.
const HEADER_BYTES: [usize; 2] = [328, 324];
/// Bytes of a further header.
const MORE_BYTES: usize = 260;
const CRC_AT: usize = 32;

/// A record whose header makes sense.
pub(super) struct Record {
    /// Sector of the header.
    pub sector: u64,
    pub cycle: u32,
    /// Sectors of headers.
    pub header_sectors: u64,
    /// Bytes of data.
    pub len: u64,
    /// Number of operations in the data.
    pub operations: u32,
    /// Sequence number of the record with which a replay begins.
    pub tail: u64,
    /// Byte order and shape of what the operations carry.
    pub format: u32,
    /// Checksum; 0 if there is none.
    crc: u32,
}

impl Record {
    /// Sector after the record, not taken round the end of the log.
    pub fn end(&self) -> u64 {
        self.sector + self.header_sectors + self.len.div_ceil(SECTOR)
    }
}

/// Sectors of headers of the record that starts with `header`.
pub(super) fn header_sectors(header: &[u8], v2: bool) -> u64 {
    let size = be32(header, 320).map_or(0, u64::from);
    let version = be32(header, 8).unwrap_or(0);
    if v2 && version & 2 != 0 && size > PER_HEADER {
        size.div_ceil(PER_HEADER)
    } else {
        1
    }
}

/// Sectors of data of the record that starts with `header`.
pub(super) fn data_sectors(header: &[u8]) -> u64 {
    be32(header, 12).map_or(0, u64::from).div_ceil(SECTOR)
}

impl Log<'_> {
    /// The record at `sector`.
    pub(super) fn record(&self, sector: u64) -> Result<Record, Fault> {
        let header = self.read(sector, 1)?;
        let fields = (|| {
            Some(Record {
                sector,
                cycle: be32(&header, 4)?,
                header_sectors: header_sectors(&header, self.v2),
                len: be32(&header, 12)?.into(),
                operations: be32(&header, 40)?,
                tail: be64(&header, 24)?,
                format: be32(&header, 300)?,
                crc: le32(&header, CRC_AT)?,
            })
        })();
        let Some(record) = fields.filter(|_| be32(&header, 0) == Some(MAGIC)) else {
            return dirty("its log has no record where one has to be");
        };
        if array(&header, 304) != Some(self.uuid) {
            return dirty("its log is that of another file system");
        }
        let lsn = u64::from(record.cycle) << 32 | sector;
        let fits = record.len <= MOST
            && record.header_sectors <= MOST / PER_HEADER
            && record.end() - sector <= self.sectors;
        if record.cycle == 0 || be64(&header, 16) != Some(lsn) || !fits {
            return dirty("a record of its log makes no sense");
        }
        self.check_sum(&record)?;
        Ok(record)
    }

    /// Compares the checksum of a record, if it has one.
    fn check_sum(&self, record: &Record) -> Result<(), Fault> {
        if record.crc == 0 {
            return Ok(());
        }
        let data_sectors = record.len.div_ceil(SECTOR);
        let bytes = self.read_round(record.sector, record.header_sectors + data_sectors)?;
        let (headers, data) = bytes.split_at((record.header_sectors * SECTOR) as usize);
        let more = if self.v2 {
            record.len.div_ceil(PER_HEADER)
        } else {
            1
        };
        let right = HEADER_BYTES.iter().any(|&len| {
            let crc = crc32c(crc32c(!0, &headers[..CRC_AT]), &[0; 4]);
            let mut crc = crc32c(crc, &headers[CRC_AT + 4..len]);
            for header in headers.chunks(SECTOR as usize).take(more as usize).skip(1) {
                crc = crc32c(crc, &header[..MORE_BYTES]);
            }
            !crc32c(crc, &data[..record.len as usize]) == record.crc
        });
        if right {
            Ok(())
        } else {
            dirty("wrong checksum of a record of its log")
        }
    }
}
