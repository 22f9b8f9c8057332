//! Hibernated Windows: the file hiberfil.sys in the root folder.
//!
//! Owns: finding it, and what its first bytes say. Does not own: its content.
//!
//! "Fast startup" is the same thing: Windows logs people off and hibernates its kernel,
//! with all volumes mounted.

use super::super::{Fault, damaged};
use super::mft::{Mft, Value};
use super::record::{BITMAP, DATA, INDEX_ALLOCATION, INDEX_ROOT, Reference, unprotect};
use crate::bytes::{array, le16, le32, le64};

/// Number of the root folder's record.
const ROOT: u64 = 5;

/// Name of the index of a folder.
const INDEX: &str = "$I30";

/// Largest root folder that is searched, in bytes: some two million files.
const MAX_FOLDER: u64 = 256 << 20;

/// Bytes in a block of a folder.
const BLOCK_SIZES: std::ops::RangeInclusive<u64> = 512..=(64 << 10);

/// Bytes that are read at once.
const STEP: u64 = 1 << 20;

const NAME: &str = "hiberfil.sys";

/// Length of the file's head.
const HEAD: usize = 4096;

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// There is none, or it is empty.
    None,
    /// A system was woken from it, or an attempt was made.
    Woken,
    /// A system sleeps in it.
    Asleep,
    /// It begins with something else.
    Unknown,
}

/// Looks for the file and reads its head.
pub(super) fn state(mft: &Mft<'_, '_>) -> Result<State, Fault> {
    let Some(file) = find(mft)? else {
        return Ok(State::None);
    };
    let record = mft.record(file.number)?;
    if !record.in_use || record.sequence != file.sequence {
        return damaged(format!("{NAME} is not where the root folder says"));
    }
    let head = match mft.value(&record, DATA, "")? {
        None => Vec::new(),
        Some(Value::Resident(bytes)) => bytes,
        Some(Value::Outside(value)) if value.flags != 0 => return Ok(State::Unknown),
        Some(Value::Outside(value)) => {
            let len = value.size.min(value.valid).min(HEAD as u64);
            match value.runs.first().and_then(|run| run.start) {
                Some(start) => {
                    let len = len.min(mft.boot.cluster);
                    mft.view.bytes(start * mft.boot.cluster, len as usize)?
                }
                None => Vec::new(),
            }
        }
    };
    Ok(judge(&head))
}

fn judge(head: &[u8]) -> State {
    match head.get(..4) {
        Some(b"hibr" | b"HIBR") => State::Asleep,
        // The loader writes one of these before it goes on with the system, so that an
        // attempt that fails is noticed.
        Some(b"wake" | b"WAKE" | b"rstr" | b"RSTR") => State::Woken,
        _ if head.iter().all(|&byte| byte == 0) => State::None,
        _ => State::Unknown,
    }
}

/// Looks through the whole root folder, so that the order of names does not matter.
fn find(mft: &Mft<'_, '_>) -> Result<Option<Reference>, Fault> {
    let folder = mft.system(ROOT)?;
    let root = match mft.value(&folder, INDEX_ROOT, INDEX)? {
        Some(Value::Resident(root)) if folder.directory => root,
        _ => return damaged("its root folder has no index"),
    };
    let block = u64::from(le32(&root, 8).unwrap_or(0));
    let odd = "its root folder makes no sense";
    if !block.is_power_of_two() || !BLOCK_SIZES.contains(&block) {
        return damaged(odd);
    }
    let Ok(mut found) = search(root.get(16..).unwrap_or_default()) else {
        return damaged(odd);
    };
    let Some(value) = mft.value(&folder, INDEX_ALLOCATION, INDEX)? else {
        return Ok(found);
    };
    let (blocks, value) = mft.open_value(value, "root folder")?;
    if value.size > MAX_FOLDER {
        return Err(Fault::Unsupported(
            "its root folder is too large to look for a hibernated system".into(),
        ));
    }
    let count = value.size.min(value.valid) / block;
    let used = used_blocks(mft, count)?;
    let per_step = STEP / block;
    for first in (0..count).step_by(per_step as usize) {
        let len = per_step.min(count - first) * block;
        let mut bytes = blocks.bytes(first * block, len as usize)?;
        for (number, bytes) in (first..).zip(bytes.chunks_exact_mut(block as usize)) {
            let bit = used.get((number / 8) as usize).copied().unwrap_or(0);
            if bit >> (number % 8) & 1 == 0 {
                continue;
            }
            if let Err(what) = unprotect(bytes, b"INDX") {
                return damaged(format!("block {number} of its root folder {what}"));
            }
            match search(&bytes[24..]) {
                Ok(hit) => found = found.or(hit),
                Err(()) => return damaged(odd),
            }
        }
    }
    Ok(found)
}

