//! Drives that erase themselves, or say so: a file whose "controller" is this test.

use super::super::tests::{Agrees, MIB, SIZE, disk, is_zero, order};
use super::super::{Ended, Plan, Way, open, run};
use super::{Drive, places};
use crate::in_use;
use crate::progress::{ProgressSink, Silent, Tracker};
use blockdev::nvme::{Controller, FormatErase, SanitizeAction, SanitizeLog, SanitizeState};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use wire::{Code, DiskState, Report, WipeMethod, WipeProof};

/// What a drive does with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    /// All of it becomes this byte.
    Fills(u8),
    /// All of it becomes something that nobody can tell from data.
    Scrambles,
    /// Nothing, and says that it is done.
    Nothing,
    /// Only the first half.
    Half,
    /// It refuses the command.
    Refuses,
    /// It begins, and fails.
    Fails,
    /// It takes the command, and its log knows nothing of it.
    Forgets,
}

struct Fake {
    path: PathBuf,
    does: Does,
    namespaces: u32,
    can: Controller,
    /// What its log says, and how often it is still asked before the end.
    log: Mutex<(SanitizeLog, u32)>,
}

impl Fake {
    fn new(path: &Path, does: Does) -> Fake {
        Fake {
            path: path.to_owned(),
            does,
            namespaces: 1,
            can: Controller {
                can_format: true,
                can_block_erase: true,
                ..Controller::default()
            },
            log: Mutex::new((log(SanitizeState::Never, 0), 0)),
        }
    }

    fn erase(&self) -> io::Result<()> {
        let file = std::fs::File::options()
            .write(true)
            .read(true)
            .open(&self.path)?;
        match self.does {
            Does::Fills(byte) => file.write_all_at(&vec![byte; SIZE], 0),
            Does::Half => file.write_all_at(&vec![0; SIZE / 2], 0),
            Does::Scrambles => {
                let mut bytes = std::fs::read(&self.path)?;
                for (n, byte) in bytes.iter_mut().enumerate() {
                    *byte ^= ((n * 31) >> 3) as u8 | 1;
                }
                file.write_all_at(&bytes, 0)
            }
            Does::Refuses => Err(io::Error::other("it does not know the command")),
            Does::Nothing | Does::Fails | Does::Forgets => Ok(()),
        }
    }
}

fn log(state: SanitizeState, command: u32) -> SanitizeLog {
    SanitizeLog {
        state,
        progress: 0x8000,
        command,
        estimates: [None; 3],
    }
}

impl Drive for Fake {
    fn controller(&self) -> io::Result<Controller> {
        Ok(self.can)
    }
    fn namespaces(&self, _controller: &Controller) -> io::Result<Vec<u32>> {
        Ok((1..=self.namespaces).collect())
    }
    fn format(&self, _erase: FormatErase) -> io::Result<()> {
        self.erase()
    }
    fn format_left(&self) -> Option<u8> {
        Some(50)
    }
    fn sanitize(&self, action: SanitizeAction) -> io::Result<()> {
        self.erase()?;
        let end = match self.does {
            Does::Fails => SanitizeState::Failed,
            Does::Forgets => SanitizeState::Never,
            _ => SanitizeState::Completed,
        };
        *self.log.lock().unwrap() = (log(end, action.code()), 2);
        Ok(())
    }
    fn sanitize_log(&self) -> io::Result<SanitizeLog> {
        let mut state = self.log.lock().unwrap();
        if state.1 == 0 || self.does == Does::Forgets {
            return Ok(state.0);
        }
        state.1 -= 1;
        Ok(log(SanitizeState::InProgress, state.0.command))
    }
}

/// Wipes a disk that is such a drive; what it holds then.
fn wiped_by(
    method: WipeMethod,
    change: impl FnOnce(&mut Fake),
    does: Does,
) -> (Result<Ended, Report>, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let path = disk(dir.path());
    let mut fake = Fake::new(&path, does);
    change(&mut fake);
    let device = open(&path, &Silent).unwrap();
    let done = Plan::of(&device, &path, &order(method, 1), Some(Box::new(fake))).and_then(|plan| {
        let info = in_use::identify(&path).unwrap();
        run(device, &info, &plan, &mut Agrees, &Silent)
    });
    (done, std::fs::read(&path).unwrap())
}

const BY_COMMAND: [WipeMethod; 2] = [WipeMethod::NvmeSanitize, WipeMethod::NvmeFormat];

