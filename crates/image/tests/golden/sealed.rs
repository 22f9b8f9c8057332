//! The encrypted golden files.
//!
//! Owns: what they hold, how they were made, and that no bit of them can change. Does not
//! own: the image that is in them (`golden.rs`).

use super::{bad_ranges, cells, chunks, golden, layout_2};
use image::assemble::Assembler;
use image::container::{ContainerReader, ContainerWriter, Event};
use image::manifest::{ManifestReader, ManifestWriter};
use image::pack::{PackWriter, read_record, scan};
use image::record::{Decoder, Encoder};
use image::{ChunkRef, Error, Hash, ImageKey, Layout, OpenImage, Version, structure};
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

/// The key of the encrypted image: 32 bytes 8.
fn image_key() -> Arc<ImageKey> {
    Arc::new(ImageKey::new(&[8; 32]))
}

/// The image of version 2, encrypted; with the pack of its records. The bytes are other
/// ones each time.
pub fn make(pack: &Path) -> (Vec<u8>, Vec<u8>) {
    let key = image_key();
    let layout = layout_2().sealed(&key, "a key file").unwrap();
    let writer = ContainerWriter::of_bad_disk(Vec::new(), &layout).unwrap();
    let mut writer = writer.sealed_with(Some(Arc::clone(&key)));
    writer.begin_page(&cells()).unwrap();
    let mut records = PackWriter::create(pack).unwrap();
    let mut refs = Vec::new();
    for (_, plain, compression, codec) in chunks() {
        let mut record = Vec::new();
        let encoder = Encoder::new(compression).unwrap();
        let mut encoder = encoder.sealed_with(Some(Arc::clone(&key)));
        let header = encoder.encode(&plain, &mut record).unwrap();
        assert_eq!(header.codec, codec);
        writer.record(&header, &record).unwrap();
        records.append(&record).unwrap();
        let (name, plain_len) = (header.name, header.plain_len);
        refs.push(ChunkRef { name, plain_len });
    }
    let container = writer.finish_with(&bad_ranges()).unwrap().0;
    let writer = ManifestWriter::of_bad_disk(Vec::new(), &layout).unwrap();
    let mut writer = writer.sealed_with(Some(key));
    writer.page(&cells(), &refs).unwrap();
    (container, writer.finish_with(&bad_ranges()).unwrap().0)
}

pub fn read(container: &[u8], manifest: &[u8], pack: &Path) {
    let key = image_key();
    let mut found = structure::read(&mut Cursor::new(container)).unwrap();
    assert_eq!(found.version, Version::V3);
    assert!(found.layout.table.blobs.is_empty() && found.layout.machine.name.is_empty());
    found.unlock(&key).unwrap();
    assert_eq!(found.bad, bad_ranges());
    let whole = Layout {
        encryption: None,
        ..found.layout.clone()
    };
    assert_eq!(whole, layout_2());

    let mut reader = ContainerReader::open(container).unwrap();
    reader.unlock(Arc::clone(&key)).unwrap();
    let (mut payload, mut plains) = (Vec::new(), Vec::new());
    let mut decoder = Decoder::new().opened_with(Some(Arc::clone(&key)));
    let root = loop {
        match reader.next_event(&mut payload).unwrap() {
            Event::Page(found) => assert_eq!(found, cells()),
            Event::Record { header, offset } => {
                let mut plain = Vec::new();
                decoder
                    .decode(&header, &payload, offset, &mut plain)
                    .unwrap();
                plains.push(plain);
            }
            Event::End(root) => break root,
        }
    };
    let wanted: Vec<_> = chunks().into_iter().map(|(_, plain, ..)| plain).collect();
    assert_eq!((plains, root), (wanted, found.root));

    let mut reader = ManifestReader::open(manifest).unwrap();
    reader.unlock(Arc::clone(&key)).unwrap();
    let page = reader.next_page().unwrap().unwrap();
    assert!(reader.next_page().unwrap().is_none());
    assert_eq!(
        reader.root().map(|r| r.plain_bytes),
        Some(found.root.plain_bytes)
    );
    let records = scan(pack).unwrap();
    assert!(records.damage.is_none());
    let names = |list: &mut dyn Iterator<Item = Hash>| list.collect::<Vec<_>>();
    assert_eq!(
        names(&mut records.records.iter().map(|(_, header)| header.name)),
        names(&mut page.chunks.iter().map(|chunk| chunk.name))
    );

    let mut open = OpenImage::open(container.to_vec()).unwrap();
    let start = layout_2().regions[1].start;
    let mut bytes = vec![0; 512];
    assert!(
        open.read_exact_at(&mut bytes, start).is_err(),
        "read without a key"
    );
    open.unlock(key).unwrap();
    open.read_exact_at(&mut bytes, start).unwrap();
    assert!(bytes.starts_with(b"Deploy-OS "));
}

