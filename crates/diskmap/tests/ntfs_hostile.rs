//! NTFS with random damage: nothing panics, and either every sector is copied or the map
//! still holds all that the undamaged one holds.

mod common;
#[path = "common/ntfs.rs"]
mod image;
#[path = "common/ntfs_edit.rs"]
mod ntfs_edit;

use common::{Numbers, whole_used};
use diskmap::{Geometry, Method, ScanOptions, scan};
use ntfs_edit::{DATA, Editor, Plan};
use std::ops::Range;

/// Damages a volume in memory, in the records of its own files and their mirror, the root
/// folder, and the log; not in the bitmap itself, where every bit is believed.
fn damage(image: &image::Image, rounds: u64) {
    let good = whole_used(&image.path).used;
    let editor = Editor::open(&image.path);
    let mut disk = std::fs::read(&image.path).unwrap();
    let geometry = Geometry {
        size_bytes: disk.len() as u64,
        sector_size: 512,
    };
    let mut places: Vec<Range<u64>> = Vec::new();
    places.push(0..512);
    for number in 0..100 {
        places.extend(editor.halves(number).map(|half| half..half + 512));
    }
    let mirror = u64::from_le_bytes(disk[56..64].try_into().unwrap()) * 512;
    let log = editor.places(2, DATA)[0] * 512;
    places.extend([mirror..mirror + 4096, log..log + 8192]);
    let mut numbers = Numbers(0xfeed_5eed_0bad_cafe);
    let (mut full, mut used) = (0, 0);
    for round in 0..rounds {
        let mut undo = Vec::new();
        for _ in 0..1 + numbers.below(3) {
            // Half of it in the first records, which say where everything is.
            let some = if round % 2 == 0 { 20 } else { places.len() };
            let place = &places[numbers.below(some as u64) as usize];
            let at = (place.start + numbers.below(place.end - place.start)) as usize;
            undo.push((at, disk[at]));
            disk[at] = match numbers.below(4) {
                0 => 0,
                1 => 0xff,
                2 => disk[at] ^ 1 << numbers.below(8),
                _ => numbers.below(256) as u8,
            };
        }
        let map = scan(&disk, geometry, &ScanOptions::default()).unwrap();
        let region = &map.regions[0];
        match region.method {
            Method::Full | Method::Absent => full += 1,
            Method::Used => {
                let lost = good.subtract(&region.used);
                assert!(lost.is_empty(), "round {round}: {undo:x?} loses {lost:?}");
                used += 1;
            }
        }
        for (at, byte) in undo.into_iter().rev() {
            disk[at] = byte;
        }
    }
    assert!(full > rounds / 10 && used > rounds / 10, "{full} {used}");
}

#[test]
fn random_damage_loses_nothing() {
    damage(&image::filled(4, &["-c", "512"]), 2000);
}

#[test]
fn random_damage_of_a_volume_in_pieces_loses_nothing() {
    let image = image::filled(16, &["-c", "512"]);
    let editor = Editor::open(&image.path);
    let free = |from: u64| {
        (from..from + 9)
            .find(|&number| editor.record(number)[22] & 1 == 0)
            .unwrap()
    };
    let plan = Plan {
        number: 6,
        keep: 1,
        holders: &[free(24), free(34)],
        base_empty: false,
        list_outside: false,
    };
    Editor::open(&image.path).scatter(&plan);
    damage(&image, 2000);
}
