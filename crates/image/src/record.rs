//! Records: a chunk compressed, with its name and its checks.
//!
//! Owns: the record header, the codecs, and the proof that a record's bytes are the
//! chunk that it names. Does not own: where records stand (containers, packs, wire).
//!
//! Header, 64 bytes (little-endian), followed by the payload:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | `DRec` |
//! | 4 | 1 | codec: 0 stored, 1 deflate (zlib), 2 zstd, 3 zeros (no payload) |
//! | 5 | 1 | flags, zero (bit 0 reserved: encrypted) |
//! | 6 | 2 | reserved, zero |
//! | 8 | 4 | plain length (1 to 4 MiB) |
//! | 12 | 4 | payload length (at most the plain length) |
//! | 16 | 32 | name: BLAKE3 of the plain bytes |
//! | 48 | 4 | CRC-32 of the payload |
//! | 52 | 8 | reserved, zero |
//! | 60 | 4 | CRC-32 of the 60 bytes before |

use crate::{Error, Hash, MAX_CELL_SIZE};
use std::io::{self, Read};

/// Length of a record's header.
pub const HEADER_LEN: usize = 64;

const MAGIC: &[u8; 4] = b"DRec";

/// How a payload is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Payload = plain bytes.
    Stored = 0,
    /// zlib stream (RFC 1950).
    Deflate = 1,
    /// One zstd frame (RFC 8878).
    Zstd = 2,
    /// All bytes are zero; no payload.
    Zeros = 3,
}

/// Header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// How the payload is compressed.
    pub codec: Codec,
    /// Bytes of the chunk.
    pub plain_len: u32,
    /// Bytes of the payload.
    pub stored_len: u32,
    /// Name of the chunk.
    pub name: Hash,
    /// CRC-32 of the payload.
    pub payload_crc: u32,
}

