//! One client of the network block device, from the greeting to its end.
//!
//! Owns: which answer is right, over any stream. Does not own: the bytes of requests and
//! replies (`proto`), sockets, or the disk.
//!
//! A client has a buffer of [`PIECE`] bytes whatever it asks for: long reads are answered
//! piece by piece. Nothing that it sends is kept.

use super::proto::{self, Request, answer, command, error, option};
use std::io::{self, Read, Write};

/// Bytes of the disk that are in memory for a client.
pub const PIECE: usize = 1 << 20;
/// Longest read: what the protocol lets clients take for granted.
pub const MAX_READ: u32 = 32 << 20;
/// Extents in one answer.
const MAX_EXTENTS: usize = 4096;
/// Options that a client may send before it has to go on.
const MAX_OPTIONS: usize = 256;

/// What can be read: a name and a range of the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Name; the empty one is the default.
    pub name: String,
    /// What it is, in words.
    pub description: String,
    /// First byte on the disk.
    pub start: u64,
    /// Bytes.
    pub size: u64,
}

/// The disk behind the exports.
pub trait Disk {
    /// Fills `buf` from `offset`; else a sentence for the client.
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<(), String>;

    /// Whether the byte at `offset` is in use, and for how many bytes that is so: at least
    /// one, `limit` at most.
    fn extent(&self, offset: u64, limit: u64) -> Result<(bool, u64), String>;
}

/// Talks to a client until it leaves. An error is a connection that broke or a client that
/// does not keep to the protocol; both end it, and neither harms another one.
/// `transmission` is called when the handshake is done.
pub fn serve<S: Read + Write>(
    stream: &mut S,
    exports: &[Export],
    disk: &impl Disk,
    transmission: impl FnOnce(),
) -> io::Result<()> {
    let mut session = Session {
        stream,
        exports,
        disk,
        structured: false,
        context_of: None,
    };
    match session.handshake()? {
        Some(export) => {
            transmission();
            session.transmit(export)
        }
        None => Ok(()),
    }
}

struct Session<'a, S, D> {
    stream: &'a mut S,
    exports: &'a [Export],
    disk: &'a D,
    structured: bool,
    /// The export of which block status may be asked.
    context_of: Option<String>,
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

