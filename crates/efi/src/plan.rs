//! What a restored disk changes of the boot entries.
//!
//! Owns: the rules. Does not own: how the entries are read and written, or what is found on
//! the disk.
//!
//! - An entry that leads to the disk's partition, or to one that the disk had before, and
//!   whose file is there, is kept and made to name the partition as it is now.
//! - One whose file is not there any more goes, and so does one that is the same as another.
//! - If none is left that the firmware tries, one is made for each loader.
//! - What is added to the order comes behind the network entries at its head; the rest of the
//!   order stays. Everything else stays as it is.

use crate::load_option::LoadOption;
use crate::path::{DevicePath, HardDrive, Node, Signature};
use std::collections::BTreeMap;

/// The firmware's boot entries as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Firmware {
    /// Their bytes, by number.
    pub entries: BTreeMap<u16, Vec<u8>>,
    /// The order in which they are tried.
    pub order: Vec<u16>,
}

/// A program that starts an operating system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loader {
    /// Name for people.
    pub name: String,
    /// Its file, as `\EFI\debian\shimx64.efi`.
    pub file: String,
}

/// An EFI system partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Esp {
    /// Which one it is.
    pub place: HardDrive,
    /// What it has to start, the best first.
    pub loaders: Vec<Loader>,
}

/// A disk that was restored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Its EFI system partitions.
    pub esps: Vec<Esp>,
    /// Identities that partitions of it had before, and none has now.
    pub gone: Vec<Signature>,
}

/// One change, with what it is for, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An entry is made, or replaced.
    Set {
        /// Its number.
        number: u16,
        /// Its bytes.
        bytes: Vec<u8>,
        /// What happened, for people.
        why: String,
    },
    /// The order is another one.
    Order {
        /// It.
        order: Vec<u16>,
        /// What happened, for people.
        why: String,
    },
    /// An entry goes.
    Delete {
        /// Its number.
        number: u16,
        /// What happened, for people.
        why: String,
    },
}

/// The changes, in the order in which they are to be made. `exists` tells whether a file is on
/// the ESP of that position; none if that cannot be told.
pub fn plan(
    firmware: &Firmware,
    restored: &Restored,
    exists: &dyn Fn(usize, &str) -> Option<bool>,
) -> Vec<Change> {
    let mut work = Work {
        restored,
        exists,
        seen: Vec::new(),
        booting: vec![Vec::new(); restored.esps.len()],
        set: Vec::new(),
        deleted: Vec::new(),
    };
    let unlisted = firmware
        .entries
        .keys()
        .filter(|n| !firmware.order.contains(n));
    for &number in firmware.order.iter().chain(unlisted) {
        let bytes = firmware.entries.get(&number);
        if let Some(option) = bytes.and_then(|bytes| LoadOption::decode(bytes)) {
            work.look_at(number, &option);
        }
    }
    let added = work.make_missing(firmware);
    let order = new_order(firmware, &work.deleted, &added);
    let mut changes = work.set;
    if order != firmware.order {
        let why = format!(
            "boot order {} became {}",
            list(&firmware.order),
            list(&order)
        );
        changes.push(Change::Order { order, why });
    }
    let deleted = work.deleted.into_iter();
    changes.extend(deleted.map(|(number, why)| Change::Delete { number, why }));
    changes
}

/// What an entry starts: the ESP's position, the file in small letters, its arguments, and
/// whether the firmware does it by itself.
type Started = (usize, String, Vec<u8>, bool);

struct Work<'a> {
    restored: &'a Restored,
    exists: &'a dyn Fn(usize, &str) -> Option<bool>,
    /// What each kept entry starts, with its number. One that is switched off is no double of
    /// one that is not.
    seen: Vec<(Started, u16)>,
    /// Entries that start something on each ESP, by its position.
    booting: Vec<Vec<u16>>,
    set: Vec<Change>,
    deleted: Vec<(u16, String)>,
}

