//! The small texts: lists of names, the size of a disk, swap space.
//!
//! Owns: parsing them. Does not own: the partition table (`table`).

/// Names in a list like `disk` or `parts`: separated by spaces or lines.
pub fn names(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// What `NAME-pt.parted` says of the disk itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSize {
    /// Sectors.
    pub sectors: u64,
    /// Logical sector size in bytes.
    pub sector_size: u32,
}

impl DiskSize {
    /// Reads what parted prints in units of sectors; `None` if it does not say both.
    pub fn parse(text: &str) -> Option<DiskSize> {
        let value = |key: &str| {
            let mut lines = text.lines();
            lines
                .find_map(|line| line.trim().strip_prefix(key))
                .map(str::trim)
        };
        // The name of the disk stands between the word and the colon.
        let sectors = value("Disk /dev/")?
            .rsplit_once(':')?
            .1
            .trim()
            .strip_suffix('s')?;
        let size = value("Sector size (logical/physical):")?
            .split('/')
            .next()?;
        Some(DiskSize {
            sectors: sectors.parse().ok()?,
            sector_size: size.trim().strip_suffix('B')?.parse().ok()?,
        })
    }

    /// Size of the disk in bytes.
    pub fn bytes(&self) -> Option<u64> {
        self.sectors.checked_mul(u64::from(self.sector_size))
    }
}

/// What `swappt-NAME.info` says of swap space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swap {
    /// UUID.
    pub uuid: Option<[u8; 16]>,
    /// Label, up to 15 bytes.
    pub label: String,
}

impl Swap {
    /// Bytes of the header that swap space begins with.
    pub const HEADER: usize = 4096;

    /// Reads the text; `None` if a value makes no sense, or none is there.
    pub fn parse(text: &str) -> Option<Swap> {
        let mut swap = Swap::default();
        let mut said = false;
        for line in text.lines() {
            let Some((key, value)) = line.trim().split_once('=') else {
                continue;
            };
            let value = value.trim().trim_matches('"');
            said |= matches!(key.trim(), "UUID" | "LABEL");
            match key.trim() {
                "UUID" if !value.is_empty() => swap.uuid = Some(uuid(value)?),
                "LABEL" if value.len() > 15 => return None,
                "LABEL" => swap.label = value.to_owned(),
                _ => {}
            }
        }
        // Where nothing is to be said of them, they stand there as empty.
        said.then_some(swap)
    }

    /// The header of such swap space of `size` bytes, with pages of 4096 bytes, as mkswap
    /// makes it; `None` if it is too small or too large.
    pub fn header(&self, size: u64) -> Option<Vec<u8>> {
        let last = u32::try_from((size / Self::HEADER as u64).checked_sub(1)?).ok()?;
        if last < 9 {
            return None; // mkswap makes none of less than ten pages
        }
        let mut page = vec![0; Self::HEADER];
        page[1024..1028].copy_from_slice(&1u32.to_le_bytes());
        page[1028..1032].copy_from_slice(&last.to_le_bytes());
        page[1036..1052].copy_from_slice(&self.uuid.unwrap_or_default());
        page[1052..1052 + self.label.len()].copy_from_slice(self.label.as_bytes());
        page[4086..].copy_from_slice(b"SWAPSPACE2");
        Some(page)
    }
}

fn uuid(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u8> = text.bytes().filter(|&b| b != b'-').collect();
    if digits.len() != 32 {
        return None;
    }
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::{DiskSize, Swap, names};

    #[test]
    fn texts_as_the_tools_write_them() {
        assert_eq!(names("sda1 sda2\nsda5 \n"), ["sda1", "sda2", "sda5"]);
        let text = "Model: ATA QEMU (scsi)\nDisk /dev/sda: 41943040s\n\
            Sector size (logical/physical): 512B/4096B\nPartition Table: gpt\n";
        let size = DiskSize::parse(text).unwrap();
        assert_eq!(size.bytes(), Some(20 << 30));
        assert_eq!(DiskSize::parse("Disk /dev/sda: 20GB\n"), None);
        let swap = "UUID=\"0a1b2c3d-0000-4000-8000-00000000beef\"\nLABEL=\"sw\"\n";
        let swap = Swap::parse(swap).unwrap();
        assert_eq!(swap.uuid.unwrap()[..4], [0x0a, 0x1b, 0x2c, 0x3d]);
        let page = swap.header(1 << 20).unwrap();
        assert_eq!((page[1028], &page[1052..1055]), (255, &b"sw\0"[..]));
        assert_eq!(swap.header(36_864), None);
        for torn in ["", "\n", "UUID", "x=1\n"] {
            assert_eq!(Swap::parse(torn), None, "{torn:?}");
        }
        assert_eq!(Swap::parse("UUID=\"xyz\""), None);
        assert_eq!(Swap::parse("LABEL=\"sixteen bytes are\""), None);
        assert_eq!(Swap::parse("UUID=\"\"\nLABEL=\"\""), Some(Swap::default()));
    }
}
