//! One session, as targets and operators meet it.
//!
//! Owns: what they may ask of it, and how it is shown. Does not own: the thread that sends
//! (`course`), when it starts (`gather`), orders.

use super::gather::Gathering;
use super::shown::{ReceiverView, SessionView, Stage};
use axum::body::Bytes;
use multicast::{Plan, Reason, SenderStatus, SessionState, Standing};
use std::sync::mpsc::Sender as Channel;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use wire::{JoinReply, Report, Session as Settings, SessionReply};

/// A session that runs, or is over.
pub struct Session {
    settings: Settings,
    image: String,
    image_name: String,
    records: u32,
    block_len: u64,
    total_len: u64,
    /// The list of records as targets get it, until it is over.
    list: Mutex<Option<Bytes>>,
    began: Instant,
    shared: Mutex<Shared>,
    commands: Mutex<Channel<Command>>,
}

/// What its thread and those who ask share.
pub(super) struct Shared {
    pub gathering: Gathering,
    /// Executions by the number of their receiver.
    pub members: Vec<String>,
    pub status: Option<SenderStatus>,
    pub sent_blocks: u32,
    pub sending_since: Option<i64>,
    /// It says that it ends: nobody is told to start any more.
    pub closing: bool,
    pub over: bool,
    pub problem: Option<Report>,
}

/// What its thread is told.
pub(super) enum Command {
    Join {
        execution: String,
        wanted: Vec<u8>,
        answer: oneshot::Sender<JoinReply>,
    },
    Gone(String),
    Stop,
}

impl Session {
    /// A session that has not begun, whose thread hears of `commands`.
    pub(super) fn new(
        settings: Settings,
        (image, image_name): (String, String),
        plan: &Plan,
        commands: Channel<Command>,
    ) -> Self {
        let longest = settings
            .longest_wait
            .map(|seconds| Duration::from_secs(seconds.into()));
        Session {
            shared: Mutex::new(Shared {
                gathering: Gathering::new(settings.targets, longest),
                members: Vec::new(),
                status: None,
                sent_blocks: 0,
                sending_since: None,
                closing: false,
                over: false,
                problem: None,
            }),
            settings,
            image,
            image_name,
            records: plan.records(),
            block_len: plan.block_len() as u64,
            total_len: plan.total_len(),
            list: Mutex::new(Some(list_of(plan))),
            began: Instant::now(),
            commands: Mutex::new(commands),
        }
    }

    pub(super) fn shared(&self) -> MutexGuard<'_, Shared> {
        // Every change is whole before anything can panic.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time that the gathering goes by.
    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Number of records.
    pub(super) fn records(&self) -> u32 {
        self.records
    }

    /// Bytes of a symbol, then the length of each record; nothing once it is over.
    pub(super) fn list(&self) -> Bytes {
        let list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.clone().unwrap_or_default()
    }

    /// Settings.
    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether nobody can take part any more.
    pub(super) fn is_over(&self) -> bool {
        self.shared().over
    }

    /// A target is ready; `coming` as in [`Gathering::ready`].
    pub(super) fn ready(&self, execution: &str, machine: &str, coming: u32) -> SessionReply {
        let now = self.now();
        let mut shared = self.shared();
        if shared.closing {
            // The next round begins when this one has said its last words.
            return SessionReply::Wait {
                ready: 1,
                targets: self.settings.targets.unwrap_or(coming).min(coming).max(1),
                seconds: None,
            };
        }
        shared.gathering.ready(now, execution, machine, coming)
    }

    /// A target says anything at all.
    pub(super) fn heard(&self, execution: &str) {
        let now = self.now();
        self.shared().gathering.heard(now, execution);
    }

    /// It is over; what only a session that runs needs is given back.
    pub(super) fn close(&self) {
        *self.list.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.shared().over = true;
    }

    /// Starts with those that are ready, or sends to those that have joined; `false` if there
    /// is nobody.
    pub(super) fn start_now(&self) -> bool {
        let now = self.now();
        self.shared().gathering.start_now(now)
    }

    /// A target joins, wanting these records.
    pub(super) async fn join(&self, execution: &str, wanted: Vec<u8>) -> JoinReply {
        let (answer, answered) = oneshot::channel();
        self.tell(Command::Join {
            execution: execution.to_owned(),
            wanted,
            answer,
        });
        answered
            .await
            .unwrap_or_else(|_| unicast("the session is over"))
    }

    /// An execution has ended.
    pub(super) fn gone(&self, execution: &str) {
        self.tell(Command::Gone(execution.to_owned()));
    }

    /// Ends it: what targets lack comes by unicast.
    pub(super) fn stop(&self) {
        self.tell(Command::Stop);
    }

