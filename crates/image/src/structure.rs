//! Opening a container at random: everything but the records, checked.
//!
//! Owns: reading layout, pages, root, index and footer of a seekable container without
//! reading its records. Does not own: the records' proof (a full read).

use crate::bad::{Bad, BadRange};
use crate::index::{self, FOOTER_LEN, PagePlace};
use crate::manifest::{PackedPage, Page, PageChecker, check_root, decode_list, read_layout};
use crate::section::{self, Counted, FileKind, HEADER_LEN, Kind};
use crate::signature::{self, Signature, Signatures};
use crate::tree::{Root, TreeHasher};
use crate::{Error, ImageKey, Layout, Version};
use std::io::{Read, Seek, SeekFrom};

/// A container whose structure was found right.
pub struct Structure {
    /// The layout.
    pub layout: Layout,
    /// The root, proved against layout and pages.
    pub root: Root,
    /// Bytes of the container.
    pub length: u64,
    /// The pages in order.
    pub pages: Vec<PackedPage>,
    /// Where each page stands.
    pub places: Vec<PagePlace>,
    /// Version of the format that it is written in.
    pub version: Version,
    /// What the disk did not give.
    pub bad: Vec<BadRange>,
    /// Who signed it.
    pub signatures: Vec<Signature>,
    /// Where the index section stands.
    pub index_at: u64,
    found: Signatures,
}

impl Structure {
    /// The whole layout of an encrypted image, if the key's owner made it.
    ///
    /// # Errors
    /// [`Error::Key`] if it is another key's, damage if it was changed.
    pub fn unlock(&mut self, key: &ImageKey) -> Result<(), Error> {
        let layout = self.layout.opened(key, 0)?;
        let root = self.root.root;
        self.found
            .complete(&layout, Some(key), root, self.index_at)?;
        self.layout = layout;
        Ok(())
    }
}

/// Reads and checks the structure. A truncated container, or one whose manifest was
/// changed anywhere, is refused; damage inside of records is not seen.
pub fn read<R: Read + Seek>(input: &mut R) -> Result<Structure, Error> {
    let io = |e| Error::io("reading the container", e, 0);
    let length = input.seek(SeekFrom::End(0)).map_err(io)?;
    input.seek(SeekFrom::Start(0)).map_err(io)?;
    let mut counted = Counted::new(&mut *input);
    let (layout, json, version) = read_layout(&mut counted, FileKind::Container)?;
    let first_page = counted.position();

    let footer_at = length
        .checked_sub(FOOTER_LEN as u64)
        .filter(|&at| at >= first_page)
        .ok_or_else(|| Error::damaged("the container is too short", length))?;
    let mut footer = [0; FOOTER_LEN];
    input.seek(SeekFrom::Start(footer_at)).map_err(io)?;
    input
        .read_exact(&mut footer)
        .map_err(|e| Error::io("reading the footer", e, footer_at))?;
    let (index_at, whole) = index::decode_footer(&footer, footer_at)?;
    if whole != length || index_at >= footer_at {
        return Err(Error::damaged(
            "the footer does not match the container",
            footer_at,
        ));
    }
    let mut body = Vec::new();
    let index_end = section_at(input, index_at, Kind::Index, &mut body)?;
    if index_end != footer_at {
        return Err(Error::damaged("bytes between index and footer", index_end));
    }
    let places = index::decode(&body, index_at)?;

    let mut checker = PageChecker::new(&layout);
    let mut tree = TreeHasher::new(&json);
    let mut pages = Vec::with_capacity(places.len());
    let mut at = first_page;
    for place in &places {
        if place.map != at {
            return Err(Error::damaged(
                "the index does not match the pages",
                index_at,
            ));
        }
        section_at(input, place.map, Kind::Map, &mut body)?;
        let cells = checker.map(&body, place.map)?;
        let map = std::mem::take(&mut body);
        at = section_at(input, place.list, Kind::List, &mut body)?;
        let chunks = decode_list(&body, &cells, place.list)?;
        tree.page(&map, &body, &chunks);
        pages.push(Page { cells, chunks }.pack());
    }
    let mut bad = Bad::default();
    let (mut root_end, mut kind) = any_section_at(input, at, &mut body)?;
    if kind == Kind::Bad {
        bad.take(&body, version, &layout, at)?;
        at = root_end;
        (root_end, kind) = any_section_at(input, at, &mut body)?;
    }
    if kind != Kind::Root {
        return Err(Error::damaged(
            format!("a {kind:?} section where the root is expected"),
            at,
        ));
    }
    let root = check_root(&body, at, Some(tree), &checker, &bad)?;
    seek(input, root_end)?;
    let mut counted = Counted::starting_at(&mut *input, root_end);
    let (signatures, end) = signature::read_until_index(&mut counted, root.root, &mut body)?;
    signatures.complete(&layout, None, root.root, end)?;
    if end != index_at {
        return Err(Error::damaged(
            "the index is not where the footer says",
            end,
        ));
    }
    input.seek(SeekFrom::Start(0)).map_err(io)?;
    Ok(Structure {
        layout,
        root,
        length,
        pages,
        places,
        version,
        bad: bad.ranges().to_vec(),
        signatures: signatures.list().to_vec(),
        index_at,
        found: signatures,
    })
}

/// Reads the section at `at`, which has to be of `kind`, and returns the offset after it.
fn section_at<R: Read + Seek>(
    input: &mut R,
    at: u64,
    kind: Kind,
    body: &mut Vec<u8>,
) -> Result<u64, Error> {
    seek(input, at)?;
    let mut counted = Counted::starting_at(&mut *input, at);
    section::expect_section(&mut counted, kind, body)?;
    Ok(at.saturating_add((HEADER_LEN + body.len()) as u64))
}

/// As [`section_at`], for a section of any kind.
fn any_section_at<R: Read + Seek>(
    input: &mut R,
    at: u64,
    body: &mut Vec<u8>,
) -> Result<(u64, Kind), Error> {
    seek(input, at)?;
    let mut counted = Counted::starting_at(&mut *input, at);
    let mut first = [0; 4];
    counted
        .read_exact(&mut first)
        .map_err(|e| Error::io("reading a section", e, at))?;
    let header = section::read_section_header(&mut counted, first)?;
    header.read_body(&mut counted, body)?;
    Ok((counted.position(), header.kind))
}

fn seek<R: Seek>(input: &mut R, at: u64) -> Result<(), Error> {
    input
        .seek(SeekFrom::Start(at))
        .map_err(|e| Error::io("reading a section", e, at))
        .map(drop)
}
