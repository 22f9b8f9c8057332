//! An image for a smaller disk, made from an image of a larger one.
//!
//! Owns: the way there. The image is restored into a file; the file system of the last
//! partition is taken out of it, checked and made smaller by its own tools (e2fsck and
//! resize2fs), and put back into a smaller partition; what results is backed up as any
//! disk. Neither the source disk nor its image is touched. Does not own: moving a file
//! system's blocks, which is what resize2fs is for; what else is taken over ([`kept`]).

mod kept;

use crate::backup::{self, container};
use crate::keyring::{Keyring, Opened};
use crate::progress::ProgressSink;
use crate::restore::stream::ContainerSource;
use crate::restore::{self, Guard, Plan, Source};
use crate::{in_use, report, source};
use blockdev::Device;
use diskmap::{Extents, Geometry, Method, ScanOptions, TableKind, table};
use image::Layout;
use image::layout::Region;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use wire::{Code, DiskState, Report, size};

/// Partitions are cut at multiples of this.
const ALIGN: u64 = 1 << 20;

/// What was made.
pub struct Shrunk {
    /// Number of the partition that became smaller; 0 is a disk without table.
    pub number: u32,
    /// Its size in bytes, before and after.
    pub partition: (u64, u64),
    /// Size of the disk in bytes, before and after.
    pub disk: (u64, u64),
    /// The new image.
    pub image: container::Written,
    /// What is other in it than in the old one, besides its size.
    pub warnings: Vec<Report>,
}

/// Nobody is asked: the disk is a file that this run made.
struct Nobody;

impl Guard for Nobody {
    fn before_write(&mut self, _: &Device, _: &Plan) -> Result<(), Report> {
        Ok(())
    }
}

/// Makes the image for a disk of `to` bytes (`None`: the smallest there can be) from the
/// container `input`, and writes it to `out`. `scratch` needs room for what is used. An image
/// that is encrypted stays so, with the same key; in `scratch` it stands in the clear.
pub fn run<W: Write + Send>(
    input: Box<dyn Read + Send>,
    keyring: &Keyring,
    to: Option<u64>,
    scratch: &Path,
    out: W,
    progress: &dyn ProgressSink,
) -> Result<(W, Shrunk), Report> {
    let work = tempfile::Builder::new()
        .prefix("imager-shrink-")
        .tempdir_in(scratch)
        .map_err(|e| failed(&format!("no scratch folder in {}", scratch.display()), &e))?;
    let (disk, part) = (work.path().join("disk"), work.path().join("partition"));
    let mut image = ContainerSource::open(input, keyring)?;
    let layout = image.layout().clone();
    let (place, last) = last_partition(&layout)?;
    let last = last.clone();
    if last.method == "full" {
        kept::refuse_full(last.number, &last.reason)?;
    }
    need_tools()?;

    let mut device = Device::create_file(&disk, layout.disk.size_bytes)
        .map_err(|e| report::open(&e, DiskState::NotInvolved))?;
    device.set_sector_size(layout.disk.sector_size);
    let options = restore::Options::default();
    let mut listed = kept::Listed::new(&mut image);
    let restored = restore::run(device, &disk, &mut listed, &mut Nobody, &options, progress)
        .map_err(not_involved)?;
    let held = listed.held()?;
    if !restored.bad.is_empty() {
        return refuse("the image lacks sectors that could not be read at backup");
    }

    let behind = kept::behind(&disk, &layout, &held, &last);
    let mut noticed: Vec<Report> = Vec::new();
    noticed.extend(behind.map_err(|e| failed("the scratch folder", &e))?);
    copy_out(&disk, &last, &held[place], layout.disk.sector_size, &part)?;
    noticed.extend(check(&part, last.number.unwrap_or(0))?);
    let target = Target::choose(&layout, &last, &part, to)?;
    progress.note(&format!(
        "resize2fs makes partition {} smaller: {} to {}",
        last.number.unwrap_or(0),
        size::bytes(last.size),
        size::bytes(target.partition)
    ));
    resize(&part, target.partition / target.block)?;
    put_back(&disk, &part, &last, &target)?;

    let mut device =
        Device::open_read(&disk).map_err(|e| report::open(&e, DiskState::NotInvolved))?;
    device.set_sector_size(layout.disk.sector_size);
    let mut info = in_use::identify(&disk)?;
    info.model.clone_from(&layout.disk.model);
    info.serial.clone_from(&layout.disk.serial);
    info.wwn.clone_from(&layout.disk.wwn);
    info.physical_sector_size = layout.disk.physical_sector_size;
    let options = backup::Options {
        seal: seal(&image),
        ..backup::Options::default()
    };
    let mut map = backup::look(&device, &disk.display(), &options, progress)?;
    kept::take_over(&mut map, &layout, &held, &last)?;
    let mut plan = backup::Plan::of(map, &info, layout.machine.clone(), &options);
    // What the scan tells again needs no other teller.
    let again = |w: &String| plan.layout.warnings.contains(w);
    let mut told = layout.warnings.clone();
    told.retain(|w| !again(w));
    let mut warnings = kept::old_warnings(&told);
    warnings.extend(noticed);
    let said = warnings.iter().map(|w| format!("{}: {}", w.code, w.found));
    plan.layout.warnings.extend(said);
    warnings.extend(plan.warnings());
    let (out, written) = container::write(&device, &plan, &options, out, progress)?;
    let shrunk = Shrunk {
        number: last.number.unwrap_or(0),
        partition: (last.size, target.partition),
        disk: (layout.disk.size_bytes, target.disk),
        image: written,
        warnings,
    };
    Ok((out, shrunk))
}

