//! The hex examples of `docs/reference/image-format.md` decode as the text says.
//!
//! Owns: reading the blocks out of the document, and what each has to mean. Does not
//! own: the golden files, of which the examples are parts (`golden.rs`).
//!
//! A block opens with ```` ```hex NAME ````; `#` begins a comment.

use image::cells::Cursor;
use image::record::{Codec, Decoder, RecordHeader};
use image::section::{self, Counted, FileKind, Kind};
use image::{BadRange, CellMap, Hash, ImageKey, Root, Signature, Version, bad, index, pack, seal};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Where the crate stands in the repository.
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The blocks of the document by name.
fn blocks() -> BTreeMap<String, Vec<u8>> {
    let path = Path::new(ROOT).join("../../docs/reference/image-format.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut found = BTreeMap::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(info)) => {
                if let Some(name) = info.strip_prefix("hex ") {
                    open = Some((name.to_owned(), String::new()));
                }
            }
            (Some(_), Some(_)) => {
                if let Some((name, digits)) = open.take() {
                    let bytes = hex::decode(digits).unwrap_or_else(|e| panic!("{name}: {e}"));
                    assert!(found.insert(name.clone(), bytes).is_none(), "{name} twice");
                }
            }
            (Some((_, digits)), None) => {
                let data = line.split('#').next().unwrap_or_default();
                digits.extend(data.chars().filter(|c| !c.is_whitespace()));
            }
            (None, None) => {}
        }
    }
    found
}

fn block(name: &str) -> Vec<u8> {
    let mut all = blocks();
    let names: Vec<String> = all.keys().cloned().collect();
    all.remove(name)
        .unwrap_or_else(|| panic!("the document has no block {name}, only {names:?}"))
}

fn fixed<const N: usize>(name: &str) -> [u8; N] {
    let bytes = block(name);
    let length = bytes.len();
    bytes
        .try_into()
        .unwrap_or_else(|_| panic!("{name} has {length} bytes, {N} are expected"))
}

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(ROOT).join("tests/golden").join(name)).unwrap()
}

#[test]
fn every_example_is_a_part_of_a_golden_file() {
    let names = [
        "v1.container",
        "v1.manifest",
        "v1.pack",
        "v2.container",
        "v1-signed.container",
        "v3-signed.manifest",
        "v3.container",
    ];
    let files: Vec<Vec<u8>> = names.into_iter().map(golden).collect();
    let all = blocks();
    assert!(all.len() >= 10, "only {} examples", all.len());
    for (name, bytes) in all {
        assert!(
            files
                .iter()
                .any(|file| file.windows(bytes.len()).any(|part| part == bytes)),
            "{name} stands in no golden file"
        );
    }
}

#[test]
fn file_headers() {
    let container = block("container-header");
    let version = section::read_file_header(&mut &container[..], FileKind::Container).unwrap();
    assert_eq!(version, Version::V1);
    let second = block("container-header-2");
    let version = section::read_file_header(&mut &second[..], FileKind::Container).unwrap();
    assert_eq!(version, Version::V2);
    let manifest = block("manifest-header");
    section::read_file_header(&mut &manifest[..], FileKind::Manifest).unwrap();
    section::read_file_header(&mut &manifest[..], FileKind::Container).unwrap_err();
}

#[test]
fn section_header_and_map() {
    let (header, body) = (
        fixed::<{ section::HEADER_LEN }>("section-header"),
        block("map-body"),
    );
    let mut whole = Counted::new(&header[4..]);
    let first = [header[0], header[1], header[2], header[3]];
    let parsed = section::read_section_header(&mut whole, first).unwrap();
    assert_eq!(parsed.kind, Kind::Map);
    let mut read = Vec::new();
    parsed
        .read_body(&mut Counted::new(&body[..]), &mut read)
        .unwrap();
    assert_eq!(read, body);

    let mut cursor = Cursor::new(&body, 0);
    assert_eq!(cursor.u32().unwrap(), 4, "count of cells");
    let cells: Vec<CellMap> = (0..4)
        .map(|_| CellMap::decode(&mut cursor).unwrap())
        .collect();
    assert_eq!(cursor.left(), 0);
    assert_eq!(cells[0], one_map("used-whole", 0, &[(0, 3584)]));
    assert_eq!(
        cells[1],
        one_map("used-extents", 1, &[(0, 512), (65_024, 512)])
    );
    assert_eq!(
        cells[2],
        one_map("used-bitmap", 1, &[(0, 512), (1024, 512), (2048, 512)])
    );
}

