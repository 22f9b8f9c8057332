//! What the machine is made of, as SMBIOS, the kernel and the disks tell it.
//!
//! Owns: reading that, with a limit on each list, total on what firmware says. Does not own:
//! disks and network cards as such ([`crate::disks`], `net`), or who is told.

use std::fs;
use std::path::Path;
use wire::{DiskHealth, DiskInfo, Hardware, MemoryModule, PciDevice};

/// Longer lists are cut: a message has a limit.
const MOST_MODULES: usize = 128;
const MOST_DEVICES: usize = 512;
/// Longest text that is taken from firmware, in characters.
const MOST_TEXT: usize = 64;

/// Everything but disks and network cards.
pub fn read() -> Hardware {
    read_from(Path::new("/sys"), &text(Path::new("/proc/cpuinfo")))
}

fn read_from(sys: &Path, cpuinfo: &str) -> Hardware {
    let dmi = |name: &str| clean(&text(&sys.join("class/dmi/id").join(name)));
    let joined = |names: &[&str]| {
        let words: Vec<String> = names.iter().map(|name| dmi(name)).collect();
        words.join(" ").trim().to_owned()
    };
    let lines = |key: &str| -> Vec<String> {
        let lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        let of_key = lines.filter(|(name, _)| name.trim() == key);
        of_key.map(|(_, value)| clean(value)).collect()
    };
    let mut sockets = lines("physical id");
    sockets.sort();
    sockets.dedup();
    Hardware {
        firmware: joined(&["bios_vendor", "bios_version", "bios_date"]),
        board: joined(&["board_vendor", "board_name"]),
        processor: lines("model name").into_iter().next().unwrap_or_default(),
        sockets: u32::try_from(sockets.len()).unwrap_or(0),
        threads: u32::try_from(lines("processor").len()).unwrap_or(0),
        memory: modules(&sys.join("firmware/dmi/entries")),
        pci: devices(&sys.join("bus/pci/devices")),
    }
}

/// What a disk says of its health.
pub fn health(disk: &DiskInfo) -> Option<DiskHealth> {
    let said = blockdev::health(Path::new(&disk.path), &disk.bus)?;
    Some(DiskHealth {
        failing: said.failing,
        celsius: said.celsius,
        hours: said.hours,
        used_percent: said.used_percent,
        spare_percent: said.spare_percent,
        replaced_sectors: said.replaced_sectors,
        pending_sectors: said.pending_sectors,
        media_errors: said.media_errors,
    })
}

fn modules(entries: &Path) -> Vec<MemoryModule> {
    // Type 17, as `17-0`.
    let mut names = names_in(entries);
    names.retain(|name| name.starts_with("17-"));
    names.sort_by_key(|name| (name.len(), name.clone()));
    let raw = names.iter().map(|name| entries.join(name).join("raw"));
    raw.take(MOST_MODULES)
        .filter_map(|path| module(&fs::read(path).ok()?))
        .collect()
}

/// A memory device of SMBIOS (3.7, 7.18); none for an empty slot, or bytes that are none.
fn module(entry: &[u8]) -> Option<MemoryModule> {
    let (&kind, &len) = (entry.first()?, entry.get(1)?);
    let fields = entry.get(..usize::from(len)).filter(|_| kind == 17)?;
    let strings: Vec<&[u8]> = entry
        .get(usize::from(len)..)?
        .split(|&byte| byte == 0)
        .collect();
    let word = |at: usize| {
        let bytes = fields.get(at..).and_then(|rest| rest.first_chunk::<2>());
        bytes.map_or(0, |bytes| u16::from_le_bytes(*bytes))
    };
    let string = |at: usize| {
        let number = fields.get(at).copied().unwrap_or(0);
        let index = usize::from(number).checked_sub(1)?;
        Some(clean(&String::from_utf8_lossy(strings.get(index)?)))
    };
    const MIB: u64 = 1 << 20;
    let size_bytes = match word(0x0c) {
        0 | 0xffff => return None,
        0x7fff => {
            let more = fields.get(0x1c..).and_then(|rest| rest.first_chunk::<4>());
            more.map_or(0, |more| {
                u64::from(u32::from_le_bytes(*more) & 0x7fff_ffff) * MIB
            })
        }
        // The highest bit: kibibytes.
        size if size & 0x8000 != 0 => u64::from(size & 0x7fff) << 10,
        size => u64::from(size) * MIB,
    };
    Some(MemoryModule {
        slot: string(0x10).unwrap_or_default(),
        size_bytes,
        speed_mts: u32::from(word(0x15)),
        vendor: string(0x17).unwrap_or_default(),
        part: string(0x1a).unwrap_or_default(),
    })
}

