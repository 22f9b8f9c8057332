//! `imager info`.
//!
//! Owns: how an image is described. Does not own: reading it.

use super::Output;
use super::keys::ReadKeys;
use crate::map::printable;
use crate::{bad_ranges, report, trust};
use image::structure;
use serde_json::json;
use std::fmt::Write;
use std::fs::File;
use std::path::{Path, PathBuf};
use wire::{Code, DiskState, Report, size};

/// Options of `imager info`.
#[derive(clap::Args)]
pub struct Args {
    /// Image file
    file: PathBuf,
    #[command(flatten)]
    keys: ReadKeys,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Opens an image file.
pub fn open(path: &Path) -> Result<File, Report> {
    File::open(path).map_err(|e| {
        let code = if e.kind() == std::io::ErrorKind::NotFound {
            Code::ImageNotFound
        } else {
            Code::ImageDamaged
        };
        Report::new(
            code,
            format!("{}: {e}", path.display()),
            DiskState::Untouched,
        )
        .with_advice("Check the name of the image file and the rights on it.")
    })
}

/// Describes an image; its records are not read.
pub fn run(args: &Args) -> Result<Output, Report> {
    let keyring = args.keys.keyring()?;
    let trusted = keyring.trusted;
    let mut file = open(&args.file)?;
    let mut found =
        structure::read(&mut file).map_err(|e| report::image(&e, DiskState::NotInvolved))?;
    trust::demand(trusted, &found.signatures, DiskState::NotInvolved)?;
    // Without a key what everybody may see is shown.
    if args.keys.opens()
        && let Some(key) = keyring.for_image(&found.layout)?
    {
        found
            .unlock(&key)
            .map_err(|e| report::image(&e, DiskState::NotInvolved))?;
    }
    let layout = &found.layout;
    let mut text = String::new();
    let disk = &layout.disk;
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "Image of {} ({}), made {} by {}",
        or_dash(&layout.machine.name),
        or_dash(&layout.machine.model),
        printable(&layout.created, 40),
        printable(&layout.tool, 40)
    );
    let _ = writeln!(
        text,
        "Disk: {}, {} ({} bytes), sectors of {} bytes, serial {}, {} table",
        or_dash(&disk.model),
        size::bytes(disk.size_bytes),
        disk.size_bytes,
        disk.sector_size,
        or_dash(&disk.serial),
        layout.table.kind
    );
    let _ = writeln!(
        text,
        "{:>4}  {:>10}  {:>10}  {:<10} {:<16} {:>10}  how",
        "no.", "start", "size", "content", "label", "used"
    );
    for region in &layout.regions {
        let number = match (region.kind.as_str(), region.number) {
            ("partition", Some(number)) => number.to_string(),
            (kind, _) => printable(kind, 5),
        };
        let label = if region.label.is_empty() {
            &region.name
        } else {
            &region.label
        };
        let _ = writeln!(
            text,
            "{number:>4}  {:>10}  {:>10}  {:<10} {:<16} {:>10}  {}",
            size::bytes(region.start),
            size::bytes(region.size),
            or_dash(&region.file_system),
            printable(label, 16),
            size::bytes(region.used_bytes),
            printable(&region.method, 8)
        );
    }
    for warning in &layout.warnings {
        let _ = writeln!(text, "warning at backup: {}", printable(warning, 400));
    }
    let _ = writeln!(
        text,
        "{} used in {} chunks of at most {}, file of {}",
        size::bytes(found.root.plain_bytes),
        found.root.chunks,
        size::bytes(u64::from(layout.cell_size)),
        size::bytes(found.length)
    );
    if let Some(lost) = bad_ranges::warning_of_image(layout, &found.bad) {
        let _ = writeln!(text, "warning: {}: {}", lost.code, lost.found);
    }
    let _ = writeln!(text, "Root {}", found.root.root);
    text.push_str(&trust::lines(&found.signatures, trusted));
    if let Some(encryption) = &layout.encryption {
        let _ = writeln!(text, "Encrypted with key {}", encryption.key());
    }
    let json = json!({
        "format_version": found.version.number(),
        "created": layout.created,
        "tool": layout.tool,
        "machine": layout.machine,
        "disk": layout.disk,
        "table": layout.table.kind,
        "regions": layout.regions,
        "warnings": layout.warnings,
        "partial": layout.is_partial(),
        "bad_ranges": bad_ranges::json(layout, &found.bad),
        "cell_size": layout.cell_size,
        "chunks": found.root.chunks,
        "used_bytes": found.root.plain_bytes,
        "image_bytes": found.length,
        "root": found.root.root.to_hex(),
        "signed_by": trust::json(&found.signatures),
        "encrypted_with": layout.encryption.as_ref().map(|e| e.key().to_string()),
    });
    Ok(Output {
        text,
        json,
        aside: false,
    })
}

fn or_dash(text: &str) -> String {
    if text.is_empty() {
        "-".to_owned()
    } else {
        printable(text, 40)
    }
}
