//! The records that a replay would read.
//!
//! Owns: walking them from the tail to the head, putting back what the cycle numbers
//! replaced, and cutting them into operations. Does not own: what the operations change.

use super::super::super::Fault;
use super::head::Head;
use super::record::Record;
use super::{Log, SECTOR, dirty};
use crate::bytes::{be32, put};

/// Data sectors whose first words one header sector keeps.
const PER_HEADER: usize = 64;
/// Bytes of an operation's header.
const OPERATION: usize = 12;
/// Format of records whose items are those of a little-endian machine.
const LITTLE_ENDIAN: u32 = 1;
/// Who writes operations: transactions, and the log itself.
const CLIENTS: [u8; 2] = [0x69, 0xaa];

/// A piece of a transaction (`struct xlog_op_header` and what follows it).
pub(super) struct Operation<'a> {
    /// The transaction's number.
    pub transaction: u32,
    pub flags: u8,
    pub data: &'a [u8],
}

impl Log<'_> {
    /// Calls `each` for every operation that a replay would meet, in its order. `last` is
    /// the record before the head, which says where the replay begins.
    pub(super) fn operations(
        &self,
        last: &Record,
        head: Head,
        mut each: impl FnMut(Operation<'_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut sector = last.tail & u64::from(u32::MAX);
        let (mut before, end) = (0, head.cycle(last) << 32 | head.sector);
        loop {
            if sector >= self.sectors {
                return dirty("its log begins outside of it");
            }
            let record = self.record(sector)?;
            let lsn = u64::from(record.cycle) << 32 | sector;
            // The numbers rise, so that this ends.
            if lsn <= before || lsn >= end || (before == 0 && lsn != last.tail) {
                return dirty("the records of its log are not in order");
            }
            if record.format != LITTLE_ENDIAN {
                return dirty("its log was written by a machine of another kind");
            }
            before = lsn;
            let data = self.data(&record)?;
            split(&record, &data, &mut each)?;
            sector = record.end() % self.sectors;
            if sector == head.sector {
                break;
            }
        }
        if before == (u64::from(last.cycle) << 32 | last.sector) {
            Ok(())
        } else {
            dirty("the records of its log are not in order")
        }
    }

    /// The data of a record as it was before it was written.
    fn data(&self, record: &Record) -> Result<Vec<u8>, Fault> {
        let sectors = record.end() - record.sector;
        let bytes = self.read_round(record.sector, sectors)?;
        let (headers, data) = bytes.split_at((record.header_sectors * SECTOR) as usize);
        let mut data = data.to_vec();
        for (i, sector) in data.chunks_mut(SECTOR as usize).enumerate() {
            let at = record.sector + record.header_sectors + i as u64;
            let cycle = record.cycle.wrapping_add((at >= self.sectors).into());
            let (header, slot) = (i / PER_HEADER, i % PER_HEADER);
            let slots = if header == 0 { 44 } else { 4 };
            let from = header * SECTOR as usize + slots + 4 * slot;
            let Some(word) = headers.get(from..from + 4) else {
                return dirty("a record of its log makes no sense");
            };
            if be32(sector, 0) != Some(cycle) {
                return dirty("a record of its log was not written to its end");
            }
            put(sector, 0, word);
        }
        data.truncate(record.len as usize);
        Ok(data)
    }
}

/// Cuts the data of a record into operations.
fn split(
    record: &Record,
    mut data: &[u8],
    each: &mut impl FnMut(Operation<'_>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    for _ in 0..record.operations {
        let wanted = be32(data, 4).map(|len| len as usize);
        let (Some(transaction), Some(len), Some(rest)) =
            (be32(data, 0), wanted, data.get(OPERATION..))
        else {
            return dirty("a record of its log is too short for what it holds");
        };
        let (client, flags) = (data[8], data[9]);
        if len > rest.len() || !CLIENTS.contains(&client) {
            return dirty("a record of its log makes no sense");
        }
        let (data_of_it, after) = rest.split_at(len);
        each(Operation {
            transaction,
            flags,
            data: data_of_it,
        })?;
        data = after;
    }
    Ok(())
}
