//! Containers: one file that is a whole image, written and read as a stream.
//!
//! Owns: the order of sections and records, and the checks of a streamed reader. Does
//! not own: compressing and decompressing records, which many threads do at once.
//!
//! A container is: file header, layout section; for each page a map section, one record
//! for each of its cells in order, a list section; a bad section if there are bad
//! ranges; root section; signature sections; index section; footer.
//! A chunk that occurs again is there again, so a reader never has to look back.

use crate::bad::{Bad, BadRange, section_body};
use crate::cells::CellMap;
use crate::index::{self, FOOTER_LEN, PagePlace};
use crate::manifest::{PageChecker, check_root, decode_list, encode_list, encode_map, read_layout};
use crate::record::{self, RecordHeader};
use crate::section::{self, Counted, FileKind, HEADER_LEN, Kind, Version};
use crate::signature::{self, Signature, Signatures, SigningKey};
use crate::tree::{ChunkRef, Root, TreeHasher};
use crate::{Error, ImageKey, Layout, PAGE_CHUNKS};
use std::io::{self, Read, Write};
use std::sync::Arc;

/// Writes a container.
pub struct ContainerWriter<W> {
    out: W,
    at: u64,
    tree: TreeHasher,
    places: Vec<PagePlace>,
    page: Option<OpenPage>,
    version: Version,
    signers: Vec<Arc<SigningKey>>,
    key: Option<Arc<ImageKey>>,
}

struct OpenPage {
    start: u64,
    map: Vec<u8>,
    lengths: Vec<u32>,
    chunks: Vec<ChunkRef>,
}

impl<W: Write> ContainerWriter<W> {
    /// Writes header and layout of an image without bad ranges.
    pub fn new(out: W, layout: &Layout) -> io::Result<Self> {
        Self::with_version(out, layout, layout.version())
    }

    /// Writes header and layout of an image that may have bad ranges: which, is known at
    /// its end only.
    pub fn of_bad_disk(out: W, layout: &Layout) -> io::Result<Self> {
        Self::with_version(out, layout, layout.version().max(Version::V2))
    }

    fn with_version(mut out: W, layout: &Layout, version: Version) -> io::Result<Self> {
        let json = layout.to_json();
        section::write_file_header(&mut out, FileKind::Container, version)?;
        section::write_section(&mut out, Kind::Layout, &json)?;
        let at = (2 * HEADER_LEN + json.len()) as u64;
        Ok(ContainerWriter {
            out,
            at,
            tree: TreeHasher::new(&json),
            places: Vec::new(),
            page: None,
            version,
            signers: Vec::new(),
            key: None,
        })
    }

    /// The image is signed with this key, too.
    #[must_use]
    pub fn signed_by(mut self, key: Arc<SigningKey>) -> Self {
        self.signers.push(key);
        self
    }

    /// The image is encrypted with this key: the layout is a sealed one, and so are the
    /// records.
    #[must_use]
    pub fn sealed_with(mut self, key: Option<Arc<ImageKey>>) -> Self {
        self.key = key;
        self
    }

    /// Begins a page: the records of these cells follow, in this order.
    pub fn begin_page(&mut self, cells: &[CellMap]) -> io::Result<()> {
        if self.page.is_some() || cells.is_empty() || cells.len() > PAGE_CHUNKS {
            return Err(io::Error::other("a page of an impossible size"));
        }
        let map = encode_map(cells);
        let start = self.at;
        self.section(Kind::Map, &map)?;
        let lengths = cells.iter().map(|cell| cell.used.len()).collect();
        self.page = Some(OpenPage {
            start,
            map,
            lengths,
            chunks: Vec::with_capacity(cells.len()),
        });
        Ok(())
    }

    /// Writes the next record of the page, `bytes` being header and payload. The page ends
    /// by itself after its last record.
    pub fn record(&mut self, header: &RecordHeader, bytes: &[u8]) -> io::Result<()> {
        let Some(page) = self.page.as_mut() else {
            return Err(io::Error::other("a record outside a page"));
        };
        if page.lengths.get(page.chunks.len()) != Some(&header.plain_len)
            || header.record_len() != bytes.len() as u64
        {
            return Err(io::Error::other("a record that is not its cell's"));
        }
        self.out.write_all(bytes)?;
        self.at += bytes.len() as u64;
        page.chunks.push(ChunkRef {
            name: header.name,
            plain_len: header.plain_len,
        });
        if page.chunks.len() == page.lengths.len() {
            self.end_page()
        } else {
            Ok(())
        }
    }

    fn end_page(&mut self) -> io::Result<()> {
        if let Some(page) = self.page.take() {
            let list = encode_list(&page.chunks);
            self.tree.page(&page.map, &list, &page.chunks);
            self.places.push(PagePlace {
                map: page.start,
                list: self.at,
            });
            self.section(Kind::List, &list)?;
        }
        Ok(())
    }

