//! Device paths.
//!
//! Owns: nodes, and those that tell a partition, a file or a network (UEFI 2.10, 10.3).
//! Does not own: what the path belongs to.

const MEDIA: u8 = 4;
const MESSAGING: u8 = 3;
const BBS: u8 = 5;
const END: u8 = 0x7f;
const END_ENTIRE: u8 = 0xff;
const HARD_DRIVE: u8 = 1;
const FILE_PATH: u8 = 4;
/// Bytes of a hard drive node without its head.
const HARD_DRIVE_BYTES: usize = 38;
/// Longest node: its length has 16 bits, and its head is part of it.
const MAX_NODE_DATA: usize = u16::MAX as usize - 4;

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Type.
    pub kind: u8,
    /// Sub-type.
    pub sub: u8,
    /// What follows the head of 4 bytes.
    pub data: Vec<u8>,
}

/// The first path of a list of paths, and what comes from its end on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DevicePath {
    /// Nodes up to the one that ends it.
    pub nodes: Vec<Node>,
    /// The bytes from there on: the end, and further paths.
    pub rest: Vec<u8>,
}

/// By what a partition is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signature {
    /// GUID of a GPT entry, as it is stored.
    Gpt([u8; 16]),
    /// Signature of an MBR disk, as it is stored.
    Mbr([u8; 4]),
    /// None, or of an unknown kind: format, kind and bytes.
    Other(u8, u8, [u8; 16]),
}

/// A partition, as a path names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HardDrive {
    /// Number in its table, from 1.
    pub partition: u32,
    /// First sector, in the disk's logical sectors.
    pub start: u64,
    /// Length, in the same.
    pub sectors: u64,
    /// Its identity.
    pub signature: Signature,
}

impl Node {
    /// A file on the partition before it, with backslashes.
    pub fn file(path: &str) -> Node {
        let units = path.encode_utf16().chain([0]);
        Node {
            kind: MEDIA,
            sub: FILE_PATH,
            data: units.flat_map(u16::to_le_bytes).collect(),
        }
    }

    fn hard_drive(&self) -> Option<HardDrive> {
        if (self.kind, self.sub) != (MEDIA, HARD_DRIVE) {
            return None;
        }
        let bytes: &[u8; HARD_DRIVE_BYTES] = self.data.as_slice().try_into().ok()?;
        let (partition, rest) = bytes.split_first_chunk::<4>()?;
        let (start, rest) = rest.split_first_chunk::<8>()?;
        let (sectors, rest) = rest.split_first_chunk::<8>()?;
        let (signature, rest) = rest.split_first_chunk::<16>()?;
        let [format, kind] = *rest else { return None };
        let short = [signature[0], signature[1], signature[2], signature[3]];
        let padded = signature[4..].iter().all(|&b| b == 0);
        Some(HardDrive {
            partition: u32::from_le_bytes(*partition),
            start: u64::from_le_bytes(*start),
            sectors: u64::from_le_bytes(*sectors),
            signature: match (format, kind) {
                (2, 2) => Signature::Gpt(*signature),
                (1, 1) if padded => Signature::Mbr(short),
                _ => Signature::Other(format, kind, *signature),
            },
        })
    }

    fn is_network(&self) -> bool {
        match (self.kind, self.sub) {
            // MAC address, IPv4, IPv6, VLAN, URI.
            (MESSAGING, 11 | 12 | 13 | 20 | 24) => true,
            // The old boot specification's embedded network, and cards with ROMs.
            (BBS, 1) => matches!(self.data.first_chunk::<2>(), Some([6 | 0x80, 0])),
            _ => false,
        }
    }

    fn encode(&self, into: &mut Vec<u8>) {
        let data = self.data.get(..MAX_NODE_DATA).unwrap_or(&self.data);
        // The length fits, as was just seen to.
        let len = u16::try_from(data.len() + 4).unwrap_or(u16::MAX);
        into.extend([self.kind, self.sub]);
        into.extend(len.to_le_bytes());
        into.extend(data);
    }
}

impl HardDrive {
    /// The node that names it.
    pub fn node(&self) -> Node {
        let (format, kind, signature) = match &self.signature {
            Signature::Gpt(guid) => (2, 2, *guid),
            Signature::Mbr([a, b, c, d]) => {
                let mut padded = [0; 16];
                padded[..4].copy_from_slice(&[*a, *b, *c, *d]);
                (1, 1, padded)
            }
            Signature::Other(format, kind, bytes) => (*format, *kind, *bytes),
        };
        let mut data = Vec::with_capacity(HARD_DRIVE_BYTES);
        data.extend(self.partition.to_le_bytes());
        data.extend(self.start.to_le_bytes());
        data.extend(self.sectors.to_le_bytes());
        data.extend(signature);
        data.extend([format, kind]);
        Node {
            kind: MEDIA,
            sub: HARD_DRIVE,
            data,
        }
    }
}

impl DevicePath {
    /// A path of these nodes alone.
    pub fn of(nodes: Vec<Node>) -> DevicePath {
        DevicePath {
            nodes,
            rest: vec![END, END_ENTIRE, 4, 0],
        }
    }

    /// Reads a list of paths; none if a node is longer than what is there, or none ends it.
    pub fn decode(bytes: &[u8]) -> Option<DevicePath> {
        let mut nodes = Vec::new();
        let mut left = bytes;
        loop {
            let (&[kind, sub, low, high], _) = left.split_first_chunk::<4>()?;
            let len = usize::from(u16::from_le_bytes([low, high]));
            let data = left.get(4..len)?;
            if kind == END && sub == END_ENTIRE {
                let rest = left.to_vec();
                return Some(DevicePath { nodes, rest });
            }
            nodes.push(Node {
                kind,
                sub,
                data: data.to_vec(),
            });
            left = left.get(len..)?;
        }
    }

