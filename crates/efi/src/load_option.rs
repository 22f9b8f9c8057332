//! A boot entry's content: `EFI_LOAD_OPTION`.
//!
//! Owns: its bytes (UEFI 2.10, 3.1.3). Does not own: its number, and what the entries mean
//! together (`plan`).

use crate::MAX_VARIABLE;
use crate::path::DevicePath;

/// The firmware tries it by itself.
pub const ACTIVE: u32 = 1;
/// Bits that tell boot entries (0) from programs such as setup menus.
pub const CATEGORY: u32 = 0x1f00;

/// A boot entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadOption {
    /// [`ACTIVE`] and others.
    pub attributes: u32,
    /// Name for people, in UTF-16 without the zero at its end.
    pub description: Vec<u16>,
    /// Where the program is.
    pub path: DevicePath,
    /// What the program is given.
    pub optional: Vec<u8>,
}

impl LoadOption {
    /// A new entry that is tried.
    pub fn new(name: &str, path: DevicePath) -> LoadOption {
        LoadOption {
            attributes: ACTIVE,
            description: name.encode_utf16().filter(|&unit| unit != 0).collect(),
            path,
            optional: Vec::new(),
        }
    }

    /// Reads an entry; none if its bytes are not one's.
    pub fn decode(bytes: &[u8]) -> Option<LoadOption> {
        if bytes.len() > MAX_VARIABLE {
            return None;
        }
        let (attributes, rest) = bytes.split_first_chunk::<4>()?;
        let (path_len, rest) = rest.split_first_chunk::<2>()?;
        let units = rest.as_chunks::<2>().0;
        let end = units.iter().position(|unit| *unit == [0, 0])?;
        let description = units.iter().take(end).map(|u| u16::from_le_bytes(*u));
        let rest = rest.get((end + 1) * 2..)?;
        let (path, optional) = rest.split_at_checked(usize::from(u16::from_le_bytes(*path_len)))?;
        Some(LoadOption {
            attributes: u32::from_le_bytes(*attributes),
            description: description.collect(),
            path: DevicePath::decode(path)?,
            optional: optional.to_vec(),
        })
    }

    /// The bytes again; none if the path is longer than an entry can say.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let path = self.path.encode();
        let mut bytes = self.attributes.to_le_bytes().to_vec();
        bytes.extend(u16::try_from(path.len()).ok()?.to_le_bytes());
        let units = self.description.iter().take_while(|&&unit| unit != 0);
        bytes.extend(units.chain(&[0]).flat_map(|unit| unit.to_le_bytes()));
        bytes.extend(path);
        bytes.extend(&self.optional);
        (bytes.len() <= MAX_VARIABLE).then_some(bytes)
    }

    /// Its name, without characters that a terminal would obey.
    pub fn name(&self) -> String {
        let text = char::decode_utf16(self.description.iter().copied());
        text.map(|c| c.unwrap_or('?'))
            .map(|c| if c.is_control() { '?' } else { c })
            .take(60)
            .collect()
    }

    /// Whether it is one for booting, and not a program of the firmware.
    pub fn is_boot(&self) -> bool {
        self.attributes & CATEGORY == 0
    }

    /// Whether the firmware tries it by itself.
    pub fn is_active(&self) -> bool {
        self.attributes & ACTIVE != 0
    }

    /// Whether it boots from the network. Some firmware hides its network boot behind a path
    /// of its own; then the name tells.
    pub fn is_network(&self) -> bool {
        if self.path.is_network() {
            return true;
        }
        let name = self.name().to_uppercase();
        let named = ["PXE", "NETWORK", "IPV4", "IPV6", "HTTP BOOT"];
        self.path.hard_drive().is_none()
            && self.path.file().is_empty()
            && named.iter().any(|word| name.contains(word))
    }
}

#[cfg(test)]
mod tests {
    use super::LoadOption;
    use crate::path::{DevicePath, Node};
    use crate::samples::{self, hex};
    use proptest::prelude::*;

    #[test]
    fn entries_of_real_firmware_are_read_and_written_as_they_were() {
        for (bytes, name, network) in [
            (samples::OVMF_NETWORK, "UEFI PXEv4 (MAC:525400001001)", true),
            (samples::OVMF_DISK, "UEFI QEMU HARDDISK QM00001 ", false),
            (samples::WINDOWS, "Windows Boot Manager", false),
        ] {
            let bytes = hex(bytes);
            let option = LoadOption::decode(&bytes).unwrap();
            assert_eq!(option.name(), name);
            assert_eq!(option.is_network(), network, "{name}");
            assert!(option.is_active() && option.is_boot());
            assert_eq!(option.encode(), Some(bytes));
        }
    }

    #[test]
    fn a_hidden_network_boot_is_known_by_its_name() {
        let vendor = Node {
            kind: 1,
            sub: 4,
            data: vec![7; 16],
        };
        let hidden = |name| LoadOption::new(name, DevicePath::of(vec![vendor.clone()]));
        assert!(hidden("PCI LAN: Network Boot").is_network());
        assert!(!hidden("Diagnostics").is_network());
        let file = DevicePath::of(vec![Node::file("\\network.efi")]);
        assert!(!LoadOption::new("Network", file).is_network());
    }

    #[test]
    fn a_name_brings_no_control_characters() {
        let option = LoadOption::new("a\u{1b}[31m\nb", DevicePath::of(Vec::new()));
        assert_eq!(option.name(), "a?[31m?b");
    }

    #[test]
    fn what_is_cut_off_is_none() {
        let bytes = hex(samples::WINDOWS);
        let whole = LoadOption::decode(&bytes).unwrap();
        for len in 0..bytes.len() - whole.optional.len() {
            assert_eq!(LoadOption::decode(&bytes[..len]), None, "{len}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_and_come_back(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(option) = LoadOption::decode(&bytes) {
                prop_assert_eq!(option.encode(), Some(bytes));
                let _ = (option.name(), option.is_network());
            }
        }

        #[test]
        fn an_entry_comes_back(
            attributes in any::<u32>(), name in "[^\0]{0,20}", file in "[a-z\\\\.]{0,30}",
            optional in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let path = DevicePath::of(vec![Node::file(&file)]);
            let option = LoadOption { attributes, optional, ..LoadOption::new(&name, path) };
            let bytes = option.encode().unwrap();
            prop_assert_eq!(LoadOption::decode(&bytes), Some(option));
        }
    }
}
