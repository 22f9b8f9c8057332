//! A container that is open: any byte of the disk that it holds, at once.
//!
//! Owns: opening at random, reading the disk's bytes, and what is proved when. Does not
//! own: opening files ([`ReadAt`] is given), or the stored forms.
//!
//! # What is read, and when
//!
//! [`OpenImage::open`] reads header, layout, footer, index, bad ranges, root and signatures. If the
//! image has at most [`EAGER_PAGES`] pages (256 GiB of whole cells of 1 MiB, some 14 MB to
//! read) it reads all of them too and proves the root. A larger image is open at once,
//! whatever its size: its pages are read when they are wanted, and
//! [`OpenImage::prove`] may be called at any time and from another thread.
//!
//! A record stands behind the records of its page before it, whose headers (64 bytes each,
//! up to 1023) are read on the way once; where they stand is kept with the page.
//!
//! # What is proved, and when
//!
//! * Always, before a byte of a chunk is given out: the checksums of header, layout, index
//!   and footer; those of the page, that it fits the layout, and the order of its cells;
//!   that the record has the name and the length that the page lists; its payload's
//!   checksum; that its bytes hash to its name.
//! * After [`OpenImage::prove`] (small images: after opening): that layout, pages, totals
//!   and bad ranges are those of the root hash, and that the pages hold every used byte.
//!   A page that is read again must be the one that was proved. Until then a page is as
//!   good as its checksums: damage is noticed, a forged page is not. Pages that were given
//!   out before are compared when the proof comes to them; if it fails, every later call
//!   fails.
//!
//! Whether the root itself is to be trusted, the caller decides by [`OpenImage::signatures`],
//! each of which was checked to be one of the root that the image states. Damage in records that are
//! never read is never seen; that is what a full verification is for.
//!
//! # What the bytes are
//!
//! Those that a restore to an equal disk would write: the table's blobs where the layout
//! has them, over the used bytes of the regions; zeros wherever the image holds nothing:
//! free space, regions that are absent ([`crate::layout::Region::is_absent`]), and bad
//! ranges ([`OpenImage::bad`]).
//!
//! # Memory
//!
//! The layout; under 100 bytes a page (up to 1024 cells); and two caches of fixed
//! size: pages in their stored form, 32 MiB, and decoded chunks, 64 MiB unless said
//! otherwise.

mod chunks;
mod listed;
mod lru;
mod pages;
mod source;
mod used;
mod view;

pub use listed::Cells;
pub use source::ReadAt;
pub use used::{Range, UsedRanges};
pub use view::RegionView;

use crate::bad::{Bad, BadRange};
use crate::index::{self, FOOTER_LEN};
use crate::manifest::{PageChecker, check_root, read_layout};
use crate::section::{FileKind, Kind};
use crate::signature::{Signature, Signatures};
use crate::tree::{Root, TreeHasher};
use crate::{Error, ImageKey, Layout, Version};
use chunks::Chunks;
use pages::{OpenPage, Pages, lock};
use source::{TablePiece, any_section_at, section_at, stream, table_pieces};
use std::io::{self, Read};
use std::sync::{Arc, Mutex};

/// Most pages of an image whose root is proved when it is opened.
pub const EAGER_PAGES: usize = 256;
/// Bytes of decoded chunks that are kept unless something else is asked for.
pub const CHUNK_CACHE: usize = 64 << 20;
/// Bytes of pages that are kept.
const PAGE_CACHE: usize = 32 << 20;

/// An open container. Threads may share it.
pub struct OpenImage<S> {
    source: S,
    layout: Layout,
    json: Vec<u8>,
    version: Version,
    root: Root,
    root_at: u64,
    bad: Bad,
    signatures: Signatures,
    length: u64,
    first_page: u64,
    pieces: Vec<TablePiece>,
    pages: Pages,
    chunks: Chunks,
    proof: Mutex<Proof>,
}

/// Whether the root was compared with what it covers.
#[derive(Clone)]
enum Proof {
    Missing,
    Right,
    Wrong { what: String, offset: u64 },
}

