//! Opening a foreign image.
//!
//! Owns: which format it is, the files that belong to it, and refusing what is in use or is
//! not read. Does not own: the formats.

use super::claim::Claims;
use super::disk::ForeignDisk;
use super::scratch::Scratch;
use super::{Options, clonezilla, partclone};
use crate::progress::ProgressSink;
use crate::source::Disk;
use crate::{report, source};
use blockdev::Device;
use diskmap::{DiskMap, Extents, Region, RegionKind, TableKind};
use foreign::qcow2::{Backing, BackingName, Qcow2};
use foreign::{FileDisk, Kind};
use std::cell::RefCell;
use std::fs::File;
use std::io::{BufReader, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use wire::{Code, DiskState, Report};

/// Files behind one another, at most: no chain that anybody made by hand is longer.
const MAX_CHAIN: usize = 64;

/// Formats that can be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// The bytes of a disk
    Raw,
    /// QEMU's copy-on-write format, version 2 and 3
    Qcow2,
    /// partclone's image of one partition, also compressed with gzip or zstd
    Partclone,
    /// A folder that Clonezilla made of a whole disk
    Clonezilla,
}

impl Format {
    /// Its name, as `--format` takes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Raw => "raw",
            Format::Qcow2 => "qcow2",
            Format::Partclone => "partclone",
            Format::Clonezilla => "clonezilla",
        }
    }
}

/// A foreign image, open as a disk.
pub struct Imported {
    format: Format,
    disk: Opened,
    /// Partitions that have to be on the disk: number (none for a disk without table), and
    /// place in bytes.
    partitions: Vec<(u32, Range<u64>)>,
    /// Nobody said that it is a raw disk, and nothing speaks against it.
    guessed: bool,
    /// The files that are read.
    claims: Claims,
    /// What was noticed when it was opened.
    pub warnings: Vec<Report>,
    /// What a whole disk has and the source has not.
    pub missing: Vec<Report>,
}

enum Opened {
    Device(Device),
    Foreign(ForeignDisk),
    Scratch(Scratch),
}

impl Imported {
    /// The disk.
    pub fn disk(&self) -> &dyn Disk {
        match &self.disk {
            Opened::Device(device) => device,
            Opened::Foreign(disk) => disk,
            Opened::Scratch(disk) => disk,
        }
    }

    /// The source's format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Fails if anything of the source was found to be damaged.
    pub fn check(&self) -> Result<(), Report> {
        match &self.disk {
            Opened::Foreign(disk) => disk.failure().map_or(Ok(()), Err),
            Opened::Device(_) | Opened::Scratch(_) => Ok(()),
        }
    }

    /// Fails if a file of the source changed since it was opened: asked when all was read.
    pub fn check_unchanged(&self) -> Result<(), Report> {
        self.claims.check()
    }

    /// Fails if partitions of the source and regions of the map are not the same ones: bytes
    /// would be lost, or zeros invented.
    pub fn check_partitions(&self, map: &DiskMap) -> Result<(), Report> {
        let known = self.partitions.as_slice();
        if known.is_empty() && self.format != Format::Clonezilla {
            return Ok(());
        }
        let regions = || map.regions.iter().filter(|r| r.kind != RegionKind::Gap);
        let is = |(number, place): &(u32, Range<u64>), region: &Region| {
            let end = region.start + region.size;
            region.number == Some(*number) && (region.start..end) == *place
        };
        let lost = known.iter().find(|part| !regions().any(|r| is(part, r)));
        if let Some((_, place)) = lost
            && self.format == Format::Partclone
        {
            return refuse(
                Code::ImportUnsupported,
                format!(
                    "the file system of {} bytes begins with the partition table of a disk, perhaps an old one",
                    place.end
                ),
                "Restore it with partclone to a partition, and make a backup of that disk.",
            );
        }
        let found = match (
            lost,
            regions().find(|r| !known.iter().any(|part| is(part, r))),
        ) {
            (None, None) => return Ok(()),
            (Some((number, place)), _) => format!(
                "the partition table has no partition {number} from byte {} to {}, which the source holds",
                place.start, place.end
            ),
            (None, Some(region)) => format!(
                "the partition table has partition {} from byte {} to {}, which the source's list of partitions has not",
                region.number.unwrap_or(0),
                region.start,
                region.start + region.size
            ),
        };
        Err(Report::new(
            Code::ImageDamaged,
            found,
            DiskState::NotInvolved,
        ))
    }

