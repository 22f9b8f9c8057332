//! Sets of bytes as sorted, disjoint, merged extents.
//!
//! Owns: [`Extents`] and its arithmetic. Does not own: what the bytes mean.

use serde::{Deserialize, Serialize};
use std::ops::Range;

/// A run of bytes, relative to the start of its region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Extent {
    /// First byte.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
}

impl Extent {
    /// The extent from `start` to before `end`; empty if they are the wrong way round.
    pub fn between(start: u64, end: u64) -> Extent {
        Extent {
            start,
            len: end.saturating_sub(start),
        }
    }

    /// First byte past the extent.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }
}

/// Sorted, disjoint, non-adjacent, non-empty extents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Extent>", into = "Vec<Extent>")]
pub struct Extents(Vec<Extent>);

impl Extents {
    /// No bytes.
    pub fn new() -> Extents {
        Extents(Vec::new())
    }

    /// All bytes of a region of `size` bytes.
    pub fn whole(size: u64) -> Extents {
        Extents::from_iter([Extent {
            start: 0,
            len: size,
        }])
    }

    /// Adds an extent. In ascending order this is constant time; out of order it
    /// is a search and an insertion.
    pub fn push(&mut self, extent: Extent) {
        let (start, end) = (extent.start, extent.end());
        if start == end {
            return;
        }
        // All before `first` end before the new one starts, without touching it.
        let first = match self.0.last() {
            Some(last) if last.end() < start => self.0.len(),
            Some(_) => self.0.partition_point(|e| e.end() < start),
            None => 0,
        };
        let after = first + self.0[first..].partition_point(|e| e.start <= end);
        if first == after {
            self.0.insert(first, Extent::between(start, end));
            return;
        }
        let merged = Extent::between(
            start.min(self.0[first].start),
            end.max(self.0[after - 1].end()),
        );
        self.0[first] = merged;
        self.0.drain(first + 1..after);
    }

    /// Sum of the lengths in bytes.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|e| e.len).sum()
    }

    /// Number of extents.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The extents in ascending order.
    pub fn iter(&self) -> std::slice::Iter<'_, Extent> {
        self.0.iter()
    }

    /// The extents in ascending order.
    pub fn as_slice(&self) -> &[Extent] {
        &self.0
    }

    /// First byte past the last extent; 0 if there is none.
    pub fn end(&self) -> u64 {
        self.0.last().map_or(0, Extent::end)
    }

    /// The part that lies in `range`, still relative to the region's start.
    pub fn intersect(&self, range: Range<u64>) -> Extents {
        let first = self.0.partition_point(|e| e.end() <= range.start);
        self.0[first..]
            .iter()
            .take_while(|e| e.start < range.end)
            .map(|e| Extent::between(e.start.max(range.start), e.end().min(range.end)))
            .collect()
    }

    /// Whether the byte at `offset` is in the set.
    pub fn contains(&self, offset: u64) -> bool {
        let next = self.0.partition_point(|e| e.end() <= offset);
        self.0.get(next).is_some_and(|e| e.start <= offset)
    }

    /// Whether every byte of `extent` is in the set.
    pub fn contains_all(&self, extent: Extent) -> bool {
        let next = self.0.partition_point(|e| e.end() <= extent.start);
        extent.len == 0
            || self
                .0
                .get(next)
                .is_some_and(|e| e.start <= extent.start && extent.end() <= e.end())
    }

    /// Bytes that are in either set.
    pub fn union(&self, other: &Extents) -> Extents {
        let mut all = Vec::with_capacity(self.0.len() + other.0.len());
        let (mut a, mut b) = (self.0.iter().peekable(), other.0.iter().peekable());
        loop {
            let next = match (a.peek(), b.peek()) {
                (Some(x), Some(y)) if x.start <= y.start => a.next(),
                (_, Some(_)) => b.next(),
                (Some(_), None) => a.next(),
                (None, None) => break,
            };
            all.extend(next.copied());
        }
        all.into_iter().collect()
    }

    /// Bytes of this set that are not in `other`.
    pub fn subtract(&self, other: &Extents) -> Extents {
        let mut left = Extents::new();
        let mut cut = other.0.iter().peekable();
        for extent in &self.0 {
            let mut from = extent.start;
            while let Some(hole) = cut.peek().filter(|hole| hole.start < extent.end()) {
                left.push(Extent::between(from, hole.start));
                from = from.max(hole.end());
                // A hole that reaches on may cut the next extent too.
                if hole.end() > extent.end() {
                    break;
                }
                cut.next();
            }
            left.push(Extent::between(from, extent.end()));
        }
        left
    }

    /// Every extent widened to multiples of `unit` bytes, but not past `size`.
    pub fn aligned(&self, unit: u64, size: u64) -> Extents {
        let unit = unit.max(1);
        self.0
            .iter()
            .map(|e| {
                let end = e.end().checked_next_multiple_of(unit).unwrap_or(u64::MAX);
                Extent::between(e.start / unit * unit, end.min(size))
            })
            .collect()
    }

    /// Joins neighbours that are at most `gap` bytes apart, so that fewer extents
    /// cover at least the same bytes.
    pub(crate) fn coarsen(&mut self, gap: u64) {
        self.0.dedup_by(|next, kept| {
            let close = next.start - kept.end() <= gap;
            if close {
                kept.len = next.end() - kept.start;
            }
            close
        });
    }
}