    fn tell(&self, command: Command) {
        let commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        // A thread that has ended wants to know nothing.
        let _ = commands.send(command);
    }

    /// Whether an execution waits for it.
    pub(super) fn waits(&self, execution: &str) -> bool {
        let now = self.now();
        let shared = self.shared();
        !shared.over && shared.gathering.waits(execution, now)
    }

    /// How many are ready while it waits for others.
    pub(super) fn here(&self) -> Option<u32> {
        let now = self.now();
        let shared = self.shared();
        (!shared.gathering.has_started() && !shared.over).then(|| shared.gathering.here(now))
    }

    /// The session as operators see it; `coming` as in [`Session::ready`].
    pub(super) fn view(&self, coming: u32) -> SessionView {
        let now = self.now();
        let shared = self.shared();
        let status = shared.status.as_ref();
        let gathering = &shared.gathering;
        let stage = match (shared.over, status.map(|status| status.state)) {
            (true, _) => Stage::Over,
            (_, Some(SessionState::Sending)) if status.is_some_and(|s| s.pass == 1) => {
                Stage::Sending
            }
            (_, Some(SessionState::Sending | SessionState::Settling | SessionState::Ended)) => {
                Stage::Repairing
            }
            _ if gathering.has_started() => Stage::Starting,
            _ if gathering.here(now) > 0 => Stage::Gathering,
            _ => Stage::Waiting,
        };
        let share = |packets: u64, of: u64| packets as f64 / of.max(1) as f64;
        let packets = status.map_or(0, |status| status.packets);
        let ready = gathering
            .waiting(now)
            .map(|(execution, machine)| ReceiverView {
                machine: machine.to_owned(),
                execution: execution.to_owned(),
                state: "ready".to_owned(),
                reason: None,
                loss: 0.0,
                done: 0.0,
            });
        let members = status.into_iter().flat_map(|status| &status.members);
        let members = members.map(|member| {
            let execution = shared.members.get(usize::from(member.receiver));
            let execution = execution.map_or("", String::as_str);
            let (state, reason) = standing(member.standing);
            ReceiverView {
                machine: gathering.machine(execution).to_owned(),
                execution: execution.to_owned(),
                state: state.to_owned(),
                reason: reason.map(str::to_owned),
                loss: member.loss,
                done: match member.wanted {
                    0 => 0.0,
                    wanted => f64::from(member.done) / f64::from(wanted),
                },
            }
        });
        SessionView {
            id: self.settings.session.clone(),
            group: self.settings.group.clone(),
            image: self.image_name.clone(),
            image_id: self.image.clone(),
            stage,
            ready: gathering.here(now),
            targets: self.settings.targets.unwrap_or(coming).min(coming),
            starts_in: gathering
                .left(now)
                .filter(|_| matches!(stage, Stage::Gathering))
                .map(|left| u32::try_from(left.as_secs() + 1).unwrap_or(u32::MAX)),
            started: shared.sending_since,
            rate: match stage {
                Stage::Sending | Stage::Repairing => status.map_or(0, |s| s.rate as u64),
                _ => 0,
            },
            loss: status.map_or(0.0, |status| status.loss),
            packets,
            parity: share(status.map_or(0, |s| s.parity_packets), packets),
            repair: share(status.map_or(0, |s| s.repair_packets), packets),
            pass: status.map_or(1, |status| u32::from(status.pass)),
            sent_bytes: (u64::from(shared.sent_blocks) * self.block_len).min(self.total_len),
            total_bytes: self.total_len,
            receivers: members.chain(ready).collect(),
            problem: shared.problem.clone(),
        }
    }
}

fn list_of(plan: &Plan) -> Bytes {
    let lengths = (0..plan.records()).map(|record| {
        let range = plan.record_range(record);
        // At most 4 MiB and a header.
        (range.end - range.start) as u32
    });
    let symbol = std::iter::once(plan.symbol_len() as u32);
    symbol.chain(lengths).flat_map(u32::to_le_bytes).collect()
}

fn standing(standing: Standing) -> (&'static str, Option<&'static str>) {
    match standing {
        Standing::Joined => ("joined", None),
        Standing::Receiving => ("receiving", None),
        Standing::Slow => ("slow", None),
        Standing::Done | Standing::Left(Reason::Done) => ("done", None),
        Standing::Left(reason) => (
            "left",
            Some(match reason {
                Reason::Done => "done",
                Reason::Slow => "slow",
                Reason::Lossy => "lossy",
                Reason::Silent => "silent",
                Reason::Vanished => "vanished",
                Reason::Stopped => "stopped",
            }),
        ),
    }
}

/// A refusal to take part.
pub(super) fn unicast(why: &str) -> JoinReply {
    JoinReply::Unicast {
        why: why.to_owned(),
    }
}
