//! What the server knows of a machine's disks: storage networks that changed, partitions
//! that a job means, and images with bad ranges; over loopback, with real TLS.

mod support;

use serde_json::{Value, json};
use server::daemon::Server;
use support::{Http, Target, blocking, start};
use wire::{Code, DiskCheck, DiskCheckEntry, DiskInfo, DiskPath, DiskState, JobKind, JobOutcome};
use wire::{PartitionChoice, Report};

const MACHINE: &str = "pc-525400000001";

fn admin(server: &Server) -> Http {
    Http::new(server, &server.app.admin_token)
}

fn order(admin: &Http, job: Value) -> Result<Value, (u16, Report)> {
    let path = format!("/api/machines/{MACHINE}/executions");
    admin.json("POST", &path, &json!({ "job": job }))
}

fn clear(admin: &Http) {
    let path = format!("/api/machines/{MACHINE}/clear");
    admin.json::<Value>("POST", &path, &()).unwrap();
}

fn lun(paths: usize) -> DiskInfo {
    let way = |number: usize| DiskPath {
        path: format!("/dev/sd{number}"),
        bus: "fc".into(),
        controller: "lpfc".into(),
        ..DiskPath::default()
    };
    DiskInfo {
        path: "/dev/dm-0".into(),
        wwn: "naa.600144f0c73b4a0000005f2a1b3c0001".into(),
        bus: "fc".into(),
        size_bytes: 1 << 40,
        paths: (0..paths).map(way).collect(),
        ..DiskInfo::default()
    }
}

fn local(serial: &str) -> DiskInfo {
    DiskInfo {
        path: "/dev/sdz".into(),
        serial: serial.into(),
        bus: "sata".into(),
        size_bytes: 1 << 30,
        ..DiskInfo::default()
    }
}

fn failed(session: &support::Session, report: Report) {
    session.finish(JobOutcome::Failed { report }).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_refused_when_the_storage_network_changed() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await;
    let (admin, target) = (admin(&server), Target::new(&server, 1));
    blocking(move || {
        target.check_in();
        let backup = json!({ "kind": "backup", "image": "gold" });
        // The first look counts, whatever the job is.
        order(&admin, backup.clone()).unwrap();
        let session = target.job();
        session.disks(&[local("A"), lun(4)]).unwrap();
        session.back_up(&support::Image::new(7, 4)).unwrap();
        session.done().unwrap();

        // Other local disks are nobody's business here; a path less is.
        order(&admin, backup.clone()).unwrap();
        let session = target.job();
        session.disks(&[local("B"), lun(4)]).unwrap();
        for _ in 0..2 {
            let (status, report) = session.disks(&[local("B"), lun(2)]).unwrap_err();
            assert_eq!((status, report.code), (409, Code::DisksChanged));
            assert!(
                report.found.contains("had 4 paths and has 2 paths"),
                "{report}"
            );
            assert!(
                report
                    .advice
                    .contains("deployctl disk-check pc-525400000001")
            );
        }
        let (_, report) = session.disks(&[local("B")]).unwrap_err();
        assert!(report.found.contains("is gone"), "{report}");
        let refused = Report {
            disk: DiskState::Untouched,
            ..report
        };
        failed(&session, refused);
        clear(&admin);

        // A disk check renews what is compared with.
        order(&admin, json!({ "kind": "disk-check" })).unwrap();
        let session = target.job();
        session.disks(&[local("B"), lun(2)]).unwrap();
        session.done().unwrap();
        order(&admin, json!({ "kind": "restore", "image": "gold" })).unwrap();
        let session = target.job();
        session.disks(&[lun(2)]).unwrap();
        let (_, report) = session.disks(&[lun(4)]).unwrap_err();
        assert_eq!(report.code, Code::DisksChanged);
    })
    .await;
}

