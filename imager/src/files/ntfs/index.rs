//! Directories: the index of file names.
//!
//! Owns: the entries. Does not own: their order in the tree: all blocks in use are read
//! one after the other, so that no loop of a damaged tree is followed.

use super::record::{File, Stream, fix};
use super::{FIRST_USER, NUMBER, Ntfs, le16, le32, le64};
use crate::files::bytes::utf16;
use crate::files::{Fail, Item, MAX_ENTRIES};

const INDEX_ROOT: u32 = 0x90;
const INDEX_ALLOCATION: u32 = 0xa0;
const BITMAP: u32 = 0xb0;
/// `$I30` in UTF-16.
const NAMES: &[u8] = &[b'$', 0, b'I', 0, b'3', 0, b'0', 0];
/// Kind of a name that stands beside a long one.
pub(super) const DOS: u8 = 2;
const LAST: u16 = 2;

/// A name in UTF-8.
pub(super) fn text(raw: &[u8]) -> Vec<u8> {
    let units = raw.chunks_exact(2);
    utf16(units.map(|unit| u16::from_le_bytes([unit[0], unit[1]])))
}

impl Ntfs<'_> {
    /// The names in a directory.
    pub(super) fn entries(&self, directory: &File) -> Result<Vec<Item>, Fail> {
        let Some(Stream::Resident { value: root }) = directory.stream(INDEX_ROOT, NAMES)? else {
            return Err(Fail::damaged("the directory has no index"));
        };
        let mut items = Vec::new();
        node(root.get(16..).unwrap_or_default(), &mut items)?;
        let Some(blocks) = directory.stream(INDEX_ALLOCATION, NAMES)? else {
            return Ok(items);
        };
        let Stream::Clusters { runs, size, .. } = &blocks else {
            return Err(Fail::damaged("the directory's index is damaged"));
        };
        let map = directory.stream(BITMAP, NAMES)?;
        let map = map.ok_or_else(|| Fail::damaged("the directory's index is damaged"))?;
        let map = self.whole(&map)?;
        let block = u64::from(le32(&root, 8));
        if !(512..=65_536).contains(&block) || !block.is_power_of_two() {
            return Err(Fail::damaged("the directory's index is damaged"));
        }
        let mut raw = vec![0; block as usize];
        // What the map does not speak of is not in use.
        for number in 0..(size / block).min(map.len() as u64 * 8) {
            let byte = map.get((number / 8) as usize).copied().unwrap_or(0);
            if byte >> (number % 8) & 1 == 0 {
                continue;
            }
            self.read_runs(runs, number * block, &mut raw)?;
            fix(&mut raw, b"INDX")?;
            node(&raw[24..], &mut items)?;
        }
        Ok(items)
    }
}

/// The entries of a node; `raw` begins with its head.
fn node(raw: &[u8], items: &mut Vec<Item>) -> Result<(), Fail> {
    let bad = || Fail::damaged("an entry of the directory is damaged");
    let (from, end) = (le32(raw, 0) as usize, le32(raw, 4) as usize);
    let entries = raw.get(from..end).ok_or_else(bad)?;
    let mut at = 0;
    while at < entries.len() {
        let entry = &entries[at..];
        let len = usize::from(le16(entry, 8));
        if len < 16 || len > entry.len() {
            return Err(bad());
        }
        if le16(entry, 12) & LAST != 0 {
            return Ok(());
        }
        let key = entry.get(16..16 + usize::from(le16(entry, 10)));
        let key = key.filter(|key| key.len() >= 0x42).ok_or_else(bad)?;
        let name = key
            .get(0x42..0x42 + 2 * usize::from(key[0x40]))
            .ok_or_else(bad)?;
        let reference = le64(entry, 0);
        // The file system's own files, and short names, are not shown.
        if key[0x41] != DOS && reference & NUMBER >= FIRST_USER {
            if items.len() >= MAX_ENTRIES {
                return Err(Fail::Unsupported(format!(
                    "it has more than {MAX_ENTRIES} entries"
                )));
            }
            items.push(Item {
                name: text(name),
                at: reference,
            });
        }
        at += len;
    }
    Err(bad())
}