impl<S: ReadAt> OpenImage<S> {
    /// Opens a container; see the module for what is read and proved.
    pub fn open(source: S) -> Result<Self, Error> {
        Self::open_with_cache(source, CHUNK_CACHE)
    }

    /// As [`Self::open`], with room for `cache_bytes` of decoded chunks.
    pub fn open_with_cache(source: S, cache_bytes: usize) -> Result<Self, Error> {
        let image = Self::open_unproved(source, cache_bytes)?;
        if image.pages.len() <= EAGER_PAGES {
            image.prove()?;
        }
        Ok(image)
    }

    fn open_unproved(source: S, cache_bytes: usize) -> Result<Self, Error> {
        let length = source
            .size()
            .map_err(|e| Error::io("reading the container", e, 0))?;
        let mut input = stream(&source, 0);
        let (layout, json, version) = read_layout(&mut input, FileKind::Container)?;
        let first_page = input.position();

        let footer_at = length
            .checked_sub(FOOTER_LEN as u64)
            .filter(|&at| at >= first_page)
            .ok_or_else(|| Error::damaged("the container is too short", length))?;
        let mut footer = [0; FOOTER_LEN];
        stream(&source, footer_at)
            .read_exact(&mut footer)
            .map_err(|e| Error::io("reading the footer", e, footer_at))?;
        let (index_at, whole) = index::decode_footer(&footer, footer_at)?;
        if whole != length || index_at >= footer_at {
            let what = "the footer does not match the container";
            return Err(Error::damaged(what, footer_at));
        }
        let mut body = Vec::new();
        let index_end = section_at(&source, index_at, Kind::Index, &mut body)?;
        if index_end != footer_at {
            return Err(Error::damaged("bytes between index and footer", index_end));
        }
        let places = index::decode(&body, index_at)?;
        if places.first().is_some_and(|first| first.map != first_page) {
            let what = "the index does not match the pages";
            return Err(Error::damaged(what, index_at));
        }

        let mut root_at = match places.last() {
            Some(last) => section_at(&source, last.list, Kind::List, &mut body)?,
            None => first_page,
        };
        let mut bad = Bad::default();
        let (mut root_end, mut kind) = any_section_at(&source, root_at, &mut body)?;
        if kind == Kind::Bad {
            bad.take(&body, version, &layout, root_at)?;
            root_at = root_end;
            (root_end, kind) = any_section_at(&source, root_at, &mut body)?;
        }
        if kind != Kind::Root {
            let what = format!("a {kind:?} section where the root is expected");
            return Err(Error::damaged(what, root_at));
        }
        let root = Root::decode(&body, root_at)?;
        let mut signatures = Signatures::default();
        while root_end < index_at {
            let (next, kind) = any_section_at(&source, root_end, &mut body)?;
            if kind != Kind::Signature {
                let what = format!("a {kind:?} section out of place");
                return Err(Error::damaged(what, root_end));
            }
            signatures.take(&body, root.root, root_end)?;
            root_end = next;
        }
        if root_end != index_at {
            let what = "the index is not where the footer says";
            return Err(Error::damaged(what, root_end));
        }
        signatures.complete(&layout, None, root.root, root_end)?;
        if root.pages != places.len() as u64 || root.plain_bytes != layout.used_bytes() {
            let what = "the root's totals are not those of the image";
            return Err(Error::damaged(what, root_at));
        }
        Ok(OpenImage {
            source,
            pieces: table_pieces(&layout),
            layout,
            json,
            version,
            root,
            root_at,
            bad,
            signatures,
            length,
            first_page,
            pages: Pages::new(places, PAGE_CACHE),
            chunks: Chunks::new(cache_bytes),
            proof: Mutex::new(Proof::Missing),
        })
    }

