//! Volumes inside a partition of an image: of LVM2, and in members of mirrors.
//!
//! Owns: their bytes, as far as the image holds them. Does not own: where they lie
//! (`diskmap`), file systems.

use super::part::Bytes;
use diskmap::{DiskRead, Extent, InnerVolumes};
use image::Error;
use image::layout::Region;
use std::io;

/// Names of what holds volumes, as layouts have them.
pub fn holds_volumes(file_system: &str) -> bool {
    matches!(file_system, "lvm2" | "md")
}

/// The disk with zeros for what the image does not hold: nothing that says where a volume
/// lies is left out of an image, and only to know what is in them more is looked at.
struct Lenient<'a>(&'a (dyn Bytes + Sync));

impl DiskRead for Lenient<'_> {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let read = self.0.counted(buf, offset);
        read.map(drop).map_err(io::Error::other)
    }
}

/// The volumes in a region.
///
/// # Errors
/// The image cannot be read.
pub fn volumes(
    image: &(dyn Bytes + Sync),
    region: &Region,
) -> Result<InnerVolumes, diskmap::ScanError> {
    diskmap::inner_volumes(&Lenient(image), region.start, region.size)
}

/// A volume as a disk of its own.
pub struct Joined<'a> {
    image: &'a (dyn Bytes + Sync),
    /// First byte in the volume, and the bytes on the disk.
    parts: Vec<(u64, Extent)>,
    size: u64,
}

impl<'a> Joined<'a> {
    /// These bytes of the disk, one behind the other.
    pub fn new(image: &'a (dyn Bytes + Sync), parts: &[Extent]) -> Self {
        let mut size = 0u64;
        let parts = parts.iter().map(|&part| {
            let at = size;
            size = size.saturating_add(part.len);
            (at, part)
        });
        let parts = parts.collect();
        Joined { image, parts, size }
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The ranges of the volume (first byte and end, ascending) that lie in these ranges of
    /// the disk.
    pub fn ranges(&self, on_disk: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let mut found = Vec::new();
        for (at, part) in &self.parts {
            for &(start, end) in on_disk {
                let (from, to) = (start.max(part.start), end.min(part.end()));
                if from < to {
                    found.push((at + (from - part.start), at + (to - part.start)));
                }
            }
        }
        found.sort_unstable();
        found
    }
}

impl Bytes for Joined<'_> {
    fn counted(&self, buf: &mut [u8], offset: u64) -> Result<u64, Error> {
        let end = offset.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.size) {
            return Err(Error::Io {
                operation: "reading a volume of an image",
                source: io::Error::new(io::ErrorKind::InvalidInput, "beyond its end"),
            });
        }
        let (mut held, mut done) = (0, 0);
        let first = self
            .parts
            .partition_point(|(at, part)| at + part.len <= offset);
        for (at, part) in &self.parts[first..] {
            if done == buf.len() {
                break;
            }
            let inside = offset + done as u64 - at;
            let len = (part.len - inside).min((buf.len() - done) as u64) as usize;
            let piece = &mut buf[done..done + len];
            held += self.image.counted(piece, part.start + inside)?;
            done += len;
        }
        Ok(held)
    }
}

#[cfg(test)]
mod tests {
    use super::{Bytes, Joined};
    use diskmap::Extent;
    use image::Error;

    /// Every byte is its place; the image holds none from 1000 on.
    struct Places;

    impl Bytes for Places {
        fn counted(&self, buf: &mut [u8], offset: u64) -> Result<u64, Error> {
            for (n, byte) in buf.iter_mut().enumerate() {
                *byte = (offset + n as u64) as u8;
            }
            Ok((buf.len() as u64).min(1000u64.saturating_sub(offset)))
        }
    }

    #[test]
    fn parts_are_one_disk_in_their_order() {
        let parts = [(100, 10), (50, 5), (995, 10)].map(|(start, len)| Extent { start, len });
        let joined = Joined::new(&Places, &parts);
        assert_eq!(joined.size(), 25);
        let mut buf = [0; 9];
        assert_eq!(joined.counted(&mut buf, 8).unwrap(), 9);
        assert_eq!(buf, [108, 109, 50, 51, 52, 53, 54, 227, 228]);
        let mut all = [0; 25];
        assert_eq!(joined.counted(&mut all, 0).unwrap(), 20);
        assert!(joined.counted(&mut all, 1).is_err());
        assert!(joined.counted(&mut all, u64::MAX).is_err());
        assert_eq!(joined.counted(&mut [], 25).unwrap(), 0);
        let bad = joined.ranges(&[(40, 52), (54, 102), (109, 200), (2000, 3000)]);
        assert_eq!(bad, [(0, 2), (9, 10), (10, 12), (14, 15)]);
    }
}