/// The bitmap of the blocks of the root folder that are in use.
fn used_blocks(mft: &Mft<'_, '_>, count: u64) -> Result<Vec<u8>, Fault> {
    let folder = mft.system(ROOT)?;
    let bytes = match mft.value(&folder, BITMAP, INDEX)? {
        None => Vec::new(),
        Some(Value::Resident(bytes)) => bytes,
        Some(value) => {
            let (space, value) = mft.open_value(value, "root folder's bitmap")?;
            let len = value.size.min(value.valid).min(count.div_ceil(8));
            space.bytes(0, len as usize)?
        }
    };
    if (bytes.len() as u64) < count.div_ceil(8) {
        return damaged("its root folder's bitmap is too short");
    }
    Ok(bytes)
}

/// Looks for the name among the entries behind an index header.
fn search(index: &[u8]) -> Result<Option<Reference>, ()> {
    const LAST: u16 = 2;
    let first = le32(index, 0).ok_or(())? as usize;
    let end = le32(index, 4).ok_or(())? as usize;
    let entries = index.get(first..end).ok_or(())?;
    let mut at = 0;
    loop {
        let len = usize::from(le16(entries, at + 8).ok_or(())?);
        let flags = le16(entries, at + 12).ok_or(())?;
        if flags & LAST != 0 {
            return Ok(None);
        }
        let entry = at.checked_add(len).and_then(|end| entries.get(at..end));
        let entry = entry.filter(|_| len >= 16 + 66 && len % 8 == 0).ok_or(())?;
        let [units] = array(entry, 16 + 64).ok_or(())?;
        let name = entry.get(16 + 66..16 + 66 + 2 * usize::from(units));
        if is_wanted(name.ok_or(())?) {
            return Ok(Some(Reference::new(le64(entry, 0).ok_or(())?)));
        }
        at += len;
    }
}

fn is_wanted(utf16: &[u8]) -> bool {
    utf16.len() == 2 * NAME.len()
        && utf16
            .chunks_exact(2)
            .zip(NAME.bytes())
            .all(|(unit, byte)| unit[1] == 0 && unit[0].to_ascii_lowercase() == byte)
}

#[cfg(test)]
mod tests {
    use super::{State, is_wanted, judge, search};
    use crate::bytes::put;

    fn utf16(name: &str) -> Vec<u8> {
        name.encode_utf16().flat_map(u16::to_le_bytes).collect()
    }

    #[test]
    fn heads() {
        assert_eq!(judge(&[0; 4096]), State::None);
        assert_eq!(judge(&[]), State::None);
        assert_eq!(judge(b"HIBR\0\0"), State::Asleep);
        assert_eq!(judge(b"hibr"), State::Asleep);
        assert_eq!(judge(b"wake\x01"), State::Woken);
        assert_eq!(judge(b"RSTR"), State::Woken);
        let mut late = [0; 4096];
        late[4095] = 1;
        assert_eq!(judge(&late), State::Unknown);
        assert_eq!(judge(b"HIB"), State::Unknown);
    }

    #[test]
    fn names() {
        assert!(is_wanted(&utf16("HiberFil.SYS")));
        assert!(!is_wanted(&utf16("hiberfil.sy")));
        assert!(!is_wanted(&utf16("hiberfil.syst")));
        assert!(!is_wanted(&utf16("\u{168}iberfil.sys")));
    }

    /// An index header with entries of these names.
    fn index(names: &[&str]) -> Vec<u8> {
        let mut bytes = vec![0u8; 16];
        for (i, name) in names.iter().enumerate() {
            let name = utf16(name);
            let mut entry = vec![0u8; (16 + 66 + name.len()).next_multiple_of(8)];
            let len = entry.len() as u16;
            put(&mut entry, 0, &((40 + i as u64) | (3 << 48)).to_le_bytes());
            put(&mut entry, 8, &len.to_le_bytes());
            put(&mut entry, 16 + 64, &[(name.len() / 2) as u8]);
            put(&mut entry, 16 + 66, &name);
            bytes.extend(entry);
        }
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 2, 0, 0, 0]);
        let end = bytes.len() as u32;
        put(&mut bytes, 0, &16u32.to_le_bytes());
        put(&mut bytes, 4, &end.to_le_bytes());
        bytes
    }

    #[test]
    fn entries() {
        let found = search(&index(&["a", "\u{e4}b.c", "HIBERFIL.SYS", "z"])).unwrap();
        assert_eq!(found.map(|f| (f.number, f.sequence)), Some((42, 3)));
        assert_eq!(search(&index(&["a", "z"])), Ok(None));
        assert_eq!(search(&index(&[])), Ok(None));
        let mut endless = index(&["a"]);
        endless[16 + 8] = 0;
        assert_eq!(search(&endless), Err(()));
        let mut cut = index(&["a"]);
        cut.truncate(40);
        assert_eq!(search(&cut), Err(()));
        let mut long = index(&["a"]);
        long[16 + 16 + 64] = 200;
        assert_eq!(search(&long), Err(()));
        assert_eq!(search(&[]), Err(()));
    }
}
