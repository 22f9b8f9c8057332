//! Wiping as a job: what the server is told, and what can be shown later.
//!
//! Owns: jobs of a real server on raw files, and their certificates. Does not own: the ways
//! to wipe a disk, faulty disks (the imager's own tests).

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use e2e::fleet::{Fleet, Machine};
use serde_json::Value;
use testkit::build::DiskBuilder;

const MIB: u64 = 1 << 20;
const SIZE: u64 = 96 * MIB;

/// A machine with two disks, which are full.
struct Stage {
    fleet: Fleet,
    machine: Machine,
    name: String,
    disks: Vec<PathBuf>,
}

impl Stage {
    fn new() -> Stage {
        let fleet = Fleet::new(&[]).unwrap();
        let disks: Vec<PathBuf> = (0..2)
            .map(|n| {
                let path = fleet.dir().join(format!("disk-{n}.img"));
                let noise = SIZE - 4 * MIB;
                DiskBuilder::gpt(SIZE, 512)
                    .raw(noise, n + 51)
                    .build(&path)
                    .path
            })
            .collect();
        let paths: Vec<&Path> = disks.iter().map(PathBuf::as_path).collect();
        let machine = Machine::new(1, &paths);
        let name = fleet.register(&machine).unwrap();
        Stage {
            fleet,
            machine,
            name,
            disks,
        }
    }

    fn ctl(&self, arguments: &[&str]) -> String {
        self.fleet.ctl(arguments).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.ctl(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap()
    }

    fn order(&self, options: &[&str]) {
        self.ctl(&[&["wipe", &self.name, "--yes"], options].concat());
    }

    fn boot(&self) -> e2e::fleet::Target {
        self.fleet.boot(&self.machine, &self.fleet.url()).unwrap()
    }

    /// Whether both ends of the first disk are empty: the wipe is under way.
    fn is_begun(&self) -> bool {
        [0, SIZE - MIB].into_iter().all(|at| {
            let mut end = vec![1; MIB as usize];
            let read = fs::File::open(&self.disks[0]).and_then(|f| f.read_exact_at(&mut end, at));
            read.is_ok() && is_zero(&end)
        })
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

#[test]
fn a_wipe_is_done_and_can_be_shown_when_the_machine_is_long_gone() {
    let stage = Stage::new();
    let other = fs::read(&stage.disks[1]).unwrap();
    // Which of two disks is meant has to be said.
    let error = stage
        .fleet
        .ctl(&["wipe", &stage.name, "--yes"])
        .unwrap_err();
    assert!(error.to_string().contains("target-ambiguous"), "{error}");
    let error = stage
        .fleet
        .ctl(&["wipe", &stage.name, "--disk", "number=0"])
        .unwrap_err();
    assert!(error.to_string().contains("not-confirmed"), "{error}");
    stage.order(&[
        "--disk",
        "number=0",
        "--method",
        "overwrite",
        "--passes",
        "2",
    ]);
    let end = stage.boot().finish().unwrap();
    assert_eq!(end.json["result"], "done", "{end:?}");
    assert_eq!(end.json["wipe"]["passes"], 2);
    assert!(is_zero(&fs::read(&stage.disks[0]).unwrap()));
    assert!(
        fs::read(&stage.disks[1]).unwrap() == other,
        "the other disk"
    );
    let status = stage.ctl(&["status", &stage.name]);
    assert!(status.contains("wiped by overwrite"), "{status}");

    let all = stage.json(&["certificates"]);
    let one = &all.as_array().unwrap()[..];
    assert_eq!(one.len(), 1);
    let says = &one[0]["says"];
    assert_eq!(says["machine"], stage.name.as_str());
    assert_eq!(says["wiped"]["bytes"], SIZE);
    assert_eq!(says["wiped"]["read_back_bytes"], SIZE);
    assert_eq!(
        (&one[0]["is_valid"], &one[0]["is_ours"]),
        (&true.into(), &true.into())
    );
    let id = says["execution"].as_str().unwrap();
    stage.ctl(&["machines", "forget", &stage.name]);
    let text = stage.ctl(&["certificates", id]);
    for word in [&stage.name, "overwrite", "are zeros", "this server's key"] {
        assert!(text.contains(word), "no {word} in {text}");
    }
    // Who changes it is found out.
    let file = stage
        .fleet
        .dir()
        .join(format!("state/certificates/{id}.json"));
    let changed = fs::read_to_string(&file).unwrap();
    fs::write(&file, changed.replace("overwrite", "nvme-sanitize")).unwrap();
    let error = stage.fleet.ctl(&["certificates", id]).unwrap_err();
    assert!(error.to_string().contains("image-untrusted"), "{error}");
    assert!(stage.ctl(&["certificates"]).contains("BAD"));
    let error = stage.fleet.ctl(&["certificates", "../admin"]).unwrap_err();
    assert!(error.to_string().contains("no certificate"), "{error}");
}

#[test]
fn a_machine_that_loses_its_power_starts_the_wipe_again() {
    let stage = Stage::new();
    stage.order(&["--disk", "number=0", "--passes", "16"]);
    let mut target = stage.boot();
    assert!(target.until(|| stage.is_begun()).unwrap(), "it ended");
    target.kill().unwrap();
    let end = stage.boot().finish().unwrap();
    assert_eq!(end.json["result"], "done", "{end:?}");
    assert_eq!(end.json["wipe"]["passes"], 16);
    assert!(is_zero(&fs::read(&stage.disks[0]).unwrap()));
    assert_eq!(stage.json(&["certificates"]).as_array().unwrap().len(), 1);
}

#[test]
fn what_was_put_on_the_disk_since_is_not_wiped() {
    let stage = Stage::new();
    stage.order(&["--disk", "number=0", "--passes", "16"]);
    let mut target = stage.boot();
    assert!(target.until(|| stage.is_begun()).unwrap(), "it ended");
    target.kill().unwrap();
    let file = fs::File::options()
        .write(true)
        .open(&stage.disks[0])
        .unwrap();
    file.write_all_at(b"somebody's new data", 4096).unwrap();
    let before = fs::read(&stage.disks[0]).unwrap();
    let end = stage.boot().finish().unwrap();
    assert_eq!(end.json["code"], "target-silent", "{end:?}");
    assert_eq!(end.json["disk"], "unknown");
    assert!(fs::read(&stage.disks[0]).unwrap() == before, "it was wiped");
    assert!(stage.json(&["certificates"]).as_array().unwrap().is_empty());
    // A person has looked.
    stage.ctl(&["clear", &stage.name]);
    stage.order(&["--disk", "number=0"]);
    let end = stage.boot().finish().unwrap();
    assert_eq!(end.json["result"], "done", "{end:?}");
    assert!(is_zero(&fs::read(&stage.disks[0]).unwrap()));
}

#[test]
fn an_operator_stops_a_wipe_and_is_told_what_the_disk_is() {
    let stage = Stage::new();
    stage.order(&["--disk", "number=0", "--passes", "16"]);
    let mut target = stage.boot();
    assert!(target.until(|| stage.is_begun()).unwrap(), "it ended");
    stage.ctl(&["interrupt", &stage.name]);
    let end = target.finish().unwrap();
    assert_eq!(end.json["code"], "interrupted", "{end:?}");
    assert_eq!(end.json["disk"], "incomplete");
    let execution = stage
        .fleet
        .wait(&stage.name, "wipe", |execution| execution.is_final())
        .unwrap();
    assert_eq!(execution.state(), "interrupted");
    assert!(stage.json(&["certificates"]).as_array().unwrap().is_empty());
}
