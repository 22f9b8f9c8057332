//! A writer for the "newc" cpio format that the kernel unpacks as an initramfs.
//!
//! Owns the byte layout and everything that could make two runs differ: inode
//! numbers count up, owner is root, times are zero. Does not own what goes into
//! the archive (`content`) nor its compression (`main`).
//!
//! Layout: `Documentation/driver-api/early-userspace/buffer-format.rst` of the kernel.

use std::io::{self, Write};

const MAGIC: &str = "070701";
const TRAILER: &str = "TRAILER!!!";
/// The kernel accepts concatenated archives only at 4-byte boundaries; 512 is
/// what cpio itself pads to.
const ARCHIVE_ALIGN: u64 = 512;

const TYPE_DIRECTORY: u32 = 0o040_000;
const TYPE_FILE: u32 = 0o100_000;
const TYPE_SYMLINK: u32 = 0o120_000;
const TYPE_CHAR_DEVICE: u32 = 0o020_000;

/// What one archive member is. Permissions are the low nine bits of the mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A directory with its permissions.
    Directory(u32),
    /// A regular file with its permissions and bytes.
    File(u32, Vec<u8>),
    /// A symbolic link and where it points.
    Symlink(String),
    /// A character device with permissions, major and minor number.
    CharDevice(u32, u32, u32),
}

/// Writes members one after another; `finish` adds the trailer.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    written: u64,
    next_inode: u32,
}

impl<W: Write> Writer<W> {
    /// Starts an archive on `out`.
    pub fn new(out: W) -> Self {
        Self {
            out,
            written: 0,
            next_inode: 1,
        }
    }

    /// Appends one member. `path` is relative, without a leading slash.
    ///
    /// # Errors
    /// `InvalidInput` for a file past 4 GiB (the format's limit), else what the
    /// output reports.
    pub fn append(&mut self, path: &str, node: &Node) -> io::Result<()> {
        let inode = self.next_inode;
        self.next_inode += 1;
        match node {
            Node::Directory(mode) => self.member(inode, path, TYPE_DIRECTORY | mode, (0, 0), &[]),
            Node::File(mode, data) => self.member(inode, path, TYPE_FILE | mode, (0, 0), data),
            Node::Symlink(to) => {
                self.member(inode, path, TYPE_SYMLINK | 0o777, (0, 0), to.as_bytes())
            }
            Node::CharDevice(mode, major, minor) => {
                self.member(inode, path, TYPE_CHAR_DEVICE | mode, (*major, *minor), &[])
            }
        }
    }

    /// Writes the trailer, pads, and gives the output back.
    ///
    /// # Errors
    /// What the output reports.
    pub fn finish(mut self) -> io::Result<W> {
        self.member(0, TRAILER, 0, (0, 0), &[])?;
        self.pad(ARCHIVE_ALIGN)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn member(
        &mut self,
        inode: u32,
        name: &str,
        mode: u32,
        (rmajor, rminor): (u32, u32),
        data: &[u8],
    ) -> io::Result<()> {
        let too_long = |_| io::Error::new(io::ErrorKind::InvalidInput, format!("{name}: too long"));
        let size = u32::try_from(data.len()).map_err(too_long)?;
        let name_size = u32::try_from(name.len() + 1).map_err(too_long)?;
        // A directory's link count is not looked at by the kernel; 1 keeps hard-link handling out.
        let (uid, gid, links, mtime, dev_major, dev_minor, check) = (0, 0, 1, 0, 0, 0, 0);
        let mut header = String::from(MAGIC);
        for field in [
            inode, mode, uid, gid, links, mtime, size, dev_major, dev_minor, rmajor, rminor,
            name_size, check,
        ] {
            header.push_str(&format!("{field:08X}"));
        }
        self.put(header.as_bytes())?;
        self.put(name.as_bytes())?;
        self.put(&[0])?;
        self.pad(4)?;
        self.put(data)?;
        self.pad(4)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn pad(&mut self, align: u64) -> io::Result<()> {
        while !self.written.is_multiple_of(align) {
            self.put(&[0])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Node, Writer};

    #[test]
    fn a_member_has_the_documented_layout() {
        let mut writer = Writer::new(Vec::new());
        writer
            .append("a", &Node::File(0o644, b"hello".to_vec()))
            .unwrap();
        let bytes = writer.finish().unwrap();
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(&bytes[6..14], b"00000001", "inode");
        assert_eq!(&bytes[14..22], b"000081A4", "mode 0100644");
        assert_eq!(&bytes[46..54], b"00000000", "mtime");
        assert_eq!(&bytes[54..62], b"00000005", "size");
        assert_eq!(&bytes[94..102], b"00000002", "name size with its zero");
        // 110 bytes of header and two of name end on 112, a multiple of four.
        assert_eq!(&bytes[110..117], b"a\0hello");
        assert_eq!(&bytes[120..126], b"070701", "the trailer starts aligned");
        assert_eq!(bytes.len() % 512, 0);
    }

    #[test]
    fn a_device_node_carries_its_numbers() {
        let mut writer = Writer::new(Vec::new());
        writer
            .append("dev/console", &Node::CharDevice(0o600, 5, 1))
            .unwrap();
        let bytes = writer.finish().unwrap();
        assert_eq!(&bytes[14..22], b"00002180");
        assert_eq!(&bytes[78..86], b"00000005");
        assert_eq!(&bytes[86..94], b"00000001");
    }
}
