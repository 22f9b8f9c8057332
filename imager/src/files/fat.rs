//! FAT12, FAT16 and FAT32.
//!
//! Owns: boot sector, cluster chains and what [`Tree`] asks for. Does not own: names
//! (`names`).
//!
//! After Microsoft's specification of 2005. Times have no zone on the disk: they are taken
//! as UTC.

mod names;

use super::bytes::{le16, le32};
use super::{Besides, Fail, Item, Kind, MAX_ENTRIES, Node, Part, Piece, Sink, Time, Tree};
use names::Names;
use time::{Date, Month, PrimitiveDateTime};

/// Bytes of a directory entry.
const ENTRY: usize = 32;
/// Longest directory in bytes, and so in entries, that any system makes.
const MAX_DIRECTORY: u64 = 65_536 * ENTRY as u64;
/// Bytes of a file that are read at a time, at most.
const SHARE: u64 = 1 << 20;
const DIRECTORY: u8 = 0x10;
const LABEL: u8 = 0x08;

/// Width of a table entry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    W12,
    W16,
    W32,
}

/// One FAT file system; places are bytes from the partition's start.
pub struct Fat<'a> {
    part: &'a Part<'a>,
    width: Width,
    cluster: u64,
    clusters: u64,
    /// The table that counts.
    table: u64,
    /// First byte of cluster 2.
    data: u64,
    /// The root's place and length, or its first cluster.
    root: Root,
}

#[derive(Clone, Copy)]
enum Root {
    Fixed { at: u64, len: u64 },
    Chain(u32),
}

impl<'a> Fat<'a> {
    /// Opens it.
    pub fn open(part: &'a Part<'a>) -> Result<Self, Fail> {
        let boot = part.bytes(0, 512)?;
        let either = |short: usize, long: usize| match le16(&boot, short) {
            0 => u64::from(le32(&boot, long)),
            some => u64::from(some),
        };
        let sector = u64::from(le16(&boot, 11));
        let per_cluster = u64::from(boot[13]);
        let reserved = u64::from(le16(&boot, 14));
        let tables = u64::from(boot[16]);
        let root_len = u64::from(le16(&boot, 17)) * ENTRY as u64;
        let wide = le16(&boot, 22) == 0;
        let (total, table_len) = (either(19, 32), either(22, 36));
        let sane = matches!(sector, 512 | 1024 | 2048 | 4096)
            && per_cluster.is_power_of_two()
            && reserved > 0
            && (1..=4).contains(&tables)
            && table_len > 0
            && (wide == (root_len == 0));
        let first = reserved + tables * table_len + root_len.div_ceil(sector.max(1));
        if !sane || total <= first || total * sector > part.size() {
            return Err(Fail::damaged("its boot sector is damaged"));
        }
        let clusters = (total - first) / per_cluster;
        let width = match clusters {
            _ if wide => Width::W32,
            ..4085 => Width::W12,
            _ => Width::W16,
        };
        let bits = match width {
            Width::W12 => 12,
            Width::W16 => 16,
            Width::W32 => 32,
        };
        if (clusters + 2) * bits > table_len * sector * 8 {
            return Err(Fail::damaged("its table is too short"));
        }
        // With mirroring off one table counts; otherwise they are all alike.
        let flags = if wide { le16(&boot, 40) } else { 0 };
        let active = if flags & 0x80 != 0 {
            u64::from(flags & 15)
        } else {
            0
        };
        if active >= tables {
            return Err(Fail::damaged("its boot sector is damaged"));
        }
        Ok(Fat {
            part,
            width,
            cluster: per_cluster * sector,
            clusters,
            table: (reserved + active * table_len) * sector,
            data: first * sector,
            root: if wide {
                Root::Chain(le32(&boot, 44) & 0x0fff_ffff)
            } else {
                Root::Fixed {
                    at: (reserved + tables * table_len) * sector,
                    len: root_len,
                }
            },
        })
    }

    /// The cluster behind that one; none at the end of a chain.
    fn next(&self, cluster: u32) -> Result<Option<u32>, Fail> {
        let n = u64::from(cluster);
        let (value, end) = match self.width {
            Width::W12 => {
                let pair = le16(&self.part.bytes(self.table + n + n / 2, 2)?, 0);
                let value = if n % 2 == 0 { pair & 0xfff } else { pair >> 4 };
                (u32::from(value), 0xff8)
            }
            Width::W16 => (
                u32::from(le16(&self.part.bytes(self.table + 2 * n, 2)?, 0)),
                0xfff8,
            ),
            Width::W32 => {
                let raw = self.part.bytes(self.table + 4 * n, 4)?;
                (le32(&raw, 0) & 0x0fff_ffff, 0x0fff_fff8)
            }
        };
        if value >= end {
            return Ok(None);
        }
        self.place(value)?;
        Ok(Some(value))
    }

    /// Where a cluster stands.
    fn place(&self, cluster: u32) -> Result<u64, Fail> {
        let index = u64::from(cluster)
            .checked_sub(2)
            .filter(|&index| index < self.clusters);
        let index =
            index.ok_or_else(|| Fail::damaged(format!("its chain leads to cluster {cluster}")))?;
        Ok(self.data + index * self.cluster)
    }

