//! What `deployctl multicast` asks of a server and tells people. The server is a pretended
//! one that answers what the tests say; sessions themselves are tested elsewhere.

use serde_json::{Value, json};
use server::http::VERSION_HEADER;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use wire::{
    Code, DiskInfo, DiskState, PROTOCOL_HEADER, PROTOCOL_VERSION, Report, SOFTWARE_VERSION,
};

/// Answers by method and path; of several the last one stays.
type Answers = HashMap<String, Vec<Value>>;

/// A server that knows only its answers, and remembers what was asked.
struct Pretended {
    address: SocketAddr,
    posted: Arc<Mutex<Vec<(String, Value)>>>,
    state: tempfile::TempDir,
}

impl Pretended {
    fn new(answers: Vec<(&str, Value)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let posted = Arc::new(Mutex::new(Vec::new()));
        let mut by_path = Answers::new();
        for (request, answer) in answers {
            by_path.entry(request.to_owned()).or_default().push(answer);
        }
        let seen = Arc::clone(&posted);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.unwrap(), &mut by_path, &seen);
            }
        });
        let state = tempfile::tempdir().unwrap();
        std::fs::write(state.path().join("admin.token"), "token").unwrap();
        Pretended {
            address,
            posted,
            state,
        }
    }

    fn state(&self) -> &Path {
        self.state.path()
    }

    fn ctl(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_deployctl"))
            .arg("--state")
            .arg(self.state())
            .args(["--server", &format!("http://{}", self.address)])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn posted(&self) -> Vec<(String, Value)> {
        self.posted.lock().unwrap().clone()
    }
}

fn answer(stream: TcpStream, answers: &mut Answers, seen: &Mutex<Vec<(String, Value)>>) {
    let mut input = BufReader::new(stream);
    let mut line = String::new();
    input.read_line(&mut line).unwrap();
    let request = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    let mut length = 0;
    loop {
        line.clear();
        input.read_line(&mut line).unwrap();
        let header = line.trim_end().to_ascii_lowercase();
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if header.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    input.read_exact(&mut body).unwrap();
    if request.starts_with("POST") {
        let body = serde_json::from_slice(&body).unwrap();
        seen.lock().unwrap().push((request.clone(), body));
    }
    let (status, body) = match answers.get_mut(&request) {
        Some(all) if all.len() > 1 => ("200 OK", all.remove(0)),
        Some(all) => ("200 OK", all[0].clone()),
        None => {
            let found = format!("{request} has no answer");
            let report = Report::new(Code::Usage, found, DiskState::NotInvolved);
            ("404 Not Found", serde_json::to_value(report).unwrap())
        }
    };
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n{PROTOCOL_HEADER}: {PROTOCOL_VERSION}\r\n{VERSION_HEADER}: {SOFTWARE_VERSION}\r\n\r\n",
        body.len()
    );
    let mut stream = input.into_inner();
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
}

fn machine(id: &str, name: &str, disks: &[DiskInfo]) -> Value {
    json!({
        "id": id, "name": name, "macs": [], "uuid": null, "serial": "", "model": "", "firmware": "bios",
        "architecture": "x86_64", "memory_bytes": 1, "version": "", "address": "", "uptime_ms": 1,
        "disks": disks, "disk_check": null, "disk_check_at": null, "first_seen": 0, "last_seen": 0,
        "execution": null,
    })
}

fn disk(serial: &str) -> DiskInfo {
    DiskInfo {
        path: "/dev/sda".into(),
        size_bytes: 1 << 30,
        serial: serial.into(),
        ..DiskInfo::default()
    }
}

fn image(set: Option<&str>) -> Value {
    json!({
        "id": "im1", "name": "office", "newest": true, "machine": "master", "created": 0,
        "disk_bytes": 1 << 30, "used_bytes": 1, "stored_bytes": 1, "chunks": 1, "root": "00", "set": set,
        "layout": image::Layout::default(),
    })
}

