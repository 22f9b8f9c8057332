//! Backup and restore of an ext4 disk, beside partclone piped to zstd.
//!
//! Owns: the disk (real files of this machine, about half full), the commands of both
//! sides, the table. Does not own: the measurement.
//!
//! All competitors of a case run alternately, in every round, so that a noisy machine
//! is noisy for all. A file is made durable by both sides (`sync FILE`; the imager does
//! so by itself), so is a disk. "Checked" peers use partclone's default checksums.

use crate::run::{self, Figures};
use crate::setting;
use e2e::built::Built;
use std::io;
use std::path::{Path, PathBuf};
use testkit::loopdev::{LoopDevice, Mounted};

/// A competitor: its name and its command.
pub type Side = (&'static str, String);

/// Measures everything and prints the tables.
pub fn measure(built: &Built) -> io::Result<()> {
    let runs = setting("BENCH_RUNS", 5) as usize;
    let size = setting("BENCH_MIB", 4096) << 20;
    let folder = tempfile::Builder::new()
        .prefix("deploy-bench-")
        .tempdir_in(scratch())?;
    let source_file = folder.path().join("source.img");
    let target_file = folder.path().join("target.img");
    println!(
        "\nDisk: ext4 of {} MiB, half full with files of /usr, loop devices",
        size >> 20
    );
    make_disk(&source_file, size)?;
    std::fs::File::create(&target_file)?.set_len(size)?;
    let source = LoopDevice::attach(&source_file, 512);
    let target = LoopDevice::attach(&target_file, 512);
    let (from, to) = (
        source.path().display().to_string(),
        target.path().display().to_string(),
    );
    let before = hash_of(&from)?;

    let imager = built.program("imager").display().to_string();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (ours, checked, bare) = (file("ours.img"), file("checked.zst"), file("bare.zst"));
    let partclone = |checks: &str, out: &str| {
        format!(
            "partclone.ext4 -c {checks} -q -L /dev/null -s {from} -o - | zstd -1 -T0 -q -f -o {out}"
        )
    };
    let to_file: Vec<Side> = vec![
        (
            "imager",
            format!("{imager} backup -q --overwrite {from} {ours}"),
        ),
        (
            "partclone | zstd -1 -T0",
            format!("{}; sync {checked}", partclone("", &checked)),
        ),
        (
            "partclone -a0 | zstd -1 -T0",
            format!("{}; sync {bare}", partclone("-a0", &bare)),
        ),
    ];
    let to_null: Vec<Side> = vec![
        ("imager", format!("{imager} backup -q {from} - > /dev/null")),
        ("partclone | zstd -1 -T0", partclone("", "/dev/null")),
        ("partclone -a0 | zstd -1 -T0", partclone("-a0", "/dev/null")),
    ];
    let put_back = |name: &str| {
        format!("zstd -dc -q {name} | partclone.restore -q -L /dev/null -s - -o {to}; sync {to}")
    };
    let restore: Vec<Side> = vec![
        (
            "imager (read back)",
            format!("{imager} restore -q --yes --save-tables none {ours} {to}"),
        ),
        (
            "imager --no-verify",
            format!("{imager} restore -q --yes --no-verify --save-tables none {ours} {to}"),
        ),
        ("zstd -dc | partclone.restore", put_back(&checked)),
        ("the same, image without checks", put_back(&bare)),
    ];
    let warm = format!("cat {from} > /dev/null");
    let warm_images = format!("cat {ours} {checked} {bare} > /dev/null");
    let cold = "sync; echo 3 > /proc/sys/vm/drop_caches".to_owned();
    case("backup to a file, warm cache", &to_file, &warm, runs)?;
    case("backup to /dev/null, warm cache", &to_null, &warm, runs)?;
    case("backup to a file, cold cache", &to_file, &cold, runs)?;
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

    println!("\nImage sizes in bytes:");
    for (name, path) in [
        ("imager", &ours),
        ("partclone | zstd", &checked),
        ("partclone -a0 | zstd", &bare),
    ] {
        println!("  {:<30} {:>12}", name, std::fs::metadata(path)?.len());
    }
    println!(
        "Source disk: {}",
        if hash_of(&from)? == before {
            "unchanged"
        } else {
            "CHANGED"
        }
    );
    run::plain(&format!("e2fsck -fn {to}"))?;
    println!("Restored disk: e2fsck finds nothing");
    Ok(())
}

/// Where the disks are made: beside other temporary files, unless told otherwise.
pub fn scratch() -> PathBuf {
    std::env::var_os("BENCH_DIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from)
}

fn make_disk(path: &Path, size: u64) -> io::Result<()> {
    std::fs::File::create(path)?.set_len(size)?;
    run::plain(&format!(
        "mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 {}",
        path.display()
    ))?;
    let device = LoopDevice::attach(path, 512);
    let mounted = Mounted::new(device.path(), "rw");
    // Files in the order of their names until the disk is half full.
    let half = size / 2;
    run::plain(&format!(
        "cd /usr; find . -xdev -type f -size -64M -printf '%s %p\\n' | LC_ALL=C sort -k2 | \
         awk -v half={half} '{{sum += $1 + 4096; if (sum > half) next; sub(/^[0-9]+ /, \"\"); print}}' | \
         cpio -pdm --quiet {}",
        mounted.path().display()
    ))
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

/// Runs all sides of a case in turns and prints their medians; ratios are to the first.
pub fn case(title: &str, sides: &[Side], prepare: &str, runs: usize) -> io::Result<()> {
    let mut results: Vec<Vec<Figures>> = vec![Vec::new(); sides.len()];
    for _ in 0..runs {
        for ((_, script), results) in sides.iter().zip(&mut results) {
            run::plain(prepare)?;
            results.push(run::timed(script)?);
        }
    }
    println!("\n{title} (median of {runs})");
    println!(
        "  {:<32} {:>8} {:>15} {:>8} {:>10} {:>16}",
        "", "wall s", "(min-max)", "CPU s", "peak MiB", "time / imager's"
    );
    let ours = results.first().map(|runs| run::median(runs).wall);
    for ((name, _), runs) in sides.iter().zip(&results) {
        let (figures, (low, high)) = (run::median(runs), run::spread(runs));
        println!(
            "  {:<32} {:>8.2} {:>15} {:>8.2} {:>10.1} {:>16.2}",
            name,
            figures.wall,
            format!("{low:.2}-{high:.2}"),
            figures.cpu,
            figures.peak_kib as f64 / 1024.0,
            figures.wall / ours.unwrap_or(f64::NAN)
        );
    }
    Ok(())
}