impl RecordHeader {
    /// The stored form.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[..4].copy_from_slice(MAGIC);
        out[4] = self.codec as u8;
        out[8..12].copy_from_slice(&self.plain_len.to_le_bytes());
        out[12..16].copy_from_slice(&self.stored_len.to_le_bytes());
        out[16..48].copy_from_slice(&self.name.0);
        out[48..52].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = crc32fast::hash(&out[..60]);
        out[60..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Decodes and checks a header; `offset` is its place, for messages.
    pub fn decode(bytes: &[u8; HEADER_LEN], offset: u64) -> Result<Self, Error> {
        let u32_at = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        if bytes[..4] != *MAGIC || crc32fast::hash(&bytes[..60]) != u32_at(60) {
            return Err(Error::damaged("a record's header is damaged", offset));
        }
        let codec = match bytes[4] {
            0 => Codec::Stored,
            1 => Codec::Deflate,
            2 => Codec::Zstd,
            3 => Codec::Zeros,
            other => return Err(Error::damaged(format!("unknown codec {other}"), offset)),
        };
        if bytes[5..8] != [0; 3] || bytes[52..60] != [0; 8] {
            return Err(Error::damaged("reserved bytes of a record are set", offset));
        }
        let (plain_len, stored_len) = (u32_at(8), u32_at(12));
        let length_fits = match codec {
            Codec::Stored => stored_len == plain_len,
            Codec::Zeros => stored_len == 0,
            Codec::Deflate | Codec::Zstd => stored_len < plain_len,
        };
        if plain_len == 0 || plain_len > MAX_CELL_SIZE || !length_fits {
            return Err(Error::damaged("a record's lengths are impossible", offset));
        }
        let mut name = [0; 32];
        name.copy_from_slice(&bytes[16..48]);
        Ok(RecordHeader {
            codec,
            plain_len,
            stored_len,
            name: Hash(name),
            payload_crc: u32_at(48),
        })
    }

    /// Header and payload together.
    pub fn record_len(&self) -> u64 {
        HEADER_LEN as u64 + u64::from(self.stored_len)
    }
}

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
        };
        match compression {
            Compression::None => {}
            Compression::Deflate(level) => {
                encoder.deflate = Some(deflater(level));
            }
            Compression::Zstd(level) => {
                encoder.zstd = Some(zstd::bulk::Compressor::new(level).map_err(setup)?);
            }
        }
        Ok(encoder)
    }

    /// Appends the record of `plain` (1 byte to 4 MiB) to `out` and returns its header.
    /// A chunk that compression does not make shorter is stored as it is.
    pub fn encode(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<RecordHeader, Error> {
        self.encode_named(plain, Hash::of(plain), out)
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
        let payload = &out[start + HEADER_LEN..];
        // The payload is never longer than the plain bytes, so it fits u32.
        let header = RecordHeader {
            codec,
            plain_len,
            stored_len: payload.len() as u32,
            name,
            payload_crc: crc32fast::hash(payload),
        };
        out[start..start + HEADER_LEN].copy_from_slice(&header.encode());
        Ok(header)
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

fn deflater(level: u32) -> flate2::Compress {
    flate2::Compress::new(flate2::Compression::new(level.min(9)), true)
}

/// Turns records back into chunks. One for each thread.
#[derive(Default)]
pub struct Decoder {
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl Decoder {
    /// A decoder.
    pub fn new() -> Self {
        Decoder::default()
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
        if Hash::of(plain) != header.name {
            plain.clear();
            return Err(Error::damaged(
                "a record's bytes are not the chunk that it names (BLAKE3)",
                offset,
            ));
        }
        Ok(())
    }
}

/// Reads records that follow one another.
pub struct RecordReader<R> {
    input: R,
    at: u64,
}

impl<R: Read> RecordReader<R> {
    /// Reads from `input`, whose position is `at` (for messages).
    pub fn new(input: R, at: u64) -> Self {
        RecordReader { input, at }
    }

    /// Position: where the next record starts.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// The next record: its header is returned, its payload put into `payload`. `None` at
    /// a clean end; an end within a record is damage.
    pub fn next_record(&mut self, payload: &mut Vec<u8>) -> Result<Option<RecordHeader>, Error> {
        let mut bytes = [0; HEADER_LEN];
        let mut filled = 0;
        while filled < HEADER_LEN {
            match self.input.read(&mut bytes[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(Error::damaged("the data ends within a record", self.at)),
                Ok(count) => filled += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io("reading a record", e, self.at)),
            }
        }
        let header = RecordHeader::decode(&bytes, self.at)?;
        read_payload(&mut self.input, &header, self.at, payload)?;
        self.at = self.at.saturating_add(header.record_len());
        Ok(Some(header))
    }
}

/// Reads a record's payload (at most 4 MiB).
pub fn read_payload(
    input: &mut impl Read,
    header: &RecordHeader,
    offset: u64,
    payload: &mut Vec<u8>,
) -> Result<(), Error> {
    payload.clear();
    let wanted = u64::from(header.stored_len);
    payload.reserve_exact(header.stored_len as usize);
    let got = input
        .take(wanted)
        .read_to_end(payload)
        .map_err(|e| Error::io("reading a record", e, offset))?;
    if got as u64 != wanted {
        return Err(Error::damaged("the data ends within a record", offset));
    }
    Ok(())
}

/// Whether all bytes are zero. Written so that the compiler uses vector registers; the C
/// library's comparison is slow on musl.
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes
        .chunks(4096)
        .all(|chunk| chunk.iter().fold(0, |all, &byte| all | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(compression: Compression, plain: &[u8]) -> Codec {
        let mut record = vec![1, 2, 3];
        let header = Encoder::new(compression)
            .unwrap()
            .encode(plain, &mut record)
            .unwrap();
        assert_eq!(record.len() as u64, 3 + header.record_len());
        let mut reader = RecordReader::new(&record[3..], 0);
        let mut payload = Vec::new();
        assert_eq!(reader.next_record(&mut payload).unwrap(), Some(header));
        let mut out = Vec::new();
        Decoder::new()
            .decode(&header, &payload, 0, &mut out)
            .unwrap();
        assert!(out == plain);
        assert_eq!(reader.next_record(&mut payload).unwrap(), None);
        header.codec
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut out);
        out
    }

    #[test]
    fn every_codec_gives_the_bytes_back() {
        let text: Vec<u8> = (0..100_000u32)
            .flat_map(|n| (n / 7).to_le_bytes())
            .collect();
        assert_eq!(round_trip(Compression::Zstd(1), &text), Codec::Zstd);
        assert_eq!(round_trip(Compression::Deflate(6), &text), Codec::Deflate);
        assert_eq!(round_trip(Compression::None, &text), Codec::Stored);
        let noise = noise(1 << 20);
        assert_eq!(round_trip(Compression::Zstd(1), &noise), Codec::Stored);
        assert_eq!(round_trip(Compression::Deflate(1), &noise), Codec::Stored);
        assert_eq!(
            round_trip(Compression::Zstd(1), &vec![0; 1 << 20]),
            Codec::Zeros
        );
        assert_eq!(round_trip(Compression::Zstd(1), &[7]), Codec::Stored);
    }

    proptest! {
        #[test]
        fn a_changed_byte_is_always_noticed(at in 0usize..10_000, bit in 0u8..8) {
            let plain: Vec<u8> = (0..20_000u32).map(|n| (n / 9) as u8).collect();
            let mut record = Vec::new();
            let header = Encoder::new(Compression::Zstd(1)).unwrap().encode(&plain, &mut record).unwrap();
            let at = at % record.len();
            record[at] ^= 1 << bit;
            let mut payload = Vec::new();
            let mut plain_again = Vec::new();
            let ok = match RecordReader::new(&record[..], 0).next_record(&mut payload) {
                Ok(Some(header)) => Decoder::new().decode(&header, &payload, 0, &mut plain_again).is_ok(),
                _ => false,
            };
            prop_assert!(!ok);
            prop_assert_eq!(header.plain_len, 20_000);
        }

        #[test]
        fn any_bytes_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut payload = Vec::new();
            let mut reader = RecordReader::new(&bytes[..], 0);
            while let Ok(Some(_)) = reader.next_record(&mut payload) {}
        }
    }

    #[test]
    fn a_payload_under_a_foreign_name_is_refused() {
        let mut record = Vec::new();
        let mut header = Encoder::new(Compression::None)
            .unwrap()
            .encode(b"what is there", &mut record)
            .unwrap();
        header.name = Hash::of(b"what is claimed");
        let error = Decoder::new().decode(&header, &record[HEADER_LEN..], 9, &mut Vec::new());
        assert!(error.unwrap_err().to_string().contains("BLAKE3"));
    }
}
