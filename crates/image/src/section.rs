//! Framing: the file header and the sections between which records stand.
//!
//! Owns: the two fixed headers and their checks. Does not own: what a section holds.
//!
//! File header, 32 bytes (little-endian):
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | `DEPLOYIM` |
//! | 8 | 2 | format version (see [`Version`]) |
//! | 10 | 2 | kind: 1 container, 2 manifest |
//! | 12 | 16 | reserved, zero |
//! | 28 | 4 | CRC-32 of the 28 bytes before |
//!
//! Section header, 32 bytes:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | `DSec` |
//! | 4 | 2 | kind (see [`Kind`]) |
//! | 6 | 2 | flags, zero |
//! | 8 | 8 | length of the body |
//! | 16 | 4 | CRC-32 of the body |
//! | 20 | 8 | reserved, zero |
//! | 28 | 4 | CRC-32 of the 28 bytes before |

use crate::Error;
use std::io::{self, Read, Write};

/// Length of the file header and of a section header.
pub const HEADER_LEN: usize = 32;
/// Longest layout.
pub const MAX_LAYOUT: u64 = 64 << 20;
/// Longest body of any other section.
pub const MAX_BODY: u64 = 16 << 20;

const FILE_MAGIC: &[u8; 8] = b"DEPLOYIM";
const SECTION_MAGIC: &[u8; 4] = b"DSec";

/// Version of the format: counts up when an older reader could not read a file rightly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// The first one.
    V1 = 1,
    /// Containers and manifests may have a bad section and regions that are absent.
    V2 = 2,
    /// Manifests may have signatures.
    V3 = 3,
}

impl Version {
    /// The newest one that is known.
    pub const NEWEST: Version = Version::V3;

    /// The number in the header.
    pub const fn number(self) -> u16 {
        self as u16
    }

    fn from_number(number: u16) -> Option<Self> {
        match number {
            1 => Some(Version::V1),
            2 => Some(Version::V2),
            3 => Some(Version::V3),
            _ => None,
        }
    }
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// Manifest and records.
    Container,
    /// Manifest alone.
    Manifest,
}

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Disk layout (JSON).
    Layout = 1,
    /// Used maps of the next page's cells.
    Map = 2,
    /// Names and lengths of the page's chunks.
    List = 3,
    /// Root hash and totals.
    Root = 4,
    /// A signature of the root ([`crate::signature`]); in manifests from version 3 on.
    Signature = 5,
    /// Where the pages stand in a container.
    Index = 6,
    /// What the disk did not give (from version 2 on).
    Bad = 7,
}

impl Kind {
    fn from_number(number: u16) -> Option<Self> {
        Some(match number {
            1 => Kind::Layout,
            2 => Kind::Map,
            3 => Kind::List,
            4 => Kind::Root,
            5 => Kind::Signature,
            6 => Kind::Index,
            7 => Kind::Bad,
            _ => return None,
        })
    }

    fn limit(self) -> u64 {
        match self {
            Kind::Layout | Kind::Index => MAX_LAYOUT,
            _ => MAX_BODY,
        }
    }
}

fn seal(header: &mut [u8; HEADER_LEN]) {
    let crc = crc32fast::hash(&header[..28]);
    header[28..].copy_from_slice(&crc.to_le_bytes());
}

fn sealed(header: &[u8; HEADER_LEN]) -> bool {
    crc32fast::hash(&header[..28]).to_le_bytes() == header[28..]
}

/// Writes the file header.
pub fn write_file_header(out: &mut impl Write, kind: FileKind, version: Version) -> io::Result<()> {
    let mut header = [0; HEADER_LEN];
    header[..8].copy_from_slice(FILE_MAGIC);
    header[8..10].copy_from_slice(&version.number().to_le_bytes());
    header[10] = match kind {
        FileKind::Container => 1,
        FileKind::Manifest => 2,
    };
    seal(&mut header);
    out.write_all(&header)
}

/// Reads and checks the file header; tells the file's version.
pub fn read_file_header(input: &mut impl Read, expected: FileKind) -> Result<Version, Error> {
    let mut header = [0; HEADER_LEN];
    input
        .read_exact(&mut header)
        .map_err(|e| Error::io("reading the header", e, 0))?;
    if header[..8] != *FILE_MAGIC {
        return Err(Error::damaged("this is not an image", 0));
    }
    // The version comes before the checksum: a newer version may check differently.
    let number = u16::from_le_bytes([header[8], header[9]]);
    if number > Version::NEWEST.number() {
        return Err(Error::Version {
            found: number,
            supported: Version::NEWEST.number(),
        });
    }
    let version = Version::from_number(number)
        .filter(|_| sealed(&header))
        .ok_or_else(|| Error::damaged("the header's checksum does not match", 0))?;
    let kind = match u16::from_le_bytes([header[10], header[11]]) {
        1 => FileKind::Container,
        2 => FileKind::Manifest,
        other => return Err(Error::damaged(format!("unknown kind of file {other}"), 10)),
    };
    if kind != expected {
        return Err(Error::damaged(
            format!("a {kind:?} where a {expected:?} is expected"),
            10,
        ));
    }
    if header[12..28].iter().any(|&byte| byte != 0) {
        return Err(Error::damaged("reserved bytes of the header are set", 12));
    }
    Ok(version)
}

