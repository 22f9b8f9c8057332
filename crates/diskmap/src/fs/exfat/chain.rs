//! Cluster chains by the allocation table of exFAT.
//!
//! Owns: following a chain within bounds. Does not own: files whose clusters lie in a
//! row and have no chain; only the volume's own structures are followed here.

use super::super::{Fault, damaged};
use super::boot::Boot;
use crate::bytes::le32;
use crate::extents::Extent;
use crate::view::View;

const END: u32 = 0xffff_ffff;
/// More pieces than any real directory has; a bound on scattered reads.
const MAX_PIECES: usize = 4096;

/// Places of a chain from cluster `first`, in its order, neighbours joined. `most`
/// bounds its length in bytes.
pub(super) fn follow(
    view: &View<'_>,
    boot: &Boot,
    what: &str,
    first: u32,
    most: u64,
) -> Result<Vec<Extent>, Fault> {
    let mut pieces: Vec<Extent> = Vec::new();
    let mut left = (most.div_ceil(boot.cluster)).min(u64::from(boot.clusters));
    let mut cluster = first;
    loop {
        let Some(place) = boot.place(cluster) else {
            return damaged(format!("the chain of {what} leads to cluster {cluster:#x}"));
        };
        if left == 0 {
            return damaged(format!("the chain of {what} is too long"));
        }
        left -= 1;
        if let Some(last) = pieces.last_mut().filter(|last| last.end() == place.start) {
            last.len += place.len;
        } else if pieces.len() < MAX_PIECES {
            pieces.push(place);
        } else {
            return Err(Fault::Unsupported(format!("{what} is in too many pieces")));
        }
        let mut entry = [0; 4];
        view.read(boot.table + u64::from(cluster) * 4, &mut entry)?;
        cluster = le32(&entry, 0).unwrap_or(0);
        if cluster == END {
            break;
        }
    }
    let mut sorted = pieces.clone();
    sorted.sort_unstable();
    if sorted.windows(2).any(|w| w[0].end() > w[1].start) {
        return damaged(format!("the chain of {what} comes back to itself"));
    }
    Ok(pieces)
}

/// As [`follow`], for what must be exactly `len` bytes in a row.
pub(super) fn in_a_row(
    view: &View<'_>,
    boot: &Boot,
    what: &str,
    first: u32,
    len: u64,
) -> Result<Extent, Fault> {
    let pieces = follow(view, boot, what, first, len)?;
    match pieces[..] {
        [place] if place.len / boot.cluster == len.div_ceil(boot.cluster) => Ok(place),
        [_] => damaged(format!("the chain of {what} is too short")),
        // Not every system follows the chain here; those that do not would read, and
        // have written, something else.
        _ => Err(Fault::Unsupported(format!("{what} is in several pieces"))),
    }
}
