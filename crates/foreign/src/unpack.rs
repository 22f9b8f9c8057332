//! Compressed files as streams of what is in them.
//!
//! Owns: unpacking. Does not own: knowing a compression by its first bytes (`kind`), what is
//! inside.

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
}

impl Packing {
    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Packing::Plain => "nothing",
            Packing::Gzip => "gzip",
            Packing::Zstd => "zstd",
        }
    }

    /// Whether a damaged byte is always noticed when it is unpacked: gzip has a checksum.
    pub fn is_checked(self) -> bool {
        self == Packing::Gzip
    }
}

/// Longest window of a zstd stream that is unpacked: it is memory, and a few bytes can ask for
/// any amount.
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
        assert!(unpack(&b"BZh9"[..]).is_err());
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
