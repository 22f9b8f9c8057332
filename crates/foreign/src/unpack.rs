//! Compressed files as streams of what is in them.
//!
//! Owns: knowing a compression by its first bytes, and unpacking. Does not own: what is
//! inside.

use crate::Error;
use std::io::{self, BufRead, Read};

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    Plain,
    /// gzip, in one or more members.
    Gzip,
    /// zstd, in one or more frames.
    Zstd,
}

impl Packing {
    /// Whether a damaged byte is always noticed when it is unpacked: gzip has a checksum.
    pub fn is_checked(self) -> bool {
        self == Packing::Gzip
    }
}

/// Signatures of what is not unpacked.
const OTHERS: &[(&[u8], &str)] = &[
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (&[0x04, 0x22, 0x4d, 0x18], "lz4"),
    (b"\x89LZO\0\r\n\x1a\n", "lzop"),
    (b"LZIP", "lzip"),
    (b"LRZI", "lrzip"),
    (b"\x5d\0\0", "lzma"),
];

/// Unpacks a stream as its first bytes ask for.
///
/// # Errors
/// [`Error::Unsupported`] for another compression.
pub fn unpack<'a>(mut input: impl BufRead + 'a) -> Result<(Packing, Box<dyn Read + 'a>), Error> {
    let head = input.fill_buf()?;
    if head.starts_with(b"\x1f\x8b\x08") {
        let unpacked = flate2::bufread::MultiGzDecoder::new(input);
        return Ok((Packing::Gzip, Box::new(unpacked)));
    }
    if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let unpacked = zstd::stream::read::Decoder::with_buffer(input).map_err(io::Error::other)?;
        return Ok((Packing::Zstd, Box::new(unpacked)));
    }
    if let Some((_, name)) = OTHERS.iter().find(|(bytes, _)| head.starts_with(bytes)) {
        return Error::unsupported(
            format!("it is compressed with {name}"),
            "Unpack it, or compress it with gzip or zstd instead, and import the result.",
        );
    }
    Ok((Packing::Plain, Box::new(input)))
}

#[cfg(test)]
mod tests {
    use super::{Packing, unpack};
    use std::io::{Read, Write};

    fn packed() -> [(Packing, Vec<u8>); 2] {
        let text = b"some text some text".repeat(99);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&text).unwrap();
        let gzip = gzip.finish().unwrap();
        let zstd = zstd::stream::encode_all(&text[..], 1).unwrap();
        [(Packing::Gzip, gzip), (Packing::Zstd, zstd)]
    }

    #[test]
    fn members_and_frames_follow_each_other() {
        for (packing, bytes) in packed() {
            let twice = bytes.repeat(2);
            let (found, mut reader) = unpack(&twice[..]).unwrap();
            let mut text = Vec::new();
            reader.read_to_end(&mut text).unwrap();
            assert_eq!((found, text.len()), (packing, 19 * 99 * 2));
        }
        let (found, _) = unpack(&b"partclone"[..]).unwrap();
        assert_eq!(found, Packing::Plain);
        assert!(unpack(&b"BZh9"[..]).is_err());
    }

    #[test]
    fn a_torn_stream_does_not_end_well() {
        for (_, bytes) in packed() {
            for cut in 8..bytes.len() {
                let mut text = Vec::new();
                let (_, mut reader) = unpack(&bytes[..cut]).unwrap();
                assert!(reader.read_to_end(&mut text).is_err(), "cut at {cut}");
            }
        }
    }
}
