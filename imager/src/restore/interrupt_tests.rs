//! An operator stops a job in each of its steps: how soon, and what the disk is then.

use super::stream::ContainerSource;
use super::{Guard, Options, Plan, Restored, open, run};
use crate::backup::{self, container};
use crate::keyring::Keyring;
use crate::progress::{ProgressSink, Silent};
use blockdev::Device;
use image::layout::Machine;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use wire::{Code, DiskInfo, DiskState, Report, RestoreScope, Step};

const MIB: usize = 1 << 20;
const SIZE: usize = 24 * MIB;

/// An operator who stops the job as soon as a step begins.
struct StopsAt {
    step: Step,
    stopped: AtomicBool,
    /// Plain bytes that were done after that.
    after: AtomicU64,
}

impl StopsAt {
    fn new(step: Step) -> Self {
        StopsAt {
            step,
            stopped: AtomicBool::new(false),
            after: AtomicU64::new(0),
        }
    }
}

impl ProgressSink for StopsAt {
    fn step(&self, step: Step, _total_bytes: u64) {
        if step == self.step {
            self.stopped.store(true, Ordering::SeqCst);
        }
    }

    fn advance(&self, plain_bytes: u64, _wire_bytes: u64) {
        if self.interrupted() {
            self.after.fetch_add(plain_bytes, Ordering::SeqCst);
        }
    }

    fn note(&self, _text: &str) {}

    fn interrupted(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }
}

struct Nobody;

impl Guard for Nobody {
    fn before_write(&mut self, _device: &Device, _plan: &Plan) -> Result<(), Report> {
        Ok(())
    }
}

/// Contents that nobody knows: all of it is copied.
fn contents(seed: u8) -> Vec<u8> {
    (0..SIZE)
        .map(|n| (n / 4096) as u8 ^ (n as u8) ^ seed)
        .collect()
}

fn plan_of(path: &Path, progress: &dyn ProgressSink) -> Result<(Device, backup::Plan), Report> {
    let device = Device::open_read(path).unwrap();
    let options = backup::Options::default();
    let info = DiskInfo::default();
    let plan = backup::Plan::make(&device, &info, Machine::default(), &options, progress)?;
    Ok((device, plan))
}

fn image_of(path: &Path) -> Vec<u8> {
    let (device, plan) = plan_of(path, &Silent).unwrap();
    let options = backup::Options::default();
    let (bytes, _) = container::write(&device, &plan, &options, Vec::new(), &Silent).unwrap();
    bytes
}

/// Restores over other contents with an operator who stops it; what the disk is then.
fn stopped_at(step: Step, reuse: bool) -> (Result<Restored, Report>, Vec<u8>, u64) {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("source"), dir.path().join("target"));
    std::fs::write(&source, contents(0)).unwrap();
    let old = if reuse { contents(0) } else { contents(1) };
    std::fs::write(&target, old).unwrap();
    let bytes = image_of(&source);
    let mut image = ContainerSource::open(&bytes[..], &Keyring::default()).unwrap();
    let device = open(&target, &RestoreScope::default()).unwrap();
    let sink = StopsAt::new(step);
    let options = Options {
        reuse,
        ..Options::default()
    };
    let done = run(device, &target, &mut image, &mut Nobody, &options, &sink);
    let after = sink.after.load(Ordering::SeqCst);
    (done, std::fs::read(&target).unwrap(), after)
}

#[test]
fn before_the_first_write_nothing_is_written() {
    let (done, disk, _) = stopped_at(Step::Preparing, false);
    let report = done.unwrap_err();
    assert_eq!(
        (report.code, report.disk),
        (Code::Interrupted, DiskState::Untouched)
    );
    assert!(disk == contents(1), "the disk was written");
}

#[test]
fn while_data_flows_and_while_it_is_read_back_the_head_stays_zero() {
    for step in [Step::Running, Step::Verifying] {
        for reuse in [false, true] {
            let (done, disk, after) = stopped_at(step, reuse);
            let report = done.unwrap_err();
            assert_eq!(
                (report.code, report.disk),
                (Code::Interrupted, DiskState::Incomplete),
                "{step:?}"
            );
            assert!(disk[..MIB].iter().all(|byte| *byte == 0), "{step:?}");
            // What was in somebody's hands is finished, and nothing else is begun.
            assert!(after < 20 * MIB as u64, "{step:?}: {after} bytes more");
        }
    }
}

#[test]
fn the_last_steps_are_finished() {
    let (done, disk, _) = stopped_at(Step::Finishing, false);
    done.unwrap();
    assert!(disk == contents(0), "the disk is not the image");
}

#[test]
fn a_scan_of_a_disk_ends_with_the_next_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    std::fs::write(&path, contents(0)).unwrap();
    let sink = StopsAt::new(Step::Preparing);
    sink.step(Step::Preparing, 0);
    let report = plan_of(&path, &sink).map(|_| ()).unwrap_err();
    assert_eq!(report.code, Code::Interrupted);
}

/// A large or failing disk is not scanned on for minutes, while other disks wait for this one.
#[test]
fn the_look_at_what_a_disk_holds_ends_when_the_job_is_to_stop() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    testkit::build::DiskBuilder::gpt(8 << 20, 512)
        .raw(4 << 20, 1)
        .build(&path);
    let device = crate::source::open(&path, None).unwrap();
    assert!(super::show::look(&device, &Silent).is_some());
    let stopped = StopsAt::new(Step::Preparing);
    stopped.step(Step::Preparing, 0);
    assert!(super::show::look(&device, &stopped).is_none());
}
