//! Jobs and the server's word on the disks of a storage network.
//!
//! Owns: that a job ends where the server says `disks-changed`, or says nothing. Does not
//! own: what a change is (the server).

use super::run;
use crate::keyring::Keyring;
use crate::progress::Tracker;
use crate::remote::{Options, Remote, ServerAddress};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use wire::{After, Code, DiskInfo, DiskSelector, DiskState, Job, JobKind, Report, RestoreScope};

/// A server that answers every request with this status and body, and what it was asked.
fn server(status: &'static str, body: String) -> (Remote, Arc<Mutex<Vec<String>>>) {
    server_of_bytes(status, body.into_bytes())
}

fn server_of_bytes(status: &'static str, body: Vec<u8>) -> (Remote, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut first = String::new();
            let _ = reader.read_line(&mut first);
            let words: Vec<&str> = first.split(' ').take(2).collect();
            seen.lock().unwrap().push(words.join(" "));
            let mut length = 0;
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
                    break;
                }
                let line = line.to_ascii_lowercase();
                if let Some(value) = line.strip_prefix("content-length: ") {
                    length = value.trim().parse().unwrap();
                }
            }
            let _ = reader.read_exact(&mut vec![0; length]);
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ndeploy-protocol: 1\r\n\
                 content-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(&body);
        }
    });
    let address = ServerAddress::parse(&format!("http://127.0.0.1:{port}")).unwrap();
    let options = Options {
        retry_for: Duration::ZERO,
        ..Options::default()
    };
    let remote = Remote::new(&address, None, &options).unwrap();
    (remote.for_job("e", "t"), asked)
}

fn disk(path: &Path, bus: &str) -> DiskInfo {
    DiskInfo {
        path: path.to_str().unwrap().into(),
        size_bytes: 1 << 20,
        sector_size: 512,
        bus: bus.into(),
        ..DiskInfo::default()
    }
}

fn restore(path: &Path, resume: bool) -> Job {
    let selector = DiskSelector {
        path: Some(path.to_str().unwrap().into()),
        ..DiskSelector::default()
    };
    Job {
        execution: "e".into(),
        token: "t".into(),
        kind: JobKind::Restore {
            disk: Some(selector),
            image: "i".into(),
            image_name: "gold".into(),
            root: "00".into(),
            verify: true,
            force: false,
            scope: RestoreScope::default(),
            reuse: false,
            set: Vec::new(),
            multicast: None,
        },
        resume,
        resumed: Vec::new(),
        scripts: Vec::new(),
        after: After::Reboot,
    }
}

/// Runs a restore against a server that answers so; the disk must stay as it was. Tells
/// what the server was asked, too.
fn run_against(
    status: &'static str,
    body: String,
    bus: &str,
    resume: bool,
) -> (Report, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    std::fs::write(&path, vec![7; 1 << 20]).unwrap();
    let (remote, asked) = server(status, body);
    let tracker = Tracker::new(|_| {});
    let disks = [disk(&path, bus)];
    let report = run(
        &restore(&path, resume),
        &remote,
        &disks,
        &Keyring::default(),
        &tracker,
    )
    .unwrap_err();
    assert!(
        std::fs::read(&path).unwrap() == vec![7; 1 << 20],
        "the disk was written"
    );
    let asked = asked.lock().unwrap().clone();
    (report, asked)
}

const LOOK: &str = "POST /v1/executions/e/disks";

fn changed() -> String {
    let found = "disk naa.1 had 4 paths and has 2 paths";
    let report = Report::new(Code::DisksChanged, found, DiskState::NotInvolved);
    serde_json::to_string(&report).unwrap()
}

#[test]
fn changed_disks_end_the_job_before_anything_is_written() {
    for bus in ["fc", "sata"] {
        let (report, asked) = run_against("409 Conflict", changed(), bus, false);
        assert_eq!(asked, [LOOK]);
        assert_eq!(
            (report.code, report.disk),
            (Code::DisksChanged, DiskState::Untouched)
        );
        assert!(report.found.contains("4 paths"), "{report}");
    }
    // What an earlier boot of the machine did to the disk is not known here.
    let (report, _) = run_against("409 Conflict", changed(), "fc", true);
    assert_eq!(
        (report.code, report.disk),
        (Code::DisksChanged, DiskState::Unknown)
    );
}

