//! Partitions that an operator chooses by number: looked up in the machine's last disk
//! check, and stored with what they are.
//!
//! Owns: the way from a number to an identity. Does not own: the comparison with the
//! disk, which the target makes before it does anything.

use crate::db::machines::Machine;
use crate::failure::{Failure, Outcome};
use serde_json::Value;
use wire::{Code, DiskCheckEntry, DiskInfo, DiskSelector, PartitionChoice, size};

/// The choices of a job for `machine`, with the identity that they have now. With `visible`
/// numbers count only partitions that are not hidden.
///
/// # Errors
/// `partition-not-found`: the last disk check does not have them, or there was none.
pub fn partitions(
    machine: &Machine,
    disk: Option<&DiskSelector>,
    numbers: &[u32],
    visible: bool,
) -> Outcome<Vec<PartitionChoice>> {
    if numbers.is_empty() {
        return Ok(Vec::new());
    }
    let there = listed(machine, disk)?;
    let find = |&number: &u32| {
        let known = there
            .iter()
            .find(|partition| number_of(partition, visible) == number);
        known
            .map(|partition| choice(number, partition))
            .ok_or(number)
    };
    let choices: Result<Vec<PartitionChoice>, u32> = numbers.iter().map(find).collect();
    choices.map_err(|missing| {
        let list: Vec<String> = there
            .iter()
            .filter(|partition| number_of(partition, visible) > 0)
            .map(|partition| describe(partition, visible))
            .collect();
        let list = if list.is_empty() {
            "none".to_owned()
        } else {
            list.join("; ")
        };
        Failure::new(
            Code::PartitionNotFound,
            format!("looked for partition {missing}; the last disk check has: {list}"),
        )
    })
}

/// A disk that an operator named by its number, named by what does not change: numbers are
/// those of the machine's last check-in, and the next boot may count otherwise.
///
/// # Errors
/// `disk-not-found` with a list of the disks that the machine had.
pub fn disk(machine: &Machine, selector: Option<DiskSelector>) -> Outcome<Option<DiskSelector>> {
    let Some(number) = selector.as_ref().and_then(|selector| selector.number) else {
        return Ok(selector);
    };
    let known = machine.disks.iter().find(|disk| disk.number == number);
    let Some(disk) = known else {
        let list: Vec<String> = machine.disks.iter().map(describe_disk).collect();
        let list = if list.is_empty() {
            "none".to_owned()
        } else {
            list.join("; ")
        };
        let found = format!("looked for disk {number}; the last check-in had: {list}");
        return Err(Failure::new(Code::DiskNotFound, found));
    };
    Ok(Some(identity(disk)))
}

/// A disk named by what does not change, or by its path if it has nothing of the kind.
pub fn identity(disk: &DiskInfo) -> DiskSelector {
    let given = |name: &str| (!name.is_empty()).then(|| name.to_owned());
    let (serial, wwn) = (given(&disk.serial), given(&disk.wwn));
    let path = (serial.is_none() && wwn.is_none()).then(|| disk.path.clone());
    DiskSelector {
        serial,
        wwn,
        path,
        number: None,
    }
}

/// The disks of the machine's last check-in that a job without a named disk may mean.
pub fn built_in(machine: &Machine) -> Vec<&DiskInfo> {
    let disks = machine.disks.iter();
    disks.filter(|disk| fits(disk, None)).collect()
}

/// The disk of the machine's last check-in that a description fits, if it is one.
pub fn known<'a>(machine: &'a Machine, selector: &DiskSelector) -> Option<&'a DiskInfo> {
    let mut fitting = machine
        .disks
        .iter()
        .filter(|disk| fits(disk, Some(selector)));
    fitting.next().filter(|_| fitting.next().is_none())
}

fn describe_disk(disk: &DiskInfo) -> String {
    format!(
        "{}: {} ({})",
        disk.number,
        disk.path,
        size::bytes(disk.size_bytes)
    )
}

/// The partitions of the disk that is meant, as the last disk check has them.
fn listed<'a>(machine: &'a Machine, disk: Option<&DiskSelector>) -> Outcome<Vec<&'a Value>> {
    let unknown = |found: String| {
        Err(
            Failure::new(Code::PartitionNotFound, found).with_advice(format!(
                "Let the server look at the machine's disks first: deployctl disk-check {}",
                machine.name
            )),
        )
    };
    let Some(check) = &machine.disk_check else {
        return unknown(format!(
            "the partitions of machine \"{}\" are not known yet",
            machine.name
        ));
    };
    let fitting: Vec<&DiskCheckEntry> = check
        .disks
        .iter()
        .filter(|entry| fits(&entry.info, disk))
        .collect();
    let [entry] = fitting[..] else {
        return unknown(format!(
            "{} disks of the last disk check fit the description of the disk",
            fitting.len()
        ));
    };
    let partitions = entry.map.as_ref().and_then(|map| map.get("partitions"));
    Ok(partitions
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|partition| number_of(partition, false) > 0)
        .collect())
}

/// The same rule as the target's.
fn fits(disk: &DiskInfo, selector: Option<&DiskSelector>) -> bool {
    let Some(selector) = selector.filter(|selector| **selector != DiskSelector::default()) else {
        return !disk.removable && !matches!(disk.bus.as_str(), "usb" | "loop");
    };
    let same = |wanted: &Option<String>, has: &str| {
        wanted
            .as_ref()
            .is_none_or(|wanted| wanted.eq_ignore_ascii_case(has) && !has.is_empty())
    };
    same(&selector.serial, &disk.serial)
        && same(&selector.wwn, &disk.wwn)
        && selector.path.as_ref().is_none_or(|path| disk.is_at(path))
}

fn number_of(partition: &Value, visible: bool) -> u32 {
    let field = if visible { "visible_number" } else { "number" };
    let number = partition.get(field).and_then(Value::as_u64);
    number
        .and_then(|number| u32::try_from(number).ok())
        .unwrap_or(0)
}

fn text(partition: &Value, field: &str) -> Option<String> {
    let text = partition.get(field).and_then(Value::as_str);
    text.filter(|text| !text.is_empty()).map(str::to_owned)
}

fn choice(number: u32, partition: &Value) -> PartitionChoice {
    PartitionChoice {
        number,
        guid: text(partition, "guid"),
        start_bytes: partition.get("start_bytes").and_then(Value::as_u64),
        part_type: text(partition, "type"),
    }
}

fn describe(partition: &Value, visible: bool) -> String {
    let bytes = partition.get("size_bytes").and_then(Value::as_u64);
    let mut words = vec![size::bytes(bytes.unwrap_or(0))];
    words.extend(
        ["file_system", "label"]
            .iter()
            .filter_map(|field| text(partition, field)),
    );
    format!("{} ({})", number_of(partition, visible), words.join(", "))
}