    /// Fails if nothing is known of what was taken for a raw disk: it may be anything.
    pub fn check_guess(&self, map: &DiskMap, path: &Path) -> Result<(), Report> {
        let unknown =
            map.table == TableKind::None && map.regions.iter().all(|r| r.file_system.is_empty());
        match self.guessed && unknown {
            true => refuse(
                Code::ImportUnsupported,
                format!(
                    "{} has no partition table and no file system that is known",
                    path.display()
                ),
                "It may be no disk at all. If it is a raw disk all the same, an empty one for instance, add --format raw.",
            ),
            false => Ok(()),
        }
    }

    /// What of the disk is known, if that is not all of it.
    pub fn held(&self) -> Option<&Extents> {
        match &self.disk {
            Opened::Scratch(disk) => Some(disk.held()),
            Opened::Device(_) | Opened::Foreign(_) => None,
        }
    }
}

fn refuse<T>(code: Code, found: String, advice: &'static str) -> Result<T, Report> {
    Err(Report::new(code, found, DiskState::NotInvolved).with_advice(advice))
}

/// Opens an image.
///
/// # Errors
/// `image-not-found`, `image-exists`, `disk-in-use`, `import-unsupported`, `image-damaged`,
/// `read-error`.
pub fn open(
    path: &Path,
    options: &Options,
    progress: &dyn ProgressSink,
) -> Result<Imported, Report> {
    let claims = Claims::new(options.backup.in_use, &options.outputs);
    let is_folder = path.is_dir() && options.format.is_none();
    if is_folder || options.format == Some(Format::Clonezilla) {
        refuse_full(Format::Clonezilla, options)?;
        if options.sector_size.is_some() {
            return refuse(
                Code::Usage,
                "--sector-size: a Clonezilla folder says how large sectors are".to_owned(),
                "Leave the option out.",
            );
        }
        let assembled = clonezilla::assemble(path, options, &claims, progress)?;
        // What is read from here on is our own.
        claims.check()?;
        return Ok(Imported {
            format: Format::Clonezilla,
            disk: Opened::Scratch(assembled.disk),
            partitions: assembled.partitions,
            guessed: false,
            claims: Claims::default(),
            warnings: assembled.warnings,
            missing: assembled.missing,
        });
    }
    let (file, len) = open_file(path)?;
    if len == 0 {
        return refuse(
            Code::ImportUnsupported,
            format!("{} is empty", path.display()),
            "Name the image; a file without bytes is none.",
        );
    }
    claims.take(path, &file)?;
    let format = match options.format {
        Some(format) => format,
        None => format_of(path, &file, len)?,
    };
    refuse_full(format, options)?;
    if options.disk.is_some() {
        return refuse(
            Code::Usage,
            format!("--disk: a {} image holds one disk", format.as_str()),
            "Leave the option out.",
        );
    }
    let name = path.display().to_string();
    let mut warnings = Vec::new();
    let mut partitions = Vec::new();
    let disk = match format {
        Format::Raw => Opened::Device(source::open(path, options.sector_size)?),
        Format::Clonezilla => {
            return refuse(
                Code::ImportUnsupported,
                format!("{name} is no folder"),
                "Name the folder that holds the files disk and parts.",
            );
        }
        Format::Qcow2 => {
            let chain = Chain {
                options,
                claims: &claims,
                failure: RefCell::new(None),
            };
            let disk = chain.open(path, file, len, 0).map_err(|error| {
                let failure = chain.failure.take();
                failure.unwrap_or_else(|| report::foreign(&name, &error))
            })?;
            if disk.snapshots() > 0 {
                let found = format!(
                    "{name}: {} snapshots inside are left out; the disk is imported as it is now",
                    disk.snapshots()
                );
                let warning = Report::new(Code::ImagePartial, found, DiskState::NotInvolved);
                warnings.push(warning.with_advice(
                    "A snapshot is made a file of its own by qemu-img convert -l NAME.",
                ));
            }
            let size = disk.size();
            let sectors = options.sector_size;
            Opened::Foreign(ForeignDisk::new(name, Box::new(disk), size, sectors))
        }
        Format::Partclone => {
            let input = BufReader::with_capacity(1 << 20, file);
            let image = partclone::Source::open(name, input, u64::MAX, progress)?;
            warnings.extend(image.unchecked());
            let mut disk = partclone::disk(image, &options.scratch, progress)?;
            disk.settle_sector_size(options.sector_size);
            partitions.push((0, 0..disk.size_bytes()));
            Opened::Scratch(disk)
        }
    };
    // What was read to its end is our own from here on.
    let claims = match disk {
        Opened::Scratch(_) => {
            claims.check()?;
            Claims::default()
        }
        Opened::Device(_) | Opened::Foreign(_) => claims,
    };
    Ok(Imported {
        format,
        disk,
        partitions,
        guessed: options.format.is_none() && format == Format::Raw,
        claims,
        warnings,
        missing: Vec::new(),
    })
}

