//! What the kernel knows of a disk's ways to lose its contents.
//!
//! Owns: the attributes of its queue. Does not own: commands of a drive (`nvme`), what is
//! made of it.

use crate::device::{Device, Kind};
use crate::sysfs::{self, DevNum, Roots};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What a disk can do besides being written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// Unit of a discard in bytes; 0 if it is not known.
    pub discard_granularity: u64,
    /// Most bytes of one discard; 0: the disk cannot discard. Of a file it is known only when
    /// it is tried.
    pub discard_max_bytes: u64,
    /// Most bytes that one command makes zeros; 0: it has no such command.
    pub write_zeroes_max_bytes: u64,
    /// Whether it turns, if it says so.
    pub rotational: Option<bool>,
}

impl Device {
    /// What the disk can do, as far as the kernel knows.
    pub fn abilities(&self) -> Abilities {
        match self.kind() {
            Kind::File => Abilities {
                discard_granularity: 4096,
                discard_max_bytes: u64::MAX,
                ..Abilities::default()
            },
            Kind::Block => {
                let number = self.file.metadata().map(|m| DevNum::from_raw(m.rdev()));
                let dir = number.ok().and_then(|n| Roots::live().dir_of(n));
                dir.map(|dir| of_queue(&dir)).unwrap_or_default()
            }
        }
    }
}

/// From the directory of a disk, or of a partition of one.
fn of_queue(dir: &Path) -> Abilities {
    let disk = match dir.join("partition").exists() {
        true => dir.parent().unwrap_or(dir),
        false => dir,
    };
    let bytes = |name: &str| sysfs::number(disk, &format!("queue/{name}")).unwrap_or(0);
    Abilities {
        discard_granularity: bytes("discard_granularity"),
        discard_max_bytes: bytes("discard_max_bytes"),
        write_zeroes_max_bytes: bytes("write_zeroes_max_bytes"),
        rotational: sysfs::number::<u8>(disk, "queue/rotational").map(|turns| turns != 0),
    }
}

#[cfg(test)]
mod tests {
    use super::{Abilities, of_queue};
    use std::fs;

    #[test]
    fn a_partition_has_its_disk_s_abilities_and_a_missing_attribute_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("sda");
        fs::create_dir_all(disk.join("queue")).unwrap();
        fs::create_dir_all(disk.join("sda1")).unwrap();
        fs::write(disk.join("sda1/partition"), "1\n").unwrap();
        assert_eq!(of_queue(&disk), Abilities::default());
        for (name, value) in [
            ("discard_granularity", "4096\n"),
            ("discard_max_bytes", "2147450880\n"),
            ("write_zeroes_max_bytes", "0\n"),
            ("rotational", "0\n"),
        ] {
            fs::write(disk.join("queue").join(name), value).unwrap();
        }
        let found = of_queue(&disk.join("sda1"));
        assert_eq!(found, of_queue(&disk));
        assert_eq!(
            found,
            Abilities {
                discard_granularity: 4096,
                discard_max_bytes: 2_147_450_880,
                write_zeroes_max_bytes: 0,
                rotational: Some(false),
            }
        );
    }
}
