//! The journal: where it is, what its superblock says, and whether it is empty.
//!
//! Owns: the journal's own superblock (jbd2, big-endian, at the start of its file) and
//! reading a block of it. Does not own: walking its transactions (`log`).

use super::super::{Fault, damaged};
use super::inode::{Blocks, Inode};
use super::verdict::State;
use super::{Superblock, log};
use crate::bytes::{array, be32};
use crate::checksum::crc32c;
use crate::extents::{Extent, Extents};
use crate::view::View;

pub(super) const MAGIC: u32 = 0xc03b_3998;
const SUPERBLOCK: usize = 1024;
/// Longest journal that is read, in blocks: more than any tool makes.
const MAX_LEN: u64 = 1 << 24;

const CHECKSUM: u32 = 0x1;

mod incompat {
    pub const REVOKE: u32 = 0x1;
    pub const B64: u32 = 0x2;
    pub const ASYNC_COMMIT: u32 = 0x4;
    pub const CSUM_V2: u32 = 0x8;
    pub const CSUM_V3: u32 = 0x10;
    pub const FAST_COMMIT: u32 = 0x20;
    pub const KNOWN: u32 = REVOKE | B64 | ASYNC_COMMIT | CSUM_V2 | CSUM_V3 | FAST_COMMIT;
}

/// How blocks of the log are verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checks {
    None,
    /// One CRC-32 for a transaction, in its commit block.
    Commit,
    /// A CRC-32C in every block, of which 16 bits are kept for data blocks.
    Short,
    /// A CRC-32C in every block.
    Full,
}

/// What a walk of the log needs. Block numbers count from the start of the journal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub block_size: usize,
    /// First block of the log, behind the superblock.
    pub first: u64,
    /// First block past the log.
    pub last: u64,
    /// Where the oldest transaction starts.
    pub start: u64,
    /// Its number.
    pub sequence: u32,
    pub checks: Checks,
    /// Block numbers have 64 bits.
    pub wide: bool,
    /// Start value of the checksums.
    pub seed: u32,
    /// Blocks of the file system: none beyond is ever written.
    pub blocks: u64,
}

/// A journal with transactions in it.
pub(super) struct Journal<'a> {
    /// The file of the journal as a space of its own.
    pub view: View<'a>,
    pub shape: Shape,
    /// Its blocks and those of its tree, in blocks of the file system.
    pub places: Extents,
}

/// Opens the journal if it holds transactions that are to be replayed. Refuses one that
/// is elsewhere, damaged, not understood, or not empty where it should be.
pub(super) fn open<'a>(
    view: &View<'a>,
    sb: &Superblock,
    state: State,
) -> Result<Option<Journal<'a>>, Fault> {
    if !sb.has_journal() {
        return Ok(None);
    }
    let Some(number) = sb.journal_inode() else {
        return Err(Fault::Dirty("its journal is on another disk".into()));
    };
    let inode = Inode::read(view, sb, number)?;
    let first = inode.blocks(view, sb, 1, true)?;
    let start = first.runs.first().map_or(0, |run| run.start);
    let head = Head::decode(view.bytes(start * sb.block_size, SUPERBLOCK)?)?;
    if head.field(0x20) != 0 {
        return Err(Fault::Dirty("its journal recorded an error".into()));
    }
    match (state, head.field(0x1c)) {
        (_, 0) => return Ok(None),
        (State::Replay, _) => {}
        _ => return Err(Fault::Dirty("its journal is not empty".into())),
    }
    let shape = head.shape(sb)?;
    if shape.last > inode.size() / sb.block_size {
        return damaged("its journal is shorter than it says");
    }
    let blocks = inode.blocks(view, sb, shape.last, false)?;
    Ok(Some(Journal {
        places: places(&blocks)?,
        view: joined(view, sb, &blocks)?,
        shape,
    }))
}

