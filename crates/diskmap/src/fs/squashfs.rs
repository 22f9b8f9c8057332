//! SquashFS 4: a read-only image, in use from its first byte to its last.
//!
//! Owns: the superblock (kernel: `Documentation/filesystems/squashfs.rst`). Does not
//! own: the tables behind it, or what follows the image.

use super::{Fault, Map, Mapped, Volume, behind, damaged};
use crate::bytes::{has, le16, le32, le64};
use crate::view::{ReadFailure, View};

/// Bytes of the superblock.
const SUPERBLOCK: usize = 96;
/// Images are padded to this by the tool that makes them.
const PAD: u64 = 4096;
/// What stands for a table that is not there.
const NO_TABLE: u64 = u64::MAX;

struct Image {
    bytes_used: u64,
    problem: Option<&'static str>,
}

/// Looks for a superblock of version 4.
pub(super) fn look(view: &View<'_>) -> Result<Option<Volume>, ReadFailure> {
    let head = view.bytes_up_to(0, SUPERBLOCK)?;
    if head.len() < SUPERBLOCK || !has(&head, 0, b"hsqs") {
        return Ok(None);
    }
    let image = decode(&head);
    Ok(Some(Volume {
        name: "squashfs",
        label: String::new(),
        uuid: String::new(),
        size: image.bytes_used,
        wraps: false,
        map: Box::new(image),
    }))
}

fn decode(head: &[u8]) -> Image {
    let bytes_used = le64(head, 40).unwrap_or(0);
    let block = le32(head, 12).unwrap_or(0);
    let log = u32::from(le16(head, 22).unwrap_or(0));
    let inside = |at| {
        let table = le64(head, at).unwrap_or(0);
        table == NO_TABLE || (table >= SUPERBLOCK as u64 && table < bytes_used)
    };
    let problem = if (le16(head, 28), le16(head, 30)) != (Some(4), Some(0)) {
        Some("its version is not 4.0")
    } else if !(12..=20).contains(&log) || 1u32.checked_shl(log) != Some(block) {
        Some("its block size contradicts itself")
    } else if ![48, 56, 64, 72, 80, 88].into_iter().all(inside) {
        Some("one of its tables lies outside")
    } else {
        None
    };
    Image {
        bytes_used,
        problem,
    }
}

impl Map for Image {
    fn used(&self, view: &View<'_>, _: u32) -> Result<Mapped, Fault> {
        if let Some(problem) = self.problem {
            return damaged(problem);
        }
        let size = self
            .bytes_used
            .checked_next_multiple_of(PAD)
            .map_or(view.size(), |padded| padded.min(view.size()));
        Ok(Mapped {
            reason: Some("SquashFS is read-only: it is copied up to its end.".into()),
            ..Mapped::from(behind::nothing(view, size)?)
        })
    }
}
