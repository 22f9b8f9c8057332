//! A walk along the transactions of the journal.
//!
//! Owns: descriptor, revoke and commit blocks, their checksums, and where the walk ends.
//! Does not own: what the logged blocks mean.
//!
//! The walk goes at least as far as any replay: it ends only where no replay goes on (no
//! header, or the number of another transaction). A checksum that is wrong, where a
//! replay stops or goes on according to its version, is an error.

use super::super::{Fault, damaged};
use super::journal::{Checks, MAGIC, Shape};
use crate::bytes::{array, be32, put};
use crate::checksum::{crc32_be, crc32c};

const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const REVOKE: u32 = 5;

const ESCAPED: u32 = 1;
const SAME_UUID: u32 = 2;
const LAST_TAG: u32 = 8;

/// Bytes of the header of every block that is not data.
const HEADER: usize = 12;
/// Bytes of the checksum at the end of descriptor and revoke blocks.
const TAIL: usize = 4;
/// Place of the checksum in a commit block.
const COMMIT_CHECKSUM: usize = 16;

/// What a transaction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// It writes block `target` of the file system.
    Write(Write),
    /// This transaction, by its number as in [`Write`], and older ones must not write this
    /// block of the file system.
    Revoke(u64, u32),
}

/// A logged block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Write {
    pub target: u64,
    /// Block of the journal that holds the content.
    pub at: u64,
    /// Its first four bytes were replaced; see [`unescape`].
    pub escaped: bool,
    /// Which transaction, counted from the oldest one.
    pub transaction: u32,
}

/// Gives a logged block back the first bytes that it must not have in the journal.
pub(super) fn unescape(block: &mut [u8]) {
    put(block, 0, &MAGIC.to_be_bytes());
}

/// Calls `found` for everything that is logged, in the order of the log, the last
/// transaction included even if it was never committed. Returns how many were.
pub(super) fn walk(
    shape: &Shape,
    read: impl Fn(u64) -> Result<Vec<u8>, Fault>,
    mut found: impl FnMut(Record) -> Result<(), Fault>,
) -> Result<u32, Fault> {
    let mut walk = Walk {
        shape,
        read,
        at: shape.start,
        left: shape.last - shape.first,
        sequence: shape.sequence,
        transaction: 0,
        sum: !0,
        wrong: None,
    };
    while walk.step(&mut found)? {}
    match walk.wrong {
        Some((transaction, at)) if transaction < walk.transaction => {
            damaged(format!("wrong checksum of block {at} of its journal"))
        }
        _ => Ok(walk.transaction),
    }
}

struct Walk<'a, R> {
    shape: &'a Shape,
    read: R,
    /// The next block.
    at: u64,
    /// Blocks that were not visited yet.
    left: u64,
    /// Number of the current transaction.
    sequence: u32,
    /// The same, counted from 0.
    transaction: u32,
    /// CRC-32 of the transaction so far.
    sum: u32,
    /// First data block with a wrong checksum: its transaction and its place.
    wrong: Option<(u32, u64)>,
}

