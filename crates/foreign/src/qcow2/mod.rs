//! qcow2 files as disks.
//!
//! Owns: reading the active disk of a file at any offset: standard, zero and compressed
//! clusters, and a backing disk behind it. Does not own: where the backing disk comes from,
//! internal snapshots (they are counted), writing.

mod cache;
mod header;

use crate::Error;
use crate::bytes::be64;
use cache::Cache;
use diskmap::DiskRead;
use header::{Compression, Header};
use std::io::{self, Read};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Bits of an entry that hold an offset.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
/// The cluster reads as zeros, whatever its offset.
const ZERO: u64 = 1;

/// A disk that gives what a qcow2 file does not hold.
pub struct Backing {
    /// The disk.
    pub disk: Box<dyn DiskRead>,
    /// Its size in bytes; behind it there are zeros.
    pub size: u64,
}

/// How a qcow2 file names its backing disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackingName {
    /// The name as it stands in the file: most often a path.
    pub name: String,
    /// `raw`, `qcow2` and so on, if the file says.
    pub format: Option<String>,
}

/// An open qcow2 file.
pub struct Qcow2<S> {
    file: S,
    file_len: u64,
    header: Header,
    /// Offsets of the second-level tables; 0 is none.
    tables: Vec<u64>,
    backing: Option<Backing>,
    cache: Mutex<Cache>,
}

/// Where the bytes of a cluster are.
enum Place {
    /// In the file at this offset.
    Plain(u64),
    /// In the file, compressed, in no more than these bytes.
    Compressed(Range<u64>),
    Zero,
    /// In the backing disk, or nowhere.
    Absent,
}

impl<S: DiskRead> Qcow2<S> {
    /// Opens a file of `file_len` bytes. `find` is asked for the backing disk, if the file
    /// has one.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for what is not read, [`Error::Damaged`], or what `find` says.
    pub fn open(
        file: S,
        file_len: u64,
        find: &mut dyn FnMut(&BackingName) -> Result<Backing, Error>,
    ) -> Result<Self, Error> {
        let mut bytes = vec![0; file_len.min(Header::BYTES as u64) as usize];
        file.read_exact_at(0, &mut bytes)?;
        let header = Header::parse(&bytes, file_len)?;
        let mut raw = vec![0; (header.l1_entries * 8) as usize];
        file.read_exact_at(header.l1_offset, &mut raw)
            .map_err(|e| Error::torn_or_io(e, || "its first table is torn".into()))?;
        let cluster = 1u64 << header.cluster_bits;
        let tables: Vec<u64> = raw.chunks_exact(8).map(|e| be64(e, 0) & OFFSET).collect();
        let inside = |&&at: &&u64| {
            at % cluster != 0 || at.checked_add(cluster).is_none_or(|end| end > file_len)
        };
        if let Some(at) = tables.iter().find(inside) {
            return Error::damaged(format!("a table at byte {at} of {file_len}: it is torn"));
        }
        let mut disk = Qcow2 {
            cache: Mutex::new(Cache::new(cluster as usize)),
            file,
            file_len,
            header,
            tables,
            backing: None,
        };
        if let Some(name) = disk.backing_name()? {
            disk.backing = Some(find(&name)?);
        }
        Ok(disk)
    }

    /// Size of the disk in bytes.
    pub fn size(&self) -> u64 {
        self.header.size
    }

    /// Version of the format.
    pub fn version(&self) -> u32 {
        self.header.version
    }

    /// Internal snapshots, which this does not read.
    pub fn snapshots(&self) -> u32 {
        self.header.snapshots
    }

    fn backing_name(&self) -> Result<Option<BackingName>, Error> {
        let Some((at, len)) = self.header.backing else {
            return Ok(None);
        };
        let torn = |e| Error::torn_or_io(e, || "the name of its backing file is torn".into());
        let mut name = vec![0; len as usize];
        self.file.read_exact_at(at, &mut name).map_err(torn)?;
        let name = String::from_utf8(name).map_err(|_| Error::Damaged {
            what: "the name of its backing file is no text".into(),
        })?;
        // Extensions stand between the header and the name.
        let from = u64::from(self.header.length);
        let mut bytes = vec![0; at.saturating_sub(from) as usize];
        self.file.read_exact_at(from, &mut bytes).map_err(torn)?;
        let format = header::backing_format(&bytes);
        Ok(Some(BackingName { name, format }))
    }

    fn cluster(&self) -> u64 {
        1 << self.header.cluster_bits
    }

