//! Multicast sessions in the text of `deployctl`.
//!
//! Owns: tables and sentences about them. Does not own: the values.

use crate::cast::shown::{Ordered, ReceiverView, SessionView, Stage};
use crate::ctl::show::table;
use wire::size::{bytes, duration};

/// All sessions, each with its machines.
pub fn sessions(sessions: &[SessionView]) -> String {
    if sessions.is_empty() {
        return "There are no multicast sessions.".to_owned();
    }
    let rows: Vec<Vec<String>> = sessions.iter().map(row).collect();
    let head = [
        "SESSION", "IMAGE", "GROUP", "STAGE", "READY", "SENT", "RATE", "LOSS", "PARITY", "REPAIR",
        "PASS",
    ];
    let table = table(&head, &rows);
    let mut rows = table.lines();
    let mut lines: Vec<String> = rows.next().map(str::to_owned).into_iter().collect();
    for (row, session) in rows.zip(sessions) {
        lines.push(row.to_owned());
        lines.extend(waits(session).map(|text| format!("    {text}")));
        lines.extend(problem(session).map(|text| format!("    {text}")));
        lines.extend(receivers(&session.receivers));
    }
    lines.join("\n")
}

/// One line about a session.
pub fn line(s: &SessionView) -> String {
    let mut text = format!(
        "session {}: \"{}\" to {}: {}",
        s.id,
        s.image,
        s.group,
        stage(s.stage)
    );
    if waits_for_machines(s.stage) {
        text += &format!("  {} of {} ready", s.ready, machines_are(s.targets));
    } else {
        if s.total_bytes > 0 {
            text += &format!("  {}", sent(s));
        }
        if s.stage != Stage::Over && s.rate > 0 {
            text += &format!("  {}/s", bytes(s.rate));
        }
        text += &format!("  {}", members(&s.receivers));
        if s.packets > 0 {
            text += &format!(
                "  loss {}, parity {}, repair {}, pass {}",
                share(s.loss),
                share(s.parity),
                share(s.repair),
                s.pass
            );
        }
    }
    for more in waits(s).into_iter().chain(problem(s)) {
        text += &format!("  ({more})");
    }
    text
}

/// What was ordered, and what to do next.
pub fn ordered(o: &Ordered) -> String {
    let s = &o.session;
    let names: Vec<&str> = o.executions.iter().map(|e| e.machine.as_str()).collect();
    let mut lines = vec![
        format!(
            "session   {} of image \"{}\", group {}",
            s.id, s.image, s.group
        ),
        format!("ordered   {}", names.join(", ")),
    ];
    if waits_for_machines(s.stage) {
        lines.push(format!(
            "starts    when {} ready: boot them from the network",
            machines_are(s.targets)
        ));
        lines.push(format!(
            "          earlier, with those that are: deployctl multicast start {}",
            s.id
        ));
    } else {
        lines.push(format!(
            "stage     {}: they join it, or form the next round",
            stage(s.stage)
        ));
    }
    lines.extend(problem(s).map(|text| format!("problem   {text}")));
    lines.push("progress  deployctl multicast list".to_owned());
    lines.join("\n")
}

fn row(s: &SessionView) -> Vec<String> {
    let none = || "-".to_owned();
    let waits = waits_for_machines(s.stage);
    let figure = |value: String| if s.packets > 0 { value } else { none() };
    // A line of the table has to stay one.
    [
        s.id.clone(),
        s.image.clone(),
        s.group.clone(),
        stage(s.stage).to_owned(),
        if waits {
            format!("{}/{}", s.ready, s.targets)
        } else {
            none()
        },
        if waits { none() } else { sent(s) },
        if s.rate > 0 {
            format!("{}/s", bytes(s.rate))
        } else {
            none()
        },
        figure(share(s.loss)),
        figure(share(s.parity)),
        figure(share(s.repair)),
        figure(s.pass.to_string()),
    ]
    .map(|cell| cell.replace(['\n', '\r'], "\u{fffd}"))
    .to_vec()
}

fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Waiting => "waiting",
        Stage::Gathering => "gathering",
        Stage::Starting => "starting",
        Stage::Sending => "sending",
        Stage::Repairing => "repairing",
        Stage::Over => "over",
    }
}

fn waits_for_machines(stage: Stage) -> bool {
    matches!(stage, Stage::Waiting | Stage::Gathering)
}

