//! Backup and restore of a disk to and from a file, beside partclone piped to zstd.
//!
//! Owns: the disks (real files of this machine, about half full), the commands of both
//! sides, the tables. Does not own: the measurement.
//!
//! All competitors of a case run alternately, in every round, so that a noisy machine
//! is noisy for all. A file is made durable by both sides (`sync FILE`; the imager does
//! so by itself), so is a disk. "Checked" peers use partclone's default checksums.

use crate::run::{self, Figures};
use crate::{setting, slow};
use e2e::built::Built;
use std::io;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use testkit::loopdev::{LoopDevice, Mounted};

/// A competitor: its name and its command.
pub type Side = (&'static str, String);

/// A file system that disks are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// ext4.
    Ext4,
    /// NTFS.
    Ntfs,
    /// XFS.
    Xfs,
}

/// Those that were asked for (`BENCH_FS`, as `ext4,xfs`), or all.
pub fn kinds() -> Vec<Kind> {
    let asked = std::env::var("BENCH_FS").unwrap_or_default();
    let all = [Kind::Ext4, Kind::Ntfs, Kind::Xfs];
    let wanted = |kind: &Kind| asked.is_empty() || asked.split(',').any(|name| name == kind.name());
    all.into_iter().filter(wanted).collect()
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Ext4 => "ext4",
            Kind::Ntfs => "ntfs",
            Kind::Xfs => "xfs",
        }
    }

    /// Whether it is the one for what is measured once.
    pub fn is_first(self) -> bool {
        kinds().first() == Some(&self)
    }

    /// partclone with these checks, piped to zstd of this level, made durable.
    pub fn peer(self, checks: &str, level: u8, from: &str, out: &str) -> String {
        let piped = format!(
            "partclone.{} -c {checks} -q -L /dev/null -s {from} -o - | zstd -{level} -T0 -q -f -o {out}",
            self.name()
        );
        match out {
            "/dev/null" => piped,
            _ => format!("{piped}; sync {out}"),
        }
    }

    /// The same over the network, as plainly as it gets; `over` is the program that carries it.
    pub fn peer_over(self, checks: &str, level: u8, from: &str, over: &str, out: &str) -> String {
        format!(
            "partclone.{} -c {checks} -q -L /dev/null -s {from} -o - | zstd -{level} -T0 -q | {over} over {out}",
            self.name()
        )
    }

    /// The file system's own check of a restored disk.
    pub fn check(self, device: &str) -> io::Result<()> {
        run::plain(&match self {
            Kind::Ext4 => format!("e2fsck -fn {device}"),
            Kind::Ntfs => format!("ntfsfix -n {device}"),
            Kind::Xfs => format!("xfs_repair -n {device}"),
        })?;
        println!("  the restored disk: its own check finds nothing");
        Ok(())
    }

    fn mkfs(self, path: &Path) -> String {
        let path = path.display();
        match self {
            Kind::Ext4 => {
                format!("mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 {path}")
            }
            Kind::Ntfs => format!("mkntfs -q -Q -F {path}"),
            Kind::Xfs => format!("mkfs.xfs -q -f {path}"),
        }
    }
}

/// A folder with a disk to read and one to write.
pub struct Place {
    kind: Kind,
    source: LoopDevice,
    target: LoopDevice,
    size: u64,
    folder: TempDir,
}

impl Place {
    /// Makes both disks.
    pub fn make(kind: Kind) -> io::Result<Place> {
        Place::of_size(kind, setting("BENCH_MIB", 4096) << 20)
    }

    /// Makes both disks, of so many bytes.
    pub fn of_size(kind: Kind, size: u64) -> io::Result<Place> {
        let folder = tempfile::Builder::new()
            .prefix("deploy-bench-")
            .tempdir_in(scratch())?;
        let source = folder.path().join("source.img");
        let target = folder.path().join("target.img");
        make_disk(kind, &source, size)?;
        std::fs::File::create(&target)?.set_len(size)?;
        Ok(Place {
            kind,
            source: LoopDevice::attach(&source, 512),
            target: LoopDevice::attach(&target, 512),
            size,
            folder,
        })
    }

    /// Paths of the disk to read and the one to write.
    pub fn devices(&self) -> (String, String) {
        let text = |device: &LoopDevice| device.path().display().to_string();
        (text(&self.source), text(&self.target))
    }

