//! What stands outside of partitions in a Clonezilla folder: tables, boot code, the chain of
//! logical partitions.
//!
//! Owns: putting it to its place, never over a partition, and telling what of it is not there.
//! Does not own: what is in partitions.

use super::{Folder, damaged};
use crate::import::scratch::Scratch;
use crate::source::Disk;
use foreign::clonezilla::Table;
use wire::{Code, DiskState, Report, size};

/// A backup keeps no more of the space in front of the first partition.
const HEAD: u64 = 32 << 20;

impl Folder<'_> {
    /// Puts what is outside of partitions to its place; gives what has to be told.
    pub(super) fn put_tables(
        &self,
        disk: &str,
        table: &Table,
        sector: u64,
        to: &mut Scratch,
    ) -> Result<Vec<Report>, Report> {
        if table.label == "gpt" {
            self.put_gpt(disk, table, sector, to)?;
            return Ok(Vec::new());
        }
        let first = self.needed(&format!("{disk}-mbr"))?;
        if first.len() < 512 {
            return damaged(format!("{disk}-mbr is torn"));
        }
        to.put(0, &first[..512])?;
        let missing = self.put_boot_code(disk, table, sector, to)?;
        let Some(chain) = table.chain() else {
            return damaged(format!(
                "{disk}-pt.sf has no room for its logical partitions"
            ));
        };
        for (at, bytes) in chain {
            // A sector is written whole.
            let mut whole = vec![0; sector as usize];
            whole[..bytes.len()].copy_from_slice(&bytes);
            to.put(at.saturating_mul(sector), &whole)?;
        }
        Ok(missing.into_iter().collect())
    }

    fn needed(&self, name: &str) -> Result<Vec<u8>, Report> {
        match self.bytes(name)? {
            Some(bytes) if !bytes.is_empty() => Ok(bytes),
            _ => damaged(format!("{name} is missing")),
        }
    }

    /// Both copies of a GPT, in whole sectors; what of their files is in a partition has a
    /// file of its own.
    fn put_gpt(
        &self,
        disk: &str,
        table: &Table,
        sector: u64,
        to: &mut Scratch,
    ) -> Result<(), Report> {
        let size = to.size_bytes();
        let start = table.entries.iter().map(|e| e.start).min();
        let end = table.entries.iter().map(|e| e.end()).max().unwrap_or(0);
        let first = self.needed(&format!("{disk}-gpt-1st"))?;
        let room = start.map_or(size, |start| start.saturating_mul(sector));
        let whole = room.min(first.len() as u64) / sector * sector;
        to.put(0, &first[..whole as usize])?;
        let last = self.needed(&format!("{disk}-gpt-2nd"))?;
        let Some(at) = size.checked_sub(last.len() as u64) else {
            return damaged(format!("{disk}-gpt-2nd is larger than the disk"));
        };
        let from = at.max(end.saturating_mul(sector)).next_multiple_of(sector);
        match last.get((from - at) as usize..) {
            Some(part) => to.put(from, part),
            None => Ok(()),
        }
    }

    /// The space between the MBR and the first partition, as far as it is there.
    fn put_boot_code(
        &self,
        disk: &str,
        table: &Table,
        sector: u64,
        to: &mut Scratch,
    ) -> Result<Option<Report>, Report> {
        let name = format!("{disk}-hidden-data-after-mbr");
        let start = table.entries.iter().map(|e| e.start).min();
        let start = start.map_or(to.size_bytes(), |start| start.saturating_mul(sector));
        let room = start.saturating_sub(512).min(HEAD);
        let hidden = self.start_of(&name, room)?.unwrap_or_default();
        let whole = (512 + hidden.len() as u64) / sector * sector;
        let whole = whole.saturating_sub(512);
        to.put(512, &hidden[..whole as usize])?;
        if whole >= room || table.entries.is_empty() {
            return Ok(None);
        }
        let found = format!(
            "{name}: {} between the MBR and the first partition are not in the folder; \
             boot code that was there is missing",
            size::bytes(room - whole)
        );
        let report = Report::new(Code::ImportIncomplete, found, DiskState::NotInvolved);
        Ok(Some(report.with_advice(
            "Install the boot loader again after a restore if the machine starts by BIOS.",
        )))
    }
}
