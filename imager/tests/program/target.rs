//! Jobs of a server, as the program runs them: what it refuses before it writes.
//!
//! Owns: a server with one job and one image, down to its replies. Does not own: the real
//! server and its own checks (`server/tests`).

use crate::disks::{self, copy, folder, garbage, hash};
use crate::run::{FAILED, REFUSED, Run, command, finish};
use image::Layout;
use image::container::{ContainerReader, ContainerWriter, Event};
use image::manifest::ManifestWriter;
use image::{CellMap, ChunkRef};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use testkit::loopdev::LoopDevice;
use wire::{
    Action, After, CheckInReply, DiskSelector, FinishReply, Job, JobKind, ProgressReply,
    RestoreScope,
};

/// An image as a server has it.
struct Stored {
    root: String,
    manifest: Vec<u8>,
    records: HashMap<Vec<u8>, Vec<u8>>,
}

/// The image of a container, of which `change` makes another one.
fn stored(container: &Path, change: impl Fn(&mut Layout)) -> Stored {
    let file = BufReader::new(std::fs::File::open(container).unwrap());
    let mut reader = ContainerReader::open(file).unwrap();
    let mut layout = reader.layout().clone();
    change(&mut layout);
    let mut manifest = ManifestWriter::new(Vec::new(), &layout).unwrap();
    let (mut cells, mut chunks): (Vec<CellMap>, Vec<ChunkRef>) = Default::default();
    let (mut records, mut payload) = (HashMap::new(), Vec::new());
    loop {
        match reader.next_event(&mut payload).unwrap() {
            Event::Page(page) => cells = page,
            Event::Record { header, .. } => {
                let record = [&header.encode()[..], &payload].concat();
                records.insert(header.name.0.to_vec(), record);
                chunks.push(ChunkRef {
                    name: header.name,
                    plain_len: header.plain_len,
                });
                if chunks.len() == cells.len() {
                    manifest.page(&cells, &chunks).unwrap();
                    chunks.clear();
                }
            }
            Event::End(_) => break,
        }
    }
    let (manifest, root) = manifest.finish().unwrap();
    Stored {
        root: root.root.to_hex(),
        manifest,
        records,
    }
}

/// A server with one job, and the routes that it was asked for.
struct Server {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn new(stored: Stored, disk: Option<DiskSelector>, force: bool) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let job = Job {
            execution: "e".into(),
            token: "t".into(),
            kind: JobKind::Restore {
                disk,
                image: "i".into(),
                image_name: "gold".into(),
                root: stored.root.clone(),
                verify: true,
                force,
                scope: RestoreScope::default(),
                reuse: false,
                set: Vec::new(),
                multicast: None,
            },
            resume: false,
            resumed: Vec::new(),
            scripts: Vec::new(),
            after: After::Reboot,
        };
        let (seen, shared) = (Arc::clone(&asked), Arc::new((stored, job)));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, shared) = (Arc::clone(&seen), Arc::clone(&shared));
                std::thread::spawn(move || answer(stream, &seen, &shared));
            }
        });
        Server { port, asked }
    }

    fn was_asked(&self, route: &str) -> bool {
        self.asked.lock().unwrap().iter().any(|r| r == route)
    }

    /// Runs the job on these disks.
    fn run(&self, disks: &[&Path]) -> Run {
        let mut target = command(["target", "-q", "--json", "--mac", "52:54:00:00:00:01"]);
        target.arg(format!("--server=http://127.0.0.1:{}", self.port));
        for disk in disks {
            target.arg("--disk").arg(disk);
        }
        finish(target)
    }
}

fn answer(mut stream: TcpStream, asked: &Mutex<Vec<String>>, (stored, job): &(Stored, Job)) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
            break;
        }
        lines.push(line.to_ascii_lowercase());
    }
    let length = lines
        .iter()
        .find_map(|l| l.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |l| l.trim().parse().unwrap())];
    reader.read_exact(&mut body).unwrap();
    let path = lines[0].split(' ').nth(1).unwrap();
    let route = path.rsplit('/').next().unwrap().to_owned();
    let json = |value: serde_json::Result<Vec<u8>>| value.unwrap();
    let reply = match route.as_str() {
        "checkin" => json(serde_json::to_vec(&CheckInReply {
            machine: "pc-1".into(),
            action: Action::Job(Box::new(job.clone())),
            notice: None,
        })),
        "progress" => json(serde_json::to_vec(&ProgressReply { interrupt: false })),
        "finish" => json(serde_json::to_vec(&FinishReply {
            after: After::Reboot,
        })),
        "manifest" => stored.manifest.clone(),
        "fetch" => body
            .chunks(32)
            .flat_map(|name| stored.records[name].clone())
            .collect(),
        _ => Vec::new(),
    };
    asked.lock().unwrap().push(route);
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\n{}: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        wire::PROTOCOL_HEADER,
        wire::PROTOCOL_VERSION,
        reply.len()
    );
    let _ = stream.write_all(&reply);
}

fn same_image() -> Stored {
    stored(&disks::bare().image, |_| {})
}

