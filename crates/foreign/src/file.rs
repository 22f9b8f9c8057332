//! A file of an image.
//!
//! Owns: reading it at any place. Does not own: which file.

use diskmap::DiskRead;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A regular file as parsers read it.
#[derive(Debug)]
pub struct FileDisk(File);

impl FileDisk {
    /// The file.
    pub fn new(file: File) -> FileDisk {
        FileDisk(file)
    }
}

impl DiskRead for FileDisk {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
}