#[test]
fn a_drive_that_erases_itself_is_proved_by_all_that_it_gives() {
    for method in BY_COMMAND {
        let (done, now) = wiped_by(method, |_| {}, Does::Fills(0));
        let wiped = done.unwrap().wiped;
        assert_eq!((wiped.method, wiped.proof), (method, WipeProof::Zeros));
        assert_eq!(wiped.read_back_bytes, SIZE as u64);
        assert!(is_zero(&now));
        let (done, now) = wiped_by(method, |_| {}, Does::Fills(0xff));
        let wiped = done.unwrap().wiped;
        assert_eq!(wiped.proof, WipeProof::Uniform);
        // A disk full of ones has no table, and one that a later start knows as wiped.
        assert!(is_zero(&now[..MIB]) && is_zero(&now[SIZE - MIB..]));
        assert!(now[MIB..SIZE - MIB].iter().all(|&byte| byte == 0xff));
    }
}

fn forgets_its_key(fake: &mut Fake) {
    fake.can.can_block_erase = false;
    fake.can.can_crypto_erase = true;
    fake.can.can_format_crypto = true;
}

#[test]
fn what_a_forgotten_key_leaves_is_proved_by_marks_that_are_gone() {
    for method in BY_COMMAND {
        let (done, now) = wiped_by(method, forgets_its_key, Does::Scrambles);
        let wiped = done.unwrap().wiped;
        let WipeProof::Marks { count } = wiped.proof else {
            panic!("{:?}", wiped.proof);
        };
        assert!(count > 300, "{count}");
        assert_eq!(wiped.read_back_bytes, count * 4096);
        assert!(wiped.proved().contains("are gone"));
        assert!(wiped.action.contains("cryptographic"), "{}", wiped.action);
        assert!(is_zero(&now[..MIB]), "something stands where a table would");
    }
}

#[test]
fn what_looks_like_data_is_no_proof_of_an_erase() {
    let only_erases = |fake: &mut Fake| {
        fake.can.can_block_erase = true;
        fake.can.can_format_crypto = false;
    };
    for method in BY_COMMAND {
        let (done, _) = wiped_by(method, only_erases, Does::Scrambles);
        let report = done.unwrap_err();
        assert_eq!(report.code, Code::VerifyMismatch);
        assert!(report.found.contains("one value"), "{}", report.found);
        assert_eq!(report.disk, DiskState::Incomplete);
    }
}

#[test]
fn a_drive_that_says_done_and_did_not_is_caught() {
    for method in BY_COMMAND {
        for does in [Does::Nothing, Does::Half] {
            let (done, now) = wiped_by(method, |_| {}, does);
            let report = done.unwrap_err();
            assert_eq!(
                (report.code, report.disk),
                (Code::VerifyMismatch, DiskState::Incomplete),
                "{does:?}"
            );
            assert!(report.found.contains("marks"), "{}", report.found);
            assert!(is_zero(&now[..MIB]), "it boots");
        }
    }
}

#[test]
fn a_command_that_is_refused_or_fails_is_no_wipe() {
    for (does, method, word) in [
        (Does::Refuses, WipeMethod::NvmeSanitize, "does not know"),
        (Does::Refuses, WipeMethod::NvmeFormat, "does not know"),
        (Does::Fails, WipeMethod::NvmeSanitize, "sanitize failed"),
        (
            Does::Forgets,
            WipeMethod::NvmeSanitize,
            "does not sanitize itself",
        ),
    ] {
        let (done, _) = wiped_by(method, |_| {}, does);
        let report = done.unwrap_err();
        assert_eq!(
            (report.code, report.disk),
            (Code::WriteError, DiskState::Incomplete)
        );
        assert!(report.found.contains(word), "{}", report.found);
    }
}

#[test]
fn auto_goes_on_until_something_is_proved() {
    let (done, now) = wiped_by(WipeMethod::Auto, |_| {}, Does::Nothing);
    let wiped = done.unwrap().wiped;
    assert_eq!(
        (wiped.ordered, wiped.method, wiped.proof),
        (WipeMethod::Auto, WipeMethod::Overwrite, WipeProof::Zeros)
    );
    assert_eq!(wiped.before.len(), 2, "{:?}", wiped.before);
    assert!(wiped.before[0].starts_with("nvme-sanitize: verify-mismatch: "));
    assert!(wiped.before[1].starts_with("nvme-format: verify-mismatch: "));
    assert!(is_zero(&now));
}

