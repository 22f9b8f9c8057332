//! Volume groups on loop devices, made by LVM2's own tools without device-mapper.
//!
//! Owns: tools that touch nothing but the given disks, and where a logical volume's bytes
//! lie by what they print. Does not own: what is written into the volumes.

use super::{ok, peek, poke, s, sparse};
use diskmap::{Extent, Extents};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use testkit::loopdev::LoopDevice;

/// Disks with a volume group `vg0` on them.
pub struct Group {
    /// Detached before the files go away.
    devices: Vec<LoopDevice>,
    pub disks: Vec<PathBuf>,
    pub dir: TempDir,
}

impl Group {
    /// Empty disks of `mib` MiB.
    pub fn empty(disks: usize, mib: u64) -> Group {
        let dir = tempfile::tempdir().unwrap();
        let disks: Vec<PathBuf> = (0..disks)
            .map(|i| sparse(&dir.path().join(format!("disk{i}")), mib << 20))
            .collect();
        let devices = disks.iter().map(|disk| LoopDevice::attach(disk, 512));
        Group {
            devices: devices.collect(),
            disks,
            dir,
        }
    }

    /// Disks with a group; `options` go to the making of the physical volumes.
    pub fn new(disks: usize, mib: u64, options: &[&str]) -> Group {
        let group = Group::empty(disks, mib);
        let devices = group.devices();
        let devices: Vec<&str> = devices.iter().map(String::as_str).collect();
        group.lvm("pvcreate", &[&["-y"], options, &devices].concat());
        group.lvm("vgcreate", &[&["vg0"], &devices[..]].concat());
        group
    }

    /// Names of the devices.
    pub fn devices(&self) -> Vec<String> {
        self.devices
            .iter()
            .map(|d| s(d.path()).to_string())
            .collect()
    }

    /// Runs a command of LVM2 on these disks alone; what it prints.
    pub fn lvm(&self, command: &str, args: &[&str]) -> String {
        let accept: String = self
            .devices()
            .iter()
            .map(|d| format!("\"a|^{d}$|\","))
            .collect();
        let filter = format!("[{accept}\"r|.*|\"]");
        let locks = self.dir.path().join("locks");
        std::fs::create_dir_all(&locks).unwrap();
        let config = format!(
            "devices {{ dir=\"/dev\" scan=[\"/dev\"] use_devicesfile=0 scan_lvs=0 \
             filter={filter} global_filter={filter} external_device_info_source=\"none\" }} \
             global {{ locking_dir=\"{}\" event_activation=0 }} \
             activation {{ monitoring=0 udev_sync=0 udev_rules=0 }} \
             backup {{ backup=0 archive=0 }}",
            s(&locks)
        );
        let fixed = [command, "--config", &config, "--driverloaded", "n"];
        ok("lvm", &[&fixed[..], args].concat())
    }

    /// Makes a logical volume of `extents` extents of 4 MiB.
    pub fn create(&self, name: &str, extents: u32, args: &[&str]) {
        let extents = extents.to_string();
        let fixed = ["-y", "-an", "-Zn", "-Wn", "-l", &extents, "-n", name];
        self.lvm("lvcreate", &[&fixed[..], &["vg0"], args].concat());
    }

    /// Changes the metadata as text, and has LVM2 check and write it.
    pub fn edit(&self, change: impl FnOnce(&str) -> String) {
        let path = self.dir.path().join("metadata");
        self.lvm("vgcfgbackup", &["-f", s(&path), "vg0"]);
        let text = std::fs::read_to_string(&path).unwrap();
        let changed = change(&text);
        assert_ne!(text, changed);
        std::fs::write(&path, changed).unwrap();
        self.lvm("vgcfgrestore", &["--force", "-f", s(&path), "vg0"]);
    }

