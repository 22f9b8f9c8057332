//! Images for smaller disks.
//!
//! Oracles: e2fsck, the kernel's mount, the hash of every file; partitions in front must
//! not change at all.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use testkit::build::{Tree, hashes_of};
use testkit::loopdev::{LoopDevice, Mounted};

const MIB: u64 = 1 << 20;

fn run(tool: &str, args: &[&str]) -> Output {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
    let output = Command::new(tool).env("PATH", path).args(args).output();
    output.unwrap_or_else(|e| panic!("{tool}: {e}; ./build.sh test installs it"))
}

fn ok(tool: &str, args: &[&str]) -> String {
    let output = run(tool, args);
    assert!(output.status.success(), "{tool} {args:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn imager(args: &[&str]) -> Output {
    run(env!("CARGO_BIN_EXE_imager"), args)
}

fn s(path: &Path) -> &str {
    path.to_str().unwrap()
}

struct Disk {
    dir: tempfile::TempDir,
    image: PathBuf,
    tree: Tree,
    sector: u32,
    /// First byte of the last partition.
    start: u64,
}

/// A disk of 400 MiB whose last partition is ext4 with data near its end, as an image.
fn disk(table: &str, sector: u32) -> Disk {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    File::create(&path).unwrap().set_len(400 * MIB).unwrap();
    let unit = MIB / u64::from(sector);
    // The last partition ends 2 MiB before the disk does.
    let (script, start) = match table {
        "gpt" => (
            format!(
                "label: gpt\nstart={unit}, size={}\nstart={}, size={}\n",
                8 * unit,
                9 * unit,
                389 * unit
            ),
            9 * MIB,
        ),
        "logical" => (
            format!(
                "label: dos\nstart={unit}, size={}, type=83\nstart={}, size={}, type=5\nstart={}, size={}, type=83\n",
                8 * unit,
                9 * unit,
                390 * unit,
                10 * unit,
                388 * unit
            ),
            10 * MIB,
        ),
        _ => (String::new(), 0),
    };
    if !script.is_empty() {
        let file = dir.path().join("script");
        std::fs::write(&file, script).unwrap();
        let whole = LoopDevice::attach(&path, sector);
        let command = format!(
            "sfdisk -q --no-reread --no-tell-kernel {} < {}",
            s(whole.path()),
            s(&file)
        );
        ok("sh", &["-c", &command]);
        drop(whole);
        let noise: Vec<u8> = (0..8 * MIB).map(|i| (i * 7 % 251) as u8).collect();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .write_all_at(&noise, MIB)
            .unwrap();
    }
    let size = match table {
        "gpt" => 389 * MIB,
        "logical" => 388 * MIB,
        _ => 400 * MIB,
    };
    let tree = Tree::new(3, 40, 2_000_000);
    {
        let part = LoopDevice::attach_at(&path, start, size, sector);
        ok("mkfs.ext4", &["-q", "-F", "-b", "4096", s(part.path())]);
        let mounted = Mounted::new(part.path(), "noatime");
        // Filled, then emptied again in front, so that what stays lies far back.
        let filler = mounted.path().join("filler");
        let block = vec![1u8; MIB as usize];
        let file = File::create(&filler).unwrap();
        (0..290).for_each(|i| file.write_all_at(&block, i * MIB).unwrap());
        file.sync_all().unwrap();
        tree.write_to(mounted.path());
        std::fs::remove_file(filler).unwrap();
    }
    let image = dir.path().join("image");
    let size = sector.to_string();
    let made = imager(&["backup", "-q", "--sector-size", &size, s(&path), s(&image)]);
    assert!(made.status.success(), "{made:?}");
    Disk {
        dir,
        image,
        tree,
        sector,
        start,
    }
}

impl Disk {
    fn shrink(&self, more: &[&str]) -> (Output, PathBuf) {
        let out = self.dir.path().join("small");
        let scratch = self.dir.path();
        let args = [
            "shrink",
            "-q",
            "--json",
            "--scratch",
            s(scratch),
            s(&self.image),
            s(&out),
        ];
        (imager(&[&args[..], more].concat()), out)
    }

    /// Restores onto a disk of exactly that size and compares everything.
    fn check(&self, image: &Path, bytes: u64) {
        let target = self.dir.path().join("target");
        File::create(&target).unwrap().set_len(bytes).unwrap();
        let sector = self.sector.to_string();
        let args = [
            "restore",
            "-q",
            "--sector-size",
            &sector,
            s(image),
            s(&target),
        ];
        let done = imager(&args);
        assert!(done.status.success(), "{done:?}");
        let part = LoopDevice::attach_at(&target, self.start, bytes - self.start, self.sector);
        let checked = run("e2fsck", &["-f", "-n", s(part.path())]);
        assert!(checked.status.success(), "{checked:?}");
        let mounted = Mounted::new(part.path(), "ro,noload");
        assert_eq!(hashes_of(mounted.path()), self.tree.hashes());
        drop(mounted);
        if self.start > 0 {
            let mut first = vec![0; 8 * MIB as usize];
            File::open(&target)
                .unwrap()
                .read_exact_at(&mut first, MIB)
                .unwrap();
            assert!((0..8 * MIB).all(|i| first[i as usize] == (i * 7 % 251) as u8));
        }
    }
}

fn field(output: &Output, name: &str) -> u64 {
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    value[name]
        .as_u64()
        .unwrap_or_else(|| panic!("{name} in {value}"))
}

#[test]
fn an_image_of_a_larger_disk_comes_to_fit_a_smaller_one() {
    for (table, sector) in [("gpt", 512), ("gpt", 4096), ("logical", 512), ("none", 512)] {
        let disk = disk(table, sector);
        let size = 200 * MIB;
        let (done, small) = disk.shrink(&["--to", &size.to_string()]);
        assert!(done.status.success(), "{table} {sector}: {done:?}");
        assert_eq!(field(&done, "disk_bytes"), size);
        disk.check(&small, size);
        // The old image is as it was.
        let args = ["verify", "-q", s(&disk.image)];
        assert!(imager(&args).status.success());
        let left: Vec<_> = std::fs::read_dir(disk.dir.path())
            .unwrap()
            .flatten()
            .collect();
        assert!(
            !left
                .iter()
                .any(|e| e.file_name().to_string_lossy().starts_with("imager-shrink"))
        );
    }
}

#[test]
fn the_smallest_is_really_what_it_says() {
    let disk = disk("gpt", 512);
    let (done, small) = disk.shrink(&[]);
    assert!(done.status.success(), "{done:?}");
    let bytes = field(&done, "disk_bytes");
    assert!(bytes < 150 * MIB, "{bytes}");
    disk.check(&small, bytes);
    // One sector less is refused, and says how much it takes.
    let target = disk.dir.path().join("less");
    File::create(&target).unwrap().set_len(bytes - 512).unwrap();
    let refused = imager(&["restore", "-q", "--json", s(&small), s(&target)]);
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    let text = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(
        text.contains("disk-too-small") && text.contains(&bytes.to_string()),
        "{text}"
    );
}

/// It stays encrypted, with the key that it carries.
#[test]
fn an_encrypted_image_comes_out_encrypted() {
    let disk = disk("gpt", 512);
    let path = |name: &str| disk.dir.path().join(name);
    let (id, key, sealed) = (path("id"), path("key"), path("sealed"));
    let made = imager(&["key", "new", "--identity", "--json", s(&id)]);
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    let recipient = made["recipient"].as_str().unwrap();
    let new = imager(&["key", "new", "--recipient", recipient, s(&key)]);
    assert!(new.status.success(), "{new:?}");
    let raw = s(&path("disk")).to_owned();
    let opens = ["--identity", s(&id)];
    let done = imager(
        &[
            &["backup", "-q", "--key", s(&key), &raw, s(&sealed)],
            &opens[..],
        ]
        .concat(),
    );
    assert!(done.status.success(), "{done:?}");
    let small = path("small");
    let shrink = [
        "shrink",
        "-q",
        "--scratch",
        s(disk.dir.path()),
        s(&sealed),
        s(&small),
    ];
    let refused = imager(&shrink);
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    assert!(!small.exists());
    let done = imager(&[&shrink, &opens[..]].concat());
    assert!(done.status.success(), "{done:?}");
    let info = imager(&["info", "--json", s(&small)]);
    let info: serde_json::Value = serde_json::from_slice(&info.stdout).unwrap();
    assert!(info["encrypted_with"].is_string(), "{info}");
    let plain = path("plain");
    let export = ["export", "-q", "--format", "raw", s(&small), s(&plain)];
    assert_eq!(imager(&export).status.code(), Some(3));
    let done = imager(&[&export, &opens[..]].concat());
    assert!(done.status.success(), "{done:?}");
    let bytes = plain.metadata().unwrap().len();
    assert!(bytes < 150 * MIB, "{bytes}");
    let part = LoopDevice::attach_at(&plain, disk.start, bytes - disk.start, 512);
    let mounted = Mounted::new(part.path(), "ro,noload");
    assert_eq!(hashes_of(mounted.path()), disk.tree.hashes());
}

#[test]
fn what_cannot_be_is_refused_and_leaves_nothing() {
    let disk = disk("gpt", 512);
    for (to, says) in [(60 * MIB, "smallest disk"), (900 * MIB, "fits that disk")] {
        let (refused, out) = disk.shrink(&["--to", &to.to_string()]);
        assert_eq!(refused.status.code(), Some(3), "{refused:?}");
        let text = String::from_utf8_lossy(&refused.stdout).into_owned();
        assert!(
            text.contains("disk-too-small") && text.contains(says),
            "{text}"
        );
        assert!(!out.exists());
    }
    let path = disk.dir.path().join("fat");
    File::create(&path).unwrap().set_len(64 * MIB).unwrap();
    ok("mkfs.fat", &["-F", "16", s(&path)]);
    let (image, out) = (
        disk.dir.path().join("fat.image"),
        disk.dir.path().join("fat.small"),
    );
    assert!(
        imager(&["backup", "-q", s(&path), s(&image)])
            .status
            .success()
    );
    let refused = imager(&[
        "shrink",
        "-q",
        "--scratch",
        s(disk.dir.path()),
        s(&image),
        s(&out),
    ]);
    assert_eq!(refused.status.code(), Some(3));
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("only ext2, ext3 and ext4 can"), "{text}");
    assert!(!out.exists());
}

