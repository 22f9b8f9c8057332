//! The map of a disk as people and scripts see it.
//!
//! Owns: the names in JSON, on which scripts rely, and the table for people. Does not
//! own: how the map is found (`diskmap`).

use crate::numbering::Numbering;
use diskmap::{DiskMap, Region, RegionKind};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;
use wire::size;

/// The stable JSON form. `partitions` has what has a number (a disk without a table is
/// number 0), `gaps` the areas outside of partitions.
pub fn json(map: &DiskMap, extents: bool) -> Value {
    let visible = numbering(map, true);
    let of_kind = |gap: bool| -> Vec<Value> {
        let wanted = map
            .regions
            .iter()
            .filter(|region| (region.kind == RegionKind::Gap) == gap);
        wanted
            .map(|region| region_json(region, &visible, extents))
            .collect()
    };
    json!({
        "size_bytes": map.geometry.size_bytes,
        "sector_size": map.geometry.sector_size,
        "table": map.table.as_str(),
        "disk_id": map.disk_id,
        "used_bytes": map.regions.iter().map(|region| region.used.total()).sum::<u64>(),
        "partitions": of_kind(false),
        "gaps": of_kind(true),
        "warnings": map.warnings.iter().map(|w| json!({
            "code": w.kind.code(), "partition": w.partition, "found": w.detail,
        })).collect::<Vec<_>>(),
    })
}

fn region_json(region: &Region, visible: &Numbering, extents: bool) -> Value {
    let mut value = json!({
        "number": region.number,
        "visible_number": region.number.and_then(|number| visible.given(number)),
        "start_bytes": region.start,
        "size_bytes": region.size,
        "type": region.part_type,
        "type_name": region.type_name,
        "name": region.name,
        "guid": region.guid,
        "bootable": region.bootable,
        "hidden": region.hidden,
        "file_system": region.file_system,
        "label": region.label,
        "uuid": region.uuid,
        "method": region.method.as_str(),
        "used_bytes": region.used.total(),
        "reason": region.reason,
    });
    if extents {
        let list = region
            .used
            .iter()
            .map(|e| json!([region.start.saturating_add(e.start), e.len]));
        value["extents"] = list.collect();
    }
    value
}

/// How the partitions are numbered, with hidden ones or without.
fn numbering(map: &DiskMap, number_visible: bool) -> Numbering {
    let partitions = map.regions.iter();
    let numbered = partitions.filter_map(|region| Some((region.number?, region.hidden)));
    // What fills a disk without a table is number 0 either way.
    let number_visible = number_visible && map.table != diskmap::TableKind::None;
    Numbering::new(numbered, number_visible)
}

/// The table for people; with `number_visible` the numbers are those without hidden
/// partitions, and the table's stand beside them.
pub fn text(path: &Path, map: &DiskMap, number_visible: bool) -> String {
    let numbering = numbering(map, number_visible);
    let width = if number_visible { 14 } else { 4 };
    let table = match map.table {
        diskmap::TableKind::Gpt => "GPT",
        diskmap::TableKind::Mbr => "MBR",
        diskmap::TableKind::None => "no partition table",
    };
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "{}: {} ({} bytes), sectors of {} bytes, {table}",
        path.display(),
        size::bytes(map.geometry.size_bytes),
        map.geometry.size_bytes,
        map.geometry.sector_size
    );
    let _ = writeln!(
        out,
        "{:>width$}  {:>10}  {:>10}  {:<10} {:<16} {:>10}  how and why",
        if number_visible {
            "no. = in table"
        } else {
            "no."
        },
        "start",
        "size",
        "content",
        "label",
        "copied"
    );
    for region in &map.regions {
        let number = match (region.kind, region.number) {
            (RegionKind::Gap, _) | (_, None) => "gap".to_owned(),
            (RegionKind::Whole, _) => "disk".to_owned(),
            (RegionKind::Partition, Some(number)) if number_visible => {
                let given = numbering.given(number);
                let given = given.map_or("hidden".to_owned(), |given| given.to_string());
                format!("{given} = {number}")
            }
            (RegionKind::Partition, Some(number)) => number.to_string(),
        };
        let content = if region.file_system.is_empty() {
            "-"
        } else {
            &region.file_system
        };
        let label = if region.label.is_empty() {
            &region.name
        } else {
            &region.label
        };
        let _ = writeln!(
            out,
            "{number:>width$}  {:>10}  {:>10}  {content:<10} {:<16} {:>10}  {}: {}",
            size::bytes(region.start),
            size::bytes(region.size),
            printable(label, 16),
            size::bytes(region.used.total()),
            region.method.as_str(),
            region.reason
        );
    }
    let used: u64 = map.regions.iter().map(|region| region.used.total()).sum();
    let _ = writeln!(out, "A backup copies {} ({used} bytes).", size::bytes(used));
    out
}

/// Foreign text that cannot steer a terminal, cut to `width` characters.
pub fn printable(text: &str, width: usize) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .take(width)
        .collect()
}
