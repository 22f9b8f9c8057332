//! The master file table.
//!
//! Owns: finding where all of it stands. Does not own: the records in it (`record`).
//!
//! The table is a file of itself: its first record says where it is, or where the records
//! are that say so. Those stand in the table, too, each in a part that was found before.

use super::record::{Entry, Stream};
use super::runs::{MAX_RUNS, Run};
use super::{DATA, Ntfs};
use crate::files::Fail;

fn apart() -> Fail {
    Fail::damaged("the parts of its file table do not fit together")
}

impl Ntfs<'_> {
    /// Finds the table whose first record is in that cluster.
    pub(super) fn open_table(&mut self, first: u64) -> Result<(), Fail> {
        let record = self.record_size as u64;
        self.table = vec![Run {
            at: 0,
            cluster: Some(first),
            count: record.div_ceil(self.cluster),
        }];
        self.table_size = record;
        let mut own = self.base(0)?;
        let start = own
            .attributes
            .iter()
            .find(|part| part.is(DATA, &[]) && part.lowest == 0);
        let Some(Stream::Clusters {
            runs,
            size,
            initialised,
            ..
        }) = start.map(|part| &part.stream)
        else {
            return Err(Fail::damaged("its file table has no data"));
        };
        let end = *size.min(initialised);
        self.table.clear();
        self.extend_table(0, runs, end)?;
        let mut rest: Vec<Entry> = self.listed(&own)?;
        rest.retain(|entry| entry.kind == DATA && entry.name.is_empty() && entry.lowest > 0);
        rest.sort_by_key(|entry| entry.lowest);
        for entry in rest {
            let parts = self.extension(&mut own, entry.record, entry.sequence)?;
            let part = parts.iter().find(|part| entry.names(part));
            let Some(Stream::Clusters { runs, .. }) = part.map(|part| &part.stream) else {
                return Err(apart());
            };
            self.extend_table(entry.lowest, runs, end)?;
        }
        if self.table_size < end {
            return Err(apart());
        }
        Ok(())
    }

    /// Adds a part of the table, which ends at byte `end`.
    fn extend_table(&mut self, lowest: u64, runs: &[Run], end: u64) -> Result<(), Fail> {
        let behind = |runs: &[Run]| runs.last().map_or(0, |run| run.at + run.count);
        if lowest != behind(&self.table) || self.table.len() + runs.len() > MAX_RUNS {
            return Err(apart());
        }
        self.table.extend_from_slice(runs);
        let covered = behind(&self.table).saturating_mul(self.cluster);
        self.table_size = covered.min(end);
        Ok(())
    }
}
