//! Reading a pack of which nothing is known but its bytes.
//!
//! Owns: finding every record that is still there, past damage of any kind. Does not own:
//! the proof that a record is the chunk that it names ([`crate::record::Decoder`]), or
//! what becomes of the records (a server's index is rebuilt from them).
//!
//! A record's header has its own checksum, so its length can be trusted although its
//! payload may be damaged. Where a header is damaged, the next one that is right is looked
//! for byte by byte. What is found inside of a damaged record's payload (a pack may hold
//! the image of a disk that holds a pack) is a record as good as any other.

use crate::record::{HEADER_LEN, RecordHeader};
use crate::{Error, pack};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Most bytes that are searched at a time.
const WINDOW: usize = 256 << 10;
/// Bytes that are searched first: damage is mostly small, and a pack may be made of it.
const FIRST_WINDOW: usize = 4 << 10;

/// What [`walk`] meets.
#[derive(Debug)]
pub enum Found<'a> {
    /// A record whose header is right and whose payload is all there. Nothing is said
    /// about the payload's content.
    Record {
        /// Where it stands.
        offset: u64,
        /// Its header.
        header: RecordHeader,
        /// Its payload.
        payload: &'a [u8],
    },
    /// Bytes in which no record stands.
    Lost {
        /// First byte.
        from: u64,
        /// Byte after the last one.
        to: u64,
    },
}

