//! The main job over loopback, with real TLS: check-in, backup, publish, restore, and
//! what goes wrong in between.

mod support;

use serde_json::{Value, json};
use server::daemon::Server;
use support::{Http, Image, Target, blocking, start};
use wire::{Action, Code, DiskState, JobOutcome, Report, Step};

fn admin(server: &Server) -> Http {
    Http::new(server, &server.app.admin_token)
}

fn order(admin: &Http, machine: &str, job: Value) -> Value {
    admin
        .json(
            "POST",
            &format!("/api/machines/{machine}/executions"),
            &json!({ "job": job }),
        )
        .unwrap()
}

fn state_of(admin: &Http, machine: &str) -> String {
    let all: Vec<Value> = admin
        .json("GET", &format!("/api/machines/{machine}/executions"), &())
        .unwrap();
    all[0]["state"].as_str().unwrap().to_owned()
}

fn image_count(admin: &Http) -> usize {
    admin
        .json::<Vec<Value>>("GET", "/api/images", &())
        .unwrap()
        .len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_backed_up_and_another_one_restored_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await;
    let (admin, first, second) = (
        admin(&server),
        Target::new(&server, 1),
        Target::new(&server, 2),
    );
    blocking(move || {
        assert_eq!(
            first.check_in().action,
            Action::BootLocal,
            "nothing is assigned yet"
        );
        order(
            &admin,
            "pc-525400000001",
            json!({ "kind": "backup", "image": "gold" }),
        );
        let image = Image::new(7, 40);
        let session = first.job();
        let published = session.back_up(&image).unwrap();
        assert_eq!(
            session.back_up(&image).unwrap(),
            published,
            "publishing is idempotent"
        );
        session.done().unwrap();
        assert_eq!(state_of(&admin, "pc-525400000001"), "done");
        assert_eq!(first.check_in().action, Action::BootLocal);

        assert_eq!(second.check_in().action, Action::BootLocal);
        order(
            &admin,
            "pc-525400000002",
            json!({ "kind": "restore", "image": "gold" }),
        );
        let session = second.job();
        assert!(!session.job.resume);
        session.begin_write(second.disk()).unwrap();
        assert!(session.restore().unwrap() == image.plain);
        session.done().unwrap();
        assert_eq!(state_of(&admin, "pc-525400000002"), "done");
        // The server's word for it, by the key that boot scripts name.
        let keys: Value = admin.json("GET", "/api/version", &()).unwrap();
        let info: Value = admin.json("GET", "/api/images/gold", &()).unwrap();
        assert_eq!(info["signed_by"], json!([keys["signing_key"]]));
        assert_eq!(keys["signing_key"].as_str().map(str::len), Some(64));
        let verified: Value = admin.json("POST", "/api/images/gold/verify", &()).unwrap();
        assert_eq!(
            (verified["chunks"].as_u64(), verified["damaged"].as_u64()),
            (Some(40), Some(0))
        );
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_backup_shows_nothing_and_the_next_boot_sends_only_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await;
    let (admin_http, mut target) = (admin(&server), Target::new(&server, 1));
    let image = Image::new(7, 10);
    let (admin, sent) = (admin_http.clone(), image.clone());
    let target = blocking(move || {
        target.check_in();
        order(
            &admin,
            "pc-525400000001",
            json!({ "kind": "backup", "image": "gold" }),
        );
        let session = target.job();
        session.progress(Step::Running, 0, 1).unwrap();
        let half: Vec<u8> = sent.records[..5].concat();
        assert_eq!(session.upload(&half).unwrap().stored, 5);
        let (status, report) = session.publish(&sent.manifest).unwrap_err();
        assert_eq!((status, report.code), (422, Code::ImageDamaged), "{report}");
        let (status, report) = session.done().unwrap_err();
        assert_eq!(status, 409, "done without an image: {report}");
        assert_eq!(image_count(&admin), 0);
        target.boot = "boot-2".into();
        target
    })
    .await;
    // The server is restarted too.
    server.stop().await;
    let server = start(dir.path()).await;
    let admin = self::admin(&server);
    blocking(move || {
        assert_eq!(image_count(&admin), 0);
        let target = Target {
            http: Http::new(&server, ""),
            ..target
        };
        let session = target.job();
        let names: Vec<_> = image.chunks.iter().map(|c| c.name).collect();
        let have = session.have(&names).unwrap();
        assert_eq!(have, [[true; 5], [false; 5]].concat());
        session.back_up(&image).unwrap();
        session.done().unwrap();
        assert_eq!(image_count(&admin), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_starts_once_and_a_lost_done_never_restores_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await;
    let (admin, mut target) = (admin(&server), Target::new(&server, 1));
    blocking(move || {
        target.check_in();
        order(
            &admin,
            "pc-525400000001",
            json!({ "kind": "backup", "image": "gold" }),
        );
        let session = target.job();
        session.back_up(&Image::new(1, 3)).unwrap();
        session.done().unwrap();

        order(
            &admin,
            "pc-525400000001",
            json!({ "kind": "restore", "image": "gold" }),
        );
        let session = target.job();
        assert_eq!(
            target.job().job,
            session.job,
            "the same check-in again is the same job"
        );
        session.begin_write(target.disk()).unwrap();
        let other = wire::DiskInfo {
            serial: "another".into(),
            ..target.disk()
        };
        let (_, report) = session.begin_write(other).unwrap_err();
        assert_eq!(report.code, Code::DisksChanged);
        session.begin_write(target.disk()).unwrap();

        target.boot = "boot-2".into();
        let session = target.job();
        assert!(session.job.resume, "only by way of a look at the disk");
        session.done().unwrap();
        session.done().unwrap();
        // The answer was lost and the target boots: its disk is somebody's by now.
        target.boot = "boot-3".into();
        assert_eq!(target.check_in().action, Action::BootLocal);
        let (status, report) = session.progress(Step::Running, 0, 1).unwrap_err();
        assert_eq!(
            (status, report.code),
            (403, Code::ServerRefused),
            "the token is void"
        );
        let failed = JobOutcome::Failed {
            report: Report::new(Code::WriteError, "x", DiskState::Incomplete),
        };
        assert_eq!(
            session.finish(failed).unwrap_err().0,
            403,
            "the first final state counts"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_execution_must_be_cleared_and_one_machine_has_one() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await;
    let (admin, target) = (admin(&server), Target::new(&server, 1));
    blocking(move || {
        target.check_in();
        let job = json!({ "job": { "kind": "backup", "image": "gold" } });
        let path = "/api/machines/pc-525400000001/executions";
        admin.json::<Value>("POST", path, &job).unwrap();
        assert_eq!(admin.json::<Value>("POST", path, &job).unwrap_err().0, 409);
        let session = target.job();
        let report = Report::new(Code::ReadError, "sector 7", DiskState::NotInvolved);
        session
            .finish(JobOutcome::Failed {
                report: report.clone(),
            })
            .unwrap();
        assert_eq!(target.check_in().action, Action::BootLocal);
        let (status, refused) = admin.json::<Value>("POST", path, &job).unwrap_err();
        assert_eq!(status, 409);
        assert!(refused.advice.contains("clear"), "{refused}");
        let shown: Value = admin
            .json("GET", "/api/machines/pc-525400000001", &())
            .unwrap();
        assert_eq!(
            shown["execution"]["report"],
            serde_json::to_value(&report).unwrap()
        );
        admin
            .json::<Value>("POST", "/api/machines/pc-525400000001/clear", &())
            .unwrap();
        admin.json::<Value>("POST", path, &job).unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_reaches_the_target_and_a_waiting_job_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await;
    let (admin, target) = (admin(&server), Target::new(&server, 1));
    blocking(move || {
        target.check_in();
        let interrupt = "/api/machines/pc-525400000001/interrupt";
        order(&admin, "pc-525400000001", json!({ "kind": "disk-check" }));
        let ended: Value = admin.json("POST", interrupt, &()).unwrap();
        assert_eq!(
            (ended["state"].as_str(), ended["open"].as_bool()),
            (Some("interrupted"), Some(false))
        );
        assert_eq!(target.check_in().action, Action::BootLocal);

        order(
            &admin,
            "pc-525400000001",
            json!({ "kind": "backup", "image": "gold" }),
        );
        let session = target.job();
        assert!(!session.progress(Step::Running, 1, 2).unwrap().interrupt);
        admin.json::<Value>("POST", interrupt, &()).unwrap();
        assert!(session.progress(Step::Running, 1, 2).unwrap().interrupt);
        assert_eq!(state_of(&admin, "pc-525400000001"), "interrupting");
        let report = Report::new(Code::Interrupted, "by the operator", DiskState::NotInvolved);
        session.finish(JobOutcome::Failed { report }).unwrap();
        assert_eq!(state_of(&admin, "pc-525400000001"), "interrupted");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transfers_beyond_the_limit_wait_in_line() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = support::options(dir.path());
    options.max_transfers = 1;
    let server = server::daemon::start(&options).await.unwrap();
    let (admin, first, second) = (
        admin(&server),
        Target::new(&server, 1),
        Target::new(&server, 2),
    );
    blocking(move || {
        for (target, name) in [(&first, "pc-525400000001"), (&second, "pc-525400000002")] {
            target.check_in();
            order(&admin, name, json!({ "kind": "backup", "image": name }));
        }
        let session = first.job();
        let Action::Wait { reason, .. } = second.check_in().action else {
            panic!("no place in line")
        };
        assert_eq!(reason.code, Code::Busy);
        assert!(reason.found.contains("number 1 in line"), "{reason}");
        let shown: Value = admin.json("GET", "/api/overview", &()).unwrap();
        let transfers = json!({ "running": 1, "most": 1, "waiting": 1 });
        assert_eq!(shown["transfers"], transfers);
        let places: Vec<_> = shown["executions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| &e["place"])
            .collect();
        assert!(
            places.contains(&&json!(1)) && places.contains(&&json!(null)),
            "{places:?}"
        );
        session.back_up(&Image::new(1, 1)).unwrap();
        session.done().unwrap();
        second.job();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_of_another_machine_is_refused_and_an_own_one_gets_a_new_version() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await;
    let (admin, first, second) = (
        admin(&server),
        Target::new(&server, 1),
        Target::new(&server, 2),
    );
    blocking(move || {
        first.check_in();
        second.check_in();
        let mut ids = Vec::new();
        for seed in [1, 2] {
            order(
                &admin,
                "pc-525400000001",
                json!({ "kind": "backup", "image": "gold" }),
            );
            let session = first.job();
            ids.push(session.back_up(&Image::new(seed, 2)).unwrap().image);
            session.done().unwrap();
        }
        let newest: Value = admin.json("GET", "/api/images/gold", &()).unwrap();
        assert_eq!(newest["newest"], json!(true));
        assert_eq!(image_count(&admin), 2, "the earlier one is still there");
        assert_eq!(newest["id"].as_str(), Some(ids[1].as_str()));
        let job = json!({ "job": { "kind": "backup", "image": "gold" } });
        let (status, report) = admin
            .json::<Value>("POST", "/api/machines/pc-525400000002/executions", &job)
            .unwrap_err();
        assert_eq!((status, report.code), (409, Code::ImageExists));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_of_partitions_carries_what_they_were_when_it_was_ordered() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await;
    let (admin, target) = (admin(&server), Target::new(&server, 1));
    let pc = "pc-525400000001";
    let restore = |scope: Value| json!({ "kind": "restore", "image": "gold", "scope": scope });
    let pair = |from: u32, into: u32| {
        json!({
            "partitions": [{ "image": { "number": from }, "disk": { "number": into } }],
            "grow": { "partition": into },
        })
    };
    blocking(move || {
        target.check_in();
        let refused = |scope: Value| {
            let path = format!("/api/machines/{pc}/executions");
            let body = json!({ "job": restore(scope) });
            let reply = admin.json::<Value>("POST", &path, &body);
            reply.unwrap_err().1
        };
        order(&admin, pc, json!({ "kind": "backup", "image": "gold" }));
        let session = target.job();
        session.back_up(&Image::new(1, 3)).unwrap();
        session.done().unwrap();

        let report = refused(pair(0, 5));
        assert_eq!(report.code, Code::PartitionNotFound);
        assert!(report.advice.contains("disk-check"), "{}", report.advice);
        order(&admin, pc, json!({ "kind": "disk-check" }));
        let session = target.job();
        let map = json!({ "partitions": [
            { "number": 1, "visible_number": null, "start_bytes": 1048576, "type": "0x17", "guid": "" },
            { "number": 5, "visible_number": 1, "start_bytes": 9437184, "type": "0x83", "guid": "" },
        ]});
        let check = wire::DiskCheck {
            disks: vec![wire::DiskCheckEntry {
                info: target.disk(),
                map: Some(map),
                problem: None,
                health: None,
            }],
        };
        let path = session.path("disks");
        session.http.json::<Value>("POST", &path, &check).unwrap_or_default();
        session.done().unwrap();

        for (scope, named) in [
            (pair(3, 5), "the image does not hold partition 3"),
            (pair(0, 2), "looked for partition 2"),
            (json!({ "keep": [{ "number": 2 }], "number_visible": true }), "looked for partition 2"),
        ] {
            let report = refused(scope);
            assert_eq!(report.code, Code::PartitionNotFound);
            assert!(report.found.contains(named), "{}", report.found);
        }
        let mut both = pair(0, 5);
        both["keep"] = json!([{ "number": 1 }]);
        assert_eq!(refused(both).code, Code::Usage);

        let shown = order(&admin, pc, restore(pair(0, 5)));
        let disk = json!({ "number": 5, "start_bytes": 9437184, "type": "0x83" });
        assert_eq!(shown["scope"]["partitions"][0]["disk"], disk);
        let wire::JobKind::Restore { scope, .. } = target.job().job.kind else {
            panic!("no restore");
        };
        assert_eq!(serde_json::to_value(&scope).unwrap(), shown["scope"]);
        assert_eq!(scope.grow, Some(wire::GrowChoice::Partition(5)));
        admin.json::<Value>("POST", &format!("/api/machines/{pc}/interrupt"), &()).unwrap();
        let session = target.job();
        session.finish(JobOutcome::Failed {
            report: Report::new(Code::Interrupted, "x", DiskState::Untouched),
        }).unwrap();
        admin.json::<Value>("POST", &format!("/api/machines/{pc}/clear"), &()).unwrap();

        // Without the hidden one 1 means 5; what the operator says counts more.
        let visible = json!({ "keep": [{ "number": 1, "start_bytes": 7 }], "number_visible": true });
        let shown = order(&admin, pc, restore(visible));
        let kept = json!({ "number": 1, "start_bytes": 7, "type": "0x83" });
        assert_eq!(shown["scope"]["keep"][0], kept);
    })
    .await;
}
