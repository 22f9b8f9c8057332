//! Bad ranges: bytes that the disk did not give at backup, and that stand in the image
//! as zeros.
//!
//! Owns: their stored form, and the checks that make a list fit its layout. Does not
//! own: the section around it, or what a restore says about them.
//!
//! Body of a bad section (little-endian): count (u32), then for each range the region's
//! position in the layout (u32), its first byte in the region (u64) and its length (u64),
//! ascending, in no case touching one another.

use crate::cells::Cursor;
use crate::{Error, Layout, Version};
use std::io;

/// Most ranges in an image: a disk with more is no source for one.
pub const MAX_BAD_RANGES: usize = 500_000;
/// Bytes of a range in its stored form.
const STORED: usize = 20;

/// Bytes of a region that could not be read. The chunks have zeros there, which are not
/// what the disk held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BadRange {
    /// Position of the region in the layout's list.
    pub region: u32,
    /// First byte, from the region's start.
    pub start: u64,
    /// Bytes.
    pub len: u64,
}

impl BadRange {
    /// The byte after the last one, from the region's start.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }
}

/// Joins ranges that touch or overlap; the result is ascending.
pub fn joined(mut ranges: Vec<BadRange>) -> Vec<BadRange> {
    ranges.retain(|range| range.len > 0);
    ranges.sort_unstable();
    let mut out: Vec<BadRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match out.last_mut() {
            Some(last) if last.region == range.region && range.start <= last.end() => {
                last.len = last.end().max(range.end()) - last.start;
            }
            _ => out.push(range),
        }
    }
    out
}

/// Sum of the ranges' lengths, in bytes.
pub fn total(ranges: &[BadRange]) -> u64 {
    ranges
        .iter()
        .fold(0, |sum, range| sum.saturating_add(range.len))
}

/// Body of the section.
pub fn encode(ranges: &[BadRange]) -> Vec<u8> {
    let mut body = Vec::with_capacity(4 + ranges.len() * STORED);
    body.extend_from_slice(&(ranges.len() as u32).to_le_bytes());
    for range in ranges {
        body.extend_from_slice(&range.region.to_le_bytes());
        body.extend_from_slice(&range.start.to_le_bytes());
        body.extend_from_slice(&range.len.to_le_bytes());
    }
    body
}

/// Decodes the body of the section that stands at `offset`; total on any input.
pub fn decode(body: &[u8], layout: &Layout, offset: u64) -> Result<Vec<BadRange>, Error> {
    let mut cursor = Cursor::new(body, offset);
    let count = cursor.u32()? as usize;
    if count == 0 || count > MAX_BAD_RANGES || cursor.left() != count * STORED {
        return Err(cursor.damaged("a list of bad ranges of an impossible length"));
    }
    let mut ranges: Vec<BadRange> = Vec::with_capacity(count);
    for _ in 0..count {
        let range = BadRange {
            region: cursor.u32()?,
            start: cursor.u64()?,
            len: cursor.u64()?,
        };
        let last = ranges.last();
        let ascending = last.is_none_or(|last| {
            last.region < range.region || (last.region == range.region && last.end() < range.start)
        });
        let inside = layout
            .regions
            .get(range.region as usize)
            .filter(|region| !region.is_absent())
            .is_some_and(|region| {
                let end = range.start.checked_add(range.len);
                range.len > 0 && end.is_some_and(|end| end <= region.size)
            });
        if !ascending || !inside {
            return Err(cursor.damaged("a bad range is out of order or leaves its region"));
        }
        ranges.push(range);
    }
    Ok(ranges)
}

/// Body of the section of an image of that version; none if it has no bad ranges.
pub(crate) fn section_body(ranges: &[BadRange], version: Version) -> io::Result<Option<Vec<u8>>> {
    if ranges.is_empty() {
        return Ok(None);
    }
    if version < Version::V2 || ranges.len() > MAX_BAD_RANGES {
        return Err(io::Error::other("bad ranges that have no place"));
    }
    Ok(Some(encode(ranges)))
}

/// The bad section that was read, if there was one: its body and what it says.
#[derive(Default)]
pub(crate) struct Bad(Option<(Vec<u8>, Vec<BadRange>)>);

impl Bad {
    /// Takes the section with `body` at `offset`; there is one at most.
    pub(crate) fn take(
        &mut self,
        body: &[u8],
        version: Version,
        layout: &Layout,
        offset: u64,
    ) -> Result<(), Error> {
        if version < Version::V2 || self.0.is_some() {
            return Err(Error::damaged("a Bad section out of place", offset));
        }
        let ranges = decode(body, layout, offset)?;
        self.0 = Some((body.to_vec(), ranges));
        Ok(())
    }

    pub(crate) fn came(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn ranges(&self) -> &[BadRange] {
        self.0.as_ref().map_or(&[], |(_, ranges)| ranges)
    }

    pub(crate) fn body(&self) -> Option<&[u8]> {
        self.0.as_ref().map(|(body, _)| body.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::tests::small;
    use proptest::prelude::*;

    fn range(region: u32, start: u64, len: u64) -> BadRange {
        BadRange { region, start, len }
    }

    #[test]
    fn the_stored_form_is_the_identity() {
        let layout = small(1 << 20);
        let ranges = [range(0, 0, 512), range(0, 1024, (1 << 20) - 1024)];
        assert_eq!(decode(&encode(&ranges), &layout, 0).unwrap(), ranges);
        assert_eq!(total(&ranges), (1 << 20) - 512);
    }

    #[test]
    fn impossible_lists_are_refused() {
        let mut layout = small(1 << 20);
        let lists: &[&[BadRange]] = &[
            &[],
            &[range(0, 0, 0)],
            &[range(1, 0, 512)],
            &[range(0, 1 << 20, 512)],
            &[range(0, u64::MAX, 2)],
            &[range(0, 0, 512), range(0, 512, 512)],
            &[range(0, 1024, 512), range(0, 0, 512)],
        ];
        for list in lists {
            assert!(decode(&encode(list), &layout, 0).is_err(), "{list:?}");
        }
        let mut long = encode(&[range(0, 0, 512)]);
        assert!(decode(&long, &layout, 0).is_ok());
        long.push(0);
        assert!(decode(&long, &layout, 0).is_err());
        layout.regions[0].method = "none".into();
        assert!(decode(&long[..24], &layout, 0).is_err());
    }

    #[test]
    fn touching_ranges_become_one() {
        let list = vec![
            range(1, 0, 4),
            range(0, 8, 8),
            range(0, 0, 8),
            range(0, 12, 2),
            range(0, 20, 0),
        ];
        assert_eq!(joined(list), [range(0, 0, 16), range(1, 0, 4)]);
    }

    proptest! {
        #[test]
        fn any_bytes_decode_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let layout = small(1 << 20);
            if let Ok(ranges) = decode(&bytes, &layout, 0) {
                prop_assert_eq!(encode(&ranges), bytes);
            }
        }
    }
}
