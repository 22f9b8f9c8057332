//! Manifests: layout, pages and root, without the records.
//!
//! Owns: the stored form of pages, and the checks that make a page fit its layout.
//! Does not own: records, or how a manifest travels.
//!
//! A manifest is: file header, layout section, then for each page a map section and a
//! list section, then a bad section if there are bad ranges, then the root section, then
//! signature sections (from version 3 on), then the end.
//!
//! Map section: count (u32), then the cells' used maps ([`crate::cells`]). List section:
//! count (u32), then for each chunk its name (32 bytes) and plain length (u32). Both
//! counts are equal, 1 to [`PAGE_CHUNKS`]; cells ascend by region and number through
//! the whole manifest.

use crate::bad::{Bad, BadRange, section_body};
use crate::cells::{CellMap, Cursor};
use crate::section::{self, Counted, FileKind, Kind, Version};
use crate::signature::{self, Signature, Signatures};
use crate::tree::{ChunkRef, Root, TreeHasher};
use crate::{Error, Hash, ImageKey, Layout, PAGE_CHUNKS};
use std::io::{self, Read, Write};
use std::sync::Arc;

/// Body of a map section.
pub fn encode_map(cells: &[CellMap]) -> Vec<u8> {
    let mut body = (cells.len() as u32).to_le_bytes().to_vec();
    for cell in cells {
        cell.encode(&mut body);
    }
    body
}

/// Body of a list section.
pub fn encode_list(chunks: &[ChunkRef]) -> Vec<u8> {
    let mut body = Vec::with_capacity(4 + chunks.len() * 36);
    body.extend_from_slice(&(chunks.len() as u32).to_le_bytes());
    for chunk in chunks {
        body.extend_from_slice(&chunk.name.0);
        body.extend_from_slice(&chunk.plain_len.to_le_bytes());
    }
    body
}

/// Writes a manifest page by page.
pub struct ManifestWriter<W> {
    out: W,
    tree: TreeHasher,
    version: Version,
    key: Option<Arc<ImageKey>>,
}

impl<W: Write> ManifestWriter<W> {
    /// Writes header and layout of an image without bad ranges.
    pub fn new(out: W, layout: &Layout) -> io::Result<Self> {
        Self::with_version(out, layout, layout.version())
    }

    /// Writes header and layout of an image that may have bad ranges.
    pub fn of_bad_disk(out: W, layout: &Layout) -> io::Result<Self> {
        Self::with_version(out, layout, layout.version().max(Version::V2))
    }

    fn with_version(mut out: W, layout: &Layout, version: Version) -> io::Result<Self> {
        let json = layout.to_json();
        section::write_file_header(&mut out, FileKind::Manifest, version)?;
        section::write_section(&mut out, Kind::Layout, &json)?;
        Ok(ManifestWriter {
            out,
            tree: TreeHasher::new(&json),
            version,
            key: None,
        })
    }

    /// The image is encrypted with this key: the layout is a sealed one.
    #[must_use]
    pub fn sealed_with(mut self, key: Option<Arc<ImageKey>>) -> Self {
        self.key = key;
        self
    }

    /// Writes a page; `cells` and `chunks` belong together one by one.
    pub fn page(&mut self, cells: &[CellMap], chunks: &[ChunkRef]) -> io::Result<()> {
        if cells.len() != chunks.len() || cells.is_empty() || cells.len() > PAGE_CHUNKS {
            return Err(io::Error::other("a page of an impossible size"));
        }
        let (map, list) = (encode_map(cells), encode_list(chunks));
        self.tree.page(&map, &list, chunks);
        section::write_section(&mut self.out, Kind::Map, &map)?;
        section::write_section(&mut self.out, Kind::List, &list)
    }

    /// Writes the root.
    pub fn finish(self) -> io::Result<(W, Root)> {
        self.finish_with(&[])
    }

    /// Writes the bad ranges, as [`bad::joined`] gives them, and the root.
    pub fn finish_with(mut self, bad: &[BadRange]) -> io::Result<(W, Root)> {
        let bad = section_body(bad, self.version)?;
        if let Some(body) = &bad {
            section::write_section(&mut self.out, Kind::Bad, body)?;
        }
        let root = self.tree.finish(bad.as_deref());
        section::write_section(&mut self.out, Kind::Root, &root.encode())?;
        if let Some(key) = &self.key {
            signature::write_proof(&mut self.out, &key.proof(root.root))?;
        }
        Ok((self.out, root))
    }
}

/// Checks pages against their layout; shared by manifests and containers.
pub(crate) struct PageChecker {
    cell_size: u32,
    region_sizes: Vec<u64>,
    used_left: Vec<u64>,
    last: Option<(u32, u64)>,
}

