//! Files of each format version, made once: they have to stay readable for ever.
//!
//! Owns: what the files in `golden/` hold, byte for byte, and how they were made. Does
//! not own: the hex examples of the documentation (`format_doc.rs`).
//!
//! The present writer makes the same image in memory and is held to the same reading,
//! so the recipe below never rots. To make files of a new version, run with
//! `GOLDEN_DIR=folder`; those of an old version are never written again.

use image::container::{ContainerReader, ContainerWriter, Event};
use image::layout::{Blob, Disk, Machine, Region, Table};
use image::manifest::{ManifestReader, ManifestWriter};
use image::pack::{PackWriter, read_record, scan};
use image::record::{Codec, Compression, Decoder, Encoder};
use image::{
    BadRange, CellMap, ChunkRef, Hash, Layout, OpenImage, SigningKey, Used, Version, sign,
    structure,
};
use std::fs::File;
use std::io::Cursor;
use std::path::{Path, PathBuf};

#[path = "golden/sealed.rs"]
mod sealed;

/// Root hash of the image in the golden files of version 2: the same image, of which
/// partition 2 was not asked for and some sectors could not be read.
const ROOT_2: &str = "ac5d23c82353b0ef846f3714f9f6fb7fddcf2a76e224772514f063abdfc0c518";

/// Root hash of the image in the golden files.
const ROOT: &str = "5ef5e52e3cb13d0a469ebce5213b811854c62652961cc97b5e28df17498a0a89";

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

/// A disk of 256 KiB: MBR, a gap, and a partition of three cells.
fn layout() -> Layout {
    let mut mbr = vec![0; 512];
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    let region = |kind: &str, start, size, used_bytes| Region {
        kind: kind.into(),
        start,
        size,
        used_bytes,
        method: if kind == "gap" { "full" } else { "used" }.into(),
        ..Region::default()
    };
    Layout {
        created: "2026-01-02T03:04:05Z".into(),
        tool: "imager 0.1.0".into(),
        machine: Machine {
            name: "golden".into(),
            ..Machine::default()
        },
        disk: Disk {
            size_bytes: 256 << 10,
            sector_size: 512,
            ..Disk::default()
        },
        cell_size: 64 << 10,
        table: Table {
            kind: "mbr".into(),
            blobs: vec![Blob {
                offset: 0,
                data: mbr,
            }],
        },
        regions: vec![
            region("gap", 512, 3584, 3584),
            Region {
                number: Some(1),
                part_type: "0x83".into(),
                file_system: "ext4".into(),
                ..region("partition", 4096, 192 << 10, 1024 + 1536 + 512)
            },
        ],
        ..Layout::default()
    }
}

/// Each cell, its plain bytes, the compression that is asked for and the codec that comes
/// of it: every kind of used map and every codec once.
fn chunks() -> Vec<(CellMap, Vec<u8>, Compression, Codec)> {
    let cell = |region, cell, extents| CellMap {
        region,
        cell,
        used: Used::new(extents, 64 << 10).unwrap(),
    };
    let text = |len: usize| b"Deploy-OS ".iter().copied().cycle().take(len).collect();
    // Bytes that nothing compresses: hashes of small numbers.
    let noise = (0u8..16).flat_map(|n| Hash::of(&[n]).0).collect();
    vec![
        (
            cell(0, 0, vec![(0, 3584)]),
            vec![0; 3584],
            Compression::Zstd(1),
            Codec::Zeros,
        ),
        (
            cell(1, 0, vec![(0, 512), (65_024, 512)]),
            text(1024),
            Compression::Deflate(6),
            Codec::Deflate,
        ),
        (
            cell(1, 1, vec![(0, 512), (1024, 512), (2048, 512)]),
            text(1536),
            Compression::Zstd(1),
            Codec::Zstd,
        ),
        (
            cell(1, 2, vec![(0, 512)]),
            noise,
            Compression::Zstd(1),
            Codec::Stored,
        ),
    ]
}

fn cells() -> Vec<CellMap> {
    chunks().into_iter().map(|(cell, ..)| cell).collect()
}

fn chunk_refs() -> Vec<ChunkRef> {
    chunks()
        .iter()
        .map(|(_, plain, ..)| ChunkRef {
            name: Hash::of(plain),
            plain_len: plain.len() as u32,
        })
        .collect()
}

