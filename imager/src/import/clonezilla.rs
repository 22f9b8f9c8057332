//! Clonezilla image folders: a disk put together of the files of one.
//!
//! Owns: which files make a disk, that none is left out, and their order. Does not own: what
//! names and texts mean (`foreign::clonezilla`), partclone images.

use super::Options;
use super::claim::Claims;
use super::partclone::Source;
use super::pieces::Pieces;
use super::scratch::{self, Scratch};
use crate::progress::ProgressSink;
use crate::report;
use foreign::Packing;
use foreign::clonezilla::{self, Content, DiskSize, Entry, Swap, Table};
use std::io::{BufRead, BufReader, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use wire::{Code, DiskState, Report, Step};

/// Small files of the folder have at most so many bytes.
const SMALL: u64 = 4 << 20;
const RESTORE: &str = "Restore the image with Clonezilla, and make a backup of the disk.";

/// A disk that was put together, and what has to be found on it.
pub struct Assembled {
    /// The disk.
    pub disk: Scratch,
    /// Where its partitions are, in bytes.
    pub partitions: Vec<Range<u64>>,
    /// What was noticed.
    pub warnings: Vec<Report>,
}

/// A part of the disk whose bytes come from a stream.
enum Piece<'a> {
    Partclone(Source<'a>),
    Raw(Packing, Box<dyn Read + 'a>),
    Swap(Vec<u8>),
}

struct Folder<'a> {
    path: &'a Path,
    claims: &'a Claims,
    names: Vec<String>,
}

fn damaged<T>(found: String) -> Result<T, Report> {
    Err(Report::new(
        Code::ImageDamaged,
        found,
        DiskState::NotInvolved,
    ))
}

fn unsupported<T>(found: String, advice: &str) -> Result<T, Report> {
    let report = Report::new(Code::ImportUnsupported, found, DiskState::NotInvolved);
    Err(report.with_advice(advice))
}

/// Puts a disk of the folder together.
///
/// # Errors
/// `import-unsupported` for what is not read, `image-damaged` for what is missing or torn.
pub fn assemble(
    path: &Path,
    options: &Options,
    claims: &Claims,
    progress: &dyn ProgressSink,
) -> Result<Assembled, Report> {
    let folder = Folder::open(path, claims)?;
    folder.refuse_what_is_not_read()?;
    let name = folder.disk_name(options.disk.as_deref())?;
    let table = folder.table(&name)?;
    let size = folder.size(&name, &table)?;
    let sector = u64::from(size.sector_size);
    let Some(bytes) = size.bytes().filter(|&n| n < i64::MAX as u64) else {
        return damaged(format!("{name} has {} sectors", size.sectors));
    };
    let mut pieces = folder.pieces(&name, &table, sector)?;
    let mut warnings = folder.unchecked_sums();
    let mut total = 0;
    for (_, place, piece) in &pieces {
        match piece {
            Piece::Partclone(source) => {
                total += source.held_bytes();
                warnings.extend(source.unchecked());
            }
            Piece::Raw(..) => total += place.end - place.start,
            Piece::Swap(_) => {}
        }
    }
    let mut disk = Scratch::create(&options.scratch, bytes)?;
    folder.put_tables(&name, &table, sector, &mut disk)?;
    progress.step(Step::Preparing, total);
    // In the order of the disk.
    pieces.sort_by_key(|(_, place, _)| place.start);
    let partitions = pieces.iter().map(|(_, place, _)| place.clone()).collect();
    for (part, place, piece) in pieces {
        let length = place.end - place.start;
        match piece {
            Piece::Partclone(source) if source.size() > length => {
                return damaged(format!(
                    "{part} has {length} bytes, its image is of {}",
                    source.size()
                ));
            }
            Piece::Partclone(source) => source.copy(&mut disk, place.start, progress)?,
            Piece::Raw(packing, input) => {
                copy_raw(&part, input, &place, &mut disk, progress)?;
                if !packing.is_checked() {
                    let found = format!("{part}: its data has no checksums");
                    let warning =
                        Report::new(Code::ImportIncomplete, found, DiskState::NotInvolved);
                    warnings.push(
                        warning
                            .with_advice("Compare the restored files with what you know of them."),
                    );
                }
            }
            Piece::Swap(header) => disk.put(place.start, &header)?,
        }
    }
    disk.settle_sector_size(Some(size.sector_size));
    Ok(Assembled {
        disk,
        partitions,
        warnings,
    })
}

/// Copies the bytes of a partition, all of them.
fn copy_raw(
    part: &str,
    mut input: Box<dyn Read + '_>,
    place: &Range<u64>,
    disk: &mut Scratch,
    progress: &dyn ProgressSink,
) -> Result<(), Report> {
    let mut piece = vec![0; 1 << 20];
    let mut at = place.start;
    loop {
        scratch::heed(progress)?;
        let count = match input.read(&mut piece) {
            Ok(count) => count,
            Err(e) if e.raw_os_error().is_some() => {
                return Err(report::foreign(&part, &e.into()));
            }
            Err(e) => return damaged(format!("{part}: its data cannot be unpacked: {e}")),
        };
        let end = at + count as u64;
        if end > place.end || count == 0 && at < place.end {
            let wanted = place.end - place.start;
            return damaged(format!(
                "{part} has {wanted} bytes, its file has not as many"
            ));
        }
        if count == 0 {
            return Ok(());
        }
        disk.put(at, &piece[..count])?;
        progress.advance(count as u64, 0);
        at = end;
    }
}

impl<'a> Folder<'a> {
    fn open(path: &'a Path, claims: &'a Claims) -> Result<Folder<'a>, Report> {
        let failed = |e: std::io::Error| report::foreign(&path.display(), &e.into());
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path).map_err(failed)? {
            // A name that is no text is none that Clonezilla gave.
            names.extend(entry.map_err(failed)?.file_name().into_string());
        }
        names.sort();
        Ok(Folder {
            path,
            claims,
            names,
        })
    }

    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|n| n == name)
    }

    fn place(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A small file; `None` if it is not there.
    fn bytes(&self, name: &str) -> Result<Option<Vec<u8>>, Report> {
        if !self.has(name) {
            return Ok(None);
        }
        let path = self.place(name);
        self.claims.watch(&path)?;
        let mut bytes = Vec::new();
        std::fs::File::open(&path)
            .and_then(|file| file.take(SMALL + 1).read_to_end(&mut bytes))
            .map_err(|e| report::foreign(&path.display(), &e.into()))?;
        if bytes.len() as u64 > SMALL {
            return damaged(format!("{} is too large", path.display()));
        }
        Ok(Some(bytes))
    }

    fn text(&self, name: &str) -> Result<Option<String>, Report> {
        let bytes = self.bytes(name)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn refuse_what_is_not_read(&self) -> Result<(), Report> {
        let here = self.path.display();
        if self.names.iter().any(|n| n.starts_with("ecryptfs")) {
            return unsupported(format!("{here} is encrypted"), RESTORE);
        }
        for list in ["lvm_vg_dev.list", "lvm_logv.list"] {
            if self.text(list)?.is_some_and(|text| !text.trim().is_empty()) {
                return unsupported(format!("{here} has LVM volumes ({list})"), RESTORE);
            }
        }
        Ok(())
    }

    /// A folder of a disk has its name in `disk`.
    fn disk_name(&self, wanted: Option<&str>) -> Result<String, Report> {
        let here = self.path.display();
        let disks = clonezilla::names(&self.text("disk")?.unwrap_or_default());
        let list = disks.join(", ");
        match (wanted, disks.as_slice()) {
            (_, []) if self.has("parts") => unsupported(
                format!("{here} is an image of partitions, not of a whole disk"),
                "Import the partclone image of a partition: put its pieces into one file.",
            ),
            (_, []) => unsupported(
                format!("{here} is no image folder of Clonezilla"),
                "Name the folder that holds the files disk and parts.",
            ),
            (None, [one]) => Ok(one.clone()),
            (None, _) => unsupported(
                format!("{here} has several disks: {list}"),
                "Choose one of them: --disk NAME.",
            ),
            (Some(name), _) if disks.iter().any(|d| d == name) => Ok(name.to_owned()),
            (Some(name), _) => unsupported(
                format!("{here} has no disk {name}, but {list}"),
                "Choose one that it has: --disk NAME.",
            ),
        }
    }

    fn table(&self, disk: &str) -> Result<Table, Report> {
        let name = format!("{disk}-pt.sf");
        let Some(text) = self.text(&name)? else {
            return damaged(format!("{name} is missing"));
        };
        match Table::parse(&text) {
            Some(table) if table.entries.iter().any(|e| e.kind == "ee") => unsupported(
                format!("{name} was written by an sfdisk that knew no GPT"),
                RESTORE,
            ),
            Some(table) if matches!(table.label.as_str(), "dos" | "gpt") => Ok(table),
            Some(table) => unsupported(
                format!("{disk} has a table of kind {:?}", table.label),
                RESTORE,
            ),
            None => damaged(format!("{name} cannot be understood")),
        }
    }

    fn size(&self, disk: &str, table: &Table) -> Result<DiskSize, Report> {
        let name = format!("{disk}-pt.parted");
        let text = self.text(&name)?.unwrap_or_default();
        let Some(size) = DiskSize::parse(&text) else {
            return damaged(format!("{name} does not say how large {disk} is"));
        };
        let end = table.entries.iter().map(Entry::end).max().unwrap_or(0);
        if end > size.sectors || !matches!(size.sector_size, 512 | 1024 | 2048 | 4096) {
            return damaged(format!(
                "{disk} has {} sectors of {} bytes, its partitions reach to {end}",
                size.sectors, size.sector_size
            ));
        }
        Ok(size)
    }

    /// What holds each partition, and where it belongs. Every partition of the table and
    /// every one that was saved is there, or this fails.
    fn pieces(
        &self,
        disk: &str,
        table: &Table,
        sector: u64,
    ) -> Result<Vec<(String, Range<u64>, Piece<'a>)>, Report> {
        let saved = clonezilla::names(&self.text("parts")?.unwrap_or_default());
        let mut all = Vec::new();
        let number = |name: &String| clonezilla::partition_number(disk, name);
        for entry in table.entries.iter().filter(|e| !e.is_extended()) {
            // Swap space has a file, but is not in the list of what was saved.
            let name = &clonezilla::partition_name(disk, entry.number);
            let place = entry
                .start
                .checked_mul(sector)
                .zip(entry.end().checked_mul(sector));
            let Some((start, end)) = place else {
                return damaged(format!("{name} begins at sector {}", entry.start));
            };
            all.push((name.clone(), start..end, self.piece(name, end - start)?));
        }
        let known = |name: &String| table.entries.iter().any(|e| number(name) == Some(e.number));
        if let Some(name) = saved.iter().find(|n| number(n).is_some() && !known(n)) {
            return damaged(format!("{name} was saved, but is not in the table"));
        }
        Ok(all)
    }

    fn piece(&self, part: &str, length: u64) -> Result<Piece<'a>, Report> {
        let parts = match clonezilla::contents(part, &self.names) {
            Ok(parts) => parts,
            Err(what) => return damaged(format!("{}: {what}", self.path.display())),
        };
        let paths: Vec<PathBuf> = parts.files.iter().map(|name| self.place(name)).collect();
        paths.iter().try_for_each(|path| self.claims.watch(path))?;
        let name = self.place(&parts.files[0]).display().to_string();
        let input = BufReader::with_capacity(1 << 20, Pieces::new(paths));
        match parts.content {
            Content::Partclone => Ok(Piece::Partclone(Source::open(name, input)?)),
            Content::Raw => self.raw(&name, input),
            Content::Swap => {
                let text = self.text(&parts.files[0])?.unwrap_or_default();
                let header = Swap::parse(&text).and_then(|swap| swap.header(length));
                match header {
                    Some(header) => Ok(Piece::Swap(header)),
                    None => damaged(format!("{name} is no swap space of {length} bytes")),
                }
            }
            Content::Other => unsupported(format!("{name} is of a kind that is not read"), RESTORE),
        }
    }

    fn raw(&self, name: &str, input: impl BufRead + 'a) -> Result<Piece<'a>, Report> {
        match foreign::unpack(input) {
            Ok((packing, input)) => Ok(Piece::Raw(packing, input)),
            Err(error) => Err(report::foreign(&name, &error)),
        }
    }

    /// Puts what is outside of partitions to its place: table, boot code, logical chain.
    fn put_tables(
        &self,
        disk: &str,
        table: &Table,
        sector: u64,
        to: &mut Scratch,
    ) -> Result<(), Report> {
        use crate::source::Disk;
        let size = to.size_bytes();
        let needed = |name: String| match self.bytes(&name)? {
            Some(bytes) if !bytes.is_empty() => Ok(bytes),
            _ => damaged(format!("{name} is missing")),
        };
        if table.label == "gpt" {
            to.put(0, &needed(format!("{disk}-gpt-1st"))?)?;
            let last = needed(format!("{disk}-gpt-2nd"))?;
            return match size.checked_sub(last.len() as u64) {
                Some(at) => to.put(at, &last),
                None => damaged(format!("{disk}-gpt-2nd is larger than the disk")),
            };
        }
        let first = needed(format!("{disk}-mbr"))?;
        if first.len() < 512 {
            return damaged(format!("{disk}-mbr is torn"));
        }
        to.put(0, &first[..512])?;
        if let Some(mut hidden) = self.bytes(&format!("{disk}-hidden-data-after-mbr"))? {
            // Only up to the first partition: what is in that is in its own files.
            let start = table
                .entries
                .iter()
                .map(|e| e.start)
                .min()
                .unwrap_or(u64::MAX);
            let room = start.saturating_mul(sector).saturating_sub(512);
            hidden.truncate(usize::try_from(room).unwrap_or(usize::MAX));
            to.put(512, &hidden)?;
        }
        let Some(chain) = table.chain() else {
            return damaged(format!(
                "{disk}-pt.sf has no room for its logical partitions"
            ));
        };
        for (at, bytes) in chain {
            to.put(at.saturating_mul(sector), &bytes)?;
        }
        Ok(())
    }

    /// Lists of checksums of the files, which are not compared here.
    fn unchecked_sums(&self) -> Vec<Report> {
        let lists: Vec<&str> = self
            .names
            .iter()
            .map(String::as_str)
            .filter(|n| n.ends_with("SUMS"))
            .collect();
        if lists.is_empty() {
            return Vec::new();
        }
        let found = format!("{}: {} not compared", self.path.display(), lists.join(", "));
        let report = Report::new(Code::ImportIncomplete, found, DiskState::NotInvolved);
        vec![report.with_advice("Compare them with their own tool, as sha256sum -c.")]
    }
}
