//! What lies behind a file system that ends before its region.
//!
//! Owns: whether the space behind is in use by somebody. Does not own: what it is.
//! Appliances keep the writable half of their system right behind the read-only one, in
//! the same partition and without any table that says so: then only a copy of every sector
//! is safe. The hash tree of dm-verity is appended in the same way to file systems of any
//! kind, and without it they cannot be mounted.

use super::Fault;
use crate::extents::{Extent, Extents};
use crate::view::{ReadFailure, View};

/// Bytes that are looked at. Whoever hides something behind an image aligns it to a flash
/// block (64 KiB, rarely up to 1 MiB) and starts it with a superblock.
const LOOK: u64 = 2 << 20;
/// Bytes read at once.
const STEP: u64 = 256 << 10;

/// Whether there is nothing but zeros right behind the first `size` bytes.
pub(super) fn is_empty(view: &View<'_>, size: u64) -> Result<bool, ReadFailure> {
    let end = view.size().min(size.saturating_add(LOOK));
    let mut at = size;
    while at < end {
        let len = (end - at).min(STEP);
        if view.bytes(at, len as usize)?.iter().any(|&byte| byte != 0) {
            return Ok(false);
        }
        at += len;
    }
    Ok(true)
}

/// The first `size` bytes as a used map, if nothing follows them.
pub(super) fn nothing(view: &View<'_>, size: u64) -> Result<Extents, Fault> {
    if !is_empty(view, size)? {
        return Err(Fault::Unsupported(format!(
            "something stands right behind its {size} bytes"
        )));
    }
    Ok(Extents::from_iter([Extent {
        start: 0,
        len: size,
    }]))
}
