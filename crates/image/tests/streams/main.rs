//! Containers and manifests as streams: however the bytes arrive they read the same, and
//! bytes that were changed in any way are never taken for good.
//!
//! Owns: properties over generated images. Does not own: known files (`golden.rs`), or
//! single records (the crate's own tests).

mod change;
mod generate;
mod reading;

use change::changes;
use generate::{Image, images, manifest};
use image::manifest::Page;
use image::structure;
use proptest::prelude::{Just, ProptestConfig, Strategy, prop, prop_assert, prop_assert_eq};
use proptest::prop_oneof;
use reading::{Fickle, read, read_manifest};
use std::io::Cursor;

/// Lengths of reads; 0 is an interruption. At least one of them moves on.
fn lengths() -> impl Strategy<Value = Vec<u16>> {
    let length = prop_oneof![2 => Just(0), 2 => 1..9u16, 1 => 9..3000u16];
    (prop::collection::vec(length, 0..8), 1..3000u16).prop_map(|(mut lengths, last)| {
        lengths.push(last);
        lengths
    })
}

proptest::proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn what_was_written_is_read(image in images()) {
        let told = read(&image.container[..]).unwrap();
        prop_assert_eq!(&told.layout, &image.layout);
        prop_assert_eq!(&told.cells, &image.cells);
        prop_assert_eq!(told.root, image.root);
        prop_assert_eq!(told.plain.len(), image.chunks.len());
        let used: u64 = told.plain.iter().map(|plain| plain.len() as u64).sum();
        prop_assert_eq!(used, image.layout.used_bytes());
        // Opened at random it says the same without reading records.
        let found = structure::read(&mut Cursor::new(&image.container)).unwrap();
        prop_assert_eq!(found.root, image.root);
        let pages: Vec<Page> = found.pages.iter().map(|page| page.unpack().unwrap()).collect();
        prop_assert!(pages.iter().flat_map(|page| &page.cells).eq(&image.cells));
        prop_assert!(pages.iter().flat_map(|page| &page.chunks).eq(&image.chunks));
    }

    #[test]
    fn any_split_of_reads_gives_the_same(
        image in images(),
        lengths in lengths(),
    ) {
        let whole = read(&image.container[..]).unwrap();
        let fickle = Fickle { bytes: &image.container, lengths: lengths.iter().cycle() };
        prop_assert_eq!(read(fickle).unwrap(), whole);
        let manifest = manifest(&image);
        let fickle = Fickle { bytes: &manifest, lengths: lengths.iter().cycle() };
        prop_assert_eq!(read_manifest(fickle).unwrap(), (image.chunks.clone(), image.root));
    }

    #[test]
    fn a_changed_container_is_never_good(
        image in images(),
        changes in prop::collection::vec(changes(), 16),
    ) {
        for change in changes {
            let bytes = change.apply(&image);
            if bytes == image.container {
                continue; // records that are equal changed places
            }
            let told = read(&bytes[..]);
            prop_assert!(told.is_err(), "{:?} is not noticed", change);
            // Opened at random nothing but the records' payloads may pass.
            if let Ok(found) = structure::read(&mut Cursor::new(&bytes)) {
                prop_assert_eq!(found.root, image.root);
                prop_assert_eq!(found.layout, image.layout.clone());
            }
        }
    }

    #[test]
    fn a_changed_manifest_is_never_good(
        image in images(),
        changes in prop::collection::vec(changes(), 16),
    ) {
        let bytes = manifest(&image);
        prop_assert_eq!(read_manifest(&bytes[..]).unwrap(), (image.chunks.clone(), image.root));
        let alone = Image { container: bytes.clone(), records: Vec::new(), ..image };
        for change in changes {
            let changed = change.apply(&alone);
            if changed != bytes {
                prop_assert!(read_manifest(&changed[..]).is_err(), "{:?} is not noticed", change);
            }
        }
    }
}
