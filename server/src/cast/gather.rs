//! When a session starts.
//!
//! Owns: who is ready, how many are waited for and how long, who has joined since. Does not
//! own: the session, clocks; all of it can be tested without either.

use std::collections::BTreeMap;
use std::time::Duration;
use wire::SessionReply;

/// A target asks every second; without asking for so long it is not ready any more.
const PRESENCE: Duration = Duration::from_secs(10);
/// From the start to joining tables are erased, disks discarded, or hashed. A target that is
/// not heard of for so long meanwhile is not waited for,
const HEARD_WITHIN: Duration = Duration::from_secs(30);
/// nor one that takes longer than this.
const TO_JOIN: Duration = Duration::from_secs(1800);

/// The targets of a session, before they take part. `now` is the time since some fixed
/// moment.
#[derive(Debug)]
pub(super) struct Gathering {
    targets: Option<u32>,
    longest_wait: Option<Duration>,
    entries: BTreeMap<String, Entry>,
    first: Option<Duration>,
    start_now: bool,
    started: Option<Duration>,
    /// Those that have not joined are not waited for.
    hurried: bool,
}

#[derive(Debug)]
struct Entry {
    machine: String,
    /// When it said that it is ready, last.
    ready: Duration,
    /// When it said anything.
    contact: Duration,
    joined: bool,
}

impl Gathering {
    /// For a session that waits for so many (for all that can come if not given, and never for
    /// more), so long (for ever if not given).
    pub(super) fn new(targets: Option<u32>, longest_wait: Option<Duration>) -> Self {
        Gathering {
            targets,
            longest_wait,
            entries: BTreeMap::new(),
            first: None,
            start_now: false,
            started: None,
            hurried: false,
        }
    }

    /// A target is ready; of the session so many have not begun to write and can come, this
    /// one included.
    pub(super) fn ready(
        &mut self,
        now: Duration,
        execution: &str,
        machine: &str,
        coming: u32,
    ) -> SessionReply {
        if self.here(now) == 0 {
            // Nobody is there any more who has waited.
            self.first = Some(now);
        }
        let entry = Entry {
            machine: machine.to_owned(),
            ready: now,
            contact: now,
            joined: false,
        };
        self.entries.insert(execution.to_owned(), entry);
        let here = self.here(now);
        let targets = self.targets.unwrap_or(coming).min(coming).max(1);
        let waited = self.left(now).is_some_and(|left| left.is_zero());
        if self.started.is_none() && (self.start_now || here >= targets || waited) {
            self.started = Some(now);
            self.entries
                .retain(|_, entry| now.saturating_sub(entry.contact) <= PRESENCE);
        }
        match self.started {
            Some(_) => SessionReply::Start,
            None => SessionReply::Wait {
                ready: here,
                targets,
                seconds: self
                    .left(now)
                    .map(|left| u32::try_from(left.as_secs() + 1).unwrap_or(u32::MAX)),
            },
        }
    }

    /// Targets that are ready and have not joined.
    pub(super) fn here(&self, now: Duration) -> u32 {
        let here = self
            .entries
            .values()
            .filter(|entry| !entry.joined && now.saturating_sub(entry.contact) <= PRESENCE);
        here.count() as u32
    }

    /// Time until those that are there start, if there is a limit.
    pub(super) fn left(&self, now: Duration) -> Option<Duration> {
        let until = self.first? + self.longest_wait?;
        Some(until.saturating_sub(now))
    }

    /// A target that was told to start says anything at all.
    pub(super) fn heard(&mut self, now: Duration, execution: &str) {
        if let Some(entry) = self
            .entries
            .get_mut(execution)
            .filter(|_| self.started.is_some())
        {
            entry.contact = now;
        }
    }

    /// An operator wants it to start with those that are there; or, if it has started, to send
    /// to those that have joined. `false` if there is nobody.
    pub(super) fn start_now(&mut self, now: Duration) -> bool {
        let can = match self.started {
            None => self.here(now) > 0,
            Some(_) => self.entries.values().any(|entry| entry.joined),
        };
        self.start_now |= can;
        if self.started.is_some() && can {
            self.hurried = true;
        }
        can
    }

    /// A target takes part, or wants nothing.
    pub(super) fn joined(&mut self, execution: &str) {
        if let Some(entry) = self.entries.get_mut(execution) {
            entry.joined = true;
        }
    }

    /// A target's job is over: nobody waits for it, and it is not ready any more.
    pub(super) fn gone(&mut self, execution: &str) {
        self.joined(execution);
    }

    /// Whether it has started.
    pub(super) fn has_started(&self) -> bool {
        self.started.is_some()
    }

    /// Whether it has started, and nobody who was told so is waited for any more.
    pub(super) fn is_complete(&self, now: Duration) -> bool {
        self.started.is_some() && (self.hurried || !self.awaits_somebody(now))
    }

    /// Whether somebody was told to start and may still join.
    pub(super) fn awaits_somebody(&self, now: Duration) -> bool {
        self.entries.values().any(|entry| entry.may_join(now))
    }