fn make_container() -> Vec<u8> {
    let mut writer = ContainerWriter::new(Vec::new(), &layout()).unwrap();
    writer.begin_page(&cells()).unwrap();
    for (_, plain, compression, _) in chunks() {
        let mut record = Vec::new();
        let mut encoder = Encoder::new(compression).unwrap();
        let header = encoder.encode(&plain, &mut record).unwrap();
        writer.record(&header, &record).unwrap();
    }
    writer.finish().unwrap().0
}

fn make_manifest() -> Vec<u8> {
    let mut writer = ManifestWriter::new(Vec::new(), &layout()).unwrap();
    writer.page(&cells(), &chunk_refs()).unwrap();
    writer.finish().unwrap().0
}

/// The image of version 2: one more partition, which is absent.
fn layout_2() -> Layout {
    let mut layout = layout();
    layout.regions.push(Region {
        kind: "partition".into(),
        number: Some(2),
        start: 200 << 10,
        size: 32 << 10,
        method: "none".into(),
        reason: "Not asked for.".into(),
        ..Region::default()
    });
    layout
}

fn bad_ranges() -> Vec<BadRange> {
    let range = |region, start, len| BadRange { region, start, len };
    vec![
        range(0, 1024, 512),
        range(1, 65_024, 512),
        range(1, 66_560, 512),
    ]
}

fn make_container_2() -> Vec<u8> {
    let mut writer = ContainerWriter::of_bad_disk(Vec::new(), &layout_2()).unwrap();
    writer.begin_page(&cells()).unwrap();
    for (_, plain, compression, _) in chunks() {
        let mut record = Vec::new();
        let mut encoder = Encoder::new(compression).unwrap();
        let header = encoder.encode(&plain, &mut record).unwrap();
        writer.record(&header, &record).unwrap();
    }
    writer.finish_with(&bad_ranges()).unwrap().0
}

fn make_manifest_2() -> Vec<u8> {
    let mut writer = ManifestWriter::of_bad_disk(Vec::new(), &layout_2()).unwrap();
    writer.page(&cells(), &chunk_refs()).unwrap();
    writer.finish_with(&bad_ranges()).unwrap().0
}

/// The image of version 1, signed with the key of 32 bytes 7.
fn signing_key() -> SigningKey {
    SigningKey::from_seed(&[7; 32]).unwrap()
}

fn make_signed() -> (Vec<u8>, Vec<u8>) {
    let mut container = Vec::new();
    let signed = sign::copy_signed(
        &mut Cursor::new(make_container()),
        &mut container,
        &signing_key(),
    );
    assert!(signed.unwrap());
    let mut manifest = Cursor::new(make_manifest());
    let signature = signing_key().sign(Hash::from_hex(ROOT).unwrap());
    sign::add_to_manifest(&mut manifest, &signature).unwrap();
    (container, manifest.into_inner())
}

fn read_signed(container: &[u8], manifest: &[u8]) {
    read_container(container);
    let found = structure::read(&mut Cursor::new(container)).unwrap();
    assert_eq!(found.signatures[0].key, signing_key().public());
    assert_eq!((found.signatures.len(), found.version), (1, Version::V1));
    read_manifest(manifest);
    let mut reader = ManifestReader::open(manifest).unwrap();
    while reader.next_page().unwrap().is_some() {}
    assert_eq!(reader.signatures(), found.signatures);
    assert_eq!(reader.version(), Version::V3);
}

fn read_version_2(container: &[u8], manifest: &[u8]) {
    read_opened(container, ROOT_2);
    let found = structure::read(&mut Cursor::new(container)).unwrap();
    assert_eq!(found.layout, layout_2());
    assert!(found.layout.is_partial());
    assert_eq!(found.bad, bad_ranges());
    assert_eq!(found.root.root.to_hex(), ROOT_2);

    let mut reader = ContainerReader::open(container).unwrap();
    let mut payload = Vec::new();
    let root = loop {
        if let Event::End(root) = reader.next_event(&mut payload).unwrap() {
            break root;
        }
    };
    assert_eq!((reader.bad(), root), (&bad_ranges()[..], found.root));

    let mut reader = ManifestReader::open(manifest).unwrap();
    while reader.next_page().unwrap().is_some() {}
    assert_eq!(reader.bad(), bad_ranges());
    assert_eq!(reader.root(), Some(found.root));
}

