//! Between the course of receiving and the threads that write.
//!
//! Owns: what was given out, and what came back. Does not own: where records come from
//! (`course`), the writing (`write`).

use super::places::Places;
use super::write::{Answer, Heads, Work};
use crate::report;
use crossbeam_channel::{Receiver as Answers, Sender as Tasks};
use multicast::{Bits, Record};
use wire::{DiskState, Report};

/// Work that is given out, and what comes back of it.
pub(super) struct Desk {
    pub work: Tasks<Work>,
    pub answers: Answers<Answer>,
    /// Given out and not answered.
    pub out: usize,
    /// Records whose bytes were not the chunk.
    pub spoiled: Vec<u32>,
}

impl Desk {
    pub(super) fn give(&mut self, work: Work) -> Result<(), Report> {
        self.out += 1;
        self.work
            .send(work)
            .map_err(|_| report::thread_lost(DiskState::Incomplete))
    }

    /// Takes what the workers say.
    pub(super) fn look(&mut self, heads: &mut Heads) -> Result<(), Report> {
        while let Ok(answer) = self.answers.try_recv() {
            self.take(heads, answer)?;
        }
        Ok(())
    }

    fn take(&mut self, heads: &mut Heads, answer: Answer) -> Result<(), Report> {
        self.out -= 1;
        match answer {
            Answer::Written { heads: more } => heads.keep(more),
            Answer::Spoiled(record) => {
                self.spoiled.push(record);
                Ok(())
            }
            Answer::Failed(report) => Err(report),
        }
    }

    /// Waits for all that was given out.
    pub(super) fn settle(&mut self, heads: &mut Heads) -> Result<(), Report> {
        while self.out > 0 {
            let answer = self
                .answers
                .recv()
                .map_err(|_| report::thread_lost(DiskState::Incomplete))?;
            self.take(heads, answer)?;
        }
        Ok(())
    }
}

/// A record, and the cells that it is still to be written to.
pub(super) fn work(todo: &Bits, places: &mut Places, record: Record) -> Result<Work, Report> {
    let cells = places
        .of_record(record.record, |cell| todo.has(cell))
        .map_err(|e| report::image(&e, DiskState::Incomplete))?;
    Ok(Work {
        record: record.record,
        bytes: record.bytes,
        cells,
    })
}