impl<'a, S: Read + Write, D: Disk> Session<'a, S, D> {
    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// The export that the client chose; none if it left.
    fn handshake(&mut self) -> io::Result<Option<&'a Export>> {
        self.stream.write_all(&proto::greeting())?;
        let flags = self.array()?;
        let no_zeroes =
            proto::client_flags(flags).ok_or_else(|| broken("flags that are not known"))?;
        for _ in 0..MAX_OPTIONS {
            let head = self.array()?;
            let (number, len) = proto::option_head(&head).ok_or_else(|| broken("not an option"))?;
            if len > proto::MAX_OPTION_DATA {
                return Err(broken("an option that is too long"));
            }
            let mut data = vec![0; len as usize];
            self.stream.read_exact(&mut data)?;
            match number {
                option::EXPORT_NAME => {
                    let name = std::str::from_utf8(&data).ok();
                    let export = name.and_then(|name| self.find(name));
                    let export = export.ok_or_else(|| broken("no such export"))?;
                    let mut reply = proto::export(export.size, self.structured);
                    if !no_zeroes {
                        reply.extend_from_slice(&[0; 124]);
                    }
                    self.stream.write_all(&reply)?;
                    return Ok(Some(export));
                }
                option::ABORT => {
                    // The client may be gone without waiting for it.
                    let _ = self.answer(number, answer::ACK, &[]);
                    return Ok(None);
                }
                option::INFO | option::GO => {
                    if let Some(export) = self.describe(number, &data)?
                        && number == option::GO
                    {
                        return Ok(Some(export));
                    }
                }
                _ => self.side_option(number, &data)?,
            }
        }
        Err(broken("too many options"))
    }

    fn find(&self, name: &str) -> Option<&'a Export> {
        self.exports.iter().find(|export| export.name == name)
    }

    fn answer(&mut self, number: u32, answer: u32, data: &[u8]) -> io::Result<()> {
        self.stream
            .write_all(&proto::option_reply(number, answer, data))
    }

    /// Options that end nothing.
    fn side_option(&mut self, number: u32, data: &[u8]) -> io::Result<()> {
        match number {
            option::LIST if data.is_empty() => {
                for export in self.exports {
                    self.answer(number, answer::SERVER, &proto::server_entry(&export.name))?;
                }
            }
            option::STRUCTURED_REPLY if data.is_empty() => self.structured = true,
            option::LIST | option::STRUCTURED_REPLY => {
                return self.answer(number, answer::INVALID, b"this option has no data");
            }
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => {
                return self.contexts(number, data);
            }
            _ => return self.answer(number, answer::UNSUPPORTED, b"not supported"),
        }
        self.answer(number, answer::ACK, &[])
    }

    /// INFO and GO: the export, if there is one.
    fn describe(&mut self, number: u32, data: &[u8]) -> io::Result<Option<&'a Export>> {
        const EXPORT: u16 = 0;
        const NAME: u16 = 1;
        const DESCRIPTION: u16 = 2;
        const BLOCK_SIZE: u16 = 3;
        let Some((name, wanted)) = proto::info_request(data) else {
            self.answer(number, answer::INVALID, b"the request makes no sense")?;
            return Ok(None);
        };
        let Some(export) = self.find(&name) else {
            self.answer(number, answer::UNKNOWN, b"no such export")?;
            return Ok(None);
        };
        let send = |this: &mut Self, kind, rest: &[u8]| {
            this.answer(number, answer::INFO, &proto::info(kind, rest))
        };
        let size_and_flags = proto::export(export.size, self.structured);
        send(self, EXPORT, &size_and_flags)?;
        if wanted.contains(&NAME) {
            send(self, NAME, export.name.as_bytes())?;
        }
        if wanted.contains(&DESCRIPTION) {
            send(self, DESCRIPTION, export.description.as_bytes())?;
        }
        // Least, preferred and largest request.
        let sizes: Vec<u8> = [1, 4096, MAX_READ]
            .into_iter()
            .flat_map(u32::to_be_bytes)
            .collect();
        send(self, BLOCK_SIZE, &sizes)?;
        self.answer(number, answer::ACK, &[])?;
        Ok(Some(export))
    }

    fn contexts(&mut self, number: u32, data: &[u8]) -> io::Result<()> {
        let request = proto::context_request(data).filter(|_| self.structured);
        let Some((name, queries)) = request else {
            return self.answer(number, answer::INVALID, b"the request makes no sense");
        };
        if self.find(&name).is_none() {
            return self.answer(number, answer::UNKNOWN, b"no such export");
        }
        let (context, id) = proto::CONTEXT;
        let asked = queries.iter().any(|query| query == context);
        if number == option::SET_META_CONTEXT {
            self.context_of = asked.then_some(name);
            if asked {
                let entry = proto::context_entry(id, context);
                self.answer(number, answer::META_CONTEXT, &entry)?;
            }
        } else if asked || queries.is_empty() || queries.iter().any(|query| query == "base:") {
            // The number means nothing in a list.
            let entry = proto::context_entry(0, context);
            self.answer(number, answer::META_CONTEXT, &entry)?;
        }
        self.answer(number, answer::ACK, &[])
    }

    fn transmit(&mut self, export: &Export) -> io::Result<()> {
        let mut buf = Vec::new();
        loop {
            let bytes = self.array()?;
            let request = proto::request(&bytes).ok_or_else(|| broken("not a request"))?;
            match request.command {
                command::DISCONNECT => return Ok(()),
                command::WRITE => {
                    let len = u64::from(request.len);
                    if request.len > MAX_READ {
                        return Err(broken("a write that is too long"));
                    }
                    // Its data has to be passed over before the next request.
                    let mut data = (&mut *self.stream).take(len);
                    let passed = io::copy(&mut data, &mut io::sink())?;
                    if passed != len {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    self.fail(&request, error::NOT_PERMITTED, "the export is read-only")?;
                }
                command::TRIM | command::WRITE_ZEROES => {
                    self.fail(&request, error::NOT_PERMITTED, "the export is read-only")?;
                }
                command::READ => self.read(&request, export, &mut buf)?,
                command::BLOCK_STATUS => self.block_status(&request, export)?,
                _ => self.fail(&request, error::INVALID, "a command that is not known")?,
            }
        }
    }

    /// Says no. With structured replies the sentence goes with it.
    fn fail(&mut self, request: &Request, error: u32, message: &str) -> io::Result<()> {
        let reply = if self.structured {
            proto::failure(request.cookie, error, message)
        } else {
            proto::simple_reply(request.cookie, error)
        };
        self.stream.write_all(&reply)
    }

    /// Whether the request lies in the export and has only these flags.
    fn fits(request: &Request, export: &Export, flags: u16) -> bool {
        let end = request.offset.checked_add(u64::from(request.len));
        request.len > 0 && request.flags & !flags == 0 && end.is_some_and(|end| end <= export.size)
    }

    fn read(&mut self, request: &Request, export: &Export, buf: &mut Vec<u8>) -> io::Result<()> {
        if request.len > MAX_READ || !Self::fits(request, export, command::DONT_FRAGMENT) {
            return self.fail(request, error::INVALID, "a range that cannot be read");
        }
        let one_piece = request.flags & command::DONT_FRAGMENT != 0;
        if one_piece && request.len as usize > PIECE {
            return self.fail(request, error::OVERFLOW, "too long for one piece");
        }
        let (mut offset, end) = (request.offset, request.offset + u64::from(request.len));
        let mut first = true;
        while offset < end {
            let left = (end - offset).min(PIECE as u64);
            let at = export.start + offset;
            // A hole is told as one, whatever its length.
            let extent = self.structured.then(|| self.disk.extent(at, end - offset));
            let hole = match extent {
                Some(Ok((false, len))) if len == end - offset || !one_piece => Some(len),
                _ => None,
            };
            let (len, reply) = if let Some(len) = hole {
                let last = offset + len == end;
                // No longer than the request.
                let reply = proto::hole(request.cookie, last, offset, len as u32);
                (len, Ok(reply))
            } else {
                let head = if self.structured {
                    let last = offset + left == end;
                    proto::data_head(request.cookie, last, offset, left as usize)
                } else if first {
                    proto::simple_reply(request.cookie, 0)
                } else {
                    Vec::new()
                };
                buf.clear();
                buf.extend_from_slice(&head);
                buf.resize(head.len() + left as usize, 0);
                (
                    left,
                    self.disk
                        .read(&mut buf[head.len()..], at)
                        .map(|()| Vec::new()),
                )
            };
            match reply {
                Ok(reply) if reply.is_empty() => self.stream.write_all(buf)?,
                Ok(reply) => self.stream.write_all(&reply)?,
                // A simple reply cannot take back that it began.
                Err(_) if !self.structured && !first => return Err(broken("bytes are missing")),
                Err(message) => return self.fail(request, error::IO, &message),
            }
            first = false;
            offset += len;
        }
        Ok(())
    }

    fn block_status(&mut self, request: &Request, export: &Export) -> io::Result<()> {
        let chosen = self.context_of.as_deref() == Some(export.name.as_str());
        if !chosen || !self.structured || !Self::fits(request, export, command::ONE_EXTENT) {
            return self.fail(request, error::INVALID, "no block status of this");
        }
        let most = match request.flags & command::ONE_EXTENT {
            0 => MAX_EXTENTS,
            _ => 1,
        };
        let mut extents: Vec<(u32, u32)> = Vec::new();
        let mut left = u64::from(request.len);
        while left > 0 && extents.len() < most {
            let at = export.start + request.offset + u64::from(request.len) - left;
            match self.disk.extent(at, left) {
                Ok((used, len)) => {
                    let len = len.clamp(1, left);
                    let flags = if used { 0 } else { proto::HOLE_AND_ZERO };
                    // No longer than the request.
                    extents.push((len as u32, flags));
                    left -= len;
                }
                Err(message) => return self.fail(request, error::IO, &message),
            }
        }
        self.stream
            .write_all(&proto::block_status(request.cookie, &extents))
    }
}