/// Every block of the journal once.
fn places(blocks: &Blocks) -> Result<Extents, Fault> {
    let mut all = blocks.runs.clone();
    all.extend(blocks.tree.iter().map(|&start| Extent { start, len: 1 }));
    all.sort_unstable();
    if all.windows(2).any(|pair| pair[0].end() > pair[1].start) {
        return damaged("parts of its journal lie upon each other");
    }
    Ok(all.into_iter().collect())
}

fn joined<'a>(view: &View<'a>, sb: &Superblock, blocks: &Blocks) -> Result<View<'a>, Fault> {
    let bytes = |run: &Extent| Extent {
        start: run.start * sb.block_size,
        len: run.len * sb.block_size,
    };
    let parts: Vec<Extent> = blocks.runs.iter().map(bytes).collect();
    match view.joined(&parts) {
        Some(joined) => Ok(joined),
        None => damaged("its journal lies outside"),
    }
}

impl Journal<'_> {
    /// A block of the log as it is.
    pub fn block(&self, at: u64) -> Result<Vec<u8>, Fault> {
        let size = self.shape.block_size;
        Ok(self.view.bytes(at * size as u64, size)?)
    }

    /// A block that replay would write, as it would write it.
    pub fn content(&self, at: u64, escaped: bool) -> Result<Vec<u8>, Fault> {
        let mut block = self.block(at)?;
        if escaped {
            log::unescape(&mut block);
        }
        Ok(block)
    }
}

/// The journal's superblock.
struct Head {
    raw: Vec<u8>,
    /// The second version has features and a UUID.
    second: bool,
}

impl Head {
    fn decode(raw: Vec<u8>) -> Result<Head, Fault> {
        let second = match (be32(&raw, 0), be32(&raw, 4)) {
            (Some(MAGIC), Some(3)) => false,
            (Some(MAGIC), Some(4)) => true,
            _ => return damaged("its journal does not start with a journal superblock"),
        };
        Ok(Head { raw, second })
    }

    fn field(&self, at: usize) -> u32 {
        be32(&self.raw, at).unwrap_or(0)
    }

    /// A field that only the second version has.
    fn later(&self, at: usize) -> u32 {
        if self.second { self.field(at) } else { 0 }
    }

    fn checks(&self) -> Result<Checks, Fault> {
        let (compat, incompat) = (self.later(0x24), self.later(0x28));
        let (short, full) = (incompat::CSUM_V2, incompat::CSUM_V3);
        let checks = match (compat & CHECKSUM, incompat & (short | full)) {
            (0, 0) => Checks::None,
            (CHECKSUM, 0) => Checks::Commit,
            (0, bit) if bit == short => Checks::Short,
            (0, bit) if bit == full => Checks::Full,
            _ => return damaged("its journal has checksums of two kinds"),
        };
        if matches!(checks, Checks::Short | Checks::Full) {
            let mut zeroed = self.raw.clone();
            zeroed[0xfc..0x100].fill(0);
            if self.raw.get(0x50) != Some(&4) || self.field(0xfc) != crc32c(!0, &zeroed) {
                return damaged("wrong checksum of its journal's superblock");
            }
        }
        Ok(checks)
    }

    fn shape(&self, sb: &Superblock) -> Result<Shape, Fault> {
        let (compat, incompat, ro_compat) = (self.later(0x24), self.later(0x28), self.later(0x2c));
        let odd = compat & !CHECKSUM | incompat & !incompat::KNOWN | ro_compat;
        if odd != 0 {
            return Err(Fault::Dirty("its journal uses unknown features".into()));
        }
        // They hold blocks of which only the kernel that wrote them knows what follows,
        // and versions of the kernel disagree about where the log before them ends.
        if incompat & incompat::FAST_COMMIT != 0 {
            return Err(Fault::Dirty("its journal may hold fast commits".into()));
        }
        let checks = self.checks()?;
        let uuid = array::<16>(&self.raw, 0x30).unwrap_or_default();
        let wide = |at| u64::from(self.field(at));
        let shape = Shape {
            block_size: sb.block_size as usize,
            first: wide(0x14),
            last: wide(0x10),
            start: wide(0x1c),
            sequence: self.field(0x18),
            checks,
            wide: incompat & incompat::B64 != 0,
            seed: crc32c(!0, &uuid),
            blocks: sb.blocks,
        };
        let inside = shape.first > 0
            && (shape.first..shape.last).contains(&shape.start)
            && shape.last <= sb.blocks.min(MAX_LEN);
        if wide(0x0c) != sb.block_size || !inside {
            return damaged("the sizes in its journal's superblock are impossible");
        }
        Ok(shape)
    }
}

