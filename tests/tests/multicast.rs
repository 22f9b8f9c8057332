//! Multicast sessions of a real server: machines with losses, late ones, deaf ones, a server
//! that is killed.
//!
//! Owns: targets on hosts of a laboratory, on raw files. Does not own: figures (the
//! benchmark), rooms without a server (the imager's own tests), virtual machines (the demo).

use std::fs::{self, File};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use e2e::fleet::{End, Fleet, Machine, Target};
use serde_json::Value;
use testkit::build::{BuiltDisk, DiskBuilder, Tree};
use testkit::netns::{Host, Lab, require};

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(300);

/// A machine on a host of its own.
struct Pc {
    host: Host,
    machine: Machine,
    name: String,
    disk: PathBuf,
}

/// A server with an image, and machines with blank disks.
struct Stage {
    fleet: Fleet,
    source: BuiltDisk,
    pcs: Vec<Pc>,
    _lab: Lab,
}

impl Stage {
    fn new(machines: u8) -> Stage {
        let lab = Lab::new().unwrap();
        let server = lab.host("srv", "10.99.0.1/24").unwrap();
        let interface = ["--interface", "eth0"];
        let fleet = Fleet::on(server, "10.99.0.1", &interface).unwrap();
        let source = DiskBuilder::gpt(96 * MIB, 512)
            .boot_code(3)
            .ext4(40 * MIB, &Tree::new(5, 40, 500_000))
            .raw(24 * MIB, 9)
            .swap(4 * MIB)
            .build(&fleet.dir().join("source"));
        let mut pcs: Vec<Pc> = (0..=machines)
            .map(|n| {
                let at = format!("10.99.0.{}/24", n + 10);
                let host = lab.host(&format!("pc{n}"), &at).unwrap();
                let disk = match n {
                    0 => source.path.clone(),
                    _ => fleet.dir().join(format!("disk-{n}")),
                };
                if n > 0 {
                    File::create(&disk).unwrap().set_len(96 * MIB).unwrap();
                }
                Pc {
                    host,
                    machine: Machine::new(n, &[&disk]),
                    name: String::new(),
                    disk,
                }
            })
            .collect();
        for pc in &mut pcs {
            let target = fleet.boot_on(Some(&pc.host), &pc.machine, &fleet.url());
            target.unwrap().finish().unwrap();
            pc.name = fleet.status().unwrap().machine(&pc.machine.mac()).unwrap();
        }
        let old = pcs.remove(0);
        let stage = Stage {
            fleet,
            source,
            pcs,
            _lab: lab,
        };
        stage.ctl(&["backup", &old.name, "--image", "gold"]);
        let target = stage
            .fleet
            .boot_on(Some(&old.host), &old.machine, &stage.fleet.url());
        done(target.unwrap().finish().unwrap());
        stage
    }

    fn ctl(&self, arguments: &[&str]) -> String {
        self.fleet.ctl(arguments).unwrap()
    }

    /// Orders a session for all machines; its id.
    fn order(&self, more: &[&str]) -> String {
        let mut arguments = vec!["--json", "multicast", "restore", "--image", "gold", "--yes"];
        arguments.extend(more);
        arguments.extend(self.pcs.iter().map(|pc| pc.name.as_str()));
        let ordered: Value = serde_json::from_str(&self.ctl(&arguments)).unwrap();
        assert_eq!(
            ordered["executions"].as_array().unwrap().len(),
            self.pcs.len()
        );
        ordered["session"]["id"].as_str().unwrap().to_owned()
    }

    fn boot(&self, at: usize) -> Target {
        let pc = &self.pcs[at];
        let target = self
            .fleet
            .boot_on(Some(&pc.host), &pc.machine, &self.fleet.url());
        target.unwrap()
    }

    fn session(&self, id: &str) -> Value {
        let list: Value =
            serde_json::from_str(&self.ctl(&["--json", "multicast", "list"])).unwrap();
        let all = list.as_array().unwrap();
        all.iter()
            .find(|session| session["id"] == id)
            .unwrap()
            .clone()
    }