/// A disk without a table that holds an ext4 with some files, as an image; `spoil` are
/// requests to debugfs.
fn spoilt(dir: &Path, spoil: &[&str]) -> PathBuf {
    let (path, image, file) = (dir.join("disk"), dir.join("image"), dir.join("file"));
    std::fs::write(&file, vec![7; 100_000]).unwrap();
    File::create(&path).unwrap().set_len(64 * MIB).unwrap();
    ok("mkfs.ext4", &["-q", "-F", "-b", "4096", s(&path)]);
    let write = format!("write {} victim", s(&file));
    for request in [&[write.as_str()], spoil].concat() {
        ok("debugfs", &["-w", "-R", request, s(&path)]);
    }
    assert!(
        imager(&["backup", "-q", s(&path), s(&image)])
            .status
            .success()
    );
    image
}

/// A repair can lose names and files: never without a word, and never where a person
/// would be asked.
#[test]
fn a_damaged_file_system_is_told_or_refused() {
    let cases: [(&[&str], i32); 3] = [
        (&[], 0),
        (&["clri victim"], 0),
        // A root that is no folder: all that is left is a guess.
        (&["clri <2>"], 3),
    ];
    for (spoil, exit) in cases {
        let dir = tempfile::tempdir().unwrap();
        let (image, out) = (spoilt(dir.path(), spoil), dir.path().join("small"));
        let args = ["shrink", "-q", "--json", "--scratch", s(dir.path())];
        let done = imager(&[&args[..], &[s(&image), s(&out)]].concat());
        assert_eq!(done.status.code(), Some(exit), "{spoil:?}: {done:?}");
        assert_eq!(out.exists(), exit == 0);
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        assert_eq!(text.contains("fs-damaged"), !spoil.is_empty(), "{text}");
        if spoil == ["clri victim"] {
            assert!(text.contains("victim"), "{text}");
        }
    }
}
