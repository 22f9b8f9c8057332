//! The gate between the checks of all disks of a restore and the first write.
//!
//! Owns: who waits for whom, and whose turn it is to write. Does not own: the checks, the
//! threads ([`super`]).

use super::no_thread;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use wire::{Code, DiskState, Report};

/// Disks that are written at a time: each one has its connections and buffers.
const WRITTEN_AT_ONCE: usize = 4;
/// How often a disk that waits for its turn looks whether the job is to stop.
const LOOK: Duration = Duration::from_millis(200);

/// Lets the first write to any disk happen only after the checks of all have passed, and
/// only so many be written at a time. What disks need memory for is bounded, too, while they
/// are checked and while they are written.
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
    /// Bytes that those which are worked on may take together, if it is less than all need.
    room: Option<u64>,
}

struct State {
    /// Disks whose checks are not over.
    left: usize,
    /// Whether none has failed until now.
    good: bool,
    /// Whether there are disks that nobody works on.
    given_up: bool,
    /// Disks that are being written.
    written: usize,
    /// Bytes that are taken.
    taken: u64,
}

impl Gate {
    /// For disks that need so many bytes of memory each, of which there is `room`.
    pub fn new(needs: &[u64], room: u64) -> Self {
        Gate {
            room: Some(room).filter(|room| needs.iter().sum::<u64>() > *room),
            state: Mutex::new(State {
                left: needs.len(),
                good: true,
                given_up: false,
                written: 0,
                taken: 0,
            }),
            changed: Condvar::new(),
        }
    }

    /// The place of one disk that needs so many bytes, which counts as failed if it is
    /// dropped before it has passed.
    pub fn place(&self, needs: u64) -> GatePlace<'_> {
        GatePlace {
            gate: self,
            needs,
            takes: 0,
            told: false,
            writes: false,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, good: bool) {
        let mut state = self.state();
        state.left = state.left.saturating_sub(1);
        state.good &= good;
        self.changed.notify_all();
    }

    /// Some disks will never come here: nobody is to wait for them, and nobody passes.
    pub fn give_up(&self) {
        let mut state = self.state();
        (state.good, state.given_up) = (false, true);
        self.changed.notify_all();
    }

