//! Reading containers and manifests to their end.
//!
//! Owns: all that they say as one value, and a reader that gives bytes as it likes. Does
//! not own: making them.

use image::container::{ContainerReader, Event};
use image::manifest::ManifestReader;
use image::record::{Decoder, RecordHeader};
use image::{CellMap, ChunkRef, Error, Layout, Root};
use std::io::{self, Read};

/// All that a container says, every record decoded.
#[derive(Debug, PartialEq)]
pub struct Told {
    pub layout: Layout,
    pub cells: Vec<CellMap>,
    pub records: Vec<(RecordHeader, u64)>,
    pub plain: Vec<Vec<u8>>,
    pub root: Root,
}

/// Reads a container to its end.
pub fn read(input: impl Read) -> Result<Told, Error> {
    let mut reader = ContainerReader::open(input)?;
    let mut decoder = Decoder::new();
    let (mut payload, mut plain) = (Vec::new(), Vec::new());
    let (mut cells, mut records, mut all) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        match reader.next_event(&mut payload)? {
            Event::Page(page) => cells.extend(page),
            Event::Record { header, offset } => {
                decoder.decode(&header, &payload, offset, &mut plain)?;
                records.push((header, offset));
                all.push(plain.clone());
            }
            Event::End(root) => {
                return Ok(Told {
                    layout: reader.layout().clone(),
                    cells,
                    records,
                    plain: all,
                    root,
                });
            }
        }
    }
}

/// A reader that gives what it likes: few bytes, many, or an interruption.
pub struct Fickle<'a> {
    pub bytes: &'a [u8],
    pub lengths: std::iter::Cycle<std::slice::Iter<'a, u16>>,
}

impl Read for Fickle<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let length = match self.lengths.next() {
            None => buf.len(),
            Some(0) => return Err(io::ErrorKind::Interrupted.into()),
            Some(&length) => usize::from(length).min(buf.len()),
        };
        self.bytes.read(&mut buf[..length])
    }
}

/// Reads a manifest to its end.
pub fn read_manifest(input: impl Read) -> Result<(Vec<ChunkRef>, Root), Error> {
    let mut reader = ManifestReader::open(input)?;
    let mut chunks = Vec::new();
    while let Some(page) = reader.next_page()? {
        chunks.extend(page.chunks);
    }
    let root = reader.root();
    root.map(|root| (chunks, root))
        .ok_or_else(|| Error::damaged("no root", 0))
}