/// Decodes a block that is one used map, checks it, and that it is written the same.
fn one_map(name: &str, region: u32, extents: &[(u32, u32)]) -> CellMap {
    let bytes = block(name);
    let mut cursor = Cursor::new(&bytes, 0);
    let map = CellMap::decode(&mut cursor).unwrap();
    assert_eq!(cursor.left(), 0, "{name} is longer than one map");
    assert_eq!(
        (map.region, map.used.extents()),
        (region, extents),
        "{name}"
    );
    let mut again = Vec::new();
    map.encode(&mut again);
    assert_eq!(again, bytes, "{name}");
    map
}

#[test]
fn record() {
    let bytes = block("record");
    let (head, payload) = bytes.split_at(image::record::HEADER_LEN);
    let header = RecordHeader::decode(head.try_into().unwrap(), 0).unwrap();
    assert_eq!((header.codec, header.plain_len), (Codec::Zstd, 1536));
    assert_eq!(header.encode(), head);
    let mut plain = Vec::new();
    Decoder::new()
        .decode(&header, payload, 0, &mut plain)
        .unwrap();
    assert!(plain.starts_with(b"Deploy-OS Deploy-OS "));
    assert_eq!(header.name, Hash::of(&plain));

    let zeros = fixed::<{ image::record::HEADER_LEN }>("record-zeros");
    let header = RecordHeader::decode(&zeros, 0).unwrap();
    assert_eq!((header.codec, header.plain_len), (Codec::Zeros, 3584));
    Decoder::new().decode(&header, &[], 0, &mut plain).unwrap();
}

#[test]
fn root_index_and_footer() {
    let root = Root::decode(&block("root-body"), 0).unwrap();
    assert_eq!((root.pages, root.chunks, root.plain_bytes), (1, 4, 6656));
    let container = golden("v1.container");
    let (index_at, length) =
        index::decode_footer(&fixed::<{ index::FOOTER_LEN }>("footer"), 0).unwrap();
    assert_eq!(length, container.len() as u64);
    let pages = index::decode(&block("index-body"), index_at).unwrap();
    let at = usize::try_from(pages[0].map).unwrap();
    assert!(container[at..].starts_with(&block("section-header")));
}

#[test]
fn bad_ranges() {
    let container = golden("v2.container");
    let found = image::structure::read(&mut std::io::Cursor::new(container)).unwrap();
    let ranges = bad::decode(&block("bad-body"), &found.layout, 0).unwrap();
    assert_eq!(ranges, found.bad);
    let second = BadRange {
        region: 1,
        start: 65_024,
        len: 512,
    };
    assert_eq!((ranges.len(), ranges[1]), (3, second));
    assert_eq!(Root::decode(&block("root-body-2"), 0).unwrap(), found.root);
}

#[test]
fn signature() {
    let signature = Signature::decode(&block("signature-body"), 0).unwrap();
    let key = block("public-key");
    assert_eq!(signature.key.0.to_vec(), key);
    let root = Root::decode(&block("root-body"), 0).unwrap().root;
    assert!(signature.is_of(root));
    let mut other = root;
    other.0[0] ^= 1;
    assert!(!signature.is_of(other));
    let manifest = block("manifest-header-3");
    let version = section::read_file_header(&mut &manifest[..], FileKind::Manifest).unwrap();
    assert_eq!(version, Version::V3);
}

#[test]
fn encryption() {
    let key = ImageKey::new(&[8; 32]);
    let bytes = block("record-sealed");
    let (head, payload) = bytes.split_at(image::record::HEADER_LEN);
    let header = RecordHeader::decode(head.try_into().unwrap(), 0).unwrap();
    assert_eq!((header.codec, header.stored_len), (Codec::Zeros, 40));
    assert_eq!(header.encode(), head);
    let zeros = vec![0; 3584];
    assert_eq!(header.name, seal::name(Some(&key), &zeros));
    assert_eq!(header.seal.map(|seal| seal.mark), Some(key.mark(&zeros)));
    let mut plain = Vec::new();
    Decoder::new()
        .opened_with(Some(Arc::new(ImageKey::new(&[8; 32]))))
        .decode(&header, payload, 0, &mut plain)
        .unwrap();
    assert_eq!(plain, zeros);

    let found = image::structure::read(&mut std::io::Cursor::new(golden("v3.container")));
    let proof = key.proof(found.unwrap().root.root);
    let body = block("proof-body");
    assert_eq!(
        (&body[4..20], &body[20..]),
        (&proof.key.0[..], &proof.code.0[..])
    );
}

#[test]
fn pack_header() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pack");
    let header = block("pack-header");
    assert_eq!(header.len() as u64, pack::HEADER_LEN);
    std::fs::write(&path, header).unwrap();
    let found = pack::scan(&path).unwrap();
    assert!(found.records.is_empty() && found.damage.is_none());
}
