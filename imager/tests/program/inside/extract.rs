//! What `extract` refuses, replaces and leaves behind.

use super::{Made, noise, seen, tool};
use crate::bad_sectors::FaultyDevice;
use crate::disks::{self, MIB, copy, folder, peek, poke};
use crate::imager;
use crate::run::FAILED;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

fn small() -> Made {
    Made::new(16 * MIB, &["mkfs.ext4", "-q"], |root| {
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/file"), b"from the image").unwrap();
        fs::write(root.join("a/other"), b"too").unwrap();
        symlink("b", root.join("a/link")).unwrap();
    })
}

#[test]
fn nothing_is_replaced_unasked() {
    let made = small();
    let out = made.path("out");
    fs::create_dir_all(out.join("a/b")).unwrap();
    fs::write(out.join("a/b/file"), b"mine").unwrap();
    fs::write(out.join("a/mine"), b"mine").unwrap();
    let before = seen(&out);
    for path in ["/", "a", "/a/"] {
        imager!["extract", "-q", "--json", made.image, path, out].refused("file-exists");
    }
    assert_eq!(seen(&out), before);
    let run = imager![
        "extract",
        "-q",
        "--json",
        "--overwrite",
        made.image,
        "a",
        out
    ]
    .ok();
    assert_eq!(run.json()["files"], 2);
    assert_eq!(fs::read(out.join("a/b/file")).unwrap(), b"from the image");
    assert_eq!(fs::read(out.join("a/mine")).unwrap(), b"mine");
    // A second time changes nothing.
    imager!["extract", "-q", "--overwrite", made.image, "a", out].ok();
    assert_eq!(fs::read_link(out.join("a/link")).unwrap(), Path::new("b"));
}

/// A file system that is mounted until it is dropped.
struct Memory<'a>(&'a Path);

impl<'a> Memory<'a> {
    fn mount(at: &'a Path) -> Memory<'a> {
        tool(&["mount", "-t", "tmpfs", "-o", "size=1m", "none"], &[at]);
        Memory(at)
    }
}

impl Drop for Memory<'_> {
    fn drop(&mut self) {
        // At once, whatever another thread's child still has open there.
        tool(&["umount", "--lazy"], &[self.0]);
    }
}

/// The first folders of all file systems of a kind have one inode number.
#[test]
fn file_systems_at_the_destination_are_told_apart() {
    let made = Made::new(16 * MIB, &["mkfs.ext4", "-q"], |root| {
        for name in ["home", "var"] {
            fs::create_dir(root.join(name)).unwrap();
            fs::write(root.join(name).join("file"), name).unwrap();
        }
    });
    let out = made.path("out");
    let parts = ["home", "var"].map(|name| out.join(name));
    for part in &parts {
        fs::create_dir_all(part).unwrap();
    }
    let _mounted = [Memory::mount(&parts[0]), Memory::mount(&parts[1])];
    let numbers = |part| {
        let there = fs::metadata(part).unwrap();
        (there.dev(), there.ino())
    };
    let (home, var) = (numbers(&parts[0]), numbers(&parts[1]));
    assert!(home.0 != var.0 && home.1 == var.1, "{home:?} {var:?}");
    imager!["extract", "-q", "--overwrite", made.image, "/", out].ok();
    for (part, name) in parts.iter().zip(["home", "var"]) {
        assert_eq!(fs::read(part.join("file")).unwrap(), name.as_bytes());
    }
}

/// A link at the destination leads nowhere, whoever put it there.
#[test]
fn links_at_the_destination_are_not_followed() {
    let made = small();
    let (out, outside) = (made.path("out"), made.path("outside"));
    fs::create_dir(&outside).unwrap();
    fs::create_dir(&out).unwrap();
    symlink(&outside, out.join("a")).unwrap();
    imager!["extract", "-q", made.image, "a", out].refused("file-exists");
    let run = imager!["extract", "-q", "--overwrite", made.image, "a", out];
    let run = run.fails("files-incomplete", FAILED);
    assert!(run.stderr.contains("is there already"), "{}", run.stderr);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    // A file is put in the place of a link, not behind it.
    fs::remove_file(out.join("a")).unwrap();
    fs::create_dir_all(out.join("a/b")).unwrap();
    fs::write(outside.join("target"), b"mine").unwrap();
    symlink(outside.join("target"), out.join("a/b/file")).unwrap();
    imager!["extract", "-q", "--overwrite", made.image, "a", out].ok();
    assert_eq!(fs::read(outside.join("target")).unwrap(), b"mine");
    assert_eq!(fs::read(out.join("a/b/file")).unwrap(), b"from the image");
}

