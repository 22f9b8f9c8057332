//! What partclone takes for used: the block bitmap of an image that it made.
//!
//! Owns: reading that bitmap (partclone's image format, version 2). Does not own:
//! what a test makes of a difference.

use super::{ok, s};
use diskmap::{Extent, Extents};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes before the bitmap.
const HEADER: u64 = 110;

/// Has partclone save `path` and returns the bytes it takes for used.
pub fn used(tool: &str, path: &Path, work: &Path) -> Extents {
    let (copy, log) = (work.join("partclone"), work.join("partclone.log"));
    ok(
        tool,
        &[
            "-c",
            "-f",
            "1",
            "-L",
            s(&log),
            "-s",
            s(path),
            "-O",
            s(&copy),
        ],
    );
    let file = std::fs::File::open(&copy).unwrap();
    let mut header = [0u8; HEADER as usize];
    file.read_exact_at(&mut header, 0).unwrap();
    assert!(header.starts_with(b"partclone-image\0"), "{header:?}");
    let number = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().unwrap());
    let (blocks, block) = (number(60), number(84) & 0xffff_ffff);
    let mut bitmap = vec![0u8; blocks.div_ceil(8) as usize];
    file.read_exact_at(&mut bitmap, HEADER).unwrap();
    (0..blocks)
        .filter(|&i| bitmap[(i / 8) as usize] >> (i % 8) & 1 == 1)
        .map(|i| Extent {
            start: i * block,
            len: block,
        })
        .collect()
}
