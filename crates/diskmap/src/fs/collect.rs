//! Used extents with a bound on their number.
//!
//! Owns: keeping a file system in a million pieces within a fixed memory, by
//! copying some free blocks too. Does not own: any format.

use crate::extents::{Extent, Extents};

/// Most extents that are kept (16 bytes each).
const LIMIT: usize = 512 << 10;

/// Takes extents in ascending order.
pub(super) struct Collector {
    used: Extents,
    limit: usize,
    gap: u64,
}

impl Collector {
    /// An empty one.
    pub fn new() -> Collector {
        Collector::with_limit(LIMIT)
    }

    fn with_limit(limit: usize) -> Collector {
        Collector {
            used: Extents::new(),
            limit,
            gap: 2048,
        }
    }

    /// Adds an extent; past the limit, those that are close together are joined.
    pub fn push(&mut self, extent: Extent) {
        self.used.push(extent);
        while self.used.len() > self.limit {
            self.gap = self.gap.saturating_mul(2);
            self.used.coarsen(self.gap);
        }
    }

    /// Whether every byte of `extent` has been added.
    pub fn covers(&self, extent: Extent) -> bool {
        self.used.contains_all(extent)
    }

    /// The extents.
    pub fn finish(self) -> Extents {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use super::Collector;
    use crate::extents::{Extent, Extents};

    #[test]
    fn past_the_limit_it_covers_more_with_fewer() {
        let all: Vec<_> = (0..1000u64)
            .map(|i| Extent {
                start: i * 8192,
                len: 4096,
            })
            .collect();
        let mut collector = Collector::with_limit(100);
        all.iter().for_each(|&extent| collector.push(extent));
        let used = collector.finish();
        assert!(used.len() <= 100);
        assert!(
            all.into_iter()
                .collect::<Extents>()
                .subtract(&used)
                .is_empty()
        );
    }
}
