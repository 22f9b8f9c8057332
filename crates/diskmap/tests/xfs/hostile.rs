//! Damage, contradictions and what is not understood.

use crate::common::{ok, peek, poke, s, whole};
use crate::image::{Image, filled, filled_without_kernel};
use crate::log::assert_full;
use crate::oracle::{db, fields, inspect};
use diskmap::{Method, WarningKind};
use std::path::PathBuf;

/// A copy with one field changed, under a right checksum; where xfs_db finds it is said
/// by some of its commands.
pub fn changed(image: &Image, place: &[&str], field: &str, value: &str) -> PathBuf {
    let copy = image.dir.path().join("changed");
    ok("cp", &["--sparse=always", s(&image.path), s(&copy)]);
    let write = format!("write -d {field} {value}");
    let mut args = vec!["-x"];
    let commands = place.iter().copied().chain([write.as_str()]);
    args.extend(commands.flat_map(|command| ["-c", command]));
    args.push(s(&copy));
    let said = ok("xfs_db", &args);
    assert!(
        said.contains(" = "),
        "{place:?} {field} was not written: {said}"
    );
    copy
}

#[test]
fn contradictions_with_right_checksums_are_seen() {
    let image = filled(64, &["-m", "rmapbt=1"]);
    let check = |place: &[&str], field: &str, value: &str| {
        let copy = changed(&image, place, field, value);
        let (region, map) = whole(&copy);
        assert_eq!(region.method, Method::Full, "{place:?} {field} = {value}");
        let kinds: Vec<_> = map.warnings.iter().map(|w| w.kind).collect();
        assert_eq!(
            kinds,
            [WarningKind::FsDamaged],
            "{place:?} {field} = {value}"
        );
    };
    for (place, field, value) in [
        ("sb 0", "fdblocks", "77"),
        ("sb 0", "inprogress", "1"),
        ("sb 0", "lsn", "0x7fffffff00000000"),
        ("sb 0", "agblklog", "9"),
        ("sb 0", "agcount", "3"),
        ("sb 0", "sectlog", "12"),
        ("sb 0", "logblocks", "999999"),
        ("agf 0", "freeblks", "99"),
        ("agf 0", "longest", "1"),
        ("agf 0", "seqno", "1"),
        ("agf 0", "length", "4000"),
        ("agf 0", "bnolevel", "2"),
        ("agf 0", "bnoroot", "2"),
        ("agf 0", "cntroot", "1"),
        ("agf 0", "rmaproot", "4294967295"),
        ("agf 0", "btreeblks", "1"),
        ("agf 1", "flcount", "1"),
        ("agf 1", "lsn", "0x7fffffff00000000"),
        ("agi 0", "root", "0"),
        ("agi 1", "seqno", "0"),
        ("agfl 0", "seqno", "1"),
        ("agfl 0", "bno[1]", "99999"),
    ] {
        check(&[place], field, value);
    }
    // A block that is kept ready for the trees and free at once.
    let db = inspect(&image.path);
    let free = (0..4096).rfind(|block| !db.used.contains(block * db.block));
    check(&["agfl 0"], "bno[1]", &free.unwrap().to_string());
    let tree = ["agf 0", "addr bnoroot"];
    for (field, value) in [
        ("recs[1].startblock", "1"),
        ("recs[1].blockcount", "9"),
        ("recs[1].blockcount", "0"),
        ("numrecs", "1"),
        ("numrecs", "600"),
        ("level", "1"),
        ("leftsib", "5"),
        ("rightsib", "5"),
        ("owner", "1"),
        ("bno", "5"),
    ] {
        check(&tree, field, value);
    }
    assert_eq!(whole(&image.path).0.method, Method::Used);
}

#[test]
fn wrong_checksums_are_seen() {
    let image = filled(64, &[]);
    let block = inspect(&image.path).block;
    let text = db(
        &image.path,
        &["agf 1", "p bnoroot cntroot", "sb 0", "p agblocks"],
    );
    let names = fields(&text);
    let number = |name: &str| names[name].parse::<u64>().unwrap();
    let group = number("agblocks") * block;
    for (offset, words) in [
        (400, "superblock"),
        (group + 400, "superblock in group 1"),
        (group + 512 + 300, "headers of group 1"),
        (group + 1024 + 400, "headers of group 1"),
        (group + 1536 + 500, "free list of group 1"),
        (group + number("bnoroot") * block + 3000, "free space"),
        (group + number("cntroot") * block + 3000, "free space"),
    ] {
        let old: [u8; 1] = peek(&image.path, offset);
        poke(&image.path, offset, &[old[0] ^ 1]);
        assert_full(
            &image.path,
            WarningKind::FsDamaged,
            &format!("wrong checksum of its {words}"),
        );
        poke(&image.path, offset, &old);
    }
    assert_eq!(whole(&image.path).0.method, Method::Used);
}

/// Without checksums the two trees and the counters watch each other.
#[test]
fn one_wrong_record_without_checksums_is_seen() {
    let image = filled_without_kernel(64, &["-m", "crc=0"]);
    let block = inspect(&image.path).block;
    let text = db(&image.path, &["agf 0", "p bnoroot cntroot bnolevel"]);
    let names = fields(&text);
    assert_eq!(names["bnolevel"], "1");
    for root in ["bnoroot", "cntroot"] {
        let records = names[root].parse::<u64>().unwrap() * block + 16;
        // Start and length of the second record, moved by one block.
        for offset in [records + 8 + 3, records + 8 + 7] {
            let old: [u8; 1] = peek(&image.path, offset);
            poke(&image.path, offset, &[old[0].wrapping_add(1)]);
            assert_full(&image.path, WarningKind::FsDamaged, "");
            poke(&image.path, offset, &old);
        }
    }
    assert_eq!(whole(&image.path).0.method, Method::Used);
}

#[test]
fn what_is_not_known_is_copied_whole() {
    let image = filled(64, &[]);
    for (field, value) in [
        ("features_compat", "1"),
        ("features_ro_compat", "0x8000000f"),
        ("features_incompat", "0x40000003"),
        ("features_incompat", "0x103"),
        ("features_log_incompat", "2"),
        ("features2", "0x118a"),
        ("versionnum", "0xb6a5"),
        ("shared_vn", "1"),
    ] {
        let copy = changed(&image, &["sb 0"], field, value);
        let (region, map) = whole(&copy);
        assert_eq!(region.method, Method::Full, "{field} = {value}");
        assert!(
            region.reason.contains("unknown"),
            "{field}: {}",
            region.reason
        );
        assert_eq!(map.warnings, [], "{field} = {value}");
    }
    let copy = changed(&image, &["sb 0"], "features_incompat", "0x1b");
    assert_full(&copy, WarningKind::FsDamaged, "in need of repair");
}
