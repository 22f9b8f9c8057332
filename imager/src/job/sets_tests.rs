//! Jobs of several disks against a server that is played here.
//!
//! Owns: what is asked before the first write, what is told of each disk, what one disk's
//! trouble is for the others. Does not own: the words for one disk, the real server
//! (`tests/tests/several.rs`).

use super::super::Wanted;
use super::stage::{Odd, Server, Stage, half_make, overwrite};
use crate::keyring::Keyring;
use crate::progress::Silent;
use crate::restore::Options;
use image::layout::Region;
use image::manifest::{ManifestReader, ManifestWriter};
use image::record::{Compression, Encoder};
use image::{BadRange, Layout};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use testkit::build::{DiskBuilder, Random};
use wire::{Code, DiskState, Published};

const MIB: usize = 1 << 20;

/// An image of a disk with a file system that has this head, of which these ranges are lost.
fn publish(server: &Server, contents: &[u8], bad: &[BadRange]) {
    let size = contents.len() as u64;
    let mut layout = Layout {
        cell_size: MIB as u32,
        ..Layout::default()
    };
    layout.disk.size_bytes = size;
    layout.disk.sector_size = 512;
    layout.table.kind = "none".into();
    layout.regions = vec![Region {
        kind: "whole".into(),
        number: Some(0),
        size,
        method: "full".into(),
        file_system: "ext4".into(),
        used_bytes: size,
        ..Region::default()
    }];
    let mut encoder = Encoder::new(Compression::Zstd(1)).unwrap();
    let cells: Vec<_> = image::cells::cut(0, layout.cell_size, [(0, size)]).collect();
    let mut chunks = Vec::new();
    let mut kept = server.kept.lock().unwrap();
    for plain in contents.chunks(MIB) {
        let mut record = Vec::new();
        let header = encoder.encode(plain, &mut record).unwrap();
        chunks.push(image::ChunkRef {
            name: header.name,
            plain_len: header.plain_len,
        });
        kept.records.insert(header.name.0.to_vec(), record);
    }
    let mut writer = match bad {
        [] => ManifestWriter::new(Vec::new(), &layout).unwrap(),
        _ => ManifestWriter::of_bad_disk(Vec::new(), &layout).unwrap(),
    };
    writer.page(&cells, &chunks).unwrap();
    kept.manifests.push(writer.finish_with(bad).unwrap().0);
}

/// Two disks with an image each, the first with a range that was lost.
fn two_images() -> Stage {
    let mut stage = Stage::new();
    for mib in [3, 2] {
        let path = stage.noise(mib);
        let mut contents = std::fs::read(&path).unwrap();
        let lost = BadRange {
            region: 0,
            start: 2 * MIB as u64,
            len: 4096,
        };
        let bad = match mib {
            3 => {
                contents[2 * MIB..][..4096].fill(0);
                vec![lost]
            }
            _ => Vec::new(),
        };
        std::fs::write(&path, &contents).unwrap();
        publish(&stage.server, &contents, &bad);
    }
    stage
}

#[test]
fn the_tables_of_all_disks_are_saved_before_one_is_begun() {
    let stage = two_images();
    let before = [0, 1].map(|at| std::fs::read(stage.path(at)).unwrap());
    let refuses = |route: &str| (route == "tables?part=1").then_some(Odd::Refuses(Code::NoSpace));
    stage.server.oddly(move |route, _| refuses(route));
    let report = stage.restore(&[]).unwrap_err();
    assert_eq!(
        (report.code, report.disk),
        (Code::NoSpace, DiskState::Untouched),
        "{report}"
    );
    assert!(!stage.server.was_asked("begin-write"));
    assert!(stage.server.was_asked("tables"));
    for (at, before) in before.iter().enumerate() {
        assert!(std::fs::read(stage.path(at)).unwrap() == *before);
    }
}

#[test]
fn disks_that_cannot_be_told_apart_are_refused_before_anything_is_asked_of_them() {
    let mut stage = two_images();
    for disk in &mut stage.disks {
        (disk.serial, disk.size_bytes) = ("SAME".into(), 1 << 20);
    }
    let report = stage.restore(&[]).unwrap_err();
    assert_eq!(
        (report.code, report.disk),
        (Code::TargetAmbiguous, DiskState::Untouched)
    );
    for disk in &mut stage.disks {
        disk.serial.clear();
    }
    half_make(&stage.path(0));
    half_make(&stage.path(1));
    let report = stage.restore(&[0, 1]).unwrap_err();
    assert_eq!(
        (report.code, report.disk),
        (Code::TargetAmbiguous, DiskState::Unknown)
    );
    assert!(!stage.server.was_asked("tables"));
}

