//! A container from a manifest and the records that it names.
//!
//! Owns: the order of a container's parts, with the manifest's own bytes around the
//! records, so that the root stays what it is. Does not own: where records come from, or
//! the proof that they are what they say (whoever reads the container makes it).
//!
//! The way back is [`crate::container::ContainerReader::open_copying`].

use crate::bad::Bad;
use crate::index::{self, FOOTER_LEN, PagePlace};
use crate::manifest::{PageChecker, check_root, decode_list, read_layout};
use crate::record::{HEADER_LEN as RECORD_HEADER_LEN, RecordHeader};
use crate::section::{self, Counted, FileKind, HEADER_LEN, Kind, Version};
use crate::signature::Signatures;
use crate::tree::{ChunkRef, Root, TreeHasher};
use crate::{Error, Layout};
use std::io::{self, Read, Write};

/// Reads a manifest and writes the container around the records that it is given.
pub struct Assembler<R, W> {
    input: Counted<R>,
    out: W,
    written: u64,
    layout: Layout,
    version: Version,
    checker: PageChecker,
    tree: Option<TreeHasher>,
    bad: Bad,
    signatures: Signatures,
    root: Option<Root>,
    places: Vec<PagePlace>,
    /// List section of the page whose records come, and its chunks.
    page: Option<(Vec<u8>, Vec<ChunkRef>)>,
    /// Records of the page that came.
    came: usize,
    body: Vec<u8>,
}

fn writing(source: io::Error) -> Error {
    Error::Io {
        operation: "writing a container",
        source,
    }
}

impl<R: Read, W: Write> Assembler<R, W> {
    /// Reads the manifest's beginning and writes the container's.
    ///
    /// # Errors
    /// The manifest is damaged, or one of both cannot be read or written.
    pub fn open(manifest: R, mut out: W) -> Result<Self, Error> {
        let mut input = Counted::new(manifest);
        let (layout, json, version) = read_layout(&mut input, FileKind::Manifest)?;
        section::write_file_header(&mut out, FileKind::Container, version)
            .and_then(|()| section::write_section(&mut out, Kind::Layout, &json))
            .map_err(writing)?;
        Ok(Assembler {
            input,
            out,
            written: (2 * HEADER_LEN + json.len()) as u64,
            checker: PageChecker::new(&layout),
            layout,
            version,
            tree: Some(TreeHasher::new(&json)),
            bad: Bad::default(),
            signatures: Signatures::default(),
            root: None,
            places: Vec::new(),
            page: None,
            came: 0,
            body: Vec::new(),
        })
    }

    /// The chunks of the next page, whose records are wanted next, in this order
    /// ([`Self::record`]). `None` after the manifest's end; then the container is whole.
    ///
    /// # Errors
    /// As [`Self::open`]; the records of the page before did not all come.
    pub fn next_page(&mut self) -> Result<Option<Vec<ChunkRef>>, Error> {
        self.end_page()?;
        loop {
            let at = self.input.position();
            let Some(kind) = self.read_section(at)? else {
                self.end(at)?;
                return Ok(None);
            };
            match (kind, self.root) {
                (Kind::Map, None) if !self.bad.came() => {
                    let cells = self.checker.map(&self.body, at)?;
                    let map = self.written;
                    self.write_section(Kind::Map)?;
                    let map_body = std::mem::take(&mut self.body);
                    let at = section::expect_section(&mut self.input, Kind::List, &mut self.body)?;
                    let chunks = decode_list(&self.body, &cells, at)?;
                    if let Some(tree) = self.tree.as_mut() {
                        tree.page(&map_body, &self.body, &chunks);
                    }
                    self.places.push(PagePlace { map, list: 0 });
                    self.page = Some((std::mem::take(&mut self.body), chunks.clone()));
                    self.came = 0;
                    return Ok(Some(chunks));
                }
                (Kind::Bad, None) => {
                    self.bad.take(&self.body, self.version, &self.layout, at)?;
                    self.write_section(Kind::Bad)?;
                }
                (Kind::Root, None) => {
                    let tree = self.tree.take();
                    self.root = Some(check_root(&self.body, at, tree, &self.checker, &self.bad)?);
                    self.write_section(Kind::Root)?;
                }
                (Kind::Signature, Some(root)) if self.version >= Version::V3 => {
                    self.signatures.take(&self.body, root.root, at)?;
                    self.write_section(Kind::Signature)?;
                }
                (other, _) => {
                    return Err(Error::damaged(
                        format!("a {other:?} section out of place"),
                        at,
                    ));
                }
            }
        }
    }