#[test]
fn version_3_files_are_readable() {
    let file = |name| std::fs::read(golden(name)).unwrap();
    read(
        &file("v3.container"),
        &file("v3.manifest"),
        &golden("v2.pack"),
    );
    let other = ImageKey::new(&[9; 32]);
    let mut found = structure::read(&mut Cursor::new(file("v3.container"))).unwrap();
    assert!(matches!(found.unlock(&other), Err(Error::Key { .. })));
}

/// Without the key a container becomes manifest and records, and again the same container.
#[test]
fn a_server_without_the_key_splits_and_joins_them() {
    let file = |name| std::fs::read(golden(name)).unwrap();
    let (container, out) = (
        file("v3.container"),
        tempfile::NamedTempFile::new().unwrap(),
    );
    let writer = out.reopen().unwrap();
    let mut reader = ContainerReader::open_copying(&container[..], writer).unwrap();
    let mut payload = Vec::new();
    while !matches!(reader.next_event(&mut payload).unwrap(), Event::End(_)) {}
    assert!(std::fs::read(out.path()).unwrap() == file("v3.manifest"));

    let (pack, records) = (golden("v2.pack"), scan(&golden("v2.pack")).unwrap().records);
    let pack = std::fs::File::open(pack).unwrap();
    let manifest = file("v3.manifest");
    let mut assembler = Assembler::open(&manifest[..], Vec::new()).unwrap();
    while let Some(chunks) = assembler.next_page().unwrap() {
        for (chunk, (offset, header)) in chunks.iter().zip(&records) {
            let (header, payload) = read_record(&pack, *offset, header.stored_len).unwrap();
            assert_eq!(header.name, chunk.name);
            assembler.record(&header, &payload).unwrap();
        }
    }
    assert!(assembler.into_output() == container);
}

/// What has no key and what has one: no change is ever taken for the image.
#[test]
fn no_bit_of_the_encrypted_files_can_change() {
    let read = |name| std::fs::read(golden(name)).unwrap();
    let (container, manifest) = (read("v3.container"), read("v3.manifest"));
    for bit in 0..container.len() * 8 {
        let mut changed = container.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(!is_good(&changed), "bit {bit} of the container");
    }
    for bit in 0..manifest.len() * 8 {
        let mut changed = manifest.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let read = ManifestReader::open(&changed[..]).and_then(|mut reader| {
            while reader.next_page()?.is_some() {}
            Ok(())
        });
        assert!(read.is_err(), "bit {bit} of the manifest");
    }
}

fn is_good(bytes: &[u8]) -> bool {
    let Ok(mut reader) = ContainerReader::open(bytes) else {
        return false;
    };
    if reader.unlock(image_key()).is_err() {
        return false;
    }
    let (mut payload, mut plain) = (Vec::new(), Vec::new());
    let mut decoder = Decoder::new().opened_with(Some(image_key()));
    loop {
        match reader.next_event(&mut payload) {
            Err(_) => return false,
            Ok(Event::End(_)) => return true,
            Ok(Event::Page(_)) => {}
            Ok(Event::Record { header, offset }) => {
                let decoded = decoder.decode(&header, &payload, offset, &mut plain);
                if decoded.is_err() {
                    return false;
                }
            }
        }
    }
}
