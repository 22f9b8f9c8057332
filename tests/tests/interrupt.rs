//! Jobs that an operator stops: the target stops soon, the server says so, the disk is told
//! right, and the machine can have its next job.
//!
//! Owns: the way from `deployctl interrupt` to the target's report. Does not own: the steps
//! of a job one by one (the imager's own tests). "Soon" is seen by what is still sent: no
//! clock decides here.

use std::fs;

use e2e::fleet::{End, Fleet, Machine, Target};
use e2e::wire_tap::WireTap;
use testkit::build::DiskBuilder;

const MIB: u64 = 1 << 20;
const NOISE: u64 = 48 * MIB;
/// Bytes per second of a slow line, each connection.
const SLOW: u64 = 96 << 10;
/// What may still travel after the word: what buffers hold, and the conversation.
const LATE: u64 = 4 * MIB;

struct Stage {
    fleet: Fleet,
    machine: Machine,
    name: String,
    tap: WireTap,
}

impl Stage {
    fn new(options: &[&str]) -> Stage {
        let fleet = Fleet::new(options).unwrap();
        let machine = machine(&fleet, 1);
        let name = fleet.register(&machine).unwrap();
        let tap = WireTap::to(fleet.data_port()).unwrap();
        Stage {
            fleet,
            machine,
            name,
            tap,
        }
    }

    fn ctl(&self, arguments: &[&str]) -> String {
        self.fleet.ctl(arguments).unwrap()
    }

    fn boot(&self) -> Target {
        self.fleet.boot(&self.machine, &self.tap.url()).unwrap()
    }

    fn done(&self) {
        let end = self.boot().finish().unwrap();
        assert_eq!(end.json["result"], "done", "{end:?}");
    }

    /// The target stopped because it was told to, and the server knows it from the target.
    fn assert_interrupted(&self, end: &End, kind: &str, disk: &str) {
        assert_eq!(end.json["code"], "interrupted", "{end:?}");
        assert_eq!(end.json["disk"], disk, "{end:?}");
        let execution = self.fleet.status().unwrap();
        let execution = execution.execution(&self.name, kind).unwrap();
        assert_eq!(execution.state(), "interrupted", "{execution:?}");
        let report = execution.report();
        assert_eq!(report["code"], "interrupted");
        assert_eq!(report["disk"], disk);
        assert_eq!(report["found"], end.json["found"], "the target's own words");
    }
}

fn machine(fleet: &Fleet, number: u8) -> Machine {
    let disk = fleet.dir().join(format!("disk-{number}.img"));
    let disk = DiskBuilder::gpt(NOISE + 4 * MIB, 512)
        .raw(NOISE, u64::from(number))
        .build(&disk)
        .path;
    Machine::new(number, &[&disk])
}

#[test]
fn a_backup_over_a_slow_line_stops() {
    let stage = Stage::new(&[]);
    stage.ctl(&["backup", &stage.name, "--image", "gold"]);
    stage.tap.slow(SLOW);
    let mut target = stage.boot();
    assert!(target.until(|| stage.tap.up() >= MIB).unwrap());
    stage
        .fleet
        .wait(&stage.name, "backup", |e| e.state() == "running")
        .unwrap();
    stage.ctl(&["interrupt", &stage.name]);
    let before = stage.tap.up();
    let end = target.finish().unwrap();
    stage.assert_interrupted(&end, "backup", "not-involved");
    let after = stage.tap.up() - before;
    println!("{after} bytes were sent after the interrupt");
    assert!(after < LATE, "{after} bytes");
    // The machine can have its next job once this one was cleared, and only then.
    assert!(
        stage
            .fleet
            .ctl(&["backup", &stage.name, "--image", "gold"])
            .is_err()
    );
    stage.ctl(&["clear", &stage.name]);
    stage.tap.mend();
    stage.ctl(&["backup", &stage.name, "--image", "gold"]);
    stage.done();
}

