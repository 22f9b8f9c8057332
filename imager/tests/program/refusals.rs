//! Jobs that are refused before anything is written: disks in use, too small, of other
//! sectors, missing; images that exist; overwriting that nobody confirmed.
//!
//! Owns: the code, exit code 3, and that nothing was written. Does not own: damaged
//! tables and images.

use crate::disks::{self, MIB, copy, folder, garbage, hash};
use crate::imager;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use testkit::loopdev::{LoopDevice, Mounted};

/// A restore that is refused with this code, and changes no byte of the target.
fn assert_untouched(image: &Path, target: &Path, backing: &Path, code: &str) {
    let before = hash(backing);
    let target = target.to_str().unwrap();
    let image = image.to_str().unwrap();
    let run = imager![
        "restore",
        "-q",
        "--json",
        "--yes",
        "--save-tables",
        "none",
        image,
        target
    ];
    run.refused(code).disk("untouched");
    assert_eq!(hash(backing), before, "{code}, but something was written");
}

#[test]
fn a_disk_that_is_too_small() {
    let dir = folder();
    let small = garbage(dir.path().join("small.img"), 40 * MIB);
    assert_untouched(&disks::gpt().image, &small, &small, "disk-too-small");
    assert_untouched(&disks::mbr().image, &small, &small, "disk-too-small");
    let found = imager!["restore", disks::gpt().image, small, "--json"].json()["found"].to_string();
    assert!(
        found.contains(&(40 * MIB).to_string()),
        "no size in: {found}"
    );

    let smaller = garbage(dir.path().join("bare.img"), disks::bare().disk.size - 512);
    assert_untouched(&disks::bare().image, &smaller, &smaller, "disk-too-small");
    let device = LoopDevice::attach(&small, 512);
    assert_untouched(&disks::gpt().image, device.path(), &small, "disk-too-small");
    let empty = garbage(dir.path().join("empty.img"), 0);
    assert_untouched(&disks::gpt().image, &empty, &empty, "disk-too-small");
}

#[test]
fn other_sector_sizes() {
    let dir = folder();
    let backing = garbage(dir.path().join("disk.img"), 80 * MIB);
    for (imaged, other) in [
        (disks::gpt(), 4096),
        (disks::mbr(), 4096),
        (disks::gpt_4k(), 512),
    ] {
        let device = LoopDevice::attach(&backing, other);
        assert_untouched(
            &imaged.image,
            device.path(),
            &backing,
            "sector-size-mismatch",
        );
        let asked = other.to_string();
        let file = garbage(dir.path().join("file.img"), 80 * MIB);
        let before = hash(&file);
        imager!["restore", imaged.image, file, "--sector-size", asked]
            .refused("sector-size-mismatch");
        assert_eq!(hash(&file), before);
        let new = dir.path().join("new.img");
        imager!["restore", imaged.image, new, "--sector-size", asked]
            .refused("sector-size-mismatch");
        assert!(!new.exists(), "a refused restore made a file");
    }
    // A file that holds a valid GPT has that table's sectors.
    let file = copy(&disks::gpt_4k().disk.path, dir.path().join("gpt-4k.img"));
    let run = imager!["restore", disks::mbr().image, file, "--json"];
    run.refused("sector-size-mismatch");
}

#[test]
fn sector_sizes_that_are_not_supported() {
    let dir = folder();
    let image = dir.path().join("image");
    for size in ["0", "1", "520", "8192", "4294967295"] {
        let disk = &disks::gpt().disk.path;
        imager!["backup", disk, image, "--sector-size", size, "--json"]
            .refused("sector-size-unsupported");
        imager!["map", disk, "--sector-size", size].refused("sector-size-unsupported");
        assert!(!image.exists());
    }
}

