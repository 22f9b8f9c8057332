//! One case there and back: made on a loop device, mapped, backed up, restored onto a
//! disk full of garbage, compared.
//!
//! Owns: the order, and what must hold for every file system. Does not own: recipes.

use super::content::{ok, run, s};
use super::{Case, State, Table};
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use testkit::loopdev::LoopDevice;

const MIB: u64 = 1 << 20;

/// Runs a case with the given `imager`.
///
/// # Panics
/// If anything is not as it must be.
pub fn run_case(imager: &Path, case: &Case) {
    let dir = tempfile::tempdir().expect("a folder");
    let source = make(case, dir.path());
    let before = digest(&source);
    let image = dir.path().join("image");
    let attached = LoopDevice::attach(&source, case.sector);
    let region = mapped(imager, attached.path(), case);
    let made = ok(
        s(imager),
        &["backup", "--quiet", "--json", s(attached.path()), s(&image)],
    );
    drop(attached);
    assert_eq!(digest(&source), before, "the source changed");
    warned(&made, case);

    let target = dir.path().join("target");
    garbage(&target, source.metadata().expect("the source").len());
    let attached = LoopDevice::attach(&target, case.sector);
    ok(
        s(imager),
        &[
            "restore",
            "--yes",
            "--quiet",
            "--save-tables",
            "none",
            s(&image),
            s(attached.path()),
        ],
    );
    drop(attached);
    same_bytes(&source, &target, &region);
    let part = LoopDevice::attach_at(&target, region.start, region.size, case.sector);
    (case.format.check)(part.path(), case.state);
}

/// Makes the disk; what is left open is closed after the copy was made.
fn make(case: &Case, dir: &Path) -> PathBuf {
    let live = dir.join("live");
    let volume = case.format.mib * MIB;
    let file = File::create(&live).expect("a file");
    let around = if case.table == Table::None {
        0
    } else {
        4 * MIB
    };
    file.set_len(volume + around).expect("its size");
    let sector = u64::from(case.sector);
    let (mib, length) = (MIB / sector, volume / sector);
    let script = match case.table {
        Table::None => None,
        Table::Gpt => Some(format!("label: gpt\nstart={mib}, size={length}\n")),
        Table::Mbr => Some(format!("label: dos\nstart={mib}, size={length}, type=83\n")),
        Table::Logical => Some(format!(
            "label: dos\nstart={mib}, size={}, type=5\nstart={}, size={length}, type=83\n",
            length + 2 * mib,
            2 * mib
        )),
    };
    if let Some(script) = script {
        let disk = LoopDevice::attach(&live, case.sector);
        let path = dir.join("script");
        std::fs::write(&path, script).expect("a script");
        let command = format!(
            "sfdisk -q --no-reread --no-tell-kernel {} < {}",
            s(disk.path()),
            s(&path)
        );
        ok("sh", &["-c", &command]);
    }
    let start = match case.table {
        Table::None => 0,
        Table::Gpt | Table::Mbr => MIB,
        Table::Logical => 2 * MIB,
    };
    let part = LoopDevice::attach_at(&live, start, volume, case.sector);
    let open = (case.format.make)(part.path(), case.sector, case.state);
    let left = dir.join("left");
    if open.is_some() {
        // As it stands on the disk at this moment, without being unmounted.
        ok("cp", &["--sparse=always", s(&live), s(&left)]);
    }
    drop(open);
    drop(part);
    if left.exists() { left } else { live }
}

/// The region of the file system, as the map tells it; all in bytes of the disk.
struct Region {
    start: u64,
    size: u64,
    used: Vec<(u64, u64)>,
}

fn mapped(imager: &Path, disk: &Path, case: &Case) -> Region {
    let text = ok(s(imager), &["map", "--json", "--extents", s(disk)]);
    let map: Value = serde_json::from_str(&text).expect("JSON");
    let number = match case.table {
        Table::None => 0,
        Table::Gpt | Table::Mbr => 1,
        Table::Logical => 5,
    };
    let found = map["partitions"].as_array().expect("partitions");
    let part = found
        .iter()
        .find(|part| part["number"] == number)
        .unwrap_or_else(|| panic!("no partition {number}: {text}"));
    assert_eq!(part["file_system"], case.format.file_system, "{part}");
    assert_eq!(part["method"], case.format.method(case.state), "{part}");
    let extent = |e: &Value| {
        (
            e[0].as_u64().expect("a start"),
            e[1].as_u64().expect("a length"),
        )
    };
    let region = Region {
        start: part["start_bytes"].as_u64().expect("a start"),
        size: part["size_bytes"].as_u64().expect("a size"),
        used: part["extents"]
            .as_array()
            .expect("extents")
            .iter()
            .map(extent)
            .collect(),
    };
    let total: u64 = region.used.iter().map(|e| e.1).sum();
    assert_eq!(Some(total), part["used_bytes"].as_u64());
    if part["method"] == "full" {
        assert_eq!(region.used, [(region.start, region.size)]);
    } else {
        assert!(total < region.size || case.format.name == "udf", "{part}");
    }
    region
}

/// An unclean file system is told, a clean one is not.
fn warned(result: &str, case: &Case) {
    let value: Value = serde_json::from_str(result).expect("JSON");
    let dirty = value["warnings"]
        .as_array()
        .is_some_and(|list| list.iter().any(|w| w.to_string().contains("fs-dirty")));
    assert_eq!(dirty, case.state == State::Unclean, "{result}");
}

/// Every byte that the map counts is on the other disk.
fn same_bytes(source: &Path, target: &Path, region: &Region) {
    let (source, target) = (
        File::open(source).expect("the source"),
        File::open(target).expect("the target"),
    );
    for &(start, len) in &region.used {
        let mut at = start;
        while at < start + len {
            let step = (start + len - at).min(MIB) as usize;
            let mut pair = [vec![0; step], vec![0; step]];
            source.read_exact_at(&mut pair[0], at).expect("read");
            target.read_exact_at(&mut pair[1], at).expect("read");
            assert!(pair[0] == pair[1], "the disks differ near byte {}", at);
            at += step as u64;
        }
    }
}

/// Makes a disk in which every byte is an old one.
///
/// # Panics
/// If there is no space for it.
pub fn garbage(path: &Path, size: u64) {
    let file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .open(path)
        .expect("a file");
    let block = vec![0xa5u8; MIB as usize];
    let mut at = 0;
    while at < size {
        let len = (size - at).min(MIB);
        file.write_all_at(&block[..len as usize], at)
            .expect("written");
        at += len;
    }
}

fn digest(path: &Path) -> String {
    let (done, text) = run("b2sum", &["--length=128", s(path)]);
    assert!(done, "{text}");
    text
}
