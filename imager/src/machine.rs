//! The machine that runs this program, as an image describes it.
//!
//! Owns: reading a few lines of /sys. Does not own: disks and network.

use image::layout::Machine;
use std::path::Path;

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