    /// Writes the next record of the page: header and payload.
    ///
    /// # Errors
    /// It is not that of the next chunk, or cannot be written.
    pub fn record(&mut self, header: &RecordHeader, payload: &[u8]) -> Result<(), Error> {
        let wanted = self
            .page
            .as_ref()
            .and_then(|(_, chunks)| chunks.get(self.came));
        let fits = wanted
            .is_some_and(|chunk| (chunk.name, chunk.plain_len) == (header.name, header.plain_len));
        if !fits || payload.len() as u64 != u64::from(header.stored_len) {
            return Err(writing(io::Error::other(
                "a record that is not its chunk's",
            )));
        }
        self.out
            .write_all(&header.encode())
            .and_then(|()| self.out.write_all(payload))
            .map_err(writing)?;
        self.written += (RECORD_HEADER_LEN + payload.len()) as u64;
        self.came += 1;
        Ok(())
    }

    /// The root, known when [`Self::next_page`] has returned `None`.
    pub fn root(&self) -> Option<Root> {
        self.root
    }

    /// The output.
    pub fn into_output(self) -> W {
        self.out
    }

    fn end_page(&mut self) -> Result<(), Error> {
        let Some((list, chunks)) = self.page.take() else {
            return Ok(());
        };
        if self.came != chunks.len() {
            return Err(writing(io::Error::other("records of a page are missing")));
        }
        if let Some(place) = self.places.last_mut() {
            place.list = self.written;
        }
        self.body = list;
        self.write_section(Kind::List)
    }

    /// The next section of the manifest, or `None` at its end.
    fn read_section(&mut self, at: u64) -> Result<Option<Kind>, Error> {
        let Some(header) = section::next_section_header(&mut self.input)? else {
            return match self.root {
                Some(_) => Ok(None),
                None => Err(Error::damaged("the manifest ends too early", at)),
            };
        };
        header.read_body(&mut self.input, &mut self.body)?;
        Ok(Some(header.kind))
    }

    fn write_section(&mut self, kind: Kind) -> Result<(), Error> {
        section::write_section(&mut self.out, kind, &self.body).map_err(writing)?;
        self.written += (HEADER_LEN + self.body.len()) as u64;
        Ok(())
    }

    fn end(&mut self, at: u64) -> Result<(), Error> {
        let Some(root) = self.root else {
            return Err(Error::damaged("the manifest has no root", at));
        };
        self.signatures
            .complete(&self.layout, None, root.root, at)?;
        let index = self.written;
        self.body = index::encode(&self.places);
        self.write_section(Kind::Index)?;
        let length = self.written + FOOTER_LEN as u64;
        self.out
            .write_all(&index::encode_footer(index, length))
            .and_then(|()| self.out.flush())
            .map_err(writing)
    }
}

#[cfg(test)]
mod tests {
    use super::Assembler;
    use crate::cells::cut;
    use crate::container::{ContainerReader, ContainerWriter, Event};
    use crate::layout::tests::small;
    use crate::record::{Compression, Encoder, RecordHeader};
    use crate::{BadRange, PAGE_CHUNKS};
    use std::collections::HashMap;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    /// Bytes that two can see.
    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// A container of a bit more than a page, with chunks that occur again.
    fn container(bad: &[BadRange]) -> Vec<u8> {
        let cells = PAGE_CHUNKS as u64 + 7;
        let size = cells << 16;
        let mut layout = small(size);
        layout.regions[0].used_bytes = size;
        let mut encoder = Encoder::new(Compression::Zstd(1)).unwrap();
        let mut writer = ContainerWriter::of_bad_disk(Vec::new(), &layout).unwrap();
        let cells: Vec<_> = cut(0, layout.cell_size, [(0, size)]).collect();
        for page in cells.chunks(PAGE_CHUNKS) {
            writer.begin_page(page).unwrap();
            for cell in page {
                let plain = vec![(cell.cell % 5) as u8; cell.used.len() as usize];
                let mut record = Vec::new();
                let header = encoder.encode(&plain, &mut record).unwrap();
                writer.record(&header, &record).unwrap();
            }
        }
        writer.finish_with(bad).unwrap().0
    }