    fn section(&mut self, kind: Kind, body: &[u8]) -> io::Result<()> {
        section::write_section(&mut self.out, kind, body)?;
        self.at += (HEADER_LEN + body.len()) as u64;
        Ok(())
    }

    /// Writes root, index and footer and returns the output, the root and the length.
    pub fn finish(self) -> io::Result<(W, Root, u64)> {
        self.finish_with(&[])
    }

    /// As [`Self::finish`], with the bad ranges as [`crate::bad::joined`] gives them.
    pub fn finish_with(mut self, bad: &[BadRange]) -> io::Result<(W, Root, u64)> {
        if self.page.is_some() {
            return Err(io::Error::other("a page is not complete"));
        }
        let bad = section_body(bad, self.version)?;
        if let Some(body) = &bad {
            self.section(Kind::Bad, body)?;
        }
        let root = std::mem::replace(&mut self.tree, TreeHasher::new(&[])).finish(bad.as_deref());
        self.section(Kind::Root, &root.encode())?;
        if let Some(key) = &self.key {
            self.at += signature::write_proof(&mut self.out, &key.proof(root.root))?;
        }
        for key in &self.signers {
            self.at += signature::write(&mut self.out, &key.sign(root.root))?;
        }
        let index = self.at;
        let body = index::encode(&self.places);
        self.section(Kind::Index, &body)?;
        let length = self.at + FOOTER_LEN as u64;
        self.out.write_all(&index::encode_footer(index, length))?;
        self.out.flush()?;
        Ok((self.out, root, length))
    }
}

/// What comes next in a container.
#[derive(Debug)]
pub enum Event {
    /// A page begins: records of these cells follow.
    Page(Vec<CellMap>),
    /// The record of the next cell; its payload is in the reader's caller's buffer. It is
    /// the caller's work to decode it, which checks it.
    Record {
        /// Its header.
        header: RecordHeader,
        /// Where it stands, for messages.
        offset: u64,
    },
    /// The end: root, index and footer were read and found right.
    End(Root),
}

/// Reads a container as a stream. Everything but the records' payloads is checked here;
/// a stream that ends early is damage.
pub struct ContainerReader<R> {
    input: Counted<R>,
    layout: Layout,
    checker: PageChecker,
    tree: Option<TreeHasher>,
    cells: Vec<CellMap>,
    chunks: Vec<ChunkRef>,
    page_at: u64,
    map: Vec<u8>,
    places: Vec<PagePlace>,
    version: Version,
    bad: Bad,
    signatures: Signatures,
    key: Option<Arc<ImageKey>>,
    body: Vec<u8>,
    manifest: Option<Box<dyn Write + Send>>,
}

impl<R: Read> ContainerReader<R> {
    /// Reads header and layout.
    pub fn open(input: R) -> Result<Self, Error> {
        Self::open_with(input, None)
    }

    /// As [`Self::open`]; the container's manifest is written to `manifest`, byte for byte
    /// as it stands there, and is whole after [`Event::End`]. Signatures are left out (an
    /// encrypted image's proof is not), since a manifest with some is of another version ([`crate::sign::add_to_manifest`]).
    pub fn open_copying(input: R, manifest: impl Write + Send + 'static) -> Result<Self, Error> {
        Self::open_with(input, Some(Box::new(manifest)))
    }

    fn open_with(input: R, mut manifest: Option<Box<dyn Write + Send>>) -> Result<Self, Error> {
        let mut input = Counted::new(input);
        let (layout, json, version) = read_layout(&mut input, FileKind::Container)?;
        if let Some(out) = &mut manifest {
            section::write_file_header(out, FileKind::Manifest, version)
                .and_then(|()| section::write_section(out, Kind::Layout, &json))
                .map_err(copying)?;
        }
        Ok(ContainerReader {
            input,
            checker: PageChecker::new(&layout),
            layout,
            tree: Some(TreeHasher::new(&json)),
            cells: Vec::new(),
            chunks: Vec::new(),
            page_at: 0,
            map: Vec::new(),
            places: Vec::new(),
            version,
            bad: Bad::default(),
            signatures: Signatures::default(),
            key: None,
            body: Vec::new(),
            manifest,
        })
    }

    /// Gives the section that was read last to whoever wants the manifest.
    fn copy(&mut self, kind: Kind) -> Result<(), Error> {
        match &mut self.manifest {
            Some(out) => section::write_section(out, kind, &self.body).map_err(copying),
            None => Ok(()),
        }
    }

    /// From now on the layout is the whole one, and [`Event::End`] comes only if the key's
    /// owner made the image. Records are for decoders that have the key.
    pub fn unlock(&mut self, key: Arc<ImageKey>) -> Result<(), Error> {
        self.layout = self.layout.opened(&key, 0)?;
        self.key = Some(key);
        Ok(())
    }

