//! Disks as raw image files: tables by sfdisk, file systems by their own tools,
//! files from a seed, all without the kernel's partition scanning or mounts.
//!
//! Owns: laying partitions out and putting them together; comparing another disk
//! with what was built. Does not own: contents (`content`), files (`tree`).
//!
//! Every byte follows from the calls, so that two builds are the same disk.
//!
//! ```no_run
//! use testkit::build::{DiskBuilder, Tree};
//! # let dir = std::path::Path::new("/nowhere");
//! let tree = Tree::new(1, 50, 200_000);
//! let disk = DiskBuilder::gpt(512 << 20, 512)
//!     .fat32(64 << 20, &tree)
//!     .ext4(128 << 20, &tree)
//!     .swap(16 << 20)
//!     .build(&dir.join("disk.img"));
//! // ... back up disk.path, restore to another file or device ...
//! disk.verify(&dir.join("restored.img"));
//! ```

mod content;
mod disk_file;
mod tree;

pub use content::Content;
pub use tree::{Hashes, Random, Tree, hashes_of};

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use disk_file::{copy_range, write_table};

/// Partitions start at multiples of this, and it is left free at both ends.
const ALIGN: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Label {
    Gpt,
    Mbr,
    Bare,
}

#[derive(Clone, Debug)]
struct Planned {
    size: u64,
    gap: u64,
    logical: bool,
    content: Content,
}

/// Plan of a disk. Partitions come in the order of the calls, one after the other.
#[derive(Clone, Debug)]
pub struct DiskBuilder {
    label: Label,
    size: u64,
    sector_size: u32,
    planned: Vec<Planned>,
    logical: bool,
    gap: u64,
    boot_code: Option<u64>,
    stale: bool,
}

/// A disk that was built.
#[derive(Clone, Debug)]
pub struct BuiltDisk {
    /// The raw image file.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// Logical sector size in bytes.
    pub sector_size: u32,
    /// The partitions that hold something, in order; not the extended one.
    pub partitions: Vec<BuiltPartition>,
}

/// A partition of a disk that was built.
#[derive(Clone, Debug)]
pub struct BuiltPartition {
    /// Number as the kernel counts (logical ones from 5); 0 without a table.
    pub number: u32,
    /// First byte.
    pub start: u64,
    /// Size in bytes.
    pub size: u64,
    /// What it holds.
    pub content: Content,
}

impl DiskBuilder {
    /// A disk with a GUID partition table.
    pub fn gpt(size: u64, sector_size: u32) -> DiskBuilder {
        Self::new(Label::Gpt, size, sector_size)
    }

    /// A disk with an MBR partition table.
    pub fn mbr(size: u64, sector_size: u32) -> DiskBuilder {
        Self::new(Label::Mbr, size, sector_size)
    }

    /// A disk without a table, whose one content begins at its first byte.
    pub fn bare(size: u64, sector_size: u32) -> DiskBuilder {
        Self::new(Label::Bare, size, sector_size)
    }

    fn new(label: Label, size: u64, sector_size: u32) -> DiskBuilder {
        DiskBuilder {
            label,
            size,
            sector_size,
            planned: Vec::new(),
            logical: false,
            gap: 0,
            boot_code: None,
            stale: false,
        }
    }

    /// An ext4 with blocks of 4096 bytes.
    pub fn ext4(self, size: u64, tree: &Tree) -> Self {
        self.ext("ext4", 4096, size, tree)
    }

    /// Any ext file system.
    pub fn ext(self, version: &'static str, block_size: u32, size: u64, tree: &Tree) -> Self {
        self.partition(
            size,
            Content::Ext {
                version,
                block_size,
                tree: tree.clone(),
            },
        )
    }

    /// A FAT32 with clusters of one sector: at least 40 MiB at 512-byte sectors and
    /// 260 MiB at 4096.
    pub fn fat32(self, size: u64, tree: &Tree) -> Self {
        self.fat(32, size, tree)
    }

    /// A FAT of 12, 16 or 32 bits with clusters of one sector. The number of
    /// clusters has to fit the bits.
    pub fn fat(self, bits: u8, size: u64, tree: &Tree) -> Self {
        let clusters = size / u64::from(self.sector_size);
        let fits = match bits {
            12 => clusters < 4085,
            16 => (4600..65_525).contains(&clusters),
            _ => clusters > 66_600,
        };
        assert!(
            fits,
            "{size} bytes are not the size of a FAT{bits} at this sector size"
        );
        self.partition(
            size,
            Content::Fat {
                bits,
                tree: tree.clone(),
            },
        )
    }

    /// Swap space.
    pub fn swap(self, size: u64) -> Self {
        self.partition(size, Content::Swap)
    }

    /// Random bytes.
    pub fn raw(self, size: u64, seed: u64) -> Self {
        self.partition(size, Content::Raw { seed })
    }

    /// Zeros.
    pub fn empty(self, size: u64) -> Self {
        self.partition(size, Content::Empty)
    }

    /// The partitions that follow are logical ones, in an extended partition that
    /// takes the rest of the disk. MBR only.
    pub fn logical(mut self) -> Self {
        assert!(
            self.label == Label::Mbr,
            "logical partitions are of MBR disks"
        );
        self.logical = true;
        self
    }

