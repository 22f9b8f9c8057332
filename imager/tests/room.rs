//! `imager send` and `imager receive` on hosts of their own, joined by a bridge: losses,
//! receivers that are killed, networks without multicast, wrong codes.
//!
//! Owns: what happens between programs. Does not own: figures (they are the simulation's,
//! in `crates/multicast`, and the benchmark's), single restores (`program`).

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};
use testkit::build::{BuiltDisk, DiskBuilder, Tree};
use testkit::netns::{Host, Lab, require};

const MIB: u64 = 1 << 20;
const IMAGER: &str = env!("CARGO_BIN_EXE_imager");
/// Far longer than anything takes here.
const LONGEST: Duration = Duration::from_secs(600);

struct Image {
    dir: tempfile::TempDir,
    disk: BuiltDisk,
    file: PathBuf,
}

impl Image {
    fn new() -> Image {
        let dir = tempfile::tempdir().unwrap();
        let disk = DiskBuilder::gpt(96 * MIB, 512)
            .boot_code(3)
            .ext4(40 * MIB, &Tree::new(5, 40, 500_000))
            .raw(24 * MIB, 9)
            .swap(4 * MIB)
            .build(&dir.path().join("disk"));
        let file = dir.path().join("image");
        let output = Command::new(IMAGER)
            .args(["backup", "-q"])
            .args([&disk.path, &file])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        Image { dir, disk, file }
    }

    fn target(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// A program that runs, and the lines that it says.
struct Running {
    child: Child,
    lines: Receiver<String>,
    said: String,
}

impl Running {
    fn start(mut command: Command) -> Running {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (tx, lines) = channel();
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if tx.send(line).is_err() {
                    return;
                }
            }
        });
        Running {
            child,
            lines,
            said: String::new(),
        }
    }

    /// Waits for a line with that text.
    fn wait_for(&mut self, text: &str) -> String {
        let until = Instant::now() + LONGEST;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.said.push_str(&line);
                    self.said.push('\n');
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(_) => panic!("never said {text:?}, but\n{}", self.said),
            }
        }
    }

    fn code(&mut self) -> String {
        let line = self.wait_for("Code: ");
        let code = line.split("Code: ").nth(1).unwrap();
        code.split_whitespace().next().unwrap().to_owned()
    }

    fn finish(mut self) -> (Output, String) {
        let output = self.child.wait_with_output().unwrap();
        for line in self.lines.iter() {
            self.said.push_str(&line);
            self.said.push('\n');
        }
        assert!(!self.said.contains("panicked at"), "{}", self.said);
        (output, self.said)
    }

    fn done(self) -> (Value, String) {
        let (output, said) = self.finish();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}{said}");
        (serde_json::from_str(&text).unwrap(), said)
    }

    fn failed(self, code: &str) -> String {
        let (output, said) = self.finish();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success(), "{text}{said}");
        assert!(said.contains(&format!("{code}:")), "{said}");
        said
    }
}

fn send(host: &Host, image: &Image, group: &str, more: &[&str]) -> Running {
    let mut command = host.command(IMAGER);
    command
        .args(["send", "--multicast", group, "--json"])
        .args(more)
        .arg(&image.file);
    Running::start(command)
}

