//! NTFS.
//!
//! Owns: what [`Tree`] asks for, and files that are links or stored in special ways. Does
//! not own: file records (`record`), where they stand (`table`), runs of clusters (`runs`),
//! directories (`index`).
//!
//! Structures after the documentation of the Linux-NTFS project. The log is not replayed:
//! what it would finish or undo was told at backup (`fs-dirty`).

mod index;
mod record;
mod runs;
mod table;

use super::bytes::{le16, le32, le64};
use super::{Besides, Fail, Item, Kind, Node, Part, Piece, Sink, Time, Tree};
use record::{Attribute, File, Stream};
use runs::Run;
use std::cell::RefCell;

/// Record of the root directory.
const ROOT: u64 = 5;
/// Records below this one are the file system's own.
const FIRST_USER: u64 = 16;
/// Bits of a file reference that are the record's number.
const NUMBER: u64 = 0xffff_ffff_ffff;
/// Bytes of a file that are read at a time.
const SHARE: u64 = 1 << 20;
/// Most bytes of a stream that is read whole: lists of attributes, targets of links, maps.
const WHOLE: u64 = 32 << 20;
/// 1970 in units of 100 ns since 1601.
const EPOCH: i128 = 116_444_736_000_000_000;

const STANDARD_INFORMATION: u32 = 0x10;
const FILE_NAME: u32 = 0x30;
const DATA: u32 = 0x80;
const REPARSE_POINT: u32 = 0xc0;
const EA: u32 = 0xe0;

const TAG_MOUNT_POINT: u32 = 0xa000_0003;
const TAG_SYMLINK: u32 = 0xa000_000c;
const TAG_COMPACT: u32 = 0x8000_0017;

/// One NTFS.
pub struct Ntfs<'a> {
    part: &'a Part<'a>,
    cluster: u64,
    clusters: u64,
    record_size: usize,
    /// The master file table.
    table: Vec<Run>,
    table_size: u64,
    /// The record that was read last: files are asked for several things in a row.
    last: RefCell<Option<std::rc::Rc<File>>>,
}

impl<'a> Ntfs<'a> {
    /// Opens it.
    pub fn open(part: &'a Part<'a>) -> Result<Self, Fail> {
        let boot = part.bytes(0, 512)?;
        let sector = u64::from(le16(&boot, 0x0b));
        let per_cluster = match boot[0x0d] {
            small @ ..=0x80 => u64::from(small),
            power => 1u64 << (0u8.wrapping_sub(power)).min(31),
        };
        let size_of = |stored: u8, cluster: u64| match stored.cast_signed() {
            clusters @ 1.. => u64::from(clusters.unsigned_abs()) * cluster,
            power => 1u64 << power.unsigned_abs().min(31),
        };
        let cluster = sector * per_cluster;
        let record_size = size_of(boot[0x40], cluster);
        let sane = &boot[3..11] == b"NTFS    "
            && matches!(sector, 512 | 1024 | 2048 | 4096)
            && cluster.is_power_of_two()
            && cluster <= 2 << 20
            && record_size.is_power_of_two()
            && (512..=65_536).contains(&record_size);
        if !sane {
            return Err(Fail::damaged("its boot sector is damaged"));
        }
        let mut fs = Ntfs {
            part,
            cluster,
            clusters: part.size() / cluster,
            record_size: record_size as usize,
            table: Vec::new(),
            table_size: 0,
            last: RefCell::default(),
        };
        // The first record is where the boot sector says; it tells where all are.
        let first = le64(&boot, 0x30);
        if first >= fs.clusters {
            return Err(Fail::damaged("its file table is outside"));
        }
        fs.open_table(first)?;
        Ok(fs)
    }

    /// Fills `buf` with a stream's bytes at `offset`, which must lie in its runs.
    fn read_runs(&self, runs: &[Run], mut offset: u64, buf: &mut [u8]) -> Result<(), Fail> {
        let mut done = 0;
        while done < buf.len() {
            let vcn = offset / self.cluster;
            let next = runs.partition_point(|run| run.at + run.count <= vcn);
            let run = runs.get(next).filter(|run| run.at <= vcn);
            let run = run.ok_or_else(|| Fail::damaged("clusters of a stream are missing"))?;
            let inside = offset - run.at * self.cluster;
            let left = run.count * self.cluster - inside;
            let part = left.min((buf.len() - done) as u64) as usize;
            let to = &mut buf[done..done + part];
            match run.cluster {
                Some(cluster) => self.part.read(cluster * self.cluster + inside, to)?,
                None => to.fill(0),
            }
            done += part;
            offset += part as u64;
        }
        Ok(())
    }