/// A map that was read while the file system allocates would miss what it allocates next.
#[test]
fn a_map_of_what_is_written_to_is_not_trusted() {
    let dir = folder();
    let imaged = disks::gpt();
    let backing = copy(&imaged.disk.path, dir.path().join("disk.img"));
    let device = LoopDevice::attach(&backing, 512);
    let ext4 = &imaged.disk.partitions[1];
    let on_it = LoopDevice::attach_at(device.path(), ext4.start, ext4.size, 512);
    let back_up = |name: &str| {
        let image = dir.path().join(name);
        let run = imager!["backup", "-q", "--json", "--force", device.path(), image].ok();
        let info = imager!["info", "--json", image].ok().json();
        let regions = info["regions"].as_array().unwrap().iter();
        let parts = regions.filter(|r| r["kind"] == "partition").cloned();
        (
            parts.collect::<Vec<_>>(),
            run.json()["warnings"].to_string(),
        )
    };
    {
        let mounted = Mounted::new(on_it.path(), "rw");
        let place = mounted.path().to_str().unwrap();
        let (parts, said) = back_up("rw");
        assert_eq!(parts[1]["method"], "full");
        assert_eq!(parts[1]["used_bytes"], ext4.size);
        for text in [&parts[1]["reason"].to_string(), &said] {
            assert!(text.contains(place), "{text}");
        }
        assert!(said.contains("fs-dirty"), "{said}");
        for at in [0, 2] {
            assert_eq!(parts[at]["method"], "used", "nobody writes to it");
        }
    }
    drop(on_it);
    let on_it = LoopDevice::attach_at_read_only(device.path(), ext4.start, ext4.size, 512);
    let _mounted = Mounted::new(on_it.path(), "ro,noload");
    let (parts, said) = back_up("ro");
    assert_eq!((&parts[1]["method"], said.as_str()), (&"used".into(), "[]"));
}

#[test]
fn a_disk_that_is_mounted() {
    let dir = folder();
    let backing = copy(&disks::bare().disk.path, dir.path().join("disk.img"));
    let device = LoopDevice::attach(&backing, 512);
    let image = dir.path().join("image");
    {
        let mounted = Mounted::new(device.path(), "rw");
        let place = mounted.path().to_str().unwrap();
        for disk in [device.path(), &backing] {
            let run = imager!["backup", "-q", "--json", disk, image].refused("disk-in-use");
            assert!(
                run.json()["found"].to_string().contains(place),
                "{}",
                run.stderr
            );
            assert!(!image.exists());
        }
        imager![
            "backup",
            "-q",
            "--force",
            "--overwrite",
            device.path(),
            image
        ]
        .ok();
        std::fs::remove_file(&image).unwrap();
        for target in [device.path(), &backing] {
            assert_untouched(&disks::bare().image, target, &backing, "disk-in-use");
        }
    }
    {
        // Read-only: nobody writes meanwhile, so a backup may read; a restore may not write.
        let _mounted = Mounted::new(device.path(), "ro,noload");
        imager!["backup", "-q", device.path(), image].ok();
        assert_untouched(&disks::bare().image, device.path(), &backing, "disk-in-use");
    }
    imager![
        "restore",
        "-q",
        "--yes",
        "--save-tables",
        "none",
        image,
        device.path()
    ]
    .ok();
}

/// What it wrote while it was read, nobody can tell.
#[test]
fn a_disk_that_is_mounted_while_it_is_backed_up() {
    let dir = folder();
    let backing = copy(&disks::bare().disk.path, dir.path().join("disk.img"));
    let device = LoopDevice::attach(&backing, 512);
    let pipe = dir.path().join("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    for (mounted, more) in [("rw", None), ("ro,noload", None), ("rw", Some("--force"))] {
        let mut command = crate::run::command(["backup", "-q", "--json", "--codec", "none"]);
        command.args(more).arg(device.path()).arg(&pipe);
        let backup = std::thread::spawn(move || crate::run::finish(command));
        // The backup goes on only as fast as this is read.
        let mut image = File::open(&pipe).unwrap();
        image.read_exact(&mut [0; 4096]).unwrap();
        let _mounted = Mounted::new(device.path(), mounted);
        let rest = std::io::copy(&mut image, &mut std::io::sink()).unwrap();
        let run = backup.join().unwrap();
        if mounted == "rw" && more.is_none() {
            let run = run.refused("disk-in-use");
            let found = run.json()["found"].to_string();
            assert!(found.contains("was not when the backup began"), "{found}");
        } else {
            run.ok();
            assert!(rest > MIB);
        }
    }
}

#[test]
fn a_disk_of_which_a_part_is_mounted() {
    let dir = folder();
    let built = &disks::gpt().disk;
    let backing = copy(&built.path, dir.path().join("disk.img"));
    let part = &built.partitions[1];
    let device = LoopDevice::attach_at(&backing, part.start, part.size, 512);
    let _mounted = Mounted::new(device.path(), "rw");
    imager!["backup", "-q", backing, dir.path().join("image")].refused("disk-in-use");
    assert_untouched(&disks::gpt().image, &backing, &backing, "disk-in-use");
}

