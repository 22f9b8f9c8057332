//! A container as a room sends it: its manifest, and its records by number.
//!
//! Owns: where they stand in the file. Does not own: what they hold; receivers prove that.

use image::record::{HEADER_LEN, RecordHeader};
use image::section::{self, Counted, FileKind};
use image::{Error, Root, Version, structure};
use multicast::{Plan, Run};
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Bytes of the manifest in a frame.
const PIECE: u64 = 1 << 20;

/// A container that is to be sent.
pub struct Listing {
    file: File,
    /// Root of the image.
    pub root: Root,
    /// Header of the manifest, and the parts of the file that follow it there.
    header: Vec<u8>,
    parts: Vec<(u64, u64)>,
    /// Place and length of each record: chunks by their first place, each once.
    records: Vec<(u64, u32)>,
}

impl Listing {
    /// Reads everything of a container but the records' payloads.
    ///
    /// # Errors
    /// It is damaged, or cannot be read.
    pub fn read(mut file: File) -> Result<Self, Error> {
        let found = structure::read(&mut file)?;
        // With signatures a manifest is of the third version, whatever the container is.
        let version = match found.signatures.is_empty() {
            true => found.version,
            false => found.version.max(Version::V3),
        };
        let mut header = Vec::new();
        let io = |e| Error::io("reading the container", e, 0);
        section::write_file_header(&mut header, FileKind::Manifest, version).map_err(io)?;
        let mut parts = Vec::new();
        let mut records = Vec::new();
        let mut seen = HashSet::new();
        let mut at = header.len() as u64;
        for place in &found.places {
            let first = section_end(&file, place.map)?;
            parts.push((at, first - at));
            let mut record = first;
            while record < place.list {
                let mut bytes = [0; HEADER_LEN];
                file.read_exact_at(&mut bytes, record).map_err(io)?;
                let header = RecordHeader::decode(&bytes, record)?;
                if seen.insert(header.name) {
                    records.push((record, header.record_len() as u32));
                }
                record += header.record_len();
            }
            at = place.list;
        }
        parts.push((at, found.index_at - at));
        Ok(Listing {
            file,
            root: found.root,
            header,
            parts,
            records,
        })
    }

    /// Bytes of the manifest.
    #[must_use]
    pub fn manifest_len(&self) -> u64 {
        let parts: u64 = self.parts.iter().map(|(_, len)| len).sum();
        self.header.len() as u64 + parts
    }

    /// Gives the manifest to `send`, piece by piece.
    ///
    /// # Errors
    /// Of the file, or of `send`.
    pub fn manifest(&self, mut send: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        send(&self.header)?;
        let mut piece = Vec::new();
        for &(start, len) in &self.parts {
            let mut at = 0;
            while at < len {
                piece.resize((len - at).min(PIECE) as usize, 0);
                self.file.read_exact_at(&mut piece, start + at)?;
                send(&piece)?;
                at += piece.len() as u64;
            }
        }
        Ok(())
    }

    /// Lengths of the records, header and payload.
    pub fn lengths(&self) -> impl ExactSizeIterator<Item = u32> + '_ {
        self.records.iter().map(|&(_, len)| len)
    }

    /// A record's bytes; `None` if there is no such record.
    ///
    /// # Errors
    /// Of the file.
    pub fn record(&self, record: u32) -> io::Result<Option<Vec<u8>>> {
        let Some(&(at, len)) = self.records.get(record as usize) else {
            return Ok(None);
        };
        let mut bytes = vec![0; len as usize];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(Some(bytes))
    }
}

fn section_end(file: &File, at: u64) -> Result<u64, Error> {
    let io = |e| Error::io("reading a section", e, at);
    let mut input = BufReader::new(file.try_clone().map_err(io)?);
    input.seek(SeekFrom::Start(at)).map_err(io)?;
    let mut input = Counted::starting_at(input, at);
    let mut first = [0; 4];
    input.read_exact(&mut first).map_err(io)?;
    let header = section::read_section_header(&mut input, first)?;
    header.read_body(&mut input, &mut Vec::new())?;
    Ok(input.position())
}

/// The run of all records of a listing.
pub struct Records {
    listing: Arc<Listing>,
    plan: Plan,
}

impl Records {
    /// Of that listing, whose plan it is.
    #[must_use]
    pub fn new(listing: Arc<Listing>, plan: Plan) -> Self {
        Records { listing, plan }
    }
}

impl Run for Records {
    fn read_at(&mut self, at: u64, out: &mut [u8]) -> io::Result<()> {
        let mut record = self.plan.record_at(at);
        let mut filled = 0;
        while filled < out.len() {
            let range = self.plan.record_range(record);
            let place = self.listing.records.get(record as usize);
            let &(start, _) = place.ok_or(io::ErrorKind::UnexpectedEof)?;
            let from = at + filled as u64;
            let len = ((range.end - from) as usize).min(out.len() - filled);
            let piece = out.get_mut(filled..filled + len).unwrap_or_default();
            self.listing
                .file
                .read_exact_at(piece, start + (from - range.start))?;
            filled += len;
            record += 1;
        }
        Ok(())
    }
}

/// Reads a manifest that comes in pieces.
pub struct Pieces<F> {
    next: F,
    left: u64,
    piece: Vec<u8>,
    at: usize,
}

impl<F: FnMut() -> io::Result<Vec<u8>>> Pieces<F> {
    /// Of so many bytes, from pieces that `next` gives.
    pub fn new(len: u64, next: F) -> Self {
        Pieces {
            next,
            left: len,
            piece: Vec::new(),
            at: 0,
        }
    }
}

impl<F: FnMut() -> io::Result<Vec<u8>>> Read for Pieces<F> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.len() && self.left > 0 {
            self.piece = (self.next)()?;
            self.at = 0;
            let len = self.piece.len() as u64;
            if len == 0 || len > self.left {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a piece too long",
                ));
            }
            self.left -= len;
        }
        let rest = self.piece.get(self.at..).unwrap_or_default();
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }
}
