//! The machine's watchdog: a timer that resets it if this program does not say in time that
//! all is well.
//!
//! Owns: the thread that says so, and when it stops to. Does not own: what a sign of life is
//! ([`crate::alive`]).
//!
//! After the kernel's `Documentation/watchdog/watchdog-api.rst`: any byte written feeds it, a
//! `V` just before the file is closed disarms it. Every driver's own time limit is longer
//! than the pause here.

use crate::alive;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The shortest limits of watchdogs are 10 s.
const PAUSE: Duration = Duration::from_secs(2);
/// Nothing that works is silent for so long: the slowest disk answers or fails in minutes.
const HANG: Duration = Duration::from_secs(30 * 60);

/// A watchdog that is fed until this is dropped, which disarms it.
pub struct Watchdog {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Decides whether the watchdog is fed.
#[derive(Debug)]
struct Watch {
    signs: u64,
    since: Instant,
    limit: Duration,
}

impl Watch {
    fn new(limit: Duration, signs: u64, now: Instant) -> Watch {
        Watch {
            signs,
            since: now,
            limit,
        }
    }

    /// Whether all is well at `now`.
    fn is_well(&mut self, signs: u64, patient: bool, now: Instant) -> bool {
        if signs != self.signs || patient {
            self.signs = signs;
            self.since = now;
        }
        now.saturating_duration_since(self.since) < self.limit
    }
}

impl Watchdog {
    /// Arms the machine's watchdog, if it has one. `told` hears what is worth a line.
    pub fn start(told: impl Fn(&str) + Send + 'static) -> Option<Watchdog> {
        Watchdog::on(Path::new("/dev/watchdog"), PAUSE, HANG, told)
    }

    fn on(
        device: &Path,
        pause: Duration,
        limit: Duration,
        told: impl Fn(&str) + Send + 'static,
    ) -> Option<Watchdog> {
        // Opening it arms it. Without one there is nothing to say: most machines have one
        // that a driver is missing for, and virtual ones often none.
        let file = OpenOptions::new().write(true).open(device).ok()?;
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            alive::beside_the_work();
            let mut watch = Watch::new(limit, alive::signs(), Instant::now());
            let mut well = true;
            loop {
                let now = watch.is_well(alive::signs(), alive::is_patient(), Instant::now());
                if well && !now {
                    told(&format!(
                        "nothing has gone on for {} s: the watchdog resets the machine",
                        limit.as_secs()
                    ));
                }
                well = now;
                if well {
                    feed(&file, b"\0");
                }
                match stopped.recv_timeout(pause) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            // A program that comes to its end does not hang.
            feed(&file, b"V");
        });
        Some(Watchdog {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

/// A watchdog that cannot be fed resets the machine, and nothing else can be done.
fn feed(mut file: &File, byte: &[u8]) {
    let _ = file.write_all(byte);
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It ends at once, whatever became of it.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Watch, Watchdog};
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    #[test]
    fn silence_that_is_too_long_is_no_life_and_a_sign_mends_it() {
        let limit = Duration::from_secs(60);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watch = Watch::new(limit, 5, start);
        assert!(watch.is_well(5, false, at(59)));
        assert!(!watch.is_well(5, false, at(60)));
        assert!(watch.is_well(6, false, at(61)));
        assert!(watch.is_well(6, false, at(120)));
        assert!(!watch.is_well(6, false, at(121)));
        // A person is waited for: that may take days.
        assert!(watch.is_well(6, true, at(200_000)));
        assert!(watch.is_well(6, false, at(200_059)));
        assert!(!watch.is_well(6, false, at(200_060)));
    }

    #[test]
    fn it_is_fed_and_disarmed_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("watchdog");
        std::fs::write(&device, b"").unwrap();
        let fed = || std::fs::read(&device).unwrap();
        let pause = Duration::from_millis(5);
        let watchdog = Watchdog::on(&device, pause, Duration::from_secs(60), |_| {}).unwrap();
        while fed().len() < 3 {
            std::thread::sleep(pause);
        }
        drop(watchdog);
        let bytes = fed();
        let (last, others) = bytes.split_last().unwrap();
        assert_eq!(*last, b'V');
        assert!(others.iter().all(|&byte| byte == 0));
    }

    #[test]
    fn what_hangs_is_told_once_and_not_fed_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("watchdog");
        std::fs::write(&device, b"").unwrap();
        let (told, heard) = mpsc::channel();
        // A limit of nothing: whatever other tests do, it is over at once.
        let told = move |text: &str| told.send(text.to_owned()).unwrap();
        let pause = Duration::from_millis(1);
        let watchdog = Watchdog::on(&device, pause, Duration::ZERO, told).unwrap();
        assert!(heard.recv().unwrap().contains("the watchdog resets"));
        drop(watchdog);
        assert!(heard.recv().is_err(), "told twice");
        assert_eq!(std::fs::read(&device).unwrap(), b"V");
        assert!(Watchdog::on(&dir.path().join("none"), pause, Duration::ZERO, |_| {}).is_none());
    }
}
