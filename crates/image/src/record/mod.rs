//! Records: a chunk compressed, with its name and its checks.
//!
//! Owns: the record header, the codecs (`encode`), and the proof that a record's bytes are
//! the chunk that it names (`decode`). Does not own: where records stand (containers, packs,
//! wire), keys ([`crate::seal`]).
//!
//! Header, 64 bytes (little-endian), followed by the payload:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | `DRec` |
//! | 4 | 1 | codec: 0 stored, 1 deflate (zlib), 2 zstd, 3 zeros (no payload) |
//! | 5 | 1 | flags; bit 0: encrypted ([`crate::seal`]) |
//! | 6 | 2 | reserved, zero |
//! | 8 | 4 | plain length (1 to 4 MiB) |
//! | 12 | 4 | payload length (at most the plain length; 40 more if encrypted) |
//! | 16 | 32 | name: BLAKE3 of the plain bytes; the mark if encrypted |
//! | 48 | 4 | CRC-32 of the payload |
//! | 52 | 8 | zero; if encrypted, the first bytes of the payload's BLAKE3 hash |
//! | 60 | 4 | CRC-32 of the 60 bytes before |

mod decode;
mod encode;

pub use decode::Decoder;
pub use encode::{Compression, Encoder, is_zero};

use crate::{Error, Hash, MAX_CELL_SIZE, seal};
use std::io::{self, Read};

/// Length of a record's header.
pub const HEADER_LEN: usize = 64;

/// Longest payload.
pub const MAX_STORED: u32 = MAX_CELL_SIZE + seal::OVERHEAD as u32;

const SEALED: u8 = 1;
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
    /// What an encrypted record has besides.
    pub seal: Option<Seal>,
}

/// What the header of an encrypted record has besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// The chunk's mark, of which its name comes.
    pub mark: Hash,
    /// First bytes of the BLAKE3 hash of the payload: what can be checked without a key.
    pub check: [u8; 8],
}

impl Seal {
    /// First bytes of the hash of a payload.
    pub(crate) fn check_of(payload: &[u8]) -> [u8; 8] {
        let mut check = [0; 8];
        check.copy_from_slice(&blake3::hash(payload).as_bytes()[..8]);
        check
    }
}

impl RecordHeader {
    /// The stored form.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[..4].copy_from_slice(MAGIC);
        out[4] = self.codec as u8;
        out[8..12].copy_from_slice(&self.plain_len.to_le_bytes());
        out[12..16].copy_from_slice(&self.stored_len.to_le_bytes());
        match &self.seal {
            None => out[16..48].copy_from_slice(&self.name.0),
            Some(seal) => {
                out[5] = SEALED;
                out[16..48].copy_from_slice(&seal.mark.0);
                out[52..60].copy_from_slice(&seal.check);
            }
        }
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
        let sealed = bytes[5] == SEALED;
        let reserved = bytes[6..8] != [0; 2] || (bytes[52..60] != [0; 8] && !sealed);
        if reserved || bytes[5] > SEALED {
            return Err(Error::damaged("reserved bytes of a record are set", offset));
        }
        let (plain_len, stored_len) = (u32_at(8), u32_at(12));
        let added = if sealed { seal::OVERHEAD as u32 } else { 0 };
        let length_fits = stored_len
            .checked_sub(added)
            .is_some_and(|length| match codec {
                Codec::Stored => length == plain_len,
                Codec::Zeros => length == 0,
                Codec::Deflate | Codec::Zstd => length < plain_len,
            });
        if plain_len == 0 || plain_len > MAX_CELL_SIZE || !length_fits {
            return Err(Error::damaged("a record's lengths are impossible", offset));
        }
        let mut name = [0; 32];
        name.copy_from_slice(&bytes[16..48]);
        let mut check = [0; 8];
        check.copy_from_slice(&bytes[52..60]);
        let mark = Hash(name);
        Ok(RecordHeader {
            seal: sealed.then_some(Seal { mark, check }),
            codec,
            plain_len,
            stored_len,
            name: if sealed {
                seal::name_of_mark(mark)
            } else {
                mark
            },
            payload_crc: u32_at(48),
        })
    }

    /// Header and payload together.
    pub fn record_len(&self) -> u64 {
        HEADER_LEN as u64 + u64::from(self.stored_len)
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

/// Reads a record's payload (at most [`MAX_STORED`] bytes).
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
