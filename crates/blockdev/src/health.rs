//! What a disk says of its own health: NVMe's health log, and SMART of ATA disks.
//!
//! Owns: asking, and reading the answers, total on any bytes. Does not own: what is done about
//! a disk that fails. Nothing here changes a disk.

use crate::ioctl::health::{ANSWER, SENSE, ata_smart, nvme_log};
use std::fs::File;
use std::path::Path;

/// What a disk says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// It says that it fails, or soon will.
    pub failing: bool,
    /// Degrees Celsius.
    pub celsius: Option<i32>,
    /// Hours that it was on.
    pub hours: Option<u64>,
    /// Percent of its life that is used up; may be above 100.
    pub used_percent: Option<u8>,
    /// Percent of its spare room that is left.
    pub spare_percent: Option<u8>,
    /// Sectors that it has replaced.
    pub replaced_sectors: Option<u64>,
    /// Sectors that it could not read and waits to replace.
    pub pending_sectors: Option<u64>,
    /// Errors of its medium that it could not correct.
    pub media_errors: Option<u64>,
}

/// Asks the disk at `path`, which hangs on `bus` (as [`crate::DiskInfo::bus`] says). None
/// where the disk says nothing, or cannot be asked: over USB many bridges take the question
/// badly.
pub fn health(path: &Path, bus: &str) -> Option<Health> {
    let file = File::open(path).ok()?;
    match bus {
        "nvme" => Some(of_nvme(&nvme_log(&file).ok()?)),
        "sata" => {
            let (data, _) = ata_smart(&file, 0xd0, true).ok()?;
            let mut health = of_ata(&data)?;
            if let Ok((_, sense)) = ata_smart(&file, 0xda, false) {
                health.failing = says_failing(&sense);
            }
            Some(health)
        }
        _ => None,
    }
}

/// NVMe 1.4, 5.14.1.2.
fn of_nvme(log: &[u8; ANSWER]) -> Health {
    let long = |at: usize| {
        let bytes = log.get(at..).and_then(|rest| rest.first_chunk::<16>());
        let value = bytes.map_or(0, |bytes| u128::from_le_bytes(*bytes));
        Some(u64::try_from(value).unwrap_or(u64::MAX))
    };
    let kelvin = i32::from(u16::from_le_bytes([log[1], log[2]]));
    Health {
        failing: log[0] != 0,
        celsius: (kelvin > 0).then_some(kelvin - 273),
        hours: long(128),
        used_percent: Some(log[5]),
        spare_percent: Some(log[3]),
        media_errors: long(160),
        ..Health::default()
    }
}

/// The attributes of SMART READ DATA: 30 of 12 bytes. Their meaning is by custom; those here
/// are alike with all makers.
fn of_ata(data: &[u8; ANSWER]) -> Option<Health> {
    let sum = data.iter().fold(0u8, |sum, &byte| sum.wrapping_add(byte));
    let is_empty = data.iter().all(|&byte| byte == 0);
    if sum != 0 || is_empty {
        return None;
    }
    let mut health = Health::default();
    let (entries, _) = data.get(2..362)?.as_chunks::<12>();
    for entry in entries {
        let raw = [entry[5], entry[6], entry[7], entry[8], 0, 0, 0, 0];
        let raw = u64::from_le_bytes(raw);
        match entry[0] {
            5 => health.replaced_sectors = Some(raw),
            // Some makers keep other things in the upper bytes.
            9 => health.hours = Some(raw & 0x00ff_ffff),
            194 => health.celsius = Some(i32::from(entry[5])),
            190 if health.celsius.is_none() => health.celsius = Some(i32::from(entry[5])),
            197 => health.pending_sectors = Some(raw),
            198 => health.media_errors = Some(raw),
            _ => {}
        }
    }
    Some(health)
}

/// SMART RETURN STATUS: the registers that come back tell that a threshold is passed (ACS-3,
/// 7.48.9), in the ATA status descriptor of the sense data (SAT-3, 12.2.2.7).
fn says_failing(sense: &[u8; SENSE]) -> bool {
    let is_descriptor = sense[0] & 0x7f == 0x72 && sense[8] == 0x09;
    is_descriptor && (sense[17], sense[19]) == (0xf4, 0x2c)
}

#[cfg(test)]
mod tests {
    use super::{ANSWER, Health, SENSE, health, of_ata, of_nvme, says_failing};
    use std::path::Path;

    fn ata(entries: &[(u8, [u8; 6])]) -> [u8; ANSWER] {
        let mut data = [0; ANSWER];
        data[0] = 16;
        for (slot, (id, raw)) in entries.iter().enumerate() {
            data[2 + slot * 12] = *id;
            data[2 + slot * 12 + 5..][..6].copy_from_slice(raw);
        }
        let sum = data.iter().fold(0u8, |sum, &byte| sum.wrapping_add(byte));
        data[511] = 0u8.wrapping_sub(sum);
        data
    }

    #[test]
    fn the_health_of_a_flash_drive() {
        let mut log = [0; ANSWER];
        log[1..3].copy_from_slice(&310u16.to_le_bytes());
        [log[3], log[5]] = [100, 3];
        log[128..130].copy_from_slice(&1234u16.to_le_bytes());
        log[160] = 2;
        let wanted = Health {
            failing: false,
            celsius: Some(37),
            hours: Some(1234),
            used_percent: Some(3),
            spare_percent: Some(100),
            media_errors: Some(2),
            ..Health::default()
        };
        assert_eq!(of_nvme(&log), wanted);
        log[0] = 4;
        assert!(of_nvme(&log).failing);
        assert_eq!(of_nvme(&[0xff; ANSWER]).hours, Some(u64::MAX));
    }

    #[test]
    fn the_health_of_an_ata_disk() {
        let data = ata(&[
            (5, [3, 0, 0, 0, 0, 0]),
            (9, [0x10, 0x27, 0, 9, 9, 9]),
            (190, [50, 0, 0, 0, 0, 0]),
            (194, [38, 0, 20, 0, 60, 0]),
            (197, [1, 1, 0, 0, 0, 0]),
        ]);
        let wanted = Health {
            celsius: Some(38),
            hours: Some(10_000),
            replaced_sectors: Some(3),
            pending_sectors: Some(257),
            ..Health::default()
        };
        assert_eq!(of_ata(&data), Some(wanted));
        let mut wrong = data;
        wrong[300] ^= 1;
        assert_eq!(of_ata(&wrong), None);
        assert_eq!(of_ata(&[0; ANSWER]), None);
    }

    #[test]
    fn a_passed_threshold_is_told_in_the_registers() {
        let mut sense = [0; SENSE];
        [sense[0], sense[8]] = [0x72, 0x09];
        [sense[17], sense[19]] = [0x4f, 0xc2];
        assert!(!says_failing(&sense));
        [sense[17], sense[19]] = [0xf4, 0x2c];
        assert!(says_failing(&sense));
        sense[0] = 0x70;
        assert!(!says_failing(&sense));
    }

    #[test]
    fn what_is_no_disk_says_nothing() {
        for bus in ["nvme", "sata", "usb", ""] {
            assert_eq!(health(Path::new("/dev/null"), bus), None);
        }
        assert_eq!(health(Path::new("/nowhere"), "nvme"), None);
    }
}
