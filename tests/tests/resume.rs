//! Jobs that are broken off: the network is cut, the server killed, the target loses its
//! power. The job goes on and ends right, and little is sent again.
//!
//! Owns: jobs of a real server on raw files. Does not own: machines that boot (`bios`).

use std::fs;
use std::path::{Path, PathBuf};

use e2e::fleet::{Fleet, Machine, Target};
use e2e::wire_tap::WireTap;
use testkit::build::{DiskBuilder, Random};

const MIB: u64 = 1 << 20;
/// Most that may be sent again after one break.
const AGAIN: u64 = 64 * MIB;
/// Noise on the test disk: more than may be sent again.
const NOISE: u64 = 160 * MIB;

/// A disk full of what no compressor makes smaller.
fn noise(path: &Path) -> PathBuf {
    DiskBuilder::gpt(NOISE + 4 * MIB, 512)
        .raw(NOISE / 2, 21)
        .raw(NOISE / 2, 22)
        .build(path)
        .path
}

fn assert_same(a: &Path, b: &Path) {
    let (a, b) = (fs::read(a).unwrap(), fs::read(b).unwrap());
    assert_eq!(a.len(), b.len());
    let differs = a.iter().zip(&b).position(|(a, b)| a != b);
    assert_eq!(differs, None, "the first byte that differs");
}

/// A server, a machine with a disk of noise, and the way between them.
struct Stage {
    fleet: Fleet,
    machine: Machine,
    name: String,
    disk: PathBuf,
    tap: WireTap,
}

impl Stage {
    fn new() -> Stage {
        let fleet = Fleet::new(&[]).unwrap();
        let disk = noise(&fleet.dir().join("disk.img"));
        let machine = Machine::new(1, &[&disk]);
        let name = fleet.register(&machine).unwrap();
        let tap = WireTap::to(fleet.data_port()).unwrap();
        Stage {
            fleet,
            machine,
            name,
            disk,
            tap,
        }
    }

    fn boot(&self) -> Target {
        self.fleet.boot(&self.machine, &self.tap.url()).unwrap()
    }

    fn order(&self, arguments: &[&str]) {
        let line = [&[arguments[0], &self.name], &arguments[1..]].concat();
        self.fleet.ctl(&line).unwrap();
    }

    fn backup(&self) {
        self.order(&["backup", "--image", "gold"]);
        let end = self.boot().finish().unwrap();
        assert_eq!(end.json["result"], "done", "{end:?}");
    }

    /// The newest execution is done.
    fn assert_done(&self, kind: &str) {
        let status = self.fleet.status().unwrap();
        let execution = status.execution(&self.name, kind).unwrap();
        assert!(execution.is_done(), "{status:?}");
    }

    /// An empty disk in the place of the machine's.
    fn blank(&mut self) -> PathBuf {
        let blank = self.fleet.dir().join("blank.img");
        let _ = fs::remove_file(&blank);
        let file = fs::File::create_new(&blank).unwrap();
        file.set_len(self.disk.metadata().unwrap().len()).unwrap();
        self.machine.disks = vec![blank.clone()];
        blank
    }