    /// Adds logical volumes as text.
    pub fn add(&self, volumes: &str) {
        self.edit(|text| match text.split_once("logical_volumes {") {
            Some((before, behind)) => format!("{before}logical_volumes {{\n{volumes}{behind}"),
            None => text.replacen(
                "\n\t}\n",
                &format!("\n\t}}\nlogical_volumes {{\n{volumes}\n}}\n"),
                1,
            ),
        });
    }

    /// Rows of a report.
    fn rows(&self, command: &str, columns: &str, args: &[&str]) -> Vec<Vec<String>> {
        let fixed = [
            "--noheadings",
            "--separator",
            ";",
            "--units",
            "b",
            "--nosuffix",
            "-o",
            columns,
        ];
        let text = self.lvm(command, &[&fixed[..], args].concat());
        text.lines()
            .map(|line| {
                line.trim()
                    .split(';')
                    .map(|cell| cell.trim().to_string())
                    .collect()
            })
            .collect()
    }

    /// Start of the extents of a disk, and the size of one.
    fn extents(&self, disk: usize) -> (u64, u64) {
        let device = &self.devices()[disk];
        let row = self
            .rows("pvs", "pe_start,vg_extent_size", &[device])
            .remove(0);
        (row[0].parse().unwrap(), row[1].parse().unwrap())
    }

    /// Bytes of a disk outside of its extents, and its allocated extents.
    pub fn outside_and_allocated(&self, disk: usize) -> (Extents, Extents) {
        let (start, size) = self.extents(disk);
        let device = &self.devices()[disk];
        let args = ["--segments", device.as_str()];
        let (mut end, mut allocated) = (start, Extents::new());
        for row in self.rows("pvs", "pvseg_start,pvseg_size,lv_name", &args) {
            let (first, count): (u64, u64) = (row[0].parse().unwrap(), row[1].parse().unwrap());
            let extent = Extent {
                start: start + first * size,
                len: count * size,
            };
            end = extent.end();
            if !row[2].is_empty() {
                allocated.push(extent);
            }
        }
        let all = self.disks[disk].metadata().unwrap().len();
        let outside = Extents::from_iter([Extent::between(0, start), Extent::between(end, all)]);
        (outside, allocated)
    }

    /// Where the bytes of a logical volume lie, one piece behind the other, on the first
    /// disk.
    pub fn pieces(&self, volume: &str) -> Vec<Extent> {
        let (start, size) = self.extents(0);
        let columns = "seg_start_pe,seg_pe_ranges,stripe_size";
        let mut rows = self.rows("lvs", columns, &["--segments", &format!("vg0/{volume}")]);
        rows.sort_by_key(|row| row[0].parse::<u64>().unwrap());
        let mut pieces = Vec::new();
        for row in rows {
            let areas: Vec<(u64, u64)> = row[1]
                .split(' ')
                .map(|range| {
                    let (device, range) = range.split_once(':').unwrap();
                    assert_eq!(device, self.devices()[0]);
                    let (first, last) = range.split_once('-').unwrap();
                    let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
                    (start + first * size, (last + 1 - first) * size)
                })
                .collect();
            let stripe = match row[2].parse().unwrap() {
                0 => areas[0].1,
                stripe => stripe,
            };
            for at in (0..areas[0].1).step_by(stripe as usize) {
                pieces.extend(areas.iter().map(|area| Extent {
                    start: area.0 + at,
                    len: stripe,
                }));
            }
        }
        pieces
    }

    /// Writes a file into a logical volume.
    pub fn fill(&self, volume: &str, content: &Path) {
        let content = File::open(content).unwrap();
        let disk = OpenOptions::new().write(true).open(&self.disks[0]).unwrap();
        let mut at = 0;
        for piece in self.pieces(volume) {
            let mut buf = vec![0; piece.len as usize];
            content.read_exact_at(&mut buf, at).unwrap();
            disk.write_all_at(&buf, piece.start).unwrap();
            at += piece.len;
        }
        assert_eq!(at, content.metadata().unwrap().len());
    }
}