    /// Waits until the session is as wanted.
    fn wait(&self, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + LIMIT;
        loop {
            let session = self.session(id);
            if wanted(&session) {
                return session;
            }
            assert!(Instant::now() < until, "{session:#}");
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn assert_restored(&self, at: usize) {
        self.source.verify(&self.pcs[at].disk);
    }

    fn assert_blank(&self, at: usize) {
        let bytes = fs::read(&self.pcs[at].disk).unwrap();
        assert!(
            bytes.iter().all(|&byte| byte == 0),
            "disk {at} was written to"
        );
    }
}

fn done(end: End) -> End {
    assert_eq!(end.json["result"], "done", "{end:?}");
    end
}

fn all_by_multicast(end: &End) {
    let text = "chunks came by multicast, 0 by unicast";
    assert!(end.said.contains(text), "{}", end.said);
}

/// Packets of UDP that come are lost, so many of a thousand.
fn lose(host: &Host, per_mille: u32) {
    require("nft", "nftables").unwrap();
    let which = match per_mille {
        1000 => String::new(),
        some => format!("numgen random mod 1000 < {some}"),
    };
    let rules = format!(
        "add table netdev loss\n\
         add chain netdev loss in {{ type filter hook ingress device \"eth0\" priority 0; }}\n\
         add rule netdev loss in udp dport != 0 {which} drop\n"
    );
    let output = host.command("nft").arg(rules).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn machines_that_lose_packets_come_late_or_hear_nothing() {
    let stage = Stage::new(4);
    lose(&stage.pcs[0].host, 10);
    lose(&stage.pcs[1].host, 50);
    lose(&stage.pcs[2].host, 1000);
    let id = stage.order(&["--targets", "3", "--rate", "6M"]);
    assert_eq!(stage.session(&id)["stage"], "waiting");
    let first = stage.boot(0);
    let waiting = stage.wait(&id, |session| session["ready"] == 1);
    assert_eq!(waiting["stage"], "gathering");
    assert_eq!(waiting["targets"], 3);
    let status = stage.fleet.status().unwrap();
    let execution = status.execution(&stage.pcs[0].name, "restore").unwrap();
    assert!(
        execution.words().contains("multicast"),
        "{}",
        execution.words()
    );
    stage.assert_blank(0);
    let second = stage.boot(1);
    let deaf = stage.boot(2);
    stage.wait(&id, |session| {
        session["sent_bytes"].as_u64() > Some(8 * MIB)
    });
    let late = stage.boot(3);
    let sent = stage.wait(&id, |session| {
        let receivers = session["receivers"].as_array().unwrap();
        receivers.len() == 4 && receivers.iter().any(|one| one["loss"].as_f64() > Some(0.0))
    });
    assert!(
        sent["stage"] == "sending" || sent["stage"] == "repairing",
        "{sent:#}"
    );
    for target in [first, second, late] {
        all_by_multicast(&done(target.finish().unwrap()));
    }
    let end = done(deaf.finish().unwrap());
    assert_eq!(
        end.json["warnings"][0]["code"], "multicast-silent",
        "{end:?}"
    );
    (0..4).for_each(|at| stage.assert_restored(at));
    let over = stage.wait(&id, |session| session["stage"] == "over");
    let left = over["receivers"].as_array().unwrap();
    // The deaf one cannot say that it leaves: nothing is heard of it any more, or it is done by
    // unicast before that is noticed.
    for one in left {
        let is_deaf = one["machine"] == *stage.pcs[2].name;
        let state = if is_deaf { "left" } else { "done" };
        assert_eq!(one["state"], state, "{over:#}");
        let reason = one["reason"].as_str();
        assert_eq!(
            is_deaf,
            matches!(reason, Some("vanished" | "stopped")),
            "{over:#}"
        );
    }
    assert!(over["parity"].as_f64() > Some(0.0), "{over:#}");
}

#[test]
fn an_operator_starts_early_and_only_what_differs_is_sent() {
    let stage = Stage::new(3);
    let id = stage.order(&[]);
    let targets: Vec<Target> = (0..3).map(|at| stage.boot(at)).collect();
    for target in targets {
        all_by_multicast(&done(target.finish().unwrap()));
    }
    (0..3).for_each(|at| stage.assert_restored(at));
    let whole = stage.wait(&id, |session| session["stage"] == "over")["packets"]
        .as_u64()
        .unwrap();

    // One of them has changed since; the third is not switched on.
    let raw = 41 * MIB;
    let file = File::options()
        .write(true)
        .open(&stage.pcs[1].disk)
        .unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[7; 4096], raw + 5 * MIB).unwrap();
    drop(file);
    let id = stage.order(&["--reuse", "--longest-wait", "3600"]);
    let error = stage.fleet.ctl(&["multicast", "start", &id]).unwrap_err();
    assert!(error.to_string().contains("ready"), "{error}");
    let targets: Vec<Target> = (0..2).map(|at| stage.boot(at)).collect();
    let gathering = stage.wait(&id, |session| session["ready"] == 2);
    assert!(
        gathering["starts_in"].as_u64() > Some(3000),
        "{gathering:#}"
    );
    stage.ctl(&["multicast", "start", &id]);
    for target in targets {
        let end = done(target.finish().unwrap());
        assert!(
            end.json["skipped_bytes"].as_u64() > Some(32 * MIB),
            "{end:?}"
        );
    }
    (0..2).for_each(|at| stage.assert_restored(at));
    let over = stage.wait(&id, |session| session["stage"] == "over");
    let packets = over["packets"].as_u64().unwrap();
    assert!(packets > 0 && packets * 4 < whole, "{packets} of {whole}");
    // The one that was not there gets a round of its own.
    let last = done(stage.boot(2).finish().unwrap());
    assert!(last.said.contains("chunks came by"), "{}", last.said);
    stage.assert_restored(2);
}

#[test]
fn a_group_has_one_session() {
    let stage = Stage::new(2);
    let group = "239.255.26.9";
    let (one, two) = (&stage.pcs[0], &stage.pcs[1]);
    let order = |name: &str, group: &str| {
        stage.fleet.ctl(&[
            "multicast",
            "restore",
            "--image",
            "gold",
            "--yes",
            "--group",
            group,
            name,
        ])
    };
    order(&one.name, group).unwrap();
    let refused = order(&two.name, "239.255.26.9:26999").unwrap_err();
    assert!(
        refused.to_string().contains("multicast-address-in-use"),
        "{refused}"
    );
    // Nothing was ordered.
    assert_eq!(stage.fleet.status().unwrap().count(&two.name, "restore"), 0);
    let again = order(&one.name, "239.255.26.10").unwrap_err();
    assert!(again.to_string().contains("has a restore"), "{again}");

    // Somebody else sends to the group.
    let image = stage.fleet.dir().join("gold");
    stage.ctl(&["images", "export", "gold", image.to_str().unwrap()]);
    let imager = e2e::built::programs().unwrap().join("imager");
    let mut room = two.host.command(imager.to_str().unwrap());
    room.args(["send", "--multicast", "239.255.26.9:26530"])
        .arg(&image);
    let mut room = room.stderr(std::process::Stdio::null()).spawn().unwrap();
    thread::sleep(Duration::from_secs(2));
    let end = stage.boot(0).finish().unwrap();
    room.kill().unwrap();
    room.wait().unwrap();
    assert_eq!(end.json["code"], "multicast-address-in-use", "{end:?}");
    assert_eq!(end.json["disk"], "untouched", "{end:?}");
    stage.assert_blank(0);
}

#[test]
fn a_server_that_is_killed_and_a_machine_that_is_not_wanted_any_more() {
    let mut stage = Stage::new(3);
    let id = stage.order(&["--rate", "4M"]);
    let first = stage.boot(0);
    let second = stage.boot(1);
    stage.wait(&id, |session| session["ready"] == 2);
    let third = stage.boot(2);
    stage.wait(&id, |session| session["stage"] == "sending");
    // The third machine is interrupted in the middle; nobody else minds.
    stage.ctl(&["interrupt", &stage.pcs[2].name]);
    let end = third.finish().unwrap();
    assert_eq!(end.json["code"], "interrupted", "{end:?}");
    stage.wait(&id, |session| {
        session["sent_bytes"].as_u64() > Some(16 * MIB)
    });
    stage.fleet.kill_server().unwrap();
    thread::sleep(Duration::from_secs(1));
    stage.fleet.start_server().unwrap();
    for target in [first, second] {
        let end = done(target.finish().unwrap());
        let code = &end.json["warnings"][0]["code"];
        assert!(
            code == "multicast-silent" || code == "multicast-incomplete",
            "{end:?}"
        );
    }
    (0..2).for_each(|at| stage.assert_restored(at));
}

#[test]
fn who_is_cancelled_is_not_waited_for() {
    let stage = Stage::new(2);
    let id = stage.order(&[]);
    let target = stage.boot(0);
    stage.wait(&id, |session| session["ready"] == 1);
    stage.ctl(&["interrupt", &stage.pcs[1].name]);
    all_by_multicast(&done(target.finish().unwrap()));
    stage.assert_restored(0);
}

#[test]
fn two_sessions_and_a_restore_of_one_run_beside_each_other() {
    let stage = Stage::new(3);
    let ids: Vec<String> = stage.pcs[..2]
        .iter()
        .map(|pc| {
            let arguments = [
                "--json",
                "multicast",
                "restore",
                "--image",
                "gold",
                "--yes",
                "--rate",
                "8M",
            ];
            let said = stage.ctl(&[&arguments[..], &[&pc.name]].concat());
            let ordered: Value = serde_json::from_str(&said).unwrap();
            ordered["session"]["id"].as_str().unwrap().to_owned()
        })
        .collect();
    stage.ctl(&["restore", &stage.pcs[2].name, "--image", "gold", "--yes"]);
    let targets: Vec<Target> = (0..2).map(|at| stage.boot(at)).collect();
    for id in &ids {
        stage.wait(id, |session| session["stage"] == "sending");
    }
    done(stage.boot(2).finish().unwrap());
    assert!(
        ids.iter().all(|id| stage.session(id)["stage"] != "over"),
        "they were not beside it"
    );
    for target in targets {
        all_by_multicast(&done(target.finish().unwrap()));
    }
    (0..3).for_each(|at| stage.assert_restored(at));
}
