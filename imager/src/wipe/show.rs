//! A wipe's plan as people and scripts see it.
//!
//! Owns: the text before a confirmation and of `--plan`, and the names in JSON. Does not
//! own: the plan.

use super::Plan;
use crate::map::printable;
use diskmap::{DiskMap, RegionKind};
use serde_json::{Value, json};
use std::fmt::Write;
use wire::{DiskInfo, size};

/// What a plan is shown with.
pub struct View<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The disk.
    pub disk: &'a DiskInfo,
    /// What is on it now, if it can be told.
    pub map: Option<DiskMap>,
}

impl View<'_> {
    /// The plan for people.
    pub fn text(&self) -> String {
        let (plan, disk) = (self.plan, self.disk);
        let serial = match disk.serial.as_str() {
            "" => "-",
            serial => serial,
        };
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "EVERYTHING on this disk will be destroyed, and nothing brings it back:\n  {}  {} ({} \
             bytes)  {}  serial {}",
            disk.path,
            size::bytes(plan.disk_bytes),
            plan.disk_bytes,
            printable(&disk.model, 40),
            printable(serial, 40)
        );
        self.now(&mut out);
        let _ = writeln!(out, "it can: {}", plan.can.join("; "));
        for (at, way) in plan.ways.iter().enumerate() {
            let when = match at {
                0 => "then:",
                _ => "if that fails or is not proved:",
            };
            let _ = writeln!(out, "{when} {}: {}", way.method(), way.words());
        }
        if disk.is_of_san() {
            out.push_str(
                "note: others may reach this disk, too; nobody can tell whether they use it.\n",
            );
        }
        if disk.bus == "sata" {
            out.push_str("note: the disk's own ATA erase commands are not used.\n");
        }
        out
    }

    fn now(&self, out: &mut String) {
        let Some(map) = &self.map else {
            out.push_str("now: what is on it cannot be told\n");
            return;
        };
        let kind = match map.table {
            diskmap::TableKind::Gpt => "GPT",
            diskmap::TableKind::Mbr => "MBR",
            diskmap::TableKind::None => "no partition table",
        };
        let _ = writeln!(out, "now: {kind}");
        for region in map.regions.iter().filter(|r| r.kind != RegionKind::Gap) {
            let name = match region.number {
                Some(0) | None => "all".to_owned(),
                Some(number) => number.to_string(),
            };
            let label = match region.label.as_str() {
                "" => &region.name,
                label => label,
            };
            let content = match region.file_system.as_str() {
                "" => "-",
                known => known,
            };
            let _ = writeln!(
                out,
                "  {name:>4}  {:>10}  {content:<10} {:<16} DESTROYED",
                size::bytes(region.size),
                printable(label, 16)
            );
        }
    }

    /// The plan for scripts.
    pub fn json(&self) -> Value {
        let plan = self.plan;
        let regions = self.map.iter().flat_map(|map| &map.regions);
        let now = regions.filter(|r| r.kind != RegionKind::Gap).map(|region| {
            json!({
                "number": region.number, "start_bytes": region.start, "size_bytes": region.size,
                "file_system": region.file_system, "label": region.label, "fate": "destroyed",
            })
        });
        let ways = plan
            .ways
            .iter()
            .map(|way| json!({ "method": way.method(), "words": way.words() }));
        json!({
            "result": "plan",
            "disk": self.disk.path,
            "disk_bytes": plan.disk_bytes,
            "ordered": plan.ordered,
            "ways": ways.collect::<Vec<_>>(),
            "can": plan.can,
            "now": now.collect::<Vec<_>>(),
        })
    }
}