#[test]
fn two_disks_that_fit_are_none() {
    let dir = folder();
    let size = disks::bare().disk.size;
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let (a, b) = (garbage(a, size), garbage(b, size));
    let before = (hash(&a), hash(&b));
    let server = Server::new(same_image(), None, false);
    let run = server.run(&[&a, &b]);
    let run = run.fails("target-ambiguous", REFUSED).disk("untouched");
    for disk in [&a, &b] {
        assert!(
            run.stderr.contains(disk.to_str().unwrap()),
            "{}",
            run.stderr
        );
    }
    assert_eq!((hash(&a), hash(&b)), before);
    assert!(server.was_asked("finish") && !server.was_asked("begin-write"));
    // One of them, by its path: that one and no other.
    let path = Some(b.to_str().unwrap().to_owned());
    let selector = DiskSelector {
        path,
        ..DiskSelector::default()
    };
    Server::new(same_image(), Some(selector), false)
        .run(&[&a, &b])
        .ok();
    assert_eq!(hash(&a), before.0);
    disks::bare().disk.verify(&b);
}

#[test]
fn an_image_of_another_kind_of_machine_is_refused_unless_forced() {
    let dir = folder();
    let target = garbage(dir.path().join("target"), disks::bare().disk.size);
    let before = hash(&target);
    let foreign = || {
        stored(&disks::bare().image, |layout| {
            layout.machine.architecture = "riscv64".into();
        })
    };
    let server = Server::new(foreign(), None, false);
    let run = server.run(&[&target]);
    let run = run
        .fails("image-not-for-machine", REFUSED)
        .disk("untouched");
    for shown in ["riscv64", std::env::consts::ARCH] {
        assert!(run.stderr.contains(shown), "{}", run.stderr);
    }
    assert_eq!(hash(&target), before, "refused, but something was written");
    assert!(server.was_asked("finish") && !server.was_asked("begin-write"));

    let server = Server::new(foreign(), None, true);
    let run = server.run(&[&target]).ok();
    assert!(
        run.json()["warnings"]
            .to_string()
            .contains("image-not-for-machine")
    );
    assert!(server.was_asked("begin-write"));
    disks::bare().disk.verify(&target);
}

/// The disk speaks for the machine: Windows there, Linux in the image.
#[test]
fn an_image_of_another_system_is_refused_unless_forced() {
    let dir = folder();
    let target = dir.path().join("target");
    std::fs::File::create(&target)
        .and_then(|file| file.set_len(disks::bare().disk.size))
        .unwrap();
    let made = std::process::Command::new("mkntfs")
        .args(["-q", "-Q", "-F"])
        .arg(&target)
        .output()
        .expect("mkntfs is missing: apt-get install ntfs-3g");
    assert!(made.status.success(), "{made:?}");
    let before = hash(&target);
    let server = Server::new(same_image(), None, false);
    let run = server.run(&[&target]);
    let run = run
        .fails("image-not-for-machine", REFUSED)
        .disk("untouched");
    let shown = "operating system: image Linux, machine Windows";
    assert!(run.stderr.contains(shown), "{}", run.stderr);
    assert_eq!(hash(&target), before, "refused, but something was written");
    assert!(!server.was_asked("begin-write"));
    let server = Server::new(same_image(), None, true);
    server.run(&[&target]).ok();
    disks::bare().disk.verify(&target);
}

/// On the command line the disk may be one of that other machine: told, also where nobody
/// is asked.
#[test]
fn the_command_line_tells_of_another_kind_of_machine() {
    let dir = folder();
    let image = dir.path().join("image");
    let file = std::fs::File::open(&disks::bare().image).unwrap();
    let mut reader = ContainerReader::open(BufReader::new(file)).unwrap();
    let mut layout = reader.layout().clone();
    layout.machine.architecture = "riscv64".into();
    let out = std::fs::File::create(&image).unwrap();
    let mut writer = ContainerWriter::new(out, &layout).unwrap();
    let mut payload = Vec::new();
    loop {
        match reader.next_event(&mut payload).unwrap() {
            Event::Page(cells) => writer.begin_page(&cells).unwrap(),
            Event::Record { header, .. } => {
                let record = [&header.encode()[..], &payload].concat();
                writer.record(&header, &record).unwrap();
            }
            Event::End(_) => break,
        }
    }
    writer.finish().unwrap();
    let backing = garbage(dir.path().join("target"), disks::bare().disk.size);
    let device = LoopDevice::attach(&backing, 512);
    let restore = ["restore", "-q", "--yes", "--save-tables=none"];
    let mut restore = command(restore);
    restore.arg(&image).arg(device.path());
    let said = finish(restore).warns("image-not-for-machine").stderr;
    assert!(said.contains("riscv64"), "{said}");
    disks::bare().disk.verify(&backing);
}

/// The server is told the root, the manifest is another one's.
#[test]
fn a_manifest_that_is_not_the_one_is_refused() {
    let dir = folder();
    let target = copy(&disks::bare().disk.path, dir.path().join("target"));
    let before = hash(&target);
    let mut wrong = same_image();
    wrong.root = stored(&disks::bare().image, |l| l.created.clear()).root;
    let server = Server::new(wrong, None, false);
    let run = server.run(&[&target]);
    assert!([Some(FAILED), Some(REFUSED)].contains(&run.exit));
    let exit = run.exit.unwrap();
    run.fails("image-damaged", exit).disk("untouched");
    assert_eq!(hash(&target), before);
    assert!(!server.was_asked("begin-write"));
}