#[test]
fn a_disk_that_is_write_protected() {
    let dir = folder();
    let backing = garbage(dir.path().join("disk.img"), 80 * MIB);
    let device = LoopDevice::attach_read_only(&backing, 512);
    assert_untouched(&disks::gpt().image, device.path(), &backing, "disk-in-use");
}

#[test]
fn disks_that_are_not_there() {
    let dir = folder();
    let image = dir.path().join("image");
    let missing = dir.path().join("missing.img");
    for disk in [
        &missing,
        Path::new("/dev/no-such-disk"),
        Path::new("/dev/null"),
        dir.path(),
    ] {
        imager!["map", disk, "--json"].refused("disk-not-found");
        imager!["backup", disk, image, "--json"].refused("disk-not-found");
        assert!(!image.exists());
    }
    for disk in ["/dev/no-such-disk", "/dev/null", "/proc"] {
        let run = imager![
            "restore",
            "-q",
            "--yes",
            "--json",
            disks::bare().image,
            disk
        ];
        run.refused("disk-not-found").disk("untouched");
    }
    assert!(!Path::new("/dev/no-such-disk").exists());
    let nowhere = dir.path().join("no/such/folder.img");
    imager!["restore", "-q", "--json", disks::bare().image, nowhere].refused("disk-not-found");
}

#[test]
fn an_image_that_exists() {
    let dir = folder();
    let image = garbage(dir.path().join("image"), 100);
    let before = hash(&image);
    imager!["backup", disks::bare().disk.path, image, "--json"].refused("image-exists");
    assert_eq!(hash(&image), before);
    imager![
        "backup",
        "-q",
        disks::bare().disk.path,
        image,
        "--overwrite"
    ]
    .ok();
    imager!["verify", "-q", image].ok();
}

#[test]
fn a_device_is_not_overwritten_unasked() {
    let dir = folder();
    let backing = garbage(dir.path().join("disk.img"), 80 * MIB);
    let device = LoopDevice::attach(&backing, 512);
    let before = hash(&backing);
    imager!["restore", "--json", disks::gpt().image, device.path()]
        .refused("not-confirmed")
        .disk("untouched");
    let mut piped =
        crate::run::command(["restore".as_ref(), "-".as_ref(), device.path().as_os_str()]);
    piped.stdin(std::fs::File::open(&disks::gpt().image).unwrap());
    crate::run::finish(piped).refused("not-confirmed");
    assert_eq!(hash(&backing), before, "it was overwritten unasked");
}

#[test]
fn the_old_tables_of_a_device_are_saved_before() {
    let dir = folder();
    let backing = copy(&disks::mbr().disk.path, dir.path().join("disk.img"));
    std::fs::File::options()
        .write(true)
        .open(&backing)
        .unwrap()
        .set_len(80 * MIB)
        .unwrap();
    let old_sector = disks::peek(&backing, 0, 512);
    let device = LoopDevice::attach(&backing, 512);
    let before = hash(&backing);
    // Where they cannot be saved nothing is written.
    let nowhere = dir.path().join("no/such/folder.json");
    let run = imager![
        "restore",
        "-q",
        "--json",
        "--yes",
        "--save-tables",
        nowhere,
        disks::gpt().image,
        device.path()
    ];
    assert_eq!(run.json()["code"], "output-failed");
    run.disk("untouched");
    assert_eq!(hash(&backing), before);

    let saved = dir.path().join("tables.json");
    imager![
        "restore",
        "-q",
        "--yes",
        "--save-tables",
        saved,
        disks::gpt().image,
        device.path()
    ]
    .ok();
    let tables: wire::OldTables = serde_json::from_slice(&std::fs::read(&saved).unwrap()).unwrap();
    let first = tables.blobs.iter().find(|blob| blob.offset == 0).unwrap();
    use base64::Engine as _;
    let data = base64::engine::general_purpose::STANDARD
        .decode(&first.data)
        .unwrap();
    assert_eq!(data, old_sector);
    // The whole chain of logical partitions is in it.
    assert_eq!(tables.blobs.len(), 5);
}