/// Writes a section.
pub fn write_section(out: &mut impl Write, kind: Kind, body: &[u8]) -> io::Result<()> {
    if body.len() as u64 > kind.limit() {
        return Err(io::Error::other(format!(
            "{kind:?} section of {} bytes is too long",
            body.len()
        )));
    }
    let mut header = [0; HEADER_LEN];
    header[..4].copy_from_slice(SECTION_MAGIC);
    header[4..6].copy_from_slice(&(kind as u16).to_le_bytes());
    header[8..16].copy_from_slice(&(body.len() as u64).to_le_bytes());
    header[16..20].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
    seal(&mut header);
    out.write_all(&header)?;
    out.write_all(body)
}

/// A reader that knows where it stands, for messages.
pub struct Counted<R> {
    inner: R,
    at: u64,
}

impl<R: Read> Counted<R> {
    /// Counts from 0.
    pub fn new(inner: R) -> Self {
        Counted { inner, at: 0 }
    }

    /// Counts from `at`.
    pub fn starting_at(inner: R, at: u64) -> Self {
        Counted { inner, at }
    }

    /// Bytes read so far.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Whether nothing is left; takes a byte if something is.
    pub fn is_at_end(&mut self) -> io::Result<bool> {
        loop {
            match self.read(&mut [0; 1]) {
                // A signal came; the data may go on.
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map(|count| count == 0),
            }
        }
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buf)?;
        self.at = self.at.saturating_add(count as u64);
        Ok(count)
    }
}

/// Start of what comes next in a stream: a section's header (the first four bytes of a
/// record differ).
pub struct SectionHeader {
    /// What the section holds.
    pub kind: Kind,
    length: u64,
    crc: u32,
    start: u64,
}

/// Reads a section's header, or nothing at the end of the data.
pub fn next_section_header<R: Read>(
    input: &mut Counted<R>,
) -> Result<Option<SectionHeader>, Error> {
    let at = input.position();
    let mut first = [0; 4];
    loop {
        match input.read(&mut first[..1]) {
            Ok(0) => return Ok(None),
            Ok(_) => break,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io("reading the end", e, at)),
        }
    }
    input
        .read_exact(&mut first[1..])
        .map_err(|e| Error::io("reading a section", e, at))?;
    read_section_header(input, first).map(Some)
}

/// Whether these first bytes open a section (and not a record).
pub fn is_section(first: &[u8; 4]) -> bool {
    first == SECTION_MAGIC
}

/// Reads a section's header, of which the first four bytes were read already.
pub fn read_section_header<R: Read>(
    input: &mut Counted<R>,
    first: [u8; 4],
) -> Result<SectionHeader, Error> {
    let start = input.position().saturating_sub(4);
    let mut header = [0; HEADER_LEN];
    header[..4].copy_from_slice(&first);
    input
        .read_exact(&mut header[4..])
        .map_err(|e| Error::io("reading a section", e, start))?;
    if !is_section(&first) || !sealed(&header) {
        return Err(Error::damaged("a section's header is damaged", start));
    }
    let number = u16::from_le_bytes([header[4], header[5]]);
    let kind = Kind::from_number(number)
        .ok_or_else(|| Error::damaged(format!("unknown section {number}"), start))?;
    if header[6..8] != [0; 2] || header[20..28] != [0; 8] {
        return Err(Error::damaged("reserved bytes of a section are set", start));
    }
    let mut eight = [0; 8];
    eight.copy_from_slice(&header[8..16]);
    let length = u64::from_le_bytes(eight);
    if length > kind.limit() {
        return Err(Error::damaged(
            format!("{kind:?} section of {length} bytes"),
            start,
        ));
    }
    let crc = u32::from_le_bytes([header[16], header[17], header[18], header[19]]);
    Ok(SectionHeader {
        kind,
        length,
        crc,
        start,
    })
}

impl SectionHeader {
    /// Position of the section in the stream.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Reads the body into `body` and checks it. Memory grows with what really arrives,
    /// not with the length that is claimed.
    pub fn read_body<R: Read>(
        &self,
        input: &mut Counted<R>,
        body: &mut Vec<u8>,
    ) -> Result<(), Error> {
        body.clear();
        let got = input
            .take(self.length)
            .read_to_end(body)
            .map_err(|e| Error::io("reading a section", e, self.start))?;
        if got as u64 != self.length {
            return Err(Error::damaged(
                "the data ends within a section",
                input.position(),
            ));
        }
        if crc32fast::hash(body) != self.crc {
            return Err(Error::damaged(
                format!("checksum of the {:?} section", self.kind),
                self.start,
            ));
        }
        Ok(())
    }
}

/// Reads the next section, which has to be of `kind`.
pub fn expect_section<R: Read>(
    input: &mut Counted<R>,
    kind: Kind,
    body: &mut Vec<u8>,
) -> Result<u64, Error> {
    let mut first = [0; 4];
    let at = input.position();
    input
        .read_exact(&mut first)
        .map_err(|e| Error::io("reading a section", e, at))?;
    let header = read_section_header(input, first)?;
    if header.kind != kind {
        return Err(Error::damaged(
            format!("a {:?} section where {kind:?} is expected", header.kind),
            at,
        ));
    }
    header.read_body(input, body)?;
    Ok(at)
}
