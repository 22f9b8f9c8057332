//! Containers and manifests as streams: however the bytes arrive they read the same, and
//! bytes that were changed in any way are never taken for good.
//!
//! Owns: properties over generated images. Does not own: known files (`golden.rs`), or
//! single records (the crate's own tests).

mod change;
mod generate;
mod reading;

use change::{changes, reseal};
use generate::{Image, images, manifest, plain};
use image::manifest::Page;
use image::record::{Codec, Compression, Decoder, Encoder, HEADER_LEN};
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

/// Changes tried on each image. With [`IMAGES`] and the kinds of file it comes to more than
/// 100,000 changed files in a run of the tests.
const CHANGES: usize = 64;
/// Images that are changed.
const IMAGES: u32 = 400;

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

}

proptest::proptest! {
    #![proptest_config(ProptestConfig::with_cases(IMAGES))]

    #[test]
    fn a_changed_container_is_never_good(
        image in images(),
        changes in prop::collection::vec(changes(), CHANGES),
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
    fn a_change_under_right_checksums_never_gives_other_bytes(
        image in images(),
        changes in prop::collection::vec(changes(), CHANGES),
    ) {
        let whole = read(&image.container[..]).unwrap();
        for change in changes {
            let mut bytes = change.apply(&image);
            reseal(&mut bytes);
            // A compressor's own header has bits that mean nothing.
            if let Ok(told) = read(&bytes[..]) {
                prop_assert_eq!(&told.plain, &whole.plain, "{:?}", change);
                prop_assert_eq!((told.root, &told.layout), (whole.root, &whole.layout), "{:?}", change);
            }
            let mut manifest = manifest(&image);
            let places = Image { container: manifest.clone(), records: Vec::new(), ..image.clone() };
            let mut changed = change.apply(&places);
            reseal(&mut changed);
            reseal(&mut manifest);
            // A version may be higher than it needs to be.
            if changed != manifest && let Ok(told) = read_manifest(&changed[..]) {
                prop_assert_eq!(told, (image.chunks.clone(), image.root), "{:?}", change);
            }
        }
    }

    #[test]
    fn a_changed_manifest_is_never_good(
        image in images(),
        changes in prop::collection::vec(changes(), CHANGES),
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

/// Packs as a server has them: each record is looked up at its place.
mod packs {
    use super::{
        CHANGES, IMAGES, Image, ProptestConfig, changes, images, prop, prop_assert_eq, read, reseal,
    };
    use image::pack::{self, PackWriter};
    use image::record::{Decoder, RecordHeader};
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    proptest::proptest! {
        #![proptest_config(ProptestConfig::with_cases(IMAGES))]

        #[test]
        fn a_changed_pack_never_gives_other_bytes(
            image in images(),
            changes in prop::collection::vec(changes(), CHANGES),
        ) {
            let whole = read(&image.container[..]).unwrap();
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("pack");
            let mut writer = PackWriter::create(&path).unwrap();
            let mut places = Vec::new();
            for (&(start, end), (header, _)) in image.records.iter().zip(&whole.records) {
                places.push((writer.append(&image.container[start..end]).unwrap(), *header));
            }
            drop(writer);
            let bytes = std::fs::read(&path).unwrap();
            let records = places.iter().map(|(at, header)| {
                (*at as usize, (at + header.record_len()) as usize)
            }).collect();
            let alone = Image { container: bytes, records, ..image };
            for change in changes {
                let mut bytes = change.apply(&alone);
                for again in 0..2 {
                    let file = File::options().write(true).read(true).open(&path).unwrap();
                    file.set_len(bytes.len() as u64).unwrap();
                    file.write_all_at(&bytes, 0).unwrap();
                    for ((at, header), plain) in places.iter().zip(&whole.plain) {
                        if let Some(back) = look_up(&file, *at, header) {
                            prop_assert_eq!(&back, plain, "{:?}", change);
                        }
                    }
                    // Then under checksums that are right.
                    if again == 0 {
                        reseal(&mut bytes);
                    }
                }
            }
        }
    }

    /// What a server gives out, and a target takes, for the chunk of this name.
    fn look_up(file: &File, at: u64, wanted: &RecordHeader) -> Option<Vec<u8>> {
        let (header, payload) = pack::read_record(file, at, wanted.stored_len).ok()?;
        let mut plain = Vec::new();
        let decoded = Decoder::new().decode(&header, &payload, at, &mut plain);
        (decoded.is_ok() && header.name == wanted.name).then_some(plain)
    }
}

/// The number of the version is under no hash. A higher one than an image needs changes
/// nothing of it; with a lower one it says what that version cannot say.
#[test]
fn another_version_in_the_header_is_the_same_image_or_none() {
    let of_version = |bytes: &[u8], version: u8| {
        let mut bytes = bytes.to_vec();
        bytes[8] = version;
        reseal(&mut bytes);
        bytes
    };
    let plain = include_bytes!("../golden/v1.manifest");
    let told = read_manifest(&plain[..]).unwrap();
    for version in [2, 3] {
        let bytes = of_version(plain, version);
        assert_eq!(read_manifest(&bytes[..]).unwrap(), told, "{version}");
    }
    assert!(read_manifest(&of_version(plain, 4)[..]).is_err());
    let container = include_bytes!("../golden/v1.container");
    let told = read(&container[..]).unwrap();
    for version in [2, 3] {
        let bytes = of_version(container, version);
        assert_eq!(read(&bytes[..]).unwrap(), told, "{version}");
    }
    let encrypted = include_bytes!("../golden/v3.manifest");
    read_manifest(&encrypted[..]).unwrap();
    for version in [1, 2] {
        assert!(read_manifest(&of_version(encrypted, version)[..]).is_err());
    }
}

/// A compressor that gave up on a chunk makes good records again.
#[test]
fn a_chunk_after_one_that_does_not_compress_is_readable() {
    let text = plain(1, 0, 1536);
    let (mut decoder, mut back) = (Decoder::new(), Vec::new());
    for compression in [
        Compression::Deflate(1),
        Compression::Deflate(6),
        Compression::Zstd(1),
    ] {
        let mut encoder = Encoder::new(compression).unwrap();
        for len in (512..70_000).step_by(512).chain([1 << 20, 4 << 20]) {
            let mut record = Vec::new();
            let noise = encoder.encode(&plain(0, 104, len), &mut record).unwrap();
            assert_eq!(noise.codec, Codec::Stored);
            record.clear();
            let header = encoder.encode(&text, &mut record).unwrap();
            assert_ne!(header.codec, Codec::Stored);
            let decoded = decoder.decode(&header, &record[HEADER_LEN..], 0, &mut back);
            assert!(
                decoded.is_ok() && back == text,
                "{compression:?} after {len} bytes"
            );
        }
    }
}
