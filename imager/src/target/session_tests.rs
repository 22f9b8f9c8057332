//! A session against a server on the loopback interface that plays its part, with a
//! job that is played too.

use super::{Engine, Session};
use crate::job::JobResult;
use crate::keyring::Keyring;
use crate::progress::ProgressSink;
use crate::remote::{Options, Remote, ServerAddress};
use crate::target::console::Console;
use crate::target::journal::Journal;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use wire::{After, Code, DiskInfo, DiskState, Job, Report, Step, Summary};

/// Route (last part of the path) and body of every request, in order.
type Seen = Arc<Mutex<Vec<(String, String)>>>;

/// A server that answers `checkin` with the given replies, one after the other (the last
/// one again and again), and all else with what its route wants.
fn server(
    replies: &'static [&'static str],
    finish: &'static [&'static str],
) -> (ServerAddress, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address =
        ServerAddress::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let seen = Seen::default();
    let into = Arc::clone(&seen);
    let (checkins, finishes) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (seen, checkins, finishes) = (into.clone(), checkins.clone(), finishes.clone());
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut stream = stream;
                while let Some((route, body)) = request(&mut reader) {
                    let nth = |count: &AtomicUsize, list: &[&'static str]| {
                        list[count.fetch_add(1, Ordering::SeqCst).min(list.len() - 1)]
                    };
                    let answer = match route.as_str() {
                        "checkin" => nth(&checkins, replies),
                        "finish" => nth(&finishes, finish),
                        "progress" => r#"{"interrupt":true}"#,
                        _ => "",
                    };
                    seen.lock().unwrap().push((route, body));
                    if answer == "drop" {
                        let _ = stream.shutdown(std::net::Shutdown::Both);
                        return;
                    }
                    let (status, answer) = match answer.strip_prefix("409 ") {
                        Some(report) => ("409 Conflict", report),
                        None => ("200 OK", answer),
                    };
                    let head = format!(
                        "HTTP/1.1 {status}\r\ndeploy-protocol: 1\r\ncontent-length: {}\r\n\r\n{answer}",
                        answer.len()
                    );
                    let _ = stream.write_all(head.as_bytes());
                }
            });
        }
    });
    (address, seen)
}

fn request(reader: &mut impl BufRead) -> Option<(String, String)> {
    let mut first = String::new();
    reader.read_line(&mut first).ok().filter(|len| *len > 0)?;
    let path = first.split(' ').nth(1)?;
    let route = path.rsplit('/').next()?.to_owned();
    let mut len = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|len| *len > 0)?;
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            len = value.parse().ok()?;
        }
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body).ok()?;
    Some((route, String::from_utf8(body).ok()?))
}

const JOB: &str = r#"{"machine":"pc-7","action":{"do":"job","execution":"e-1","token":"t-1",
    "kind":{"kind":"backup","disk":null,"image":"before","full":false,"level":1},
    "resume":false,"after":"reboot"}}"#;
const LOCAL: &str = r#"{"machine":"pc-7","action":{"do":"boot-local"}}"#;
const OUTDATED: &str = r#"{"machine":"pc-7","action":{"do":"boot-local"},"notice":"too old"}"#;
const WAIT: &str = r#"{"machine":"pc-7","action":{"do":"wait","seconds":1,"reason":
    {"code":"busy","found":"5 of 5","advice":"Wait.","disk":"not-involved"}}}"#;
const REFUSED: &str = r#"{"machine":"pc-7","action":{"do":"refused","reason":
    {"code":"machine-ambiguous","found":"two","advice":"x","disk":"not-involved"}}}"#;

const GONE: &str =
    r#"409 {"code":"server-refused","found":"gone","advice":"x","disk":"not-involved"}"#;

fn one_disk() -> Result<Vec<DiskInfo>, Report> {
    Ok(vec![DiskInfo {
        path: "/dev/vda".into(),
        bus: "virtio".into(),
        ..DiskInfo::default()
    }])
}

fn no_disks() -> Result<Vec<DiskInfo>, Report> {
    Err(Report::new(
        Code::Internal,
        "/sys/block: gone",
        DiskState::Untouched,
    ))
}

fn good(
    _: &Job,
    _: &Remote,
    _: &[DiskInfo],
    _: &Keyring,
    progress: &dyn ProgressSink,
) -> Result<JobResult, Report> {
    progress.step(Step::Running, 10);
    progress.advance(10, 5);
    Ok(JobResult {
        summary: Summary {
            used_bytes: 10,
            ..Summary::default()
        },
        warnings: vec![Report::new(Code::FsDirty, "p1", DiskState::Untouched)],
    })
}

fn until_interrupted(
    _: &Job,
    _: &Remote,
    _: &[DiskInfo],
    _: &Keyring,
    progress: &dyn ProgressSink,
) -> Result<JobResult, Report> {
    progress.step(Step::Running, 10);
    while !progress.interrupted() {
        std::thread::yield_now();
    }
    Err(Report::new(
        Code::Interrupted,
        "at 3 of 10",
        DiskState::Untouched,
    ))
}

fn panicking(
    _: &Job,
    _: &Remote,
    _: &[DiskInfo],
    _: &Keyring,
    _: &dyn ProgressSink,
) -> Result<JobResult, Report> {
    panic!("index out of bounds")
}

struct Outcome {
    result: Result<After, Report>,
    seen: Vec<(String, String)>,
    log: String,
}

