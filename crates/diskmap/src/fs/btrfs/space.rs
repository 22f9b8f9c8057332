//! Which logical addresses are allocated, and where that is on the device.
//!
//! Owns: extent items, block groups, the comparison of their counters, and the used
//! bytes that follow. Does not own: the trees they stand in.

use super::super::{Fault, damaged};
use super::chunk::{self, Chunk, Chunks};
use super::node::{Format, Item};
use super::superblock::unsupported;
use crate::bytes::le64;
use crate::extents::{Extent, Extents};

/// Kinds of items in the extent tree.
const EXTENT: u8 = 168;
const METADATA: u8 = 169;
/// A block group; also in the block group tree.
pub(super) const GROUP: u8 = 192;
/// References to extents that did not fit into their items: they take no space.
const REFERENCES: [u8; 4] = [176, 178, 182, 184];

/// Flags of an extent item.
const FLAG_DATA: u64 = 1;
const FLAG_TREE: u64 = 2;
const FLAG_FULL_BACKREF: u64 = 1 << 8;

/// Most extents on the device that are kept (16 bytes each, for a moment two or three
/// times).
const LIMIT: usize = 1 << 20;

/// Nothing smaller than this is a gap.
const GAP: u64 = 2048;

/// What is allocated in one chunk.
#[derive(Default)]
struct Account {
    /// Bytes of its extents.
    counted: u64,
    /// What its block group says that is.
    said: Option<u64>,
    /// Its extents, by logical address.
    extents: Extents,
}

/// What is allocated.
pub(super) struct Space<'a> {
    chunks: &'a Chunks,
    format: Format,
    accounts: Vec<Account>,
    /// End of the last extent.
    last: u64,
    /// Extents on the device.
    kept: usize,
    /// Gaps up to this size are copied, too.
    gap: u64,
    limit: usize,
}

