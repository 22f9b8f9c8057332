//! The grid: which bytes of a region make which chunk.
//!
//! Owns: cutting used extents into cells, the used map of a cell and its stored
//! form. Does not own: where extents come from, or the chunks' bytes.
//!
//! Stored form of one cell's map (little-endian):
//!
//! | size | field |
//! |---|---|
//! | 4 | region number |
//! | 8 | cell number (byte offset in the region = number x cell size) |
//! | 1 | kind: 0 whole cell, 1 extents, 2 bitmap |
//! | kind 0: 4 | length of the cell in bytes (shorter than the grid only at the region's end) |
//! | kind 1: 2 + n x 8 | count, then start and length (u32 each), ascending, not touching |
//! | kind 2: 1 + 4 + m | log2 of the unit (9..=16), count of units, bits (LSB first) |

use crate::{Error, MAX_CELL_SIZE};

/// Used bytes of one cell, as `(start, length)` pairs relative to the cell, ascending and
/// not touching one another; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used(Vec<(u32, u32)>);

impl Used {
    /// Checks and takes a list of extents: ascending, apart, within `limit` bytes.
    pub fn new(extents: Vec<(u32, u32)>, limit: u32) -> Option<Self> {
        let mut end = None;
        for &(start, len) in &extents {
            let stop = start.checked_add(len)?;
            let apart = end.is_none_or(|end| start > end);
            if len == 0 || stop > limit || !apart {
                return None;
            }
            end = Some(stop);
        }
        if extents.is_empty() {
            None
        } else {
            Some(Used(extents))
        }
    }

    /// The extents.
    pub fn extents(&self) -> &[(u32, u32)] {
        &self.0
    }

    /// Number of used bytes: the length of the chunk.
    pub fn len(&self) -> u32 {
        self.0
            .iter()
            .fold(0u32, |sum, &(_, len)| sum.saturating_add(len))
    }

    /// Never true; a cell without used bytes has no chunk.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// First used byte and the byte after the last one, relative to the cell.
    pub fn span(&self) -> (u32, u32) {
        let first = self.0.first().map_or(0, |&(start, _)| start);
        let last = self
            .0
            .last()
            .map_or(0, |&(start, len)| start.saturating_add(len));
        (first, last)
    }
}

/// One cell that has used bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellMap {
    /// Position of the region in the layout's list.
    pub region: u32,
    /// Number of the cell in the region.
    pub cell: u64,
    /// What is used in it.
    pub used: Used,
}

impl CellMap {
    /// Byte offset of the cell in its region.
    pub fn offset(&self, cell_size: u32) -> Option<u64> {
        self.cell.checked_mul(u64::from(cell_size))
    }

    /// Appends the stored form: whole, extents or bitmap, whichever is shortest.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.region.to_le_bytes());
        out.extend_from_slice(&self.cell.to_le_bytes());
        let extents = self.used.extents();
        if let [(0, len)] = extents {
            out.push(0);
            out.extend_from_slice(&len.to_le_bytes());
            return;
        }
        let as_extents = 2 + extents.len() * 8;
        let (_, end) = self.used.span();
        let all = extents
            .iter()
            .fold(end, |bits, &(start, len)| bits | start | len);
        let shift = all.trailing_zeros().min(16);
        let units = if shift >= 9 { end >> shift } else { u32::MAX };
        let as_bitmap = (units as usize).div_ceil(8) + 5;
        let fits = u16::try_from(extents.len())
            .ok()
            .filter(|_| as_extents <= as_bitmap);
        if let Some(count) = fits {
            out.push(1);
            out.extend_from_slice(&count.to_le_bytes());
            for &(start, len) in extents {
                out.extend_from_slice(&start.to_le_bytes());
                out.extend_from_slice(&len.to_le_bytes());
            }
        } else {
            out.push(2);
            out.push(shift as u8);
            out.extend_from_slice(&units.to_le_bytes());
            let mut bits = vec![0u8; (units as usize).div_ceil(8)];
            for &(start, len) in extents {
                for unit in (start >> shift)..((start + len) >> shift) {
                    bits[unit as usize / 8] |= 1 << (unit % 8);
                }
            }
            out.extend_from_slice(&bits);
        }
    }

    /// Decodes one map from the front of `input`; total on any input.
    pub fn decode(input: &mut Cursor<'_>) -> Result<Self, Error> {
        let region = input.u32()?;
        let cell = input.u64()?;
        let extents = match input.u8()? {
            0 => vec![(0, input.u32()?)],
            1 => {
                let count = usize::from(input.u16()?);
                let mut extents = Vec::with_capacity(count.min(input.left() / 8));
                for _ in 0..count {
                    extents.push((input.u32()?, input.u32()?));
                }
                extents
            }
            2 => decode_bitmap(input)?,
            kind => return Err(input.damaged(format!("used map of unknown kind {kind}"))),
        };
        let used = Used::new(extents, MAX_CELL_SIZE)
            .ok_or_else(|| input.damaged("used map is not ascending or leaves its cell"))?;
        Ok(CellMap { region, cell, used })
    }
}

