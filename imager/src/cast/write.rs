//! From a record's bytes to the disk, by the threads of a restore.
//!
//! Owns: the proof that a record is the chunk that the manifest names, writing it to all its
//! cells, and keeping heads until they are asked for. Does not own: where records come from.

use super::places::Cell;
use crate::report;
use crate::restore::CellWriter;
use crossbeam_channel::{Receiver, Sender};
use image::record::{Decoder, HEADER_LEN, RecordHeader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use wire::{Code, DiskState, Report};

/// Most bytes of heads that are kept in memory, compressed.
const MAX_KEPT: usize = 192 << 20;

/// A record and its cells.
pub(super) struct Work {
    pub record: u32,
    pub bytes: Vec<u8>,
    pub cells: Vec<Cell>,
}

/// What became of it.
pub(super) enum Answer {
    /// All cells but heads were written.
    Written { heads: Vec<Head> },
    /// It is not the chunk that it should be.
    Spoiled(u32),
    /// Nothing can help.
    Failed(Report),
}

/// A head that waits.
pub(super) struct Head {
    cell: Cell,
    record: Arc<Vec<u8>>,
}

/// Works until there is no more work. Every piece of work is answered, a panic's too: who gave
/// it out waits for that.
pub(super) fn write_all(writer: &CellWriter<'_>, work: &Receiver<Work>, answers: &Sender<Answer>) {
    let mut decoder = Decoder::new().opened_with(writer.key_shared());
    let mut plain = Vec::new();
    for work in work {
        let work = AssertUnwindSafe(|| one(writer, &mut decoder, work, &mut plain));
        let answer = catch_unwind(work)
            .unwrap_or_else(|_| Answer::Failed(report::thread_lost(DiskState::Incomplete)));
        if answers.send(answer).is_err() {
            return;
        }
    }
}

fn one(writer: &CellWriter<'_>, decoder: &mut Decoder, work: Work, plain: &mut Vec<u8>) -> Answer {
    let Some((header, payload)) = proved(&work, decoder, plain) else {
        return Answer::Spoiled(work.record);
    };
    debug_assert_eq!(payload, header.stored_len as usize);
    let (heads, cells): (Vec<Cell>, Vec<Cell>) = work
        .cells
        .into_iter()
        .partition(|(_, cell, _)| writer.is_head(cell));
    let mut came = work.bytes.len() as u64;
    for (_, cell, _) in &cells {
        // It came once, whatever number of cells it is for.
        if let Err(report) = writer.write(cell, plain, std::mem::take(&mut came)) {
            return Answer::Failed(report);
        }
    }
    if let Err(report) = writer.flush_in_time() {
        return Answer::Failed(report);
    }
    let record = Arc::new(work.bytes);
    let keep = |cell| Head {
        cell,
        record: Arc::clone(&record),
    };
    Answer::Written {
        heads: heads.into_iter().map(keep).collect(),
    }
}

/// The header, if the bytes are a whole record of the chunk that every cell wants; `plain`
/// is the chunk then.
fn proved(
    work: &Work,
    decoder: &mut Decoder,
    plain: &mut Vec<u8>,
) -> Option<(RecordHeader, usize)> {
    let (head, payload) = work.bytes.split_first_chunk::<HEADER_LEN>()?;
    let header = RecordHeader::decode(head, 0).ok()?;
    let named = work
        .cells
        .iter()
        .all(|(_, _, chunk)| chunk.name == header.name && chunk.plain_len == header.plain_len);
    if !named {
        return None;
    }
    decoder.decode(&header, payload, 0, plain).ok()?;
    Some((header, payload.len()))
}

/// The heads, until all else is on the disk.
#[derive(Default)]
pub(super) struct Heads {
    kept: Vec<Head>,
    bytes: usize,
}

impl Heads {
    /// Takes heads whose records were proved.
    pub(super) fn keep(&mut self, heads: Vec<Head>) -> Result<(), Report> {
        self.bytes += heads.first().map_or(0, |head| head.record.len());
        self.kept.extend(heads);
        if self.bytes > MAX_KEPT {
            let found = format!("partition heads of more than {MAX_KEPT} bytes");
            return Err(Report::new(
                Code::ImageDamaged,
                found,
                DiskState::Incomplete,
            ));
        }
        Ok(())
    }

    /// Writes them: last what a file system is known by, so that nothing looks whole before
    /// that is not.
    pub(super) fn write(&mut self, writer: &CellWriter<'_>) -> Result<(), Report> {
        let mut decoder = Decoder::new().opened_with(writer.key_shared());
        let mut plain = Vec::new();
        self.kept.sort_by_key(|head| std::cmp::Reverse(head.cell.0));
        for Head { cell, record } in self.kept.drain(..) {
            let (number, cell, chunk) = cell;
            let work = Work {
                record: number,
                bytes: record.to_vec(),
                cells: vec![(number, cell.clone(), chunk)],
            };
            if proved(&work, &mut decoder, &mut plain).is_none() {
                return Err(report::thread_lost(DiskState::Incomplete));
            }
            writer.write(&cell, &plain, record.len() as u64)?;
        }
        Ok(())
    }
}
