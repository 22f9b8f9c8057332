//! What a restore or a wipe destroys, and the question whether it may.
//!
//! Owns: what is shown before an order, and the answer that confirms it. Does not own: the
//! order.

use super::client::{Answer, Problem};
use super::disks;
use super::show::{clean, lost, time};
use crate::http::api::ImageInfo;
use crate::view::{MachineView, Placement};
use std::io::{IsTerminal, Write};
use wire::size::bytes;
use wire::{Code, DiskInfo, RestoreScope, WipeMethod};

/// What of a disk is overwritten, as the beginning of a sentence.
fn what_of_the_disk(scope: &RestoreScope) -> String {
    let list = |numbers: Vec<String>| numbers.join(", ");
    let hidden = if scope.number_visible {
        ", hidden ones not counted"
    } else {
        ""
    };
    if !scope.partitions.is_empty() {
        let numbers = scope.partitions.iter().map(|choice| {
            let (from, into) = (choice.image.number, choice.disk.number);
            if from == into {
                into.to_string()
            } else {
                format!("{into} (with {from} of the image)")
            }
        });
        return format!("Only partition {}{hidden}", list(numbers.collect()));
    }
    if !scope.keep.is_empty() {
        let numbers = scope.keep.iter().map(|part| part.number.to_string());
        return format!(
            "Everything but partition {}{hidden}",
            list(numbers.collect())
        );
    }
    "Everything".to_owned()
}

/// What a restore destroys, to be read before it is confirmed.
pub fn what_will_be_overwritten(
    machine: &MachineView,
    info: &ImageInfo,
    chosen: Option<&str>,
    scope: &RestoreScope,
) -> String {
    let mut lines = vec![format!(
        "Image \"{}\" of machine {} ({}) will be written to machine {}.",
        info.image.name,
        info.image.machine,
        time(info.image.created),
        machine.name
    )];
    lines.extend(of_one(machine, chosen, scope));
    lines.extend(lost(info));
    lines.join("\n")
}

/// What a restore of many machines destroys.
pub fn what_of_a_room(machines: &[MachineView], info: &ImageInfo, chosen: Option<&str>) -> String {
    let count = match machines.len() {
        1 => "1 machine".to_owned(),
        count => format!("{count} machines"),
    };
    let mut lines = vec![format!(
        "Image \"{}\" of machine {} ({}) will be written to {count} by multicast.",
        info.image.name,
        info.image.machine,
        time(info.image.created),
    )];
    for machine in machines {
        let mut words = of_one(machine, chosen, &RestoreScope::default()).into_iter();
        let first = words.next().unwrap_or_default();
        lines.push(format!("  {}: {first}", machine.name));
        lines.extend(words.map(|line| format!("  {line}")));
    }
    lines.extend(lost(info));
    lines.join("\n")
}

/// What a wipe destroys.
pub fn what_will_be_wiped(
    machine: &MachineView,
    chosen: Option<&str>,
    method: WipeMethod,
) -> String {
    let mut lines = vec![format!(
        "A disk of machine {} will be wiped ({method}). Nothing brings back what is on it.",
        machine.name
    )];
    lines.extend(of_one(machine, chosen, &RestoreScope::default()));
    lines.join("\n")
}

/// What of one machine's disk is overwritten.
fn of_one(machine: &MachineView, chosen: Option<&str>, scope: &RestoreScope) -> Vec<String> {
    let what = what_of_the_disk(scope);
    let fixed: Vec<&DiskInfo> = machine
        .disks
        .iter()
        .filter(|d| !d.removable)
        .filter(|d| {
            let number = format!("number={}", d.number);
            chosen.is_none_or(|c| c == d.serial || c == d.wwn || c == number || d.is_at(c))
        })
        .collect();
    match (chosen, fixed.as_slice()) {
        (_, [one]) => vec![format!(
            "{what} on this disk will be overwritten: {}",
            disks::line(one)
        )],
        (Some(name), _) => vec![format!("{what} on disk {name} will be overwritten.")],
        (None, []) => vec![format!(
            "{what} on its only fixed disk will be overwritten; the server has not seen it yet."
        )],
        (None, several) => {
            let known = several.iter().map(|d| format!("  {}", disks::line(d)));
            std::iter::once(
                "It has several disks: name one with --disk, or the machine will refuse."
                    .to_owned(),
            )
            .chain(known)
            .collect()
        }
    }
}

/// What a restore of several disks will do, for the confirmation.
pub fn what_of_a_set(machine: &MachineView, info: &ImageInfo, placements: &[Placement]) -> String {
    let mut lines = vec![format!(
        "The images \"{}\" of machine {} ({}) will be written to machine {}. Everything on these \
         disks will be overwritten:",
        info.image.name,
        info.image.machine,
        time(info.image.created),
        machine.name
    )];
    for (part, one) in placements.iter().enumerate() {
        let of = [one.model.as_str(), one.serial.as_str()];
        let of: Vec<&str> = of.into_iter().filter(|text| !text.is_empty()).collect();
        let made_of = format!("{} {}", bytes(one.size_bytes), of.join(" "));
        lines.push(format!(
            "  image of disk {} ({})",
            part + 1,
            made_of.trim_end()
        ));
        lines.push(match &one.known {
            Some(disk) => format!("    goes to {}", disks::line(disk)),
            None => {
                let named = [&one.disk.serial, &one.disk.wwn, &one.disk.path];
                let named: Vec<&str> = named.into_iter().flatten().map(String::as_str).collect();
                format!(
                    "    goes to {}, which the server has not seen at the last check-in",
                    named.join(" ")
                )
            }
        });
    }
    lines.extend(lost(info));
    lines.join("\n")
}

/// Whether `answer` was typed, which is `what`. Without a terminal nothing is confirmed.
///
/// # Errors
/// The terminal fails.
pub fn confirmed(what: &str, answer: &str) -> Answer<bool> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Ok(false);
    }
    eprint!("Type {what} to go on ({}): ", clean(answer));
    let mut typed = String::new();
    let failed = |e: std::io::Error| Problem::new(Code::OutputFailed, format!("the terminal: {e}"));
    std::io::stderr().flush().map_err(failed)?;
    stdin.read_line(&mut typed).map_err(failed)?;
    Ok(typed.trim() == answer)
}
