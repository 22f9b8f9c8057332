//! The file system as it is once its journal is replayed, block by block.
//!
//! Owns: which version of a block a complete replay ends with. Does not own: the walk
//! (`log`), or what the blocks mean.

use super::super::Fault;
use super::journal::{self, Journal};
use super::log::{self, Record};
use super::superblock::Superblock;
use super::verdict::State;
use crate::read::DiskRead;
use crate::view::View;
use std::collections::HashMap;

/// Most logged writes and revokes that are kept (32 bytes each).
const MAX_RECORDS: usize = 4 << 20;
/// Feature FAST_COMMIT: the journal may hold changes in a form that is not read here.
const FAST_COMMIT: u32 = 0x400;

/// What the journal of an ext3 or ext4 would write when it is replayed.
pub struct ExtJournal<'a> {
    journal: Journal<'a>,
    /// Block of the journal with the last version, and whether it is escaped, by block of
    /// the file system.
    last: HashMap<u64, (u64, bool)>,
}

impl<'a> ExtJournal<'a> {
    /// Reads the journal of the file system in `size` bytes from byte `start` of the disk.
    /// `None` if there is nothing to replay.
    ///
    /// # Errors
    /// Why what a replay would write cannot be told, as the end of a sentence.
    pub fn open(disk: &'a dyn DiskRead, start: u64, size: u64) -> Result<Option<Self>, String> {
        Self::read(&View::new(disk, start, size)).map_err(|fault| match fault {
            Fault::Read(failure) => {
                format!("byte {} cannot be read: {}", failure.offset, failure.source)
            }
            Fault::Damaged(why)
            | Fault::Dirty(why)
            | Fault::Suspended(why)
            | Fault::Unsupported(why) => why,
            Fault::Inside(_) => "there is something else inside".to_owned(),
        })
    }

    fn read(view: &View<'a>) -> Result<Option<Self>, Fault> {
        let Some(sb) = Superblock::read(view)? else {
            return Err(Fault::Unsupported("it is no ext2, ext3 or ext4".into()));
        };
        sb.check_sizes()?;
        if sb.compat & FAST_COMMIT != 0 {
            return Err(Fault::Unsupported(
                "its journal may hold fast commits, which are not read".into(),
            ));
        }
        let Some(journal) = journal::open(view, &sb, State::Replay)? else {
            return Ok(None);
        };
        let mut writes = Vec::new();
        let mut revoked: HashMap<u64, u32> = HashMap::new();
        let committed = log::walk(
            &journal.shape,
            |at| journal.block(at),
            |record| {
                if writes.len() + revoked.len() >= MAX_RECORDS {
                    return Err(Fault::Unsupported("its journal is too large".into()));
                }
                match record {
                    Record::Write(write) => writes.push(write),
                    Record::Revoke(block, by) => {
                        revoked.insert(block, by);
                    }
                }
                Ok(())
            },
        )?;
        // A list of the transaction that was never committed counts for nothing.
        if revoked.values().any(|&by| by >= committed) {
            revoked.clear();
            log::walk(
                &journal.shape,
                |at| journal.block(at),
                |record| {
                    if let Record::Revoke(block, by) = record
                        && by < committed
                    {
                        revoked.insert(block, by);
                    }
                    Ok(())
                },
            )?;
        }
        let mut last = HashMap::new();
        for write in writes.iter().filter(|write| write.transaction < committed) {
            let dropped = revoked.get(&write.target);
            if dropped.is_none_or(|&by| write.transaction > by) {
                last.insert(write.target, (write.at, write.escaped));
            }
        }
        Ok(Some(ExtJournal { journal, last }))
    }

    /// Whether a replay would write this block of the file system.
    pub fn has(&self, block: u64) -> bool {
        self.last.contains_key(&block)
    }

    /// Whether a replay would write one of these blocks of the file system.
    pub fn has_any(&self, first: u64, count: u64) -> bool {
        if count > self.last.len() as u64 {
            let end = first.saturating_add(count);
            return self.last.keys().any(|&block| (first..end).contains(&block));
        }
        (first..first.saturating_add(count)).any(|block| self.has(block))
    }

    /// What a replay would write into this block of the file system, if it would.
    ///
    /// # Errors
    /// If the journal cannot be read there.
    pub fn block(&self, block: u64) -> Option<Result<Vec<u8>, String>> {
        let &(at, escaped) = self.last.get(&block)?;
        let content = self.journal.content(at, escaped);
        Some(content.map_err(|_| format!("block {at} of its journal cannot be read")))
    }
}
