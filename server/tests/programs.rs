//! The programs as people run them: `deployd` is killed and started again, `deployctl`
//! asks and orders.

mod support;

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use support::{Http, Image, Target};
use wire::Step;

struct Daemon {
    child: Child,
    plain: u16,
    data: u16,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two ports that were free a moment ago.
fn free_ports() -> (u16, u16) {
    let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [a, b] = ports.map(|listener| listener.local_addr().unwrap().port());
    (a, b)
}

fn start(state: &Path, (plain, data): (u16, u16)) -> Daemon {
    let mut child = Command::new(env!("CARGO_BIN_EXE_deployd"))
        .arg("--state")
        .arg(state)
        .args([
            "--address",
            "127.0.0.1",
            "--proxy-dhcp",
            "off",
            "--tftp",
            "off",
        ])
        .args([
            "--http-port",
            &plain.to_string(),
            "--data-port",
            &data.to_string(),
        ])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    // Printed when the ports are open.
    let ready = lines
        .by_ref()
        .map(Result::unwrap)
        .find(|line| line.starts_with("Token:"));
    assert!(ready.is_some(), "deployd ended at its start");
    std::thread::spawn(move || lines.for_each(drop));
    Daemon { child, plain, data }
}

fn ctl(state: &Path, daemon: &Daemon, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_deployctl"))
        .arg("--state")
        .arg(state)
        .args(["--server", &format!("https://127.0.0.1:{}", daemon.data)])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn json(state: &Path, daemon: &Daemon, arguments: &[&str]) -> Value {
    let output = ctl(state, daemon, &[arguments, &["--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn target(state: &Path, daemon: &Daemon) -> Target {
    let pin = pinned::Pin::from_hex(&std::fs::read_to_string(state.join("pin")).unwrap()).unwrap();
    let http = Http {
        agent: pinned::agent(&pin, pinned::Timeouts::default()),
        pin,
        base: format!("https://127.0.0.1:{}", daemon.data),
        token: String::new(),
    };
    Target {
        http,
        mac: "52:54:00:00:00:01".into(),
        uuid: "4c4c4544-0042-3510-8051-b4c04f4a3201".into(),
        boot: "boot-1".into(),
        more: Vec::new(),
    }
}

#[test]
fn a_killed_server_goes_on_where_it_was_and_deployctl_tells() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path();
    let daemon = start(state, free_ports());
    let mut pc = target(state, &daemon);
    pc.check_in();
    assert_eq!(
        json(state, &daemon, &["machines"])[0]["name"],
        "pc-525400000001"
    );
    json(
        state,
        &daemon,
        &["machines", "rename", "pc-525400000001", "office 1"],
    );
    json(state, &daemon, &["backup", "office 1", "--image", "gold"]);
    let session = pc.job();
    let image = Image::new(3, 6);
    session.progress(Step::Running, 0, 6).unwrap();
    session.upload(&image.records[..3].concat()).unwrap();
    let ports = (daemon.plain, daemon.data);
    drop(daemon);

    let daemon = start(state, ports);
    // The same pin, token and execution; the target did not even boot.
    let session = session.reconnected();
    let names: Vec<_> = image.chunks.iter().map(|c| c.name).collect();
    assert_eq!(
        session.have(&names).unwrap(),
        [[true; 3], [false; 3]].concat()
    );
    session.back_up(&image).unwrap();
    session.done().unwrap();
    let status = json(state, &daemon, &["status"]);
    assert_eq!(status["executions"][0]["state"], "done");
    assert_eq!(status["images"][0]["name"], "gold");
    assert_eq!(
        json(state, &daemon, &["images", "verify", "gold"])["damaged"],
        0
    );
    let text = ctl(state, &daemon, &["images", "info", "gold"]);
    assert!(String::from_utf8(text.stdout).unwrap().contains("office 1"));

    // A restore needs a yes; a refusal is exit code 3, a wrong name 2.
    let refused = ctl(state, &daemon, &["restore", "office 1", "--image", "gold"]);
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    let words = String::from_utf8(refused.stderr).unwrap();
    assert!(
        words.contains("disk-of-52:54:00:00:00:01") && words.contains("not-confirmed"),
        "{words}"
    );
    assert_eq!(
        ctl(state, &daemon, &["backup", "nobody", "--image", "x"])
            .status
            .code(),
        Some(2)
    );
    assert_eq!(
        ctl(state, &daemon, &["images", "info", "nothing"])
            .status
            .code(),
        Some(3)
    );
    json(
        state,
        &daemon,
        &["restore", "office 1", "--image", "gold", "--yes"],
    );
    pc = target(state, &daemon);
    pc.boot = "boot-2".into();
    let session = pc.job();
    session.begin_write(pc.disk()).unwrap();
    let ports = (daemon.plain, daemon.data);
    drop(daemon);

    let daemon = start(state, ports);
    let session = session.reconnected();
    assert!(session.restore().unwrap() == image.plain);
    session.done().unwrap();
    let all = json(state, &daemon, &["status", "office 1"]);
    assert_eq!(
        (all[0]["kind"].as_str(), all[0]["state"].as_str()),
        (Some("restore"), Some("done"))
    );
    json(state, &daemon, &["images", "delete", "gold"]);
    assert_eq!(json(state, &daemon, &["images"]), serde_json::json!([]));
}

#[test]
fn a_multicast_session_is_ordered_listed_and_extended() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path();
    let daemon = start(state, free_ports());
    let pc = target(state, &daemon);
    pc.check_in();
    json(
        state,
        &daemon,
        &["backup", "pc-525400000001", "--image", "gold"],
    );
    let session = pc.job();
    session.back_up(&Image::new(3, 6)).unwrap();
    session.done().unwrap();
    for number in 2..=4 {
        let other = Target {
            mac: format!("52:54:00:00:00:0{number}"),
            uuid: format!("4c4c4544-0042-3510-8051-b4c04f4a320{number}"),
            ..target(state, &daemon)
        };
        other.check_in();
    }
    let order = |more: &[&str]| {
        let order = ["multicast", "restore", "--image", "gold", "--yes"];
        ctl(state, &daemon, &[&order, more].concat())
    };
    let ordered = order(&[
        "--json",
        "--group",
        "239.255.7.7",
        "pc-525400000001",
        "pc-525400000002",
    ]);
    assert_eq!(ordered.status.code(), Some(0), "{ordered:?}");
    let ordered: Value = serde_json::from_slice(&ordered.stdout).unwrap();
    let id = ordered["session"]["id"].as_str().unwrap();
    assert_eq!(ordered["session"]["group"], "239.255.7.7:26530");
    assert_eq!(ordered["executions"][1]["machine"], "pc-525400000002");

    // Refusals are exit code 3, and order nothing.
    let taken = order(&["--group", "239.255.7.7:9999", "pc-525400000003"]);
    assert_eq!(taken.status.code(), Some(3), "{taken:?}");
    let words = String::from_utf8(taken.stderr).unwrap();
    assert!(words.contains("multicast-address-in-use"), "{words}");
    let busy = order(&["pc-525400000003", "pc-525400000001"]);
    assert_eq!(busy.status.code(), Some(3), "{busy:?}");
    let early = ctl(state, &daemon, &["multicast", "start", id]);
    assert_eq!(early.status.code(), Some(3), "{early:?}");

    json(
        state,
        &daemon,
        &["multicast", "add", id, "pc-525400000003", "--yes"],
    );
    let sessions = json(state, &daemon, &["multicast", "list"]);
    assert_eq!(
        (&sessions[0]["stage"], &sessions[0]["targets"], &sessions[1]),
        (&"waiting".into(), &3.into(), &Value::Null)
    );
    assert_eq!(json(state, &daemon, &["status"])["sessions"], sessions);
    let list = ctl(state, &daemon, &["multicast"]);
    let words = String::from_utf8(list.stdout).unwrap();
    assert!(words.contains("0/3") && words.contains(id), "{words}");
}

/// Runs `deployd --rebuild-index` and returns its exit code and what it prints.
fn rebuild(state: &Path, images: &Path) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_deployd"))
        .args(["--rebuild-index", "--state"])
        .arg(state)
        .arg("--images")
        .arg(images)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn images_survive_the_loss_of_the_whole_state_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (state, images) = (dir.path().join("state"), dir.path().join("state/images"));
    let image = Image::new(3, 6);
    let daemon = start(&state, free_ports());
    let pc = target(&state, &daemon);
    pc.check_in();
    let machine = "pc-525400000001";
    json(&state, &daemon, &["backup", machine, "--image", "gold"]);
    let session = pc.job();
    session.back_up(&image).unwrap();
    session.done().unwrap();
    let shown = json(&state, &daemon, &["images"]);
    assert_eq!(rebuild(&state, &images).0, Some(2), "while a server runs");
    drop(daemon);

    let kept = dir.path().join("kept");
    std::fs::rename(&images, &kept).unwrap();
    std::fs::remove_dir_all(&state).unwrap();
    std::fs::create_dir_all(&state).unwrap();
    std::fs::rename(&kept, &images).unwrap();
    let (code, text) = rebuild(&state, &images);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("1 images; 1 packs with 6 records") && text.contains("gold"),
        "{text}"
    );

    let daemon = start(&state, free_ports());
    assert_eq!(json(&state, &daemon, &["images"]), shown);
    let restore = ["restore", machine, "--image", "gold", "--yes"];
    json(&state, &daemon, &restore);
    let pc = target(&state, &daemon);
    let session = pc.job();
    session.begin_write(pc.disk()).unwrap();
    assert!(session.restore().unwrap() == image.plain);
    session.done().unwrap();
    // It is the same machine: its next backup may have the name.
    json(&state, &daemon, &["backup", machine, "--image", "gold"]);
}

#[test]
fn a_wrong_pin_token_or_server_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = start(dir.path(), free_ports());
    let wrong = "ab".repeat(32);
    let output = ctl(
        dir.path(),
        &daemon,
        &["--pin", &wrong, "machines", "--json"],
    );
    assert_eq!(output.status.code(), Some(1));
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(error["error"]["code"], "server-refused");
    let token = dir.path().join("another.token");
    std::fs::write(&token, "x").unwrap();
    let output = ctl(
        dir.path(),
        &daemon,
        &["--token-file", token.to_str().unwrap(), "machines"],
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("server-refused")
    );
    // A second server on the same folder is refused.
    let output = Command::new(env!("CARGO_BIN_EXE_deployd"))
        .arg("--state")
        .arg(dir.path())
        .args(["--proxy-dhcp", "off", "--tftp", "off"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("another deployd")
    );
}
