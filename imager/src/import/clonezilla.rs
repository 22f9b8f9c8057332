//! Clonezilla image folders: a disk put together of the files of one.
//!
//! Owns: which files make a disk, that none is left out, and their order. Does not own: what
//! names and texts mean (`foreign::clonezilla`), partclone images.

mod stream;
mod tables;

use super::Options;
use super::claim::Claims;
use super::scratch::Scratch;
use crate::progress::ProgressSink;
use crate::report;
use foreign::clonezilla::{self, Content, DiskSize, Entry, Swap, Table};
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use stream::{Files, Look, copy_raw};
use wire::{Code, DiskState, Report, Step};

/// Small files of the folder have at most so many bytes.
const SMALL: u64 = 4 << 20;
const RESTORE: &str = "Restore the image with Clonezilla, and make a backup of the disk.";

/// A disk that was put together, and what has to be found on it.
pub struct Assembled {
    /// The disk.
    pub disk: Scratch,
    /// Its partitions: number, and place in bytes.
    pub partitions: Vec<(u32, Range<u64>)>,
    /// What was noticed.
    pub warnings: Vec<Report>,
    /// What a whole disk has and the folder has not.
    pub missing: Vec<Report>,
}

/// A partition, and what holds it.
struct Part {
    name: String,
    number: u32,
    /// In bytes of the disk.
    place: Range<u64>,
    piece: Piece,
}

/// What holds a part of the disk. Each was opened to see whether it can be read, and is opened
/// again when its turn comes: lists of blocks and decoders of a whole disk at once would take
/// as much memory as its files like.
enum Piece {
    Partclone(Files, Look),
    Raw(Files),
    /// Its header, and whether that has a UUID.
    Swap(Vec<u8>, bool),
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
    let mut warnings = folder.unchecked_sums();
    let mut parts = folder.parts(&name, &table, sector, progress)?;
    let mut missing = Vec::new();
    let mut total = 0;
    for part in &parts {
        match &part.piece {
            Piece::Partclone(_, look) => {
                total += look.held_bytes;
                warnings.extend(look.unchecked.clone());
            }
            Piece::Raw(..) => total += part.place.end - part.place.start,
            Piece::Swap(_, true) => {}
            Piece::Swap(_, false) => missing.push(no_uuid(&part.name)),
        }
    }
    let mut disk = Scratch::create(&options.scratch, bytes)?;
    missing.extend(folder.put_tables(&name, &table, sector, &mut disk)?);
    progress.step(Step::Preparing, total);
    // In the order of the disk.
    parts.sort_by_key(|part| part.place.start);
    let partitions = parts.iter().map(|p| (p.number, p.place.clone())).collect();
    for part in parts {
        let (name, place) = (part.name, part.place);
        match part.piece {
            Piece::Partclone(files, _) => {
                let source = files.partclone(place.end - place.start, progress)?;
                source.copy(&mut disk, place.start, progress)?;
            }
            Piece::Raw(files) => {
                let (packing, input) = files.raw()?;
                copy_raw(&name, input, &place, &mut disk, progress)?;
                if !packing.is_checked() {
                    let found = format!("{name}: its data has no checksums");
                    let warning =
                        Report::new(Code::ImportIncomplete, found, DiskState::NotInvolved);
                    warnings.push(
                        warning
                            .with_advice("Compare the restored files with what you know of them."),
                    );
                }
            }
            Piece::Swap(header, _) => disk.put(place.start, &header)?,
        }
    }
    disk.settle_sector_size(Some(size.sector_size));
    Ok(Assembled {
        disk,
        partitions,
        warnings,
        missing,
    })
}

/// Swap space whose UUID was not known when the folder was made.
fn no_uuid(part: &str) -> Report {
    let found = format!("swappt-{part}.info has no UUID: the swap space has none");
    let report = Report::new(Code::ImportIncomplete, found, DiskState::NotInvolved);
    report.with_advice(
        "Make the swap space again after a restore (mkswap), and look into /etc/fstab.",
    )
}

