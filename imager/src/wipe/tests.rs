//! Wipes of raw files: the order, the words, an operator who stops them.

use super::{Ended, Guard, Plan, is_unfinished, open, run};
use crate::in_use;
use crate::progress::{ProgressSink, Silent};
use blockdev::Device;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use wire::{Code, DiskState, Report, Step, WipeMethod, WipeOrder, WipeProof};

pub const MIB: usize = 1 << 20;
/// Not whole blocks.
pub const SIZE: usize = 24 * MIB + 512;

pub struct Agrees;

impl Guard for Agrees {
    fn before_write(&mut self, _device: &Device, _plan: &Plan) -> Result<(), Report> {
        Ok(())
    }
}

/// A file without a zero in it.
pub fn disk(dir: &Path) -> PathBuf {
    let path = dir.join("disk");
    std::fs::write(&path, vec![0x5a; SIZE]).unwrap();
    path
}

pub fn order(method: WipeMethod, passes: u32) -> WipeOrder {
    WipeOrder {
        disk: None,
        method,
        passes,
    }
}

fn wipe(path: &Path, order: &WipeOrder, progress: &dyn ProgressSink) -> Result<Ended, Report> {
    let device = open(path, progress)?;
    let plan = Plan::make(&device, path, order)?;
    let info = in_use::identify(path)?;
    run(device, &info, &plan, &mut Agrees, progress)
}

pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

#[test]
fn every_byte_is_overwritten_and_the_result_says_what_was_done() {
    let dir = tempfile::tempdir().unwrap();
    let path = disk(dir.path());
    let wiped = wipe(&path, &order(WipeMethod::Overwrite, 1), &Silent)
        .unwrap()
        .wiped;
    assert!(is_zero(&std::fs::read(&path).unwrap()));
    assert_eq!(
        (wiped.method, wiped.ordered, wiped.passes, wiped.proof),
        (
            WipeMethod::Overwrite,
            WipeMethod::Overwrite,
            1,
            WipeProof::Zeros
        )
    );
    assert_eq!(
        (wiped.bytes, wiped.read_back_bytes),
        (SIZE as u64, SIZE as u64)
    );
    assert_eq!(
        wiped.disk.path,
        path.canonicalize().unwrap().to_str().unwrap()
    );
    let order = order(WipeMethod::Overwrite, 1);
    assert_eq!(wiped.contradiction(&order, &wiped.disk), None);
}

/// What the disk holds whenever a read-back begins.
struct Looks {
    path: PathBuf,
    seen: Mutex<Vec<Vec<u8>>>,
}

impl ProgressSink for Looks {
    fn step(&self, step: Step, _total_bytes: u64) {
        if step == Step::Verifying {
            self.seen
                .lock()
                .unwrap()
                .push(std::fs::read(&self.path).unwrap());
        }
    }
    fn advance(&self, _plain_bytes: u64, _wire_bytes: u64) {}
    fn note(&self, _text: &str) {}
    fn interrupted(&self) -> bool {
        false
    }
}

#[test]
fn passes_are_noise_between_empty_ends_and_zeros_in_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = disk(dir.path());
    let sink = Looks {
        path: path.clone(),
        seen: Mutex::default(),
    };
    let wiped = wipe(&path, &order(WipeMethod::Overwrite, 3), &sink)
        .unwrap()
        .wiped;
    assert_eq!((wiped.passes, wiped.proof), (3, WipeProof::Zeros));
    let seen = sink.seen.into_inner().unwrap();
    assert_eq!(seen.len(), 3, "each pass is read back");
    for pass in &seen[..2] {
        assert!(is_zero(&pass[..MIB]) && is_zero(&pass[SIZE - MIB..]));
        let middle = &pass[MIB..SIZE - MIB];
        let zeros = middle.iter().filter(|&&byte| byte == 0).count();
        assert!(zeros < middle.len() / 100);
        assert!(!middle.windows(64).any(|part| part == [0x5a; 64]));
    }
    assert!(seen[0] != seen[1]);
    assert!(is_zero(&seen[2]));
}

/// An operator who stops the job as soon as a step begins.
struct StopsAt(Step, AtomicBool);