impl<R: Fn(u64) -> Result<Vec<u8>, Fault>> Walk<'_, R> {
    /// Place of the next block, which is then behind.
    fn pass(&mut self) -> Result<u64, Fault> {
        let Some(left) = self.left.checked_sub(1) else {
            return damaged("a transaction in its journal is longer than the journal");
        };
        self.left = left;
        let at = self.at;
        self.at = if at + 1 == self.shape.last {
            self.shape.first
        } else {
            at + 1
        };
        Ok(at)
    }

    /// One block with a header and what belongs to it; false at the end of the log.
    fn step(&mut self, found: &mut impl FnMut(Record) -> Result<(), Fault>) -> Result<bool, Fault> {
        let block = (self.read)(self.at)?;
        if be32(&block, 0) != Some(MAGIC) || be32(&block, 8) != Some(self.sequence) {
            return Ok(false);
        }
        let kind = be32(&block, 4);
        if !matches!(kind, Some(DESCRIPTOR | COMMIT | REVOKE)) {
            return Ok(false);
        }
        let at = self.pass()?;
        if !self.block_is_right(&block, kind == Some(COMMIT)) {
            return damaged(format!("wrong checksum of block {at} of its journal"));
        }
        match kind {
            Some(DESCRIPTOR) => self.descriptor(&block, found)?,
            Some(REVOKE) => self.revoked(&block, found)?,
            _ => self.commit(&block, at)?,
        }
        Ok(true)
    }

    /// Whether the block's own CRC-32C is right, if it has one.
    fn block_is_right(&self, block: &[u8], commit: bool) -> bool {
        if matches!(self.shape.checks, Checks::None | Checks::Commit) {
            return true;
        }
        let place = if commit {
            COMMIT_CHECKSUM
        } else {
            block.len().saturating_sub(TAIL)
        };
        let head = block.get(..place).unwrap_or_default();
        let rest = block.get(place + 4..).unwrap_or_default();
        let crc = crc32c(crc32c(self.shape.seed, head), &[0; 4]);
        be32(block, place) == Some(crc32c(crc, rest))
    }

    fn descriptor(
        &mut self,
        block: &[u8],
        found: &mut impl FnMut(Record) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if self.shape.checks == Checks::Commit {
            self.sum = crc32_be(self.sum, block);
        }
        for tag in tags(self.shape, block) {
            let at = self.pass()?;
            if tag.target >= self.shape.blocks {
                return damaged("its journal writes to a block outside");
            }
            self.check_data(&tag, at)?;
            found(Record::Write(Write {
                target: tag.target,
                at,
                escaped: tag.flags & ESCAPED != 0,
                transaction: self.transaction,
            }))?;
        }
        Ok(())
    }

    /// Data of a transaction that was never committed may be anything.
    fn check_data(&mut self, tag: &Tag, at: u64) -> Result<(), Fault> {
        let mask = match self.shape.checks {
            Checks::None => return Ok(()),
            Checks::Commit => {
                self.sum = crc32_be(self.sum, &(self.read)(at)?);
                return Ok(());
            }
            Checks::Short => 0xffff,
            Checks::Full => u32::MAX,
        };
        let own = self.sequence.to_be_bytes();
        let crc = crc32c(crc32c(self.shape.seed, &own), &(self.read)(at)?);
        if crc & mask != tag.checksum {
            self.wrong.get_or_insert((self.transaction, at));
        }
        Ok(())
    }

    fn revoked(
        &self,
        block: &[u8],
        found: &mut impl FnMut(Record) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let end = be32(block, HEADER).map_or(0, |bytes| bytes as usize);
        let Some(list) = block.get(HEADER + 4..end) else {
            return damaged("a list of revoked blocks in its journal is damaged");
        };
        let size = if self.shape.wide { 8 } else { 4 };
        for number in list.chunks_exact(size) {
            let block = number
                .iter()
                .fold(0, |all, &byte| all << 8 | u64::from(byte));
            found(Record::Revoke(block, self.transaction))?;
        }
        Ok(())
    }

    fn commit(&mut self, block: &[u8], at: u64) -> Result<(), Fault> {
        if self.shape.checks == Checks::Commit {
            let kind = array::<2>(block, HEADER).unwrap_or_default();
            let written = be32(block, COMMIT_CHECKSUM).unwrap_or(0);
            // CRC-32 of four bytes, or none at all.
            let right = match kind {
                [1, 4] => written == self.sum,
                kind => kind == [0, 0] && written == 0,
            };
            if !right {
                return damaged(format!("wrong checksum of block {at} of its journal"));
            }
        }
        self.sum = !0;
        self.sequence = self.sequence.wrapping_add(1);
        self.transaction += 1;
        Ok(())
    }
}

/// An entry of a descriptor block.
struct Tag {
    target: u64,
    flags: u32,
    checksum: u32,
}