/// The disk of the golden images, read at random.
fn read_opened(container: &[u8], root: &str) {
    let image = OpenImage::open(container).unwrap();
    assert_eq!(image.root().root.to_hex(), root);
    let mut expected = vec![0; 256 << 10];
    expected[510..512].copy_from_slice(&[0x55, 0xaa]);
    for (cell, plain, ..) in chunks() {
        let region = &layout().regions[cell.region as usize];
        let mut at = 0;
        for &(start, len) in cell.used.extents() {
            let place = region.start + cell.cell * (64 << 10) + u64::from(start);
            expected[place as usize..][..len as usize]
                .copy_from_slice(&plain[at..][..len as usize]);
            at += len as usize;
        }
    }
    let mut disk = vec![0xee; 256 << 10];
    image.read_exact_at(&mut disk, 0).unwrap();
    assert!(disk == expected);
}

fn make_pack(path: &Path) {
    let mut writer = PackWriter::create(path).unwrap();
    for (_, plain, compression, _) in chunks() {
        let mut record = Vec::new();
        let mut encoder = Encoder::new(compression).unwrap();
        encoder.encode(&plain, &mut record).unwrap();
        writer.append(&record).unwrap();
    }
    writer.sync().unwrap();
}

fn read_container(bytes: &[u8]) {
    read_opened(bytes, ROOT);
    let mut reader = ContainerReader::open(bytes).unwrap();
    assert_eq!(reader.layout(), &layout());
    let mut payload = Vec::new();
    match reader.next_event(&mut payload).unwrap() {
        Event::Page(found) => assert_eq!(found, cells()),
        other => panic!("{other:?} where a page is expected"),
    }
    for (_, plain, _, codec) in chunks() {
        match reader.next_event(&mut payload).unwrap() {
            Event::Record { header, offset } => {
                assert_eq!(header.codec, codec);
                let mut out = Vec::new();
                Decoder::new()
                    .decode(&header, &payload, offset, &mut out)
                    .unwrap();
                assert_eq!(out, plain);
            }
            other => panic!("{other:?} where a record is expected"),
        }
    }
    match reader.next_event(&mut payload).unwrap() {
        Event::End(root) => assert_eq!(root.root.to_hex(), ROOT),
        other => panic!("{other:?} where the end is expected"),
    }
    let found = structure::read(&mut Cursor::new(bytes)).unwrap();
    assert_eq!(found.root.root.to_hex(), ROOT);
    assert_eq!(found.pages[0].unpack().unwrap().chunks, chunk_refs());
}

fn read_manifest(bytes: &[u8]) {
    let mut reader = ManifestReader::open(bytes).unwrap();
    assert_eq!(reader.layout(), &layout());
    let page = reader.next_page().unwrap().unwrap();
    assert_eq!((page.cells, page.chunks), (cells(), chunk_refs()));
    assert!(reader.next_page().unwrap().is_none());
    assert_eq!(reader.root().unwrap().root.to_hex(), ROOT);
}

fn read_pack(path: &Path) {
    let found = scan(path).unwrap();
    assert!(found.damage.is_none(), "{:?}", found.damage);
    let file = File::open(path).unwrap();
    assert_eq!(found.records.len(), chunks().len());
    for ((offset, header), (_, plain, _, codec)) in found.records.iter().zip(chunks()) {
        let (again, payload) = read_record(&file, *offset, header.stored_len).unwrap();
        assert_eq!((&again, header.codec), (header, codec));
        let mut out = Vec::new();
        Decoder::new()
            .decode(header, &payload, *offset, &mut out)
            .unwrap();
        assert_eq!(out, plain);
    }
}

#[test]
fn version_1_files_are_readable() {
    read_container(&std::fs::read(golden("v1.container")).unwrap());
    read_manifest(&std::fs::read(golden("v1.manifest")).unwrap());
    read_pack(&golden("v1.pack"));
}

#[test]
fn version_2_files_are_readable() {
    let read = |name| std::fs::read(golden(name)).unwrap();
    read_version_2(&read("v2.container"), &read("v2.manifest"));
}

