//! Jobs of several disks, as a target and an operator see them.
//!
//! Owns: what the routes give, take and refuse. Does not own: how a set is stored (the
//! store's own tests), the disks (`tests/tests/several.rs`).

mod support;

use serde_json::{Value, json};
use server::daemon::Server;
use support::{Http, Image, Session, Target, blocking, start};
use wire::{BeginWrite, Code, DiskInfo, DiskState, JobKind, JobOutcome, Published, Report};

const ORDERS: &str = "/api/machines/pc-525400000001/executions";

fn second() -> DiskInfo {
    DiskInfo {
        number: 1,
        path: "/dev/vdb".into(),
        size_bytes: 32 << 20,
        sector_size: 512,
        serial: "second".into(),
        ..DiskInfo::default()
    }
}

/// A machine with two disks, and what its operator can say.
fn stage(server: &Server) -> (Http, Target) {
    let mut target = Target::new(server, 1);
    target.more.push(second());
    target.check_in();
    (Http::new(server, &server.app.admin_token), target)
}

fn order(admin: &Http, job: Value) -> Result<Value, (u16, Report)> {
    admin.json("POST", ORDERS, &json!({ "job": job }))
}

fn send(session: &Session, images: &[Image]) -> Vec<Published> {
    let mut body = Vec::new();
    for image in images {
        session.upload(&image.records.concat()).unwrap();
        body.extend((image.manifest.len() as u64).to_le_bytes());
        body.extend(&image.manifest);
    }
    let answer = session.http.bytes("PUT", &session.path("manifests"), &body);
    serde_json::from_slice(&answer.unwrap()).unwrap()
}