    fn breaks(&mut self, how: Break, target: Target) -> Target {
        match how {
            Break::Network => {
                self.tap.cut();
                self.tap.mend();
                target
            }
            Break::Server => {
                self.fleet.kill_server().unwrap();
                self.fleet.start_server().unwrap();
                target
            }
            Break::Target => {
                target.kill().unwrap();
                self.boot()
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Break {
    Network,
    Server,
    Target,
}

/// The ways to break a job in an order that differs from seed to seed, each with the share
/// of the data, in percent, that went before.
fn plan(random: &mut Random) -> Vec<(Break, u64)> {
    let mut ways = vec![Break::Network, Break::Server, Break::Target];
    let first = random.below(3) as usize;
    ways.rotate_left(first);
    if random.below(2) == 1 {
        ways.swap(1, 2);
    }
    let mut percent = 0;
    ways.into_iter()
        .map(|way| {
            percent += 5 + random.below(25);
            (way, percent)
        })
        .collect()
}

#[test]
fn a_backup_that_is_broken_off_goes_on() {
    for seed in 1..=2 {
        let mut stage = Stage::new();
        stage.order(&["backup", "--image", "gold"]);
        let mut target = stage.boot();
        let plan = plan(&mut Random::new(seed));
        println!("seed {seed}: {plan:?}");
        for &(how, percent) in &plan {
            let share = NOISE / 100 * percent;
            assert!(target.until(|| stage.tap.up() >= share).unwrap(), "{how:?}");
            target = stage.breaks(how, target);
        }
        let end = target.finish().unwrap();
        assert_eq!(end.json["result"], "done", "seed {seed}: {end:?}");
        stage.assert_done("backup");
        let sent = stage.tap.up();
        println!("seed {seed}: {sent} bytes sent for {NOISE}");
        assert!(sent < NOISE + plan.len() as u64 * AGAIN, "{sent}");
        let blank = stage.blank();
        stage.order(&["restore", "--image", "gold", "--yes"]);
        let end = stage.boot().finish().unwrap();
        assert_eq!(end.json["result"], "done", "seed {seed}: {end:?}");
        assert_same(&stage.disk, &blank);
    }
}

#[test]
fn a_restore_that_is_broken_off_goes_on() {
    let mut stage = Stage::new();
    stage.backup();
    for seed in 11..=12 {
        let blank = stage.blank();
        stage.order(&["restore", "--image", "gold", "--yes"]);
        let before = stage.tap.down();
        let mut target = stage.boot();
        let plan = plan(&mut Random::new(seed));
        println!("seed {seed}: {plan:?}");
        for &(how, percent) in &plan {
            let share = before + NOISE / 100 * percent;
            assert!(
                target.until(|| stage.tap.down() >= share).unwrap(),
                "{how:?}"
            );
            target = stage.breaks(how, target);
        }
        let end = target.finish().unwrap();
        assert_eq!(end.json["result"], "done", "seed {seed}: {end:?}");
        stage.assert_done("restore");
        let came = stage.tap.down() - before;
        println!("seed {seed}: {came} bytes came for {NOISE}");
        assert!(came < NOISE + plan.len() as u64 * AGAIN, "{came}");
        assert_same(&stage.disk, &blank);
    }
}

/// Late in the job, so that a second start from the beginning would send far more again.
const LATE: u64 = 85;

#[test]
fn little_is_sent_again_after_a_power_cut() {
    let mut stage = Stage::new();
    stage.order(&["backup", "--image", "gold"]);
    let mut target = stage.boot();
    let share = NOISE / 100 * LATE;
    assert!(target.until(|| stage.tap.up() >= share).unwrap());
    let target = stage.breaks(Break::Target, target);
    let end = target.finish().unwrap();
    assert_eq!(end.json["result"], "done", "{end:?}");
    let sent = stage.tap.up();
    println!("backup: {sent} bytes sent for {NOISE}");
    assert!(sent < NOISE + AGAIN, "{sent} bytes were sent");

    let blank = stage.blank();
    stage.order(&["restore", "--image", "gold", "--yes"]);
    let before = stage.tap.down();
    let mut target = stage.boot();
    assert!(target.until(|| stage.tap.down() >= before + share).unwrap());
    let target = stage.breaks(Break::Target, target);
    let end = target.finish().unwrap();
    assert_eq!(end.json["result"], "done", "{end:?}");
    let came = stage.tap.down() - before;
    println!("restore: {came} bytes came for {NOISE}, {}", end.json);
    assert!(came < NOISE + AGAIN, "{came} bytes came");
    assert_same(&stage.disk, &blank);
}

#[test]
fn a_disk_that_got_a_table_meanwhile_is_not_written_again() {
    let mut stage = Stage::new();
    stage.backup();
    let blank = stage.blank();
    stage.order(&["restore", "--image", "gold", "--yes"]);
    let before = stage.tap.down();
    let mut target = stage.boot();
    assert!(
        target
            .until(|| stage.tap.down() >= before + NOISE / 4)
            .unwrap()
    );
    target.kill().unwrap();
    // Somebody set the machine up anew by other means.
    fs::remove_file(&blank).unwrap();
    let other = DiskBuilder::mbr(stage.disk.metadata().unwrap().len(), 512)
        .raw(8 * MIB, 5)
        .build(&blank);
    let now = fs::read(&other.path).unwrap();
    let end = stage.boot().finish().unwrap();
    assert_eq!(end.json["code"], "target-silent", "{end:?}");
    assert_eq!(end.json["disk"], "unknown", "{end:?}");
    assert!(fs::read(&blank).unwrap() == now, "the disk was written");
    // Nothing more happens before an operator has looked.
    let end = stage.boot().finish().unwrap();
    assert_eq!(end.json["result"], "nothing", "{end:?}");
    stage.order(&["clear"]);
    stage.order(&["restore", "--image", "gold", "--yes"]);
    let end = stage.boot().finish().unwrap();
    assert_eq!(end.json["result"], "done", "{end:?}");
    assert_same(&stage.disk, &blank);
}

#[test]
fn yesterdays_image_writes_only_what_differs() {
    let stage = Stage::new();
    stage.backup();
    let disk = stage.disk.clone();
    let copy = stage.fleet.dir().join("copy.img");
    fs::copy(&disk, &copy).unwrap();
    // The machine works for a day: 2 MiB change.
    let place = 40 * MIB;
    let mut bytes = fs::read(&disk).unwrap();
    bytes[place as usize..(place + 2 * MIB) as usize].fill(0x5a);
    fs::write(&disk, &bytes).unwrap();
    stage.order(&["restore", "--image", "gold", "--yes", "--reuse"]);
    let before = stage.tap.down();
    let end = stage.boot().finish().unwrap();
    assert_eq!(end.json["result"], "done", "{end:?}");
    let came = stage.tap.down() - before;
    let skipped = end.json["skipped_bytes"].as_u64().unwrap();
    println!("{came} bytes came, {skipped} were there already");
    // Heads and tails of two partitions, what changed, and the conversation.
    assert!(came < 16 * MIB, "{came} bytes came");
    assert!(skipped > NOISE - 16 * MIB, "{skipped} bytes were found");
    assert_same(&copy, &disk);
}