/// A logical volume as text: its status, and segments of `(type, fields)`.
pub fn volume(name: &str, visible: bool, segments: &[(u32, &str, &str)]) -> String {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let visible = if visible { ", \"VISIBLE\"" } else { "" };
    let mut text = format!(
        "{name} {{\nid = \"AAAAAA-AAAA-AAAA-AAAA-AAAA-AAAA-{number:06}\"\n\
         status = [\"READ\", \"WRITE\"{visible}]\nflags = []\nsegment_count = {}\n",
        segments.len()
    );
    let mut start = 0;
    for (i, (count, kind, fields)) in segments.iter().enumerate() {
        text += &format!(
            "segment{} {{\nstart_extent = {start}\nextent_count = {count}\ntype = \"{kind}\"\n\
             {fields}\n}}\n",
            i + 1
        );
        start += count;
    }
    text + "}\n"
}

/// Fields of a linear segment.
pub fn linear(first: u32) -> String {
    format!("stripe_count = 1\nstripes = [\"pv0\", {first}]")
}

/// Reads a logical volume out of a disk.
pub fn extract(disk: &Path, pieces: &[Extent], target: &Path) {
    let disk = File::open(disk).unwrap();
    let target = File::create(target).unwrap();
    let mut at = 0;
    for piece in pieces {
        let mut buf = vec![0; piece.len as usize];
        disk.read_exact_at(&mut buf, piece.start).unwrap();
        target.write_all_at(&buf, at).unwrap();
        at += piece.len;
    }
}

/// Bytes of a logical volume as bytes of its disk, a sector at a time: slow, and nothing
/// like what is tested.
pub fn placed(pieces: &[Extent], inner: &Extents) -> Extents {
    let sectors: Vec<u64> = pieces
        .iter()
        .flat_map(|piece| (piece.start..piece.end()).step_by(512))
        .collect();
    let inner = inner.iter().flat_map(|e| (e.start..e.end()).step_by(512));
    inner
        .map(|at| Extent {
            start: sectors[(at / 512) as usize],
            len: 512,
        })
        .collect()
}

/// The checksum of everything in LVM2.
fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(!0xf597_a6cf);
    hasher.update(bytes);
    !hasher.finalize()
}

/// Where the metadata area with that number starts; the label is in sector 1.
pub fn area(disk: &Path, number: u64) -> u64 {
    u64::from_le_bytes(peek(disk, 512 + 32 + 40 + 32 + 16 * number))
}

/// Offset and length of the text in force in an area.
pub fn text_place(disk: &Path, area: u64) -> (u64, u64) {
    let number = |at| u64::from_le_bytes(peek(disk, area + at));
    (number(40), number(48))
}

/// The text in force.
pub fn text_of(disk: &Path, number: u64) -> String {
    let area = area(disk, number);
    let (offset, len) = text_place(disk, area);
    let size = u64::from_le_bytes(peek(disk, area + 32));
    let bytes = (offset..offset + len).map(|at| {
        let [byte] = peek::<1>(disk, area + if at < size { at } else { at - size + 512 });
        byte
    });
    String::from_utf8(bytes.collect()).unwrap()
}

/// Puts a text in force, at the start of the ring.
pub fn put_text(disk: &Path, number: u64, text: &str) {
    let area = area(disk, number);
    poke(disk, area + 512, text.as_bytes());
    let mut header: [u8; 512] = peek(disk, area);
    header[40..48].copy_from_slice(&512u64.to_le_bytes());
    header[48..56].copy_from_slice(&(text.len() as u64).to_le_bytes());
    header[56..60].copy_from_slice(&checksum(text.as_bytes()).to_le_bytes());
    put_header(disk, area, &header);
}

/// Writes the header of an area with its checksum.
pub fn put_header(disk: &Path, area: u64, header: &[u8; 512]) {
    poke(disk, area, &checksum(&header[4..]).to_le_bytes());
    poke(disk, area + 4, &header[4..]);
}
