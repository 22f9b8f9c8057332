//! What a replay of the log would change.
//!
//! Owns: putting the operations of the log together to items, and whether any of these
//! concerns the free space. Does not own: replaying them.
//!
//! Every change of the free space changes the header of its group too, because the counter
//! of free blocks stands there, and that change is logged as an item of its own. The tail
//! of the log stands behind everything that is in its place on the disk already. So if no
//! item from the tail on concerns a header of free space or a free list, those and the
//! trees on the disk are what they will be after the replay. What the kernel does after
//! that (frees what was deleted or left over, finishes what was intended) only frees
//! blocks, or takes free ones and writes them itself.

use super::super::super::Fault;
use super::super::superblock::Superblock;
use super::active::Operation;
use super::{SECTOR, dirty};
use crate::bytes::{le16, le32, le64};
use crate::extents::{Extent, Extents};
use std::collections::HashMap;

/// Flags of operations.
mod flag {
    pub const START: u8 = 0x01;
    pub const COMMIT: u8 = 0x02;
    pub const CONTINUES: u8 = 0x04;
    pub const CONTINUED: u8 = 0x08;
    pub const END: u8 = 0x10;
    pub const UNMOUNT: u8 = 0x20;
}
/// Number of a logged buffer among the kinds of items.
const BUFFER: u16 = 0x123c;
/// All kinds from freed extents to exchanged mappings, on the data device.
const KINDS: std::ops::RangeInclusive<u16> = 0x1236..=0x1249;
/// The buffer's blocks were freed; it is not replayed.
const CANCELLED: u16 = 0x2;
/// Bytes that one bit of a buffer's map stands for.
const CHUNK: usize = 128;
/// Bytes of a transaction's header.
const HEADER: usize = 16;
const HEADER_MAGIC: u32 = 0x5452_414e;
/// Parts of the superblock that decide where things lie: the fields up to the counters,
/// flags and geometry up to the features, the metadata's UUID.
const GEOMETRY: [(usize, usize); 3] = [(0, 128), (178, 220), (248, 264)];
/// Most transactions at once, most buffers, and most bytes of a region that is looked
/// into: more than a kernel writes or than matters.
const MOST_OPEN: usize = 1024;
const MOST_BUFFERS: usize = 1 << 20;
const MOST_BYTES: usize = 64 << 10;

/// Collects what the log changes; ends with a fault where free space is concerned.
pub(super) struct Changes<'a> {
    sb: &'a Superblock,
    open: HashMap<u32, Transaction>,
    buffers: Vec<Extent>,
}

/// A transaction that was started.
#[derive(Default)]
struct Transaction {
    /// Bytes of its header that came so far.
    header: Vec<u8>,
    item: Item,
}

/// The item that is being put together.
#[derive(Default)]
struct Item {
    /// Regions that it has; 0 as long as that is not known.
    regions: u16,
    /// Regions that have begun.
    begun: u16,
    /// Bytes of the region that began last, if they matter.
    region: Vec<u8>,
    /// What follows of the superblock, if it is that.
    chunks: Option<Chunks>,
}

