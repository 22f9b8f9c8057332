//! The hash tree of an image: what the root covers.
//!
//! Owns: hashes of layout, pages and root. Does not own: how pages are stored.
//!
//! All are BLAKE3 in its key-derivation mode, so that a hash of one kind is never one of
//! another kind or the name of a chunk:
//!
//! * layout: context `deploy-os image layout v1` over the JSON bytes as stored;
//! * page: context `deploy-os image page v1` over the length of the map body (u64), the
//!   map body, the list body;
//! * root: context `deploy-os image root v1` over the layout's hash, the pages' hashes in
//!   order, then the counts of pages, chunks and plain bytes (u64 each);
//! * bad ranges, if there are any: context `deploy-os image bad v1` over the root as it
//!   would be without them, then the body of the bad section. That is the root then.

use crate::{Error, Hash, cells::Cursor};

const LAYOUT: &str = "deploy-os image layout v1";
const PAGE: &str = "deploy-os image page v1";
const ROOT: &str = "deploy-os image root v1";
const BAD: &str = "deploy-os image bad v1";

/// A chunk as a manifest lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkRef {
    /// Name.
    pub name: Hash,
    /// Bytes of the chunk.
    pub plain_len: u32,
}

/// Root hash of an image, with its totals: body of the root section.
///
/// | size | field |
/// |---|---|
/// | 32 | hash of the layout |
/// | 8 | pages |
/// | 8 | chunks |
/// | 8 | plain bytes |
/// | 32 | root hash |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    /// Hash of the layout.
    pub layout: Hash,
    /// Number of pages.
    pub pages: u64,
    /// Number of chunks.
    pub chunks: u64,
    /// Sum of the chunks' plain lengths, in bytes.
    pub plain_bytes: u64,
    /// The root hash: names the image.
    pub root: Hash,
}

impl Root {
    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(88);
        out.extend_from_slice(&self.layout.0);
        for number in [self.pages, self.chunks, self.plain_bytes] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.root.0);
        out
    }

    /// Decodes the stored form.
    pub fn decode(body: &[u8], offset: u64) -> Result<Self, Error> {
        let mut cursor = Cursor::new(body, offset);
        let root = Root {
            layout: cursor.hash()?,
            pages: cursor.u64()?,
            chunks: cursor.u64()?,
            plain_bytes: cursor.u64()?,
            root: cursor.hash()?,
        };
        if cursor.left() > 0 {
            Err(cursor.damaged("the root is too long"))
        } else {
            Ok(root)
        }
    }
}

/// Hash of a page, by the bodies of its two sections.
pub(crate) fn page_hash(map: &[u8], list: &[u8]) -> Hash {
    let mut page = blake3::Hasher::new_derive_key(PAGE);
    page.update(&(map.len() as u64).to_le_bytes())
        .update(map)
        .update(list);
    Hash(*page.finalize().as_bytes())
}

/// Computes the root while an image is written or read.
pub struct TreeHasher {
    layout: Hash,
    root: blake3::Hasher,
    pages: u64,
    chunks: u64,
    plain_bytes: u64,
}

impl TreeHasher {
    /// Starts with the layout's bytes.
    pub fn new(layout: &[u8]) -> Self {
        let layout = Hash(
            *blake3::Hasher::new_derive_key(LAYOUT)
                .update(layout)
                .finalize()
                .as_bytes(),
        );
        let mut root = blake3::Hasher::new_derive_key(ROOT);
        root.update(&layout.0);
        TreeHasher {
            layout,
            root,
            pages: 0,
            chunks: 0,
            plain_bytes: 0,
        }
    }

    /// Adds a page by the bodies of its two sections.
    pub fn page(&mut self, map: &[u8], list: &[u8], chunks: &[ChunkRef]) {
        self.page_hashed(&page_hash(map, list), chunks);
    }

    /// Adds a page by its hash.
    pub(crate) fn page_hashed(&mut self, hash: &Hash, chunks: &[ChunkRef]) {
        self.root.update(&hash.0);
        self.pages += 1;
        self.chunks += chunks.len() as u64;
        let plain: u64 = chunks.iter().map(|chunk| u64::from(chunk.plain_len)).sum();
        self.plain_bytes = self.plain_bytes.saturating_add(plain);
    }

    /// The root; `bad` is the body of the bad section, if the image has one.
    pub fn finish(mut self, bad: Option<&[u8]>) -> Root {
        for number in [self.pages, self.chunks, self.plain_bytes] {
            self.root.update(&number.to_le_bytes());
        }
        let mut root = self.root.finalize();
        if let Some(bad) = bad {
            root = blake3::Hasher::new_derive_key(BAD)
                .update(root.as_bytes())
                .update(bad)
                .finalize();
        }
        Root {
            layout: self.layout,
            pages: self.pages,
            chunks: self.chunks,
            plain_bytes: self.plain_bytes,
            root: Hash(*root.as_bytes()),
        }
    }
}