/// The entries of a descriptor block.
fn tags(shape: &Shape, block: &[u8]) -> Vec<Tag> {
    let size = match (shape.checks, shape.wide) {
        (Checks::Full, _) => 16,
        (Checks::Short, true) => 14,
        (Checks::Short, false) => 10,
        (_, true) => 12,
        (_, false) => 8,
    };
    let tail = match shape.checks {
        Checks::Short | Checks::Full => TAIL,
        _ => 0,
    };
    let end = block.len().saturating_sub(tail);
    let half = |at| array(block, at).map_or(0, |b| u32::from(u16::from_be_bytes(b)));
    let word = |at| be32(block, at).unwrap_or(0);
    let mut list = Vec::new();
    let mut at = HEADER;
    while at + size <= end {
        let high = if shape.wide { word(at + 8) } else { 0 };
        let (flags, checksum) = match shape.checks {
            Checks::Full => (word(at + 4), word(at + 12)),
            _ => (half(at + 6), half(at + 4)),
        };
        list.push(Tag {
            target: u64::from(word(at)) | u64::from(high) << 32,
            flags,
            checksum,
        });
        at += size;
        if flags & SAME_UUID == 0 {
            at += 16;
        }
        if flags & LAST_TAG != 0 {
            break;
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::{Checks, MAGIC, Record, Shape, Write, unescape, walk};
    use crate::fs::Fault;

    const BLOCK: usize = 1024;

    fn shape(start: u64) -> Shape {
        Shape {
            block_size: BLOCK,
            first: 1,
            last: 9,
            start,
            sequence: u32::MAX,
            checks: Checks::None,
            wide: false,
            seed: 0,
            blocks: 1000,
        }
    }

    /// A block with a header and big-endian words behind it.
    fn block(kind: u32, sequence: u32, words: &[u32]) -> Vec<u8> {
        let mut block: Vec<u8> = [MAGIC, kind, sequence]
            .iter()
            .chain(words)
            .flat_map(|word| word.to_be_bytes())
            .collect();
        block.resize(BLOCK, 0);
        block
    }

    /// The tags of a descriptor for these blocks; the first one is escaped and has a UUID.
    fn tags(targets: &[u32]) -> Vec<u32> {
        let mut words = Vec::new();
        for (number, target) in targets.iter().enumerate() {
            let last = if number + 1 == targets.len() { 8 } else { 0 };
            words.extend([*target, last | if number == 0 { 1 } else { 2 }]);
            if number == 0 {
                words.extend([0; 4]);
            }
        }
        words
    }

    fn run(shape: &Shape, log: &[Vec<u8>]) -> Result<(u32, Vec<Record>), Fault> {
        let mut records = Vec::new();
        let read = |at: u64| Ok(log.get(at as usize).cloned().unwrap_or(vec![0; BLOCK]));
        let committed = walk(shape, read, |record| {
            records.push(record);
            Ok(())
        })?;
        Ok((committed, records))
    }

    /// Transactions -1, 0 and 1; the first goes over the end, the last has no commit.
    fn log() -> Vec<Vec<u8>> {
        let data = vec![7; BLOCK];
        vec![
            vec![],
            data.clone(),
            block(2, u32::MAX, &[]),
            block(5, 0, &[24, 50, 60]),
            block(2, 0, &[]),
            block(1, 1, &tags(&[80])),
            data.clone(),
            block(1, u32::MAX, &tags(&[10, 20])),
            data,
        ]
    }

    #[test]
    fn over_the_end_of_the_log_and_of_the_numbers() {
        let (committed, records) = run(&shape(7), &log()).ok().unwrap();
        assert_eq!(committed, 2);
        let write = |target, at, escaped, transaction| {
            Record::Write(Write {
                target,
                at,
                escaped,
                transaction,
            })
        };
        let wanted = [
            write(10, 8, true, 0),
            write(20, 1, false, 0),
            Record::Revoke(50, 1),
            Record::Revoke(60, 1),
            write(80, 6, true, 2),
        ];
        assert_eq!(records, wanted);
        let mut first = vec![0; 8];
        unescape(&mut first);
        assert_eq!(first, [0xc0, 0x3b, 0x39, 0x98, 0, 0, 0, 0]);
    }

    #[test]
    fn block_numbers_of_64_bits() {
        let wide = Shape {
            wide: true,
            blocks: 1 << 40,
            ..shape(1)
        };
        let log = [
            vec![],
            block(1, u32::MAX, &[10, 2, 1, 20, 8 | 2, 0]),
            vec![],
            vec![],
            block(5, u32::MAX, &[32, 1, 50, 0, 60]),
        ];
        let (_, records) = run(&wide, &log).ok().unwrap();
        let targets: Vec<u64> = records
            .iter()
            .map(|record| match record {
                Record::Write(write) => write.target,
                Record::Revoke(block, _) => *block,
            })
            .collect();
        assert_eq!(targets, [1 << 32 | 10, 20, 1 << 32 | 50, 60]);
    }

    #[test]
    fn the_walk_ends_at_what_is_not_of_it() {
        for other in [
            vec![0; BLOCK],
            block(1, 5, &tags(&[1])),
            block(3, u32::MAX, &[]),
        ] {
            assert!(matches!(run(&shape(1), &[vec![], other]), Ok((0, none)) if none.is_empty()));
        }
    }

    #[test]
    fn lies_are_seen() {
        let whole: Vec<u32> = (0..20).collect();
        for wrong in [
            // More data than the log has room for, a block outside, an odd length.
            block(1, u32::MAX, &tags(&whole)),
            block(1, u32::MAX, &tags(&[1000])),
            block(5, u32::MAX, &[8]),
            block(5, u32::MAX, &[1025]),
        ] {
            let outcome = run(&shape(1), &[vec![], wrong]);
            assert!(matches!(outcome, Err(Fault::Damaged(_))));
        }
        // A log that is nothing but one transaction without an end.
        let log = vec![block(5, u32::MAX, &[16]); 9];
        assert!(matches!(run(&shape(1), &log), Err(Fault::Damaged(_))));
    }
}