impl ProgressSink for StopsAt {
    fn step(&self, step: Step, _total_bytes: u64) {
        if step == self.0 {
            self.1.store(true, Ordering::SeqCst);
        }
    }
    fn advance(&self, _plain_bytes: u64, _wire_bytes: u64) {}
    fn note(&self, _text: &str) {}
    fn interrupted(&self) -> bool {
        self.1.load(Ordering::SeqCst)
    }
}

#[test]
fn a_wipe_that_is_stopped_says_so_and_boots_nothing() {
    for method in [WipeMethod::Overwrite, WipeMethod::Discard] {
        for step in [Step::Preparing, Step::Running, Step::Verifying] {
            let dir = tempfile::tempdir().unwrap();
            let path = disk(dir.path());
            let sink = StopsAt(step, AtomicBool::new(false));
            let report = wipe(&path, &order(method, 1), &sink).unwrap_err();
            assert_eq!(report.code, Code::Interrupted, "{method} {step:?}");
            let now = std::fs::read(&path).unwrap();
            let device = Device::open_read(&path).unwrap();
            if step == Step::Preparing {
                assert_eq!(report.disk, DiskState::Untouched);
                assert!(now.iter().all(|&byte| byte == 0x5a));
                assert!(!is_unfinished(&device).unwrap());
                continue;
            }
            assert_eq!(report.disk, DiskState::Incomplete);
            assert!(is_zero(&now[..MIB]) && is_zero(&now[SIZE - MIB..]));
            assert!(is_unfinished(&device).unwrap());
            let words = match step {
                Step::Running => "can still be read",
                _ => "are proved",
            };
            assert!(report.found.contains(words), "{}", report.found);
        }
    }
}

#[test]
fn something_at_either_end_is_no_unfinished_wipe() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    for at in [0, 511, MIB - 1, SIZE - MIB, SIZE - 1] {
        let mut bytes = vec![0; SIZE];
        bytes[at] = 1;
        std::fs::write(&path, &bytes).unwrap();
        let device = Device::open_read(&path).unwrap();
        assert!(!is_unfinished(&device).unwrap(), "byte {at}");
    }
    let mut bytes = vec![1; SIZE];
    bytes[..MIB].fill(0);
    bytes[SIZE - MIB..].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    assert!(is_unfinished(&Device::open_read(&path).unwrap()).unwrap());
}

struct Refuses;

impl Guard for Refuses {
    fn before_write(&mut self, _device: &Device, _plan: &Plan) -> Result<(), Report> {
        Err(Report::new(Code::NotConfirmed, "no", DiskState::Untouched))
    }
}

#[test]
fn without_consent_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = disk(dir.path());
    let device = open(&path, &Silent).unwrap();
    let plan = Plan::make(&device, &path, &WipeOrder::default()).unwrap();
    let info = in_use::identify(&path).unwrap();
    let report = run(device, &info, &plan, &mut Refuses, &Silent).unwrap_err();
    assert_eq!(report.code, Code::NotConfirmed);
    assert!(std::fs::read(&path).unwrap() == vec![0x5a; SIZE]);
}

#[test]
fn what_a_disk_cannot_do_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = disk(dir.path());
    let device = Device::open_read(&path).unwrap();
    let plan = |order: &WipeOrder| Plan::make(&device, &path, order).map(|plan| plan.ways);
    for method in [WipeMethod::NvmeFormat, WipeMethod::NvmeSanitize] {
        let report = plan(&order(method, 1)).unwrap_err();
        assert_eq!(
            (report.code, report.disk),
            (Code::WipeUnsupported, DiskState::Untouched)
        );
    }
    assert_eq!(
        plan(&order(WipeMethod::Discard, 3)).unwrap_err().code,
        Code::Usage
    );
    // Blocks of a file are the file system's: to give them back erases nothing.
    let auto = plan(&WipeOrder::default()).unwrap();
    assert_eq!(auto, [super::Way::Overwrite(1)]);
}

#[test]
fn a_disk_smaller_than_its_ends_is_wiped_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    for size in [512, 4096, MIB, 2 * MIB - 512] {
        std::fs::write(&path, vec![7; size]).unwrap();
        for passes in [1, 2] {
            wipe(&path, &order(WipeMethod::Overwrite, passes), &Silent).unwrap();
        }
        assert!(is_zero(&std::fs::read(&path).unwrap()));
    }
}
