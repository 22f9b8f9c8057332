//! The root directory of exFAT: allocation bitmap, up-case table, label.
//!
//! Owns: finding these entries (exFAT file system specification, sections 6 and 7)
//! and whether they can be believed. Does not own: files and other directories.

use super::super::{Fault, damaged};
use super::boot::{self, Boot};
use super::chain;
use crate::bytes::{le32, le64};
use crate::extents::Extent;
use crate::view::View;

/// Largest directory.
const MAX_DIRECTORY: u64 = 256 << 20;
/// Bytes that are looked through at once.
const STEP: u64 = 1 << 20;
/// The largest table: every UTF-16 unit by itself.
const MAX_UPCASE: u64 = 2 << 16;
const ENTRY: usize = 32;

/// What the root directory says about the volume.
pub(super) struct Root {
    /// Clusters of the directory itself.
    pub pieces: Vec<Extent>,
    pub label: String,
    bitmap: Option<Stream>,
    upcase: Option<(Stream, u32)>,
}

/// First cluster and length in bytes.
#[derive(Clone, Copy)]
struct Stream {
    first: u32,
    len: u64,
}

impl Root {
    /// Reads the directory.
    pub fn read(view: &View<'_>, boot: &Boot) -> Result<Root, Fault> {
        let what = "the root directory";
        let mut root = Root {
            pieces: chain::follow(view, boot, what, boot.root, MAX_DIRECTORY)?,
            label: String::new(),
            bitmap: None,
            upcase: None,
        };
        'all: for piece in root.pieces.clone() {
            for at in (piece.start..piece.end()).step_by(STEP as usize) {
                let part = view.bytes(at, STEP.min(piece.end() - at) as usize)?;
                for entry in part.chunks_exact(ENTRY) {
                    if entry[0] == 0 {
                        break 'all;
                    }
                    root.entry(entry)?;
                }
            }
        }
        Ok(root)
    }

    fn entry(&mut self, entry: &[u8]) -> Result<(), Fault> {
        let stream = Stream {
            first: le32(entry, 20).unwrap_or(0),
            len: le64(entry, 24).unwrap_or(0),
        };
        match entry[0] {
            0x81 if entry[1] & 1 != 0 => Err(Fault::Unsupported(
                "it has the allocation bitmap of a TexFAT volume".into(),
            )),
            0x81 if self.bitmap.is_some() => damaged("it has two allocation bitmaps"),
            0x81 => {
                self.bitmap = Some(stream);
                Ok(())
            }
            0x82 if self.upcase.is_some() => damaged("it has two up-case tables"),
            0x82 => {
                self.upcase = Some((stream, le32(entry, 4).unwrap_or(0)));
                Ok(())
            }
            0x83 => {
                self.label = label(entry);
                Ok(())
            }
            0x85 => Ok(()),
            // A critical entry that is not known makes the volume unknown.
            kind @ 0x80..0xa0 => Err(Fault::Unsupported(format!(
                "its root directory has an entry of the unknown type {kind:#04x}"
            ))),
            // Not in use, optional, or parts of a file's entry.
            _ => Ok(()),
        }
    }

    /// Place of the allocation bitmap, which has a bit for each cluster.
    pub fn bitmap(&self, view: &View<'_>, boot: &Boot) -> Result<Extent, Fault> {
        let Some(Stream { first, len }) = self.bitmap else {
            return damaged("its root directory has no allocation bitmap");
        };
        if len < u64::from(boot.clusters).div_ceil(8) {
            return damaged(format!(
                "its allocation bitmap has {len} bytes for {} clusters",
                boot.clusters
            ));
        }
        chain::in_a_row(view, boot, "the allocation bitmap", first, len)
    }

    /// Place of the up-case table, after a look at its checksum.
    pub fn upcase(&self, view: &View<'_>, boot: &Boot) -> Result<Extent, Fault> {
        let Some((Stream { first, len }, wanted)) = self.upcase else {
            return damaged("its root directory has no up-case table");
        };
        if len == 0 || len > MAX_UPCASE {
            return damaged(format!("its up-case table has {len} bytes"));
        }
        let place = chain::in_a_row(view, boot, "the up-case table", first, len)?;
        let sum = view.bytes(place.start, len as usize)?;
        if sum.into_iter().fold(0, boot::add) != wanted {
            return damaged("wrong checksum of its up-case table");
        }
        Ok(place)
    }
}

/// The label of its entry.
fn label(entry: &[u8]) -> String {
    let units: Vec<u16> = entry[2..24]
        .chunks_exact(2)
        .take(usize::from(entry[1]))
        .map(|raw| u16::from_le_bytes([raw[0], raw[1]]))
        .collect();
    String::from_utf16_lossy(&units)
        .chars()
        .filter(|c| !c.is_control())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::label;

    #[test]
    fn labels_have_their_own_length() {
        let mut entry = [0u8; 32];
        entry[..2].copy_from_slice(&[0x83, 4]);
        for (i, unit) in "F\u{fc}r\u{7}alle".encode_utf16().enumerate() {
            entry[2 + 2 * i..][..2].copy_from_slice(&unit.to_le_bytes());
        }
        assert_eq!(label(&entry), "F\u{fc}r");
        entry[1] = 200;
        assert!(label(&entry).starts_with("F\u{fc}ralle"));
        entry[1] = 0;
        assert_eq!(label(&entry), "");
    }
}