    /// Whether an execution waits for the start.
    pub(super) fn waits(&self, execution: &str, now: Duration) -> bool {
        let entry = self.entries.get(execution);
        self.started.is_none()
            && entry.is_some_and(|entry| now.saturating_sub(entry.contact) <= PRESENCE)
    }

    /// Machines that are ready and have not joined, with their executions.
    pub(super) fn waiting(&self, now: Duration) -> impl Iterator<Item = (&str, &str)> {
        self.entries
            .iter()
            .filter(move |(_, entry)| {
                !entry.joined && now.saturating_sub(entry.contact) <= PRESENCE
            })
            .map(|(execution, entry)| (execution.as_str(), entry.machine.as_str()))
    }

    /// Name of an execution's machine.
    pub(super) fn machine(&self, execution: &str) -> &str {
        let entry = self.entries.get(execution);
        entry.map_or("", |entry| entry.machine.as_str())
    }
}

impl Entry {
    fn may_join(&self, now: Duration) -> bool {
        !self.joined
            && now.saturating_sub(self.contact) < HEARD_WITHIN
            && now.saturating_sub(self.ready) < TO_JOIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn wait(ready: u32, targets: u32, seconds: Option<u32>) -> SessionReply {
        SessionReply::Wait {
            ready,
            targets,
            seconds,
        }
    }

    #[test]
    fn it_starts_with_all_that_were_ordered() {
        let mut all = Gathering::new(None, None);
        assert_eq!(all.ready(at(0), "a", "A", 3), wait(1, 3, None));
        assert_eq!(all.ready(at(1), "b", "B", 3), wait(2, 3, None));
        assert_eq!(all.ready(at(1), "a", "A", 3), wait(2, 3, None));
        // The third was cancelled.
        assert_eq!(all.ready(at(2), "a", "A", 2), SessionReply::Start);
        assert_eq!(all.ready(at(2), "b", "B", 2), SessionReply::Start);
        assert!(!all.is_complete(at(3)));
        all.joined("a");
        assert!(!all.is_complete(at(4)));
        all.gone("b");
        assert!(all.is_complete(at(4)));
        // A late one.
        assert_eq!(all.ready(at(30), "c", "C", 9), SessionReply::Start);
        assert!(all.awaits_somebody(at(59)));
        assert!(!all.awaits_somebody(at(60)), "it is silent");
    }

    #[test]
    fn who_does_not_ask_any_more_is_not_counted() {
        let mut some = Gathering::new(Some(2), None);
        some.ready(at(0), "a", "A", 5);
        assert_eq!(some.ready(at(11), "b", "B", 5), wait(1, 2, None));
        assert_eq!(some.ready(at(12), "c", "C", 5), SessionReply::Start);
        assert!(!some.is_complete(at(13)));
        some.joined("b");
        some.joined("c");
        assert!(some.is_complete(at(13)), "a is not waited for");
    }

    #[test]
    fn the_longest_wait_begins_with_the_first_that_stays() {
        let mut some = Gathering::new(Some(3), Some(at(30)));
        assert_eq!(some.ready(at(0), "a", "A", 3), wait(1, 3, Some(31)));
        assert_eq!(some.ready(at(100), "b", "B", 3), wait(1, 3, Some(31)));
        for second in 101..130 {
            assert_ne!(some.ready(at(second), "b", "B", 3), SessionReply::Start);
        }
        assert_eq!(some.ready(at(130), "b", "B", 3), SessionReply::Start);
    }

    #[test]
    fn an_operator_starts_it_with_those_that_are_there() {
        let mut some = Gathering::new(Some(9), None);
        assert!(!some.start_now(at(0)), "nobody is there");
        some.ready(at(0), "a", "A", 9);
        assert!(some.start_now(at(1)));
        assert_eq!(some.ready(at(1), "a", "A", 9), SessionReply::Start);
        // It looks at its disk, and is waited for as long as it is heard of.
        assert!(!some.start_now(at(2)), "nobody has joined");
        for second in (2..1000).step_by(20) {
            some.heard(at(second), "a");
            assert!(!some.is_complete(at(second)));
        }
        some.ready(at(1000), "b", "B", 9);
        some.joined("b");
        assert!(!some.is_complete(at(1001)));
        assert!(some.start_now(at(1001)));
        assert!(some.is_complete(at(1001)) && some.awaits_somebody(at(1001)));
    }

    #[test]
    fn nobody_is_waited_for_who_cannot_come() {
        let mut some = Gathering::new(Some(9), None);
        assert_eq!(some.ready(at(0), "a", "A", 2), wait(1, 2, None));
        assert_eq!(some.ready(at(1), "b", "B", 2), SessionReply::Start);
    }

    #[test]
    fn nobody_is_waited_for_longer_than_joining_may_take() {
        let mut all = Gathering::new(None, None);
        all.ready(at(0), "a", "A", 1);
        for second in (0..1800).step_by(10) {
            all.heard(at(second), "a");
            assert!(!all.is_complete(at(second)));
        }
        all.heard(at(1800), "a");
        assert!(all.is_complete(at(1800)));
    }
}