fn decode_bitmap(input: &mut Cursor<'_>) -> Result<Vec<(u32, u32)>, Error> {
    let shift = u32::from(input.u8()?);
    let units = input.u32()?;
    if !(9..=16).contains(&shift) || units > MAX_CELL_SIZE >> shift {
        return Err(input.damaged("used bitmap of an impossible size"));
    }
    let bits = input.take((units as usize).div_ceil(8))?;
    let mut extents: Vec<(u32, u32)> = Vec::new();
    for unit in 0..units {
        let set = bits
            .get(unit as usize / 8)
            .is_some_and(|byte| byte >> (unit % 8) & 1 == 1);
        if !set {
            continue;
        }
        let start = unit << shift;
        match extents.last_mut() {
            Some((first, len)) if *first + *len == start => *len += 1 << shift,
            _ => extents.push((start, 1 << shift)),
        }
    }
    Ok(extents)
}

/// Bytes that are taken from the front, with every length checked.
pub struct Cursor<'a> {
    bytes: &'a [u8],
    base: u64,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor over `bytes`, which stand at `base` in the stream (for messages).
    pub fn new(bytes: &'a [u8], base: u64) -> Self {
        Cursor { bytes, base, at: 0 }
    }

    /// Bytes that are left.
    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// A damage report at the present position.
    pub fn damaged(&self, what: impl Into<String>) -> Error {
        Error::damaged(what, self.base.saturating_add(self.at as u64))
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let end = self.at.checked_add(count);
        match end.and_then(|end| self.bytes.get(self.at..end)) {
            Some(bytes) => {
                self.at += count;
                Ok(bytes)
            }
            None => Err(self.damaged("a table ends too early")),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let bytes = self.take(N)?;
        let mut array = [0; N];
        array.copy_from_slice(bytes);
        Ok(array)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Error> {
        Ok(u8::from_le_bytes(self.array()?))
    }
    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, Error> {
        Ok(u16::from_le_bytes(self.array()?))
    }
    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.array()?))
    }
    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.array()?))
    }
    /// A hash.
    pub fn hash(&mut self) -> Result<crate::Hash, Error> {
        Ok(crate::Hash(self.array()?))
    }
}

/// Cuts ascending, disjoint `(start, length)` extents of a region into its cells.
pub fn cut<I>(region: u32, cell_size: u32, extents: I) -> Cut<I::IntoIter>
where
    I: IntoIterator<Item = (u64, u64)>,
{
    Cut {
        region,
        cell_size: u64::from(cell_size),
        extents: extents.into_iter(),
        rest: None,
    }
}

/// Iterator of [`cut`]: the region's cells that have used bytes, in order.
pub struct Cut<I> {
    region: u32,
    cell_size: u64,
    extents: I,
    rest: Option<(u64, u64)>,
}

impl<I: Iterator<Item = (u64, u64)>> Iterator for Cut<I> {
    type Item = CellMap;