    /// All bytes of a stream.
    fn whole(&self, stream: &Stream) -> Result<Vec<u8>, Fail> {
        match stream {
            Stream::Resident { value, .. } => Ok(value.clone()),
            Stream::Clusters {
                runs,
                size,
                initialised,
                ..
            } => {
                if *size > WHOLE {
                    return Err(Fail::damaged(format!("{size} bytes are too many for it")));
                }
                let mut all = vec![0; *size as usize];
                let real = (*initialised).min(*size) as usize;
                self.read_runs(runs, 0, &mut all[..real])?;
                Ok(all)
            }
        }
    }

    fn file(&self, reference: u64) -> Result<std::rc::Rc<File>, Fail> {
        let number = reference & NUMBER;
        let last = self.last.borrow().as_ref().map(std::rc::Rc::clone);
        let file = match last.filter(|last| last.number == number) {
            Some(last) => last,
            None => {
                let file = std::rc::Rc::new(self.load(number)?);
                *self.last.borrow_mut() = Some(std::rc::Rc::clone(&file));
                file
            }
        };
        // Every name has to be right, also of a record that another name led to.
        let sequence = (reference >> 48) as u16;
        if sequence != 0 && file.sequence != sequence {
            return Err(Fail::damaged(
                "its name leads to a record that another file has now",
            ));
        }
        Ok(file)
    }

    /// What a file is a link to, or how it is stored: the tag and its data.
    fn reparse(&self, file: &File) -> Result<Option<(u32, Vec<u8>)>, Fail> {
        let Some(stream) = file.stream(REPARSE_POINT, &[])? else {
            return Ok(None);
        };
        let data = self.whole(&stream)?;
        Ok(Some((le32(&data, 0), data)))
    }
}

