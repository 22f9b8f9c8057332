//! A restore's plan as people and scripts see it.
//!
//! Owns: the text before a confirmation and of `--plan`, and the names in JSON. Does not
//! own: the plan.

use super::plan::{NewPartition, Plan, TableChange};
use crate::map::printable;
use crate::progress::ProgressSink;
use crate::source;
use blockdev::Device;
use diskmap::{DiskMap, ScanOptions};
use image::Layout;
use serde_json::{Value, json};
use std::fmt::Write;
use wire::{DiskInfo, Report, size};

/// What a plan is shown with.
pub struct View<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// What was imaged.
    pub layout: &'a Layout,
    /// The disk.
    pub disk: &'a DiskInfo,
    /// What is on it now, if it can be told.
    pub map: Option<DiskMap>,
    /// What speaks against it, but does not forbid it.
    pub warnings: Vec<Report>,
}

/// Looks at what the disk holds now, until the job is to stop.
pub fn look(device: &Device, progress: &dyn ProgressSink) -> Option<DiskMap> {
    let reader = source::Watched(device, progress);
    diskmap::scan(&reader, source::geometry(device), &ScanOptions::default()).ok()
}

impl View<'_> {
    /// What an old partition holds: file system and label.
    fn content(&self, number: u32) -> (String, String) {
        let regions = self.map.iter().flat_map(|map| &map.regions);
        let mut held = regions.filter(|region| region.number == Some(number));
        held.next().map_or_else(Default::default, |region| {
            let label = if region.label.is_empty() {
                &region.name
            } else {
                &region.label
            };
            (region.file_system.clone(), printable(label, 16))
        })
    }

    fn is_whole(&self) -> bool {
        !matches!(self.plan.table, TableChange::Untouched)
    }

    /// What happens to a partition of the new table.
    fn fate(&self, part: &NewPartition) -> String {
        let Some(region) = part.region.and_then(|at| self.layout.regions.get(at)) else {
            return "stays as it is".to_owned();
        };
        let mut text = format!("{} of the image written", size::bytes(region.used_bytes));
        let growth = self.plan.growth.as_ref();
        if let Some(growth) = growth.filter(|growth| growth.number == part.number) {
            let gained = growth.gained();
            let _ = match (&growth.behind, gained) {
                (Some(name), 0) => write!(text, "; cannot grow: partition {name} stands behind it"),
                (None, 0) => write!(text, "; cannot grow: no room behind it"),
                (Some(name), _) => write!(
                    text,
                    "; grows by {} ({gained} bytes), up to partition {name}",
                    size::bytes(gained)
                ),
                (None, _) => write!(text, "; grows by {} ({gained} bytes)", size::bytes(gained)),
            };
        }
        text
    }

    fn table_line(&self) -> String {
        let kind = match self.plan.kind {
            diskmap::TableKind::Gpt => "GPT",
            diskmap::TableKind::Mbr => "MBR",
            diskmap::TableKind::None => "none",
        };
        let how = match self.plan.table {
            _ if self.plan.kind == diskmap::TableKind::None => {
                "the image fills the disk from its start"
            }
            TableChange::Replace { .. } => "replaced by the image's",
            TableChange::Keep { .. } => {
                "replaced by the image's, with the entries of what stays; these are listed at every moment"
            }
            TableChange::Untouched => "stays as it is",
        };
        format!("{kind}, {how}")
    }

    /// The plan for people.
    pub fn text(&self) -> String {
        let (plan, disk) = (self.plan, self.disk);
        let mut out = String::new();
        // Writing to a string cannot fail.
        let serial = if disk.serial.is_empty() {
            "-"
        } else {
            &disk.serial
        };
        let head = if self.is_whole() && plan.old.iter().all(|part| !part.stays) {
            "EVERYTHING on this disk will be replaced:"
        } else {
            "This disk will be changed; what stays is named:"
        };
        let _ = writeln!(
            out,
            "{head}\n  {}  {} ({} bytes)  {}  serial {}",
            disk.path,
            size::bytes(plan.disk_bytes),
            plan.disk_bytes,
            printable(&disk.model, 40),
            printable(serial, 40)
        );
        self.now(&mut out);
        let _ = writeln!(
            out,
            "then: the image of {} made {}, {} table, {} written",
            printable(&self.layout.machine.name, 40),
            printable(&self.layout.created, 40),
            self.layout.table.kind,
            size::bytes(plan.used_bytes(self.layout)),
        );
        self.then(&mut out);
        let _ = writeln!(out, "table: {}", self.table_line());
        if self.is_whole() {
            let _ = writeln!(
                out,
                "The image needs a disk of at least {} bytes ({}).",
                plan.minimum_bytes,
                size::bytes(plan.minimum_bytes)
            );
        }
        if plan.free_bytes > 0 {
            let _ = writeln!(
                out,
                "Behind the last partition {} ({} bytes) stay free.",
                size::bytes(plan.free_bytes),
                plan.free_bytes
            );
        }
        for note in &plan.notes {
            let _ = writeln!(out, "note: {note}.");
        }
        if self.is_whole() {
            out.push_str(
                "note: a system comes back with the name, addresses and passwords of that time; a \
                 Windows whose image is older than 30 days may have to join its domain again.\n",
            );
        }
        for warning in &self.warnings {
            let _ = writeln!(out, "warning: {}: {}", warning.code, warning.found);
        }
        out
    }

    fn now(&self, out: &mut String) {
        let what = match self.map.as_ref().map(|map| map.table) {
            Some(diskmap::TableKind::Gpt) => "GPT",
            Some(diskmap::TableKind::Mbr) => "MBR",
            Some(diskmap::TableKind::None) => "no partition table",
            None => "cannot be told",
        };
        let _ = writeln!(out, "now: {what}");
        if let (Some(map), true) = (&self.map, self.plan.old.is_empty()) {
            for region in map.regions.iter().filter(|r| r.number == Some(0)) {
                let content = known(&region.file_system);
                let size = size::bytes(region.size);
                let _ = writeln!(out, "  the whole disk, {size}: {content}: overwritten");
            }
        }
        for part in &self.plan.old {
            let (content, label) = self.content(part.number);
            let fate = if part.stays {
                "stays as it is"
            } else {
                "OVERWRITTEN"
            };
            let _ = writeln!(
                out,
                "  {:>4}  {:>10}  {:>10}  {:<10} {label:<16} {fate}",
                part.name,
                size::bytes(part.range.start),
                size::bytes(part.range.end - part.range.start),
                known(&content),
            );
        }
    }

    fn then(&self, out: &mut String) {
        for part in &self.plan.new {
            let region = part.region.and_then(|at| self.layout.regions.get(at));
            let (content, label) = region.map_or_else(
                || self.content(part.number),
                |r| (printable(&r.file_system, 16), printable(&r.label, 16)),
            );
            let _ = writeln!(
                out,
                "  {:>4}  {:>10}  {:>10}  {:<10} {label:<16} {}",
                part.name,
                size::bytes(part.range.start),
                size::bytes(part.range.end - part.range.start),
                known(&content),
                self.fate(part)
            );
        }
    }

    /// The plan for scripts.
    pub fn json(&self) -> Value {
        let plan = self.plan;
        let old = plan.old.iter().map(|part| {
            let (file_system, label) = self.content(part.number);
            json!({
                "number": part.number, "name": part.name, "start_bytes": part.range.start,
                "size_bytes": part.range.end - part.range.start, "type_name": part.type_name,
                "file_system": file_system, "label": label,
                "fate": if part.stays { "kept" } else { "overwritten" },
            })
        });
        let new = plan.new.iter().map(|part| {
            let region = part.region.and_then(|at| self.layout.regions.get(at));
            let growth = plan.growth.as_ref().filter(|g| g.number == part.number);
            json!({
                "number": part.number, "name": part.name, "start_bytes": part.range.start,
                "size_bytes": part.range.end - part.range.start, "type_name": part.type_name,
                "image_partition": region.and_then(|region| region.number),
                "file_system": region.map(|region| &region.file_system),
                "used_bytes": region.map(|region| region.used_bytes),
                "grows_by_bytes": growth.map_or(0, |growth| growth.gained()),
                "grows_up_to": growth.and_then(|growth| growth.behind.clone()),
                "fate": if region.is_some() { "written" } else { "kept" },
            })
        });
        json!({
            "result": "plan",
            "disk": self.disk.path,
            "disk_bytes": plan.disk_bytes,
            "minimum_bytes": plan.minimum_bytes,
            "table": plan.kind.as_str(),
            "table_change": match plan.table {
                TableChange::Replace { .. } => "replaced",
                TableChange::Keep { .. } => "replaced-around-kept",
                TableChange::Untouched => "untouched",
            },
            "used_bytes": plan.used_bytes(self.layout),
            "free_bytes": plan.free_bytes,
            "old": old.collect::<Vec<_>>(),
            "new": new.collect::<Vec<_>>(),
            "notes": plan.notes,
            "warnings": self.warnings.iter()
                .map(|w| json!({"code": w.code, "found": w.found})).collect::<Vec<_>>(),
        })
    }
}

fn known(file_system: &str) -> &str {
    if file_system.is_empty() {
        "-"
    } else {
        file_system
    }
}