impl Work<'_> {
    fn look_at(&mut self, number: u16, option: &LoadOption) {
        let Some(drive) = option.path.hard_drive().filter(|_| option.is_boot()) else {
            return;
        };
        let mut esps = self.restored.esps.iter();
        let here = esps.position(|esp| is_same(&esp.place, &drive));
        let gone = self.restored.gone.contains(&drive.signature);
        if here.is_none() && !gone {
            return;
        }
        // A path that ends at the partition means what is at the fixed place there; such an
        // entry is the firmware's own.
        let file = option.path.file();
        if file.is_empty() {
            if let Some(list) = here.and_then(|at| self.booting.get_mut(at)) {
                list.extend(option.is_active().then_some(number));
            }
            return;
        }
        let homes = match here {
            Some(at) => at..at + 1,
            None => 0..self.restored.esps.len(),
        };
        let answers: Vec<(usize, Option<bool>)> =
            homes.map(|at| (at, (self.exists)(at, &file))).collect();
        let found = answers.iter().find(|(_, there)| *there == Some(true));
        let named = |what: &str| format!("boot entry {number:04X} \"{}\" {what}", option.name());
        let Some(&(at, _)) = found else {
            // What cannot be looked at is left alone.
            if answers.iter().all(|(_, there)| *there == Some(false)) {
                let why = named(&format!(
                    "removed: there is no {} any more",
                    printable(&file)
                ));
                self.deleted.push((number, why));
            } else if let Some(list) = here.and_then(|at| self.booting.get_mut(at)) {
                list.extend(option.is_active().then_some(number));
            }
            return;
        };
        let active = option.is_active();
        let key = (at, file.to_lowercase(), option.optional.clone(), active);
        let first = self.seen.iter().find(|(seen, _)| *seen == key);
        if let Some((_, first)) = first {
            let why = named(&format!("removed: it is the same as {first:04X}"));
            self.deleted.push((number, why));
            return;
        }
        let Some(esp) = self.restored.esps.get(at) else {
            return;
        };
        if esp.place != drive {
            let moved = LoadOption {
                path: option.path.moved_to(&esp.place),
                ..option.clone()
            };
            let Some(bytes) = moved.encode() else { return };
            let part = esp.place.partition;
            let why = named(&format!(
                "corrected: it leads to partition {part} as it is now"
            ));
            self.set.push(Change::Set { number, bytes, why });
        }
        self.seen.push((key, number));
        if let Some(list) = self.booting.get_mut(at) {
            list.extend(option.is_active().then_some(number));
        }
    }

    /// What goes into the order: entries that are not in it, and those that are made here.
    fn make_missing(&mut self, firmware: &Firmware) -> Vec<u16> {
        let is_used = |n: &u16| firmware.entries.contains_key(n) || firmware.order.contains(n);
        let mut free = (0..=u16::MAX).filter(|n| !is_used(n));
        let mut added = Vec::new();
        for (esp, booting) in self.restored.esps.iter().zip(&self.booting) {
            if booting.iter().any(|number| firmware.order.contains(number)) {
                continue;
            }
            if let Some(&first) = booting.first() {
                added.push(first);
                continue;
            }
            for loader in &esp.loaders {
                let Some(number) = free.next() else {
                    return added;
                };
                let nodes = vec![esp.place.node(), Node::file(&loader.file)];
                let option = LoadOption::new(&loader.name, DevicePath::of(nodes));
                let Some(bytes) = option.encode() else {
                    continue;
                };
                let why = format!(
                    "boot entry {number:04X} \"{}\" made: {} on partition {}",
                    option.name(),
                    printable(&loader.file),
                    esp.place.partition
                );
                self.set.push(Change::Set { number, bytes, why });
                added.push(number);
            }
        }
        added
    }
}

/// Whether a path means this partition. On an MBR disk all have the disk's signature.
fn is_same(esp: &HardDrive, drive: &HardDrive) -> bool {
    let one_of_many = matches!(esp.signature, Signature::Mbr(_));
    esp.signature == drive.signature && (!one_of_many || esp.partition == drive.partition)
}

/// The order without what goes, and what is added behind the network entries at its head.
fn new_order(firmware: &Firmware, deleted: &[(u16, String)], added: &[u16]) -> Vec<u16> {
    let stays = |number: &&u16| !deleted.iter().any(|(gone, _)| gone == *number);
    let mut order: Vec<u16> = firmware.order.iter().filter(stays).copied().collect();
    let is_network = |number: &&u16| {
        let bytes = firmware.entries.get(*number);
        let option = bytes.and_then(|bytes| LoadOption::decode(bytes));
        option.is_some_and(|option| option.is_network())
    };
    let head = order.iter().take_while(is_network).count();
    order.splice(head..head, added.iter().copied());
    order
}

fn list(order: &[u16]) -> String {
    let names: Vec<String> = order.iter().map(|n| format!("{n:04X}")).collect();
    match names.is_empty() {
        true => "(none)".to_owned(),
        false => names.join(","),
    }
}

/// A path of the firmware's in a message.
fn printable(path: &str) -> String {
    let plain = |c: char| if c.is_control() { '?' } else { c };
    path.chars().take(100).map(plain).collect()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
