//! lz4 streams, frame by frame.
//!
//! Owns: that a frame which breaks off is an error. Does not own: blocks and checksums
//! (`lz4_flex`, which takes the end of the file between two blocks for the end of a frame).

use lz4_flex::frame::FrameDecoder;
use std::io::{self, ErrorKind, Read};

/// Counts what is read, and notes the end.
struct Watched<R> {
    input: R,
    bytes: u64,
    ended: bool,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buf)?;
        self.bytes += count as u64;
        self.ended |= count == 0 && !buf.is_empty();
        Ok(count)
    }
}

/// What is in an lz4 stream.
pub(crate) struct Lz4<R: Read> {
    frames: FrameDecoder<Watched<R>>,
    /// Where the last frame ended, if nothing came after it.
    frame_end: Option<u64>,
}

impl<R: Read> Lz4<R> {
    /// What is in this stream.
    pub(crate) fn new(input: R) -> Self {
        let watched = Watched {
            input,
            bytes: 0,
            ended: false,
        };
        Lz4 {
            frames: FrameDecoder::new(watched),
            frame_end: None,
        }
    }
}

impl<R: Read> Read for Lz4<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            let count = self.frames.read(buf)?;
            if count > 0 {
                self.frame_end = None;
                return Ok(count);
            }
            let input = self.frames.get_ref();
            if !input.ended {
                self.frame_end = Some(input.bytes);
            } else if self.frame_end == Some(input.bytes) {
                return Ok(0);
            } else {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