/// Two disks as two images, published.
fn backed_up(admin: &Http, target: &Target) -> Vec<Published> {
    let job = json!({ "kind": "backup", "image": "gold", "all_disks": true });
    order(admin, job).unwrap();
    let session = target.job();
    let JobKind::Backup { disks, .. } = &session.job.kind else {
        panic!("{:?}", session.job.kind)
    };
    assert_eq!(disks.len(), 2);
    let published = send(&session, &[Image::new(1, 4), Image::new(2, 7)]);
    session.done().unwrap();
    published
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_of_a_set_means_all_of_its_images() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await;
    let server = blocking(move || {
        let (admin, target) = stage(&server);
        let published = backed_up(&admin, &target);
        let verified = |what: &str| -> Value {
            let path = format!("/api/images/{what}/verify");
            admin.json("POST", &path, &()).unwrap()
        };
        assert_eq!(verified("gold")["chunks"], 11);
        assert_eq!(verified(&published[0].image)["chunks"], 4);
        assert_eq!(verified(&published[1].image)["chunks"], 7);
        // A file has one image.
        let export = |what: &str| admin.bytes("GET", &format!("/api/images/{what}/export"), &[]);
        let (status, report) = export("gold").unwrap_err();
        assert!(status == 400 && report.found.contains(&published[1].image));
        export(&published[1].image).unwrap();

        let pin = |method: &str, what: &str| {
            let path = format!("/api/images/{what}/pin");
            admin.bytes(method, &path, &[]).unwrap();
        };
        let pinned = || -> Vec<bool> {
            let all: Vec<Value> = admin.json("GET", "/api/images", &()).unwrap();
            all.iter().map(|i| i["pinned"] == true).collect()
        };
        pin("POST", "gold");
        assert_eq!(pinned(), [true, true]);
        pin("DELETE", &published[0].image);
        let deleted = admin.bytes("DELETE", "/api/images/gold", &[]);
        assert_eq!(deleted.unwrap_err().0, 409, "one is pinned yet");
        pin("DELETE", "gold");
        assert_eq!(pinned(), [false, false]);
        admin.bytes("DELETE", "/api/images/gold", &[]).unwrap();
        assert!(pinned().is_empty());
        server
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn done_is_believed_of_all_disks_only() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await;
    let server = blocking(move || {
        let (admin, mut target) = stage(&server);
        backed_up(&admin, &target);
        // What a name of two images means must be said.
        let one = json!({ "kind": "restore", "image": "gold" });
        assert_eq!(order(&admin, one).unwrap_err().1.code, Code::Usage);
        let disks = json!([{ "number": 1 }, { "number": 0 }]);
        let job = json!({ "kind": "restore", "image": "gold", "disks": disks });
        order(&admin, job).unwrap();
        let session = target.job();
        assert!(session.job.resumed.is_empty() && !session.job.resume);
        // A target that does not know sets gets no image that it could write to some disk.
        let JobKind::Restore { root, set, .. } = &session.job.kind else {
            panic!("{:?}", session.job.kind)
        };
        assert_eq!((root.as_str(), set.len()), ("", 2));
        let begin = |session: &Session, part: u32, disk: DiskInfo| {
            let message = BeginWrite {
                part,
                ..BeginWrite::from(disk)
            };
            let path = session.path("begin-write");
            session.http.json::<()>("POST", &path, &message)
        };
        begin(&session, 0, second()).unwrap();
        // One disk for two images, one image for two disks, one disk too many.
        for (part, disk) in [(1, second()), (0, target.disk()), (2, target.disk())] {
            assert!(begin(&session, part, disk).is_err(), "part {part}");
        }
        begin(&session, 0, second()).unwrap();

        // The power goes: the disk that was begun is resumed, the other begins.
        target.boot = "boot-2".into();
        let session = target.job();
        assert!(session.job.resume);
        assert_eq!(session.job.resumed, [0]);
        for (part, cells) in [(0, 4), (1, 7)] {
            let path = session.path(&format!("manifest?part={part}"));
            let manifest = session.http.bytes("GET", &path, &[]).unwrap();
            let reader = image::manifest::ManifestReader::open(&manifest[..]).unwrap();
            let size = cells * u64::from(support::CELL);
            assert_eq!(reader.layout().disk.size_bytes, size);
        }
        // A done that says nothing of the second disk.
        let refused = session.done();
        let state = || -> Value { admin.json("GET", ORDERS, &()).unwrap() };
        assert_ne!(state()[0]["state"], "done", "{refused:?}");
        server
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_disks_that_were_begun_and_done_are_done() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await;
    let server = blocking(move || {
        let (admin, target) = stage(&server);
        backed_up(&admin, &target);
        let disks = json!([{ "number": 0 }, { "number": 1 }]);
        let job = json!({ "kind": "restore", "image": "gold", "disks": disks });
        order(&admin, job).unwrap();
        let session = target.job();
        for (part, disk) in [(0, target.disk()), (1, second())] {
            let message = BeginWrite {
                part,
                ..BeginWrite::from(disk)
            };
            let path = session.path("begin-write");
            session.http.json::<()>("POST", &path, &message).unwrap();
        }
        session.done().unwrap();
        let all: Value = admin.json("GET", ORDERS, &()).unwrap();
        assert_eq!(all[0]["state"], "done");
        server
    })
    .await;
    server.stop().await;
}

/// What names a disk is never passed over: a job would go to another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_one_disk_means_that_disk_and_two_ways_to_name_disks_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await;
    let server = blocking(move || {
        let (admin, target) = stage(&server);
        let published = backed_up(&admin, &target);
        let one = json!([{ "serial": "second" }]);
        let restore = |more: Value| {
            let mut job = json!({ "kind": "restore", "image": published[0].image });
            job.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            job
        };
        order(&admin, restore(json!({ "disks": one }))).unwrap();
        let session = target.job();
        let JobKind::Restore { disk, set, .. } = &session.job.kind else {
            panic!("{:?}", session.job.kind)
        };
        let serial = disk.as_ref().and_then(|disk| disk.serial.as_deref());
        assert_eq!((serial, set.len()), (Some("second"), 0));
        let report = Report::new(Code::Interrupted, "stopped", DiskState::Untouched);
        session.finish(JobOutcome::Failed { report }).unwrap();
        let cleared = admin.bytes("POST", "/api/machines/pc-525400000001/clear", &[]);
        cleared.unwrap();

        let first = json!({ "number": 0 });
        let both = json!([{ "number": 0 }, { "number": 1 }]);
        for named in [
            json!({ "disk": first, "disks": one }),
            json!({ "disk": first, "disks": both }),
            json!({ "disk": first, "all_disks": true }),
            json!({ "disks": both, "all_disks": true }),
            json!({ "disks": one, "all_disks": true }),
        ] {
            let mut backup = json!({ "kind": "backup", "image": "new" });
            backup
                .as_object_mut()
                .unwrap()
                .extend(named.as_object().unwrap().clone());
            let mut whole = restore(named.clone());
            whole["image"] = "gold".into();
            for job in [restore(named.clone()), whole, backup] {
                let refused = order(&admin, job.clone()).map(|_| ()).unwrap_err();
                assert_eq!(refused.1.code, Code::Usage, "{job}: {refused:?}");
            }
        }
        server
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_retention_are_applied_after_a_backup_of_several_disks_too() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await;
    let server = blocking(move || {
        let (admin, target) = stage(&server);
        let rule = json!({ "policy": { "last": 1 } });
        admin.json::<Value>("PUT", "/api/retention", &rule).unwrap();
        backed_up(&admin, &target);
        let newer = backed_up(&admin, &target);
        let began = std::time::Instant::now();
        loop {
            let all: Vec<Value> = admin.json("GET", "/api/images", &()).unwrap();
            if all.len() == newer.len() {
                assert!(
                    newer
                        .iter()
                        .all(|new| all.iter().any(|i| i["id"] == new.image))
                );
                break;
            }
            // What the server does by itself takes a moment.
            assert!(began.elapsed().as_secs() < 60, "{} images", all.len());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        server
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_where_is_shown_before_it_is_ordered_and_ordered_as_shown() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await;
    let state = dir.path().to_owned();
    let server = blocking(move || {
        let (admin, target) = stage(&server);
        let published = backed_up(&admin, &target);
        let ctl = |more: &[&str]| {
            let output = std::process::Command::new(env!("CARGO_BIN_EXE_deployctl"))
                .arg("--state")
                .arg(&state)
                .args(["--server", &support::base(&server)])
                .args(["restore", "pc-525400000001", "--image", "gold"])
                .args(more)
                .stdin(std::process::Stdio::null())
                .output()
                .unwrap();
            (
                output.status.success(),
                String::from_utf8(output.stderr).unwrap(),
            )
        };
        let swapped = ["--disk", "number=1", "--disk", "number=0"];
        let (ordered, shown) = ctl(&swapped);
        assert!(!ordered, "nobody has confirmed it");
        let all: Vec<Value> = admin.json("GET", ORDERS, &()).unwrap();
        assert_eq!(all.len(), 1, "only the backup");
        // The image of each disk, by its size, and what will be overwritten.
        let places = [("256 KiB", "second"), ("448 KiB", "disk-of-")];
        let mut rest = shown.as_str();
        for (part, (size, serial)) in places.iter().enumerate() {
            let head = format!("image of disk {} ({size}", part + 1);
            let at = rest
                .find(&head)
                .unwrap_or_else(|| panic!("{head}: {shown}"));
            rest = &rest[at..];
            let line = rest.lines().nth(1).unwrap();
            assert!(line.contains("goes to") && line.contains(serial), "{shown}");
        }
        // A disk that the machine has not shown is said to be that.
        let (_, shown) = ctl(&["--disk", "/dev/none", "--disk", "number=0"]);
        assert!(
            shown.contains("/dev/none, which the server has not seen"),
            "{shown}"
        );
        assert!(ctl(&[&swapped[..], &["--yes"]].concat()).0);
        let session = target.job();
        let JobKind::Restore { set, .. } = &session.job.kind else {
            panic!("{:?}", session.job.kind)
        };
        assert_eq!(set[0].image, published[0].image);
        assert_eq!(set[0].disk.serial.as_deref(), Some("second"));
        server
    })
    .await;
    server.stop().await;
}