/// A disk check with one disk and two partitions.
fn partitioned(guid: &str) -> DiskCheck {
    let partition = |number: u64, guid: &str| {
        json!({
            "number": number, "start_bytes": number << 20, "size_bytes": 1 << 20,
            "type": "0FC63DAF-8483-4772-8E79-3D69D8477DE4", "guid": guid,
            "file_system": "ext4", "label": "data", "used_bytes": 4096, "method": "used",
        })
    };
    DiskCheck {
        disks: vec![DiskCheckEntry {
            info: local("A"),
            map: Some(json!({
                "table": "gpt", "partitions": [partition(1, "AA"), partition(3, guid)],
            })),
            problem: None,
            health: None,
        }],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chosen_partitions_are_stored_with_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await;
    let (admin, target) = (admin(&server), Target::new(&server, 1));
    blocking(move || {
        target.check_in();
        let backup = |partitions: &[u32]| {
            json!({
                "kind": "backup", "image": "parts", "partitions": partitions,
                "full_partitions": [3], "skip_bad": true,
            })
        };
        let (_, report) = order(&admin, backup(&[3])).unwrap_err();
        assert_eq!(report.code, Code::PartitionNotFound);
        assert!(report.advice.contains("deployctl disk-check"), "{report}");

        order(&admin, json!({ "kind": "disk-check" })).unwrap();
        let session = target.job();
        let path = session.path("disks");
        session
            .http
            .json::<()>("POST", &path, &partitioned("BB"))
            .unwrap();
        session.done().unwrap();

        let (_, report) = order(&admin, backup(&[1, 2])).unwrap_err();
        assert_eq!(report.code, Code::PartitionNotFound);
        let list = "looked for partition 2; the last disk check has: \
                    1 (1.00 MiB, ext4, data); 3 (1.00 MiB, ext4, data)";
        assert_eq!(report.found, list);

        order(&admin, backup(&[3])).unwrap();
        let session = target.job();
        let JobKind::Backup {
            partitions,
            full_partitions,
            skip_bad,
            ..
        } = &session.job.kind
        else {
            panic!("{:?}", session.job.kind);
        };
        let chosen = PartitionChoice {
            number: 3,
            guid: Some("BB".into()),
            start_bytes: Some(3 << 20),
            part_type: Some("0FC63DAF-8483-4772-8E79-3D69D8477DE4".into()),
        };
        assert_eq!(*partitions, [chosen]);
        assert_eq!((&full_partitions[..], *skip_bad), (&[3][..], true));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_with_bad_ranges_is_published_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await;
    let (admin, target) = (admin(&server), Target::new(&server, 1));
    blocking(move || {
        target.check_in();
        order(
            &admin,
            json!({ "kind": "backup", "image": "bad", "skip_bad": true }),
        )
        .unwrap();
        let session = target.job();
        let bad = image::BadRange {
            region: 0,
            start: 512,
            len: 1024,
        };
        let image = support::Image::with_bad(vec![7; 4 * support::CELL as usize], &[bad]);
        let published = session.back_up(&image).unwrap();
        session.done().unwrap();

        let info: Value = admin.json("GET", "/api/images/bad", &()).unwrap();
        let expected = json!([{
            "partition": 0, "file_system": "", "start_bytes": 512, "size_bytes": 1024,
        }]);
        assert_eq!(info["bad_ranges"], expected);
        let verified: Value = admin.json("POST", "/api/images/bad/verify", &()).unwrap();
        assert_eq!(verified["damaged"], 0);

        // What a restore gets has the root that was published, bad ranges included.
        order(&admin, json!({ "kind": "restore", "image": "bad" })).unwrap();
        let session = target.job();
        let manifest = session
            .http
            .bytes("GET", &session.path("manifest"), &[])
            .unwrap();
        let mut reader = image::manifest::ManifestReader::open(&manifest[..]).unwrap();
        while reader.next_page().unwrap().is_some() {}
        assert_eq!(reader.root().unwrap().root.to_hex(), published.root);
        assert_eq!(reader.bad().len(), 1);
    })
    .await;
}