    type Records = HashMap<crate::Hash, (RecordHeader, Vec<u8>)>;

    /// The manifest and the records of a container.
    fn split(container: &[u8]) -> (Vec<u8>, Records) {
        let (out, mut records, mut payload) = (Shared::default(), HashMap::new(), Vec::new());
        let mut reader = ContainerReader::open_copying(container, out.clone()).unwrap();
        loop {
            match reader.next_event(&mut payload).unwrap() {
                Event::Page(_) => {}
                Event::Record { header, .. } => {
                    records.insert(header.name, (header, payload.clone()));
                }
                Event::End(_) => break,
            }
        }
        let manifest = out.0.lock().unwrap().clone();
        (manifest, records)
    }

    #[test]
    fn a_container_that_is_split_and_put_together_is_the_same() {
        let bad = BadRange {
            region: 0,
            start: 4096,
            len: 512,
        };
        for bad in [&[][..], &[bad]] {
            let whole = container(bad);
            let (manifest, records) = split(&whole);
            let mut assembler = Assembler::open(&manifest[..], Vec::new()).unwrap();
            while let Some(chunks) = assembler.next_page().unwrap() {
                for chunk in chunks {
                    let (header, payload) = &records[&chunk.name];
                    assembler.record(header, payload).unwrap();
                }
            }
            assert!(assembler.root().is_some());
            assert!(assembler.into_output() == whole);
        }
    }

    #[test]
    fn signatures_come_along_and_must_be_right() {
        let (manifest, records) = split(&container(&[]));
        let key = crate::SigningKey::from_seed(&[3; 32]).unwrap();
        let assemble = |root| -> Result<Vec<u8>, crate::Error> {
            let mut signed = std::io::Cursor::new(manifest.clone());
            crate::sign::add_to_manifest(&mut signed, &key.sign(root))?;
            let signed = signed.into_inner();
            let mut assembler = Assembler::open(&signed[..], Vec::new())?;
            while let Some(chunks) = assembler.next_page()? {
                for chunk in chunks {
                    let (header, payload) = &records[&chunk.name];
                    assembler.record(header, payload)?;
                }
            }
            Ok(assembler.into_output())
        };
        assert!(assemble(crate::Hash([1; 32])).is_err(), "of another image");
        let bytes = container(&[]);
        let mut reader = ContainerReader::open(&bytes[..]).unwrap();
        let root = loop {
            if let Event::End(root) = reader.next_event(&mut Vec::new()).unwrap() {
                break root.root;
            }
        };
        let whole = assemble(root).unwrap();
        let mut reader = ContainerReader::open(&whole[..]).unwrap();
        while !matches!(reader.next_event(&mut Vec::new()).unwrap(), Event::End(_)) {}
        assert_eq!(reader.signatures()[0].key, key.public());
    }

    #[test]
    fn records_that_are_missing_or_others_are_refused() {
        let (manifest, records) = split(&container(&[]));
        let mut assembler = Assembler::open(&manifest[..], Vec::new()).unwrap();
        let chunks = assembler.next_page().unwrap().unwrap();
        let (other, payload) = &records[&chunks[1].name];
        assert!(assembler.record(other, payload).is_err());
        assert!(assembler.next_page().is_err());
    }

    #[test]
    fn a_manifest_that_is_cut_or_changed_gives_no_container() {
        let (manifest, records) = split(&container(&[]));
        let assemble = |manifest: &[u8]| -> Result<(), crate::Error> {
            let mut assembler = Assembler::open(manifest, Vec::new())?;
            while let Some(chunks) = assembler.next_page()? {
                for chunk in chunks {
                    match records.get(&chunk.name) {
                        Some((header, payload)) => assembler.record(header, payload)?,
                        None => return Err(crate::Error::damaged("another chunk", 0)),
                    }
                }
            }
            Ok(())
        };
        assemble(&manifest).unwrap();
        for at in (0..manifest.len()).step_by(997) {
            assert!(assemble(&manifest[..at]).is_err(), "cut at {at}");
            let mut changed = manifest.clone();
            changed[at] ^= 1;
            assert!(assemble(&changed).is_err(), "flipped at {at}");
        }
        assert!(assemble(&[&manifest[..], b"x"].concat()).is_err());
    }
}
