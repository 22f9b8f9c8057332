//! Blocks that a file system counts as its own, but that hold nothing.
//!
//! Owns: the free lists of XFS: blocks set aside for the growth of its trees, which it writes
//! before it reads them; what is behind the last whole page of swap space. Our scan keeps them,
//! partclone and Clonezilla do not, and nobody misses them. Does not own: any other format;
//! what is not exactly as expected is no spare block.

use crate::recover::ReadAt;
use diskmap::{Extent, Extents, Region};

/// Allocation groups that are looked into at most.
const MAX_GROUPS: u32 = 1 << 16;

/// Bytes of a page of swap space, as its header was made here.
const PAGE: u64 = 4096;

fn be(bytes: &[u8], at: usize) -> u32 {
    let field = bytes.get(at..at + 4).and_then(|b| b.try_into().ok());
    u32::from_be_bytes(field.unwrap_or_default())
}

/// The spare blocks of a region that a scan found in order, from its start.
pub fn spare(disk: &dyn ReadAt, region: &Region) -> Extents {
    match region.file_system.as_str() {
        "xfs" => free_lists(disk, region).unwrap_or_default(),
        "swap" => Extents::from_iter([behind_pages(region)]),
        _ => Extents::new(),
    }
}

/// Swap space ends with a page; our scan keeps what may stand behind a file system.
fn behind_pages(region: &Region) -> Extent {
    Extent::between(region.size / PAGE * PAGE, region.size)
}

fn free_lists(disk: &dyn ReadAt, region: &Region) -> Option<Extents> {
    let mut head = [0; 512];
    disk.read_at(region.start, &mut head).ok()?;
    let (block, blocks, groups) = (be(&head, 4), be(&head, 84), be(&head, 88));
    let sector = u64::from(be(&head, 100) & 0xffff);
    let block_ok = block.is_power_of_two() && (512..=65_536).contains(&block);
    if &head[..4] != b"XFSB"
        || !block_ok
        || !(512..=32_768).contains(&sector)
        || groups > MAX_GROUPS
    {
        return None;
    }
    let mut all = Extents::new();
    for group in 0..groups {
        let base = u64::from(group) * u64::from(blocks) * u64::from(block);
        let mut header = vec![0; sector as usize];
        let mut list = header.clone();
        disk.read_at(region.start + base + sector, &mut header)
            .ok()?;
        disk.read_at(region.start + base + 3 * sector, &mut list)
            .ok()?;
        let (first, last, count) = (be(&header, 40), be(&header, 44), be(&header, 48));
        // Lists with checksums have a header of 36 bytes.
        let start = if list.starts_with(b"XAFL") { 36 } else { 0 };
        let slots = (list.len() - start) as u32 / 4;
        if !header.starts_with(b"XAGF") || first >= slots || last >= slots || count > slots {
            return None;
        }
        for n in 0..count {
            let number = be(&list, start + 4 * ((first + n) % slots) as usize);
            if number >= blocks {
                return None;
            }
            let at = base + u64::from(number) * u64::from(block);
            all.push(Extent::between(at, at + u64::from(block)));
        }
    }
    Some(all)
}
