//! The disk that is put together of a source's pieces, in a file without a name.
//!
//! Owns: the file, and which of its bytes came from the source. It goes away with the process,
//! however that ends. Does not own: the pieces.

use crate::progress::ProgressSink;
use crate::recover::ReadAt;
use crate::report;
use crate::sectors;
use crate::source::Disk;
use diskmap::{Extent, Extents};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use wire::{Code, DiskState, Report};

/// Most runs of bytes that a source may hold of a disk (512 MiB of memory at most, while the
/// list grows): a few bytes of one can make many.
const MAX_RUNS: usize = 16 << 20;

/// A disk in the making, and then a disk to read.
pub struct Scratch {
    file: File,
    size_bytes: u64,
    sector_size: u32,
    held: Extents,
}

impl Scratch {
    /// An empty disk of `size_bytes`, in that folder.
    pub fn create(folder: &Path, size_bytes: u64) -> Result<Scratch, Report> {
        let made = tempfile::tempfile_in(folder).and_then(|file| {
            file.set_len(size_bytes)?;
            Ok(file)
        });
        Ok(Scratch {
            file: made.map_err(|e| failed(&folder.display(), &e))?,
            size_bytes,
            sector_size: 512,
            held: Extents::new(),
        })
    }

    /// Settles the sector size: the one that is known, else that of a GPT, else 512.
    pub fn settle_sector_size(&mut self, known: Option<u32>) {
        let found = known.or_else(|| sectors::of_gpt(self));
        self.sector_size = found.unwrap_or(512);
    }

    /// Takes bytes of the source, which belong at `offset`.
    pub fn put(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Report> {
        let end = offset.checked_add(bytes.len() as u64);
        if end.is_none_or(|end| end > self.size_bytes) {
            let found = format!(
                "{} bytes for byte {offset} of a disk of {} bytes",
                bytes.len(),
                self.size_bytes
            );
            return Err(Report::new(
                Code::ImageDamaged,
                found,
                DiskState::NotInvolved,
            ));
        }
        let len = bytes.len() as u64;
        let fresh = self.held.intersect(offset..offset + len).is_empty();
        self.held.push(Extent { start: offset, len });
        limit(self.held.len(), MAX_RUNS)?;
        if fresh && bytes.iter().all(|&b| b == 0) {
            return Ok(()); // the file is empty there, and takes no room
        }
        let written = self.file.write_all_at(bytes, offset);
        written.map_err(|e| failed(&"the scratch folder", &e))
    }

    /// The bytes that came from the source.
    pub fn held(&self) -> &Extents {
        &self.held
    }
}

impl ReadAt for Scratch {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }
}

impl Disk for Scratch {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
    fn sector_size(&self) -> u32 {
        self.sector_size
    }
}

/// Refuses more runs than are kept in memory.
fn limit(runs: usize, most: usize) -> Result<(), Report> {
    if runs <= most {
        return Ok(());
    }
    let found = format!("what the source holds lies in more than {most} separate places");
    Err(
        Report::new(Code::ImportUnsupported, found, DiskState::NotInvolved).with_advice(
            "Restore it with the program that made it, and make a backup of the disk.",
        ),
    )
}

fn failed(what: &dyn std::fmt::Display, error: &io::Error) -> Report {
    let mut report = report::output(error);
    report.found = format!("scratch space: {what}: {error}");
    report.with_advice(
        "Name a folder with room for all that is used in the source: --scratch FOLDER.",
    )
}

/// Ends the job if it is to stop.
pub fn heed(progress: &dyn ProgressSink) -> Result<(), Report> {
    if progress.interrupted() {
        let found = "stopped by an operator while the source was read";
        return Err(Report::new(
            Code::Interrupted,
            found,
            DiskState::NotInvolved,
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Scratch;
    use crate::recover::ReadAt;

    #[test]
    fn what_comes_later_counts_zeros_too() {
        let mut disk = Scratch::create(&std::env::temp_dir(), 4096).unwrap();
        disk.put(512, &[7; 1024]).unwrap();
        disk.put(1024, &[0; 1024]).unwrap();
        disk.put(3000, &[0; 8]).unwrap();
        let mut all = [9; 4096];
        disk.read_at(0, &mut all).unwrap();
        let sevens: Vec<usize> = (0..4096).filter(|&n| all[n] == 7).collect();
        assert_eq!(sevens, (512..1024).collect::<Vec<_>>());
        assert!(all.iter().all(|&b| matches!(b, 0 | 7)));
        assert_eq!(disk.held().total(), 1536 + 8);
        assert!(disk.put(4095, &[0; 2]).is_err());
        super::limit(disk.held().len(), 2).unwrap();
        let report = super::limit(disk.held().len(), 1).unwrap_err();
        assert!(
            report.found.contains("more than 1 separate"),
            "{}",
            report.found
        );
    }
}
