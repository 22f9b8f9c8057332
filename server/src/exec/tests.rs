//! Tests of executions against time: limits, silence, restarts.

use super::control::{create, interrupt};
use super::state::State;
use super::{checkin, decider, run, watch};
use crate::app::{App, Limits};
use crate::db::executions::{self, Execution};
use crate::db::{self};
use crate::netboot::{BootDecision, BootSeen};
use crate::store::Store;
use crate::view::{JobRequest, NewExecution};
use std::path::Path;
use std::sync::Arc;
use wire::{
    Action, After, CheckIn, Code, DiskState, Finish, JobOutcome, NicInfo, OldTables, Progress,
    Report, Step, Summary,
};

const PC: &str = "pc-525400000001";
const MAC: &str = "52:54:00:00:00:01";

/// The server's parts with their state in `dir`.
pub(crate) async fn app(dir: &Path, started: i64) -> App {
    let db = Arc::new(db::tests::open(dir).await);
    let store = Arc::new(
        Store::open(&dir.join("images"), Arc::clone(&db))
            .await
            .unwrap(),
    );
    App {
        pin: pinned::Pin::from_bytes([0; 32]),
        db,
        store,
        live: Default::default(),
        limits: Limits::default(),
        admin_token: "t".into(),
        state_dir: dir.to_owned(),
        started,
        scrub_wanted: Default::default(),
        rates: Default::default(),
        casts: Default::default(),
        board: Default::default(),
    }
}

fn check_in(boot: &str) -> CheckIn {
    CheckIn {
        protocol: wire::PROTOCOL_VERSION,
        boot_id: boot.into(),
        firmware: "bios".into(),
        nics: vec![NicInfo {
            mac: MAC.into(),
            ..NicInfo::default()
        }],
        ..CheckIn::default()
    }
}

fn seen() -> BootSeen {
    BootSeen {
        macs: vec![MAC.into()],
        ..BootSeen::default()
    }
}

fn backup() -> NewExecution {
    let job = JobRequest::Backup {
        disk: None,
        image: "gold".into(),
        full: false,
        codec: wire::Codec::default(),
        level: 1,
        partitions: Vec::new(),
        full_partitions: Vec::new(),
        skip_bad: false,
        disks: Vec::new(),
        all_disks: false,
    };
    NewExecution {
        job,
        after: After::Reboot,
        rate: None,
        scripts: Vec::new(),
    }
}

fn progress(step: Step) -> Progress {
    Progress {
        step,
        done_bytes: 1,
        total_bytes: 2,
        rate: 1,
        seconds_left: None,
        wire_bytes: 0,
    }
}

async fn current(app: &App, id: &str) -> Execution {
    executions::by_id(&mut app.db.read().await.unwrap(), id)
        .await
        .unwrap()
        .unwrap()
}

