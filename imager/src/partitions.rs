//! Chosen partitions: by number, and proved to be the ones that are meant.
//!
//! Owns: how a choice is written, and its comparison with the partitions that are
//! there. Does not own: what is done with them.
//!
//! Numbers are what people type. What a job stores beside them (GUID, start, type) says
//! whether the number still points at the same partition.

use diskmap::{DiskMap, Region, RegionKind};
use std::str::FromStr;
use wire::{Code, DiskState, PartitionChoice, Report, size};

pub use wire::PartitionChoice as Choice;

/// A choice on the command line: `NUMBER`, or `NUMBER,guid=GUID,start=BYTES,type=TYPE`
/// with any of the three, which are compared with what is there.
#[derive(Clone, Debug)]
pub struct Given(pub Choice);

impl FromStr for Given {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let choice: PartitionChoice = text.parse()?;
        if choice.number == 0 {
            return Err("a partition is named by its number, from 1".to_owned());
        }
        Ok(Given(choice))
    }
}

/// The partitions of a disk, in the order of the disk.
fn partitions(map: &DiskMap) -> impl Iterator<Item = &Region> {
    map.regions
        .iter()
        .filter(|region| region.kind == RegionKind::Partition)
}

fn find(map: &DiskMap, number: u32) -> Option<&Region> {
    partitions(map).find(|region| region.number == Some(number))
}

/// Refuses choices that are not there, or are not what they are said to be.
///
/// # Errors
/// `partition-not-found` with a list of those that are there; `partition-identity`.
pub fn check(map: &DiskMap, choices: &[Choice], disk: DiskState) -> Result<(), Report> {
    let numbers: Vec<u32> = choices.iter().map(|choice| choice.number).collect();
    check_numbers(map, &numbers, disk)?;
    for choice in choices {
        if let Some(region) = find(map, choice.number) {
            check_identity(region, choice, disk)?;
        }
    }
    Ok(())
}

/// Refuses numbers of partitions that are not there.
///
/// # Errors
/// `partition-not-found` with a list of those that are there.
pub fn check_numbers(map: &DiskMap, numbers: &[u32], disk: DiskState) -> Result<(), Report> {
    let Some(missing) = numbers.iter().find(|&&number| find(map, number).is_none()) else {
        return Ok(());
    };
    let list: Vec<String> = partitions(map).map(describe).collect();
    let there = match (map.table, list.is_empty()) {
        (diskmap::TableKind::None, _) => "the disk has no partition table".to_owned(),
        (_, true) => "the disk has no partitions".to_owned(),
        _ => format!("the partitions that are there: {}", list.join("; ")),
    };
    let found = format!("looked for partition {missing}; {there}");
    Err(Report::new(Code::PartitionNotFound, found, disk))
}

/// One partition in a list.
fn describe(region: &Region) -> String {
    let mut text = format!(
        "{} ({}",
        region.number.unwrap_or(0),
        size::bytes(region.size)
    );
    for word in [&region.file_system, &region.label, &region.type_name] {
        if !word.is_empty() {
            text += &format!(", {}", crate::map::printable(word, 40));
        }
    }
    text + ")"
}

fn check_identity(region: &Region, choice: &Choice, disk: DiskState) -> Result<(), Report> {
    let mut differs = Vec::new();
    let mut compare = |what: &str, wanted: Option<String>, there: String| {
        if let Some(wanted) = wanted.filter(|wanted| !wanted.eq_ignore_ascii_case(&there)) {
            let there = if there.is_empty() { "none" } else { &there };
            differs.push(format!(
                "{what}: the job means {wanted}, the disk has {there}"
            ));
        }
    };
    compare("GUID", choice.guid.clone(), region.guid.clone());
    compare(
        "start in bytes",
        choice.start_bytes.map(|start| start.to_string()),
        region.start.to_string(),
    );
    compare("type", choice.part_type.clone(), region.part_type.clone());
    if differs.is_empty() {
        return Ok(());
    }
    let found = format!("partition {}: {}", choice.number, differs.join("; "));
    Err(Report::new(Code::PartitionIdentity, found, disk))
}

#[cfg(test)]
mod tests {
    use super::*;
    use diskmap::{Extents, Geometry, Method, TableKind};

    fn map() -> DiskMap {
        let region = |number: u32| Region {
            kind: RegionKind::Partition,
            number: Some(number),
            start: u64::from(number) << 20,
            size: 1 << 20,
            part_type: "0x83".into(),
            type_name: "Linux".into(),
            name: String::new(),
            guid: format!("AB-{number}"),
            bootable: false,
            hidden: false,
            file_system: "ext4".into(),
            label: "root".into(),
            uuid: String::new(),
            method: Method::Used,
            used: Extents::new(),
            reason: String::new(),
        };
        DiskMap {
            geometry: Geometry {
                size_bytes: 1 << 30,
                sector_size: 512,
            },
            table: TableKind::Gpt,
            blobs: Vec::new(),
            disk_id: String::new(),
            regions: vec![region(1), region(5)],
            warnings: Vec::new(),
        }
    }

    fn given(text: &str) -> Vec<Choice> {
        vec![text.parse::<Given>().unwrap().0]
    }

    #[test]
    fn identity_is_compared_as_far_as_it_is_known() {
        for good in [
            "5",
            "5,guid=ab-5",
            "5,start=5242880,type=0X83",
            "1,type=0x83,guid=AB-1,start=1048576",
        ] {
            check(&map(), &given(good), DiskState::Untouched).unwrap();
        }
        for (bad, named) in [
            ("5,guid=AB-1", "GUID: the job means AB-1, the disk has AB-5"),
            (
                "1,start=0",
                "start in bytes: the job means 0, the disk has 1048576",
            ),
            ("1,type=0x07", "type: the job means 0x07, the disk has 0x83"),
        ] {
            let report = check(&map(), &given(bad), DiskState::Untouched).unwrap_err();
            assert_eq!(report.code, Code::PartitionIdentity);
            assert!(report.found.contains(named), "{}", report.found);
        }
    }

    #[test]
    fn a_missing_one_lists_those_that_are_there() {
        let report = check(&map(), &given("2"), DiskState::Untouched).unwrap_err();
        assert_eq!(report.code, Code::PartitionNotFound);
        assert_eq!(
            report.found,
            "looked for partition 2; the partitions that are there: \
             1 (1.00 MiB, ext4, root, Linux); 5 (1.00 MiB, ext4, root, Linux)"
        );
        let mut bare = map();
        bare.table = TableKind::None;
        bare.regions.clear();
        let report = check_numbers(&bare, &[1], DiskState::Untouched).unwrap_err();
        assert!(report.found.ends_with("no partition table"));
    }

    #[test]
    fn choices_that_cannot_be_understood() {
        for bad in ["", "0", "-1", "x", "1,guid", "1,size=5", "1,start=x"] {
            assert!(bad.parse::<Given>().is_err(), "{bad}");
        }
    }
}