/// What a session waits for, and what ends that.
fn waits(s: &SessionView) -> Option<String> {
    if !waits_for_machines(s.stage) {
        return None;
    }
    let start = format!("deployctl multicast start {}", s.id);
    Some(match (s.ready, s.starts_in) {
        (0, _) => "no machine is ready: boot them from the network".to_owned(),
        (_, Some(seconds)) => format!(
            "starts in {}, or now: {start}",
            duration(u64::from(seconds))
        ),
        (_, None) => format!("waits for ever for the others; start without them: {start}"),
    })
}

fn problem(s: &SessionView) -> Option<String> {
    let report = s.problem.as_ref()?;
    Some(format!(
        "{}: {} {}",
        report.code, report.found, report.advice
    ))
}

fn machines_are(count: u32) -> String {
    match count {
        1 => "1 machine is".to_owned(),
        count => format!("{count} machines are"),
    }
}

/// How many take part, and how many left before they had everything.
fn members(receivers: &[ReceiverView]) -> String {
    let left = receivers.iter().filter(|r| left(r)).count();
    let done = receivers.iter().filter(|r| r.state == "done").count();
    let mut text = format!("{done} of {} done", receivers.len());
    if left > 0 {
        text += &format!(", {left} left");
    }
    text
}

fn left(r: &ReceiverView) -> bool {
    r.state == "left" && r.reason.as_deref() != Some("done")
}

fn receivers(receivers: &[ReceiverView]) -> Vec<String> {
    if receivers.is_empty() {
        return Vec::new();
    }
    let rows: Vec<Vec<String>> = receivers
        .iter()
        .map(|r| {
            let none = || "-".to_owned();
            let ready = r.state == "ready";
            vec![
                r.machine.clone(),
                r.state.clone(),
                if ready { none() } else { whole(r.done) },
                if ready { none() } else { share(r.loss) },
                r.reason
                    .as_deref()
                    .map(reason)
                    .unwrap_or_default()
                    .to_owned(),
            ]
        })
        .collect();
    table(&["MACHINE", "STATE", "HAS", "LOSS", ""], &rows)
        .lines()
        .map(|line| format!("    {line}"))
        .collect()
}

/// Why a machine left.
fn reason(reason: &str) -> &str {
    match reason {
        "done" => "has everything",
        "slow" => "disk too slow: goes on by unicast",
        "lossy" => "loses too much: goes on by unicast",
        "silent" => "multicast does not reach it: goes on by unicast",
        "vanished" => "nothing is heard of it",
        "stopped" => "stopped, or failed",
        other => other,
    }
}

/// Percent of the records' bytes that were sent, never more than it is.
fn sent(s: &SessionView) -> String {
    if s.total_bytes == 0 {
        return "-".to_owned();
    }
    let percent = u128::from(s.sent_bytes) * 100 / u128::from(s.total_bytes);
    format!("{}%", percent.min(100))
}

/// A part of 1 in whole percent, never more than it is.
fn whole(part: f64) -> String {
    format!("{:.0}%", (part.clamp(0.0, 1.0) * 100.0).floor())
}

/// A part of 1 in percent.
fn share(part: f64) -> String {
    format!("{:.1}%", part.clamp(0.0, 1.0) * 100.0)
}

#[cfg(test)]
mod tests {
    use super::{line, ordered, sessions, whole};
    use crate::cast::shown::{Ordered, ReceiverView, SessionView, Stage};
    use wire::{Code, DiskState, Report};

    fn session(stage: Stage) -> SessionView {
        SessionView {
            id: "5f21".into(),
            group: "239.255.10.1:26530".into(),
            image: "office".into(),
            image_id: "aa".into(),
            stage,
            ready: 0,
            targets: 3,
            starts_in: None,
            started: None,
            rate: 0,
            loss: 0.0,
            packets: 0,
            parity: 0.0,
            repair: 0.0,
            pass: 1,
            sent_bytes: 0,
            total_bytes: 0,
            receivers: Vec::new(),
            problem: None,
        }
    }

    fn sending() -> SessionView {
        SessionView {
            started: Some(1),
            ready: 0,
            rate: 100 << 20,
            loss: 0.004,
            packets: 1000,
            parity: 0.031,
            repair: 0.0125,
            sent_bytes: 999,
            total_bytes: 1000,
            receivers: vec![
                receiver("pc-1", "done", Some("done"), 1.0),
                receiver("office 2", "receiving", None, 0.999),
                receiver("pc-3", "left", Some("slow"), 0.5),
            ],
            ..session(Stage::Sending)
        }
    }