fn devices(folder: &Path) -> Vec<PciDevice> {
    let mut addresses = names_in(folder);
    addresses.sort();
    let one = |address: String| {
        let folder = folder.join(&address);
        let number = |name: &str| clean(text(&folder.join(name)).trim().trim_start_matches("0x"));
        let driver = fs::read_link(folder.join("driver")).ok();
        let driver = driver.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        PciDevice {
            class: number("class"),
            id: format!("{}:{}", number("vendor"), number("device")),
            driver: driver.unwrap_or_default(),
            address,
        }
    };
    addresses.into_iter().take(MOST_DEVICES).map(one).collect()
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// A small file; empty if it cannot be read.
fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// A text of the firmware's, without what a terminal would obey.
fn clean(text: &str) -> String {
    let plain = |c: char| if c.is_control() { '?' } else { c };
    text.trim().chars().take(MOST_TEXT).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::{module, read_from};
    use proptest::prelude::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// Fields of 40 bytes and four strings.
    fn memory_device(size: u16, extended: u32) -> Vec<u8> {
        let mut entry = vec![0; 40];
        [entry[0], entry[1]] = [17, 40];
        entry[0x0c..0x0e].copy_from_slice(&size.to_le_bytes());
        [entry[0x10], entry[0x17], entry[0x1a]] = [1, 2, 4];
        entry[0x15..0x17].copy_from_slice(&3200u16.to_le_bytes());
        entry[0x1c..0x20].copy_from_slice(&extended.to_le_bytes());
        entry.extend(b"DIMM A1\0Maker\0serial\0Part-1 \0\0");
        entry
    }

    #[test]
    fn memory_modules_are_read_in_all_their_sizes() {
        let read = module(&memory_device(8192, 0)).unwrap();
        assert_eq!(
            (read.slot.as_str(), read.size_bytes, read.speed_mts),
            ("DIMM A1", 8 << 30, 3200)
        );
        assert_eq!(
            (read.vendor.as_str(), read.part.as_str()),
            ("Maker", "Part-1")
        );
        let size = |size, extended| module(&memory_device(size, extended)).map(|m| m.size_bytes);
        assert_eq!(size(0x8000 | 512, 0), Some(512 << 10));
        assert_eq!(size(0x7fff, 65_536), Some(64 << 30));
        assert_eq!(size(0, 0), None, "an empty slot");
        assert_eq!(size(0xffff, 0), None, "unknown");
        let mut other = memory_device(8192, 0);
        other[0] = 16;
        assert_eq!(module(&other), None);
    }

    #[test]
    fn a_machine_is_read_from_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let sys = dir.path();
        let put = |path: &str, bytes: &[u8]| {
            let path = sys.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        put("class/dmi/id/bios_vendor", b"Maker\n");
        put("class/dmi/id/bios_version", b"1.2\x1b[31m\n");
        put("class/dmi/id/board_name", b"Board\n");
        put("firmware/dmi/entries/17-10/raw", &memory_device(1, 0));
        put("firmware/dmi/entries/17-2/raw", &memory_device(2, 0));
        put("firmware/dmi/entries/4-0/raw", b"no memory");
        let device = "bus/pci/devices/0000:00:1f.2";
        put(&format!("{device}/class"), b"0x010601\n");
        put(&format!("{device}/vendor"), b"0x8086\n");
        put(&format!("{device}/device"), b"0x2922\n");
        symlink("../../drivers/ahci", sys.join(device).join("driver")).unwrap();
        let cpu = "processor\t: 0\nmodel name\t: CPU X\nphysical id\t: 0\n\nprocessor\t: 1\nmodel name\t: CPU X\nphysical id\t: 0\n";
        let read = read_from(sys, cpu);
        assert_eq!(read.firmware, "Maker 1.2?[31m");
        assert_eq!(read.board, "Board");
        assert_eq!(
            (read.processor.as_str(), read.sockets, read.threads),
            ("CPU X", 1, 2)
        );
        let sizes: Vec<u64> = read.memory.iter().map(|m| m.size_bytes >> 20).collect();
        assert_eq!(sizes, [2, 1]);
        let [pci] = &read.pci[..] else {
            panic!("{:?}", read.pci)
        };
        assert_eq!(
            (pci.class.as_str(), pci.id.as_str(), pci.driver.as_str()),
            ("010601", "8086:2922", "ahci")
        );
        let nothing = read_from(&sys.join("none"), "");
        assert_eq!(nothing, wire::Hardware::default());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(entry in prop::collection::vec(any::<u8>(), 0..120), fit in any::<bool>()) {
            let mut entry = entry;
            if let (true, [kind, len, ..]) = (fit, &mut entry[..]) {
                [*kind, *len] = [17, *len % 64];
            }
            if let Some(module) = module(&entry) {
                prop_assert!(module.slot.chars().count() <= 64);
            }
        }
    }
}
