//! Scripts as jobs, and before and after jobs.
//!
//! Owns: that they run when they should and what a failure means, with a real server and its
//! key. Does not own: running a process, signatures (unit tests).

use std::fs;
use std::path::{Path, PathBuf};

use e2e::fleet::{End, Fleet, Machine};
use serde_json::Value;
use testkit::build::DiskBuilder;

const MIB: u64 = 1 << 20;

struct Stage {
    fleet: Fleet,
    machine: Machine,
    name: String,
    disk: PathBuf,
}

impl Stage {
    /// A machine that trusts the server's key.
    fn new() -> Stage {
        let mut stage = Stage::of_stranger();
        let key = fs::read_to_string(stage.fleet.dir().join("state/sign.pub")).unwrap();
        stage.machine.options = vec!["--trusted-key".into(), key.trim().into()];
        stage
    }

    /// One that was told of no key.
    fn of_stranger() -> Stage {
        let fleet = Fleet::new(&[]).unwrap();
        let path = fleet.dir().join("disk.img");
        let disk = DiskBuilder::gpt(24 * MIB, 512)
            .raw(16 * MIB, 71)
            .build(&path)
            .path;
        let machine = Machine::new(1, &[&disk]);
        let name = fleet.register(&machine).unwrap();
        Stage {
            fleet,
            machine,
            name,
            disk,
        }
    }

    fn ctl(&self, arguments: &[&str]) -> String {
        self.fleet.ctl(arguments).unwrap()
    }

    fn script(&self, name: &str, text: &str) -> String {
        let path = self.fleet.dir().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn boot(&self) -> End {
        let target = self.fleet.boot(&self.machine, &self.fleet.url()).unwrap();
        target.finish().unwrap()
    }

    fn output(&self) -> Value {
        let text = self.ctl(&["script", "output", &self.name, "--json"]);
        serde_json::from_str(&text).unwrap()
    }

    fn back_up(&self) {
        self.ctl(&["backup", &self.name, "--image", "gold"]);
        assert_eq!(self.boot().json["result"], "done");
    }
}

fn garbage(path: &Path) -> Vec<u8> {
    let bytes = vec![0x77; 24 * MIB as usize];
    fs::write(path, &bytes).unwrap();
    bytes
}

#[test]
fn a_script_runs_alone_and_its_output_comes_home() {
    let stage = Stage::new();
    let file = stage.script("hello.sh", "echo hello $DEPLOY_WHEN; echo oh >&2");
    stage.ctl(&["script", "run", &stage.name, &file]);
    let end = stage.boot();
    assert_eq!(end.json["result"], "done", "{end:?}");
    let said = stage.output();
    assert_eq!(said[0]["output"], "hello alone\noh\n");
    assert_eq!(said[0]["exit_code"], 0);
    let text = stage.ctl(&["script", "output", &stage.name]);
    assert!(text.contains("\"hello.sh\" (alone) ended with 0"), "{text}");

    let file = stage.script("bad.sh", "echo no such luck; exit 3");
    stage.ctl(&["script", "run", &stage.name, &file]);
    let end = stage.boot();
    assert_eq!(end.json["code"], "script-failed", "{end:?}");
    let found = end.json["found"].as_str().unwrap();
    assert!(
        found.contains("ended with 3") && found.contains("no such luck"),
        "{found}"
    );
    assert_eq!(stage.output()[0]["exit_code"], 3);

    stage.ctl(&["clear", &stage.name]);
    let file = stage.script("slow.sh", "sleep 1000");
    stage.ctl(&["script", "run", &stage.name, &file, "--limit", "1"]);
    let end = stage.boot();
    assert_eq!(end.json["code"], "script-failed", "{end:?}");
    assert_eq!(stage.output()[0]["timed_out"], true);
}

#[test]
fn a_script_that_fails_before_a_restore_stops_it_before_anything_is_written() {
    let stage = Stage::new();
    stage.back_up();
    let before = garbage(&stage.disk);
    let file = stage.script("check.sh", "exit 1");
    let restore = [
        "restore",
        &stage.name,
        "--image",
        "gold",
        "--yes",
        "--before-script",
    ];
    stage.ctl(&[&restore[..], &[&file]].concat());
    let end = stage.boot();
    assert_eq!(end.json["code"], "script-failed", "{end:?}");
    assert_eq!(end.json["disk"], "untouched");
    assert!(
        fs::read(&stage.disk).unwrap() == before,
        "the disk was written"
    );
    stage.ctl(&["clear", &stage.name]);
    let file = stage.script("check.sh", "exit 0");
    stage.ctl(&[&restore[..], &[&file]].concat());
    assert_eq!(stage.boot().json["result"], "done");
    assert!(fs::read(&stage.disk).unwrap() != before);
}

#[test]
fn a_script_that_fails_after_a_restore_says_that_the_restore_was_done() {
    let stage = Stage::new();
    stage.back_up();
    let good = fs::read(&stage.disk).unwrap();
    garbage(&stage.disk);
    let both = stage.script("both.sh", "echo $DEPLOY_WHEN; test $DEPLOY_WHEN = before");
    stage.ctl(&[
        "restore",
        &stage.name,
        "--image",
        "gold",
        "--yes",
        "--before-script",
        &both,
        "--after-script",
        &both,
    ]);
    let end = stage.boot();
    assert_eq!(end.json["code"], "script-failed", "{end:?}");
    assert_eq!(end.json["disk"], "complete");
    let found = end.json["found"].as_str().unwrap();
    assert!(found.contains("the job before it was done"), "{found}");
    let said = stage.output();
    assert_eq!(
        (&said[0]["output"], &said[1]["output"]),
        (&"before\n".into(), &"after\n".into())
    );
    let now = fs::read(&stage.disk).unwrap();
    let data = MIB as usize..17 * MIB as usize;
    assert!(now[data.clone()] == good[data], "the restore was not done");
}

#[test]
fn a_machine_that_was_told_of_no_key_runs_no_script() {
    let stage = Stage::of_stranger();
    let mark = stage.fleet.dir().join("it-ran");
    let file = stage.script("x.sh", &format!("touch {}", mark.display()));
    stage.ctl(&["script", "run", &stage.name, &file]);
    let end = stage.boot();
    assert_eq!(end.json["code"], "script-untrusted", "{end:?}");
    assert!(!mark.exists(), "it ran");
}
