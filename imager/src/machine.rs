//! The machine that runs this program, as an image describes it.
//!
//! Owns: reading a few lines of /sys. Does not own: disks and network.

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

/// Why an image of another machine may not start on this one: architecture and firmware
/// mode differ. `None` where they agree, or either side does not tell.
pub fn misfit(made_on: &Machine) -> Option<Report> {
    misfit_of(made_on, &describe())
}

fn misfit_of(made_on: &Machine, here: &Machine) -> Option<Report> {
    let differs = |a: &str, b: &str| !a.is_empty() && !b.is_empty() && a != b;
    let mut found = Vec::new();
    for (what, image, here) in [
        ("architecture", &made_on.architecture, &here.architecture),
        ("firmware mode", &made_on.firmware, &here.firmware),
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
    use super::misfit_of;
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
            assert_eq!(misfit_of(&machine(fits.0, fits.1), &here), None);
        }
        let report = misfit_of(&machine("aarch64", "bios"), &here).unwrap();
        assert_eq!(
            (report.code, report.disk),
            (Code::ImageNotForMachine, DiskState::Untouched)
        );
        assert_eq!(
            report.found,
            "architecture: image aarch64, machine x86_64; firmware mode: image bios, machine uefi"
        );
    }
}