    /// Opens an encrypted image: from now on the layout is the whole one, and chunks can be
    /// read. The key's owner made the root; [`Self::prove`] says what the root covers.
    ///
    /// # Errors
    /// [`Error::Key`] for another key, damage if the image was changed.
    pub fn unlock(&mut self, key: Arc<ImageKey>) -> Result<(), Error> {
        let layout = self.layout.opened(&key, 0)?;
        let root = self.root.root;
        self.signatures
            .complete(&layout, Some(&key), root, self.root_at)?;
        self.pieces = table_pieces(&layout);
        self.layout = layout;
        self.chunks.unlock(key);
        Ok(())
    }

    /// Proves layout, pages and bad ranges against the root, by reading all pages. Does
    /// nothing if that was done already. While it runs other threads can read.
    pub fn prove(&self) -> Result<(), Error> {
        self.still_good()?;
        if self.is_proved() {
            return Ok(());
        }
        let outcome = self.compare_with_root();
        let mut proof = lock(&self.proof);
        match &outcome {
            Ok(()) => *proof = Proof::Right,
            Err(Error::Damaged { what, offset }) => {
                *proof = Proof::Wrong {
                    what: what.clone(),
                    offset: *offset,
                }
            }
            // What could not be read now may be read later.
            Err(_) => {}
        }
        outcome
    }

    fn compare_with_root(&self) -> Result<(), Error> {
        let mut checker = PageChecker::new(&self.layout);
        let mut tree = TreeHasher::new(&self.json);
        let first = self.first_page;
        self.pages
            .prove(&self.source, &mut checker, first, |hash, chunks| {
                tree.page_hashed(hash, chunks);
            })?;
        let stored = self.root.encode();
        check_root(&stored, self.root_at, Some(tree), &checker, &self.bad).map(drop)
    }

    /// Whether everything but the records was proved against the root.
    pub fn is_proved(&self) -> bool {
        matches!(*lock(&self.proof), Proof::Right)
    }

    fn still_good(&self) -> Result<(), Error> {
        match &*lock(&self.proof) {
            Proof::Wrong { what, offset } => Err(Error::damaged(what.clone(), *offset)),
            Proof::Missing | Proof::Right => Ok(()),
        }
    }

    /// Where the container's bytes come from.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// The layout.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The root that the image states; see [`Self::is_proved`].
    pub fn root(&self) -> Root {
        self.root
    }

    /// What the disk did not give; the image has zeros there.
    pub fn bad(&self) -> &[BadRange] {
        self.bad.ranges()
    }

    /// Who signed the root, which says something of the image only once it is proved.
    pub fn signatures(&self) -> &[Signature] {
        self.signatures.list()
    }

    /// Version of the format that it is written in.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Bytes of the container.
    pub fn container_bytes(&self) -> u64 {
        self.length
    }

    /// Bytes of the disk.
    pub fn disk_size(&self) -> u64 {
        self.layout.disk.size_bytes
    }

    /// Fills `buf` with the disk's bytes from `offset` on. Bytes that the image does not
    /// hold are zero. A range that leaves the disk is an error of kind
    /// [`io::ErrorKind::InvalidInput`] within [`Error::Io`].
    pub fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<(), Error> {
        self.read_counted_at(buf, offset).map(drop)
    }

    /// As [`Self::read_exact_at`]; tells how many of the bytes the regions of the image
    /// hold. The others are zeros that nobody ever read from the disk, or the table's.
    pub fn read_counted_at(&self, buf: &mut [u8], offset: u64) -> Result<u64, Error> {
        let mut held = 0;
        let end = offset.checked_add(buf.len() as u64);
        let Some(end) = end.filter(|&end| end <= self.disk_size()) else {
            return Err(Error::Io {
                operation: "reading the disk of an image",
                source: io::Error::new(io::ErrorKind::InvalidInput, "beyond the disk's end"),
            });
        };
        self.still_good()?;
        buf.fill(0);
        let regions = &self.layout.regions;
        let mut number = regions.partition_point(|r| r.start.saturating_add(r.size) <= offset);
        while let Some(region) = regions.get(number).filter(|region| region.start < end) {
            if !region.is_absent() {
                let first = region.start.max(offset);
                let last = region.start.saturating_add(region.size).min(end);
                if first < last {
                    let part = &mut buf[(first - offset) as usize..(last - offset) as usize];
                    held += self.read_region(number, part, first - region.start)?;
                }
            }
            number += 1;
        }
        let first = self.pieces.partition_point(|piece| piece.end() <= offset);
        for piece in self.pieces.iter().skip(first) {
            if piece.start >= end {
                break;
            }
            let at = piece.start.max(offset);
            let to = &mut buf[(at - offset) as usize..];
            let bytes = piece.bytes(&self.layout, at);
            let count = bytes.len().min(to.len());
            to[..count].copy_from_slice(&bytes[..count]);
        }
        Ok(held)
    }