/// Without its bytes a file is not there at all; the others are.
#[test]
fn sectors_that_were_lost_are_never_zeros_of_a_file() {
    for (imaged, sector) in [(disks::gpt(), 512u64), (disks::gpt_4k(), 4096)] {
        let dir = folder();
        let part = &imaged.disk.partitions[1];
        // The largest file begins with noise that occurs once.
        let first = testkit::build::Tree::new(if sector == 512 { 1 } else { 2 }, 24, 150_000);
        let (name, contents) = first.files().next().unwrap();
        let disk = peek(&imaged.disk.path, part.start, part.size as usize);
        let at = disk
            .chunks(1024)
            .position(|block| block == &contents[..1024])
            .unwrap() as u64
            * 1024;
        let bad = (part.start + at) / sector + 8 * 4096 / sector;
        let device = FaultyDevice::new(&imaged.disk.path, dir.path(), sector as u32)
            .bad(std::slice::from_ref(&(bad..bad + 1)), sector);
        let image = dir.path().join("image");
        imager!["backup", "-q", "--skip-bad", device.path(), image].ok();
        drop(device);

        let run = imager!["cat", "--partition", "2", image, name].fails("file-unreadable", FAILED);
        assert!(run.stdout.len() < contents.len());
        assert!(
            contents.starts_with(&run.stdout),
            "what came before is right"
        );
        assert!(
            run.stderr.contains("does not hold all of it"),
            "{}",
            run.stderr
        );
        let out = dir.path().join("out");
        let run = imager![
            "extract",
            "-q",
            "--json",
            "--partition",
            "2",
            image,
            "/",
            out
        ];
        let run = run.fails("files-incomplete", FAILED);
        assert!(run.stderr.contains(&name), "{}", run.stderr);
        let mut wanted = first.hashes();
        wanted.remove(&name);
        assert_eq!(testkit::build::hashes_of(&out), wanted);

        // Zeros stand for them in the image: zeros that were read are not called the same.
        let zeros = copy(&imaged.disk.path, dir.path().join("zeros"));
        poke(&zeros, bad * sector, &vec![0; sector as usize]);
        let other = dir.path().join("other");
        let size = sector.to_string();
        imager!["backup", "-q", "--sector-size", size, zeros, other].ok();
        for (one, two) in [(&image, &other), (&other, &image), (&image, &image)] {
            let run = imager!["diff", "--files", "--json", one, two].ok();
            let json = run.json();
            assert_eq!(json["files_complete"], false, "{json}");
            let files = json["files"].as_array().unwrap();
            let lost = files.iter().find(|file| file["path"] == format!("/{name}"));
            assert_eq!(lost.unwrap()["change"], "unreadable", "{json}");
        }
    }
}

#[test]
fn without_root_owners_stay_and_set_id_bits_go() {
    let made = Made::new(16 * MIB, &["mkfs.ext4", "-q"], |root| {
        fs::write(root.join("tool"), b"#!").unwrap();
        super::tool(&["chmod", "4755"], &[&root.join("tool")]);
        fs::write(root.join("data"), noise(1, 100_000)).unwrap();
    });
    let out = made.path("out");
    fs::create_dir(&out).unwrap();
    super::tool(&["chmod", "777"], &[&out, made.dir.path()]);
    super::tool(&["chmod", "644"], &[&made.image]);
    let program = made.path("imager");
    fs::copy(env!("CARGO_BIN_EXE_imager"), &program).unwrap();
    super::tool(
        &[
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
        ],
        &[
            &program,
            Path::new("extract"),
            Path::new("-q"),
            &made.image,
            Path::new("tool"),
            &out,
        ],
    );
    let there = fs::metadata(out.join("tool")).unwrap();
    assert_eq!((there.mode() & 0o7777, there.uid()), (0o755, 65534));
}

