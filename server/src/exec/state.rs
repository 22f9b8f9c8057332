//! The states of an execution and the decisions that depend on them.
//!
//! Owns: which state follows which, and what a check-in is answered; all of it pure, so
//! that the once-only rule can be tested without a server. Does not own: storing, clocks.

use crate::db::executions::Execution;
use serde::{Deserialize, Serialize};
use wire::{BeginWrite, Code, JobKind, JobOutcome, Step, Summary};

/// State of an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Made; the machine was not seen since.
    Waiting,
    /// The machine fetched its boot script, or asks for its job and waits in line.
    Booting,
    /// The machine has the job; nothing is transferred yet.
    Preparing,
    /// Data flows.
    Running,
    /// What was written is read back.
    Verifying,
    /// Tables are written, or the image published.
    Finishing,
    /// Done and proved.
    Done,
    /// Failed, with a report.
    Failed,
    /// An operator asked to stop; the machine was not heard since.
    Interrupting,
    /// Stopped by an operator.
    Interrupted,
}

impl State {
    /// All states.
    pub const ALL: &'static [State] = &[
        State::Waiting,
        State::Booting,
        State::Preparing,
        State::Running,
        State::Verifying,
        State::Finishing,
        State::Done,
        State::Failed,
        State::Interrupting,
        State::Interrupted,
    ];

    /// The name that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Booting => "booting",
            State::Preparing => "preparing",
            State::Running => "running",
            State::Verifying => "verifying",
            State::Finishing => "finishing",
            State::Done => "done",
            State::Failed => "failed",
            State::Interrupting => "interrupting",
            State::Interrupted => "interrupted",
        }
    }

    /// The state of this name.
    pub fn parse(text: &str) -> Option<State> {
        State::ALL
            .iter()
            .copied()
            .find(|state| state.as_str() == text)
    }

    /// Nothing changes any more.
    pub fn is_final(self) -> bool {
        matches!(self, State::Done | State::Failed | State::Interrupted)
    }

    /// A target has the job.
    pub fn is_active(self) -> bool {
        matches!(
            self,
            State::Preparing
                | State::Running
                | State::Verifying
                | State::Finishing
                | State::Interrupting
        )
    }
}

/// The state that a target's step stands for.
pub fn of_step(step: Step) -> State {
    match step {
        Step::Preparing => State::Preparing,
        Step::Running => State::Running,
        Step::Verifying => State::Verifying,
        Step::Finishing => State::Finishing,
    }
}

/// The state after progress: an interrupt stays until the target confirms it.
pub fn after_progress(state: State, step: Step) -> State {
    if state == State::Interrupting {
        state
    } else {
        of_step(step)
    }
}

/// What a check-in is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing to do: boot the local disk.
    BootLocal,
    /// Here is the job. `resume`: it had begun to write before.
    Job {
        /// See [`wire::Job::resume`].
        resume: bool,
    },
    /// All slots are taken.
    Line,
    /// The interrupt reached nobody, for the target booted anew: it is over.
    EndInterrupt,
}

/// The answer for the machine's open execution, if it has one.
///
/// `slot_free`: one of the transfer slots is this execution's, or free for it.
pub fn answer(open: Option<&Execution>, boot_id: &str, slot_free: bool) -> Answer {
    let Some(execution) = open else {
        return Answer::BootLocal;
    };
    // A stored final state is never left again, whatever the target remembers.
    if execution.state.is_final() {
        return Answer::BootLocal;
    }
    if execution.state == State::Interrupting && execution.boot_id.as_deref() != Some(boot_id) {
        return Answer::EndInterrupt;
    }
    // What has begun to write goes on only by way of the target's look at the disk.
    let resume = execution.begin_write.is_some();
    if execution.state.is_active() || slot_free || !needs_slot(&execution.job) {
        Answer::Job { resume }
    } else {
        Answer::Line
    }
}

/// Whether a job transfers enough to need one of the slots. Members of a multicast session
/// wait for each other, and none of them for a slot.
pub fn needs_slot(job: &JobKind) -> bool {
    match job {
        JobKind::Restore {
            multicast: Some(_), ..
        } => false,
        JobKind::Backup { .. } | JobKind::Restore { .. } => true,
        JobKind::Wipe(_) | JobKind::Script { .. } | JobKind::DiskCheck => false,
    }
}

