//! `imager media`.
//!
//! Owns: its options, what is asked before a stick is overwritten, names of files. Does not
//! own: what stands on a medium (`crate::media`).

use super::keys::ReadKeys;
use super::partial::PartialFile;
use super::shown::Shown;
use super::{Output, info};
use crate::media::kit::Kit;
use crate::media::{Image, Kind, Laid, Order, write};
use crate::{disks, in_use, report, verify_image};
use blockdev::Device;
use clap::Subcommand;
use serde_json::{Value, json};
use std::io::{BufRead, IsTerminal};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use wire::{Code, DiskSelector, DiskState, Report, size};

/// Longest file with settings.
const MAX_SETTINGS: u64 = 64 << 10;
/// Where sectors of another size stand, firmware does not start anything of ours.
const SECTOR: u32 = 512;

/// Options of `imager media`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a medium that the Deploy-OS starts from: an ISO image, a stick, or a file with one
    Create(Create),
}

/// Options of `imager media create`.
#[derive(clap::Args)]
struct Create {
    /// File to make, or the block device of a stick to overwrite (also as number, serial
    /// number or WWN)
    out: PathBuf,
    /// Folder with what media are made of [default: media beside this program's folder]
    #[arg(long, value_name = "DIR")]
    kit: Option<PathBuf>,
    /// Kind of medium; without it, iso for names that end with .iso, else usb
    #[arg(long, value_enum)]
    format: Option<Kind>,
    /// Put this image on the medium, which restores it without server and network
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// What the image is called on the machine's screen [default: the file's name]
    #[arg(long, requires = "image")]
    name: Option<String>,
    /// Restore without asking, to the disk of --disk or the only one that is built in
    #[arg(long, requires = "image")]
    unattended: bool,
    /// With --unattended, restore to another kind of machine than the image's, too
    #[arg(long, requires = "unattended")]
    force: bool,
    /// The disk that the image is for: a serial number, or serial=, wwn= or path= with a value
    #[arg(long, requires = "image")]
    disk: Option<String>,
    /// Put this file on the medium as its settings
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// A word for the kernel's command line, as deploy.after=poweroff; may be given several times
    #[arg(long, value_name = "WORD")]
    append: Vec<String>,
    /// Bytes of a medium, as 4700372992 or 8G: what does not fit goes on further media, as
    /// NAME-1.iso, NAME-2.iso and so on
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    volume_size: Option<u64>,
    /// Make only this one of several media
    #[arg(long, value_name = "N")]
    medium: Option<u32>,
    /// Replace files that are there
    #[arg(long)]
    overwrite: bool,
    /// Do not ask before a block device is overwritten
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    keys: ReadKeys,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
}

impl Args {
    /// Whether JSON is asked for.
    pub fn wants_json(&self) -> bool {
        let Command::Create(create) = &self.command;
        create.json
    }
}

/// Makes media.
pub fn run(args: &Args) -> Result<Output, Report> {
    let Command::Create(create) = &args.command;
    make(create)
}