impl FromIterator<Extent> for Extents {
    /// Extents in any order; overlaps and neighbours are merged.
    fn from_iter<I: IntoIterator<Item = Extent>>(iter: I) -> Extents {
        let mut list: Vec<Extent> = iter.into_iter().filter(|e| e.len > 0).collect();
        if !list.is_sorted_by_key(|e| e.start) {
            list.sort_unstable();
        }
        list.dedup_by(|next, kept| {
            let touches = next.start <= kept.end();
            if touches {
                *kept = Extent::between(kept.start, kept.end().max(next.end()));
            }
            touches
        });
        Extents(list)
    }
}

impl Extend<Extent> for Extents {
    fn extend<I: IntoIterator<Item = Extent>>(&mut self, iter: I) {
        for extent in iter {
            self.push(extent);
        }
    }
}

impl<'a> IntoIterator for &'a Extents {
    type Item = &'a Extent;
    type IntoIter = std::slice::Iter<'a, Extent>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl From<Extents> for Vec<Extent> {
    fn from(extents: Extents) -> Self {
        extents.0
    }
}

/// A list that claims to be [`Extents`] is out of order, overlaps or has an empty part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("extent at byte {start} is empty, too long or not in order")]
pub struct NotExtents {
    /// Start of the first extent that is wrong.
    pub start: u64,
}

impl TryFrom<Vec<Extent>> for Extents {
    type Error = NotExtents;
    fn try_from(list: Vec<Extent>) -> Result<Self, NotExtents> {
        let mut from = None;
        for extent in &list {
            let end = extent.start.checked_add(extent.len);
            match end {
                Some(end) if extent.len > 0 && from.is_none_or(|from| extent.start > from) => {
                    from = Some(end);
                }
                _ => {
                    return Err(NotExtents {
                        start: extent.start,
                    });
                }
            }
        }
        Ok(Extents(list))
    }
}

#[cfg(test)]
mod tests {
    use super::{Extent, Extents};
    use proptest::prelude::{ProptestConfig, any, prop, prop_assert_eq, proptest};

    fn set(list: &[(u64, u64)]) -> Extents {
        list.iter()
            .map(|&(start, len)| Extent { start, len })
            .collect()
    }

    #[test]
    fn push_merges_in_any_order() {
        let mut extents = Extents::new();
        for (start, len) in [(10, 5), (0, 3), (20, 5), (15, 5), (40, 1), (2, 9), (50, 0)] {
            extents.push(Extent { start, len });
        }
        assert_eq!(extents, set(&[(0, 25), (40, 1)]));
        assert_eq!((extents.total(), extents.len(), extents.end()), (26, 2, 41));
    }

    #[test]
    fn the_end_of_the_number_range_is_no_trap() {
        let mut extents = Extents::new();
        extents.push(Extent {
            start: u64::MAX - 1,
            len: u64::MAX,
        });
        extents.push(Extent {
            start: u64::MAX,
            len: 7,
        });
        assert_eq!(extents.total(), 1);
        assert_eq!(extents.aligned(4096, u64::MAX).total(), 4095);
    }

    #[test]
    fn serde_takes_only_what_keeps_the_rules() {
        assert_eq!(
            Extents::try_from(vec![
                Extent { start: 0, len: 2 },
                Extent { start: 3, len: 1 }
            ])
            .map(|e| e.total()),
            Ok(3)
        );
        for wrong in [
            vec![Extent { start: 0, len: 0 }],
            vec![Extent { start: 0, len: 2 }, Extent { start: 2, len: 1 }],
            vec![Extent { start: 5, len: 2 }, Extent { start: 0, len: 1 }],
            vec![Extent {
                start: 5,
                len: u64::MAX,
            }],
        ] {
            assert!(Extents::try_from(wrong).is_err());
        }
    }

    #[test]
    fn coarsen_only_adds() {
        let mut extents = set(&[(0, 4), (6, 4), (20, 4)]);
        extents.coarsen(2);
        assert_eq!(extents, set(&[(0, 10), (20, 4)]));
    }

    const SPACE: u64 = 64;

    fn bits(extents: &Extents) -> Vec<bool> {
        (0..SPACE).map(|i| extents.contains(i)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn arithmetic_equals_that_of_bit_maps(
            a in prop::collection::vec((0..SPACE, 0..9u64), 0..12),
            b in prop::collection::vec((0..SPACE, 0..9u64), 0..12),
            from in 0..SPACE, to in 0..SPACE, presorted in any::<bool>(),
        ) {
            let model = |list: &[(u64, u64)]| (0..SPACE)
                .map(|i| list.iter().any(|&(s, l)| s <= i && i < s + l)).collect::<Vec<_>>();
            let (left, right) = (set(&a), set(&b));
            let (ma, mb) = (model(&a), model(&b));
            let mut pushed = Extents::new();
            let mut order = a.clone();
            if presorted { order.sort(); }
            pushed.extend(order.iter().map(|&(start, len)| Extent { start, len }));
            prop_assert_eq!(&pushed, &left);
            prop_assert_eq!(bits(&left), ma.clone());
            let both = |f: fn(bool, bool) -> bool| ma.iter().zip(&mb).map(|(&x, &y)| f(x, y)).collect::<Vec<_>>();
            prop_assert_eq!(bits(&left.union(&right)), both(|x, y| x || y));
            prop_assert_eq!(bits(&left.subtract(&right)), both(|x, y| x && !y));
            let part = left.intersect(from..to);
            prop_assert_eq!(bits(&part), (0..SPACE).map(|i| ma[i as usize] && from <= i && i < to).collect::<Vec<_>>());
            prop_assert_eq!(Extents::try_from(Vec::from(left.clone())), Ok(left.clone()));
            let inside = (from..to).all(|i| ma[i as usize]);
            prop_assert_eq!(left.contains_all(Extent::between(from, to)), inside);
        }
    }
}