impl Tree for Ntfs<'_> {
    fn root(&self) -> Result<Node, Fail> {
        let root = self.node(ROOT)?;
        if root.kind != Kind::Directory {
            return Err(Fail::damaged("its root is no directory"));
        }
        Ok(root)
    }

    fn list(&self, directory: &Node) -> Result<Vec<Item>, Fail> {
        self.entries(&*self.file(directory.at)?)
    }

    fn node(&self, at: u64) -> Result<Node, Fail> {
        let file = self.file(at)?;
        let info = file.stream(STANDARD_INFORMATION, &[])?;
        let info = match &info {
            Some(Stream::Resident { value, .. }) => value,
            _ => return Err(Fail::damaged("its record has no times")),
        };
        let time = |place| {
            let ticks = i128::from(le64(info, place)) - EPOCH;
            Time {
                // Ticks of 64 bits are few enough seconds.
                seconds: ticks.div_euclid(10_000_000) as i64,
                nanos: ticks.rem_euclid(10_000_000) as u32 * 100,
            }
        };
        let link = self.reparse(&file)?.map(|(tag, _)| tag);
        let kind = match link {
            Some(TAG_SYMLINK | TAG_MOUNT_POINT) => Kind::Symlink,
            _ if file.is_directory => Kind::Directory,
            _ => Kind::File,
        };
        let size = match file.stream(DATA, &[])? {
            Some(stream) if kind == Kind::File => stream.size(),
            _ => 0,
        };
        // The short name of a file is no name of its own.
        let names = file
            .attributes
            .iter()
            .filter(|attribute| attribute.kind == FILE_NAME);
        let names = names.filter(|attribute| match &attribute.stream {
            Stream::Resident { value, .. } => value.get(0x41) != Some(&index::DOS),
            Stream::Clusters { .. } => false,
        });
        let streams = file
            .attributes
            .iter()
            .filter(|part| part.kind == DATA && !part.name.is_empty() && part.lowest == 0);
        Ok(Node {
            id: file.number,
            kind,
            size,
            mode: None,
            owner: None,
            modified: Some(time(8)),
            accessed: Some(time(0x18)),
            links: names.count() as u32,
            besides: Besides {
                streams: streams.count() as u32,
                attributes: file.attributes.iter().any(|one| one.kind == EA),
            },
            at,
        })
    }

    fn target(&self, link: &Node) -> Result<Vec<u8>, Fail> {
        let Some((tag, data)) = self.reparse(&*self.file(link.at)?)? else {
            return Err(Fail::damaged("it is no link"));
        };
        let buffer = if tag == TAG_SYMLINK { 20 } else { 16 };
        let part = |place: usize| {
            let from = buffer + usize::from(le16(&data, place));
            data.get(from..from + usize::from(le16(&data, place + 2)))
        };
        // The name for people, else the one for the system.
        let name = part(12).filter(|name| !name.is_empty()).or_else(|| part(8));
        let name = index::text(name.ok_or_else(|| Fail::damaged("a link without a target"))?);
        let name = name.strip_prefix(br"\??\").unwrap_or(&name).iter();
        let slashed = |&byte| if byte == b'\\' { b'/' } else { byte };
        Ok(name.map(slashed).collect())
    }

    fn content(&self, node: &Node, sink: &mut Sink<'_>) -> Result<(), Fail> {
        let file = self.file(node.at)?;
        match self.reparse(&file)? {
            None => {}
            Some((TAG_COMPACT, _)) => {
                let why = "it is compressed by Windows (compact), which is not read";
                return Err(Fail::Unsupported(why.to_owned()));
            }
            Some((tag, _)) => {
                return Err(Fail::Unsupported(format!(
                    "Windows keeps its content elsewhere or in a form of its own (tag {tag:#x})"
                )));
            }
        }
        match file.stream(DATA, &[])? {
            // Every file has one, be it empty.
            None => Err(Fail::damaged("it has no content, not even an empty one")),
            Some(Stream::Resident { value, .. }) => sink(Piece::Data(&value)),
            Some(Stream::Clusters {
                runs,
                size,
                initialised,
                flags,
            }) => {
                check_plain(flags)?;
                let real = initialised.min(size);
                self.give(&runs, real, sink)?;
                // Behind that stands what was on the disk before.
                match size - real {
                    0 => Ok(()),
                    zeros => sink(Piece::Hole(zeros)),
                }
            }
        }
    }

    fn ignores_case(&self) -> bool {
        true
    }
}

impl Ntfs<'_> {
    /// Gives the first `len` bytes of a stream.
    fn give(&self, runs: &[Run], len: u64, sink: &mut Sink<'_>) -> Result<(), Fail> {
        let mut done = 0;
        let mut buf = vec![0; SHARE.min(len) as usize];
        for run in runs {
            if done >= len {
                return Ok(());
            }
            if run.at * self.cluster != done {
                return Err(Fail::damaged("clusters of its content are missing"));
            }
            let here = (run.count * self.cluster).min(len - done);
            let Some(cluster) = run.cluster else {
                sink(Piece::Hole(here))?;
                done += here;
                continue;
            };
            let mut inside = 0;
            while inside < here {
                let share = SHARE.min(here - inside);
                let bytes = &mut buf[..share as usize];
                self.part.content(cluster * self.cluster + inside, bytes)?;
                sink(Piece::Data(bytes))?;
                inside += share;
            }
            done += here;
        }
        if done < len {
            return Err(Fail::damaged("clusters of its content are missing"));
        }
        Ok(())
    }
}

/// Refuses streams whose clusters do not hold their bytes as they are.
fn check_plain(flags: u16) -> Result<(), Fail> {
    let why = if flags & 0x4000 != 0 {
        "it is encrypted by NTFS"
    } else if flags & 0xff != 0 {
        "it is compressed by NTFS, which is not read"
    } else {
        return Ok(());
    };
    Err(Fail::Unsupported(why.to_owned()))
}

impl Attribute {
    /// Whether it is of that kind and name.
    fn is(&self, kind: u32, name: &[u8]) -> bool {
        self.kind == kind && self.name == name
    }
}