/// Every sector cannot be copied of what holds only some.
fn refuse_full(format: Format, options: &Options) -> Result<(), Report> {
    if !options.backup.full || matches!(format, Format::Raw | Format::Qcow2) {
        return Ok(());
    }
    let name = format.as_str();
    refuse(
        Code::Usage,
        format!("--full: a {name} image does not hold every sector"),
        "Leave the option out: all that the image holds is copied.",
    )
}

/// A file of the source, and its length in bytes.
fn open_file(path: &Path) -> Result<(File, u64), Report> {
    let fail = |e: std::io::Error| {
        let code = match e.kind() {
            std::io::ErrorKind::NotFound => Code::ImageNotFound,
            _ => Code::ReadError,
        };
        let found = format!("{}: {e}", path.display());
        Report::new(code, found, DiskState::NotInvolved)
            .with_advice("Check the name of the image and the rights on it.")
    };
    let metadata = std::fs::metadata(path).map_err(fail)?;
    if !metadata.is_file() {
        return refuse(
            Code::ImportUnsupported,
            format!("{} is no regular file", path.display()),
            "Name an image file; a disk is copied with imager backup.",
        );
    }
    let file = File::open(path).map_err(fail)?;
    let len = file.metadata().map_err(fail)?.len();
    Ok((file, len))
}

/// What the file is, by its bytes.
fn format_of(path: &Path, file: &File, len: u64) -> Result<Format, Report> {
    let mut head = vec![0; len.min(foreign::HEAD as u64) as usize];
    let mut tail = vec![0; len.min(foreign::TAIL as u64) as usize];
    let behind = len - tail.len() as u64;
    file.read_exact_at(&mut head, 0)
        .and_then(|()| file.read_exact_at(&mut tail, behind))
        .map_err(|e| report::foreign(&path.display(), &e.into()))?;
    match foreign::kind(&head, &tail) {
        Kind::Qcow2 => Ok(Format::Qcow2),
        Kind::Partclone => Ok(Format::Partclone),
        Kind::Packed(_) if is_packed_partclone(file)? => Ok(Format::Partclone),
        Kind::Packed(how) => refuse(
            Code::ImportUnsupported,
            format!(
                "{} is compressed with {how}, and no partclone image",
                path.display()
            ),
            "Unpack it, and import the result.",
        ),
        Kind::Raw => Ok(Format::Raw),
        Kind::OtherPacked(how) => refuse(
            Code::ImportUnsupported,
            format!("{} is compressed with {how}", path.display()),
            "Unpack it, and import the result.",
        ),
        Kind::Other(what @ "a Deploy-OS image") => refuse(
            Code::ImportUnsupported,
            format!("{} is {what}", path.display()),
            "There is nothing to import: restore it, or give it to the server (deployctl images import).",
        ),
        Kind::Other(what) => refuse(
            Code::ImportUnsupported,
            format!("{} is {what}", path.display()),
            "Make a raw or qcow2 file of it (qemu-img convert knows many formats). If the bytes of a disk happen to begin like that, add --format raw.",
        ),
    }
}

