//! What xfs_db and xfs_repair say of a file system.

use crate::common::{ok, run, s};
use diskmap::{Extent, Extents};
use std::collections::BTreeMap;
use std::path::Path;

/// What xfs_db tells, in bytes.
pub struct Db {
    pub used: Extents,
    /// Blocks that are kept ready for the trees: free for xfs_db, but in no tree, and the
    /// kernel's next allocation trusts the list of them. They are copied.
    pub ready: Extents,
    /// Size of the file system.
    pub size: u64,
    pub block: u64,
    pub uuid: String,
    /// Free extents in the trees.
    pub extents: usize,
}

/// Runs commands of xfs_db that change nothing.
pub fn db(path: &Path, commands: &[&str]) -> String {
    let mut args = vec!["-r"];
    args.extend(commands.iter().flat_map(|command| ["-c", command]));
    args.push(s(path));
    ok("xfs_db", &args)
}

/// Fields that xfs_db printed.
pub fn fields(text: &str) -> BTreeMap<&str, &str> {
    text.lines()
        .filter_map(|line| line.split_once(" = "))
        .collect()
}

pub fn inspect(path: &Path) -> Db {
    let names = "p blocksize dblocks agblocks agcount uuid";
    let text = db(path, &["sb 0", names]);
    let sb = fields(&text);
    let number = |name: &str| sb[name].parse::<u64>().unwrap();
    let (block, blocks, per_group) = (number("blocksize"), number("dblocks"), number("agblocks"));
    let (mut free, mut ready, mut extents) = (Vec::new(), Vec::new(), 0);
    for group in 0..number("agcount") {
        let header = format!("agf {group}");
        let list = format!("freesp -d -a {group}");
        let text = db(path, &[&header, "p flcount", &list]);
        let on_list: usize = fields(&text)["flcount"].parse().unwrap();
        let rows = text.lines().filter_map(|line| {
            let row: Vec<u64> = line
                .split_whitespace()
                .filter_map(|word| word.parse().ok())
                .collect();
            <[u64; 3]>::try_from(row).ok()
        });
        // The list's blocks come first.
        for (i, [of, start, len]) in rows.enumerate() {
            assert_eq!(of, group);
            let at = group * per_group + start;
            let extent = Extent::between(at * block, (at + len) * block);
            if i < on_list {
                ready.push(extent);
            } else {
                free.push(extent);
                extents += 1;
            }
        }
    }
    Db {
        used: Extents::whole(blocks * block).subtract(&free.into_iter().collect()),
        ready: ready.into_iter().collect(),
        size: blocks * block,
        block,
        uuid: sb["uuid"].to_string(),
        extents,
    }
}

/// The map must be what xfs_db says, to the block.
pub fn assert_matches(used: &Extents, db: &Db) {
    let missing = db.used.subtract(used);
    assert!(missing.is_empty(), "not in the map: {missing:?}");
    let extra = used.subtract(&db.used);
    assert!(extra.is_empty(), "in the map for no reason: {extra:?}");
    let ready = db.ready.subtract(used);
    assert!(
        ready.is_empty(),
        "not in the map, though in no tree: {ready:?}"
    );
}

/// xfs_repair finds nothing to do.
pub fn assert_sound(path: &Path) {
    let output = run("xfs_repair", &["-n", "-f", s(path)]);
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// What xfs_logprint says: the head of an internal log, and whether it is clean.
pub fn log_state(path: &Path) -> (u64, bool) {
    let text = ok("xfs_logprint", &["-t", s(path)]);
    let line = text
        .lines()
        .find(|line| line.contains("state:"))
        .unwrap_or_else(|| panic!("{text}"));
    let head = line.split_once("head:").unwrap().1;
    let head = head.split_whitespace().next().unwrap().parse().unwrap();
    (head, line.contains("<CLEAN>"))
}
