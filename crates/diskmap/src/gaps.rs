//! Space outside partitions that is worth keeping.
//!
//! Owns: which parts of it. Boot loaders live between the table and the first
//! partition; some tools keep data right behind a partition or before a logical
//! one. The rest of free space carries nothing that a system needs.

use crate::extents::{Extent, Extents};

/// Free space before the first partition is kept up to here, from the disk's start.
const HEAD: u64 = 32 << 20;
/// Free space elsewhere is kept up to this many bytes from its own start.
const TAIL: u64 = 1 << 20;

/// Gaps of a disk of `size` bytes: outside `partitions` and outside `tables`. Of free
/// space, `keep` is kept in any case.
pub(crate) fn gaps(size: u64, partitions: &Extents, tables: &Extents, keep: &Extents) -> Extents {
    let first = partitions.iter().next().map_or(size, |e| e.start);
    let free = Extents::whole(size).subtract(&partitions.union(tables));
    let near: Extents = free
        .iter()
        .map(|gap| {
            let cap = if gap.start < first {
                HEAD
            } else {
                gap.start.saturating_add(TAIL)
            };
            Extent::between(gap.start, gap.end().min(cap))
        })
        .collect();
    let unkept = Extents::whole(size).subtract(keep);
    near.union(&free.subtract(&unkept))
}

#[cfg(test)]
mod tests {
    use super::gaps;
    use crate::extents::{Extent, Extents};

    const MIB: u64 = 1 << 20;

    fn set(list: &[(u64, u64)]) -> Extents {
        list.iter()
            .map(|&(start, end)| Extent::between(start, end))
            .collect()
    }

    #[test]
    fn head_in_full_others_one_mebibyte_tables_left_out() {
        let parts = set(&[
            (2 * MIB, 10 * MIB),
            (20 * MIB, 30 * MIB),
            (30 * MIB + 512, 40 * MIB),
        ]);
        let tables = set(&[(0, 512), (30 * MIB, 30 * MIB + 512), (99 * MIB, 100 * MIB)]);
        assert_eq!(
            gaps(
                100 * MIB,
                &parts,
                &tables,
                &set(&[(0, MIB), (70 * MIB, 71 * MIB)])
            ),
            set(&[
                (512, 2 * MIB),
                (10 * MIB, 11 * MIB),
                (40 * MIB, 41 * MIB),
                (70 * MIB, 71 * MIB)
            ])
        );
    }

    #[test]
    fn without_partitions_the_head_is_capped() {
        assert_eq!(
            gaps(
                100 * MIB,
                &Extents::new(),
                &set(&[(0, 512)]),
                &Extents::new()
            ),
            set(&[(512, 32 * MIB)])
        );
        assert_eq!(
            gaps(MIB, &Extents::new(), &set(&[(0, 512)]), &Extents::new()),
            set(&[(512, MIB)])
        );
    }
}