/// The key that the image is encrypted with, if it is.
fn seal<R: Read>(image: &ContainerSource<R>) -> Option<Opened> {
    let encryption = image.layout().encryption.as_ref();
    image.key().zip(encryption).map(|(key, encryption)| Opened {
        key,
        wrapped: encryption.wrapped_key.as_str().into(),
    })
}

/// Nothing of a user's disks is touched here, whatever fails.
fn not_involved(report: Report) -> Report {
    Report {
        disk: DiskState::NotInvolved,
        ..report
    }
}

fn failed(what: &str, error: &io::Error) -> Report {
    Report::new(
        Code::OutputFailed,
        format!("{what}: {error}"),
        DiskState::NotInvolved,
    )
}

fn refuse<T>(found: impl Into<String>) -> Result<T, Report> {
    let report = Report::new(Code::DiskTooSmall, found, DiskState::NotInvolved);
    Err(report.with_advice(
        "Restore to a disk that is large enough, make the file system smaller there with its own tools, and back that up.",
    ))
}

/// The partition that is made smaller, and its position in the layout: the last one of the
/// disk, with an ext file system.
fn last_partition(layout: &Layout) -> Result<(usize, &Region), Report> {
    let regions = layout.regions.iter().enumerate();
    let parts = regions.filter(|(_, region)| region.kind != "gap");
    let Some((place, last)) = parts.max_by_key(|(_, region)| region.start) else {
        return refuse("the image has no partition");
    };
    if !matches!(last.file_system.as_str(), "ext2" | "ext3" | "ext4") {
        return refuse(format!(
            "the last partition ({}, {}) is none that can be made smaller; only ext2, ext3 and ext4 can",
            last.number.unwrap_or(0),
            if last.file_system.is_empty() {
                "unknown"
            } else {
                &last.file_system
            }
        ));
    }
    Ok((place, last))
}

fn need_tools() -> Result<(), Report> {
    for name in ["e2fsck", "resize2fs"] {
        if tool(name, &["-V"]).is_err() {
            let found = format!("{name} is not installed");
            let report = Report::new(Code::OutputFailed, found, DiskState::NotInvolved);
            return Err(report.with_advice("Install the package e2fsprogs."));
        }
    }
    Ok(())
}

/// Runs a tool to its end: its exit code and everything it printed.
fn tool(name: &str, args: &[&str]) -> io::Result<(i32, String)> {
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new(name)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .env("LC_ALL", "C")
        .args(args)
        .stdin(Stdio::null())
        .output()?;
    let text = [output.stdout, output.stderr].concat();
    let code = output.status.code().unwrap_or(-1);
    Ok((code, String::from_utf8_lossy(&text).into_owned()))
}