    /// Size of each disk in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where files of the run go.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it is, for headings.
    pub fn title(&self) -> String {
        format!(
            "{} of {} MiB, half full with files of /usr, loop devices",
            self.kind.name(),
            self.size >> 20
        )
    }
}

/// Measures everything and prints the tables.
pub fn measure(built: &Built) -> io::Result<()> {
    kinds().into_iter().try_for_each(|kind| one(built, kind))
}

fn one(built: &Built, kind: Kind) -> io::Result<()> {
    let runs = setting("BENCH_RUNS", 5) as usize;
    let place = Place::make(kind)?;
    println!("\nDisk: {}", place.title());
    let (from, to) = place.devices();
    let before = hash_of(&from)?;

    let imager = built.program("imager").display().to_string();
    let file = |name: &str| place.folder().join(name).display().to_string();
    let (ours, checked, bare) = (file("ours.img"), file("checked.zst"), file("bare.zst"));
    let backup =
        |level: u8| format!("{imager} backup -q --overwrite --level {level} {from} {ours}");
    let sides = |level: u8| -> Vec<Side> {
        vec![
            ("imager", backup(level)),
            (
                "partclone | zstd -T0",
                kind.peer("", level, &from, &checked),
            ),
            (
                "partclone -a0 | zstd -T0",
                kind.peer("-a0", level, &from, &bare),
            ),
        ]
    };
    let to_null: Vec<Side> = vec![
        ("imager", format!("{imager} backup -q {from} - > /dev/null")),
        ("partclone | zstd -T0", kind.peer("", 1, &from, "/dev/null")),
        (
            "partclone -a0 | zstd -T0",
            kind.peer("-a0", 1, &from, "/dev/null"),
        ),
    ];
    let restore: Vec<Side> = vec![
        (
            "imager --no-verify",
            format!("{imager} restore -q --yes --no-verify --save-tables none {ours} {to}"),
        ),
        (
            "imager (read back)",
            format!("{imager} restore -q --yes --save-tables none {ours} {to}"),
        ),
        ("zstd -dc | partclone.restore", put_back(&checked, &to)),
        ("the same, image without checks", put_back(&bare, &to)),
    ];
    let warm = format!("cat {from} > /dev/null");
    let warm_images = format!("cat {ours} {checked} {bare} > /dev/null");
    let cold = "sync; echo 3 > /proc/sys/vm/drop_caches".to_owned();
    case(
        "backup to a file, level 3, warm cache",
        &sides(3),
        &warm,
        runs,
    )?;
    sizes(&[
        ("imager", &ours),
        ("partclone", &checked),
        ("partclone -a0", &bare),
    ])?;
    case(
        "backup to a file, level 1, warm cache",
        &sides(1),
        &warm,
        runs,
    )?;
    sizes(&[
        ("imager", &ours),
        ("partclone", &checked),
        ("partclone -a0", &bare),
    ])?;
    case(
        "backup to /dev/null, level 1, warm cache",
        &to_null,
        &warm,
        runs,
    )?;
    case(
        "backup to a file, level 1, cold cache",
        &sides(1),
        &cold,
        runs,
    )?;
    case(
        "restore to a loop device, warm cache",
        &restore,
        &warm_images,
        runs,
    )?;
    case(
        "restore to a loop device, cold cache",
        &restore,
        &cold,
        runs,
    )?;
    read_back(&imager, kind, &place, &ours, runs)?;
    if kind.is_first() {
        slow::measure(&imager, &place, &ours, runs)?;
    }
    println!(
        "  source disk: {}",
        if hash_of(&from)? == before {
            "unchanged"
        } else {
            "CHANGED"
        }
    );
    kind.check(&to)
}

/// The read-back's share of a restore, beside one direct sequential read of the same bytes.
fn read_back(imager: &str, kind: Kind, place: &Place, image: &str, runs: usize) -> io::Result<()> {
    let (_, to) = place.devices();
    let map = place.folder().join("restored.json").display().to_string();
    let bench = std::env::current_exe()?.display().to_string();
    run::plain(&format!("{imager} map --json --extents {to} > {map}"))?;
    let restore =
        |more: &str| format!("{imager} restore -q --yes --save-tables none {more} {image} {to}");
    let sides: Vec<Side> = vec![
        (
            "one direct read of the used bytes",
            format!("{bench} read {to} {map} direct"),
        ),
        ("imager restore, read back", restore("")),
        ("imager restore --no-verify", restore("--no-verify")),
    ];
    let results = measured(&sides, &format!("cat {image} > /dev/null"), runs)?;
    let walls: Vec<f64> = results.iter().map(|runs| run::median(runs).wall).collect();
    let rows: Vec<_> = sides.iter().map(|(name, _)| *name).zip(results).collect();
    table(&format!("the read-back, {}", kind.name()), runs, &rows);
    if let [read, with, without] = walls[..] {
        println!(
            "  the read-back takes {:.2} s, {:.2} of one direct read",
            with - without,
            (with - without) / read
        );
    }
    Ok(())
}

