//! What is known of executions only while the server runs.
//!
//! Owns: last progress, last contact, and the line of those that wait for a slot. Does
//! not own: states (the database). All of it comes back by itself after a restart: a
//! target reports every second or so, and asks again while it waits.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use wire::Progress;

/// Live facts of one execution.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// Last progress.
    pub progress: Option<Progress>,
    /// Last contact of its target.
    pub contact: Option<i64>,
    /// It waits in line since.
    pub queued: Option<i64>,
}

/// Live facts of all unfinished executions.
#[derive(Default)]
pub struct LiveTable {
    entries: Mutex<HashMap<String, Live>>,
}

/// Without asking again for so many seconds, nobody keeps a place in line.
pub const LINE_PATIENCE: i64 = 60;

impl LiveTable {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Live>> {
        // The map is whole even if a holder panicked: every change is a single call.
        self.entries
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Facts of an execution.
    pub fn get(&self, execution: &str) -> Live {
        self.lock().get(execution).cloned().unwrap_or_default()
    }

    /// Notes a contact.
    pub fn contact(&self, execution: &str, now: i64) {
        self.lock().entry(execution.to_owned()).or_default().contact = Some(now);
    }

    /// Notes progress.
    pub fn progress(&self, execution: &str, progress: Progress, now: i64) {
        let mut entries = self.lock();
        let live = entries.entry(execution.to_owned()).or_default();
        live.progress = Some(progress);
        live.contact = Some(now);
        live.queued = None;
    }

    /// Puts an execution in line, or keeps its place, and returns the place from 1.
    pub fn queue(&self, execution: &str, now: i64) -> usize {
        let mut entries = self.lock();
        let live = entries.entry(execution.to_owned()).or_default();
        let lost = live
            .contact
            .is_none_or(|contact| now - contact > LINE_PATIENCE);
        let since = match live.queued {
            Some(since) if !lost => since,
            _ => now,
        };
        live.queued = Some(since);
        live.contact = Some(now);
        let before = entries.iter().filter(|(id, other)| {
            let there = other
                .contact
                .is_some_and(|contact| now - contact <= LINE_PATIENCE);
            let earlier = other
                .queued
                .is_some_and(|at| (at, id.as_str()) < (since, execution));
            there && earlier
        });
        before.count() + 1
    }

    /// The place in line, from 1, of one that waits.
    pub fn place(&self, execution: &str, now: i64) -> Option<usize> {
        let entries = self.lock();
        let since = entries.get(execution)?.queued?;
        let before = entries.iter().filter(|(id, other)| {
            other
                .contact
                .is_some_and(|contact| now - contact <= LINE_PATIENCE)
                && other
                    .queued
                    .is_some_and(|at| (at, id.as_str()) < (since, execution))
        });
        Some(before.count() + 1)
    }

    /// The execution has its slot.
    pub fn unqueue(&self, execution: &str) {
        if let Some(live) = self.lock().get_mut(execution) {
            live.queued = None;
        }
    }

    /// Forgets the progress of an earlier boot.
    pub fn restart(&self, execution: &str, now: i64) {
        let live = Live {
            contact: Some(now),
            ..Live::default()
        };
        self.lock().insert(execution.to_owned(), live);
    }

    /// Forgets an execution that has ended.
    pub fn forget(&self, execution: &str) {
        self.lock().remove(execution);
    }
}

#[cfg(test)]
mod tests {
    use super::{LINE_PATIENCE, LiveTable};

    #[test]
    fn first_come_first_served_and_the_vanished_lose_their_place() {
        let table = LiveTable::default();
        assert_eq!(table.queue("b", 100), 1);
        assert_eq!(table.queue("a", 101), 2);
        assert_eq!(table.queue("b", 105), 1);
        // b does not ask again.
        let later = 106 + LINE_PATIENCE;
        assert_eq!(table.queue("a", 120), 2);
        assert_eq!(table.queue("a", later), 1);
        assert_eq!(table.queue("b", later + 1), 2, "b comes back at the end");
        table.unqueue("a");
        assert_eq!(table.queue("b", later + 2), 1);
        table.forget("b");
        assert_eq!(table.place("b", later), None);
    }
}