    /// Puts the used bytes of a region into `buf`, which is zero and begins at `offset`
    /// of the region. Returns how many there were.
    fn read_region(&self, region: usize, buf: &mut [u8], offset: u64) -> Result<u64, Error> {
        let mut held = 0;
        let cell_size = u64::from(self.layout.cell_size);
        let end = offset + buf.len() as u64;
        let (first, last) = (offset / cell_size, (end - 1) / cell_size);
        // At most 65,536 regions.
        let key = |cell| (region as u32, cell);
        let mut number = self.pages.page_of(&self.source, &self.layout, key(first))?;
        while let Some(page) = self.page(number)? {
            let mut index = page.position(key(first));
            while let Some((_, cell)) = page.key(index).filter(|&found| found <= key(last)) {
                held += self.read_cell(&page, index, cell * cell_size, buf, offset)?;
                index += 1;
            }
            if index < page.len() {
                break;
            }
            number += 1;
        }
        Ok(held)
    }

    /// Puts the used bytes of one cell, which begins at `base` of its region, into `buf`.
    /// Returns how many there were.
    fn read_cell(
        &self,
        page: &OpenPage,
        index: usize,
        base: u64,
        buf: &mut [u8],
        offset: u64,
    ) -> Result<u64, Error> {
        let mut held = 0;
        let end = offset + buf.len() as u64;
        let cell = page.cell(index)?;
        let mut plain = None;
        let mut in_chunk = 0usize;
        for &(start, len) in cell.used.extents() {
            let here = in_chunk;
            in_chunk += len as usize;
            let from = base + u64::from(start);
            let first = from.max(offset);
            let last = (from + u64::from(len)).min(end);
            if first >= last {
                continue;
            }
            let plain = match &plain {
                Some(plain) => plain,
                None => plain.insert(self.chunks.get(&self.source, page, index)?),
            };
            let at = here + (first - from) as usize;
            let bytes = plain.get(at..at + (last - first) as usize);
            let bytes = bytes
                .ok_or_else(|| Error::damaged("a chunk's length is not that of its used map", 0))?;
            buf[(first - offset) as usize..(last - offset) as usize].copy_from_slice(bytes);
            held += last - first;
        }
        Ok(held)
    }

    fn page(&self, number: usize) -> Result<Option<Arc<OpenPage>>, Error> {
        self.still_good()?;
        self.pages.get(&self.source, &self.layout, number)
    }

    /// The ranges of the disk that the image holds (tables included) from the byte `from`
    /// on. Everything else reads as zeros.
    pub fn used(&self, from: u64) -> UsedRanges<'_, S> {
        UsedRanges::new(self, from, u64::MAX)
    }

    /// As [`OpenImage::used`], of the bytes before `until`: no more is looked at than those.
    pub fn used_within(&self, from: u64, until: u64) -> UsedRanges<'_, S> {
        UsedRanges::new(self, from, until.max(from))
    }

    /// The cells of region number `region` that the image holds, with the names of their
    /// chunks.
    pub fn cells(&self, region: usize) -> Cells<'_, S> {
        Cells::new(self, region)
    }

    /// Region number `number` of the layout as bytes of its own, if there is one and it is
    /// not absent.
    pub fn region(&self, number: usize) -> Option<RegionView<'_, S>> {
        let region = self.layout.regions.get(number)?;
        (!region.is_absent()).then(|| RegionView::new(self, region))
    }
}