    fn receiver(machine: &str, state: &str, reason: Option<&str>, done: f64) -> ReceiverView {
        ReceiverView {
            machine: machine.into(),
            execution: "e".into(),
            state: state.into(),
            reason: reason.map(str::to_owned),
            loss: 0.01,
            done,
        }
    }

    #[test]
    fn one_that_waits_tells_for_what_and_how_to_start_it() {
        let waiting = session(Stage::Waiting);
        assert_eq!(
            line(&waiting),
            "session 5f21: \"office\" to 239.255.10.1:26530: waiting  0 of 3 machines are ready  \
             (no machine is ready: boot them from the network)"
        );
        let for_ever = SessionView {
            ready: 2,
            receivers: vec![receiver("pc-1", "ready", None, 0.0)],
            ..session(Stage::Gathering)
        };
        let soon = SessionView {
            starts_in: Some(200),
            ..for_ever.clone()
        };
        assert_eq!(
            sessions(&[for_ever, soon]),
            "SESSION  IMAGE   GROUP               STAGE      READY  SENT  RATE  LOSS  PARITY  REPAIR  PASS\n\
             5f21     office  239.255.10.1:26530  gathering  2/3    -     -     -     -       -       -\n    \
             waits for ever for the others; start without them: deployctl multicast start 5f21\n    \
             MACHINE  STATE  HAS  LOSS\n    \
             pc-1     ready  -    -\n\
             5f21     office  239.255.10.1:26530  gathering  2/3    -     -     -     -       -       -\n    \
             starts in 3 min 20 s, or now: deployctl multicast start 5f21\n    \
             MACHINE  STATE  HAS  LOSS\n    \
             pc-1     ready  -    -"
        );
        assert_eq!(sessions(&[]), "There are no multicast sessions.");
    }

    #[test]
    fn one_that_sends_tells_how_it_goes_and_who_left() {
        let mut sending = sending();
        assert_eq!(
            line(&sending),
            "session 5f21: \"office\" to 239.255.10.1:26530: sending  99%  100 MiB/s  1 of 3 done, \
             1 left  loss 0.4%, parity 3.1%, repair 1.2%, pass 1"
        );
        sending.image = "off\nice".into();
        assert_eq!(
            sessions(&[sending]),
            "SESSION  IMAGE    GROUP               STAGE    READY  SENT  RATE       LOSS  PARITY  REPAIR  PASS\n\
             5f21     off\u{fffd}ice  239.255.10.1:26530  sending  -      99%   100 MiB/s  0.4%  3.1%    1.2%    1\n    \
             MACHINE   STATE      HAS   LOSS\n    \
             pc-1      done       100%  1.0%  has everything\n    \
             office 2  receiving  99%   1.0%\n    \
             pc-3      left       50%   1.0%  disk too slow: goes on by unicast"
        );
    }

    #[test]
    fn one_that_cannot_send_tells_why() {
        let mut report = Report::new(Code::Usage, "eth9 is not there.", DiskState::NotInvolved);
        report.advice = "Name another.".into();
        let failing = SessionView {
            problem: Some(report),
            ..session(Stage::Gathering)
        };
        assert!(line(&failing).ends_with("  (usage: eth9 is not there. Name another.)"));
        let text = sessions(std::slice::from_ref(&failing));
        assert!(
            text.ends_with("\n    usage: eth9 is not there. Name another."),
            "{text}"
        );
    }

    #[test]
    fn an_order_tells_how_to_go_on() {
        let mut order = Ordered {
            session: session(Stage::Waiting),
            executions: Vec::new(),
        };
        assert_eq!(
            ordered(&order),
            "session   5f21 of image \"office\", group 239.255.10.1:26530\n\
             ordered   \n\
             starts    when 3 machines are ready: boot them from the network\n          \
             earlier, with those that are: deployctl multicast start 5f21\n\
             progress  deployctl multicast list"
        );
        order.session.stage = Stage::Sending;
        assert!(
            ordered(&order).contains("stage     sending: they join it, or form the next round")
        );
    }

    #[test]
    fn nothing_is_rounded_up_to_all_of_it() {
        assert_eq!(whole(0.9999), "99%");
        assert_eq!(whole(1.0), "100%");
        assert_eq!(whole(-1.0), "0%");
        let mut session = sending();
        session.sent_bytes = u64::MAX;
        assert!(line(&session).contains("  100%  "));
    }
}