impl<'a> Changes<'a> {
    pub fn new(sb: &'a Superblock) -> Changes<'a> {
        Changes {
            sb,
            open: HashMap::new(),
            buffers: Vec::new(),
        }
    }

    /// The bytes on the disk that are changed, without inodes.
    pub fn finish(self) -> Extents {
        self.buffers.into_iter().collect()
    }

    /// Takes in the next operation of the log, as the kernel does.
    pub fn add(&mut self, operation: &Operation<'_>) -> Result<(), Fault> {
        let Some(mut transaction) = self.open.remove(&operation.transaction) else {
            // The rest of a transaction that began before the tail is not replayed.
            if operation.flags & flag::START == 0 {
                return Ok(());
            }
            if !operation.data.is_empty() || self.open.len() == MOST_OPEN {
                return confused();
            }
            self.open
                .insert(operation.transaction, Transaction::default());
            return Ok(());
        };
        let mut flags = operation.flags & !flag::END;
        if flags & flag::CONTINUED != 0 {
            flags &= !flag::CONTINUES;
        }
        match flags {
            0 | flag::CONTINUES => self.begin(&mut transaction, operation.data)?,
            flag::CONTINUED => transaction.go_on(operation.data),
            flag::COMMIT => return self.region_done(&mut transaction.item),
            flag::UNMOUNT => return Ok(()),
            _ => return confused(),
        }
        self.open.insert(operation.transaction, transaction);
        Ok(())
    }

    /// A new region: of the header, of the item, or of a new item.
    fn begin(&mut self, transaction: &mut Transaction, data: &[u8]) -> Result<(), Fault> {
        if data.is_empty() {
            return Ok(());
        }
        if transaction.header.len() < HEADER {
            if le32(data, 0) != Some(HEADER_MAGIC) || data.len() > HEADER {
                return confused();
            }
            transaction.header = data.to_vec();
            return Ok(());
        }
        self.region_done(&mut transaction.item)?;
        let item = &mut transaction.item;
        if item.regions == item.begun {
            *item = Item::default();
        }
        item.begun += 1;
        item.region.clear();
        item.append(data);
        Ok(())
    }

    /// All of the last region is there.
    fn region_done(&mut self, item: &mut Item) -> Result<(), Fault> {
        match item.begun {
            0 => Ok(()),
            1 => self.description(item),
            _ => self.superblock_chunk(item),
        }
    }

    /// The first region of an item, which says what it is.
    fn description(&mut self, item: &mut Item) -> Result<(), Fault> {
        let (Some(kind), Some(regions)) = (le16(&item.region, 0), le16(&item.region, 2)) else {
            return confused();
        };
        if regions == 0 || !KINDS.contains(&kind) {
            return confused();
        }
        item.regions = regions;
        if kind == BUFFER {
            self.buffer(item)?;
        }
        Ok(())
    }

    fn buffer(&mut self, item: &mut Item) -> Result<(), Fault> {
        let fields = (|| {
            let flags = le16(&item.region, 4)?;
            let len = u64::from(le16(&item.region, 6)?) * SECTOR;
            let start = le64(&item.region, 8)?.checked_mul(SECTOR)?;
            let words = le32(&item.region, 16)? as usize;
            let map = item.region.get(20..)?.get(..words.checked_mul(4)?)?;
            Some((flags, start, len, map))
        })();
        let Some((flags, start, len, map)) = fields else {
            return confused();
        };
        if flags & CANCELLED != 0 {
            return Ok(());
        }
        let inside = start.checked_add(len);
        if len == 0 || inside.is_none_or(|end| end > self.sb.size_bytes()) {
            return dirty("its log has to be replayed, and changes something outside");
        }
        let (sector, group) = (self.sb.sector_size, self.sb.offset(1, 0));
        let within = start % group;
        if start == 0 && len <= sector {
            let map = map.to_vec();
            item.chunks = Some(Chunks { map, next: 0 });
        } else if within + len > group || (within < 4 * sector && !inodes(within, len, sector)) {
            return concerned();
        }
        if self.buffers.len() == MOST_BUFFERS {
            return concerned();
        }
        self.buffers.push(Extent { start, len });
        Ok(())
    }

    /// A region of the superblock: it must not change where things lie.
    fn superblock_chunk(&mut self, item: &mut Item) -> Result<(), Fault> {
        let Some(chunks) = &mut item.chunks else {
            return Ok(());
        };
        let count = item.region.len() / CHUNK;
        let Some(start) = chunks
            .take(count)
            .filter(|_| item.region.len().is_multiple_of(CHUNK))
        else {
            return confused();
        };
        let (start, end) = (start * CHUNK, (start + count) * CHUNK);
        for (from, to) in GEOMETRY {
            let (from, to) = (from.max(start), to.min(end));
            if from < to && self.sb.bytes(from..to) != item.region.get(from - start..to - start) {
                return concerned();
            }
        }
        Ok(())
    }
}

/// Which chunks of a buffer follow in the log, each run of them in a region of its own or
/// in several.
struct Chunks {
    /// A bit for each.
    map: Vec<u8>,
    /// The first that was not taken yet.
    next: usize,
}

impl Chunks {
    /// Takes the next `count`, which lie one behind the other; the first of them.
    fn take(&mut self, count: usize) -> Option<usize> {
        let set = |at: &usize| self.map.get(at / 8).is_some_and(|b| b >> (at % 8) & 1 == 1);
        let start = (self.next..self.map.len() * 8).find(set)?;
        self.next = start.checked_add(count)?;
        (count > 0 && (start..self.next).all(|at| set(&at))).then_some(start)
    }
}

impl Transaction {
    /// More of what the last operation was part of.
    fn go_on(&mut self, data: &[u8]) {
        if self.header.len() < HEADER {
            self.header.extend(data);
        } else {
            self.item.append(data);
        }
    }
}

impl Item {
    fn append(&mut self, data: &[u8]) {
        let matters = self.begun < 2 || self.chunks.is_some();
        if matters && self.region.len() + data.len() <= MOST_BYTES {
            self.region.extend(data);
        }
    }
}

/// Whether bytes within a group are those of the inodes' header, the third sector.
fn inodes(within: u64, len: u64, sector: u64) -> bool {
    within >= 2 * sector && within + len <= 3 * sector
}

fn concerned() -> Result<(), Fault> {
    dirty("its log has to be replayed, which changes the free space")
}

fn confused() -> Result<(), Fault> {
    dirty("its log has to be replayed, and is not understood")
}

#[cfg(test)]
mod tests {
    use super::super::super::superblock::{Superblock, tests::plain};
    use super::super::active::Operation;
    use super::{Changes, Chunks, HEADER_MAGIC, flag};
    use crate::extents::Extent;

