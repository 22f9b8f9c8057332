//! partclone images as streams of blocks.
//!
//! Owns: reading an image of format 0001 or 0002 from its start to its end: which blocks it
//! holds, the blocks, and every checksum. Does not own: unpacking ([`crate::unpack`]), where
//! the blocks go.

mod checksum;
mod header;

use crate::Error;
use checksum::{Running, Way};
use diskmap::{Extent, Extents};
use header::{Bitmap, PREFIX};
use std::io::{self, Read};

pub use checksum::Mode;
pub use header::Header;
pub(crate) use header::MAGIC;

/// Runs of blocks that are taken at most: 32 bytes of memory each while they are read.
const MAX_RUNS: usize = 1 << 23;
/// Bytes that are read at once.
const PIECE: usize = 1 << 20;

/// An image whose blocks are to be read.
pub struct Partclone<R> {
    input: R,
    header: Header,
    held: Extents,
}

/// Whether an image begins like this.
pub fn is_partclone(head: &[u8]) -> bool {
    head.starts_with(MAGIC)
}

/// Fills `buf`; an input that ends or is broken is damage, a medium that fails is not.
fn fill(input: &mut impl Read, buf: &mut [u8], what: &str) -> Result<(), Error> {
    input.read_exact(buf).map_err(|e| broken(e, what))
}

fn broken(error: io::Error, what: &str) -> Error {
    match (error.raw_os_error(), error.kind()) {
        (Some(_), _) => Error::Io(error),
        (None, io::ErrorKind::UnexpectedEof) => Error::Damaged {
            what: format!("it is torn: {what} is not all there"),
        },
        // What unpacks says so of bytes that make no sense.
        (None, _) => Error::Damaged {
            what: format!("{what} cannot be unpacked: {error}"),
        },
    }
}

impl<R: Read> Partclone<R> {
    /// Reads the header and the list of blocks, of an image of a partition of up to `longest`
    /// bytes: a list can be as long as its header says.
    ///
    /// # Errors
    /// [`Error::Damaged`], also for an input that ends early; [`Error::Unsupported`].
    pub fn open(mut input: R, longest: u64) -> Result<Self, Error> {
        let mut bytes = vec![0; PREFIX];
        fill(&mut input, &mut bytes, "its header")?;
        bytes.resize(Header::length(&bytes)?, 0);
        fill(&mut input, &mut bytes[PREFIX..], "its header")?;
        let header = Header::parse(&bytes)?;
        if header.size > longest {
            return Error::damaged(format!(
                "it is an image of {} bytes, its partition has {longest}",
                header.size
            ));
        }
        let held = match header.bitmap {
            Bitmap::Bits => read_bits(&mut input, &header)?,
            Bitmap::Bytes => read_bytes(&mut input, &header)?,
        };
        Ok(Partclone {
            input,
            header,
            held,
        })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The bytes of the partition that the image holds.
    pub fn held(&self) -> &Extents {
        &self.held
    }

    /// Whether a changed byte of a block can be noticed by the image's own checksums.
    pub fn is_checked(&self) -> bool {
        matches!(self.header.mode, Mode::Crc32 | Mode::Xxh64)
    }

    /// Hands over every byte that is held, in ascending order: offset in the partition, bytes.
    /// They are right only if this returns `Ok`: checksums come after what they cover.
    ///
    /// # Errors
    /// As [`Partclone::open`], and what `out` says.
    pub fn copy(mut self, out: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>) -> Result<(), Error> {
        if self.header.mode == Mode::Format1 {
            self.copy_format_1(out)?;
        } else {
            self.copy_strips(out)?;
        }
        // A packed stream is known to be whole only at its end.
        match self.input.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Error::damaged("something stands behind its last block"),
            Err(error) => Err(broken(error, "its end")),
        }
    }