impl PageChecker {
    pub(crate) fn new(layout: &Layout) -> Self {
        PageChecker {
            cell_size: layout.cell_size,
            region_sizes: layout.regions.iter().map(|region| region.size).collect(),
            used_left: layout
                .regions
                .iter()
                .map(|region| region.used_bytes)
                .collect(),
            last: None,
        }
    }

    /// Decodes a map section's body.
    pub(crate) fn map(&mut self, body: &[u8], offset: u64) -> Result<Vec<CellMap>, Error> {
        let mut cursor = Cursor::new(body, offset);
        let count = cursor.u32()? as usize;
        if count == 0 || count > PAGE_CHUNKS {
            return Err(cursor.damaged(format!("a page of {count} chunks")));
        }
        let mut cells = Vec::with_capacity(count);
        for _ in 0..count {
            let cell = CellMap::decode(&mut cursor)?;
            self.fits(&cell).map_err(|what| cursor.damaged(what))?;
            self.last = Some((cell.region, cell.cell));
            cells.push(cell);
        }
        if cursor.left() > 0 {
            return Err(cursor.damaged("a page's map is too long"));
        }
        Ok(cells)
    }

    fn fits(&mut self, cell: &CellMap) -> Result<(), String> {
        if self
            .last
            .is_some_and(|last| last >= (cell.region, cell.cell))
        {
            return Err("chunks are not in the order of the disk".into());
        }
        let region = cell.region as usize;
        let (Some(&size), Some(left)) = (
            self.region_sizes.get(region),
            self.used_left.get_mut(region),
        ) else {
            return Err(format!(
                "a chunk of region {region}, which the layout does not have"
            ));
        };
        let (_, end) = cell.used.span();
        let fits = end <= self.cell_size
            && cell
                .offset(self.cell_size)
                .and_then(|at| at.checked_add(u64::from(end)))
                .is_some_and(|e| e <= size);
        if !fits {
            return Err(format!("chunk {} leaves region {region}", cell.cell));
        }
        match left.checked_sub(u64::from(cell.used.len())) {
            Some(rest) => *left = rest,
            None => return Err(format!("region {region} has more chunks than used bytes")),
        }
        Ok(())
    }

    /// Whether every used byte of the layout came.
    pub(crate) fn complete(&self, offset: u64) -> Result<(), Error> {
        match self.used_left.iter().position(|&left| left > 0) {
            None => Ok(()),
            Some(region) => Err(Error::damaged(
                format!("chunks of region {region} are missing"),
                offset,
            )),
        }
    }
}

/// Decodes a list section's body, whose chunks belong to `cells`.
pub(crate) fn decode_list(
    body: &[u8],
    cells: &[CellMap],
    offset: u64,
) -> Result<Vec<ChunkRef>, Error> {
    let mut cursor = Cursor::new(body, offset);
    if cursor.u32()? as usize != cells.len() {
        return Err(cursor.damaged("a page's map and list have different lengths"));
    }
    let mut chunks = Vec::with_capacity(cells.len());
    for cell in cells {
        let chunk = ChunkRef {
            name: cursor.hash()?,
            plain_len: cursor.u32()?,
        };
        if chunk.plain_len != cell.used.len() {
            return Err(cursor.damaged("a chunk's length is not that of its used map"));
        }
        chunks.push(chunk);
    }
    if cursor.left() > 0 {
        return Err(cursor.damaged("a page's list is too long"));
    }
    Ok(chunks)
}

/// A page: cells and their chunks, one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The cells' used maps.
    pub cells: Vec<CellMap>,
    /// Their chunks.
    pub chunks: Vec<ChunkRef>,
}

impl Page {
    /// The page in its stored form: a few dozen bytes a chunk, to keep many in memory.
    pub fn pack(&self) -> PackedPage {
        PackedPage {
            map: encode_map(&self.cells),
            list: encode_list(&self.chunks),
        }
    }
}

/// A page in its stored form.
#[derive(Clone, Debug, Default)]
pub struct PackedPage {
    map: Vec<u8>,
    list: Vec<u8>,
}

impl PackedPage {
    /// The page again. Cannot fail for what [`Page::pack`] made.
    pub fn unpack(&self) -> Result<Page, Error> {
        let mut cursor = Cursor::new(&self.map, 0);
        let count = cursor.u32()? as usize;
        let mut cells = Vec::with_capacity(count.min(PAGE_CHUNKS));
        for _ in 0..count.min(PAGE_CHUNKS) {
            cells.push(CellMap::decode(&mut cursor)?);
        }
        let chunks = decode_list(&self.list, &cells, 0)?;
        Ok(Page { cells, chunks })
    }
}

/// Reads a manifest page by page and checks everything that the format promises.
pub struct ManifestReader<R> {
    input: Counted<R>,
    layout: Layout,
    checker: PageChecker,
    tree: Option<TreeHasher>,
    version: Version,
    bad: Bad,
    signatures: Signatures,
    key: Option<Arc<ImageKey>>,
    root: Option<Root>,
    body: Vec<u8>,
}