/// Goes through a pack from its beginning to its end and gives everything in it to `each`,
/// in order and without gaps. `each` ends the walk early by returning false.
///
/// # Errors
/// The file cannot be read; [`Error::Version`] for a pack of a newer version.
pub fn walk(file: &File, mut each: impl FnMut(Found<'_>) -> bool) -> Result<(), Error> {
    let failed = |e: io::Error| Error::io("reading a pack", e, 0);
    let length = file.metadata().map_err(failed)?.len();
    let mut at = match pack::check_header(file) {
        Ok(()) => pack::HEADER_LEN,
        Err(error @ (Error::Version { .. } | Error::Key { .. } | Error::Io { .. })) => {
            return Err(error);
        }
        // The records do not need it.
        Err(Error::Damaged { .. }) => 0,
    };
    let mut lost_from = (at == 0).then_some(0);
    let mut payload = Vec::new();
    while at < length {
        let Some(header) = header_at(file, at, length)? else {
            let from = *lost_from.get_or_insert(at);
            match next_header(file, at.saturating_add(1), length)? {
                Some(next) => at = next,
                None => {
                    each(Found::Lost { from, to: length });
                    return Ok(());
                }
            }
            continue;
        };
        if let Some(from) = lost_from.take()
            && !each(Found::Lost { from, to: at })
        {
            return Ok(());
        }
        payload.resize(header.stored_len as usize, 0);
        file.read_exact_at(&mut payload, at + HEADER_LEN as u64)
            .map_err(|e| Error::io("reading a pack", e, at))?;
        let goes_on = each(Found::Record {
            offset: at,
            header,
            payload: &payload,
        });
        if !goes_on {
            return Ok(());
        }
        at += header.record_len();
    }
    Ok(())
}

/// The header at `at`, if a right one stands there and its payload is within the file.
fn header_at(file: &File, at: u64, length: u64) -> Result<Option<RecordHeader>, Error> {
    let mut bytes = [0; HEADER_LEN];
    if length - at < HEADER_LEN as u64 {
        return Ok(None);
    }
    file.read_exact_at(&mut bytes, at)
        .map_err(|e| Error::io("reading a pack", e, at))?;
    Ok(RecordHeader::decode(&bytes, at)
        .ok()
        .filter(|header| header.record_len() <= length - at))
}

/// Where the next right header stands, at or after `at`.
fn next_header(file: &File, mut at: u64, length: u64) -> Result<Option<u64>, Error> {
    let (mut window, mut size) = (Vec::new(), FIRST_WINDOW);
    while at < length {
        // At most WINDOW, so it fits.
        let count = (length - at).min(size as u64) as usize;
        window.resize(count, 0);
        let bytes = &mut window[..];
        file.read_exact_at(bytes, at)
            .map_err(|e| Error::io("reading a pack", e, at))?;
        for (skipped, first) in bytes.windows(HEADER_LEN).enumerate() {
            let here = at + skipped as u64;
            let Ok(first) = <&[u8; HEADER_LEN]>::try_from(first) else {
                continue;
            };
            let right = first.starts_with(b"DRec")
                && RecordHeader::decode(first, here)
                    .is_ok_and(|header| header.record_len() <= length - here);
            if right {
                return Ok(Some(here));
            }
        }
        if count < size {
            return Ok(None);
        }
        // A header may begin in the last bytes of this window.
        at += (size - (HEADER_LEN - 1)) as u64;
        size = (size * 2).min(WINDOW);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::{Found, WINDOW, walk};
    use crate::pack::{HEADER_LEN, PackWriter};
    use crate::record::{Compression, Encoder};
    use proptest::prelude::*;
    use std::fs::File;
    use std::path::Path;

    const SIZES: [usize; 6] = [5000, 1, 70_000, 300, WINDOW, 4096];

    /// A pack of incompressible chunks and where its records stand.
    fn pack(path: &Path) -> Vec<(u64, u64)> {
        let mut writer = PackWriter::create(path).unwrap();
        let mut encoder = Encoder::new(Compression::None).unwrap();
        SIZES
            .iter()
            .enumerate()
            .map(|(number, &size)| {
                let plain: Vec<u8> = (0..size).map(|i| (i * 7 + number + 1) as u8).collect();
                let mut record = Vec::new();
                encoder.encode(&plain, &mut record).unwrap();
                (writer.append(&record).unwrap(), record.len() as u64)
            })
            .collect()
    }

    /// Offsets of the records and the lost ranges; proves that there are no gaps.
    fn found(path: &Path) -> (Vec<u64>, Vec<(u64, u64)>) {
        let file = File::open(path).unwrap();
        let (mut records, mut lost, mut end) = (Vec::new(), Vec::new(), None);
        walk(&file, |found| {
            let (from, to) = match found {
                Found::Record { offset, header, .. } => {
                    records.push(offset);
                    (offset, offset + header.record_len())
                }
                Found::Lost { from, to } => {
                    lost.push((from, to));
                    (from, to)
                }
            };
            let first = if from == 0 { 0 } else { HEADER_LEN };
            assert_eq!(end.unwrap_or(first), from);
            end = Some(to);
            true
        })
        .unwrap();
        assert_eq!(end, Some(file.metadata().unwrap().len()));
        (records, lost)
    }

    #[test]
    fn what_stands_behind_damage_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1.pack");
        let places = pack(&path);
        let all: Vec<u64> = places.iter().map(|place| place.0).collect();
        assert_eq!(found(&path), (all.clone(), vec![]));
        let whole = std::fs::read(&path).unwrap();
        // A header: that record alone is lost.
        let mut bytes = whole.clone();
        bytes[places[2].0 as usize + 20] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let mut rest = all.clone();
        rest.remove(2);
        assert_eq!(found(&path), (rest, vec![(places[2].0, places[3].0)]));
        // A payload: its length still holds.
        let mut bytes = whole.clone();
        bytes[places[2].0 as usize + 64] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(found(&path), (all.clone(), vec![]));
        // The pack's own header.
        let mut bytes = whole.clone();
        bytes[3] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(found(&path), (all.clone(), vec![(0, HEADER_LEN)]));
        // The end of the file.
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let last = places[5].0;
        assert_eq!(
            found(&path),
            (all[..5].to_vec(), vec![(last, whole.len() as u64 - 1)])
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn cuts_and_flips_never_break_the_walk(
            cut in 0usize..340_000,
            flips in prop::collection::vec((0usize..340_000, 1u8..), 0..6),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("1.pack");
            pack(&path);
            let mut bytes = std::fs::read(&path).unwrap();
            for (at, bits) in flips {
                let at = at % bytes.len();
                bytes[at] ^= bits;
            }
            bytes.truncate(bytes.len() - cut % bytes.len());
            // A version that counts up is not read, and nothing else is refused.
            if bytes.len() < 10 || bytes[8..10] == [1, 0] {
                std::fs::write(&path, &bytes).unwrap();
                found(&path);
            }
        }
    }
}