    /// The outcome of a transaction with the given regions: the buffers it changes.
    fn outcome(regions: &[Vec<u8>]) -> Option<Vec<Extent>> {
        let sb = Superblock::decode(plain()).unwrap();
        let mut changes = Changes::new(&sb);
        let mut add = |flags, data: &[u8]| {
            let transaction = 7;
            changes
                .add(&Operation {
                    transaction,
                    flags,
                    data,
                })
                .ok()
        };
        add(flag::START, &[])?;
        let mut header = HEADER_MAGIC.to_le_bytes().to_vec();
        header.resize(16, 0);
        // Cut, as at the end of a record.
        add(flag::CONTINUES, &header[..8])?;
        add(flag::CONTINUED | flag::END, &header[8..])?;
        for region in regions {
            let half = region.len() / 8 * 4;
            add(flag::CONTINUES, &region[..half])?;
            add(flag::CONTINUED | flag::CONTINUES, &[])?;
            add(flag::CONTINUED | flag::END, &region[half..])?;
        }
        add(flag::COMMIT, &[])?;
        Some(changes.finish().as_slice().to_vec())
    }

    /// The description of a buffer whose first two chunks follow, in one region.
    fn buffer(flags: u16, block: u64, len: u16) -> Vec<u8> {
        let mut region = vec![0x3c, 0x12, 2, 0];
        region.extend(flags.to_le_bytes());
        region.extend(len.to_le_bytes());
        region.extend(block.to_le_bytes());
        region.extend([1, 0, 0, 0, 3, 0, 0, 0]);
        region
    }

    #[test]
    fn buffers_anywhere_but_in_the_headers_of_groups() {
        let content = vec![1; 256];
        let group = 4096 * 8;
        let changed = |block, len| outcome(&[buffer(0, block, len), content.clone()]);
        let extent = |block: u64, len: u64| {
            let (start, len) = (block * 512, len * 512);
            Some(vec![Extent { start, len }])
        };
        assert_eq!(changed(group + 8, 8), extent(group + 8, 8));
        // The header of the inodes.
        assert_eq!(changed(group + 2, 1), extent(group + 2, 1));
        for (block, len) in [
            (group, 1),
            (group + 1, 1),
            (group + 3, 1),
            (1, 1),
            (3, 1),
            (2, 2),
            (group - 8, 9),
            (group, 0),
            (4 * group, 8),
            (u64::MAX / 512, 8),
        ] {
            assert_eq!(changed(block, len), None, "{block} {len}");
        }
        // Freed blocks are not written.
        let freed = [buffer(2, group + 8, 8), content];
        assert_eq!(outcome(&freed), Some(vec![]));
    }

    #[test]
    fn a_superblock_of_the_same_shape() {
        let mut content = plain()[..256].to_vec();
        content[144] = 9;
        let changed = |content: &Vec<u8>| outcome(&[buffer(0, 0, 1), content.clone()]).is_some();
        assert!(changed(&content));
        for at in [15, 88, 127, 200, 216, 255] {
            content[at] ^= 1;
            assert!(!changed(&content), "{at}");
            content[at] ^= 1;
        }
        content.pop();
        assert!(!changed(&content));
    }

    #[test]
    fn what_is_not_understood() {
        let kind = |kind: u16, regions: u16| {
            let mut region = kind.to_le_bytes().to_vec();
            region.extend(regions.to_le_bytes());
            region.resize(64, 0);
            region
        };
        // An inode of three regions, and what was intended.
        let inode = [kind(0x123b, 3), vec![0; 96], vec![0; 40], kind(0x1236, 1)];
        assert_eq!(outcome(&inode), Some(vec![]));
        for item in [
            kind(0x123b, 0),
            kind(0x1235, 1),
            kind(0x124a, 1),
            vec![0x3c; 12],
        ] {
            assert_eq!(outcome(&[item]), None);
        }
    }

    #[test]
    fn chunks_follow_their_map() {
        let mut chunks = Chunks {
            map: vec![0b0110_1110, 0b1],
            next: 0,
        };
        assert_eq!(chunks.take(2), Some(1));
        assert_eq!(chunks.take(1), Some(3));
        assert_eq!(chunks.take(2), Some(5));
        assert_eq!(chunks.take(1), Some(8));
        assert_eq!(chunks.take(1), None);
        chunks.next = 0;
        assert_eq!(chunks.take(4), None);
        chunks.next = 0;
        assert_eq!(chunks.take(0), None);
    }
}