    /// Gives the places of a chain of at most `len` bytes, runs joined, to `each`; tells
    /// how many bytes there were.
    fn chain(
        &self,
        first: u32,
        len: u64,
        each: &mut dyn FnMut(u64, u64) -> Result<(), Fail>,
    ) -> Result<u64, Fail> {
        let mut done = 0;
        let mut cluster = Some(first);
        let mut run: Option<(u64, u64)> = None;
        while done < len {
            let Some(here) = cluster else { break };
            let at = self.place(here)?;
            let part = self.cluster.min(len - done);
            run = match run {
                Some((start, size)) if start + size == at && size < SHARE => {
                    Some((start, size + part))
                }
                other => {
                    if let Some((start, size)) = other {
                        each(start, size)?;
                    }
                    Some((at, part))
                }
            };
            done += part;
            cluster = self.next(here)?;
        }
        if let Some((start, size)) = run {
            each(start, size)?;
        }
        Ok(done)
    }

    fn entry(&self, at: u64) -> Result<Vec<u8>, Fail> {
        self.part.bytes(at, ENTRY)
    }

    fn first_cluster(&self, entry: &[u8]) -> u32 {
        let high = if self.width == Width::W32 {
            u32::from(le16(entry, 20)) << 16
        } else {
            0
        };
        u32::from(le16(entry, 26)) | high
    }
}

/// The entry of the root, which has none.
const ROOT: u64 = 0;

impl Tree for Fat<'_> {
    fn root(&self) -> Result<Node, Fail> {
        Ok(Node {
            id: ROOT,
            kind: Kind::Directory,
            size: 0,
            mode: None,
            owner: None,
            modified: None,
            accessed: None,
            links: 1,
            besides: Besides::default(),
            at: ROOT,
        })
    }

    fn list(&self, directory: &Node) -> Result<Vec<Item>, Fail> {
        let mut names = Names::default();
        let mut items = Vec::new();
        let mut ended = false;
        let mut take = |at: u64, len: u64| {
            let raw = self.part.bytes(at, len as usize)?;
            for (index, entry) in raw.chunks_exact(ENTRY).enumerate() {
                ended |= entry[0] == 0;
                if ended {
                    return Ok(());
                }
                if let Some(name) = names.take(entry) {
                    if items.len() >= MAX_ENTRIES {
                        return Err(Fail::damaged("it has too many entries"));
                    }
                    items.push(Item {
                        name,
                        at: at + (index * ENTRY) as u64,
                    });
                }
            }
            Ok(())
        };
        let chain = if directory.at == ROOT {
            match self.root {
                Root::Fixed { at, len } => {
                    take(at, len)?;
                    return Ok(items);
                }
                Root::Chain(first) => first,
            }
        } else {
            self.first_cluster(&self.entry(directory.at)?)
        };
        let len = self.chain(chain, MAX_DIRECTORY + self.cluster, &mut take)?;
        if len > MAX_DIRECTORY.max(self.cluster) {
            return Err(Fail::damaged("the directory has no end"));
        }
        Ok(items)
    }

    fn node(&self, at: u64) -> Result<Node, Fail> {
        let entry = self.entry(at)?;
        let is_directory = entry[11] & DIRECTORY != 0;
        Ok(Node {
            // A directory is its chain, whichever entry leads to it.
            id: if is_directory {
                u64::from(self.first_cluster(&entry))
            } else {
                at | 1 << 63
            },
            kind: if is_directory {
                Kind::Directory
            } else {
                Kind::File
            },
            size: if is_directory {
                0
            } else {
                u64::from(le32(&entry, 28))
            },
            mode: None,
            owner: None,
            modified: time_of(le16(&entry, 24), le16(&entry, 22)),
            accessed: time_of(le16(&entry, 18), 0),
            links: 1,
            besides: Besides::default(),
            at,
        })
    }

    fn target(&self, _: &Node) -> Result<Vec<u8>, Fail> {
        Err(Fail::damaged("it is no link"))
    }

    fn content(&self, file: &Node, sink: &mut Sink<'_>) -> Result<(), Fail> {
        if file.size == 0 {
            return Ok(());
        }
        let first = self.first_cluster(&self.entry(file.at)?);
        let mut buf = Vec::new();
        self.chain(first, file.size, &mut |at, len| {
            buf.resize(len as usize, 0);
            self.part.content(at, &mut buf)?;
            sink(Piece::Data(&buf))
        })?;
        Ok(())
    }

    fn ignores_case(&self) -> bool {
        true
    }
}

/// None if it was never set, or is no time.
fn time_of(date: u16, time: u16) -> Option<Time> {
    let month = Month::try_from((date >> 5 & 15) as u8).ok()?;
    let date =
        Date::from_calendar_date(1980 + i32::from(date >> 9), month, (date & 31) as u8).ok()?;
    let (hour, minute, second) = (time >> 11, time >> 5 & 63, (time & 31) * 2);
    let clock = time::Time::from_hms(hour as u8, minute as u8, second as u8).ok()?;
    Some(Time {
        seconds: PrimitiveDateTime::new(date, clock)
            .assume_utc()
            .unix_timestamp(),
        nanos: 0,
    })
}

/// Whether an entry is one of a file or directory.
fn is_file(entry: &[u8]) -> bool {
    entry[0] != 0xe5 && entry[11] & LABEL == 0
}