fn make(args: &Create) -> Result<Output, Report> {
    let out = disks::find(&args.out, disks::list)?;
    let is_device = std::fs::metadata(&out).is_ok_and(|m| m.file_type().is_block_device());
    if !is_device && out.starts_with("/dev") && !out.starts_with("/dev/shm") {
        // A device that is not there must not become a file in memory.
        let found = format!("{} is not there", out.display());
        return Err(Report::new(Code::DiskNotFound, found, DiskState::Untouched));
    }
    let kind = kind(args, &out, is_device)?;
    let kit = Kit::read(&kit_folder(args))?;
    let settings = args.settings.as_deref().map(settings).transpose()?;
    let stick = is_device.then(|| open_stick(&out)).transpose()?;
    let image = args.image.as_deref().map(|path| prove(args, path));
    let image = image.transpose()?;
    let size_bytes = stick.as_ref().map(Device::size_bytes);
    let order = Order {
        kit: &kit,
        kind,
        volume_bytes: args.volume_size.or(size_bytes),
        image: image.as_ref(),
        settings: settings.as_deref(),
        append: &args.append,
    };
    let mut laid = order.lay_out()?;
    let several = laid.len() > 1;
    if let Some(number) = args.medium {
        let at = (number as usize).wrapping_sub(1);
        if at >= laid.len() {
            let found = format!("there is no medium {number}: {} are needed", laid.len());
            return Err(usage(found, "Leave --medium out to make all of them."));
        }
        laid = vec![laid.swap_remove(at)];
    }
    let mut made = Vec::new();
    if let Some(stick) = stick {
        let [laid] = &laid[..] else {
            let found = format!("{} media of this size are needed", laid.len());
            return Err(usage(found, &each_alone(laid.len(), size_bytes)));
        };
        write_stick(args, &out, &stick, laid)?;
        made.push((out.clone(), laid));
    } else {
        let names: Vec<PathBuf> = laid
            .iter()
            .map(|laid| name_of(&out, laid, several))
            .collect();
        for (name, laid) in names.iter().zip(&laid) {
            refuse_taken_name(args, name, laid)?;
        }
        for (name, laid) in names.into_iter().zip(&laid) {
            write_file(args, &name, laid)?;
            made.push((name, laid));
        }
    }
    Ok(said(kind, &made))
}

fn usage(found: String, advice: &str) -> Report {
    Report::new(Code::Usage, found, DiskState::NotInvolved).with_advice(advice)
}

fn each_alone(count: usize, size_bytes: Option<u64>) -> String {
    format!(
        "Make them one by one: --volume-size {} --medium 1, and so on up to --medium {count}.",
        size_bytes.unwrap_or(0)
    )
}

fn kind(args: &Create, out: &Path, is_device: bool) -> Result<Kind, Report> {
    let is_iso = out
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("iso"));
    let kind = args
        .format
        .unwrap_or(if is_iso { Kind::Iso } else { Kind::Usb });
    if is_device && kind == Kind::Iso {
        let found = "an ISO image is made as a file".to_owned();
        let advice = "Copy the file to the device with dd, or leave --format iso out.";
        return Err(usage(found, advice));
    }
    Ok(kind)
}

/// `media` beside the folder of this program, as in `out/`.
fn kit_folder(args: &Create) -> PathBuf {
    args.kit.clone().unwrap_or_else(|| {
        let program = std::env::current_exe().unwrap_or_default();
        let beside = program.parent().and_then(Path::parent);
        beside.unwrap_or(Path::new(".")).join("media")
    })
}

fn settings(path: &Path) -> Result<Vec<u8>, Report> {
    let wrong = |why: String| {
        let found = format!("{}: {why}", path.display());
        usage(found, "Name a text file with settings.")
    };
    let length = std::fs::metadata(path)
        .map_err(|e| wrong(e.to_string()))?
        .len();
    if length > MAX_SETTINGS {
        return Err(wrong(format!("more than {MAX_SETTINGS} bytes")));
    }
    std::fs::read(path).map_err(|e| wrong(e.to_string()))
}

/// Reads the whole image: a medium with a damaged one helps nobody.
fn prove(args: &Create, path: &Path) -> Result<Image, Report> {
    let keyring = args.keys.keyring()?;
    let file = info::open(path)?;
    let there = file.metadata().ok().filter(std::fs::Metadata::is_file);
    let there = there.ok_or_else(|| {
        let found = format!("{} is no regular file", path.display());
        usage(found, "Put the image into a file first.")
    })?;
    let shown = Shown::start("verify", args.quiet);
    let verified = verify_image::verify(file, &keyring, shown.sink())?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    Ok(Image {
        path: path.to_owned(),
        size_bytes: there.len(),
        root: verified.root.root.0,
        name: args.name.clone().unwrap_or_else(|| stem.into_owned()),
        unattended: args.unattended,
        force: args.force,
        disk: args.disk.as_deref().map(selector).transpose()?,
    })
}

