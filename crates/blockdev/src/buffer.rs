//! Buffers for direct I/O.
//!
//! Owns: alignment of memory. Does not own: I/O.

use std::ops::{Deref, DerefMut};

/// Alignment of [`AlignedBuf`] in bytes: enough for every supported sector size.
pub const ALIGNMENT: usize = 4096;

/// A heap buffer that starts at a multiple of 4096 bytes, filled with zeros.
///
/// It is a slice inside a somewhat longer vector that is never resized, which
/// needs no unsafe code and costs one page of address space.
pub struct AlignedBuf {
    memory: Box<[u8]>,
    start: usize,
    len: usize,
}

impl AlignedBuf {
    /// A buffer of `len` zeros.
    pub fn new(len: usize) -> Self {
        let memory = vec![0u8; len.saturating_add(ALIGNMENT)].into_boxed_slice();
        // By arithmetic, not by `align_offset`, which is allowed to give up.
        let start = (ALIGNMENT - memory.as_ptr().addr() % ALIGNMENT) % ALIGNMENT;
        AlignedBuf { memory, start, len }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for AlignedBuf {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::{ALIGNMENT, AlignedBuf};

    #[test]
    fn aligned_zeroed_and_writable() {
        for len in [0, 1, 511, 4096, 65537] {
            let mut buf = AlignedBuf::new(len);
            assert_eq!(buf.len(), len);
            assert_eq!(buf.as_ptr().addr() % ALIGNMENT, 0);
            assert!(buf.iter().all(|&b| b == 0));
            buf.fill(7);
            assert!(buf.iter().all(|&b| b == 7));
        }
    }
}
