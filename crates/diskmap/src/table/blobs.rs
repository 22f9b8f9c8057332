//! Table bytes that come from an image.
//!
//! Owns: reading a set of blobs as if it were the disk, so that an image's table
//! passes exactly the checks of a disk's. Does not own: those checks.

use super::{FoundTable, ParsedTable, detect};
use crate::error::TableError;
use crate::extents::{Extent, Extents};
use crate::model::{Blob, Geometry, TableKind};
use crate::read::DiskRead;
use crate::view::View;
use std::io;

/// A disk of which only some bytes are known; the others read as zero.
struct BlobDisk<'a>(Vec<&'a Blob>);

impl DiskRead for BlobDisk<'_> {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        buf.fill(0);
        let end = offset.saturating_add(buf.len() as u64);
        let first = self.0.partition_point(|blob| blob.end() <= offset);
        for blob in self.0[first..].iter().take_while(|blob| blob.offset < end) {
            let (from, to) = (blob.offset.max(offset), blob.end().min(end));
            let source = (from - blob.offset) as usize..(to - blob.offset) as usize;
            buf[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&blob.data[source]);
        }
        Ok(())
    }
}

/// Checks the table bytes of an image again and lists their partitions.
///
/// # Errors
/// [`TableError`] if the bytes are not a complete, undamaged table of that kind for
/// a disk of `source` size, or hold anything that is no part of it.
pub fn parse_blobs(
    kind: TableKind,
    blobs: &[Blob],
    source: Geometry,
) -> Result<ParsedTable, TableError> {
    Ok(parse(kind, blobs, source)?.map_or_else(
        || ParsedTable {
            kind: TableKind::None,
            disk_id: String::new(),
            partitions: Vec::new(),
        },
        |found| found.parsed,
    ))
}

/// As [`parse_blobs`], with the table itself; `None` for a disk without one.
pub(super) fn parse(
    kind: TableKind,
    blobs: &[Blob],
    source: Geometry,
) -> Result<Option<FoundTable>, TableError> {
    if !source.is_supported() {
        return Err(TableError::SectorSizeUnsupported {
            size: source.sector_size,
        });
    }
    let damaged = |detail: &str| TableError::Damaged {
        detail: detail.into(),
    };
    let mut sorted: Vec<&Blob> = blobs.iter().collect();
    sorted.sort_by_key(|blob| blob.offset);
    if sorted.windows(2).any(|w| w[0].end() > w[1].offset)
        || sorted
            .last()
            .is_some_and(|blob| blob.end() > source.size_bytes)
    {
        return Err(damaged("its parts overlap or lie outside the disk"));
    }
    if kind == TableKind::None {
        return if blobs.is_empty() {
            Ok(None)
        } else {
            Err(damaged("there should be none"))
        };
    }
    let disk = BlobDisk(sorted);
    let view = View::new(&disk, 0, source.size_bytes);
    let found = detect(&view, source, || Ok(None))?.filter(|found| found.parsed.kind == kind);
    let Some(found) = found else {
        return Err(damaged(&format!(
            "the bytes are not a table of kind {kind}"
        )));
    };
    if found.is_rebuilt() {
        return Err(damaged(&found.warnings.join("; ")));
    }
    if covered(&found.blobs) != covered(blobs) {
        return Err(damaged("there are bytes that are no part of the table"));
    }
    Ok(Some(found))
}

fn covered(blobs: &[Blob]) -> Extents {
    blobs
        .iter()
        .map(|blob| Extent {
            start: blob.offset,
            len: blob.data.len() as u64,
        })
        .collect()
}