/// The disk that is meant on the machine. Numbers are another thing on every boot.
fn selector(text: &str) -> Result<DiskSelector, Report> {
    let (kind, value) = text.split_once('=').unwrap_or(("serial", text));
    let some = Some(value.to_owned()).filter(|value| !value.is_empty());
    let none = DiskSelector::default();
    match (kind, some) {
        ("serial", serial @ Some(_)) => Ok(DiskSelector { serial, ..none }),
        ("wwn", wwn @ Some(_)) => Ok(DiskSelector { wwn, ..none }),
        ("path", path @ Some(_)) => Ok(DiskSelector { path, ..none }),
        _ => Err(usage(
            format!("--disk {text:?} names no disk"),
            "Give the serial number, or serial=, wwn= or path= with a value.",
        )),
    }
}

fn open_stick(path: &Path) -> Result<Device, Report> {
    in_use::refuse_if_held(path)?;
    let device = Device::open_write(path).map_err(|e| report::open(&e, DiskState::Untouched))?;
    if device.sector_size() != SECTOR {
        let found = format!(
            "{} has sectors of {} bytes, media have {SECTOR}",
            path.display(),
            device.sector_size()
        );
        return Err(
            Report::new(Code::SectorSizeUnsupported, found, DiskState::Untouched)
                .with_advice("Take another stick."),
        );
    }
    Ok(device)
}

fn write_stick(args: &Create, path: &Path, stick: &Device, laid: &Laid) -> Result<(), Report> {
    if laid.size_bytes > stick.size_bytes() {
        let found = format!(
            "the medium has {} bytes, {} has {}",
            laid.size_bytes,
            path.display(),
            stick.size_bytes()
        );
        return Err(Report::new(Code::NoSpace, found, DiskState::Untouched)
            .with_advice("Take a larger stick, or a smaller --volume-size."));
    }
    if !args.yes {
        confirm(path)?;
    }
    let shown = Shown::start("writing the medium", args.quiet);
    write::write(laid, stick, path, shown.sink())?;
    // Partitions of what the stick held before are gone; who has one open keeps its nodes.
    let _ = stick.reread_partitions();
    Ok(())
}

fn confirm(path: &Path) -> Result<(), Report> {
    let refuse = |found: &str| Err(Report::new(Code::NotConfirmed, found, DiskState::Untouched));
    if !std::io::stdin().is_terminal() {
        return refuse("there is no terminal to ask on");
    }
    let disk = in_use::identify(path)?;
    eprint!(
        "\nEVERYTHING on this disk will be replaced by a medium of the Deploy-OS:\n\n{}",
        disks::table_of_one(&disk)
    );
    if !disk.removable && disk.bus != "usb" {
        eprintln!("This disk is built in: it is no stick.");
    }
    eprint!("Type yes to go on: ");
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    if read.is_ok() && answer.trim().eq_ignore_ascii_case("yes") {
        return Ok(());
    }
    refuse("the answer was not yes")
}

/// `NAME.iso`, or `NAME-2.iso` for the second of several.
fn name_of(out: &Path, laid: &Laid, several: bool) -> PathBuf {
    let number = laid.about.restore.as_ref().map(|restore| restore.medium);
    let Some(number) = number.filter(|_| several) else {
        return out.to_owned();
    };
    let stem = out.file_stem().unwrap_or_default().to_string_lossy();
    let extension = out.extension().map(|e| format!(".{}", e.to_string_lossy()));
    out.with_file_name(format!("{stem}-{number}{}", extension.unwrap_or_default()))
}

fn refuse_taken_name(args: &Create, name: &Path, laid: &Laid) -> Result<(), Report> {
    let Ok(there) = std::fs::symlink_metadata(name) else {
        return Ok(());
    };
    let shown = name.display();
    let is_read = laid
        .sources
        .iter()
        .any(|path| crate::source::is_same_file(name, path));
    let (found, advice) = if is_read {
        (
            format!("{shown} goes on the medium"),
            "Choose another name.",
        )
    } else if !there.is_file() {
        (
            format!("{shown} is no regular file"),
            "Choose another name.",
        )
    } else if !args.overwrite {
        (
            format!("{shown} is there already"),
            "Choose another name, or add --overwrite.",
        )
    } else {
        return Ok(());
    };
    Err(Report::new(Code::ImageExists, found, DiskState::NotInvolved).with_advice(advice))
}