/// An image put back by the peer, made durable.
pub fn put_back(image: &str, to: &str) -> String {
    format!("zstd -dc -q {image} | partclone.restore -q -L /dev/null -s - -o {to}; sync {to}")
}

/// Where the disks are made: beside other temporary files, unless told otherwise.
pub fn scratch() -> PathBuf {
    std::env::var_os("BENCH_DIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from)
}

fn make_disk(kind: Kind, path: &Path, size: u64) -> io::Result<()> {
    std::fs::File::create(path)?.set_len(size)?;
    run::plain(&kind.mkfs(path))?;
    let device = LoopDevice::attach(path, 512);
    // Files in the order of their names until the disk is half full.
    let half = size / 2;
    let fill = |folder: &Path| {
        run::plain(&format!(
            "cd /usr; find . -xdev -type f -size -64M -printf '%s %p\\n' | LC_ALL=C sort -k2 | \
             awk -v half={half} '{{sum += $1 + 4096; if (sum > half) next; sub(/^[0-9]+ /, \"\"); print}}' | \
             cpio -pdm --quiet {}",
            folder.display()
        ))
    };
    if kind == Kind::Ntfs {
        // By FUSE; the mount is gone when umount has returned.
        let folder = tempfile::tempdir()?;
        let at = folder.path().display().to_string();
        run::plain(&format!("ntfs-3g {} {at}", device.path().display()))?;
        let filled = fill(folder.path());
        run::plain(&format!("umount {at}; sync"))?;
        return filled;
    }
    let mounted = Mounted::new(device.path(), "rw");
    fill(mounted.path())
}

fn hash_of(device: &str) -> io::Result<String> {
    let output = std::process::Command::new("sha256sum")
        .arg(device)
        .output()?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(io::Error::other(format!("sha256sum {device} failed")))
    }
}

fn sizes(images: &[(&str, &str)]) -> io::Result<()> {
    let mut first = None;
    for (name, path) in images {
        let len = std::fs::metadata(path)?.len() as f64;
        let ours = *first.get_or_insert(len);
        println!(
            "  image of {name:<24} {len:>12} bytes, imager's is {:.4} of it",
            ours / len
        );
    }
    Ok(())
}

/// Runs all sides of a case in turns and prints their medians; ratios are to the first.
pub fn case(title: &str, sides: &[Side], prepare: &str, runs: usize) -> io::Result<()> {
    let results = measured(sides, prepare, runs)?;
    let rows: Vec<_> = sides.iter().map(|(name, _)| *name).zip(results).collect();
    table(title, runs, &rows);
    Ok(())
}

fn measured(sides: &[Side], prepare: &str, runs: usize) -> io::Result<Vec<Vec<Figures>>> {
    let mut results: Vec<Vec<Figures>> = vec![Vec::new(); sides.len()];
    for _ in 0..runs {
        for ((_, script), results) in sides.iter().zip(&mut results) {
            run::plain(prepare)?;
            results.push(run::timed(script)?);
        }
    }
    Ok(results)
}

/// Prints the medians of a case; ratios are to the first row.
pub fn table(title: &str, runs: usize, rows: &[(&str, Vec<Figures>)]) {
    println!("\n{title} (median of {runs})");
    println!(
        "  {:<36} {:>8} {:>15} {:>8} {:>10} {:>16}",
        "", "wall s", "(min-max)", "CPU s", "peak MiB", "time / first's"
    );
    let ours = rows.first().map(|(_, runs)| run::median(runs).wall);
    for (name, runs) in rows {
        let (figures, (low, high)) = (run::median(runs), run::spread(runs));
        println!(
            "  {:<36} {:>8.2} {:>15} {:>8.2} {:>10.1} {:>16.2}",
            name,
            figures.wall,
            format!("{low:.2}-{high:.2}"),
            figures.cpu,
            figures.peak_kib as f64 / 1024.0,
            figures.wall / ours.unwrap_or(f64::NAN)
        );
    }
}