fn execution(id: &str, machine: &str, state: &str) -> Value {
    json!({
        "id": id, "machine": machine, "kind": "restore", "image": "office", "image_id": "im1", "disk": null,
        "writes_to": null, "state": state, "note": "", "open": false, "created": 0, "changed": 0,
        "started": null, "ended": null, "silent_since": null, "progress": null, "report": null,
        "warnings": [], "summary": null, "after": wire::After::Reboot,
    })
}

fn session(stage: &str) -> Value {
    json!({
        "id": "s1", "group": "239.255.1.2:26530", "image": "office", "image_id": "im1", "stage": stage,
        "ready": 1, "targets": 2, "starts_in": null, "started": null, "rate": 0, "loss": 0.0, "packets": 0,
        "parity": 0.0, "repair": 0.0, "pass": 1, "sent_bytes": 0, "total_bytes": 0, "receivers": [],
        "problem": null,
    })
}

fn overview(stage: &str, executions: &[Value]) -> Value {
    json!({
        "server": { "version": SOFTWARE_VERSION, "protocol": PROTOCOL_VERSION }, "now": 0, "free_bytes": 0,
        "machines": [], "executions": executions, "images": [], "sessions": [session(stage)],
    })
}

fn room() -> Vec<(&'static str, Value)> {
    let disks = [disk("A"), disk("B")];
    vec![
        ("GET /api/images/office", image(None)),
        ("GET /api/images/im1", image(None)),
        ("GET /api/machines/pc-1", machine("m1", "pc-1", &disks[..1])),
        ("GET /api/machines/pc-2", machine("m2", "pc-2", &disks)),
        // The same one by another name.
        ("GET /api/machines/10.0.0.2", machine("m2", "pc-2", &disks)),
        ("GET /api/sessions", json!([session("gathering")])),
        (
            "POST /api/sessions",
            json!({
                "session": session("waiting"),
                "executions": [execution("e1", "pc-1", "waiting"), execution("e2", "pc-2", "waiting")],
            }),
        ),
    ]
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn an_order_needs_a_yes_after_all_disks_were_shown() {
    let server = Pretended::new(room());
    let order = [
        "multicast",
        "restore",
        "--image",
        "office",
        "pc-1",
        "pc-2",
        "10.0.0.2",
    ];
    let refused = server.ctl(&order);
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    let words = text(&refused.stderr);
    for part in [
        "will be written to 2 machines by multicast.",
        "  pc-1: Everything on this disk will be overwritten: 0: /dev/sda  1.00 GiB",
        "  pc-2: It has several disks: name one with --disk",
        "serial B",
        "not-confirmed",
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }
    assert_eq!(server.posted(), []);

    let options = [
        "--group",
        "239.255.1.2",
        "--interface",
        "eth1",
        "--rate",
        "50M",
        "--targets",
        "2",
        "--longest-wait",
        "600",
        "--ttl",
        "8",
        "--symbol",
        "1024",
        "--disk",
        "number=1",
        "--reuse",
        "--no-verify",
        "--force",
        "--after",
        "poweroff",
        "--yes",
    ];
    let done = server.ctl(&[&order[..], &options].concat());
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let words = text(&done.stdout);
    for part in [
        "s1",
        "239.255.1.2:26530",
        "pc-1, pc-2",
        "deployctl multicast start s1",
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }
    let [(request, body)] = &server.posted()[..] else {
        panic!("{:?}", server.posted());
    };
    assert_eq!(request, "POST /api/sessions");
    assert_eq!(body["machines"], json!(["m1", "m2"]));
    let job = &body["execution"]["job"];
    assert_eq!(
        (&job["kind"], &job["image"], &job["disk"]["number"]),
        (&json!("restore"), &json!("im1"), &json!(1))
    );
    assert_eq!(
        (&job["verify"], &job["force"], &job["reuse"]),
        (&json!(false), &json!(true), &json!(true))
    );
    assert_eq!(body["execution"]["after"], json!(wire::After::PowerOff));
    assert_eq!(body["session"], Value::Null);
    assert_eq!(
        body["settings"],
        json!({
            "group": "239.255.1.2", "interface": "eth1", "rate": 50 << 20, "targets": 2,
            "longest_wait": 600, "ttl": 8, "symbol": 1024,
        })
    );
}

#[test]
fn further_machines_get_the_image_of_their_session() {
    let server = Pretended::new(room());
    let added = server.ctl(&["multicast", "add", "s1", "pc-1", "--yes", "--json"]);
    assert_eq!(added.status.code(), Some(0), "{added:?}");
    let answer: Value = serde_json::from_slice(&added.stdout).unwrap();
    assert_eq!(answer["executions"][1]["id"], "e2");
    let (_, body) = &server.posted()[0];
    assert_eq!(
        (&body["session"], &body["execution"]["job"]["image"]),
        (&json!("s1"), &json!("im1"))
    );
    let unknown = server.ctl(&["multicast", "add", "s2", "pc-1", "--yes"]);
    assert_eq!(unknown.status.code(), Some(2), "{unknown:?}");
    assert_eq!(server.posted().len(), 1);
}

#[test]
fn waiting_ends_with_1_if_one_machine_failed_even_if_it_fell_off_the_list() {
    let running = [
        execution("e1", "pc-1", "running"),
        execution("e2", "pc-2", "running"),
    ];
    for (last, exit) in [("done", 0), ("failed", 1), ("interrupted", 1)] {
        let mut answers = room();
        answers.extend([
            ("GET /api/overview", overview("gathering", &running)),
            (
                "GET /api/overview",
                overview("over", &[execution("e1", "pc-1", "done")]),
            ),
            ("GET /api/executions/e2", execution("e2", "pc-2", last)),
        ]);
        let server = Pretended::new(answers);
        let order = [
            "multicast",
            "restore",
            "--image",
            "office",
            "pc-1",
            "pc-2",
            "--yes",
            "--wait",
        ];
        let ended = server.ctl(&order);
        assert_eq!(ended.status.code(), Some(exit), "{ended:?}");
        let words = text(&ended.stdout);
        for part in [
            "session s1: \"office\" to 239.255.1.2:26530: gathering  1 of 2 machines are ready",
            "pc-1: restore \"office\": done",
            &format!("pc-2: restore \"office\": {last}"),
        ] {
            assert!(words.contains(part), "{part}: {words}");
        }
    }
}

#[test]
fn sessions_are_listed_started_and_part_of_the_status() {
    let mut answers = room();
    answers.extend([
        ("POST /api/sessions/s1/start", session("starting")),
        ("GET /api/overview", overview("gathering", &[])),
    ]);
    let server = Pretended::new(answers);
    for list in [&["multicast"][..], &["multicast", "list"], &["status"]] {
        let list = server.ctl(list);
        assert_eq!(list.status.code(), Some(0), "{list:?}");
        let words = text(&list.stdout);
        assert!(words.contains("deployctl multicast start s1"), "{words}");
    }
    let list = server.ctl(&["multicast", "list", "--json"]);
    let value: Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!(value, json!([session("gathering")]));
    let started = server.ctl(&["multicast", "start", "s1"]);
    assert_eq!(started.status.code(), Some(0), "{started:?}");
    assert!(text(&started.stdout).contains(": starting"), "{started:?}");
    assert_eq!(
        server.ctl(&["multicast", "start", "s2"]).status.code(),
        Some(2)
    );
}

#[test]
fn what_cannot_be_one_session_is_refused_before_anything_is_asked() {
    let mut answers = room();
    answers[0].1 = image(Some("set"));
    let server = Pretended::new(answers);
    for (wrong, words) in [
        (&["--image", "office", "pc-1"][..], "is of several disks"),
        (&["--image", "office"], "MACHINE"),
        (
            &["--image", "im1", "--symbol", "1000", "pc-1"],
            "multiple of 64",
        ),
        (&["--image", "im1", "--targets", "0", "pc-1"], "targets"),
        (&["--image", "im1", "--ttl", "0", "pc-1"], "ttl"),
    ] {
        let output = server.ctl(&[&["multicast", "restore", "--yes"], wrong].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?} {output:?}");
        assert!(text(&output.stderr).contains(words), "{output:?}");
    }
    assert_eq!(server.posted(), []);
}