fn checked_tool(name: &str, args: &[&str], right: &[i32]) -> Result<String, Report> {
    match tool(name, args) {
        Ok((code, text)) if right.contains(&code) => Ok(text),
        Ok((code, text)) => {
            let last = text.lines().rev().find(|line| !line.trim().is_empty());
            refuse(format!("{name} ended with {code}: {}", last.unwrap_or("")))
        }
        Err(e) => Err(failed(name, &e)),
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

/// Copies what the file system uses into a file of its own. resize2fs cuts a regular file
/// to the file system's new size, so it must not be given the whole disk.
fn copy_out(
    disk: &Path,
    last: &Region,
    held: &Extents,
    sector: u32,
    part: &Path,
) -> Result<(), Report> {
    let mut device =
        Device::open_read(disk).map_err(|e| report::open(&e, DiskState::NotInvolved))?;
    device.set_sector_size(sector);
    let map = diskmap::scan(
        &source::Reader(&device),
        source::geometry(&device),
        &ScanOptions::default(),
    )
    .map_err(|e| report::scan(&e, DiskState::NotInvolved))?;
    let region = map.regions.iter().find(|region| region.start == last.start);
    let Some(region) = region else {
        return refuse("the partition is not where the image says");
    };
    if region.method == Method::Full {
        kept::refuse_full(region.number, &region.reason)?;
    }
    kept::refuse_lacking(region.number, &region.used, held)?;
    let copy = || -> io::Result<()> {
        let (from, to) = (File::open(disk)?, File::create_new(part)?);
        to.set_len(region.size)?;
        copy(&from, region.start, &region.used, &to, 0)
    };
    copy().map_err(|e| failed("the scratch folder", &e))
}

/// Checks the file system, which replays its journal too. What can be put right without a
/// loss is, and is told; what cannot is for a person to decide.
fn check(part: &Path, number: u32) -> Result<Option<Report>, Report> {
    let (code, said) =
        tool("e2fsck", &["-f", "-p", text(part)]).map_err(|e| failed("e2fsck", &e))?;
    let mut lines: Vec<&str> = said
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    if code <= 1 {
        // The last one counts files and blocks.
        lines.pop();
    }
    let found = format!(
        "partition {number}: e2fsck ended with {code}: {}",
        lines.join("; ")
    );
    let report = Report::new(Code::FsDamaged, found, DiskState::NotInvolved);
    match code {
        0 => Ok(None),
        1 if lines.is_empty() => Ok(None),
        1 => Ok(Some(report.with_advice(
            "It was put right in the new image; the old one is as it was.",
        ))),
        _ => Err(report.with_advice(
            "Restore to a disk that is large enough, repair the file system there, and back that up.",
        )),
    }
}

/// Copies used bytes, which lie `start` further on in `from` and `to_start` in `to`.
fn copy(from: &File, start: u64, used: &Extents, to: &File, to_start: u64) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    for extent in used {
        let mut at = extent.start;
        while at < extent.end() {
            let len = (extent.end() - at).min(buffer.len() as u64) as usize;
            from.read_exact_at(&mut buffer[..len], start + at)?;
            to.write_all_at(&buffer[..len], to_start + at)?;
            at += len as u64;
        }
    }
    Ok(())
}

/// Sizes after the cut.
struct Target {
    /// Block size of the file system in bytes.
    block: u64,
    /// Size of the partition in bytes.
    partition: u64,
    /// Size of the disk in bytes.
    disk: u64,
    /// The table's bytes for that disk.
    blobs: Vec<diskmap::Blob>,
}

impl Target {
    fn choose(
        layout: &Layout,
        last: &Region,
        part: &Path,
        to: Option<u64>,
    ) -> Result<Self, Report> {
        let block = block_size(part).map_err(|e| failed("the file system", &e))?;
        let estimate = checked_tool("resize2fs", &["-P", text(part)], &[0])?;
        let line = estimate
            .lines()
            .find(|line| line.starts_with("Estimated minimum"));
        let number = line.and_then(|line| line.rsplit(':').next());
        let blocks = number.and_then(|n| n.trim().parse::<u64>().ok());
        let Some(blocks) = blocks else {
            return refuse("resize2fs does not say how small it can get");
        };
        let least = (blocks * block).next_multiple_of(ALIGN);
        let kind = match layout.table.kind.as_str() {
            "gpt" => TableKind::Gpt,
            "mbr" => TableKind::Mbr,
            _ => TableKind::None,
        };
        let wanted = match to {
            None => least,
            Some(to) => {
                // Behind the last partition a GPT needs room for its backup.
                let behind = behind(kind, layout, last)?;
                to.saturating_sub(last.start + behind) / ALIGN * ALIGN
            }
        };
        if wanted < least || least >= last.size {
            let behind = behind(kind, layout, last)?;
            return refuse(format!(
                "the smallest disk for this image has {} bytes",
                last.start + least.min(last.size) + behind
            ));
        }
        if wanted >= last.size {
            return refuse("the image fits that disk as it is: restore it there");
        }
        let (disk, blobs) = tables(kind, layout, last, wanted, to)?;
        Ok(Target {
            block,
            partition: wanted,
            disk,
            blobs,
        })
    }
}

fn bad_table(error: &diskmap::TableError) -> Report {
    let found = format!("the image's partition table: {error}");
    Report::new(Code::ImageDamaged, found, DiskState::NotInvolved)
}

fn table_blobs(layout: &Layout) -> Vec<diskmap::Blob> {
    let blob = |blob: &image::layout::Blob| diskmap::Blob {
        offset: blob.offset,
        data: blob.data.clone(),
    };
    layout.table.blobs.iter().map(blob).collect()
}

fn geometry(layout: &Layout) -> Geometry {
    Geometry {
        size_bytes: layout.disk.size_bytes,
        sector_size: layout.disk.sector_size,
    }
}

/// Bytes that the table needs behind the last partition.
fn behind(kind: TableKind, layout: &Layout, last: &Region) -> Result<u64, Report> {
    if kind == TableKind::None {
        return Ok(0);
    }
    let needed = table::minimum_size(kind, &table_blobs(layout), geometry(layout), 0)
        .map_err(|e| bad_table(&e))?;
    Ok(needed.saturating_sub(last.start + last.size))
}

/// The table with a smaller partition on a smaller disk, and that disk's size.
fn tables(
    kind: TableKind,
    layout: &Layout,
    last: &Region,
    size: u64,
    to: Option<u64>,
) -> Result<(u64, Vec<diskmap::Blob>), Report> {
    if kind == TableKind::None {
        return Ok((to.unwrap_or(last.start + size), Vec::new()));
    }
    let number = last.number.unwrap_or(0);
    let cut = table::shrink(kind, &table_blobs(layout), geometry(layout), number, size)
        .map_err(|e| bad_table(&e))?;
    let disk = match to {
        Some(to) => to,
        None => table::minimum_size(kind, &cut, geometry(layout), 0).map_err(|e| bad_table(&e))?,
    };
    let blobs = table::relocate(kind, &cut, geometry(layout), disk).map_err(|e| bad_table(&e))?;
    Ok((disk, blobs))
}

/// Block size in bytes, from the superblock.
fn block_size(part: &Path) -> io::Result<u64> {
    let mut raw = [0; 4];
    File::open(part)?.read_exact_at(&mut raw, 1024 + 24)?;
    match u32::from_le_bytes(raw) {
        shift @ 0..=6 => Ok(1024 << shift),
        _ => Err(io::Error::other("no ext file system")),
    }
}

fn resize(part: &Path, blocks: u64) -> Result<(), Report> {
    checked_tool("resize2fs", &[text(part), &blocks.to_string()], &[0])?;
    checked_tool("e2fsck", &["-f", "-n", text(part)], &[0]).map(drop)
}

/// Puts the smaller file system and the table into the disk's file, which is cut too.
fn put_back(disk: &Path, part: &Path, last: &Region, target: &Target) -> Result<(), Report> {
    let device = Device::open_read(part).map_err(|e| report::open(&e, DiskState::NotInvolved))?;
    let map = diskmap::scan(
        &source::Reader(&device),
        source::geometry(&device),
        &ScanOptions {
            strict: true,
            ..ScanOptions::default()
        },
    )
    .map_err(|e| report::scan(&e, DiskState::NotInvolved))?;
    let [region] = map.regions.as_slice() else {
        return refuse("resize2fs left something that is no file system");
    };
    let write = || -> io::Result<()> {
        let (from, to) = (File::open(part)?, File::options().write(true).open(disk)?);
        // It was the last one; what else the image holds behind it was told (`kept::behind`).
        to.set_len(last.start)?;
        to.set_len(target.disk)?;
        copy(&from, 0, &region.used, &to, last.start)?;
        for blob in &target.blobs {
            to.write_all_at(&blob.data, blob.offset)?;
        }
        to.sync_all()
    };
    write().map_err(|e| failed("the scratch folder", &e))
}
