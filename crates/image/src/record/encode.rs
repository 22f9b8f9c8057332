//! From chunks to records.
//!
//! Owns: compressing, and sealing with a key. Does not own: the header's form.

use super::{Codec, HEADER_LEN, RecordHeader, Seal};
use crate::seal::{self, Bound, ImageKey};
use crate::{Error, Hash, MAX_CELL_SIZE};
use std::io;
use std::sync::Arc;
use zstd::zstd_safe::CParameter;

/// Compression that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// No compression.
    None,
    /// zlib at a level of 1 to 9.
    Deflate(u32),
    /// zstd at a level of 1 to 19.
    Zstd(i32),
}

/// Turns chunks into records. One for each thread: it keeps its compression context.
pub struct Encoder {
    compression: Compression,
    zstd: Option<zstd::bulk::Compressor<'static>>,
    deflate: Option<flate2::Compress>,
    key: Option<Arc<ImageKey>>,
}

impl Encoder {
    /// An encoder; fails only if the compressor cannot be set up.
    pub fn new(compression: Compression) -> Result<Self, Error> {
        let setup = |e| Error::Io {
            operation: "setting up compression",
            source: e,
        };
        let mut encoder = Encoder {
            compression,
            zstd: None,
            deflate: None,
            key: None,
        };
        match compression {
            Compression::None => {}
            Compression::Deflate(level) => {
                encoder.deflate = Some(deflater(level));
            }
            Compression::Zstd(level) => {
                encoder.zstd = Some(compressor(level).map_err(setup)?);
            }
        }
        Ok(encoder)
    }

    /// The same encoder for the records of an encrypted image, if there is a key.
    #[must_use]
    pub fn sealed_with(mut self, key: Option<Arc<ImageKey>>) -> Self {
        self.key = key;
        self
    }

    /// Name of the chunk with these bytes.
    pub fn name(&self, plain: &[u8]) -> Hash {
        seal::name(self.key.as_deref(), plain)
    }

    /// Appends the record of `plain` (1 byte to 4 MiB) to `out` and returns its header.
    /// A chunk that compression does not make shorter is stored as it is.
    pub fn encode(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<RecordHeader, Error> {
        self.encode_named(plain, self.name(plain), out)
    }

    /// As [`Self::encode`], for a chunk whose name was computed already.
    pub fn encode_named(
        &mut self,
        plain: &[u8],
        name: Hash,
        out: &mut Vec<u8>,
    ) -> Result<RecordHeader, Error> {
        let plain_len = u32::try_from(plain.len())
            .ok()
            .filter(|&len| len > 0 && len <= MAX_CELL_SIZE);
        let Some(plain_len) = plain_len else {
            let source = io::Error::other(format!("chunk of {} bytes", plain.len()));
            return Err(Error::Io {
                operation: "making a record",
                source,
            });
        };
        let start = out.len();
        out.resize(start + HEADER_LEN, 0);
        let codec = if is_zero(plain) {
            Codec::Zeros
        } else {
            self.compress(plain, out)?
        };
        if codec == Codec::Stored {
            out.truncate(start + HEADER_LEN);
            out.extend_from_slice(plain);
        }
        let seal = self.seal(plain, plain_len, codec, out, start + HEADER_LEN)?;
        let payload = &out[start + HEADER_LEN..];
        // The payload is never longer than the plain bytes and what sealing adds: u32.
        let header = RecordHeader {
            codec,
            plain_len,
            stored_len: payload.len() as u32,
            name,
            seal,
            payload_crc: crc32fast::hash(payload),
        };
        out[start..start + HEADER_LEN].copy_from_slice(&header.encode());
        Ok(header)
    }

    fn seal(
        &self,
        plain: &[u8],
        plain_len: u32,
        codec: Codec,
        out: &mut Vec<u8>,
        start: usize,
    ) -> Result<Option<Seal>, Error> {
        let Some(key) = &self.key else {
            return Ok(None);
        };
        let mark = key.mark(plain);
        let bound = Bound {
            mark,
            plain_len,
            codec,
        };
        key.seal_record(&bound, out, start)?;
        let check = Seal::check_of(&out[start..]);
        Ok(Some(Seal { mark, check }))
    }

    fn compress(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<Codec, Error> {
        let start = out.len();
        // One byte less than the plain bytes: what does not fit is stored instead.
        let room = plain.len() - 1;
        match self.compression {
            Compression::None => Ok(Codec::Stored),
            Compression::Zstd(_) => {
                let Some(zstd) = self.zstd.as_mut() else {
                    return Ok(Codec::Stored);
                };
                // Through a cursor the compressor writes into spare capacity, which need
                // not be zeroed first.
                out.reserve(room);
                let mut cursor = io::Cursor::new(std::mem::take(out));
                cursor.set_position(start as u64);
                let got = zstd.compress_to_buffer(plain, &mut cursor);
                *out = cursor.into_inner();
                match got {
                    Ok(len) if len <= room => {
                        out.truncate(start + len);
                        Ok(Codec::Zstd)
                    }
                    _ => Ok(Codec::Stored),
                }
            }
            Compression::Deflate(level) => {
                let Some(deflate) = self.deflate.as_mut() else {
                    return Ok(Codec::Stored);
                };
                deflate.reset();
                out.resize(start + room, 0);
                let status =
                    deflate.compress(plain, &mut out[start..], flate2::FlushCompress::Finish);
                match status {
                    Ok(flate2::Status::StreamEnd) => {
                        // total_out is at most `room`.
                        out.truncate(start + deflate.total_out() as usize);
                        Ok(Codec::Deflate)
                    }
                    _ => {
                        // A reset does not clear all that a stream without an end leaves
                        // behind: the next one would begin with its last bits.
                        *deflate = deflater(level);
                        Ok(Codec::Stored)
                    }
                }
            }
        }
    }
}

/// A compressor of that level. A cell is compressed alone, so it finds less than a stream
/// that goes on. At level 3 tables of twice the size give a part of that back, 0.6 % of the
/// size; larger ones and shorter matches would give as much again, but leave the processor's
/// cache and take half as long again. At level 1 little is lost.
fn compressor(level: i32) -> io::Result<zstd::bulk::Compressor<'static>> {
    let mut compressor = zstd::bulk::Compressor::new(level)?;
    if level == 3 {
        // zstd takes 16 and 17 for a megabyte.
        compressor.set_parameter(CParameter::ChainLog(18))?;
        compressor.set_parameter(CParameter::HashLog(18))?;
    }
    Ok(compressor)
}

fn deflater(level: u32) -> flate2::Compress {
    flate2::Compress::new(flate2::Compression::new(level.min(9)), true)
}

/// Whether all bytes are zero. Written so that the compiler uses vector registers; the C
/// library's comparison is slow on musl.
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes
        .chunks(4096)
        .all(|chunk| chunk.iter().fold(0, |all, &byte| all | byte) == 0)
}
