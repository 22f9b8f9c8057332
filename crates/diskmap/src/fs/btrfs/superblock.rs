//! The superblock of Btrfs, and whether a map may be made at all.
//!
//! Owns: its fields, its feature bits, what must hold before any tree is read. Does
//! not own: trees. Byte offsets are those of the on-disk format's documentation.
//!
//! Only the primary copy counts, as for the kernel: the mirrors are copied, but a
//! file system whose primary is wrong is none that can be mounted.

use super::super::{Fault, damaged};
use super::node::Format;
use super::sum::Sum;
use crate::bytes::{array, has, le32, le64, text};
use crate::guid;
use crate::view::{ReadFailure, View};

/// Place of the primary superblock.
pub(super) const PRIMARY: u64 = 64 << 10;

/// Places of its mirrors.
pub(super) const MIRRORS: [u64; 2] = [64 << 20, 256 << 30];

/// Size of a superblock.
pub(super) const SIZE: u64 = 4096;

const MAGIC: &[u8] = b"_BHRfS_M";

/// Bytes for the chunks of the chunk tree itself.
const SYSTEM_CHUNKS: usize = 2048;

/// Deepest level that a tree may have.
pub(super) const MAX_LEVEL: u8 = 7;

mod incompat {
    pub const MIXED_BACKREF: u64 = 1 << 0;
    pub const MIXED_GROUPS: u64 = 1 << 2;
    pub const METADATA_UUID: u64 = 1 << 10;
    /// Default subvolume, LZO, zstd, big metadata, extended references, RAID 5 and 6,
    /// skinny metadata, no holes, RAID 1 with 3 or 4 copies, simple quotas: none changes
    /// how space is accounted for on one device.
    pub const HARMLESS: u64 =
        1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 11 | 1 << 16;
    /// Valid, and every sector is copied.
    pub const UNSUPPORTED: [(u64, &str); 4] = [
        (1 << 12, "it is zoned"),
        (1 << 13, "it has the second version of the extent tree"),
        (1 << 14, "it has a stripe tree"),
        (1 << 17, "it has a remap tree"),
    ];
}

mod compat_ro {
    pub const BLOCK_GROUP_TREE: u64 = 1 << 3;
    /// Free space tree, free space tree valid, fs-verity.
    pub const HARMLESS: u64 = 1 << 0 | 1 << 1 | 1 << 2;
}

mod flag {
    /// Written, relocated: set on superblocks for historical reasons.
    pub const HARMLESS: u64 = 1 << 0 | 1 << 1;
    pub const ERROR: u64 = 1 << 2;
    pub const SEEDING: u64 = 1 << 32;
    pub const METADUMP: u64 = 1 << 33 | 1 << 34;
}

/// Where a tree starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Root {
    /// Logical address of the root node.
    pub bytenr: u64,
    /// Its generation.
    pub generation: u64,
    /// Its level.
    pub level: u8,
    /// Number of the tree.
    pub owner: u64,
}

/// What the superblock says.
pub(super) struct Superblock {
    bytes: Vec<u8>,
    sum: Option<Sum>,
    /// Label, as a tool would print it.
    pub label: String,
    /// UUID, as a tool would print it.
    pub uuid: String,
}

impl Superblock {
    /// Reads it; `None` if there is no magic number.
    pub fn read(view: &View<'_>) -> Result<Option<Superblock>, ReadFailure> {
        let bytes = view.bytes_up_to(PRIMARY, SIZE as usize)?;
        if bytes.len() as u64 != SIZE || !has(&bytes, 0x40, MAGIC) {
            return Ok(None);
        }
        Ok(Some(Superblock {
            sum: Sum::named_in(&bytes),
            label: text(bytes.get(0x12b..0x22b).unwrap_or_default()),
            uuid: array(&bytes, 0x20)
                .map(|raw| guid::plain(&raw))
                .unwrap_or_default(),
            bytes,
        }))
    }

    fn u64(&self, at: usize) -> u64 {
        le64(&self.bytes, at).unwrap_or(0)
    }

    fn u32(&self, at: usize) -> u32 {
        le32(&self.bytes, at).unwrap_or(0)
    }

    fn u8(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(0)
    }

    fn id(&self, at: usize) -> [u8; 16] {
        array(&self.bytes, at).unwrap_or_default()
    }

    /// Bytes of this device that the file system covers; 0 if that cannot be believed.
    pub fn size_bytes(&self) -> u64 {
        match self.sum {
            Some(sum) if sum.matches(&self.bytes) => self.u64(0xd1),
            _ => 0,
        }
    }

    /// Bytes in use, by logical address.
    pub fn bytes_used(&self) -> u64 {
        self.u64(0x78)
    }

    /// Number of this device in the file system.
    pub fn device(&self) -> u64 {
        self.u64(0xc9)
    }

    /// UUID of this device in the file system.
    pub fn device_uuid(&self) -> [u8; 16] {
        self.id(0xc9 + 66)
    }

