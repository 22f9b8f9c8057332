//! An open image, and one region of it, as bytes that can be read at any offset.
//!
//! Owns: the ends of both. Does not own: where the bytes come from.

use super::{OpenImage, ReadAt};
use crate::Error;
use crate::layout::Region;
use std::io;

/// The disk.
impl<S: ReadAt> ReadAt for OpenImage<S> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = self.disk_size().saturating_sub(offset);
        let count = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.read_exact_at(&mut buf[..count], offset.min(self.disk_size()))
            .map_err(io::Error::other)?;
        Ok(count)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.disk_size())
    }
}

/// One region of an open image. Its bytes are those of the disk there, the table's
/// included where a table lies within the region.
pub struct RegionView<'a, S> {
    image: &'a OpenImage<S>,
    region: &'a Region,
}

impl<'a, S: ReadAt> RegionView<'a, S> {
    pub(super) fn new(image: &'a OpenImage<S>, region: &'a Region) -> Self {
        RegionView { image, region }
    }

    /// What the layout says of it.
    pub fn layout(&self) -> &'a Region {
        self.region
    }

    /// Fills `buf` with the region's bytes from `offset` on; an error if that leaves the
    /// region.
    pub fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<(), Error> {
        let end = offset.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.region.size) {
            return Err(Error::Io {
                operation: "reading a partition of an image",
                source: io::Error::new(io::ErrorKind::InvalidInput, "beyond its end"),
            });
        }
        self.image.read_exact_at(buf, self.region.start + offset)
    }
}

impl<S: ReadAt> ReadAt for RegionView<'_, S> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = self.region.size.saturating_sub(offset);
        let count = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.read_exact_at(&mut buf[..count], offset.min(self.region.size))
            .map_err(io::Error::other)?;
        Ok(count)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.region.size)
    }
}
