//! Golden screens.

use super::{COLUMNS, Frame, Inquiry, JobView, ROWS, View, asking, error, running, with_settings};
use crate::progress::Snapshot;
use crate::target::console::choice::Key;
use proptest::prelude::*;
use std::time::Duration;
use wire::{Code, DiskState, Report, Step};

fn view() -> View {
    View {
        machine: "pc-7, QEMU Standard PC (Q35 + ICH9, 2009)".into(),
        server: "https://10.0.0.1:26501".into(),
        network: "eth0, 52:54:00:aa:00:01, 10.0.0.50/24".into(),
        state: "backup".into(),
        job: Some(JobView {
            verb: "backup".into(),
            image: "pc-7 before update".into(),
            disk: "/dev/vda, 20.0 GiB, QEMU HARDDISK, serial DEPLOY1".into(),
        }),
        notice: String::new(),
        recent: vec!["check-in".into(), "job backup started".into()],
    }
}

fn snapshot() -> Snapshot {
    Snapshot {
        step: Step::Running,
        done: 1_288_490_188,
        total: 3_221_225_472,
        wire: 524_288_000,
        rate: 220_200_960,
        seconds_left: Some(9),
        elapsed: Duration::from_secs(6),
    }
}

fn text(frame: &Frame) -> String {
    assert_eq!(frame.rows.len(), ROWS);
    let rows = frame.rows.iter().map(|(_, row)| {
        assert!(
            row.len() <= COLUMNS && row.bytes().all(|b| (32..127).contains(&b)),
            "{row:?}"
        );
        row.trim_end()
    });
    let mut text = rows
        .collect::<Vec<_>>()
        .join("\n")
        .replace(wire::SOFTWARE_VERSION, "VERSION");
    text.push('\n');
    text
}

fn golden(name: &str, shown: &str, wanted: &str) {
    assert_eq!(
        shown, wanted,
        "screen {name} differs from its golden file; it is now:\n{shown}"
    );
}

#[test]
fn a_running_job() {
    golden(
        "running",
        &text(&running(&view(), Some(&snapshot()), 95)),
        include_str!("golden/running.txt"),
    );
}

#[test]
fn a_job_whose_server_is_gone() {
    let view = View {
        notice: "the server does not answer; trying again (since 20 s, up to 10 min 00 s)".into(),
        ..view()
    };
    golden(
        "server_gone",
        &text(&running(&view, Some(&snapshot()), 95)),
        include_str!("golden/server_gone.txt"),
    );
}

#[test]
fn the_start() {
    let view = View {
        state: "looking for the network".into(),
        ..View::default()
    };
    golden(
        "start",
        &text(&running(&view, None, 3)),
        include_str!("golden/start.txt"),
    );
}

#[test]
fn an_error() {
    let report = Report::new(
        Code::WriteError,
        "/dev/vda: writing 1048576 bytes at 734003200: Input/output error (os error 5)",
        DiskState::Incomplete,
    );
    golden(
        "error",
        &text(&error(&view(), &report, None, Some(55))),
        include_str!("golden/error.txt"),
    );
}

#[test]
fn an_error_with_a_choice_to_confirm() {
    let report = Report::new(
        Code::NoAddress,
        "eth0 (52:54:00:aa:00:01): no answer ".repeat(20),
        DiskState::NotInvolved,
    );
    golden(
        "confirm",
        &text(&error(&View::default(), &report, Some(Key::PowerOff), None)),
        include_str!("golden/confirm.txt"),
    );
}

fn inquiry() -> Inquiry {
    Inquiry {
        title: "RESTORE".into(),
        text: "The image of pc-7 can be restored to one of these disks:\n  \
               0  /dev/sda  20.0 GiB  QEMU HARDDISK  serial DEPLOY1\n"
            .into(),
        question: "Number of the disk that is overwritten:".into(),
    }
}

#[test]
fn a_question() {
    golden(
        "asking",
        &text(&asking(&inquiry(), "0", 0)),
        include_str!("golden/asking.txt"),
    );
}

#[test]
fn a_long_question_has_pages_that_go_round() {
    let lines: Vec<String> = (0..40).map(|n| format!("  line {n}")).collect();
    let inquiry = Inquiry {
        text: lines.join("\n") + "\n" + &"word ".repeat(40),
        ..inquiry()
    };
    let pages: Vec<String> = (0..4)
        .map(|page| text(&asking(&inquiry, "", page)))
        .collect();
    assert!(pages[0].contains("    line 0\n") && pages[0].contains("page 1 of 3"));
    assert!(pages[1].contains("line 18\n") && !pages[1].contains("line 17\n"));
    assert!(pages[2].contains("line 39\n") && pages[2].matches("word").count() == 40);
    assert_eq!(pages[3], pages[0]);
}

#[test]
fn no_server_and_what_can_be_done() {
    let report = Report::new(
        Code::ServerNotFound,
        "eth0 10.0.0.50/24: command line: not given; DHCP options: not offered; settings: no medium; \
         vendor class: not offered; DNS service: _deploy._tcp.lab.example: there is no such name (name server 10.0.0.2); \
         DNS host: http://deploy.lab.example:80: connection refused (10.0.0.9:80)",
        DiskState::NotInvolved,
    );
    let view = View::default();
    let frame = error(&view, &report, None, Some(5));
    let counting = text(&with_settings(frame.clone(), None, Some(5)));
    golden("no_server", &counting, include_str!("golden/no_server.txt"));
    let stopped = text(&with_settings(frame.clone(), None, None));
    assert!(!stopped.contains("local disk") && stopped.contains("Esc"));
    assert!(text(&with_settings(frame, Some(Key::Reboot), None)).contains("reboot: press Enter"));
}

proptest! {
    #[test]
    fn any_text_fits(
        words in proptest::collection::vec("\\PC{0,200}", 8),
        done in any::<u64>(),
        total in any::<u64>(),
    ) {
        let [machine, server, network, state, notice, log, image, disk] = words.try_into().unwrap();
        let report = Report { code: Code::Internal, found: notice.clone(), advice: log.clone(), disk: DiskState::Incomplete };
        let mut view = View {
            machine, server, network, state, notice,
            job: Some(JobView { verb: "backup".into(), image, disk }),
            recent: Vec::new(),
        };
        view.log(&log);
        text(&running(&view, Some(&Snapshot { done, total, ..snapshot() }), done));
        text(&error(&view, &report, None, Some(total)));
        let inquiry = Inquiry { title: "x".into(), text: view.notice.clone(), question: view.state.clone() };
        text(&asking(&inquiry, &view.machine, done as usize));
    }
}
