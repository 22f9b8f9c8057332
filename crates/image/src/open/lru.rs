//! A cache of bounded weight that forgets what was not asked for longest.
//!
//! Owns: the order and the bound. Does not own: what is kept, or locking.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// What an entry weighs beside its value, in bytes: bounds the number of tiny ones.
const OVERHEAD: usize = 256;

/// Values by key; together never heavier than the limit, except for a single value.
pub(super) struct Lru<K, V> {
    limit: usize,
    weight: usize,
    clock: u64,
    values: HashMap<K, (V, usize, u64)>,
    order: BTreeMap<u64, K>,
}

impl<K: Hash + Eq + Copy, V: Clone> Lru<K, V> {
    /// An empty cache of values that together weigh `limit` bytes at most.
    pub(super) fn new(limit: usize) -> Self {
        Lru {
            limit,
            weight: 0,
            clock: 0,
            values: HashMap::new(),
            order: BTreeMap::new(),
        }
    }

    /// The value of `key`, which is the youngest now.
    pub(super) fn get(&mut self, key: K) -> Option<V> {
        let (value, _, tick) = self.values.get_mut(&key)?;
        self.order.remove(tick);
        self.clock += 1;
        *tick = self.clock;
        self.order.insert(self.clock, key);
        Some(value.clone())
    }

    /// Keeps `value`, which weighs `weight` bytes, and forgets what is too much.
    pub(super) fn put(&mut self, key: K, value: V, weight: usize) {
        let weight = weight.saturating_add(OVERHEAD);
        self.remove(key);
        while self.weight.saturating_add(weight) > self.limit {
            let Some((_, oldest)) = self.order.pop_first() else {
                break;
            };
            self.remove(oldest);
        }
        self.clock += 1;
        self.order.insert(self.clock, key);
        self.values.insert(key, (value, weight, self.clock));
        self.weight = self.weight.saturating_add(weight);
    }

    fn remove(&mut self, key: K) {
        if let Some((_, weight, tick)) = self.values.remove(&key) {
            self.order.remove(&tick);
            self.weight -= weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Lru, OVERHEAD};

    #[test]
    fn the_oldest_goes_when_it_gets_too_heavy() {
        let mut cache = Lru::new(3 * (OVERHEAD + 100));
        for key in 0..3 {
            cache.put(key, key * 10, 100);
        }
        assert_eq!(cache.get(0), Some(0));
        cache.put(3, 30, 100);
        let left: Vec<_> = (0..4).map(|key| cache.get(key)).collect();
        assert_eq!(left, [Some(0), None, Some(20), Some(30)]);
        cache.put(2, 21, 150);
        assert_eq!((cache.get(2), cache.get(0)), (Some(21), None));
        cache.put(9, 90, 1 << 30);
        assert_eq!((cache.get(9), cache.values.len()), (Some(90), 1));
        cache.put(1, 10, 0);
        assert_eq!((cache.get(9), cache.get(1)), (None, Some(10)));
        assert_eq!(cache.weight, OVERHEAD);
    }
}
