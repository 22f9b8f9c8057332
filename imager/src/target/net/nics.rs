//! Network cards, from sysfs.
//!
//! Owns: which interfaces are hardware, and what sysfs tells of them; network hardware
//! that has no driver. Does not own: bringing them up.

use crate::target::settings::NicChoice;
use std::fs;
use std::path::{Path, PathBuf};

/// An interface with hardware behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// Interface name.
    pub name: String,
    /// Kernel's number of the interface.
    pub index: u32,
    /// Ethernet address.
    pub mac: [u8; 6],
    /// Kernel driver; empty if unknown.
    pub driver: String,
}

/// sysfs, or in a test a folder that looks like it.
#[derive(Clone, Debug)]
pub struct Sysfs {
    root: PathBuf,
}

impl Default for Sysfs {
    fn default() -> Self {
        Sysfs {
            root: PathBuf::from("/sys"),
        }
    }
}

impl Nic {
    /// The Ethernet address as text, lower case with colons.
    pub fn mac_text(&self) -> String {
        mac_text(&self.mac)
    }
}

impl Sysfs {
    /// Another root than `/sys`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Sysfs { root: root.into() }
    }

    /// The interfaces that may be used. One that is named is taken even if it is no hardware
    /// (a bond, one end of a pair).
    pub fn chosen(&self, choice: Option<&NicChoice>) -> Vec<Nic> {
        match choice {
            None => self.nics(),
            Some(NicChoice::Name(name)) => self.interface(name).into_iter().collect(),
            Some(choice) => {
                let mut nics = self.nics();
                nics.retain(|nic| choice.fits(&nic.name, &nic.mac_text()));
                nics
            }
        }
    }

    /// All Ethernet interfaces that have a device, by index.
    pub fn nics(&self) -> Vec<Nic> {
        let names = fs::read_dir(self.root.join("class/net"))
            .into_iter()
            .flatten()
            .flatten();
        let mut nics: Vec<Nic> = names
            .filter_map(|entry| self.nic(&entry.file_name().into_string().ok()?))
            .collect();
        nics.sort_by_key(|nic| nic.index);
        nics
    }

    fn nic(&self, name: &str) -> Option<Nic> {
        // Bonds, VLANs, the loopback and dummies have no device.
        let device = self.root.join("class/net").join(name).join("device");
        device.exists().then(|| self.interface(name))?
    }

    /// An Ethernet interface, whatever is behind it.
    pub fn interface(&self, name: &str) -> Option<Nic> {
        let folder = self.root.join("class/net").join(name);
        let device = folder.join("device");
        if line(&folder.join("type"))? != "1" {
            return None;
        }
        Some(Nic {
            name: name.to_owned(),
            index: line(&folder.join("ifindex"))?.parse().ok()?,
            mac: parse_mac(&line(&folder.join("address"))?)?,
            driver: link_name(&device.join("driver")).unwrap_or_default(),
        })
    }

    /// Whether a cable is connected. An interface that is down cannot tell.
    pub fn carrier(&self, name: &str) -> bool {
        line(&self.root.join("class/net").join(name).join("carrier")).is_some_and(|c| c == "1")
    }

    /// PCI network controllers that no driver has taken, as `8086:1533`.
    pub fn driverless(&self) -> Vec<String> {
        let devices = fs::read_dir(self.root.join("bus/pci/devices"))
            .into_iter()
            .flatten()
            .flatten();
        let mut ids: Vec<String> = devices
            .filter_map(|entry| {
                let folder = entry.path();
                let network = line(&folder.join("class"))?.starts_with("0x02");
                let id = |file| {
                    Some(
                        line(&folder.join(file))?
                            .trim_start_matches("0x")
                            .to_owned(),
                    )
                };
                let free = !folder.join("driver").exists();
                (network && free).then_some(())?;
                Some(format!("{}:{}", id("vendor")?, id("device")?))
            })
            .collect();
        ids.sort();
        ids
    }
}