fn run(
    replies: &'static [&'static str],
    finish: &'static [&'static str],
    job: super::RunJob,
) -> Outcome {
    let engine = Engine {
        run: job,
        list: one_disk,
    };
    run_engine(replies, finish, engine, one_disk().unwrap())
}

fn run_engine(
    replies: &'static [&'static str],
    finish: &'static [&'static str],
    engine: Engine,
    disks: Vec<DiskInfo>,
) -> Outcome {
    let (address, seen) = server(replies, finish);
    let journal = Arc::new(Journal::default());
    let console = Console::on(Arc::clone(&journal), Vec::new());
    let remote = Remote::new(&address, None, &Options::default()).unwrap();
    let result = Session {
        console: &console,
        remote,
        engine,
        keyring: Keyring::default(),
        in_use: None,
    }
    .run(disks);
    let seen = seen.lock().unwrap().clone();
    Outcome {
        result,
        seen,
        log: journal.text(),
    }
}

impl Outcome {
    fn bodies(&self, route: &str) -> Vec<&str> {
        self.seen
            .iter()
            .filter(|(r, _)| r == route)
            .map(|(_, body)| body.as_str())
            .collect()
    }
}

#[test]
fn a_job_is_run_logged_and_finished_in_this_order() {
    let outcome = run(&[JOB], &[r#"{"after":"power-off"}"#], good);
    assert_eq!(outcome.result, Ok(After::PowerOff));
    let routes: Vec<&str> = outcome
        .seen
        .iter()
        .map(|(r, _)| r.as_str())
        .filter(|r| *r != "progress")
        .collect();
    assert_eq!(routes, ["checkin", "log", "finish"]);
    let finish = outcome.bodies("finish")[0];
    assert!(
        finish.contains(r#""result":"done""#) && finish.contains("fs-dirty"),
        "{finish}"
    );
    assert!(outcome.bodies("checkin")[0].contains("/dev/vda"));
    assert!(outcome.log.contains("] check-in "), "{}", outcome.log);
    for marker in [
        "machine pc-7",
        "job backup started",
        "waiting for the server to confirm",
        "done",
    ] {
        assert!(
            outcome.log.contains(&format!("] {marker}\n")),
            "{marker}: {}",
            outcome.log
        );
    }
    assert!(outcome.bodies("log")[0].contains("job backup started"));
}

#[test]
fn what_people_should_know_is_said() {
    let outcome = run(&[OUTDATED], &["{}"], good);
    assert_eq!(outcome.result, Ok(After::BootLocal));
    assert!(outcome.log.contains("] note too old\n"), "{}", outcome.log);
    let checked_in = outcome.bodies("checkin")[0];
    assert!(checked_in.contains(r#""hardware":{"#), "{checked_in}");
}

#[test]
fn the_target_leaves_only_when_the_result_is_acknowledged() {
    let outcome = run(&[JOB], &["drop", "drop", r#"{"after":"reboot"}"#], good);
    assert_eq!(outcome.result, Ok(After::Reboot));
    assert_eq!(outcome.bodies("finish").len(), 3);
    assert!(outcome.log.trim_end().ends_with("] done"));
}

#[test]
fn a_result_that_the_server_does_not_take_is_no_success() {
    let outcome = run(&[JOB], &[GONE], good);
    let report = outcome.result.unwrap_err();
    assert_eq!(
        (report.code, report.disk),
        (Code::ServerRefused, DiskState::Untouched)
    );
    assert!(!outcome.log.contains("] done"));
}

#[test]
fn an_operators_interrupt_reaches_the_job_and_its_end_is_reported() {
    let outcome = run(
        &[JOB],
        &["drop", r#"{"after":"reboot"}"#],
        until_interrupted,
    );
    assert_eq!(outcome.result.as_ref().unwrap_err().code, Code::Interrupted);
    let finishes = outcome.bodies("finish");
    assert_eq!(
        finishes.len(),
        2,
        "the interrupt must not end the retries of the report"
    );
    assert!(finishes[1].contains(r#""result":"failed""#) && finishes[1].contains("at 3 of 10"));
}

#[test]
fn a_panic_in_the_job_is_reported_like_any_failure() {
    let outcome = run(&[JOB], &[r#"{"after":"reboot"}"#], panicking);
    let report = outcome.result.as_ref().unwrap_err();
    assert_eq!(
        (report.code, report.found.as_str()),
        (Code::Internal, "index out of bounds")
    );
    assert!(outcome.bodies("finish")[0].contains("index out of bounds"));
}

#[test]
fn waiting_asks_again_and_nothing_to_do_boots_the_disk() {
    let outcome = run(&[WAIT, WAIT, LOCAL], &["drop"], good);
    assert_eq!(outcome.result, Ok(After::BootLocal));
    assert_eq!(outcome.bodies("checkin").len(), 3);
    assert_eq!(outcome.log.matches("waiting busy: 5 of 5").count(), 1);
    assert!(outcome.bodies("finish").is_empty());
}

#[test]
fn a_refusal_is_shown_as_it_was_told() {
    let outcome = run(&[REFUSED], &["drop"], good);
    assert_eq!(outcome.result.unwrap_err().code, Code::MachineAmbiguous);
}

#[test]
fn a_job_that_cannot_even_look_for_its_disk_is_reported() {
    let engine = Engine {
        run: good,
        list: no_disks,
    };
    let outcome = run_engine(&[JOB], &[r#"{"after":"reboot"}"#], engine, Vec::new());
    assert_eq!(outcome.result.as_ref().unwrap_err().code, Code::Internal);
    assert!(outcome.bodies("finish")[0].contains("/sys/block: gone"));
}