#[test]
fn other_disks_of_a_drive_are_not_erased_with_it() {
    let two = |fake: &mut Fake| fake.namespaces = 2;
    let (done, now) = wiped_by(WipeMethod::NvmeSanitize, two, Does::Fills(0));
    let report = done.unwrap_err();
    assert_eq!(
        (report.code, report.disk),
        (Code::WipeUnsupported, DiskState::Untouched)
    );
    assert!(now == vec![0x5a; SIZE]);
    let both = |fake: &mut Fake| {
        fake.namespaces = 2;
        fake.can.erase_is_of_all = true;
    };
    let (done, _) = wiped_by(WipeMethod::NvmeFormat, both, Does::Fills(0));
    assert_eq!(done.unwrap_err().code, Code::WipeUnsupported);
    // A format that is of one namespace only may be done.
    let (done, _) = wiped_by(WipeMethod::NvmeFormat, two, Does::Fills(0));
    done.unwrap();
}

#[test]
fn the_best_way_comes_first() {
    let dir = tempfile::tempdir().unwrap();
    let path = disk(dir.path());
    let device = open(&path, &Silent).unwrap();
    let ways = |change: fn(&mut Fake)| {
        let mut fake = Fake::new(&path, Does::Nothing);
        change(&mut fake);
        let order = order(WipeMethod::Auto, 2);
        Plan::of(&device, &path, &order, Some(Box::new(fake)))
            .unwrap()
            .ways
    };
    let all = ways(|fake| {
        fake.can.can_crypto_erase = true;
        fake.can.can_overwrite = true;
        fake.can.can_format_crypto = true;
    });
    assert_eq!(
        all,
        [
            Way::Sanitize(SanitizeAction::BlockErase),
            Way::Format(FormatErase::UserData),
            Way::Format(FormatErase::Cryptographic),
            Way::Overwrite(2),
        ]
    );
    let crypto = ways(|fake| {
        fake.can = Controller {
            can_crypto_erase: true,
            can_overwrite: true,
            ..Controller::default()
        };
    });
    assert_eq!(crypto[0], Way::Sanitize(SanitizeAction::CryptoErase));
    assert_eq!(
        ways(|fake| fake.can = Controller::default()),
        [Way::Overwrite(2)]
    );
}

#[test]
fn an_operator_who_stops_a_sanitize_is_told_that_it_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = disk(dir.path());
    let device = open(&path, &Silent).unwrap();
    let fake = Fake::new(&path, Does::Fills(0));
    let order = order(WipeMethod::NvmeSanitize, 1);
    let plan = Plan::of(&device, &path, &order, Some(Box::new(fake))).unwrap();
    let info = in_use::identify(&path).unwrap();
    // Stops as soon as the drive works.
    let tracker = std::sync::Arc::new(Tracker::new(|_| {}));
    struct Stops(std::sync::Arc<Tracker>);
    impl ProgressSink for Stops {
        fn step(&self, step: wire::Step, total: u64) {
            self.0.step(step, total);
            if step == wire::Step::Running {
                self.0.interrupt();
            }
        }
        fn advance(&self, plain: u64, wire: u64) {
            self.0.advance(plain, wire);
        }
        fn note(&self, _text: &str) {}
        fn interrupted(&self) -> bool {
            self.0.interrupted()
        }
    }
    let report = run(device, &info, &plan, &mut Agrees, &Stops(tracker)).unwrap_err();
    assert_eq!(
        (report.code, report.disk),
        (Code::Interrupted, DiskState::Incomplete)
    );
    assert!(
        report.found.contains("goes on sanitizing"),
        "{}",
        report.found
    );
}

#[test]
fn marks_lie_between_the_ends_and_apart() {
    for size in [0, 4096, 2 * MIB, 2 * MIB + 65_535, 3 * MIB, SIZE, 1 << 40] {
        let all = places(size as u64);
        for pair in all.windows(2) {
            assert!(pair[1] - pair[0] >= 4096);
        }
        for place in &all {
            assert_eq!(place % 4096, 0);
            assert!(*place >= MIB as u64 && place + 4096 <= (size - MIB) as u64);
        }
        assert_eq!(all.is_empty(), size.saturating_sub(2 * MIB) < 65_536);
    }
    assert_eq!(places(1 << 40).len(), 1024);
}