/// An Ethernet address as text.
pub fn mac_text(mac: &[u8; 6]) -> String {
    let pairs: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    pairs.join(":")
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text
        .split(':')
        .map(|pair| u8::from_str_radix(pair, 16).ok())
        .collect();
    bytes?.try_into().ok().filter(|mac| *mac != [0; 6])
}

fn line(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn link_name(path: &Path) -> Option<String> {
    Some(fs::read_link(path).ok()?.file_name()?.to_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Nic, Sysfs};
    use crate::target::settings::NicChoice;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn interface(root: &Path, name: &str, kind: &str, index: &str, mac: &str, device: bool) {
        let folder = format!("class/net/{name}");
        put(root, &format!("{folder}/type"), kind);
        put(root, &format!("{folder}/ifindex"), index);
        put(root, &format!("{folder}/address"), mac);
        if device {
            fs::create_dir_all(root.join(&folder).join("device")).unwrap();
            symlink(
                "../../../bus/pci/drivers/e1000",
                root.join(&folder).join("device/driver"),
            )
            .unwrap();
        }
    }

    #[test]
    fn only_hardware_counts_and_the_order_is_the_kernels() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        interface(root, "lo", "772\n", "1\n", "00:00:00:00:00:00\n", false);
        interface(root, "bond0", "1\n", "2\n", "52:54:00:00:00:09\n", false);
        interface(root, "eth1", "1\n", "11\n", "52:54:00:00:00:02\n", true);
        interface(root, "eth0", "1\n", "3\n", "52:54:00:00:00:01\n", true);
        interface(root, "ib0", "32\n", "4\n", "52:54:00:00:00:03\n", true);
        interface(root, "bad0", "1\n", "x\n", "52:54:00:00:00:04\n", true);
        let nics = Sysfs::at(root).nics();
        let names: Vec<&str> = nics.iter().map(|nic| nic.name.as_str()).collect();
        assert_eq!(names, ["eth0", "eth1"]);
        let chosen = |choice: NicChoice| Sysfs::at(root).chosen(Some(&choice));
        assert_eq!(chosen(NicChoice::Name("bond0".into()))[0].index, 2);
        assert_eq!(chosen(NicChoice::Name("lo".into())), []);
        assert_eq!(chosen(NicChoice::Name("../eth0".into())), []);
        assert_eq!(
            chosen(NicChoice::Mac("52:54:00:00:00:02".into()))[0].name,
            "eth1"
        );
        assert_eq!(chosen(NicChoice::Mac("52:54:00:00:00:09".into())), []);
        let first = Nic {
            name: "eth0".into(),
            index: 3,
            mac: [0x52, 0x54, 0, 0, 0, 1],
            driver: "e1000".into(),
        };
        assert_eq!(nics[0], first);
        assert_eq!(first.mac_text(), "52:54:00:00:00:01");
    }

    #[test]
    fn the_carrier_is_read_and_unknown_means_no() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "class/net/eth0/carrier", "1\n");
        put(dir.path(), "class/net/eth1/carrier", "0\n");
        let sysfs = Sysfs::at(dir.path());
        assert!(sysfs.carrier("eth0") && !sysfs.carrier("eth1") && !sysfs.carrier("eth2"));
    }

    #[test]
    fn network_hardware_without_a_driver_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for (slot, class, device, bound) in [
            ("0000:00:01.0", "0x020000\n", "0x1533\n", false),
            ("0000:00:02.0", "0x020000\n", "0x100e\n", true),
            ("0000:00:03.0", "0x010601\n", "0x2922\n", false),
        ] {
            let folder = format!("bus/pci/devices/{slot}");
            put(dir.path(), &format!("{folder}/class"), class);
            put(dir.path(), &format!("{folder}/vendor"), "0x8086\n");
            put(dir.path(), &format!("{folder}/device"), device);
            if bound {
                fs::create_dir_all(dir.path().join(&folder).join("driver")).unwrap();
            }
        }
        assert_eq!(Sysfs::at(dir.path()).driverless(), ["8086:1533"]);
        assert!(Sysfs::at("/nonexistent").driverless().is_empty());
    }
}