impl<'a> Space<'a> {
    /// Nothing is allocated.
    pub fn new(chunks: &'a Chunks, format: Format) -> Space<'a> {
        Space::with_limit(chunks, format, LIMIT)
    }

    fn with_limit(chunks: &'a Chunks, format: Format, limit: usize) -> Space<'a> {
        Space {
            accounts: chunks
                .as_slice()
                .iter()
                .map(|_| Account::default())
                .collect(),
            chunks,
            format,
            last: 0,
            kept: 0,
            gap: GAP,
            limit,
        }
    }

    /// Takes an item of the extent tree, in order; `groups` says whether block groups are
    /// there, too.
    pub fn extent_tree(&mut self, item: &Item<'_>, groups: bool) -> Result<(), Fault> {
        match item.key.kind {
            EXTENT => self.extent(item, item.key.offset, false),
            METADATA if item.key.offset > 7 => damaged(format!(
                "the tree node at {} is too deep",
                item.key.objectid
            )),
            METADATA => self.extent(item, u64::from(self.format.node_size), true),
            GROUP if groups => self.group(item),
            kind if REFERENCES.contains(&kind) => Ok(()),
            kind => unsupported(format!("its extent tree holds items of kind {kind}")),
        }
    }

    fn extent(&mut self, item: &Item<'_>, len: u64, tree: bool) -> Result<(), Fault> {
        let start = item.key.objectid;
        let sector = u64::from(self.format.sector_size);
        let Some(at) = self.chunks.holding(start, len) else {
            return damaged(format!("the extent at {start} is in no chunk"));
        };
        if !start.is_multiple_of(sector) || !len.is_multiple_of(sector) || start < self.last {
            return damaged(format!("the extent at {start} is out of place"));
        }
        let flags = le64(item.data, 16).unwrap_or(0);
        let (chunk, account) = (&self.chunks.as_slice()[at], &mut self.accounts[at]);
        let fits = match flags & !FLAG_FULL_BACKREF {
            FLAG_DATA => !tree && chunk.kind & chunk::DATA != 0,
            FLAG_TREE => {
                len == u64::from(self.format.node_size)
                    && chunk.kind & (chunk::METADATA | chunk::SYSTEM) != 0
            }
            _ => false,
        };
        if item.data.len() < 24 || !fits {
            return damaged(format!("the extent at {start} is of another kind"));
        }
        self.last = start + len;
        // Cannot overflow: extents do not overlap, and the chunk holds them.
        account.counted += len;
        let before = account.extents.len();
        account.extents.push(Extent { start, len });
        self.kept += (account.extents.len() - before) * chunk.copies().count();
        while self.kept > self.limit {
            self.coarsen();
        }
        Ok(())
    }

    /// Makes fewer extents that cover at least the same.
    fn coarsen(&mut self) {
        self.gap = self.gap.saturating_mul(2);
        self.kept = 0;
        for (account, chunk) in self.accounts.iter_mut().zip(self.chunks.as_slice()) {
            account.extents.coarsen(self.gap);
            self.kept += account.extents.len() * chunk.copies().count();
        }
        // One extent for each chunk is as few as it gets.
        if self.gap == u64::MAX {
            self.limit = usize::MAX;
        }
    }

    /// Takes a block group.
    pub fn group(&mut self, item: &Item<'_>) -> Result<(), Fault> {
        let (start, len) = (item.key.objectid, item.key.offset);
        let wrong = || damaged(format!("the block group at {start} has no chunk like it"));
        let Some(at) = self.chunks.holding(start, len) else {
            return wrong();
        };
        let (chunk, account) = (&self.chunks.as_slice()[at], &mut self.accounts[at]);
        if (start, len) != (chunk.logical, chunk.len)
            || item.data.len() != 24
            || le64(item.data, 8) != Some(chunk::OBJECT)
            || le64(item.data, 16) != Some(chunk.kind)
            || account.said.is_some()
        {
            return wrong();
        }
        account.said = le64(item.data, 0);
        Ok(())
    }

    /// Whether what was counted is what the block groups and the superblock say.
    pub fn check_counters(&self, bytes_used: u64) -> Result<(), Fault> {
        let mut sum = 0u64;
        for (account, chunk) in self.accounts.iter().zip(self.chunks.as_slice()) {
            let Some(said) = account.said else {
                return damaged(format!("the chunk at {} has no block group", chunk.logical));
            };
            if said != account.counted {
                return damaged(format!(
                    "{} bytes are in use in the block group at {}, which says {said}",
                    account.counted, chunk.logical
                ));
            }
            sum = sum.saturating_add(said);
        }
        if sum != bytes_used {
            return damaged(format!(
                "{sum} bytes are in use, the superblock says {bytes_used}"
            ));
        }
        Ok(())
    }

    /// The chunk that holds a range, with what is allocated in it.
    pub fn allocated(&self, range: Extent) -> Option<(&Chunk, &Extents)> {
        let at = self.chunks.holding(range.start, range.len)?;
        Some((
            self.chunks.as_slice().get(at)?,
            &self.accounts.get(at)?.extents,
        ))
    }

    /// Whether some of what it says is allocated may be free.
    pub fn is_coarse(&self) -> bool {
        self.gap > GAP
    }

    /// Adds logical addresses that the counters do not know of.
    pub fn add(&mut self, more: &Extents) {
        for (account, chunk) in self.accounts.iter_mut().zip(self.chunks.as_slice()) {
            let inside = more.intersect(chunk.logical..chunk.end());
            if !inside.is_empty() {
                account.extents = account.extents.union(&inside);
            }
        }
    }

    /// Every copy of what is allocated, on the device.
    pub fn on_device(self) -> Extents {
        let chunks = self.chunks.as_slice();
        let all = self.chunks.places().into_iter().flat_map(|(place, at)| {
            let logical = chunks[at].logical;
            self.accounts[at].extents.iter().map(move |e| Extent {
                start: place + (e.start - logical),
                len: e.len,
            })
        });
        let mut used = Extents::new();
        used.extend(all);
        used
    }
}

#[cfg(test)]
mod tests {
    use super::super::node::{Format, Item, Key};
    use super::super::sum::Sum;
    use super::{Chunk, Chunks, METADATA, Space, chunk};

    const FORMAT: Format = Format {
        node_size: 16384,
        sector_size: 4096,
        uuid: [0; 16],
        sum: Sum::Crc32c,
    };

    /// Two chunks of 16 MiB, whose copies lie on the device in another order.
    fn chunks() -> Chunks {
        let mut chunks = Chunks::default();
        for chunk in [
            Chunk::at(16 << 20, 16 << 20, chunk::METADATA, [64 << 20, 96 << 20]),
            Chunk::at(32 << 20, 16 << 20, chunk::SYSTEM, [48 << 20, 32 << 20]),
        ] {
            assert!(chunks.push(chunk).is_ok());
        }
        chunks
    }

    /// A tree node at an address.
    fn add(space: &mut Space<'_>, at: u64) -> bool {
        let mut data = [0; 33];
        data[16] = 2;
        let item = Item {
            key: Key::new(at, METADATA, 0),
            data: &data,
        };
        space.extent_tree(&item, true).is_ok()
    }

    #[test]
    fn every_copy_is_on_the_device() {
        let chunks = chunks();
        let mut space = Space::new(&chunks, FORMAT);
        for at in [16 << 20, (16 << 20) + 49152, (48 << 20) - 16384] {
            assert!(add(&mut space, at), "{at}");
        }
        // In no chunk, before the last, across the end.
        for at in [8 << 20, (16 << 20) + 65536, (48 << 20) - 4096] {
            assert!(!add(&mut space, at), "{at}");
        }
        // The last node of the second chunk: its copies end at 48 and at 64 MiB.
        let used: Vec<_> = space.on_device().iter().map(|e| (e.start, e.len)).collect();
        assert_eq!(
            used,
            [
                ((48 << 20) - 16384, 16384),
                // Two chunks that touch.
                ((64 << 20) - 16384, 32768),
                ((64 << 20) + 49152, 16384),
                (96 << 20, 16384),
                ((96 << 20) + 49152, 16384),
            ]
        );
    }

    #[test]
    fn past_the_limit_it_covers_more_with_fewer() {
        let chunks = chunks();
        let mut exact = Space::new(&chunks, FORMAT);
        let mut coarse = Space::with_limit(&chunks, FORMAT, 100);
        for at in 0..500u64 {
            let at = (16 << 20) + at * 65536;
            assert!(add(&mut exact, at) && add(&mut coarse, at));
        }
        assert!(coarse.is_coarse() && !exact.is_coarse());
        // The counters stay exact.
        let counted = |space: &Space<'_>| space.accounts.iter().map(|a| a.counted).sum::<u64>();
        assert_eq!(counted(&coarse), counted(&exact));
        let (coarse, exact) = (coarse.on_device(), exact.on_device());
        assert_eq!((exact.len(), exact.total()), (1000, 1000 * 16384));
        assert!(coarse.len() <= 100, "{}", coarse.len());
        assert!(exact.subtract(&coarse).is_empty());
    }
}