impl<'a> Folder<'a> {
    fn open(path: &'a Path, claims: &'a Claims) -> Result<Folder<'a>, Report> {
        let failed = |e: std::io::Error| match e.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {
                let found = format!("{}: {e}", path.display());
                Report::new(Code::ImageNotFound, found, DiskState::NotInvolved)
                    .with_advice("Name the folder that holds the files disk and parts.")
            }
            _ => report::foreign(&path.display(), &e.into()),
        };
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
        let bytes = self.start_of(name, SMALL + 1)?;
        if bytes.as_ref().is_some_and(|b| b.len() as u64 > SMALL) {
            return damaged(format!("{} is too large", self.place(name).display()));
        }
        Ok(bytes)
    }

    /// The start of a file, up to so many bytes; `None` if it is not there.
    fn start_of(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, Report> {
        if !self.has(name) {
            return Ok(None);
        }
        let path = self.place(name);
        self.claims.watch(&path)?;
        let mut bytes = Vec::new();
        std::fs::File::open(&path)
            .and_then(|file| file.take(limit).read_to_end(&mut bytes))
            .map_err(|e| report::foreign(&path.display(), &e.into()))?;
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
            let saved = clonezilla::names(&self.text("parts")?.unwrap_or_default());
            if saved.iter().any(|part| part == disk) {
                return unsupported(
                    format!("{disk} has no partition table, but one file system"),
                    "Import its partclone image: put its pieces into one file.",
                );
            }
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

    /// What holds each partition, and where it belongs. Every partition of the table, every
    /// one that was saved and every file of one is there, or this fails.
    fn parts(
        &self,
        disk: &str,
        table: &Table,
        sector: u64,
        progress: &dyn ProgressSink,
    ) -> Result<Vec<Part>, Report> {
        let saved = clonezilla::names(&self.text("parts")?.unwrap_or_default());
        let mut all = Vec::new();
        for entry in table.entries.iter().filter(|e| !e.is_extended()) {
            // Swap space has a file, but is not in the list of what was saved.
            let name = clonezilla::partition_name(disk, entry.number);
            let place = entry
                .start
                .checked_mul(sector)
                .zip(entry.end().checked_mul(sector));
            let Some((start, end)) = place else {
                return damaged(format!("{name} begins at sector {}", entry.start));
            };
            let piece = self.piece(&name, entry, end - start, progress)?;
            all.push(Part {
                name,
                number: entry.number,
                place: start..end,
                piece,
            });
        }
        let unknown = |name: &str| {
            let number = clonezilla::partition_number(disk, name);
            number.is_some_and(|number| table.entries.iter().all(|e| e.number != number))
        };
        if let Some(name) = saved.iter().find(|n| unknown(n)) {
            return damaged(format!("{name} was saved, but is not in the table"));
        }
        let of_unknown = |name: &&String| clonezilla::partition_of(name).is_some_and(unknown);
        match self.names.iter().find(of_unknown) {
            Some(name) => damaged(format!(
                "{disk}-pt.sf has no partition to which {name} belongs"
            )),
            None => Ok(all),
        }
    }

    fn piece(
        &self,
        part: &str,
        entry: &Entry,
        length: u64,
        progress: &dyn ProgressSink,
    ) -> Result<Piece, Report> {
        let parts = match clonezilla::contents(part, &self.names) {
            Ok(parts) => parts,
            Err(what) => return self.not_there(part, entry, &what),
        };
        let paths: Vec<PathBuf> = parts.files.iter().map(|name| self.place(name)).collect();
        paths.iter().try_for_each(|path| self.claims.watch(path))?;
        let name = self.place(&parts.files[0]).display().to_string();
        let files = Files {
            name,
            paths,
            plain: parts.plain,
        };
        let name = &files.name;
        match parts.content {
            Content::Partclone => {
                let source = files.partclone(length, progress)?;
                let look = Look {
                    held_bytes: source.held_bytes(),
                    unchecked: source.unchecked(),
                };
                drop(source);
                Ok(Piece::Partclone(files, look))
            }
            Content::Raw => files.raw().map(|_| Piece::Raw(files)),
            Content::Swap => {
                let text = self.text(&parts.files[0])?.unwrap_or_default();
                let swap = Swap::parse(&text);
                let header = swap.as_ref().and_then(|swap| swap.header(length));
                match swap.zip(header) {
                    Some((swap, header)) => Ok(Piece::Swap(header, swap.uuid.is_some())),
                    None => damaged(format!("{name} is no swap space of {length} bytes")),
                }
            }
            Content::Other => unsupported(format!("{name} is of a kind that is not read"), RESTORE),
        }
    }

    /// Why a partition is not there: some kinds have their contents elsewhere.
    fn not_there<T>(&self, part: &str, entry: &Entry, what: &str) -> Result<T, Report> {
        let found = format!("{}: {what}", self.path.display());
        let anywhere = self
            .names
            .iter()
            .any(|n| clonezilla::partition_of(n) == Some(part));
        let list = |name: &str| -> Result<bool, Report> {
            Ok(self.text(name)?.is_some_and(|text| !text.trim().is_empty()))
        };
        if !anywhere && entry.is_raid() {
            return unsupported(
                format!("{found}: it is a member of a software RAID"),
                RESTORE,
            );
        }
        if !anywhere && list("luks-dev.list")? {
            return unsupported(
                format!("{found}: the disk has encrypted partitions (LUKS)"),
                RESTORE,
            );
        }
        damaged(found)
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