/// Whether a job writes to disks of the machine.
pub fn writes(job: &JobKind) -> bool {
    match job {
        JobKind::Restore { .. } | JobKind::Wipe(_) => true,
        JobKind::Backup { .. } | JobKind::Script { .. } | JobKind::DiskCheck => false,
    }
}

/// The final state that an outcome stands for, or why it cannot be believed.
///
/// # Errors
/// "Done" without its proof: a backup without a published image, a restore that never
/// began to write, a wipe that tells of another disk or method, or not how it was proved.
pub fn final_state(
    execution: &Execution,
    outcome: &JobOutcome,
    summary: &Summary,
) -> Result<State, &'static str> {
    match outcome {
        JobOutcome::Failed { report } if report.code == Code::Interrupted => Ok(State::Interrupted),
        JobOutcome::Failed { .. } => Ok(State::Failed),
        JobOutcome::Done { .. } => match &execution.job {
            JobKind::Backup { .. } if execution.image.is_none() => {
                Err("the backup published no image")
            }
            JobKind::Restore { .. } if execution.begin_write.is_none() => {
                Err("the restore never began to write")
            }
            JobKind::Restore { set, .. }
                if execution
                    .begin_write
                    .iter()
                    .flat_map(BeginWrite::all)
                    .count()
                    < set.len() =>
            {
                Err("the restore did not begin to write to all of its disks")
            }
            JobKind::Wipe(order) => match (&execution.begin_write, &summary.wipe) {
                (None, _) => Err("the wipe never began to write"),
                (_, None) => Err("the wipe does not tell what it did"),
                (Some(begun), Some(wiped)) => wiped
                    .contradiction(order, &begun.disk)
                    .map_or(Ok(State::Done), Err),
            },
            _ => Ok(State::Done),
        },
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use wire::{After, DiskInfo, DiskState, Report};

    pub(crate) fn execution(job: JobKind, state: State) -> Execution {
        Execution {
            id: "e".into(),
            machine: "m".into(),
            job,
            after: After::Reboot,
            token: "t".into(),
            series: None,
            rate: None,
            scripts: Vec::new(),
            state,
            open: true,
            created: 0,
            changed: 0,
            started: None,
            ended: None,
            boot_id: Some("boot-1".into()),
            image: None,
            begin_write: None,
            outcome: None,
            summary: None,
        }
    }

    pub(crate) fn restore() -> JobKind {
        JobKind::Restore {
            disk: None,
            image: "i".into(),
            image_name: "n".into(),
            root: "r".into(),
            verify: true,
            force: false,
            scope: wire::RestoreScope::default(),
            reuse: false,
            set: Vec::new(),
            multicast: None,
        }
    }

    pub(crate) fn backup() -> JobKind {
        JobKind::Backup {
            disk: None,
            image: "n".into(),
            full: false,
            codec: wire::Codec::default(),
            level: 1,
            partitions: Vec::new(),
            full_partitions: Vec::new(),
            skip_bad: false,
            disks: Vec::new(),
        }
    }

    #[test]
    fn names_round_trip() {
        for state in State::ALL {
            assert_eq!(State::parse(state.as_str()), Some(*state));
            assert_eq!(
                serde_json::to_string(state).unwrap(),
                format!("\"{}\"", state.as_str())
            );
        }
    }

    #[test]
    fn nothing_assigned_boots_the_local_disk() {
        assert_eq!(answer(None, "boot-1", true), Answer::BootLocal);
    }

    #[test]
    fn a_final_state_is_never_left_even_if_the_done_message_was_lost() {
        for state in [State::Done, State::Failed, State::Interrupted] {
            let mut e = execution(restore(), state);
            e.begin_write = Some(DiskInfo::default().into());
            assert_eq!(answer(Some(&e), "boot-1", true), Answer::BootLocal);
            assert_eq!(answer(Some(&e), "boot-2", true), Answer::BootLocal);
        }
    }

    #[test]
    fn a_restore_that_wrote_is_only_given_out_again_as_resume() {
        for state in [
            State::Booting,
            State::Preparing,
            State::Running,
            State::Verifying,
            State::Finishing,
        ] {
            let mut e = execution(restore(), state);
            assert_eq!(
                answer(Some(&e), "boot-2", true),
                Answer::Job { resume: false }
            );
            e.begin_write = Some(DiskInfo::default().into());
            for boot in ["boot-1", "boot-2"] {
                assert_eq!(answer(Some(&e), boot, true), Answer::Job { resume: true });
            }
        }
    }

    #[test]
    fn a_backup_starts_over_after_a_reboot() {
        let e = execution(backup(), State::Running);
        assert_eq!(
            answer(Some(&e), "boot-2", false),
            Answer::Job { resume: false }
        );
    }

    #[test]
    fn without_a_slot_transfers_wait_in_line_and_disk_checks_do_not() {
        assert_eq!(
            answer(Some(&execution(backup(), State::Booting)), "b", false),
            Answer::Line
        );
        assert_eq!(
            answer(Some(&execution(restore(), State::Waiting)), "b", false),
            Answer::Line
        );
        let check = execution(JobKind::DiskCheck, State::Booting);
        assert_eq!(
            answer(Some(&check), "b", false),
            Answer::Job { resume: false }
        );
    }

    #[test]
    fn a_reboot_ends_an_interrupt_and_the_same_boot_hears_of_it() {
        let e = execution(backup(), State::Interrupting);
        assert_eq!(answer(Some(&e), "boot-2", true), Answer::EndInterrupt);
        assert_eq!(
            answer(Some(&e), "boot-1", true),
            Answer::Job { resume: false }
        );
    }

    #[test]
    fn done_needs_its_proof() {
        let done = JobOutcome::Done { warnings: vec![] };
        let mut e = execution(backup(), State::Finishing);
        assert!(final_state(&e, &done, &Summary::default()).is_err());
        e.image = Some("i".into());
        assert_eq!(final_state(&e, &done, &Summary::default()), Ok(State::Done));
        let mut e = execution(restore(), State::Finishing);
        assert!(final_state(&e, &done, &Summary::default()).is_err());
        e.begin_write = Some(DiskInfo::default().into());
        assert_eq!(final_state(&e, &done, &Summary::default()), Ok(State::Done));
    }

    #[test]
    fn a_wipe_is_done_only_if_it_tells_what_was_done_to_the_disk_that_was_begun() {
        let done = JobOutcome::Done { warnings: vec![] };
        let disk = |serial: &str| DiskInfo {
            serial: serial.into(),
            size_bytes: 1 << 20,
            ..DiskInfo::default()
        };
        let told = |serial: &str| Summary {
            wipe: Some(Box::new(wire::Wiped {
                disk: disk(serial),
                ordered: wire::WipeMethod::Auto,
                method: wire::WipeMethod::Overwrite,
                action: "zeros".into(),
                passes: 1,
                bytes: 1 << 20,
                read_back_bytes: 1 << 20,
                proof: wire::WipeProof::Zeros,
                before: Vec::new(),
                seconds: 1.0,
            })),
            ..Summary::default()
        };
        let mut e = execution(JobKind::Wipe(Default::default()), State::Verifying);
        assert!(final_state(&e, &done, &told("S1")).is_err(), "not begun");
        e.begin_write = Some(disk("S1").into());
        assert_eq!(final_state(&e, &done, &told("S1")), Ok(State::Done));
        assert!(final_state(&e, &done, &told("S2")).is_err());
        assert!(final_state(&e, &done, &Summary::default()).is_err());
    }

    #[test]
    fn failures_keep_their_kind() {
        let failed = |code| JobOutcome::Failed {
            report: Report::new(code, "x", DiskState::Untouched),
        };
        let e = execution(restore(), State::Running);
        assert_eq!(
            final_state(&e, &failed(Code::TargetSilent), &Summary::default()),
            Ok(State::Failed)
        );
        assert_eq!(
            final_state(&e, &failed(Code::Interrupted), &Summary::default()),
            Ok(State::Interrupted)
        );
    }

    #[test]
    fn progress_does_not_hide_an_interrupt() {
        assert_eq!(
            after_progress(State::Interrupting, Step::Running),
            State::Interrupting
        );
        assert_eq!(
            after_progress(State::Preparing, Step::Running),
            State::Running
        );
    }
}
