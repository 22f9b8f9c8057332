//! A wipe is done when it is proved, and not because a target says so.
//!
//! Owns: what the server believes. Does not own: wiping (the imager), certificates of real
//! wipes (`tests/tests/wipe.rs`).

mod support;

use serde_json::{Value, json};
use server::daemon::Server;
use server::exec::certificates::CertificateView;
use server::view::{ExecutionView, MachineView};
use support::{Http, Reply, Session, Target, blocking, start};
use wire::{
    DiskInfo, Finish, FinishReply, JobKind, JobOutcome, Summary, WipeMethod, WipeProof, Wiped,
};

fn wiped(disk: DiskInfo) -> Wiped {
    Wiped {
        ordered: WipeMethod::Auto,
        method: WipeMethod::Overwrite,
        action: "zeros".into(),
        passes: 1,
        bytes: disk.size_bytes,
        read_back_bytes: disk.size_bytes,
        proof: WipeProof::Zeros,
        before: Vec::new(),
        seconds: 1.5,
        disk,
    }
}

fn done(session: &Session, wipe: Option<Wiped>) -> Reply<FinishReply> {
    let finish = Finish {
        outcome: JobOutcome::Done { warnings: vec![] },
        summary: Summary {
            wipe: wipe.map(Box::new),
            ..Summary::default()
        },
    };
    session.http.json("POST", &session.path("finish"), &finish)
}

fn admin(server: &Server) -> Http {
    Http::new(server, &server.app.admin_token)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_was_proved_of_the_disk_that_was_begun_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await;
    let admin = admin(&server);
    let pc = Target::new(&server, 1);
    blocking(move || {
        pc.check_in();
        let machines: Vec<MachineView> = admin.json("GET", "/api/machines", &()).unwrap();
        let path = format!("/api/machines/{}/executions", machines[0].id);
        let odd = json!({"job": {"kind": "wipe", "method": "discard", "passes": 2}});
        let refused: Reply<Value> = admin.json("POST", &path, &odd);
        assert_eq!(refused.unwrap_err().0, 400);
        let order = json!({"job": {"kind": "wipe"}});
        let made: ExecutionView = admin.json("POST", &path, &order).unwrap();
        assert_eq!(made.kind, "wipe");

        let session = pc.job();
        let JobKind::Wipe(order) = &session.job.kind else {
            panic!("{:?}", session.job.kind);
        };
        // The disk that the server knows, by what does not change.
        let disk = order.disk.as_ref().unwrap();
        assert_eq!(disk.serial, Some(pc.disk().serial));
        let refused = |wipe| done(&session, wipe).unwrap_err();
        let (status, report) = refused(Some(wiped(pc.disk())));
        assert_eq!(status, 409);
        assert!(report.found.contains("never began"), "{}", report.found);
        session.begin_write(pc.disk()).unwrap();
        assert_eq!(refused(None).0, 409);
        let other = DiskInfo {
            serial: "another".into(),
            ..pc.disk()
        };
        assert_eq!(refused(Some(wiped(other))).0, 409);
        let half = Wiped {
            read_back_bytes: pc.disk().size_bytes / 2,
            ..wiped(pc.disk())
        };
        assert_eq!(refused(Some(half)).0, 409);
        let none: Vec<CertificateView> = admin.json("GET", "/api/certificates", &()).unwrap();
        assert!(none.is_empty());

        // Said twice, since the first answer may be lost.
        done(&session, Some(wiped(pc.disk()))).unwrap();
        done(&session, Some(wiped(pc.disk()))).unwrap();
        let all: Vec<CertificateView> = admin.json("GET", "/api/certificates", &()).unwrap();
        assert_eq!(all.len(), 1);
        assert!(all[0].is_valid && all[0].is_ours);
        assert_eq!(all[0].says.wiped, wiped(pc.disk()));
        assert_eq!(all[0].says.execution, made.id);
        let one = format!("/api/certificates/{}", made.id);
        let one: CertificateView = admin.json("GET", &one, &()).unwrap();
        assert_eq!(one.signed, all[0].signed);
        let nobody = Http {
            token: "x".repeat(64),
            ..admin.clone()
        };
        let refused: Reply<Value> = nobody.json("GET", "/api/certificates", &());
        assert_eq!(refused.unwrap_err().0, 401);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wipe_that_began_is_given_out_again_only_as_one_that_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await;
    let admin = admin(&server);
    let mut pc = Target::new(&server, 1);
    blocking(move || {
        pc.check_in();
        let machines: Vec<MachineView> = admin.json("GET", "/api/machines", &()).unwrap();
        let path = format!("/api/machines/{}/executions", machines[0].id);
        let order = json!({"job": {"kind": "wipe"}});
        let _: ExecutionView = admin.json("POST", &path, &order).unwrap();
        assert!(!pc.job().job.resume);
        pc.boot = "boot-2".into();
        let session = pc.job();
        assert!(!session.job.resume);
        session.begin_write(pc.disk()).unwrap();
        pc.boot = "boot-3".into();
        let again = pc.job();
        assert!(again.job.resume);
        done(&again, Some(wiped(pc.disk()))).unwrap();
        pc.boot = "boot-4".into();
        assert_eq!(pc.check_in().action, wire::Action::BootLocal);
    })
    .await;
}
