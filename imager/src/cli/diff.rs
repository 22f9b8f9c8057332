//! `imager diff`.
//!
//! Owns: its options, and how differences are shown. Does not own: finding them
//! (`crate::diff`), files (`files`).

mod files;

use super::keys::ReadKeys;
use super::{Output, opened};
use crate::diff::{Content, Difference, Part, compare};
use crate::map::printable;
use crate::report;
use image::layout::Region;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::PathBuf;
use wire::{DiskState, Report, size};

/// The result in JSON if there is a difference.
pub const DIFFERENT: &str = "different";

/// Options of `imager diff`.
#[derive(clap::Args)]
pub struct Args {
    /// Image file; it is only read
    before: PathBuf,
    /// Image file that is compared with it
    after: PathBuf,
    /// List the files that differ, too, in file systems that can be looked into: + added,
    /// - removed, * changed, ? unreadable
    #[arg(long)]
    files: bool,
    #[command(flatten)]
    keys: ReadKeys,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Compares two images.
pub fn run(args: &Args) -> Result<Output, Report> {
    let before = opened::open(&args.before, &args.keys)?;
    let after = opened::open(&args.after, &args.keys)?;
    // A page that was forged would be a lie about what is equal.
    for image in [&before, &after] {
        let proved = image.prove();
        proved.map_err(|e| report::image(&e, DiskState::NotInvolved))?;
    }
    let found = compare(&before, &after)?;
    let lost = !before.bad().is_empty() || !after.bad().is_empty();
    let mut output = Output {
        text: text(&found, lost),
        json: value(&found, lost),
        aside: false,
    };
    if args.files {
        let head = (output.text.as_str(), &output.json);
        files::print((&before, &after), &found, head, args.json)?;
        // It is printed.
        output.text.clear();
    }
    Ok(output)
}

/// What a part is called.
fn name(region: &Region) -> String {
    match (region.kind.as_str(), region.number) {
        ("partition", Some(number)) => format!("partition {number}"),
        ("whole", _) => "disk".to_owned(),
        _ => format!("gap at {}", region.start),
    }
}

fn text(found: &Difference<'_>, lost: bool) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    if !found.disk.is_empty() {
        let _ = writeln!(out, "disk: {} differs", found.disk.join(", "));
    }
    for part in &found.parts {
        let Some(region) = part.after.or(part.before) else {
            continue;
        };
        let is_gap = !matches!(region.kind.as_str(), "partition" | "whole");
        if is_gap && !part.differs() {
            continue;
        }
        let content = match region.file_system.as_str() {
            "" => String::new(),
            name => format!(" ({})", printable(name, 16)),
        };
        let mut said = match part.content {
            Content::Same => "same content".to_owned(),
            Content::Differs { bytes, .. } => {
                format!("up to {} ({bytes} bytes) differ", size::bytes(bytes))
            }
            Content::NotHeld => "not compared: an image does not hold it".to_owned(),
            Content::OneOnly if part.after.is_some() => "only in the second image".to_owned(),
            Content::OneOnly => "only in the first image".to_owned(),
        };
        if !part.fields.is_empty() {
            let _ = write!(said, "; {} changed", part.fields.join(", "));
        }
        let _ = writeln!(out, "{}{content}: {said}", name(region));
    }
    if lost {
        out.push_str(
            "Sectors that could not be read are in an image as zeros, and are compared as such.\n",
        );
    }
    out.push_str(match (found.any(), found.is_partial()) {
        (true, _) => "The images differ.\n",
        (false, true) => "The images hold the same where both hold something.\n",
        (false, false) => "The images hold the same.\n",
    });
    out
}

fn value(found: &Difference<'_>, lost: bool) -> Value {
    let total: u64 = found.parts.iter().map(bytes).sum();
    let parts: Vec<Value> = found.parts.iter().map(part_value).collect();
    json!({
        "result": if found.any() { DIFFERENT } else { "same" },
        "complete": !found.is_partial() && !lost,
        "disk": found.disk,
        "bytes": total,
        "parts": parts,
    })
}

fn bytes(part: &Part<'_>) -> u64 {
    match part.content {
        Content::Differs { bytes, .. } => bytes,
        Content::OneOnly => part
            .after
            .or(part.before)
            .map_or(0, |region| region.used_bytes),
        Content::Same | Content::NotHeld => 0,
    }
}

fn part_value(part: &Part<'_>) -> Value {
    let region = part.after.or(part.before);
    let content = match part.content {
        Content::Same => "same",
        Content::Differs { .. } => "different",
        Content::NotHeld => "not-held",
        Content::OneOnly if part.after.is_some() => "added",
        Content::OneOnly => "removed",
    };
    json!({
        "kind": region.map(|region| region.kind.as_str()),
        "partition": region.filter(|region| region.kind == "partition").and_then(|region| region.number),
        "file_system": region.map(|region| region.file_system.as_str()),
        "start_bytes": region.map(|region| region.start),
        "size_bytes": region.map(|region| region.size),
        "content": content,
        "bytes": bytes(part),
        "changed": part.fields,
    })
}