    /// Leaves space (in whole MiB) before the next partition.
    pub fn gap(mut self, bytes: u64) -> Self {
        self.gap = bytes.next_multiple_of(ALIGN);
        self
    }

    /// Puts random boot code into the first sector, and on MBR disks behind it too,
    /// where boot loaders keep their second stage.
    pub fn boot_code(mut self, seed: u64) -> Self {
        self.boot_code = Some(seed);
        self
    }

    /// Fills every partition with garbage before its file system is made, as on a
    /// disk that was in use for years: what is not used is not zero.
    pub fn stale(mut self) -> Self {
        self.stale = true;
        self
    }

    fn partition(mut self, size: u64, content: Content) -> Self {
        assert!(
            size.is_multiple_of(u64::from(self.sector_size)),
            "{size} is no whole number of sectors"
        );
        self.planned.push(Planned {
            size,
            gap: self.gap,
            logical: self.logical,
            content,
        });
        self.gap = 0;
        self
    }

    /// Makes the disk as a new sparse file.
    ///
    /// # Panics
    /// If it does not fit, a tool is missing, or the file exists.
    pub fn build(self, path: &Path) -> BuiltDisk {
        let (partitions, extended) = self.lay_out();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .expect("a new disk file");
        file.set_len(self.size).expect("space for the disk");
        if self.label != Label::Bare {
            self.write_table(path, &partitions, extended);
        }
        let work = tempfile::tempdir().expect("a directory for partitions");
        for (partition, serial) in partitions.iter().zip(1u8..) {
            let made = work.path().join(serial.to_string());
            partition
                .content
                .make(&made, partition.size, self.sector_size, serial, self.stale);
            let made = File::open(&made).expect("the partition that was made");
            copy_range(&made, 0, &file, partition.start, partition.size);
        }
        if let Some(seed) = self.boot_code {
            let mut random = Random::new(seed);
            file.write_all_at(&random.bytes(440), 0).expect("boot code");
            if self.label == Label::Mbr {
                file.write_all_at(&random.bytes(30 << 10), u64::from(self.sector_size))
                    .expect("boot code");
            }
        }
        BuiltDisk {
            path: path.to_owned(),
            size: self.size,
            sector_size: self.sector_size,
            partitions,
        }
    }

    /// Places of the partitions, and start and slot of the extended one.
    fn lay_out(&self) -> (Vec<BuiltPartition>, Option<(u64, u32)>) {
        let mut partitions = Vec::new();
        let mut extended = None;
        let mut at = if self.label == Label::Bare { 0 } else { ALIGN };
        let (mut primary, mut logical) = (1, 5);
        for planned in &self.planned {
            at += planned.gap;
            let number = if planned.logical {
                extended.get_or_insert((at, primary));
                at += ALIGN; // for the logical partition's own table
                logical += 1;
                logical - 1
            } else if self.label == Label::Bare {
                0
            } else {
                primary += 1;
                primary - 1
            };
            let content = planned.content.clone();
            partitions.push(BuiltPartition {
                number,
                start: at,
                size: planned.size,
                content,
            });
            at = (at + planned.size).next_multiple_of(ALIGN);
        }
        let reserve = if self.label == Label::Bare { 0 } else { ALIGN };
        let end = partitions.last().map_or(0, |last| last.start + last.size);
        assert!(
            end + reserve <= self.size,
            "{} bytes do not hold these partitions",
            self.size
        );
        (partitions, extended)
    }

    fn write_table(
        &self,
        path: &Path,
        partitions: &[BuiltPartition],
        extended: Option<(u64, u32)>,
    ) {
        let sector = u64::from(self.sector_size);
        let gpt = self.label == Label::Gpt;
        let mut script = if gpt {
            "label: gpt\nlabel-id: 5eed0000-0000-4000-8000-0000000000ff\n".to_owned()
        } else {
            "label: dos\nlabel-id: 0x5eed0001\n".to_owned()
        };
        if let Some((start, number)) = extended {
            let size = (self.size - ALIGN - start) / sector;
            script += &format!("{number} : start={}, size={size}, type=5\n", start / sector);
        }
        for p in partitions {
            let kind = p.content.partition_type(gpt);
            script += &format!(
                "{} : start={}, size={}, type={kind}",
                p.number,
                p.start / sector,
                p.size / sector
            );
            if gpt {
                script += &format!(", uuid=5eed0000-0000-4000-8001-{:012x}", p.number);
            }
            script.push('\n');
        }
        write_table(path, self.sector_size, &script);
    }
}

impl BuiltDisk {
    /// Checks that another disk (a file or a device, of the same or a larger size)
    /// holds at the same places what this one was built with: file systems pass
    /// their own checkers and every file has its hash; swap has its header; raw
    /// bytes are equal.
    ///
    /// # Panics
    /// With the first difference.
    pub fn verify(&self, other: &Path) {
        let disk = File::open(other).expect("the disk to verify");
        let work = tempfile::tempdir().expect("a directory for partitions");
        for partition in &self.partitions {
            let copy = work.path().join(format!("partition-{}", partition.number));
            let file = File::create_new(&copy).expect("a file for the partition");
            file.set_len(partition.size)
                .expect("space for the partition");
            copy_range(&disk, partition.start, &file, 0, partition.size);
            partition.content.verify(&copy, partition.size);
        }
    }
}

#[cfg(test)]
mod tests;
