//! What a machine is made of.
//!
//! Owns: the shapes. Does not own: how it is found out (the imager), how it is shown.

use serde::{Deserialize, Serialize};

/// A machine's parts beside its disks and network cards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    /// Vendor, version and date of the firmware.
    pub firmware: String,
    /// Vendor and name of the main board.
    pub board: String,
    /// Name of the processor.
    pub processor: String,
    /// Sockets with a processor in them; 0 if unknown.
    pub sockets: u32,
    /// Processors that the kernel has, threads counted.
    pub threads: u32,
    /// Memory modules.
    pub memory: Vec<MemoryModule>,
    /// PCI devices.
    pub pci: Vec<PciDevice>,
}

/// A memory module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryModule {
    /// Its slot, as the maker names it.
    pub slot: String,
    /// Bytes.
    pub size_bytes: u64,
    /// Millions of transfers a second; 0 if unknown.
    pub speed_mts: u32,
    /// Vendor.
    pub vendor: String,
    /// Part number.
    pub part: String,
}

/// A PCI device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PciDevice {
    /// Where it is, as `0000:00:1f.2`.
    pub address: String,
    /// What it is, as `010601`.
    pub class: String,
    /// Vendor and device, as `8086:2922`.
    pub id: String,
    /// Kernel driver; empty if none has taken it.
    pub driver: String,
}

/// What a disk says of its own health.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskHealth {
    /// It says that it fails, or soon will.
    pub failing: bool,
    /// Degrees Celsius.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub celsius: Option<i32>,
    /// Hours that it was on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hours: Option<u64>,
    /// Percent of its life that is used up, of flash; may be above 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_percent: Option<u8>,
    /// Percent of its spare room that is left, of flash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spare_percent: Option<u8>,
    /// Sectors that it has replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_sectors: Option<u64>,
    /// Sectors that it could not read and waits to replace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_sectors: Option<u64>,
    /// Errors of its medium that it could not correct.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_errors: Option<u64>,
}

impl DiskHealth {
    /// One line for people.
    pub fn sentence(&self) -> String {
        let mut parts = vec![match self.failing {
            true => "it says that it is failing".to_owned(),
            false => "healthy by its own account".to_owned(),
        }];
        let mut add = |value: Option<String>| parts.extend(value);
        add(self.celsius.map(|n| format!("{n} °C")));
        add(self.hours.map(|n| format!("{n} hours on")));
        add(self.used_percent.map(|n| format!("{n} % of its life used")));
        add(self.spare_percent.map(|n| format!("{n} % spare")));
        add(self
            .replaced_sectors
            .map(|n| format!("{n} sectors replaced")));
        add(self.pending_sectors.map(|n| format!("{n} sectors pending")));
        add(self.media_errors.map(|n| format!("{n} media errors")));
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::DiskHealth;

    #[test]
    fn health_is_one_line() {
        let health = DiskHealth {
            celsius: Some(31),
            pending_sectors: Some(8),
            ..DiskHealth::default()
        };
        assert_eq!(
            health.sentence(),
            "healthy by its own account, 31 °C, 8 sectors pending"
        );
        let failing = DiskHealth {
            failing: true,
            ..DiskHealth::default()
        };
        assert_eq!(failing.sentence(), "it says that it is failing");
    }
}
