//! Signs of life: whether the program still gets anywhere.
//!
//! Owns: counting what happens, and naming what may take as long as it likes. Does not own:
//! what is done about a program that hangs ([`crate::target::watchdog`]).

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

static SIGNS: AtomicU64 = AtomicU64::new(0);
static PATIENT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static COUNTS: Cell<bool> = const { Cell::new(true) };
}

/// Something went on: bytes moved, a step began, a server was spoken to, a person was told.
pub fn sign() {
    if COUNTS.get() {
        SIGNS.fetch_add(1, Ordering::Relaxed);
    }
}

/// What this thread does is no sign from now on: it goes on by itself while the work hangs.
pub fn beside_the_work() {
    COUNTS.set(false);
}

/// How many signs there were.
pub(crate) fn signs() -> u64 {
    SIGNS.load(Ordering::Relaxed)
}

/// While this lives, silence is no fault: a person is waited for, or a disk that does one long
/// thing by itself.
#[derive(Debug)]
#[must_use]
pub struct Patience(());

/// Begins such a time.
pub fn patience() -> Patience {
    PATIENT.fetch_add(1, Ordering::Relaxed);
    Patience(())
}

impl Drop for Patience {
    fn drop(&mut self) {
        PATIENT.fetch_sub(1, Ordering::Relaxed);
        sign();
    }
}

/// Whether somebody asked for patience.
pub(crate) fn is_patient() -> bool {
    PATIENT.load(Ordering::Relaxed) > 0
}

#[cfg(test)]
mod tests {
    use super::{beside_the_work, is_patient, patience, sign, signs};

    #[test]
    fn work_gives_signs_and_what_runs_beside_it_does_not() {
        let before = signs();
        sign();
        let after = signs();
        assert!(after > before);
        // Other tests give signs meanwhile; none of this thread's own.
        std::thread::spawn(|| {
            beside_the_work();
            (0..1_000_000).for_each(|_| sign());
        })
        .join()
        .unwrap();
        assert!(signs() < after + 1_000_000);
    }

    #[test]
    fn patience_lasts_as_long_as_somebody_has_it() {
        let (one, two) = (patience(), patience());
        drop(one);
        assert!(is_patient());
        drop(two);
    }
}