    /// Whether block groups hold data and metadata at once.
    pub fn mixed_groups(&self) -> bool {
        self.u64(0xbc) & incompat::MIXED_GROUPS != 0
    }

    /// Whether block groups have a tree of their own.
    pub fn block_group_tree(&self) -> bool {
        self.u64(0xb4) & compat_ro::BLOCK_GROUP_TREE != 0
    }

    /// The tree of trees.
    pub fn root_tree(&self) -> Root {
        Root {
            bytenr: self.u64(0x50),
            generation: self.u64(0x48),
            level: self.u8(0xc6),
            owner: 1,
        }
    }

    /// The tree that maps logical to physical addresses.
    pub fn chunk_tree(&self) -> Root {
        Root {
            bytenr: self.u64(0x58),
            generation: self.u64(0xa4),
            level: self.u8(0xc7),
            owner: 3,
        }
    }

    /// The tree of logs, which were written in the generation after the last that is
    /// complete; `None` if there is none.
    pub fn log_tree(&self) -> Option<Root> {
        (self.u64(0x60) != 0).then(|| Root {
            bytenr: self.u64(0x60),
            generation: self.u64(0x48).saturating_add(1),
            level: self.u8(0xc8),
            owner: super::LOG,
        })
    }

    /// Keys and items of the system chunks.
    pub fn system_chunks(&self) -> &[u8] {
        let len = (self.u32(0xa0) as usize).min(SYSTEM_CHUNKS);
        self.bytes.get(0x32b..0x32b + len).unwrap_or_default()
    }

    /// UUID that tree nodes carry.
    fn tree_uuid(&self) -> [u8; 16] {
        if self.u64(0xbc) & incompat::METADATA_UUID != 0 {
            self.id(0x23b)
        } else {
            self.id(0x20)
        }
    }

    /// Whether a map may be made, and how tree nodes look.
    pub fn check(&self) -> Result<Format, Fault> {
        let Some(sum) = self.sum else {
            return unsupported("its kind of checksum is not known");
        };
        if !sum.matches(&self.bytes) {
            return damaged("wrong checksum of its superblock");
        }
        if self.u64(0x30) != PRIMARY {
            return damaged("its superblock is a copy of another place");
        }
        self.check_features()?;
        self.check_devices()?;
        let (sector, node) = (self.u32(0x90), self.u32(0x94));
        let fine = |size: u32| size.is_power_of_two() && (4096..=65536).contains(&size);
        if !fine(sector) || !fine(node) || node < sector {
            return damaged(format!(
                "sectors of {sector} bytes and tree nodes of {node} bytes are impossible"
            ));
        }
        if self.u32(0xa0) as usize > SYSTEM_CHUNKS {
            return damaged("its array of system chunks is too long");
        }
        let roots = [Some(self.root_tree()), Some(self.chunk_tree())];
        for root in roots.into_iter().chain([self.log_tree()]).flatten() {
            if root.level > MAX_LEVEL || root.bytenr % u64::from(sector) != 0 {
                return damaged(format!("the root of tree {} is impossible", root.owner));
            }
        }
        Ok(Format {
            node_size: node,
            sector_size: sector,
            uuid: self.tree_uuid(),
            sum,
        })
    }

    fn check_features(&self) -> Result<(), Fault> {
        let features = self.u64(0xbc);
        for (bit, why) in incompat::UNSUPPORTED {
            if features & bit != 0 {
                return unsupported(why);
            }
        }
        let known = incompat::HARMLESS
            | incompat::MIXED_BACKREF
            | incompat::MIXED_GROUPS
            | incompat::METADATA_UUID;
        let known_ro = compat_ro::HARMLESS | compat_ro::BLOCK_GROUP_TREE;
        if features & !known != 0 || self.u64(0xb4) & !known_ro != 0 || self.u64(0xac) != 0 {
            return unsupported("it has unknown features");
        }
        if features & incompat::MIXED_BACKREF == 0 {
            return unsupported("it is of the first version of the format");
        }
        let flags = self.u64(0x38);
        if flags & flag::ERROR != 0 {
            return Err(Fault::Dirty("errors were found in it".into()));
        }
        if flags & flag::SEEDING != 0 {
            return unsupported("it is the seed of other file systems");
        }
        if flags & flag::METADUMP != 0 {
            return unsupported("it is a dump of metadata only");
        }
        if flags & !flag::HARMLESS != 0 {
            return unsupported("a conversion of it is not finished");
        }
        Ok(())
    }

    fn check_devices(&self) -> Result<(), Fault> {
        let devices = self.u64(0x88);
        if devices == 0 {
            return damaged("it says it has no device");
        }
        if devices > 1 {
            return unsupported(format!("it is one of {devices} devices of a file system"));
        }
        if self.device() == 0 {
            return unsupported("it is the target of a replacement that is not finished");
        }
        if self.id(0xc9 + 82) != self.tree_uuid() {
            return damaged("its device belongs to another file system");
        }
        Ok(())
    }
}

/// A valid state without a map.
pub(super) fn unsupported<T>(why: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Unsupported(why.into()))
}