    /// Where a cluster of the disk is.
    fn place(&self, cache: &mut Cache, number: u64) -> Result<Place, Error> {
        let per_table = self.cluster() / 8;
        let table = usize::try_from(number / per_table).ok();
        let at = table.and_then(|n| self.tables.get(n)).copied().unwrap_or(0);
        if at == 0 {
            return Ok(Place::Absent);
        }
        let table = cache.table(at, |buf| {
            self.file
                .read_exact_at(at, buf)
                .map_err(|e| Error::torn_or_io(e, || format!("a table at byte {at} is torn")))
        })?;
        let entry = be64(table, (number % per_table * 8) as usize);
        if entry & COMPRESSED != 0 {
            return self.compressed_place(entry);
        }
        if entry & ZERO != 0 {
            // Before version 3 there was no such mark: a torn table, or a changed version.
            return match self.header.version {
                2 => Error::damaged(format!(
                    "cluster {number} is marked as zeros, which version 2 has not"
                )),
                _ => Ok(Place::Zero),
            };
        }
        let at = entry & OFFSET;
        if at == 0 {
            return Ok(Place::Absent);
        }
        if !at.is_multiple_of(self.cluster()) {
            return Error::damaged(format!(
                "cluster {number} at byte {at}, which is no cluster"
            ));
        }
        Ok(Place::Plain(at))
    }

    fn compressed_place(&self, entry: u64) -> Result<Place, Error> {
        // Offset below, number of further sectors of 512 bytes above.
        let bits = 62 - (self.header.cluster_bits - 8);
        let at = entry & ((1 << bits) - 1);
        let sectors = (entry & !(COMPRESSED | 1 << 63)) >> bits;
        let end = (at / 512 + sectors + 1) * 512;
        // The last one need not fill its sectors.
        let end = end.min(self.file_len);
        if at >= end {
            return Error::damaged(format!("a compressed cluster at byte {at}, behind the end"));
        }
        Ok(Place::Compressed(at..end))
    }

    fn unpack(&self, range: &Range<u64>, out: &mut [u8]) -> Result<(), Error> {
        let mut packed = vec![0; (range.end - range.start) as usize];
        self.file.read_exact_at(range.start, &mut packed)?;
        let mut input = packed.as_slice();
        let done = match self.header.compression {
            Compression::Deflate => flate2::bufread::DeflateDecoder::new(input).read_exact(out),
            Compression::Zstd => zstd::stream::read::Decoder::with_buffer(&mut input)
                .and_then(|mut decoder| decoder.read_exact(out)),
        };
        done.map_err(|e| Error::Damaged {
            what: format!(
                "the compressed cluster at byte {} is damaged: {e}",
                range.start
            ),
        })
    }

    fn absent(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let held = match &self.backing {
            None => 0,
            Some(backing) => backing.size.saturating_sub(offset).min(buf.len() as u64) as usize,
        };
        let (there, behind) = buf.split_at_mut(held);
        behind.fill(0);
        match &self.backing {
            Some(backing) if held > 0 => backing.disk.read_exact_at(offset, there),
            _ => Ok(()),
        }
    }

    /// Reads a run of clusters that stand one behind the other in the file.
    fn plain(&self, at: u64, buf: &mut [u8]) -> Result<(), Error> {
        self.file
            .read_exact_at(at, buf)
            .map_err(|e| Error::torn_or_io(e, || format!("data at byte {at} is torn")))
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let size = self.cluster();
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            let inside = at % size;
            let mut len = rest.len().min((size - inside) as usize);
            let place = self.place(&mut cache, at / size)?;
            if let Place::Plain(start) = place {
                while len < rest.len() {
                    let next = self.place(&mut cache, (at + len as u64) / size)?;
                    let follows = start + inside + len as u64;
                    if !matches!(next, Place::Plain(there) if there == follows) {
                        break;
                    }
                    len += (rest.len() - len).min(size as usize);
                }
            }
            let (part, after) = rest.split_at_mut(len);
            match place {
                Place::Plain(start) => self.plain(start + inside, part)?,
                Place::Zero => part.fill(0),
                Place::Absent => self.absent(at, part)?,
                Place::Compressed(range) => {
                    let whole = cache.unpacked(range.start, |out| self.unpack(&range, out))?;
                    let inside = inside as usize;
                    part.copy_from_slice(&whole[inside..inside + len]);
                }
            }
            at += len as u64;
            rest = after;
        }
        Ok(())
    }
}

impl<S: DiskRead> DiskRead for Qcow2<S> {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        match offset.checked_add(buf.len() as u64) {
            Some(end) if end <= self.header.size => self.read(offset, buf),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

#[cfg(test)]
mod tests;