    fn next(&mut self) -> Option<CellMap> {
        let (mut start, mut len) = self.next_extent()?;
        let cell = start / self.cell_size;
        let base = cell * self.cell_size;
        let mut used: Vec<(u32, u32)> = Vec::new();
        loop {
            // Both fit u32: they lie within one cell of at most 4 MiB.
            let in_cell = len.min(base + self.cell_size - start);
            let first = (start - base) as u32;
            match used.last_mut() {
                Some((s, l)) if *s + *l == first => *l += in_cell as u32,
                _ => used.push((first, in_cell as u32)),
            }
            if in_cell < len {
                self.rest = Some((start + in_cell, len - in_cell));
                break;
            }
            match self.next_extent() {
                None => break,
                Some(next) if next.0 / self.cell_size != cell => {
                    self.rest = Some(next);
                    break;
                }
                Some(next) => (start, len) = next,
            }
        }
        Some(CellMap {
            region: self.region,
            cell,
            used: Used(used),
        })
    }
}

impl<I: Iterator<Item = (u64, u64)>> Cut<I> {
    fn next_extent(&mut self) -> Option<(u64, u64)> {
        match self.rest.take() {
            Some(extent) => Some(extent),
            None => self.extents.by_ref().find(|&(_, len)| len > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn extents() -> impl Strategy<Value = Vec<(u64, u64)>> {
        prop::collection::vec((1u64..3000, 1u64..3000), 1..60).prop_map(|pairs| {
            let mut at = 0;
            let mut out = Vec::new();
            for (gap, len) in pairs {
                at += gap * 512;
                out.push((at, len * 512));
                at += len * 512;
            }
            out
        })
    }

    proptest! {
        #[test]
        fn cut_keeps_every_byte_once(extents in extents(), shift in 16u32..=22) {
            let size = 1u32 << shift;
            let mut joined: Vec<(u64, u64)> = Vec::new();
            let mut last = None;
            for map in cut(3, size, extents.clone()) {
                prop_assert!(last.is_none_or(|last| map.cell > last));
                last = Some(map.cell);
                for &(start, len) in map.used.extents() {
                    let start = map.cell * u64::from(size) + u64::from(start);
                    match joined.last_mut() {
                        Some((s, l)) if *s + *l == start => *l += u64::from(len),
                        _ => joined.push((start, u64::from(len))),
                    }
                }
            }
            prop_assert_eq!(joined, extents);
        }

        #[test]
        fn stored_form_is_the_identity(extents in extents(), odd in 0u64..2) {
            let extents: Vec<_> = extents.into_iter().map(|(s, l)| (s + odd, l)).collect();
            let mut bytes = Vec::new();
            let maps: Vec<_> = cut(7, 1 << 20, extents).collect();
            for map in &maps { map.encode(&mut bytes); }
            let mut cursor = Cursor::new(&bytes, 0);
            for map in &maps { prop_assert_eq!(&CellMap::decode(&mut cursor).unwrap(), map); }
            prop_assert_eq!(cursor.left(), 0);
        }

        #[test]
        fn any_bytes_decode_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut cursor = Cursor::new(&bytes, 0);
            while cursor.left() > 0 && CellMap::decode(&mut cursor).is_ok() {}
        }
    }

    #[test]
    fn fragmented_cells_become_bitmaps() {
        let every_other = (0..128u64).map(|n| (n * 8192, 4096));
        let map = cut(0, 1 << 20, every_other).next().unwrap();
        let mut bytes = Vec::new();
        map.encode(&mut bytes);
        assert_eq!(
            bytes[12], 2,
            "128 extents need 1026 bytes, 255 bits only 37"
        );
        assert!(bytes.len() < 60);
    }

    #[test]
    fn touching_or_empty_maps_are_refused() {
        assert!(Used::new(vec![], 4096).is_none());
        assert!(Used::new(vec![(0, 512), (512, 512)], 4096).is_none());
        assert!(Used::new(vec![(0, 8192)], 4096).is_none());
        assert!(Used::new(vec![(u32::MAX, 2)], 4096).is_none());
    }
}