    /// The bytes again.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.nodes.iter().for_each(|node| node.encode(&mut bytes));
        bytes.extend(&self.rest);
        bytes
    }

    /// The partition that it leads to.
    pub fn hard_drive(&self) -> Option<HardDrive> {
        self.nodes.iter().find_map(Node::hard_drive)
    }

    /// The same path to another partition, in the short form, which firmware looks up by the
    /// partition's identity: what stood before the partition told where its disk was attached.
    pub fn moved_to(&self, place: &HardDrive) -> DevicePath {
        let mut after = self.nodes.iter();
        after.find(|node| node.hard_drive().is_some());
        DevicePath {
            nodes: std::iter::once(place.node())
                .chain(after.cloned())
                .collect(),
            rest: self.rest.clone(),
        }
    }

    /// The file that it leads to, with backslashes and one at the start; empty if it names
    /// none.
    pub fn file(&self) -> String {
        let mut path = String::new();
        let is_file = |node: &&Node| (node.kind, node.sub) == (MEDIA, FILE_PATH);
        for node in self.nodes.iter().filter(is_file) {
            let pairs = node.data.as_chunks::<2>().0.iter();
            let units: Vec<u16> = pairs
                .map(|pair| u16::from_le_bytes(*pair))
                .take_while(|&unit| unit != 0)
                .collect();
            let part = String::from_utf16_lossy(&units);
            for name in part.split(['\\', '/']).filter(|name| !name.is_empty()) {
                path.push('\\');
                path.push_str(name);
            }
        }
        path
    }

    /// Whether it leads to the network.
    pub fn is_network(&self) -> bool {
        self.nodes.iter().any(Node::is_network)
    }
}

#[cfg(test)]
mod tests {
    use super::{DevicePath, HardDrive, Node, Signature};
    use crate::samples::{NETWORK, WINDOWS_PATH};
    use proptest::prelude::*;

    #[test]
    fn a_path_to_a_loader_is_read_and_written_as_it_was() {
        let bytes = hex(WINDOWS_PATH);
        let path = DevicePath::decode(&bytes).unwrap();
        assert_eq!(path.file(), "\\EFI\\Microsoft\\Boot\\bootmgfw.efi");
        let drive = path.hard_drive().unwrap();
        assert_eq!(
            (drive.partition, drive.start, drive.sectors),
            (1, 2048, 204_800)
        );
        assert!(matches!(drive.signature, Signature::Gpt(guid) if guid[0] == 0x11));
        assert!(!path.is_network());
        assert_eq!(path.encode(), bytes);
        assert_eq!(drive.node(), path.nodes[0]);
    }

    #[test]
    fn network_paths_are_known_by_their_nodes() {
        let path = DevicePath::decode(&hex(NETWORK)).unwrap();
        assert!(path.is_network() && path.hard_drive().is_none());
        assert_eq!(path.file(), "");
        let bbs = |kind| Node {
            kind: 5,
            sub: 1,
            data: vec![kind, 0, 0, 0],
        };
        assert!(DevicePath::of(vec![bbs(6)]).is_network());
        assert!(DevicePath::of(vec![bbs(0x80)]).is_network());
        assert!(!DevicePath::of(vec![bbs(2)]).is_network());
    }

    #[test]
    fn what_stood_before_the_partition_goes_when_it_moves() {
        let drive = HardDrive {
            partition: 1,
            start: 2048,
            sectors: 4,
            signature: Signature::Mbr([1, 2, 3, 4]),
        };
        let pci = Node {
            kind: 2,
            sub: 1,
            data: vec![0; 8],
        };
        let long = DevicePath::of(vec![pci, drive.node(), Node::file("\\a\\b.efi")]);
        let there = HardDrive {
            partition: 2,
            signature: Signature::Gpt([9; 16]),
            ..drive
        };
        let moved = long.moved_to(&there);
        assert_eq!(moved.nodes.len(), 2);
        assert_eq!(moved.hard_drive(), Some(there));
        assert_eq!(moved.file(), "\\a\\b.efi");
    }

    #[test]
    fn a_path_that_is_cut_off_is_none() {
        let bytes = hex(WINDOWS_PATH);
        for len in 0..bytes.len() {
            assert_eq!(DevicePath::decode(&bytes[..len]), None, "{len}");
        }
        assert_eq!(DevicePath::decode(&[4, 1, 0, 0, 0x7f, 0xff, 4, 0]), None);
    }

    fn hex(text: &str) -> Vec<u8> {
        crate::samples::hex(text)
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_and_come_back(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(path) = DevicePath::decode(&bytes) {
                prop_assert_eq!(path.encode(), bytes);
                let _ = (path.file(), path.hard_drive(), path.is_network());
            }
        }

        #[test]
        fn a_drive_comes_back(
            partition in any::<u32>(), start in any::<u64>(), sectors in any::<u64>(),
            guid in any::<[u8; 16]>(), kind in 0u8..4, format in 0u8..4,
        ) {
            let signature = match (format, kind) {
                (2, 2) => Signature::Gpt(guid),
                (1, 1) => Signature::Mbr([guid[0], guid[1], guid[2], guid[3]]),
                _ => Signature::Other(format, kind, guid),
            };
            let drive = HardDrive { partition, start, sectors, signature };
            prop_assert_eq!(drive.node().hard_drive(), Some(drive));
        }
    }
}
