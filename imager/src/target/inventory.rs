//! What a target tells of itself at check-in.
//!
//! Owns: reading SMBIOS, memory, firmware mode and the boot's id; waiting for disks
//! that appear late. Does not own: how disks are found ([`crate::disks`]).

use super::hardware;
use super::net::nics::{Nic, Sysfs};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use wire::{CheckIn, DiskInfo, NicInfo, Report};

/// Asynchronous probing is over when the list has not changed for this long...
const QUIET: Duration = Duration::from_secs(1);
/// ... or this long has passed.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(200);

/// How the disks are listed.
pub type ListDisks = fn() -> Result<Vec<DiskInfo>, Report>;

/// The card in use and its address, for the list of cards.
#[derive(Clone, Debug)]
pub struct InUse<'a> {
    /// Interface name.
    pub name: &'a str,
    /// Its address with the prefix length.
    pub address: String,
}

/// Waits until no more disks appear, and lists them.
///
/// # Errors
/// Those of `list`.
pub fn settled_disks(
    list: impl Fn() -> Result<Vec<DiskInfo>, Report>,
) -> Result<Vec<DiskInfo>, Report> {
    let began = Instant::now();
    let mut disks = list()?;
    let mut since = Instant::now();
    while since.elapsed() < QUIET && began.elapsed() < SETTLE_LIMIT {
        std::thread::sleep(POLL);
        let now = list()?;
        if now != disks {
            disks = now;
            since = Instant::now();
        }
    }
    Ok(disks)
}

/// The check-in message.
pub fn check_in(disks: &[DiskInfo], in_use: Option<&InUse<'_>>) -> CheckIn {
    let dmi = Path::new("/sys/class/dmi/id");
    let sysfs = Sysfs::default();
    let nics = sysfs
        .nics()
        .iter()
        .map(|nic| nic_info(&sysfs, nic, in_use))
        .collect();
    CheckIn {
        protocol: wire::PROTOCOL_VERSION,
        version: wire::SOFTWARE_VERSION.to_owned(),
        uuid: line(&dmi.join("product_uuid")).to_lowercase(),
        model: model(dmi),
        system_serial: line(&dmi.join("product_serial")),
        firmware: firmware().to_owned(),
        architecture: std::env::consts::ARCH.to_owned(),
        memory_bytes: memory_bytes(&line_of_key("/proc/meminfo", "MemTotal:")),
        boot_id: line(Path::new("/proc/sys/kernel/random/boot_id")),
        uptime_ms: super::uptime_ms(),
        nics,
        disks: disks.to_vec(),
        hardware: Some(hardware::read()),
    }
}

/// Vendor and product; the same word twice is said once.
pub fn model(dmi: &Path) -> String {
    let (vendor, product) = (
        line(&dmi.join("sys_vendor")),
        line(&dmi.join("product_name")),
    );
    if product.starts_with(&vendor) {
        product
    } else {
        format!("{vendor} {product}").trim().to_owned()
    }
}

/// The UUID as it lies in the firmware's memory, where the first three fields are
/// little-endian (SMBIOS 2.6, 7.2.1); this is what PXE clients send as option 97.
pub fn raw_uuid() -> Option<[u8; 16]> {
    parse_uuid(&line(Path::new("/sys/class/dmi/id/product_uuid")))
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let digits = text.replace('-', "");
    let mut bytes = [0; 16];
    hex::decode_to_slice(digits, &mut bytes).ok()?;
    let [first, second, third] = [0..4, 4..6, 6..8];
    bytes[first].reverse();
    bytes[second].reverse();
    bytes[third].reverse();
    Some(bytes)
}

fn firmware() -> &'static str {
    if Path::new("/sys/firmware/efi").exists() {
        "uefi"
    } else {
        "bios"
    }
}

fn nic_info(sysfs: &Sysfs, nic: &Nic, in_use: Option<&InUse<'_>>) -> NicInfo {
    NicInfo {
        name: nic.name.clone(),
        mac: nic.mac_text(),
        driver: nic.driver.clone(),
        link: sysfs.carrier(&nic.name),
        address: in_use
            .filter(|used| used.name == nic.name)
            .map(|used| used.address.clone()),
    }
}

/// The first line of a small file; empty if it cannot be read.
fn line(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or_default().trim().to_owned()
}

fn line_of_key(path: &str, key: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let found = text.lines().find_map(|line| line.strip_prefix(key));
    found.unwrap_or_default().trim().to_owned()
}

/// Memory that programs can still have, in bytes.
pub fn memory_available() -> u64 {
    memory_bytes(&line_of_key("/proc/meminfo", "MemAvailable:"))
}

/// `263180464 kB` in bytes.
fn memory_bytes(value: &str) -> u64 {
    let kib: u64 = value
        .split_whitespace()
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    kib.saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::{memory_bytes, model, parse_uuid};

    #[test]
    fn the_uuid_is_turned_into_the_firmwares_order() {
        let raw = parse_uuid("00112233-4455-6677-8899-AABBCCDDEEFF").map(hex::encode);
        assert_eq!(raw.as_deref(), Some("33221100554477668899aabbccddeeff"));
        assert_eq!(parse_uuid(""), None);
        assert_eq!(parse_uuid("00112233"), None);
        assert_eq!(parse_uuid("Not Settable"), None);
    }

    #[test]
    fn memory_is_in_bytes() {
        assert_eq!(memory_bytes("512 kB"), 524_288);
        assert_eq!(memory_bytes(""), 0);
        assert_eq!(memory_bytes("99999999999999999999 kB"), 0);
    }

    #[test]
    fn a_vendor_is_not_said_twice() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("sys_vendor"), "QEMU\n").unwrap();
        std::fs::write(dir.path().join("product_name"), "Standard PC\n").unwrap();
        assert_eq!(model(dir.path()), "QEMU Standard PC");
        std::fs::write(dir.path().join("product_name"), "QEMU Virtual Machine\n").unwrap();
        assert_eq!(model(dir.path()), "QEMU Virtual Machine");
        assert_eq!(model(&dir.path().join("none")), "");
    }
}
