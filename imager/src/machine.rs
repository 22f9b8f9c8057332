//! The machine that runs this program, as an image describes it.
//!
//! Owns: reading a few lines of /sys, and what an image's machine has to have in common with
//! it. Does not own: disks and network.

use diskmap::DiskMap;
use image::Layout;
use image::layout::Machine;
use std::path::Path;
use wire::{Code, DiskState, Report};

/// Name, identity and kind of this machine, as far as they can be known.
pub fn describe() -> Machine {
    Machine {
        name: line("/proc/sys/kernel/hostname"),
        uuid: line("/sys/class/dmi/id/product_uuid").to_lowercase(),
        model: format!(
            "{} {}",
            line("/sys/class/dmi/id/sys_vendor"),
            line("/sys/class/dmi/id/product_name")
        )
        .trim()
        .to_owned(),
        firmware: firmware().to_owned(),
        architecture: std::env::consts::ARCH.to_owned(),
    }
}

/// Why an image of another machine may not start on this one: architecture, firmware mode
/// or, where `disk` tells what the disk holds now, the family of operating systems differ.
/// `None` where they agree, or either side does not tell.
pub fn misfit(layout: &Layout, disk: Option<&DiskMap>) -> Option<Report> {
    let image = family(layout.regions.iter().map(|r| r.file_system.as_str()));
    let now = disk.and_then(|map| family(map.regions.iter().map(|r| r.file_system.as_str())));
    misfit_of(&layout.machine, &describe(), (image, now))
}

/// The family of operating systems that these file systems speak of; `None` if they speak of
/// none, or of several.
fn family<'a>(file_systems: impl Iterator<Item = &'a str>) -> Option<&'static str> {
    let mut found = None;
    for name in file_systems {
        let family = match name {
            "ntfs" | "refs" | "bitlocker" => "Windows",
            "ext2" | "ext3" | "ext4" | "xfs" | "btrfs" | "f2fs" | "swap" | "lvm2" | "md"
            | "luks" | "jfs" | "reiserfs" => "Linux",
            "apfs" | "hfsplus" => "macOS",
            "ufs" | "bsdlabel" => "BSD",
            _ => continue, // FAT and the like are everybody's
        };
        if *found.get_or_insert(family) != family {
            return None;
        }
    }
    found
}

fn misfit_of(
    made_on: &Machine,
    here: &Machine,
    (image, now): (Option<&str>, Option<&str>),
) -> Option<Report> {
    let differs = |a: &str, b: &str| !a.is_empty() && !b.is_empty() && a != b;
    let mut found = Vec::new();
    for (what, image, here) in [
        (
            "architecture",
            made_on.architecture.as_str(),
            here.architecture.as_str(),
        ),
        ("firmware mode", &made_on.firmware, &here.firmware),
        (
            "operating system",
            image.unwrap_or_default(),
            now.unwrap_or_default(),
        ),
    ] {
        if differs(image, here) {
            found.push(format!("{what}: image {image}, machine {here}"));
        }
    }
    (!found.is_empty()).then(|| {
        Report::new(
            Code::ImageNotForMachine,
            found.join("; "),
            DiskState::Untouched,
        )
    })
}

/// `uefi` or `bios`.
pub fn firmware() -> &'static str {
    if Path::new("/sys/firmware/efi").exists() {
        "uefi"
    } else {
        "bios"
    }
}

/// The first line of a small file; empty if it cannot be read.
fn line(path: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::{family, misfit_of};
    use image::layout::Machine;
    use wire::{Code, DiskState};

    fn machine(architecture: &str, firmware: &str) -> Machine {
        Machine {
            architecture: architecture.into(),
            firmware: firmware.into(),
            ..Machine::default()
        }
    }

    #[test]
    fn an_image_of_another_kind_of_machine_is_told() {
        let here = machine("x86_64", "uefi");
        for fits in [("x86_64", "uefi"), ("", "uefi"), ("", "")] {
            assert_eq!(
                misfit_of(&machine(fits.0, fits.1), &here, (None, None)),
                None
            );
        }
        let report = misfit_of(&machine("aarch64", "bios"), &here, (None, None)).unwrap();
        assert_eq!(
            (report.code, report.disk),
            (Code::ImageNotForMachine, DiskState::Untouched)
        );
        assert_eq!(
            report.found,
            "architecture: image aarch64, machine x86_64; firmware mode: image bios, machine uefi"
        );
    }

    #[test]
    fn an_image_of_another_system_is_told_where_both_sides_are_known() {
        let here = machine("x86_64", "uefi");
        let (windows, linux) = (Some("Windows"), Some("Linux"));
        for fits in [(windows, windows), (windows, None), (None, linux)] {
            assert_eq!(misfit_of(&here, &here, fits), None);
        }
        let report = misfit_of(&here, &here, (linux, windows)).unwrap();
        assert_eq!(
            report.found,
            "operating system: image Linux, machine Windows"
        );
        let of = |names: &[&str]| family(names.iter().copied());
        assert_eq!(of(&["fat32", "ntfs", "", "ntfs"]), windows);
        assert_eq!(of(&["fat32", "ext4", "swap"]), linux);
        assert_eq!(of(&["fat32", "exfat"]), None);
        assert_eq!(of(&["ntfs", "ext4"]), None);
    }
}