fn write_file(args: &Create, name: &Path, laid: &Laid) -> Result<(), Report> {
    let no_disk = |report: Report| Report {
        disk: DiskState::NotInvolved,
        ..report
    };
    let shown = Shown::start("writing the medium", args.quiet);
    let sources: Vec<&Path> = laid.sources.iter().map(PathBuf::as_path).collect();
    let part = PartialFile::create(name, &sources)?;
    let sized = part.writer().set_len(laid.size_bytes);
    sized.map_err(|e| no_disk(report::output(&e)))?;
    let partial = PartialFile::beside(name);
    let opened = Device::open_write(&partial);
    let file = opened.map_err(|e| report::open(&e, DiskState::NotInvolved))?;
    write::write(laid, &file, &partial, shown.sink()).map_err(no_disk)?;
    part.publish(args.overwrite)
}

fn said(kind: Kind, made: &[(PathBuf, &Laid)]) -> Output {
    let mut text = String::new();
    let mut media: Vec<Value> = Vec::new();
    for (path, laid) in made {
        let restore = laid.about.restore.as_ref();
        let which = restore
            .filter(|restore| restore.media > 1)
            .map(|restore| format!(", medium {} of {}", restore.medium, restore.media));
        text += &format!(
            "Medium done: {} ({}, {}{}), read back and found right.\n",
            path.display(),
            kind.as_str(),
            size::bytes(laid.size_bytes),
            which.unwrap_or_default()
        );
        media.push(json!({
            "path": path,
            "size_bytes": laid.size_bytes,
            "medium": restore.map_or(1, |restore| restore.medium),
            "media": restore.map_or(1, |restore| restore.media),
        }));
    }
    let about = made.first().map(|(_, laid)| &laid.about);
    Output {
        text,
        json: json!({
            "result": "done",
            "format": kind.as_str(),
            "version": about.map(|about| &about.version),
            "id": about.map(|about| &about.id),
            "media": media,
        }),
        aside: false,
    }
}

#[cfg(test)]
mod tests {
    use super::{name_of, selector};
    use crate::media::Laid;
    use ::medium::{About, Restore};
    use std::path::Path;

    #[test]
    fn disks_are_named_by_what_stays() {
        assert_eq!(selector("S1").unwrap().serial.as_deref(), Some("S1"));
        assert_eq!(
            selector("serial=a=b").unwrap().serial.as_deref(),
            Some("a=b")
        );
        assert_eq!(selector("wwn=naa.5").unwrap().wwn.as_deref(), Some("naa.5"));
        assert_eq!(
            selector("path=/dev/sda").unwrap().path.as_deref(),
            Some("/dev/sda")
        );
        for text in ["", "serial=", "number=0", "colour=red"] {
            assert!(selector(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn several_media_have_numbers_in_their_names() {
        let laid = Laid {
            about: About {
                format: 1,
                version: "1".into(),
                id: String::new(),
                restore: Some(Restore {
                    image: "x".into(),
                    size_bytes: 1,
                    medium: 2,
                    media: 3,
                    start: 0,
                    parts: Vec::new(),
                    unattended: false,
                    force: false,
                    disk: None,
                }),
            },
            pieces: Vec::new(),
            size_bytes: 0,
            sources: Vec::new(),
        };
        let name = |out: &str, several| name_of(Path::new(out), &laid, several);
        assert_eq!(name("a/b.iso", true), Path::new("a/b-2.iso"));
        assert_eq!(name("b", true), Path::new("b-2"));
        assert_eq!(name("a/b.iso", false), Path::new("a/b.iso"));
    }
}