#[test]
fn a_disk_that_is_whole_already_tells_what_its_image_lacks_and_which_disk_it_is() {
    let stage = two_images();
    let contents = std::fs::read(stage.path(1)).unwrap();
    half_make(&stage.path(1));
    let done = stage.restore(&[0, 1]).unwrap();
    assert!(stage.said("holds the whole image already"));
    assert!(std::fs::read(stage.path(1)).unwrap() == contents);
    let [warning] = &done.warnings[..] else {
        panic!("{:?}", done.warnings)
    };
    assert_eq!(warning.code, Code::ReadError);
    let named = format!("{} (serial S0): ", stage.disks[0].path);
    assert!(warning.found.starts_with(&named), "{}", warning.found);
}

#[test]
fn a_disk_that_was_used_since_keeps_the_others_from_going_on_and_each_is_told() {
    let stage = two_images();
    overwrite(&stage.path(0), MIB, b"new work");
    half_make(&stage.path(1));
    let before = std::fs::read(stage.path(0)).unwrap();
    let report = stage.restore(&[0, 1]).unwrap_err();
    assert_eq!(
        (report.code, report.disk),
        (Code::TargetSilent, DiskState::Unknown)
    );
    let half_made = format!("{}: interrupted", super::several::name(&stage.disks[1]));
    let told = report
        .found
        .split("; ")
        .find(|one| one.contains(&half_made));
    let sentence = DiskState::Incomplete.sentence();
    assert!(told.is_some_and(|told| told.contains(sentence)), "{report}");
    assert!(report.advice.contains("half-made"), "{}", report.advice);
    assert!(std::fs::read(stage.path(0)).unwrap() == before);
}

/// Free space behind the last partition that the image holds and the disk has no room for.
#[test]
fn a_smaller_disk_that_is_whole_is_known_as_such() {
    let mut stage = Stage::new();
    DiskBuilder::mbr(16 * MIB as u64, 512)
        .boot_code(3)
        .raw(4 * MIB as u64, 1)
        .build(&stage.path(0));
    overwrite(&stage.path(0), 5 * MIB, &Random::new(5).bytes(2 * MIB));
    stage.add();
    stage.noise(2);
    stage.back_up(Duration::ZERO).unwrap();
    let small = 5 * MIB + 300 * 1024;
    std::fs::write(stage.path(0), vec![0x33; small]).unwrap();
    stage.restore(&[]).unwrap();
    let whole = std::fs::read(stage.path(0)).unwrap();
    let clipped = Random::new(5).bytes(300 * 1024);
    assert!(whole.ends_with(&clipped), "what has room is restored");
    // The power went after the last disk was whole, too.
    stage.restore(&[0, 1]).unwrap();
    assert!(stage.said(&format!("{} holds the whole image", stage.disks[0].path)));
    assert!(std::fs::read(stage.path(0)).unwrap() == whole);
    // Of what has room nothing is passed over.
    overwrite(&stage.path(0), 2 * MIB, b"new work");
    let report = stage.restore(&[0, 1]).unwrap_err();
    assert_eq!(report.code, Code::TargetSilent, "{report}");
}

#[test]
fn a_backup_tells_which_disk_a_warning_is_about_and_what_an_earlier_start_published() {
    let mut stage = Stage::new();
    stage.noise(2);
    DiskBuilder::gpt(8 * MIB as u64, 512)
        .raw(4 * MIB as u64, 1)
        .build(&stage.path(1));
    let path = stage.add();
    overwrite(&path, 512 + 16, &[0xff; 4]);
    let earlier = ["i0", "i1"].map(|image| Published {
        image: image.into(),
        root: "00".into(),
    });
    let earlier = serde_json::to_vec(&earlier).unwrap();
    stage
        .server
        .oddly(move |route, _| (route == "manifests").then(|| Odd::Says(earlier.clone())));
    let done = stage.back_up(Duration::ZERO).unwrap();
    let damaged = done.warnings.iter().find(|w| w.code == Code::GptDamaged);
    let found = &damaged.unwrap().found;
    assert!(found.starts_with(path.to_str().unwrap()), "{found}");
    assert!(stage.said(found), "shown while it runs");
    assert!(stage.said("earlier start"));
    // With no good copy there is no backup.
    let tail = 8 * MIB - 512 + 16;
    overwrite(&path, tail, &[0xff; 4]);
    let report = stage.back_up(Duration::ZERO).unwrap_err();
    assert_eq!(report.code, Code::GptDamaged);
    let found = &report.found;
    assert!(found.starts_with(path.to_str().unwrap()), "{found}");
}

#[test]
fn a_disk_that_fails_ends_the_retries_of_another_one() {
    let mut stage = Stage::new();
    stage.noise(1);
    stage.noise(3);
    // Both have one batch, of as many chunks as MiB.
    stage.server.oddly(|route, body| match (route, body.len()) {
        ("have", 32) => Some(Odd::HangsUp),
        ("have", 96) => Some(Odd::Refuses(Code::NoSpace)),
        _ => None,
    });
    let report = stage.back_up(Duration::from_secs(60)).unwrap_err();
    assert_eq!(
        (report.code, report.disk),
        (Code::NoSpace, DiskState::NotInvolved)
    );
    let ended = "interrupted: stopped, because another disk of the job failed";
    assert!(report.found.contains(ended), "{}", report.found);
}