#[test]
fn a_restore_over_a_slow_line_stops() {
    let stage = Stage::new(&[]);
    stage.ctl(&["backup", &stage.name, "--image", "gold"]);
    stage.done();
    let before = fs::read(&stage.machine.disks[0]).unwrap();
    stage.ctl(&["restore", &stage.name, "--image", "gold", "--yes"]);
    stage.tap.slow(SLOW);
    let mut target = stage.boot();
    let came = stage.tap.down();
    assert!(target.until(|| stage.tap.down() >= came + MIB).unwrap());
    stage
        .fleet
        .wait(&stage.name, "restore", |e| e.state() == "running")
        .unwrap();
    stage.ctl(&["interrupt", &stage.name]);
    let told = stage.tap.down();
    let end = target.finish().unwrap();
    stage.assert_interrupted(&end, "restore", "incomplete");
    let after = stage.tap.down() - told;
    println!("{after} bytes came after the interrupt");
    assert!(after < LATE, "{after} bytes");
    let half = fs::read(&stage.machine.disks[0]).unwrap();
    assert!(
        half[..MIB as usize].iter().all(|byte| *byte == 0),
        "a table stands there"
    );
    // It is over: the next boot does nothing, and a new order starts anew.
    let end = stage.boot().finish().unwrap();
    assert_eq!(end.json["result"], "nothing", "{end:?}");
    stage.ctl(&["clear", &stage.name]);
    stage.tap.mend();
    stage.ctl(&["restore", &stage.name, "--image", "gold", "--yes"]);
    stage.done();
    assert!(fs::read(&stage.machine.disks[0]).unwrap() == before);
}

#[test]
fn what_waits_in_line_is_cancelled() {
    let stage = Stage::new(&["--max-transfers", "1"]);
    let second = machine(&stage.fleet, 2);
    let name = stage.fleet.register(&second).unwrap();
    stage.ctl(&["backup", &stage.name, "--image", "first"]);
    stage.ctl(&["backup", &name, "--image", "second"]);
    stage.tap.slow(SLOW);
    let mut running = stage.boot();
    assert!(running.until(|| stage.tap.up() >= MIB).unwrap());
    let waiting = stage.fleet.boot(&second, &stage.fleet.url()).unwrap();
    let line = stage
        .fleet
        .wait(&name, "backup", |e| e.words().contains("in line"))
        .unwrap();
    println!("{line:?}");
    stage.ctl(&["interrupt", &name]);
    let end = waiting.finish().unwrap();
    assert_eq!(end.json["result"], "nothing", "{end:?}");
    let cancelled = stage.fleet.status().unwrap();
    let cancelled = cancelled.execution(&name, "backup").unwrap();
    assert_eq!(cancelled.state(), "interrupted", "{cancelled:?}");
    assert_eq!(cancelled.report()["disk"], "not-involved");
    // Nothing has to be cleared of what never began.
    stage.ctl(&["backup", &name, "--image", "second"]);
    stage.tap.mend();
    let end = running.finish().unwrap();
    assert_eq!(end.json["result"], "done", "{end:?}");
    let end = stage
        .fleet
        .boot(&second, &stage.fleet.url())
        .unwrap()
        .finish()
        .unwrap();
    assert_eq!(end.json["result"], "done", "{end:?}");
}

#[test]
fn a_target_that_lost_its_connection_hears_of_it_when_it_is_back() {
    let stage = Stage::new(&[]);
    stage.ctl(&["backup", &stage.name, "--image", "gold"]);
    stage.tap.slow(SLOW);
    let mut target = stage.boot();
    assert!(target.until(|| stage.tap.up() >= MIB).unwrap());
    stage.tap.cut();
    stage.ctl(&["interrupt", &stage.name]);
    let state = |e: &e2e::status::Execution| e.state() == "interrupting";
    stage.fleet.wait(&stage.name, "backup", state).unwrap();
    let before = stage.tap.up();
    stage.tap.mend();
    stage.tap.slow(SLOW);
    let end = target.finish().unwrap();
    stage.assert_interrupted(&end, "backup", "not-involved");
    let after = stage.tap.up() - before;
    println!("{after} bytes were sent after the way was free again");
    assert!(after < LATE, "{after} bytes");
}