/// Whether a partclone image is in a compressed file. Damage is found when it is read.
fn is_packed_partclone(file: &File) -> Result<bool, Report> {
    let failed = |e: std::io::Error| report::foreign(&"the source", &e.into());
    let input = BufReader::new(file.try_clone().map_err(failed)?);
    let is = foreign::unpack(input).is_ok_and(|(_, mut unpacked)| {
        let mut head = [0; 16];
        unpacked.read_exact(&mut head).is_ok() && foreign::partclone::is_partclone(&head)
    });
    // The copy and the file have one position.
    std::io::Seek::rewind(&mut &*file).map_err(failed)?;
    Ok(is)
}

/// A qcow2 file and those behind it.
struct Chain<'a> {
    options: &'a Options,
    claims: &'a Claims,
    /// Why a file behind was not opened.
    failure: RefCell<Option<Report>>,
}

impl Chain<'_> {
    fn open(
        &self,
        path: &Path,
        file: File,
        len: u64,
        depth: usize,
    ) -> Result<Qcow2<FileDisk>, foreign::Error> {
        Qcow2::open(FileDisk::new(file), len, &mut |base| {
            self.behind(path, base, depth + 1).map_err(|report| {
                let mut failure = self.failure.borrow_mut();
                let what = report.found.clone();
                failure.get_or_insert(report);
                foreign::Error::Damaged { what }
            })
        })
    }

    /// Opens the disk behind a file.
    fn behind(&self, path: &Path, base: &BackingName, depth: usize) -> Result<Backing, Report> {
        let named = format!("{} stands on another file, {:?}", path.display(), base.name);
        if !self.options.backing {
            return refuse(
                Code::ImportUnsupported,
                named,
                "Add --backing to read that file, too, or make one file of them with qemu-img convert.",
            );
        }
        if depth > MAX_CHAIN {
            return refuse(
                Code::ImportUnsupported,
                format!("{named}, and so on, more than {MAX_CHAIN} times"),
                "Make one file of them with qemu-img convert.",
            );
        }
        // QEMU takes what stands before a colon for a protocol.
        if base
            .name
            .split('/')
            .next()
            .is_some_and(|first| first.contains(':'))
        {
            return refuse(
                Code::ImportUnsupported,
                format!("{named}, which is no local file"),
                "Make one file of them with qemu-img convert.",
            );
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let behind: PathBuf = folder.join(&base.name);
        let (file, len) = open_file(&behind)?;
        self.claims.take(&behind, &file)?;
        match base.format.as_deref() {
            Some("raw") => Ok(Backing {
                disk: Box::new(FileDisk::new(file)),
                size: len,
            }),
            Some("qcow2") => {
                let disk = self
                    .open(&behind, file, len, depth)
                    .map_err(|e| report::foreign(&behind.display(), &e))?;
                Ok(Backing {
                    size: disk.size(),
                    disk: Box::new(disk),
                })
            }
            other => refuse(
                Code::ImportUnsupported,
                format!(
                    "{named}, and calls its format {}",
                    other.unwrap_or("nothing")
                ),
                "Make one file of them with qemu-img convert; only raw and qcow2 are read, and never guessed.",
            ),
        }
    }
}