impl<R: Read> ManifestReader<R> {
    /// Reads header and layout.
    pub fn open(input: R) -> Result<Self, Error> {
        let mut input = Counted::new(input);
        let (layout, json, version) = read_layout(&mut input, FileKind::Manifest)?;
        let checker = PageChecker::new(&layout);
        let tree = Some(TreeHasher::new(&json));
        Ok(ManifestReader {
            input,
            layout,
            checker,
            tree,
            version,
            bad: Bad::default(),
            signatures: Signatures::default(),
            key: None,
            root: None,
            body: Vec::new(),
        })
    }

    /// The layout.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// From now on the layout is the whole one, and the root is known only if the key's
    /// owner made the image.
    pub fn unlock(&mut self, key: Arc<ImageKey>) -> Result<(), Error> {
        self.layout = self.layout.opened(&key, 0)?;
        self.key = Some(key);
        Ok(())
    }

    /// Version of the format that it is written in.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The root, known and checked after [`Self::next_page`] has returned `None`.
    pub fn root(&self) -> Option<Root> {
        self.root
    }

    /// What the disk did not give, known and checked as the root is.
    pub fn bad(&self) -> &[BadRange] {
        self.bad.ranges()
    }

    /// Who signed it, known and checked as the root is.
    pub fn signatures(&self) -> &[Signature] {
        self.signatures.list()
    }

    /// The next page, or `None` after the root was read and found right.
    pub fn next_page(&mut self) -> Result<Option<Page>, Error> {
        let (mut at, mut kind) = self.next_section()?;
        if kind == Some(Kind::Bad) {
            self.bad.take(&self.body, self.version, &self.layout, at)?;
            (at, kind) = self.next_section()?;
        }
        let (Some(tree), Some(kind)) = (self.tree.as_mut(), kind) else {
            return Ok(None);
        };
        match kind {
            Kind::Map if !self.bad.came() => {
                let cells = self.checker.map(&self.body, at)?;
                let map = std::mem::take(&mut self.body);
                let at = section::expect_section(&mut self.input, Kind::List, &mut self.body)?;
                let chunks = decode_list(&self.body, &cells, at)?;
                tree.page(&map, &self.body, &chunks);
                Ok(Some(Page { cells, chunks }))
            }
            Kind::Root => {
                let root = check_root(&self.body, at, self.tree.take(), &self.checker, &self.bad)?;
                self.read_signatures(root.root)?;
                self.root = Some(root);
                Ok(None)
            }
            other => Err(Error::damaged(
                format!("a {other:?} section out of place"),
                at,
            )),
        }
    }

    /// Reads what stands behind the root, to the end.
    fn read_signatures(&mut self, root: Hash) -> Result<(), Error> {
        loop {
            let at = self.input.position();
            let Some(header) = section::next_section_header(&mut self.input)? else {
                let key = self.key.as_deref();
                return self.signatures.complete(&self.layout, key, root, at);
            };
            if self.version < Version::V3 || header.kind != Kind::Signature {
                return Err(Error::damaged("bytes after the end of the manifest", at));
            }
            header.read_body(&mut self.input, &mut self.body)?;
            self.signatures.take(&self.body, root, at)?;
        }
    }

    /// Reads a section into `body`; tells where it stands and what it is, or none after
    /// the root.
    fn next_section(&mut self) -> Result<(u64, Option<Kind>), Error> {
        let at = self.input.position();
        if self.tree.is_none() {
            return Ok((at, None));
        }
        let mut first = [0; 4];
        self.input
            .read_exact(&mut first)
            .map_err(|e| Error::io("reading a page", e, at))?;
        let header = section::read_section_header(&mut self.input, first)?;
        header.read_body(&mut self.input, &mut self.body)?;
        Ok((at, Some(header.kind)))
    }
}

pub(crate) fn read_layout<R: Read>(
    input: &mut Counted<R>,
    kind: FileKind,
) -> Result<(Layout, Vec<u8>, Version), Error> {
    let version = section::read_file_header(input, kind)?;
    let mut json = Vec::new();
    let at = section::expect_section(input, Kind::Layout, &mut json)?;
    let layout = Layout::parse(&json, at)?;
    if version < layout.version() {
        return Err(Error::damaged(
            "the layout says what its version cannot say",
            at,
        ));
    }
    Ok((layout, json, version))
}

pub(crate) fn check_root(
    body: &[u8],
    offset: u64,
    tree: Option<TreeHasher>,
    checker: &PageChecker,
    bad: &Bad,
) -> Result<Root, Error> {
    let stored = Root::decode(body, offset)?;
    checker.complete(offset)?;
    if tree.map(|tree| tree.finish(bad.body())) != Some(stored) {
        return Err(Error::damaged("the root hash does not match", offset));
    }
    Ok(stored)
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
