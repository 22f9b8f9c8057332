//! The seam to the disk: bytes come in here and nowhere else.
//!
//! Owns: the trait and its implementations for memory. Does not own: devices and
//! files (their owners implement the trait).

use std::io;
use std::sync::Arc;

/// Something that can be read at any byte offset.
pub trait DiskRead: Send + Sync {
    /// Fills `buf` from byte `offset`.
    ///
    /// # Errors
    /// If not all of `buf` can be read, including at the end of the disk.
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}

impl DiskRead for [u8] {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let source = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..start.checked_add(buf.len())?))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(source);
        Ok(())
    }
}

impl DiskRead for Vec<u8> {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.as_slice().read_exact_at(offset, buf)
    }
}

impl<T: DiskRead + ?Sized> DiskRead for &T {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        (**self).read_exact_at(offset, buf)
    }
}

impl<T: DiskRead + ?Sized> DiskRead for Box<T> {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        (**self).read_exact_at(offset, buf)
    }
}

impl<T: DiskRead + ?Sized> DiskRead for Arc<T> {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        (**self).read_exact_at(offset, buf)
    }
}

#[cfg(test)]
mod tests {
    use super::DiskRead;
    use std::sync::Arc;

    #[test]
    fn memory_reads_all_or_nothing() {
        let disk: Arc<dyn DiskRead> = Arc::new(vec![1u8, 2, 3, 4]);
        let mut buf = [0u8; 2];
        disk.read_exact_at(2, &mut buf).unwrap();
        assert_eq!(buf, [3, 4]);
        for offset in [3, 4, u64::MAX] {
            assert!(
                Box::new(&disk).read_exact_at(offset, &mut buf).is_err(),
                "{offset}"
            );
        }
    }
}
