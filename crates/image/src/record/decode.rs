//! From records to chunks.
//!
//! Owns: opening with a key, decompressing, and the proof. Does not own: the header's form.

use super::{Codec, RecordHeader, Seal};
use crate::seal::{Bound, ImageKey};
use crate::{Error, Hash};
use std::sync::Arc;

/// Turns records back into chunks. One for each thread.
#[derive(Default)]
pub struct Decoder {
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    key: Option<Arc<ImageKey>>,
    opened: Vec<u8>,
}

impl Decoder {
    /// A decoder.
    pub fn new() -> Self {
        Decoder::default()
    }

    /// The same decoder for the records of an encrypted image, if there is a key; it takes
    /// no plain ones then.
    #[must_use]
    pub fn opened_with(mut self, key: Option<Arc<ImageKey>>) -> Self {
        self.key = key;
        self
    }

    /// Puts the plain bytes into `plain` (replacing what is there) after checking
    /// payload checksum, length and name. `offset` is for messages.
    pub fn decode(
        &mut self,
        header: &RecordHeader,
        payload: &[u8],
        offset: u64,
        plain: &mut Vec<u8>,
    ) -> Result<(), Error> {
        plain.clear();
        check_payload(header, payload, offset)?;
        let found = match (self.key.clone(), &header.seal) {
            (None, None) => {
                self.decompress(header, payload, offset, plain)?;
                Hash::of(plain) == header.name
            }
            (Some(key), Some(seal)) => {
                let bound = Bound {
                    mark: seal.mark,
                    plain_len: header.plain_len,
                    codec: header.codec,
                };
                let mut opened = std::mem::take(&mut self.opened);
                if key.open_record(&bound, payload, &mut opened).is_none() {
                    let what = "a record was not encrypted with the image's key, or was changed";
                    return Err(Error::damaged(what, offset));
                }
                let done = self.decompress(header, &opened, offset, plain);
                self.opened = opened;
                done?;
                key.mark(plain) == seal.mark
            }
            (None, Some(_)) => {
                return Err(Error::damaged(
                    "a record is encrypted, and there is no key",
                    offset,
                ));
            }
            (Some(_), None) => {
                return Err(Error::damaged(
                    "a record is not encrypted, the image is",
                    offset,
                ));
            }
        };
        if !found {
            plain.clear();
            return Err(Error::damaged(
                "a record's bytes are not the chunk that it names (BLAKE3)",
                offset,
            ));
        }
        Ok(())
    }

    /// As [`Self::decode`], for somebody without a key: of an encrypted record only that
    /// its payload is the one that was stored, by CRC-32 and 64 bits of BLAKE3. That finds
    /// every accident and no forgery, and does not say that the payload is the chunk.
    pub fn check(
        &mut self,
        header: &RecordHeader,
        payload: &[u8],
        offset: u64,
        plain: &mut Vec<u8>,
    ) -> Result<(), Error> {
        match header.seal {
            None => self.decode(header, payload, offset, plain),
            Some(_) => check_payload(header, payload, offset),
        }
    }

    fn decompress(
        &mut self,
        header: &RecordHeader,
        payload: &[u8],
        offset: u64,
        plain: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let length = header.plain_len as usize;
        match header.codec {
            Codec::Stored => plain.extend_from_slice(payload),
            Codec::Zeros => plain.resize(length, 0),
            Codec::Zstd => {
                let zstd = match &mut self.zstd {
                    Some(zstd) => zstd,
                    slot => slot.insert(zstd::bulk::Decompressor::new().map_err(|source| {
                        Error::Io {
                            operation: "setting up decompression",
                            source,
                        }
                    })?),
                };
                // Written into spare capacity, which need not be zeroed first; a frame
                // that gives more than `length` is refused by the length check below.
                plain.reserve(length);
                if zstd.decompress_to_buffer(payload, plain).is_err() {
                    plain.clear();
                }
            }
            Codec::Deflate => {
                plain.resize(length, 0);
                let mut inflate = flate2::Decompress::new(true);
                let status =
                    inflate.decompress(payload, &mut plain[..], flate2::FlushDecompress::Finish);
                let complete = matches!(status, Ok(flate2::Status::StreamEnd))
                    && inflate.total_out() == length as u64
                    && inflate.total_in() == payload.len() as u64;
                if !complete {
                    plain.clear();
                }
            }
        }
        if plain.len() != length {
            plain.clear();
            return Err(Error::damaged("a record does not decompress", offset));
        }
        Ok(())
    }
}

/// Checks of a payload that need no key.
fn check_payload(header: &RecordHeader, payload: &[u8], offset: u64) -> Result<(), Error> {
    if payload.len() as u64 != u64::from(header.stored_len) {
        return Err(Error::damaged(
            "a record's payload has the wrong length",
            offset,
        ));
    }
    if crc32fast::hash(payload) != header.payload_crc {
        return Err(Error::damaged(
            "a record's payload is damaged (CRC-32)",
            offset,
        ));
    }
    if header
        .seal
        .is_some_and(|seal| seal.check != Seal::check_of(payload))
    {
        return Err(Error::damaged(
            "a record's payload is damaged (BLAKE3)",
            offset,
        ));
    }
    Ok(())
}