#[test]
fn signed_files_are_readable() {
    let read = |name| std::fs::read(golden(name)).unwrap();
    let (container, manifest) = (read("v1-signed.container"), read("v3-signed.manifest"));
    read_signed(&container, &manifest);
    // Ed25519 is deterministic.
    assert_eq!(make_signed(), (container, manifest));
}

/// An image that needs nothing of version 2 is written as version 1, byte for byte.
#[test]
fn without_need_the_first_version_is_written() {
    let manifest = std::fs::read(golden("v1.manifest")).unwrap();
    assert_eq!(make_manifest(), manifest);
    // Space for bad ranges that never came changes the version and nothing else.
    let mut writer = ManifestWriter::of_bad_disk(Vec::new(), &layout()).unwrap();
    writer.page(&cells(), &chunk_refs()).unwrap();
    let (bytes, root) = writer.finish().unwrap();
    assert_eq!(bytes[32..], manifest[32..]);
    assert_eq!((bytes[8], root.root.to_hex().as_str()), (2, ROOT));
}

#[test]
fn version_1_cannot_say_what_version_2_says() {
    let writer = ManifestWriter::new(Vec::new(), &layout()).unwrap();
    assert!(writer.finish_with(&bad_ranges()).is_err());
    for (mut bytes, what) in [
        (make_manifest_2(), "an absent region"),
        (
            {
                let mut writer = ManifestWriter::of_bad_disk(Vec::new(), &layout()).unwrap();
                writer.page(&cells(), &chunk_refs()).unwrap();
                writer.finish_with(&bad_ranges()).unwrap().0
            },
            "bad ranges",
        ),
    ] {
        bytes[8] = 1;
        let crc = crc32fast::hash(&bytes[..28]);
        bytes[28..32].copy_from_slice(&crc.to_le_bytes());
        let read = ManifestReader::open(&bytes[..]).and_then(|mut reader| {
            while reader.next_page()?.is_some() {}
            Ok(())
        });
        assert!(read.is_err(), "{what} in version 1");
    }
}

#[test]
fn the_present_writer_makes_the_same_image() {
    let kept = tempfile::tempdir().unwrap();
    let folder = std::env::var_os("GOLDEN_DIR").map_or(kept.path().to_owned(), PathBuf::from);
    for (name, bytes) in [
        ("container", make_container()),
        ("manifest", make_manifest()),
        ("v2.container", make_container_2()),
        ("v2.manifest", make_manifest_2()),
        ("v1-signed.container", make_signed().0),
        ("v3-signed.manifest", make_signed().1),
    ] {
        assert!(bytes.len() < 4096, "{name}: {} bytes", bytes.len());
        std::fs::write(folder.join(name), bytes).unwrap();
    }
    read_version_2(&make_container_2(), &make_manifest_2());
    let pack = folder.join("v2.pack");
    let (container, manifest) = sealed::make(&pack);
    sealed::read(&container, &manifest, &pack);
    std::fs::write(folder.join("v3.container"), container).unwrap();
    std::fs::write(folder.join("v3.manifest"), manifest).unwrap();
    make_pack(&folder.join("pack"));
    read_container(&std::fs::read(folder.join("container")).unwrap());
    read_manifest(&std::fs::read(folder.join("manifest")).unwrap());
    read_pack(&folder.join("pack"));
}

/// Golden files that a tool has changed would be read as damage that the test explains
/// wrongly; and a reader that takes anything would pass the tests above.
#[test]
fn no_byte_of_the_golden_container_can_change() {
    for name in ["v1.container", "v2.container", "v1-signed.container"] {
        let bytes = std::fs::read(golden(name)).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let unseen = is_good(&changed);
            assert!(!unseen, "{name}: a change of byte {at} is not noticed");
        }
    }
}

fn is_good(bytes: &[u8]) -> bool {
    let Ok(mut reader) = ContainerReader::open(bytes) else {
        return false;
    };
    let (mut payload, mut plain) = (Vec::new(), Vec::new());
    loop {
        match reader.next_event(&mut payload) {
            Err(_) => return false,
            Ok(Event::End(_)) => return true,
            Ok(Event::Page(_)) => {}
            Ok(Event::Record { header, offset }) => {
                let decoded = Decoder::new().decode(&header, &payload, offset, &mut plain);
                if decoded.is_err() {
                    return false;
                }
            }
        }
    }
}