fn receive(host: &Host, disk: &Path, group: &str, code: &str, more: &[&str]) -> Running {
    let mut command = host.command(IMAGER);
    command
        .args(["receive", "--multicast", group, "--json", "--code", code])
        .args(more)
        .arg(disk);
    Running::start(command)
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
fn a_room_with_losses_and_one_that_is_killed() {
    let image = Image::new();
    let lab = Lab::new().unwrap();
    let sender = lab.host("snd", "10.99.1.1/24").unwrap();
    let hosts: Vec<Host> = (2..6)
        .map(|n| {
            lab.host(&format!("r{n}"), &format!("10.99.1.{n}/24"))
                .unwrap()
        })
        .collect();
    lose(&hosts[0], 10);
    lose(&hosts[1], 50);
    let group = "239.255.26.1:26530";
    let rate = ["--receivers", "4", "--rate", "60M"];
    let mut sending = send(&sender, &image, group, &rate);
    let code = sending.code();
    let mut receiving: Vec<Running> = hosts
        .iter()
        .enumerate()
        .map(|(n, host)| receive(host, &image.target(&format!("t{n}")), group, &code, &[]))
        .collect();
    sending.wait_for("(4 so far)");
    let mut killed = receiving.pop().unwrap();
    killed.wait_for("waiting for the sender");
    thread::sleep(Duration::from_millis(1500));
    killed.child.kill().unwrap();
    for (n, running) in receiving.into_iter().enumerate() {
        let (result, said) = running.done();
        assert_eq!(result["verified"], true);
        image.disk.verify(&image.target(&format!("t{n}")));
        println!("receiver {n}: {}", said.lines().last().unwrap_or_default());
        assert!(
            said.contains("chunks came by multicast, 0 by unicast"),
            "{said}"
        );
    }
    let said = sending.failed("connection-lost");
    assert!(said.contains("1 of 4 receivers"), "{said}");
    drop(killed);
}

#[test]
fn who_joins_late_or_hears_nothing_gets_everything() {
    let image = Image::new();
    let lab = Lab::new().unwrap();
    let sender = lab.host("snd", "10.99.2.1/24").unwrap();
    let first = lab.host("one", "10.99.2.2/24").unwrap();
    let late = lab.host("late", "10.99.2.3/24").unwrap();
    let deaf = lab.host("deaf", "10.99.2.4/24").unwrap();
    lose(&deaf, 1000);
    let group = "239.255.26.2:26531";
    let mut sending = send(
        &sender,
        &image,
        group,
        &["--rate", "40M", "--receivers", "2"],
    );
    let code = sending.code();
    let first = receive(&first, &image.target("first"), group, &code, &[]);
    let from = ["--from", "10.99.2.1"];
    let deaf = receive(&deaf, &image.target("deaf"), group, &code, &from);
    sending.wait_for("(2 so far)");
    thread::sleep(Duration::from_secs(2));
    let late = receive(&late, &image.target("late"), group, &code, &[]);
    let (_, said) = first.done();
    assert!(said.contains(" 0 by unicast"), "{said}");
    let (_, said) = late.done();
    assert!(said.contains(" 0 by unicast"), "{said}");
    let (result, said) = deaf.done();
    assert!(
        said.contains(" 0 chunks came by multicast") || said.contains("\n0 chunks came"),
        "{said}"
    );
    assert_eq!(result["warnings"][0]["code"], "multicast-silent");
    for name in ["first", "late", "deaf"] {
        image.disk.verify(&image.target(name));
    }
    let (result, _) = sending.done();
    assert_eq!(result["receivers"].as_array().unwrap().len(), 3);
}

#[test]
fn wrong_codes_are_refused_and_a_used_group_too() {
    let image = Image::new();
    let lab = Lab::new().unwrap();
    let sender = lab.host("snd", "10.99.3.1/24").unwrap();
    let other = lab.host("other", "10.99.3.2/24").unwrap();
    let group = "239.255.26.3:26532";
    let mut sending = send(&sender, &image, group, &["--rate", "200M"]);
    let code = sending.code();
    let wrong = receive(&other, &image.target("t"), group, "0000-0000", &[]);
    let said = wrong.failed("server-refused");
    assert!(said.contains("Nothing was written"), "{said}");
    assert!(!image.target("t").exists());
    sending.wait_for("has a wrong code");
    send(&other, &image, group, &[]).failed("multicast-address-in-use");
    let typo = receive(&other, &image.target("t"), group, "12-34", &[]);
    typo.failed("usage");
    let right = receive(&other, &image.target("t"), group, &code, &[]);
    right.done();
    image.disk.verify(&image.target("t"));
    sending.done();
}

#[test]
fn ipv6_with_an_interface_and_short_packets() {
    let image = Image::new();
    let lab = Lab::new().unwrap();
    let sender = lab.host("snd", "10.99.4.1/24").unwrap();
    let other = lab.host("other", "10.99.4.2/24").unwrap();
    for (host, address) in [(&sender, "fd99::1/64"), (&other, "fd99::2/64")] {
        let output = host
            .command("ip")
            .args(["-6", "addr", "add", address, "dev", "eth0", "nodad"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let group = "[ff05::26:30]:26533";
    let interface = ["--interface", "eth0"];
    let more = [
        "--interface",
        "eth0",
        "--symbol",
        "1024",
        "--ttl",
        "2",
        "--rate",
        "200M",
    ];
    let mut sending = send(&sender, &image, group, &more);
    let code = sending.code();
    let receiving = receive(&other, &image.target("t"), group, &code, &interface);
    let (_, said) = receiving.done();
    assert!(said.contains(" 0 by unicast"), "{said}");
    image.disk.verify(&image.target("t"));
    sending.done();
}

#[test]
fn a_group_that_nobody_sends_to_is_told_with_what_to_look_at() {
    let lab = Lab::new().unwrap();
    let host = lab.host("one", "10.99.5.2/24").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    let run = |group| receive(&host, &disk, group, "0000-0000", &[]);
    let said = run("239.255.26.5:26534").failed("multicast-silent");
    assert!(said.contains("IGMP") && said.contains("--from"), "{said}");
    run("10.99.5.1:26534").failed("usage");
    assert!(!disk.exists());
}