fn code(execution: &Execution) -> Option<Code> {
    match &execution.outcome {
        Some(JobOutcome::Failed { report }) => Some(report.code),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boot_without_check_in_is_told_as_stalled() {
    let dir = tempfile::tempdir().unwrap();
    let app = app(dir.path(), 0).await;
    checkin::checkin(&app, &check_in("b0"), "", 0)
        .await
        .unwrap();
    let e = create(&app, PC, backup(), 10).await.unwrap();
    watch::round(&app, 1_000_000).await.unwrap();
    assert_eq!(
        current(&app, &e.id).await.state,
        State::Waiting,
        "a machine that is off may stay so"
    );
    let decision = decider::decide(&app, &seen(), 2_000_000).await.unwrap();
    assert!(matches!(decision, BootDecision::DeployOs { .. }));
    watch::round(&app, 2_000_900).await.unwrap();
    assert_eq!(current(&app, &e.id).await.state, State::Booting);
    watch::round(&app, 2_000_901).await.unwrap();
    let e = current(&app, &e.id).await;
    assert_eq!(
        (e.state, e.open, code(&e)),
        (State::Failed, true, Some(Code::BootStalled))
    );
    let decision = decider::decide(&app, &seen(), 2_000_950).await.unwrap();
    assert!(
        matches!(decision, BootDecision::LocalDisk { .. }),
        "{decision:?}"
    );
}

/// With its panics and restarts it fetches its script again before the limit is over, for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_starts_again_and_again_is_told_as_stalled() {
    let dir = tempfile::tempdir().unwrap();
    let app = app(dir.path(), 0).await;
    checkin::checkin(&app, &check_in("b0"), "", 0)
        .await
        .unwrap();
    let e = create(&app, PC, backup(), 10).await.unwrap();
    for at in (1000..1900).step_by(60) {
        let decision = decider::decide(&app, &seen(), at).await.unwrap();
        assert!(matches!(decision, BootDecision::DeployOs { .. }));
        watch::round(&app, at + 1).await.unwrap();
    }
    assert_eq!(current(&app, &e.id).await.state, State::Booting);
    watch::round(&app, 1901).await.unwrap();
    let e = current(&app, &e.id).await;
    assert_eq!(
        (e.state, code(&e)),
        (State::Failed, Some(Code::BootStalled))
    );
    let Some(JobOutcome::Failed { report }) = &e.outcome else {
        panic!("{e:?}")
    };
    assert!(report.found.contains("fetched 15 times"), "{report}");
    assert!(report.advice.contains("again and again"), "{report}");
}

/// A machine that waited in line, was switched off and comes back after the limit gets its time
/// to start.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_left_the_line_has_its_whole_time_again() {
    let dir = tempfile::tempdir().unwrap();
    let app = app(dir.path(), 0).await;
    checkin::checkin(&app, &check_in("b0"), "", 0)
        .await
        .unwrap();
    let e = create(&app, PC, backup(), 10).await.unwrap();
    decider::decide(&app, &seen(), 20).await.unwrap();
    checkin::checkin(&app, &check_in("b1"), "", 30)
        .await
        .unwrap();
    // What the line does to it, without five others.
    let mut waiting = current(&app, &e.id).await;
    waiting.state = State::Booting;
    let mut tx = app.db.write().await.unwrap();
    executions::update(tx.conn(), &waiting).await.unwrap();
    tx.commit().await.unwrap();
    app.live.queue(&e.id, 600);
    decider::decide(&app, &seen(), 1400).await.unwrap();
    watch::round(&app, 1490).await.unwrap();
    watch::round(&app, 2300).await.unwrap();
    assert_eq!(current(&app, &e.id).await.state, State::Booting);
    watch::round(&app, 2301).await.unwrap();
    assert_eq!(code(&current(&app, &e.id).await), Some(Code::BootStalled));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stall_is_shown_without_a_job_too_until_the_machine_checks_in() {
    let dir = tempfile::tempdir().unwrap();
    let app = app(dir.path(), 0).await;
    let stalled = async |now| {
        let mut conn = app.db.read().await.unwrap();
        let machine = super::control::machine(&mut conn, PC).await.unwrap();
        let view = crate::view::machine(&app, &mut conn, machine, now).await;
        view.unwrap().stalled.map(|report| report.code)
    };
    // Its first boot, for the inventory.
    decider::decide(&app, &seen(), 100).await.unwrap();
    assert_eq!(stalled(1000).await, None);
    assert_eq!(stalled(1001).await, Some(Code::BootStalled));
    checkin::checkin(&app, &check_in("b0"), "", 1002)
        .await
        .unwrap();
    assert_eq!(stalled(1_000_000).await, None);
    // By an operator, who has looked at it.
    create(&app, PC, backup(), 1_000_000).await.unwrap();
    decider::decide(&app, &seen(), 1_000_000).await.unwrap();
    watch::round(&app, 1_001_000).await.unwrap();
    assert_eq!(stalled(1_001_000).await, Some(Code::BootStalled));
    super::control::clear(&app, PC, 1_001_001).await.unwrap();
    assert_eq!(stalled(1_001_001).await, None);
    // It boots its own disk now, and fetches that script as often as it likes.
    decider::decide(&app, &seen(), 1_001_002).await.unwrap();
    assert_eq!(stalled(2_000_000).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_s_parts_are_kept_until_it_tells_others() {
    let dir = tempfile::tempdir().unwrap();
    let app = app(dir.path(), 0).await;
    let of = |processor: &str| wire::Hardware {
        processor: processor.into(),
        ..wire::Hardware::default()
    };
    // The third is of an older Deploy-OS.
    for (told, kept) in [(Some("A"), "A"), (Some("B"), "B"), (None, "B")] {
        let message = CheckIn {
            hardware: told.map(of),
            ..check_in("b0")
        };
        checkin::checkin(&app, &message, "", 0).await.unwrap();
        let mut conn = app.db.read().await.unwrap();
        let machine = super::control::machine(&mut conn, PC).await.unwrap();
        assert_eq!(machine.hardware, Some(of(kept)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_does_not_start_fails_and_one_that_falls_silent_waits() {
    let dir = tempfile::tempdir().unwrap();
    let app = app(dir.path(), 0).await;
    checkin::checkin(&app, &check_in("b0"), "", 0)
        .await
        .unwrap();
    let e = create(&app, PC, backup(), 10).await.unwrap();
    checkin::checkin(&app, &check_in("b1"), "", 100)
        .await
        .unwrap();
    run::progress(&app, &e.id, &e.token, progress(Step::Running), 200)
        .await
        .unwrap();
    watch::round(&app, 10_000).await.unwrap();
    let silent = current(&app, &e.id).await;
    assert_eq!(silent.state, State::Running, "it can still come back");
    assert!(watch::is_silent(&app, &silent, 321) && !watch::is_silent(&app, &silent, 320));
    let reply = checkin::checkin(&app, &check_in("b2"), "", 10_000)
        .await
        .unwrap();
    assert!(matches!(reply.action, Action::Job(_)));
    watch::round(&app, 10_901).await.unwrap();
    let e = current(&app, &e.id).await;
    assert_eq!(
        (e.state, code(&e)),
        (State::Failed, Some(Code::TransferNotStarted))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_server_is_no_silence_of_the_target() {
    let dir = tempfile::tempdir().unwrap();
    let first = app(dir.path(), 0).await;
    checkin::checkin(&first, &check_in("b0"), "", 0)
        .await
        .unwrap();
    let e = create(&first, PC, backup(), 10).await.unwrap();
    checkin::checkin(&first, &check_in("b1"), "", 100)
        .await
        .unwrap();
    first.db.close().await;
    let second = app(dir.path(), 5_000).await;
    watch::round(&second, 5_100).await.unwrap();
    let found = current(&second, &e.id).await;
    assert_eq!(found.state, State::Preparing);
    assert!(!watch::is_silent(&second, &found, 5_100));
    run::progress(&second, &e.id, &e.token, progress(Step::Running), 5_101)
        .await
        .unwrap();
    assert_eq!(current(&second, &e.id).await.state, State::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vanished_machine_cannot_block_an_interrupt() {
    let dir = tempfile::tempdir().unwrap();
    let app = app(dir.path(), 0).await;
    checkin::checkin(&app, &check_in("b0"), "", 0)
        .await
        .unwrap();
    let e = create(&app, PC, backup(), 10).await.unwrap();
    checkin::checkin(&app, &check_in("b1"), "", 100)
        .await
        .unwrap();
    assert_eq!(
        interrupt(&app, PC, 110).await.unwrap().state,
        State::Interrupting
    );
    watch::round(&app, 140).await.unwrap();
    assert_eq!(current(&app, &e.id).await.state, State::Interrupting);
    watch::round(&app, 141).await.unwrap();
    let ended = current(&app, &e.id).await;
    assert_eq!((ended.state, ended.open), (State::Interrupted, true));
    // It comes back and confirms, or is rebooted: nothing more happens.
    let report = Report::new(Code::Interrupted, "x", DiskState::NotInvolved);
    let finish = Finish {
        outcome: JobOutcome::Failed { report },
        summary: Summary::default(),
    };
    run::finish(&app, &e.id, &e.token, finish, 150)
        .await
        .unwrap();
    let done = Finish {
        outcome: JobOutcome::Done { warnings: vec![] },
        summary: Summary::default(),
    };
    assert!(run::finish(&app, &e.id, &e.token, done, 150).await.is_err());
    let reply = checkin::checkin(&app, &check_in("b2"), "", 160)
        .await
        .unwrap();
    assert_eq!(reply.action, Action::BootLocal);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reboot_ends_an_interrupt_at_the_boot_script_already() {
    let dir = tempfile::tempdir().unwrap();
    let app = app(dir.path(), 0).await;
    checkin::checkin(&app, &check_in("b0"), "", 0)
        .await
        .unwrap();
    let e = create(&app, PC, backup(), 10).await.unwrap();
    checkin::checkin(&app, &check_in("b1"), "", 100)
        .await
        .unwrap();
    interrupt(&app, PC, 110).await.unwrap();
    let decision = decider::decide(&app, &seen(), 111).await.unwrap();
    assert!(
        matches!(decision, BootDecision::LocalDisk { .. }),
        "{decision:?}"
    );
    assert_eq!(current(&app, &e.id).await.state, State::Interrupted);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_machine_takes_inventory_once_and_then_boots_its_disk() {
    let dir = tempfile::tempdir().unwrap();
    let app = app(dir.path(), 0).await;
    let inventory =
        |d: &BootDecision| matches!(d, BootDecision::DeployOs { why } if why.contains("inventory"));
    assert!(inventory(
        &decider::decide(&app, &seen(), 100).await.unwrap()
    ));
    assert!(
        inventory(&decider::decide(&app, &seen(), 200).await.unwrap()),
        "the first boot did not get through"
    );
    assert!(
        !inventory(&decider::decide(&app, &seen(), 700).await.unwrap()),
        "given up"
    );
    checkin::checkin(&app, &check_in("b0"), "", 710)
        .await
        .unwrap();
    let decision = decider::decide(&app, &seen(), 720).await.unwrap();
    assert!(
        matches!(decision, BootDecision::LocalDisk { .. }),
        "{decision:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_old_tables_are_kept_once_writing_has_begun() {
    let dir = tempfile::tempdir().unwrap();
    let app = app(dir.path(), 0).await;
    checkin::checkin(&app, &check_in("b0"), "", 0)
        .await
        .unwrap();
    let e = create(&app, PC, backup(), 10).await.unwrap();
    let mut restore = current(&app, &e.id).await;
    restore.job = super::state::tests::restore();
    let mut tx = app.db.write().await.unwrap();
    sqlx::query("UPDATE executions SET job = $1")
        .bind(serde_json::to_string(&restore.job).unwrap())
        .execute(tx.conn())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    checkin::checkin(&app, &check_in("b1"), "", 20)
        .await
        .unwrap();
    let tables = |data: &str| OldTables {
        blobs: vec![wire::TableBlob {
            offset: 0,
            data: data.into(),
        }],
        ..OldTables::default()
    };
    run::old_tables(&app, &e.id, &e.token, 0, &tables("cmVhbA=="))
        .await
        .unwrap();
    run::begin_write(&app, &e.id, &e.token, wire::DiskInfo::default().into(), 21)
        .await
        .unwrap();
    run::old_tables(&app, &e.id, &e.token, 0, &tables("AAAA"))
        .await
        .unwrap();
    let stored =
        std::fs::read_to_string(dir.path().join("tables").join(format!("{}.json", e.id))).unwrap();
    assert!(stored.contains("cmVhbA=="), "{stored}");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_of_the_last_ten_runs_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let app = app(dir.path(), 0).await;
    checkin::checkin(&app, &check_in("b0"), "", 0)
        .await
        .unwrap();
    let mut ids = Vec::new();
    for at in 0..12 {
        let new = NewExecution {
            job: JobRequest::DiskCheck,
            after: After::Reboot,
            rate: None,
            scripts: Vec::new(),
        };
        let e = create(&app, PC, new, 10 + at).await.unwrap();
        checkin::checkin(&app, &check_in(&format!("b{at}")), "", 10 + at)
            .await
            .unwrap();
        let done = Finish {
            outcome: JobOutcome::Done { warnings: vec![] },
            summary: Summary::default(),
        };
        run::finish(&app, &e.id, &e.token, done, 10 + at)
            .await
            .unwrap();
        run::log(&app, &e.id, &e.token, format!("run {at}").into_bytes())
            .await
            .unwrap();
        ids.push(e.id);
    }
    let kept: Vec<bool> = ids
        .iter()
        .map(|id| dir.path().join("logs").join(format!("{id}.log")).exists())
        .collect();
    assert_eq!(kept, [[false; 2].as_slice(), &[true; 10]].concat());
    assert_eq!(
        super::read_log(&app, &ids[11]).await.unwrap().as_deref(),
        Some("run 11")
    );
}

#[test]
fn what_a_restore_has_written_is_not_known_once_it_may_write() {
    let disk = |e: &Execution| match super::failed(e, Code::Interrupted, "x") {
        JobOutcome::Failed { report } => report.disk,
        other => panic!("{other:?}"),
    };
    let mut e = super::state::tests::execution(super::state::tests::restore(), State::Running);
    assert_eq!(disk(&e), DiskState::Untouched);
    e.begin_write = Some(wire::DiskInfo::default().into());
    assert_eq!(disk(&e), DiskState::Unknown);
}