/// What a run made it does not replace itself, whatever it may replace.
#[test]
fn two_paths_of_one_name() {
    let made = Made::new(16 * MIB, &["mkfs.ext4", "-q"], |root| {
        for user in ["anna", "bert"] {
            fs::create_dir_all(root.join(user)).unwrap();
            fs::write(root.join(user).join(".bashrc"), user).unwrap();
        }
        fs::write(root.join(".bashrc"), b"of nobody").unwrap();
    });
    let out = made.path("out");
    let paths = ["anna/.bashrc", "bert/.bashrc"];
    for [one, other] in [paths, ["/", paths[0]], ["anna", "/anna/"]] {
        for more in ["-q", "--overwrite"] {
            let run = imager!["extract", "--json", more, made.image, one, other, out];
            let run = run.refused("file-exists");
            assert!(run.stderr.contains("two of the paths"), "{}", run.stderr);
            assert!(!out.exists(), "something was made");
        }
    }
    imager!["extract", "-q", made.image, paths[0], "bert", out].ok();
    assert_eq!(fs::read(out.join(".bashrc")).unwrap(), b"anna");
}

/// What a file has beside its content is counted, once for each.
#[test]
fn extended_attributes_are_told() {
    let made = Made::new(16 * MIB, &["mkfs.ext4", "-q"], |root| {
        fs::write(root.join("plain"), b"p").unwrap();
        fs::write(root.join("small"), b"s").unwrap();
        fs::write(root.join("large"), b"l").unwrap();
        fs::write(root.join("cleared"), b"c").unwrap();
        fs::create_dir(root.join("folder")).unwrap();
        let script = "import os, sys; os.chdir(sys.argv[1]); \
             os.setxattr('small', 'user.a', b'x'); \
             os.setxattr('cleared', 'user.a', b'x'); os.removexattr('cleared', 'user.a'); \
             os.setxattr('large', 'user.a', b'x' * 900); \
             os.setxattr('folder', 'security.any', b'x')";
        super::tool(&["python3", "-c", script], &[root]);
        fs::hard_link(root.join("small"), root.join("folder/small, too")).unwrap();
    });
    let out = made.path("out");
    let run = imager!["extract", "-q", "--json", made.image, "/", out].warns("files-incomplete");
    assert_eq!(run.json()["without_attributes"], 3, "{}", run.stderr);
    assert_eq!(run.json()["warnings"].as_array().unwrap().len(), 1);
    assert!(run.stderr.contains("3 files and folders"), "{}", run.stderr);
    let run = imager![
        "extract",
        "-q",
        "--json",
        made.image,
        "plain",
        made.path("other")
    ]
    .ok();
    assert_eq!(run.json()["without_attributes"], 0);
    assert_eq!(run.stderr, "");
}

/// A record of the image that is damaged costs the files that stand in it, and no other.
#[test]
fn damage_of_the_image_costs_what_stands_there() {
    let made = Made::new(16 * MIB, &["mkfs.ext4", "-q"], |root| {
        for n in 0..8 {
            fs::write(root.join(format!("file {n}")), noise(n, MIB as usize)).unwrap();
        }
    });
    // Noise is stored as it is: the bytes of a file stand in the image.
    let bytes = fs::read(&made.image).unwrap();
    let wanted = &noise(5, MIB as usize)[500_000..500_100];
    let at = bytes.windows(100).position(|window| window == wanted);
    disks::flip(&made.image, at.expect("stored as it is") as u64);
    let run = imager!["cat", made.image, "file 5"].fails("image-damaged", FAILED);
    assert!(run.stdout.len() < MIB as usize);
    let out = made.path("out");
    let run = imager!["extract", "-q", made.image, "/", out].fails("files-incomplete", FAILED);
    assert!(run.stderr.contains("/file 5: "), "{}", run.stderr);
    let names = seen(&out).len();
    // A cell may hold the end of one file and the start of another.
    assert!((6..=8).contains(&names), "{names} of nine");
    assert!(!out.join("file 5").exists());
    for n in 0..8 {
        if let Ok(read) = fs::read(out.join(format!("file {n}"))) {
            assert!(read == noise(n, MIB as usize), "file {n}");
        }
    }
}