/// More than two are not read at a time: the third is planned when its turn comes.
#[test]
fn a_disk_that_changes_before_its_turn_is_backed_up_as_it_is_then() {
    let mut stage = Stage::new();
    for _ in 0..2 {
        stage.noise(1);
    }
    let disk = |seed, mib: usize, path: &Path| {
        DiskBuilder::gpt(8 * MIB as u64, 512)
            .raw((mib * MIB) as u64, seed)
            .build(path);
    };
    disk(1, 3, &stage.path(2));
    let path = stage.add();
    let newer = stage.dir.path().join("newer");
    disk(2, 5, &newer);
    let newer = std::fs::read(newer).unwrap();
    stage.server.oddly(move |route, _| {
        if route == "have" && std::fs::read(&path).unwrap() != newer {
            overwrite(&path, 0, &newer);
        }
        None
    });
    stage.back_up(Duration::ZERO).unwrap();
    let kept = stage.server.kept.lock().unwrap();
    let reader = ManifestReader::open(&kept.manifests[2][..]).unwrap();
    let regions = &reader.layout().regions;
    let raw = regions.iter().find(|region| region.number == Some(1));
    assert_eq!(raw.unwrap().size, 5 * MIB as u64);
}

/// Where memory is short, a manifest is not kept while its disk waits for others.
#[test]
fn with_little_memory_manifests_come_again_when_their_disk_has_its_turn() {
    let stage = two_images();
    let contents = [0, 1].map(|at| std::fs::read(stage.path(at)).unwrap());
    let wanted = Wanted {
        root: "",
        options: Options::default(),
        force: false,
        resume: false,
        keyring: &Keyring::default(),
        reuse: false,
        session: None,
    };
    let chosen: Vec<_> = stage.disks.iter().collect();
    let remote = stage.remote(Duration::ZERO);
    for (room, times) in [(0, 2), (u64::MAX, 1)] {
        for at in [0, 1] {
            std::fs::write(stage.path(at), vec![0x33; contents[at].len()]).unwrap();
        }
        stage.server.kept.lock().unwrap().asked.clear();
        super::restore(room, &chosen, &stage.set(), &wanted, &[], &remote, &Silent).unwrap();
        for at in [0, 1] {
            assert!(std::fs::read(stage.path(at)).unwrap() == contents[at]);
            let route = ["manifest", "manifest?part=1"][at];
            let kept = stage.server.kept.lock().unwrap();
            let asked = kept.asked.iter().filter(|asked| *asked == route);
            assert_eq!(asked.count(), times, "disk {at}, room {room}");
        }
    }
}

#[test]
fn what_the_server_lost_after_it_was_promised_is_sent_before_the_image_is_published() {
    let mut stage = Stage::new();
    let path = stage.noise(8);
    let contents = std::fs::read(path).unwrap();
    let encoder = Encoder::new(Compression::Zstd(1)).unwrap();
    let names: Vec<[u8; 32]> = contents.chunks(MIB).map(|c| encoder.name(c).0).collect();
    let (promised, published) = (
        names.as_flattened().to_vec(),
        serde_json::to_vec(&Published {
            image: "i0".into(),
            root: "00".into(),
        }),
    );
    let published = published.unwrap();
    let times = AtomicU32::new(0);
    stage.server.oddly(move |route, body| match route {
        "base" => Some(Odd::Says(promised.clone())),
        "manifest" if !body.is_empty() => Some(match times.fetch_add(1, Ordering::SeqCst) {
            0 => Odd::Refuses(Code::ImageDamaged),
            _ => Odd::Says(published.clone()),
        }),
        _ => None,
    });
    // It has all but two of them by then.
    let keep = |names: &[[u8; 32]]| {
        let mut kept = stage.server.kept.lock().unwrap();
        for name in names {
            kept.records.insert(name.to_vec(), Vec::new());
        }
    };
    keep(&names[..3]);
    keep(&names[5..]);
    let done = stage.back_up_one().unwrap();
    assert!(stage.said("lacks 2 chunks"));
    assert!(done.summary.wire_bytes > 2 * MIB as u64);
    let kept = stage.server.kept.lock().unwrap();
    for (name, is_new) in names.iter().zip([false, false, false, true, true]) {
        assert_eq!(!kept.records[&name[..]].is_empty(), is_new);
    }
    drop(kept);
    // Damage that sending does not mend is told.
    stage.server.oddly(|route, body| match route {
        "manifest" if !body.is_empty() => Some(Odd::Refuses(Code::ImageDamaged)),
        _ => None,
    });
    assert_eq!(stage.back_up_one().unwrap_err().code, Code::ImageDamaged);
}
