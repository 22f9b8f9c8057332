//! A machine's parts in the text of `deployctl`.
//!
//! Owns: the lines. Does not own: what was found; targets say it, and may say anything.

use wire::size::bytes;
use wire::{Hardware, MemoryModule, PciDevice};

/// Memory modules that are shown; a machine that says it has more is not believed in full.
const SHOWN: usize = 64;

/// Firmware, board, processor, memory, and the PCI devices that matter here: disks and network
/// cards, with their drivers. `--json` has all.
pub fn lines(hardware: &Hardware) -> Vec<String> {
    let mut lines = Vec::new();
    let mut add = |name: &str, text: String| {
        if !text.trim().is_empty() {
            lines.push(format!("{name:9} {text}"));
        }
    };
    add("bios", hardware.firmware.clone());
    add("board", hardware.board.clone());
    let sockets = match hardware.sockets {
        0 | 1 => String::new(),
        sockets => format!(" in {sockets} sockets"),
    };
    if hardware.threads > 0 {
        let threads = hardware.threads;
        let name = &hardware.processor;
        add("processor", format!("{name}, {threads} threads{sockets}"));
    }
    for module in hardware.memory.iter().take(SHOWN) {
        add("module", self::module(module));
    }
    let matters = |device: &&PciDevice| ["01", "02"].iter().any(|c| device.class.starts_with(c));
    for device in hardware.pci.iter().filter(matters).take(SHOWN) {
        let driver = match device.driver.as_str() {
            "" => "no driver",
            driver => driver,
        };
        let kind = match device.class.starts_with("01") {
            true => "storage",
            false => "network",
        };
        add(
            "pci",
            format!("{} {kind} {}  {driver}", device.address, device.id),
        );
    }
    lines
}

fn module(module: &MemoryModule) -> String {
    let mut text = format!("{}  {}", module.slot, bytes(module.size_bytes));
    if module.speed_mts > 0 {
        text += &format!("  {} MT/s", module.speed_mts);
    }
    let maker = format!("  {} {}", module.vendor, module.part);
    text + maker.trim_end()
}

#[cfg(test)]
mod tests {
    use super::lines;
    use wire::{Hardware, MemoryModule, PciDevice};

    #[test]
    fn what_is_known_is_shown_and_nothing_else() {
        assert!(lines(&Hardware::default()).is_empty());
        let device = |class: &str, driver: &str| PciDevice {
            address: "0000:00:1f.2".into(),
            class: class.into(),
            id: "8086:2922".into(),
            driver: driver.into(),
        };
        let hardware = Hardware {
            firmware: "Maker 1.2".into(),
            processor: "CPU X".into(),
            sockets: 2,
            threads: 8,
            memory: vec![MemoryModule {
                slot: "A1".into(),
                size_bytes: 16 << 30,
                speed_mts: 3200,
                ..MemoryModule::default()
            }],
            pci: vec![
                device("060100", "x"),
                device("010601", "ahci"),
                device("020000", ""),
            ],
            ..Hardware::default()
        };
        assert_eq!(
            lines(&hardware),
            [
                "bios      Maker 1.2",
                "processor CPU X, 8 threads in 2 sockets",
                "module    A1  16.0 GiB  3200 MT/s",
                "pci       0000:00:1f.2 storage 8086:2922  ahci",
                "pci       0000:00:1f.2 network 8086:2922  no driver",
            ]
        );
    }
}
