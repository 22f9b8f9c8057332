//! Where records are checked: as many places as there are cores.
//!
//! Owns: the places, which so many uploads share. Does not own: what comes in, or the proof
//! itself ([`super::proof`]). A place is taken with a whole record in hand and left before the next one is
//! waited for, so a slow target never keeps one.

use super::proof::Proof;
use image::Error;
use image::record::RecordHeader;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Semaphore, SemaphorePermit};

/// One place.
#[derive(Default)]
pub(super) struct Desk {
    proof: Proof,
}

impl Desk {
    /// Decodes a record and compares it with its name.
    pub(super) fn check(
        &mut self,
        header: &RecordHeader,
        payload: &[u8],
        at: u64,
    ) -> Result<(), Error> {
        self.proof.check(header, payload, at)
    }
}

/// All places.
pub(super) struct Desks {
    free: Mutex<Vec<Desk>>,
    left: Condvar,
    turns: Semaphore,
}

impl Desks {
    /// One more than there are cores: an upload writes while others decode.
    pub(super) fn new() -> Self {
        let count = std::thread::available_parallelism().map_or(2, usize::from) + 1;
        Desks {
            free: Mutex::new((0..count).map(|_| Desk::default()).collect()),
            left: Condvar::new(),
            turns: Semaphore::new(count),
        }
    }

    /// A turn to work, for async code that will do so in a thread: so there are no more such
    /// threads than places. `None` cannot come, and would only mean more of them.
    pub(super) async fn place(&self) -> Option<SemaphorePermit<'_>> {
        self.turns.acquire().await.ok()
    }

    /// Does `work` at a free place, after waiting for one. Not to be called in async code.
    pub(super) fn at_one<T>(&self, work: impl FnOnce(&mut Desk) -> T) -> T {
        let mut desk = {
            let mut free = self.free();
            loop {
                match free.pop() {
                    Some(desk) => break desk,
                    None => free = self.left.wait(free).unwrap_or_else(PoisonError::into_inner),
                }
            }
        };
        // Work that panics takes its place along; it comes back as a new one.
        let result = catch_unwind(AssertUnwindSafe(|| work(&mut desk)));
        let desk = match result {
            Ok(_) => desk,
            Err(_) => Desk::default(),
        };
        self.free().push(desk);
        self.left.notify_one();
        result.unwrap_or_else(|panic| resume_unwind(panic))
    }

    fn free(&self) -> MutexGuard<'_, Vec<Desk>> {
        // The list has no state that a panic could leave half-made.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::Desks;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn no_more_work_at_once_than_places_and_a_panic_costs_none() {
        let desks = Desks::new();
        let places = desks.free().len();
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for number in 0..places * 8 {
                let (desks, now, most) = (&desks, &now, &most);
                scope.spawn(move || {
                    let work = || {
                        desks.at_one(|_| {
                            most.fetch_max(
                                now.fetch_add(1, Ordering::SeqCst) + 1,
                                Ordering::SeqCst,
                            );
                            std::thread::yield_now();
                            now.fetch_sub(1, Ordering::SeqCst);
                            assert!(number % 3 != 0, "as some records might");
                        });
                    };
                    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
                });
            }
        });
        assert!(most.into_inner() <= places);
        assert_eq!(desks.free().len(), places);
    }
}