    /// What the disk did not give, known and checked after [`Event::End`].
    pub fn bad(&self) -> &[BadRange] {
        self.bad.ranges()
    }

    /// Who signed it, known and checked after [`Event::End`].
    pub fn signatures(&self) -> &[Signature] {
        self.signatures.list()
    }

    /// The layout.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Bytes read so far.
    pub fn position(&self) -> u64 {
        self.input.position()
    }

    /// The next event; the payload of a record is put into `payload`.
    pub fn next_event(&mut self, payload: &mut Vec<u8>) -> Result<Event, Error> {
        loop {
            let at = self.input.position();
            if let Some(cell) = self.cells.get(self.chunks.len()) {
                let mut bytes = [0; record::HEADER_LEN];
                self.input
                    .read_exact(&mut bytes)
                    .map_err(|e| Error::io("reading a record", e, at))?;
                let header = RecordHeader::decode(&bytes, at)?;
                if header.seal.is_some() != self.layout.encryption.is_some() {
                    let what = "a record is encrypted and the image is not, or the reverse";
                    return Err(Error::damaged(what, at));
                }
                if header.plain_len != cell.used.len() {
                    return Err(Error::damaged(
                        "a record's length is not that of its used map",
                        at,
                    ));
                }
                record::read_payload(&mut self.input, &header, at, payload)?;
                self.chunks.push(ChunkRef {
                    name: header.name,
                    plain_len: header.plain_len,
                });
                return Ok(Event::Record { header, offset: at });
            }
            let mut first = [0; 4];
            self.input
                .read_exact(&mut first)
                .map_err(|e| Error::io("reading a section", e, at))?;
            let header = section::read_section_header(&mut self.input, first)?;
            header.read_body(&mut self.input, &mut self.body)?;
            if header.kind != Kind::Index {
                self.copy(header.kind)?;
            }
            match (header.kind, self.cells.is_empty()) {
                (Kind::Map, true) if !self.bad.came() => {
                    self.cells = self.checker.map(&self.body, at)?;
                    self.map.clone_from(&self.body);
                    self.page_at = at;
                    return Ok(Event::Page(self.cells.clone()));
                }
                (Kind::List, false) => self.end_page(at)?,
                (Kind::Bad, true) => {
                    self.bad.take(&self.body, self.version, &self.layout, at)?;
                }
                (Kind::Root, true) => return self.end(at).map(Event::End),
                (other, _) => {
                    return Err(Error::damaged(
                        format!("a {other:?} section out of place"),
                        at,
                    ));
                }
            }
        }
    }

    fn end_page(&mut self, at: u64) -> Result<(), Error> {
        if decode_list(&self.body, &self.cells, at)? != self.chunks {
            return Err(Error::damaged(
                "a page's list does not name the records that came",
                at,
            ));
        }
        if let Some(tree) = self.tree.as_mut() {
            tree.page(&self.map, &self.body, &self.chunks);
        }
        self.places.push(PagePlace {
            map: self.page_at,
            list: at,
        });
        self.cells.clear();
        self.chunks.clear();
        Ok(())
    }

    fn end(&mut self, at: u64) -> Result<Root, Error> {
        let root = check_root(&self.body, at, self.tree.take(), &self.checker, &self.bad)?;
        let (signatures, index_at) =
            signature::read_until_index(&mut self.input, root.root, &mut self.body)?;
        let key = self.key.as_deref();
        signatures.complete(&self.layout, key, root.root, index_at)?;
        if let (Some(out), Some(proof)) = (&mut self.manifest, signatures.proof()) {
            signature::write_proof(out, proof).map_err(copying)?;
        }
        if index::decode(&self.body, index_at)? != self.places {
            return Err(Error::damaged(
                "the index does not match the pages",
                index_at,
            ));
        }
        let footer_at = self.input.position();
        let mut footer = [0; FOOTER_LEN];
        self.input
            .read_exact(&mut footer)
            .map_err(|e| Error::io("reading the footer", e, footer_at))?;
        let length = self.input.position();
        if index::decode_footer(&footer, footer_at)? != (index_at, length) {
            return Err(Error::damaged(
                "the footer does not match the container",
                footer_at,
            ));
        }
        match self.input.is_at_end() {
            Ok(true) => {
                self.signatures = signatures;
                if let Some(out) = &mut self.manifest {
                    out.flush().map_err(copying)?;
                }
                Ok(root)
            }
            Ok(false) => Err(Error::damaged(
                "bytes after the end of the container",
                length,
            )),
            Err(e) => Err(Error::io("reading the end", e, length)),
        }
    }
}

/// What cannot be written of a manifest.
fn copying(source: io::Error) -> Error {
    Error::Io {
        operation: "writing the manifest",
        source,
    }
}