#[cfg(test)]
mod tests {
    use super::super::superblock::tests::superblock;
    use super::{Checks, Fault, Head, MAGIC, places};
    use crate::checksum::crc32c;
    use crate::extents::Extent;
    use crate::fs::ext::inode::Blocks;

    /// 100 blocks of 1 KiB, transactions from block 7 on.
    fn raw(kind: u32, fields: &[(usize, u32)]) -> Vec<u8> {
        let mut raw = vec![0u8; 1024];
        let usual = [(0, MAGIC), (4, kind), (0x0c, 1024), (0x10, 100), (0x14, 1)];
        let rest = [(0x18, 5), (0x1c, 7)];
        for &(at, value) in usual.iter().chain(&rest).chain(fields) {
            raw[at..at + 4].copy_from_slice(&value.to_be_bytes());
        }
        raw
    }

    fn shape(raw: Vec<u8>) -> Result<super::Shape, Fault> {
        Head::decode(raw)?.shape(&superblock(4, 4, 1))
    }

    #[test]
    fn both_versions_and_their_features() {
        let old = shape(raw(3, &[(0x24, 1), (0x28, 0x20)])).ok().unwrap();
        assert_eq!((old.checks, old.wide), (Checks::None, false));
        assert_eq!(
            (old.first, old.last, old.start, old.sequence),
            (1, 100, 7, 5)
        );
        let new = shape(raw(4, &[(0x24, 1), (0x28, 7)])).ok().unwrap();
        assert_eq!((new.checks, new.wide), (Checks::Commit, true));
        for bit in [8, 0x10] {
            let mut bytes = raw(4, &[(0x28, bit)]);
            assert!(matches!(shape(bytes.clone()), Err(Fault::Damaged(_))));
            bytes[0x50] = 4;
            let crc = crc32c(!0, &bytes);
            bytes[0xfc..0x100].copy_from_slice(&crc.to_be_bytes());
            assert!(shape(bytes).is_ok(), "{bit:#x}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (at, value) in [(0x24, 2), (0x28, 0x40), (0x28, 0x20), (0x2c, 1)] {
            let verdict = shape(raw(4, &[(at, value)]));
            assert!(
                matches!(verdict, Err(Fault::Dirty(_))),
                "{at:#x} {value:#x}"
            );
        }
        for (at, value) in [
            (0, 1),
            (4, 2),
            (0x0c, 2048),
            (0x10, 1 << 30),
            (0x10, 7),
            (0x14, 0),
            (0x14, 8),
            (0x28, 0x18),
        ] {
            let verdict = shape(raw(4, &[(at, value)]));
            assert!(
                matches!(verdict, Err(Fault::Damaged(_))),
                "{at:#x} {value:#x}"
            );
        }
    }

    #[test]
    fn blocks_that_are_there_twice_are_refused() {
        let run = |start| Extent { start, len: 10 };
        let blocks = |runs, tree| Blocks { runs, tree, len: 0 };
        let good = places(&blocks(vec![run(30), run(10)], vec![20]))
            .ok()
            .unwrap();
        assert_eq!(good.total(), 21);
        assert!(places(&blocks(vec![run(30), run(39)], vec![])).is_err());
        assert!(places(&blocks(vec![run(30), run(10)], vec![19])).is_err());
    }
}
