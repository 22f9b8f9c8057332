//! Areas of metadata: a header, and a ring of texts behind it.
//!
//! Owns: `mda_header` and `raw_locn` of LVM2 (`layout.h`), and the text in force. Does
//! not own: what the text says.

use super::label::checksum;
use crate::bytes::{has, le32, le64};
use crate::extents::Extent;
use crate::fs::{Fault, damaged};
use crate::view::View;

/// The header takes the first sector of the area, the ring all the rest.
const HEADER: u64 = 512;
/// Places of texts in the header: the one in force, and the one about to be.
const LOCATIONS: usize = 40;
const LOCATION: usize = 24;
/// The area is not kept up to date; other volumes of the group have the metadata.
const IGNORED: u32 = 1;
/// Longest text that is read.
const MAX_TEXT: u64 = 8 << 20;

/// What an area holds.
pub(super) enum Area {
    /// No text: the volume belongs to no group.
    Empty,
    /// A text that nobody keeps up to date, if any.
    Ignored,
    /// The text in force.
    Text(Vec<u8>),
}

/// Reads one area.
pub(super) fn read(view: &View<'_>, area: Extent) -> Result<Area, Fault> {
    let inside = area
        .start
        .checked_add(area.len)
        .is_some_and(|end| end <= view.size());
    if !inside || area.len <= HEADER {
        return damaged("an area of metadata is outside the physical volume");
    }
    let header = view.bytes(area.start, HEADER as usize)?;
    if le32(&header, 0) != Some(checksum(&[header.get(4..).unwrap_or_default()])) {
        return damaged("wrong checksum of the header of the metadata");
    }
    if !has(&header, 4, b" LVM2 x[5A%r0N*>") {
        return damaged("the header of the metadata is not one");
    }
    if le32(&header, 20) != Some(1) {
        return Err(Fault::Unsupported(
            "its metadata has an unknown version".into(),
        ));
    }
    if (le64(&header, 24), le64(&header, 32)) != (Some(area.start), Some(area.len)) {
        return damaged("the header of the metadata belongs to another place");
    }
    let word = |at| le32(&header, at).unwrap_or(0);
    let long = |at| le64(&header, at).unwrap_or(0);
    let flags = word(LOCATIONS + 20);
    if flags & IGNORED != 0 {
        return Ok(Area::Ignored);
    }
    if flags != 0 {
        return Err(Fault::Unsupported(format!(
            "its metadata has unknown flags (0x{flags:x})"
        )));
    }
    let (offset, len) = (long(LOCATIONS), long(LOCATIONS + 8));
    // Other volumes of the group may have made the step that this one was about to make.
    if long(LOCATIONS + LOCATION) != 0 {
        return Err(Fault::Unsupported(
            "a change of its metadata was not finished".into(),
        ));
    }
    if offset == 0 || len == 0 {
        return Ok(Area::Empty);
    }
    if len > MAX_TEXT {
        return Err(Fault::Unsupported(format!("its metadata has {len} bytes")));
    }
    if offset < HEADER || offset >= area.len || len > area.len - HEADER {
        return damaged("the metadata is outside its area");
    }
    let first = len.min(area.len - offset);
    let mut text = view.bytes(area.start + offset, first as usize)?;
    // The ring goes on behind the header.
    text.extend(view.bytes(area.start + HEADER, (len - first) as usize)?);
    if checksum(&[&text]) != word(LOCATIONS + 16) {
        return damaged("wrong checksum of the metadata");
    }
    Ok(Area::Text(text))
}
