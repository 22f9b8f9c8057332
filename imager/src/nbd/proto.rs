//! The network block device protocol: numbers, requests and replies as bytes.
//!
//! Owns: parsing what a client sends and building what it is answered, after the
//! protocol's public specification (doc/proto.md of the NetworkBlockDevice project). Does
//! not own: sockets, or which answer is right (`session`).
//!
//! All numbers are big-endian. Every function is total on any input; nothing here reads or
//! waits.

/// Length of a client's flags.
pub const CLIENT_FLAGS_LEN: usize = 4;
/// Length of an option's head.
pub const OPTION_LEN: usize = 16;
/// Length of a request.
pub const REQUEST_LEN: usize = 28;
/// Longest data of an option that is read: names have 4096 bytes at most.
pub const MAX_OPTION_DATA: u32 = 32 << 10;
/// Most queries or information requests of an option.
const MAX_ITEMS: u32 = 256;

const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054; // IHAVEOPT
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
const CHUNK_MAGIC: u32 = 0x668e_33ef;

const FIXED_NEWSTYLE: u16 = 1;
const NO_ZEROES: u16 = 2;

/// Options of the handshake.
pub mod option {
    /// Ends the handshake, without a way to say no.
    pub const EXPORT_NAME: u32 = 1;
    /// The client gives up.
    pub const ABORT: u32 = 2;
    /// Which exports are there.
    pub const LIST: u32 = 3;
    /// What an export is like.
    pub const INFO: u32 = 6;
    /// The same, and it ends the handshake.
    pub const GO: u32 = 7;
    /// Replies in pieces, with messages.
    pub const STRUCTURED_REPLY: u32 = 8;
    /// Which kinds of block status there are.
    pub const LIST_META_CONTEXT: u32 = 9;
    /// Chooses among them.
    pub const SET_META_CONTEXT: u32 = 10;
}

/// Types of a reply to an option.
pub mod answer {
    /// It is done.
    pub const ACK: u32 = 1;
    /// One export of a list.
    pub const SERVER: u32 = 2;
    /// Something about an export.
    pub const INFO: u32 = 3;
    /// One kind of block status.
    pub const META_CONTEXT: u32 = 4;
    /// The option is not known.
    pub const UNSUPPORTED: u32 = 1 << 31 | 1;
    /// The option's data makes no sense.
    pub const INVALID: u32 = 1 << 31 | 3;
    /// There is no such export.
    pub const UNKNOWN: u32 = 1 << 31 | 6;
}

/// Commands of a request.
pub mod command {
    /// Bytes of the disk.
    pub const READ: u16 = 0;
    /// Bytes for the disk, which follow the request.
    pub const WRITE: u16 = 1;
    /// The client leaves.
    pub const DISCONNECT: u16 = 2;
    /// Throws blocks away.
    pub const TRIM: u16 = 4;
    /// Writes zeros.
    pub const WRITE_ZEROES: u16 = 6;
    /// What is used.
    pub const BLOCK_STATUS: u16 = 7;
    /// Flag: one piece only.
    pub const DONT_FRAGMENT: u16 = 1 << 2;
    /// Flag: one extent only.
    pub const ONE_EXTENT: u16 = 1 << 3;
}

/// Errors of a reply.
pub mod error {
    /// Nothing is written here.
    pub const NOT_PERMITTED: u32 = 1;
    /// The bytes cannot be had.
    pub const IO: u32 = 5;
    /// The request makes no sense.
    pub const INVALID: u32 = 22;
    /// Too much for one piece.
    pub const OVERFLOW: u32 = 75;
}

/// Flags of an export: it is read-only, and several connections see the same bytes.
const EXPORT_FLAGS: u16 = 1 | 1 << 1 | 1 << 8;
/// With structured replies: a client may ask for one piece.
const ONE_PIECE_FLAG: u16 = 1 << 7;
/// In an extent's flags: the image does not hold it, it reads as zeros.
pub const HOLE_AND_ZERO: u32 = 3;
/// Type of a chunk: nothing.
const CHUNK_NONE: u16 = 0;
const CHUNK_DATA: u16 = 1;
const CHUNK_HOLE: u16 = 2;
const CHUNK_STATUS: u16 = 5;
const CHUNK_ERROR: u16 = 1 << 15 | 1;
/// Bytes of a data chunk before the data.
pub const DATA_HEAD: usize = 28;
/// The kind of block status that is offered, and its number.
pub const CONTEXT: (&str, u32) = ("base:allocation", 1);

/// What the server says first.
pub fn greeting() -> Vec<u8> {
    let mut out = b"NBDMAGICIHAVEOPT".to_vec();
    out.extend_from_slice(&(FIXED_NEWSTYLE | NO_ZEROES).to_be_bytes());
    out
}

/// The client's flags: whether it wants no zeros behind an export's flags. None if it wants
/// what is not known.
pub fn client_flags(bytes: [u8; CLIENT_FLAGS_LEN]) -> Option<bool> {
    let flags = u32::from_be_bytes(bytes);
    let known = u32::from(FIXED_NEWSTYLE | NO_ZEROES);
    (flags & !known == 0).then_some(flags & u32::from(NO_ZEROES) != 0)
}

/// Head of an option: its number and the length of its data. None if it is none.
pub fn option_head(bytes: &[u8; OPTION_LEN]) -> Option<(u32, u32)> {
    let mut taken = Taken(bytes);
    let magic = taken.u64()?;
    let head = (taken.u32()?, taken.u32()?);
    (magic == OPTION_MAGIC).then_some(head)
}