    /// Waits until all have passed, one has not, or the job is to stop.
    fn all(&self, stop: &dyn Fn() -> bool) -> Verdict {
        let mut state = self.state();
        loop {
            match *state {
                State { given_up: true, .. } => return Verdict::GivenUp,
                State { left: 0, good, .. } => {
                    return match good {
                        true => Verdict::Good,
                        false => Verdict::OneFailed,
                    };
                }
                _ => {}
            }
            if stop() {
                // The others must not begin because this one is not waited for any more.
                state.good = false;
                return Verdict::Stopped;
            }
            let waited = self.changed.wait_timeout(state, LOOK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes memory, and a turn to write if `writes`; `false` if the job is to stop before
    /// there is one. A disk that is alone has its turn however much it needs.
    fn turn(&self, needs: u64, writes: bool, stop: &dyn Fn() -> bool) -> bool {
        let mut state = self.state();
        loop {
            let fits = |room| state.taken == 0 || state.taken.saturating_add(needs) <= room;
            if self.room.is_none_or(fits) && !(writes && state.written >= WRITTEN_AT_ONCE) {
                break;
            }
            if stop() {
                return false;
            }
            let waited = self.changed.wait_timeout(state, LOOK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.written += usize::from(writes);
        state.taken = state.taken.saturating_add(needs);
        true
    }
}

enum Verdict {
    Good,
    OneFailed,
    Stopped,
    GivenUp,
}

/// One disk before the gate.
pub struct GatePlace<'a> {
    gate: &'a Gate,
    /// Bytes of memory that its work needs, and those that it has.
    needs: u64,
    takes: u64,
    told: bool,
    writes: bool,
}

impl GatePlace<'_> {
    /// Waits until there is memory for this disk's checks.
    ///
    /// # Errors
    /// The job is to stop.
    pub fn check(&mut self, path: &Path, stop: &dyn Fn() -> bool) -> Result<(), Report> {
        if !self.gate.turn(self.needs, false, stop) {
            return Err(left(path, STOPPED));
        }
        self.takes = self.needs;
        Ok(())
    }

    /// Whether what a disk needs memory for is to be given back while it waits.
    pub fn is_narrow(&self) -> bool {
        self.gate.room.is_some()
    }

    fn give_back(&mut self) {
        let mut state = self.gate.state();
        state.taken = state.taken.saturating_sub(std::mem::take(&mut self.takes));
        self.gate.changed.notify_all();
    }

    /// This disk's checks have passed, or it needs no writing.
    pub fn ready(&mut self) {
        self.give_back();
        if !std::mem::replace(&mut self.told, true) {
            self.gate.tell(true);
        }
    }

    /// Waits for the others, and then for its turn, which lasts as long as the place.
    /// `stop` says whether the job is to stop.
    ///
    /// # Errors
    /// One of them cannot be written, or the job is to stop.
    pub fn pass(&mut self, path: &Path, stop: &dyn Fn() -> bool) -> Result<(), Report> {
        self.ready();
        match self.gate.all(stop) {
            Verdict::Good => {}
            Verdict::OneFailed => {
                return Err(left(
                    path,
                    "because another disk of the job cannot be written",
                ));
            }
            Verdict::Stopped => return Err(left(path, STOPPED)),
            Verdict::GivenUp => return Err(no_thread(DiskState::Untouched)),
        }
        self.writes = self.gate.turn(self.needs, true, stop);
        if !self.writes {
            return Err(left(path, STOPPED));
        }
        self.takes = self.needs;
        Ok(())
    }
}

const STOPPED: &str = "because the job was stopped by an operator";

fn left(path: &Path, why: &str) -> Report {
    let found = format!("{} was left as it is, {why}", path.display());
    Report::new(Code::Interrupted, found, DiskState::Untouched)
}

impl Drop for GatePlace<'_> {
    fn drop(&mut self) {
        self.give_back();
        if !self.told {
            self.gate.tell(false);
        }
        if self.writes {
            self.gate.state().written -= 1;
            self.gate.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Gate, GatePlace, WRITTEN_AT_ONCE};
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};
    use wire::{Code, DiskState};

    #[test]
    fn nobody_passes_the_gate_if_one_cannot() {
        let gate = Gate::new(&[0; 2], 0);
        let passed = std::thread::scope(|scope| {
            let first = scope.spawn(|| gate.place(0).pass(Path::new("/dev/a"), &|| false));
            drop(gate.place(0));
            first.join().unwrap()
        });
        assert_eq!(passed.unwrap_err().disk, DiskState::Untouched);
        let gate = Gate::new(&[0; 2], 0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| gate.place(0).pass(Path::new("/dev/a"), &|| false).unwrap());
            }
        });
    }

    #[test]
    fn a_few_are_written_at_a_time_and_who_waits_hears_an_interrupt() {
        let path = Path::new("/dev/a");
        let gate = Gate::new(&[0; WRITTEN_AT_ONCE + 1], 0);
        let mut places: Vec<_> = (0..=WRITTEN_AT_ONCE).map(|_| gate.place(0)).collect();
        places.iter_mut().for_each(GatePlace::ready);
        let mut late = places.pop().unwrap();
        for place in &mut places {
            place.pass(path, &|| false).unwrap();
        }
        let stopped = late.pass(path, &|| true).unwrap_err();
        assert_eq!(
            (stopped.code, stopped.disk),
            (Code::Interrupted, DiskState::Untouched)
        );
        std::thread::scope(|scope| {
            let passed = scope.spawn(|| late.pass(path, &|| false));
            places.pop();
            passed.join().unwrap().unwrap();
        });
    }

    #[test]
    fn who_waits_for_the_others_hears_an_interrupt_and_that_they_never_come() {
        let path = Path::new("/dev/a");
        let gate = Gate::new(&[0; 2], 0);
        let mut waits = gate.place(0);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| waits.pass(path, &|| stop.load(Ordering::Relaxed)));
            stop.store(true, Ordering::Relaxed);
            let stopped = waits.join().unwrap().unwrap_err();
            assert_eq!(stopped.code, Code::Interrupted);
        });
        let late = gate.place(0).pass(path, &|| false).unwrap_err();
        assert_eq!(late.disk, DiskState::Untouched, "it must not begin alone");

        let gate = Gate::new(&[0; 2], 0);
        let mut waits = gate.place(0);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| waits.pass(path, &|| false));
            gate.give_up();
            let given_up = waits.join().unwrap().unwrap_err();
            assert_eq!(
                (given_up.code, given_up.disk),
                (Code::Internal, DiskState::Untouched)
            );
        });
    }

    #[test]
    fn no_more_are_worked_on_than_there_is_memory_for() {
        let (path, stop) = (Path::new("/dev/a"), || true);
        let wide = Gate::new(&[3, 3], 6);
        assert!(!wide.place(3).is_narrow());
        let gate = Gate::new(&[3, 9, 3], 6);
        let [mut a, mut b, mut c] = [3, 9, 3].map(|needs| gate.place(needs));
        assert!(a.is_narrow());
        a.check(path, &stop).unwrap();
        // Both would be too much; alone it has to be tried.
        assert_eq!(b.check(path, &stop).unwrap_err().code, Code::Interrupted);
        c.check(path, &stop).unwrap();
        a.ready();
        c.ready();
        b.check(path, &stop).unwrap();
        b.ready();
        a.pass(path, &stop).unwrap();
        c.pass(path, &stop).unwrap();
        assert!(b.pass(path, &stop).is_err());
        drop((a, c));
        b.pass(path, &stop).unwrap();
    }
}
