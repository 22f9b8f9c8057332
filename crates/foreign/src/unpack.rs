//! Compressed files as streams of what is in them.
//!
//! Owns: unpacking, in memory that the stream cannot choose. Does not own: knowing a
//! compression by its first bytes (`kind`), what is inside.

use crate::lz4::Lz4;
use crate::{Error, kind};
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
    /// xz, in one or more streams, with checksums or without.
    Xz(bool),
    /// bzip2, in one or more streams.
    Bzip2,
    /// lz4, in one or more frames, with checksums or without.
    Lz4(bool),
}

impl Packing {
    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Packing::Plain => "nothing",
            Packing::Gzip => "gzip",
            Packing::Zstd => "zstd",
            Packing::Xz(_) => "xz",
            Packing::Bzip2 => "bzip2",
            Packing::Lz4(_) => "lz4",
        }
    }

    /// Whether a damaged byte is always noticed when it is unpacked, because the compressed
    /// file has checksums.
    pub fn is_checked(self) -> bool {
        match self {
            Packing::Gzip | Packing::Bzip2 => true,
            Packing::Xz(checked) | Packing::Lz4(checked) => checked,
            Packing::Plain | Packing::Zstd => false,
        }
    }
}

/// Longest window of a stream that is unpacked: it is memory, and a few bytes can ask for any
/// amount.
const WINDOW_MAX: u64 = 128 << 20;

/// Window of a zstd stream by its first bytes, if its first frame says one.
fn window(head: &[u8]) -> Option<u64> {
    // Magic, descriptor; a frame that is one segment has no byte for the window.
    let frame = head.strip_prefix(&[0x28, 0xb5, 0x2f, 0xfd])?;
    let (&descriptor, rest) = frame.split_first()?;
    let byte = u64::from(*rest.first().filter(|_| descriptor & 0x20 == 0)?);
    let base = 1u64 << (10 + (byte >> 3));
    Some(base + base / 8 * (byte & 7))
}

/// Unpacks a stream as its first bytes ask for.
///
/// # Errors
/// [`Error::Unsupported`] for another compression.
pub fn unpack<'a>(mut input: impl BufRead + 'a) -> Result<(Packing, Box<dyn Read + 'a>), Error> {
    let head = input.fill_buf()?;
    if let Some(name) = kind::other_packing(head) {
        return Error::unsupported(
            format!("it is compressed with {name}"),
            "Unpack it, or compress it with gzip or zstd instead, and import the result.",
        );
    }
    match kind::packing(head) {
        Some(Packing::Gzip) => {
            let unpacked = flate2::bufread::MultiGzDecoder::new(input);
            Ok((Packing::Gzip, Box::new(unpacked)))
        }
        Some(Packing::Zstd) => {
            if window(head).is_some_and(|window| window > WINDOW_MAX) {
                return Error::unsupported(
                    "it is compressed by zstd with a window of more than 128 MiB",
                    "Unpack it with zstd -d --long=31, compress it again without --long, and import the result.",
                );
            }
            let decoder = zstd::stream::read::Decoder::with_buffer(input);
            let unpacked = decoder.map_err(io::Error::other)?;
            Ok((Packing::Zstd, Box::new(unpacked)))
        }
        Some(packing @ Packing::Xz(_)) => {
            // Beside the window the decoder wants less than 1 MiB.
            let limit = (WINDOW_MAX >> 10) as u32 + 1024;
            let unpacked = lzma_rust2::XzReader::new_mem_limit(input, true, limit);
            Ok((packing, Box::new(unpacked)))
        }
        Some(Packing::Bzip2) => {
            let unpacked = bzip2::bufread::MultiBzDecoder::new(input);
            Ok((Packing::Bzip2, Box::new(unpacked)))
        }
        Some(packing @ Packing::Lz4(_)) => Ok((packing, Box::new(Lz4::new(input)))),
        Some(Packing::Plain) | None => Ok((Packing::Plain, Box::new(input))),
    }
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
        // A frame that is to be skipped in front, as tools that work in parallel write it.
        let [_, (_, zstd)] = packed();
        let behind = [b"\x50\x2a\x4d\x18\x04\0\0\0size", &zstd[..]].concat();
        let (found, mut reader) = unpack(&behind[..]).unwrap();
        let mut text = Vec::new();
        reader.read_to_end(&mut text).unwrap();
        assert_eq!((found, text.len()), (Packing::Zstd, 19 * 99));
        let (found, _) = unpack(&b"partclone"[..]).unwrap();
        assert_eq!(found, Packing::Plain);
        assert!(unpack(&b"\x5d\0\0\x80\0"[..]).is_err());
    }

    /// It is no damage, and its reader would call it so.
    #[test]
    fn a_stream_with_a_long_window_is_called_that() {
        for (log, good) in [(27, true), (28, false), (31, false)] {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(log).unwrap();
            encoder.write_all(b"some text").unwrap();
            let bytes = encoder.finish().unwrap();
            match unpack(&bytes[..]) {
                Ok((_, mut reader)) => {
                    let mut text = String::new();
                    reader.read_to_string(&mut text).unwrap();
                    assert!(good && text == "some text", "{log}");
                }
                Err(error) => {
                    assert!(!good && error.to_string().contains("window"), "{log}");
                }
            }
        }
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