/// Data of INFO and GO: the export's name and what is asked for.
pub fn info_request(data: &[u8]) -> Option<(String, Vec<u16>)> {
    let mut taken = Taken(data);
    let name = taken.text()?;
    let count = taken.u16()?;
    if u32::from(count) > MAX_ITEMS {
        return None;
    }
    let wanted = (0..count).map(|_| taken.u16()).collect::<Option<_>>()?;
    taken.is_empty().then_some((name, wanted))
}

/// Data of the two options of block status: the export's name and the queries.
pub fn context_request(data: &[u8]) -> Option<(String, Vec<String>)> {
    let mut taken = Taken(data);
    let name = taken.text()?;
    let count = taken.u32()?;
    if count > MAX_ITEMS {
        return None;
    }
    let queries = (0..count).map(|_| taken.text()).collect::<Option<_>>()?;
    taken.is_empty().then_some((name, queries))
}

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// See [`command`].
    pub command: u16,
    /// Flags of the command.
    pub flags: u16,
    /// Names the request in its reply.
    pub cookie: u64,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u32,
}

/// A request; none if the bytes are no request, after which nothing can be understood.
pub fn request(bytes: &[u8; REQUEST_LEN]) -> Option<Request> {
    let mut taken = Taken(bytes);
    let magic = taken.u32()?;
    let request = Request {
        flags: taken.u16()?,
        command: taken.u16()?,
        cookie: taken.u64()?,
        offset: taken.u64()?,
        len: taken.u32()?,
    };
    (magic == REQUEST_MAGIC).then_some(request)
}

/// Reply to an option.
pub fn option_reply(option: u32, answer: u32, data: &[u8]) -> Vec<u8> {
    let mut out = OPTION_REPLY_MAGIC.to_be_bytes().to_vec();
    out.extend_from_slice(&option.to_be_bytes());
    out.extend_from_slice(&answer.to_be_bytes());
    // Replies are short: names and messages.
    out.extend_from_slice(&(data.len() as u32).to_be_bytes());
    out.extend_from_slice(data);
    out
}

/// Data of a reply that names an export.
pub fn server_entry(name: &str) -> Vec<u8> {
    let mut out = (name.len() as u32).to_be_bytes().to_vec();
    out.extend_from_slice(name.as_bytes());
    out
}

/// Data of a reply that names a kind of block status.
pub fn context_entry(id: u32, name: &str) -> Vec<u8> {
    let mut out = id.to_be_bytes().to_vec();
    out.extend_from_slice(name.as_bytes());
    out
}

/// Size and flags of an export, as EXPORT_NAME is answered.
pub fn export(size: u64, structured: bool) -> Vec<u8> {
    let mut out = size.to_be_bytes().to_vec();
    let flags = EXPORT_FLAGS | if structured { ONE_PIECE_FLAG } else { 0 };
    out.extend_from_slice(&flags.to_be_bytes());
    out
}

/// Information about an export: what kind, and the rest.
pub fn info(kind: u16, rest: &[u8]) -> Vec<u8> {
    let mut out = kind.to_be_bytes().to_vec();
    out.extend_from_slice(rest);
    out
}

/// Head of a simple reply; the data of a read follows it.
pub fn simple_reply(cookie: u64, error: u32) -> Vec<u8> {
    let mut out = SIMPLE_REPLY_MAGIC.to_be_bytes().to_vec();
    out.extend_from_slice(&error.to_be_bytes());
    out.extend_from_slice(&cookie.to_be_bytes());
    out
}

fn chunk(cookie: u64, last: bool, kind: u16, len: usize) -> Vec<u8> {
    let mut out = CHUNK_MAGIC.to_be_bytes().to_vec();
    out.extend_from_slice(&u16::from(last).to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&cookie.to_be_bytes());
    // A piece of a read, or a list of extents, both limited.
    out.extend_from_slice(&(len as u32).to_be_bytes());
    out
}

/// Head of a chunk of `len` bytes of data, which stand at `offset`.
pub fn data_head(cookie: u64, last: bool, offset: u64, len: usize) -> Vec<u8> {
    let mut out = chunk(cookie, last, CHUNK_DATA, len + 8);
    out.extend_from_slice(&offset.to_be_bytes());
    out
}

/// A chunk that says that `len` bytes are zero.
pub fn hole(cookie: u64, last: bool, offset: u64, len: u32) -> Vec<u8> {
    let mut out = chunk(cookie, last, CHUNK_HOLE, 12);
    out.extend_from_slice(&offset.to_be_bytes());
    out.extend_from_slice(&len.to_be_bytes());
    out
}

/// A last chunk with nothing in it.
pub fn nothing(cookie: u64) -> Vec<u8> {
    chunk(cookie, true, CHUNK_NONE, 0)
}

/// A last chunk that says what went wrong.
pub fn failure(cookie: u64, error: u32, message: &str) -> Vec<u8> {
    let end = message.len().min(1000);
    let end = (0..=end).rev().find(|&at| message.is_char_boundary(at));
    let message = &message.as_bytes()[..end.unwrap_or(0)];
    let mut out = chunk(cookie, true, CHUNK_ERROR, 6 + message.len());
    out.extend_from_slice(&error.to_be_bytes());
    out.extend_from_slice(&(message.len() as u16).to_be_bytes());
    out.extend_from_slice(message);
    out
}

/// The extents from the request's first byte on: lengths and flags.
pub fn block_status(cookie: u64, extents: &[(u32, u32)]) -> Vec<u8> {
    let mut out = chunk(cookie, true, CHUNK_STATUS, 4 + extents.len() * 8);
    out.extend_from_slice(&CONTEXT.1.to_be_bytes());
    for (len, flags) in extents {
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(&flags.to_be_bytes());
    }
    out
}

/// Bytes that are taken from the front.
struct Taken<'a>(&'a [u8]);

impl Taken<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A text with its length before it.
    fn text(&mut self) -> Option<String> {
        let len = usize::try_from(self.u32()?).ok()?;
        let (text, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
