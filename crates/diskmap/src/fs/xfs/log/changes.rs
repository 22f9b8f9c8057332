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
    /// Map of the chunks of the superblock that follow, if it is that.
    chunks: Option<Vec<u8>>,
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
            item.chunks = Some(map.to_vec());
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
    fn superblock_chunk(&mut self, item: &Item) -> Result<(), Fault> {
        let Some(map) = &item.chunks else {
            return Ok(());
        };
        let Some(start) = run(map, usize::from(item.begun) - 2).map(|bit| bit * CHUNK) else {
            return confused();
        };
        let end = start + item.region.len();
        for (from, to) in GEOMETRY {
            let (from, to) = (from.max(start), to.min(end));
            if from < to && self.sb.bytes(from..to) != item.region.get(from - start..to - start) {
                return concerned();
            }
        }
        Ok(())
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

/// First bit of the run of set bits with the given number.
fn run(map: &[u8], number: usize) -> Option<usize> {
    let bit = |at: usize| {
        map.get(at / 8)
            .is_some_and(|byte| byte >> (at % 8) & 1 == 1)
    };
    (0..map.len() * 8)
        .filter(|&at| bit(at) && (at == 0 || !bit(at - 1)))
        .nth(number)
}

fn concerned() -> Result<(), Fault> {
    dirty("its log has to be replayed, which changes the free space")
}

fn confused() -> Result<(), Fault> {
    dirty("its log has to be replayed, and is not understood")
}