#[test]
fn a_storage_network_that_nobody_compared_is_not_written_to() {
    let internal = Report::new(Code::Internal, "out of order", DiskState::NotInvolved);
    let body = serde_json::to_string(&internal).unwrap();
    let failing = "500 Internal Server Error";
    let (report, asked) = run_against(failing, body.clone(), "iscsi", false);
    assert_eq!(report.disk, DiskState::Untouched);
    assert!(asked.iter().all(|line| line == LOOK), "{asked:?}");
    // With local disks the check is only for display: the job goes on, to its next request.
    let (report, asked) = run_against(failing, body, "sata", false);
    assert_eq!(report.disk, DiskState::Untouched);
    assert!(asked.iter().any(|line| line != LOOK), "{asked:?}");
}

/// An earlier start has begun to write: that this one has not says nothing of the disk.
#[test]
fn a_resumed_restore_that_fails_at_once_does_not_call_the_disk_untouched() {
    let internal = Report::new(Code::Internal, "out of order", DiskState::NotInvolved);
    let body = serde_json::to_string(&internal).unwrap();
    let (report, asked) = run_against("500 Internal Server Error", body, "sata", true);
    assert_eq!(report.disk, DiskState::Unknown);
    assert!(asked.iter().any(|line| line != LOOK), "{asked:?}");
    // Nor if the disk is not there any more.
    let (remote, _) = server("200 OK", "null".to_owned());
    let mut job = restore(Path::new("/nowhere/disk"), true);
    let part = |path: &str| wire::DiskImage {
        disk: wire::DiskSelector {
            path: Some(path.to_owned()),
            ..wire::DiskSelector::default()
        },
        image: "i".to_owned(),
        root: String::new(),
    };
    for several in [false, true] {
        if let JobKind::Restore { set, .. } = &mut job.kind
            && several
        {
            set.extend(["/nowhere/a", "/nowhere/b"].map(part));
        }
        let tracker = Tracker::new(|_| {});
        let report = run(&job, &remote, &[], &Keyring::default(), &tracker).unwrap_err();
        let (code, disk) = (report.code, report.disk);
        assert_eq!((code, disk), (Code::DiskNotFound, DiskState::Unknown));
    }
}

/// A manifest that `signer` has signed, and its root.
fn signed_manifest(signer: u8) -> (Vec<u8>, String) {
    let mut layout = image::Layout {
        cell_size: 1 << 16,
        ..image::Layout::default()
    };
    layout.disk.size_bytes = 1 << 20;
    layout.disk.sector_size = 512;
    layout.table.kind = "none".into();
    let writer = image::manifest::ManifestWriter::new(Vec::new(), &layout).unwrap();
    let (bytes, root) = writer.finish().unwrap();
    let key = image::SigningKey::from_seed(&[signer; 32]).unwrap();
    let mut file = std::io::Cursor::new(bytes);
    image::sign::add_to_manifest(&mut file, &key.sign(root.root)).unwrap();
    (file.into_inner(), root.root.to_hex())
}

#[test]
fn an_image_that_the_servers_key_did_not_sign_is_not_restored() {
    let (manifest, root) = signed_manifest(1);
    for (trusted, code) in [(2, Code::ImageUntrusted), (1, Code::ConnectionLost)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, vec![7; 1 << 20]).unwrap();
        let (remote, _) = server_of_bytes("200 OK", manifest.clone());
        let mut job = restore(&path, false);
        if let JobKind::Restore { root: wanted, .. } = &mut job.kind {
            wanted.clone_from(&root);
        }
        let key = image::SigningKey::from_seed(&[trusted; 32]).unwrap();
        let keyring = Keyring::new(Some(key.public()), crate::keyring::KeySource::default());
        let tracker = Tracker::new(|_| {});
        let report = run(&job, &remote, &[disk(&path, "sata")], &keyring, &tracker);
        // The right key gets further: to the server's answers, which are played here.
        match report {
            Err(report) => assert_eq!((report.code, report.disk), (code, DiskState::Untouched)),
            Ok(_) => assert_eq!(trusted, 1),
        }
    }
}

#[test]
fn a_level_that_the_codec_does_not_have_becomes_the_nearest() {
    use image::record::Compression as Is;
    use wire::Codec::{Deflate, None, Zstd};
    for (codec, level, wanted) in [
        (Zstd, 0, Is::Zstd(1)),
        (Zstd, 19, Is::Zstd(19)),
        (Zstd, i32::MAX, Is::Zstd(19)),
        (Deflate, i32::MIN, Is::Deflate(1)),
        (Deflate, 9, Is::Deflate(9)),
        (Deflate, 12, Is::Deflate(9)),
        (None, 5, Is::None),
    ] {
        assert_eq!(
            super::compression(codec, level),
            wanted,
            "{codec:?} {level}"
        );
    }
}
