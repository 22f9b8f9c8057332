//! What is in use, read from the text of `btrfs inspect-internal dump-tree`.
//!
//! Owns: the parsing of that text and the expected bytes of the device. Does not own:
//! any on-disk structure.

use crate::common::{ok, s};
use diskmap::{Extent, Extents};
use std::path::Path;

/// A copy of a chunk on the device.
#[derive(Clone, Copy, Debug)]
pub struct Copy {
    pub logical: u64,
    pub len: u64,
    pub place: u64,
    pub number: usize,
}

/// What the tools say.
pub struct Oracle {
    pub size: u64,
    /// In the order of logical addresses.
    pub chunks: Vec<Copy>,
    /// Bytes of the device that are allocated.
    pub used: Extents,
    /// The part of it that is in second copies.
    pub second_copies: Extents,
    /// Bytes of the device that a log has or refers to.
    pub log: Extents,
}

/// The number behind some words.
fn after(line: &str, words: &str) -> Option<u64> {
    let (_, rest) = line.split_once(words)?;
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// Object and offset of a key of this kind.
fn key(line: &str, kind: &str) -> Option<(u64, u64)> {
    let (_, rest) = line.strip_prefix("\titem ")?.split_once(" key (")?;
    let (object, rest) = rest.split_once(' ')?;
    let (found, rest) = rest.split_once(' ')?;
    let (offset, _) = rest.split_once(')')?;
    // Chunks belong to an object with a name.
    let object = object.parse().unwrap_or(0);
    (found == kind).then(|| Some((object, offset.parse().ok()?)))?
}

/// Asks the tools.
pub fn oracle(path: &Path) -> Oracle {
    let sb = ok("btrfs", &["inspect-internal", "dump-super", s(path)]);
    let node = after(&sb, "\nnodesize\t\t").unwrap();
    let text = ok("btrfs", &["inspect-internal", "dump-tree", s(path)]);
    let (mut chunks, mut extents, mut log) = (Vec::<Copy>::new(), Vec::new(), Vec::new());
    let (mut chunk, mut in_log) = ((0, 0), false);
    for line in text.lines() {
        if (line.starts_with("leaf ") || line.starts_with("node ")) && line.contains(" owner ") {
            in_log = line.contains(" owner TREE_LOG");
            if in_log {
                let start = after(
                    line,
                    if line.starts_with("leaf") {
                        "leaf "
                    } else {
                        "node "
                    },
                );
                log.push(Extent {
                    start: start.unwrap(),
                    len: node,
                });
            }
        } else if let Some((_, logical)) = key(line, "CHUNK_ITEM") {
            chunk = (logical, 0);
        } else if let Some(len) = after(line, "\t\tlength ").filter(|_| line.contains("stripe_len"))
        {
            chunk.1 = len;
        } else if let Some(place) = after(line, " offset ").filter(|_| line.contains("\tstripe ")) {
            let (logical, len) = chunk;
            let number = after(line, "stripe ").unwrap() as usize;
            chunks.push(Copy {
                logical,
                len,
                place,
                number,
            });
        } else if let Some((start, len)) = key(line, "EXTENT_ITEM") {
            extents.push(Extent { start, len });
        } else if let Some((start, _)) = key(line, "METADATA_ITEM") {
            extents.push(Extent { start, len: node });
        } else if let Some(start) = after(line, "disk byte ").filter(|&at| in_log && at > 0) {
            log.push(Extent {
                start,
                len: after(line, " nr ").unwrap(),
            });
        }
    }
    assert!(!extents.is_empty() && !chunks.is_empty(), "{text}");
    let map = |list: &[Extent], copies: &dyn Fn(&Copy) -> bool| -> Extents {
        let mut found = Vec::new();
        for extent in list {
            let inside = |c: &&Copy| c.logical <= extent.start && extent.end() <= c.logical + c.len;
            let before = found.len();
            for copy in chunks.iter().filter(inside) {
                let start = copy.place + (extent.start - copy.logical);
                found.push((
                    copies(copy),
                    Extent {
                        start,
                        len: extent.len,
                    },
                ));
            }
            assert!(found.len() > before, "no chunk for {extent:?}");
        }
        found
            .into_iter()
            .filter(|(wanted, _)| *wanted)
            .map(|(_, e)| e)
            .collect()
    };
    Oracle {
        size: std::fs::metadata(path).unwrap().len(),
        used: map(&extents, &|_| true),
        second_copies: map(&extents, &|copy| copy.number == 1),
        log: map(&log, &|_| true),
        chunks,
    }
}

/// The map must be what the tools say, to the byte, and the reserved first MiB, the
/// superblocks and the region's last MiB behind the file system.
pub fn assert_matches(used: &Extents, oracle: &Oracle) {
    matches(used, oracle).unwrap();
}

/// As [`assert_matches`]; says what is wrong.
pub fn matches(used: &Extents, oracle: &Oracle) -> Result<(), String> {
    let fixed = [
        Extent::between(0, 1 << 20),
        Extent {
            start: 64 << 20,
            len: 4096,
        },
        Extent {
            start: 256 << 30,
            len: 4096,
        },
    ];
    let fixed = fixed
        .into_iter()
        .filter(|e| e.end() <= oracle.size)
        .collect();
    let wanted = oracle.used.union(&oracle.log).union(&fixed);
    let missing = wanted.subtract(used);
    let extra = used.subtract(&wanted);
    match (missing.is_empty(), extra.is_empty()) {
        (true, true) => Ok(()),
        (false, _) => Err(format!("not in the map: {missing:?}")),
        (true, false) => Err(format!("in the map for no reason: {extra:?}")),
    }
}