    fn copy_strips(
        &mut self,
        out: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> Result<(), Error> {
        let strip = match self.header.mode {
            Mode::None => u64::MAX,
            _ => u64::from(self.header.strip) * u64::from(self.header.block_size),
        };
        let mut sum = Running::new(self.header.mode);
        let mut stored = vec![0; sum.size()];
        let mut piece = vec![0; PIECE];
        let mut left = strip;
        for extent in &self.held {
            let mut at = extent.start;
            while at < extent.end() {
                let len = (extent.end() - at).min(left).min(PIECE as u64) as usize;
                let part = &mut piece[..len];
                fill(&mut self.input, part, "its data")?;
                sum.update(part);
                out(at, part)?;
                at += len as u64;
                left -= len as u64;
                if left == 0 {
                    check(&mut self.input, &sum, &mut stored, at)?;
                    left = strip;
                    if self.header.reseed {
                        sum = Running::new(self.header.mode);
                    }
                }
            }
        }
        if left < strip {
            check(&mut self.input, &sum, &mut stored, self.held.end())?;
        }
        Ok(())
    }

    /// A checksum behind each block, of 4 bytes or, by a mistake of early programs, 8; which
    /// and how it is made shows at the second block.
    fn copy_format_1(
        &mut self,
        out: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> Result<(), Error> {
        let size = self.header.block_size as usize;
        let mut block = vec![0; size];
        let mut ways: Vec<(Way, u32)> = Way::ALL.iter().map(|&way| (way, u32::MAX)).collect();
        // Bytes between a checksum and the next block, once that is known.
        let mut gap: Option<usize> = None;
        let mut number = 0u64;
        let input = &mut self.input;
        for at in self
            .held
            .iter()
            .flat_map(|e| (e.start..e.end()).step_by(size))
        {
            if gap.is_none() && number == 1 {
                // The block with the four bytes before it, and a checksum for each case.
                let mut near = vec![0; size + 4];
                fill(input, &mut near, "its data")?;
                let narrow = matching(&ways, &near[..size], &near[size..]);
                gap = Some(if narrow.is_empty() { 4 } else { 0 });
                if narrow.is_empty() {
                    block.copy_from_slice(&near[4..]);
                } else {
                    block.copy_from_slice(&near[..size]);
                    ways = narrow;
                    out(at, &block)?;
                    number += 1;
                    continue;
                }
            } else {
                if let Some(gap @ 1..) = gap {
                    fill(input, &mut [0; 8][..gap], "its data")?;
                }
                fill(input, &mut block, "its data")?;
            }
            let mut stored = [0; 4];
            fill(input, &mut stored, "its data")?;
            ways = matching(&ways, &block, &stored);
            if ways.is_empty() {
                return wrong(at);
            }
            out(at, &block)?;
            number += 1;
        }
        if number == 1 && gap.is_none() || gap == Some(4) {
            // Behind the last checksum the four bytes may stand once more.
            let mut rest = Vec::new();
            let read = input.take(4).read_to_end(&mut rest);
            read.map_err(|e| broken(e, "its end"))?;
            if !matches!(rest.len(), 0 | 4) {
                return Error::damaged("it is torn behind its last block");
            }
        }
        Ok(())
    }
}

/// Those of the ways that give the stored checksum, with it.
fn matching(ways: &[(Way, u32)], block: &[u8], stored: &[u8]) -> Vec<(Way, u32)> {
    let next = ways.iter().map(|&(way, sum)| (way, way.next(sum, block)));
    next.filter(|(_, sum)| sum.to_le_bytes() == *stored)
        .collect()
}

fn wrong<T>(at: u64) -> Result<T, Error> {
    Error::damaged(format!(
        "the checksum of the blocks before byte {at} of the partition is wrong"
    ))
}

fn check(input: &mut impl Read, sum: &Running, stored: &mut [u8], at: u64) -> Result<(), Error> {
    fill(input, stored, "its data")?;
    if sum.is(stored) { Ok(()) } else { wrong(at) }
}

/// Collects the blocks that are held, in order.
struct Collector {
    block: u64,
    held: Extents,
}

impl Collector {
    /// Blocks from `first` to before `end` are held.
    fn push(&mut self, first: u64, end: u64) -> Result<(), Error> {
        self.held
            .push(Extent::between(first * self.block, end * self.block));
        if self.held.len() > MAX_RUNS {
            return Error::unsupported(
                format!("its blocks are scattered over more than {MAX_RUNS} places"),
                "Restore it with partclone, and make a backup of that.",
            );
        }
        Ok(())
    }
}

fn read_bits(input: &mut impl Read, header: &Header) -> Result<Extents, Error> {
    let mut held = collector(header);
    let mut sum = Running::new(Mode::Crc32);
    let mut piece = vec![0; 1 << 16];
    let mut block = 0;
    while block < header.blocks {
        let bytes = (header.blocks - block).div_ceil(8).min(piece.len() as u64);
        let part = &mut piece[..bytes as usize];
        fill(input, part, "its list of blocks")?;
        sum.update(part);
        for byte in part {
            let end = (block + 8).min(header.blocks);
            match byte {
                0 => {}
                0xff => held.push(block, end)?,
                _ => {
                    let set = (block..end).filter(|n| *byte >> (n - block) & 1 == 1);
                    set.into_iter().try_for_each(|n| held.push(n, n + 1))?;
                }
            }
            block = end;
        }
    }
    let mut stored = [0; 4];
    fill(input, &mut stored, "its list of blocks")?;
    if !sum.is(&stored) {
        return Error::damaged("the checksum of its list of blocks is wrong");
    }
    Ok(held.held)
}

fn read_bytes(input: &mut impl Read, header: &Header) -> Result<Extents, Error> {
    let mut held = collector(header);
    let mut piece = vec![0; 1 << 16];
    let mut block = 0;
    while block < header.blocks {
        let bytes = (header.blocks - block).min(piece.len() as u64) as usize;
        let part = &mut piece[..bytes];
        fill(input, part, "its list of blocks")?;
        for byte in part {
            match byte {
                0 => {}
                1 => held.push(block, block + 1)?,
                _ => return Error::damaged(format!("block {block} is marked with {byte}")),
            }
            block += 1;
        }
    }
    let mut mark = [0; 8];
    fill(input, &mut mark, "its list of blocks")?;
    if mark != *b"BiTmAgIc" {
        return Error::damaged("its list of blocks does not end where it should");
    }
    Ok(held.held)
}

fn collector(header: &Header) -> Collector {
    Collector {
        block: u64::from(header.block_size),
        held: Extents::new(),
    }
}

#[cfg(test)]
mod tests;
