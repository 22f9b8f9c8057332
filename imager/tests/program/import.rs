//! `imager import`: raw and qcow2 images that QEMU's own tools make of known disks, restored
//! and held against these disks.
//!
//! Owns: what of such files is taken, what is refused, and that damage is noticed. Does not
//! own: headers and tables by the byte (`crates/foreign`).

use crate::compare::assert_same;
use crate::disks::{self, Imaged, MIB, copy, folder, peek, poke};
use crate::imager;
use crate::run::{FAILED, Run};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs one of QEMU's tools to its end.
#[track_caller]
pub fn tool(name: &str, args: &[&str], files: &[&Path]) -> String {
    let output = Command::new(name).args(args).args(files).output();
    let output = output.unwrap_or_else(|e| panic!("{name} (package qemu-utils): {e}"));
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{name} {args:?}: {text}");
    text
}

/// A qcow2 file of a raw disk.
pub fn convert(options: &[&str], from: &Path, to: PathBuf) -> PathBuf {
    let start = ["convert", "-f", "raw", "-O", "qcow2"];
    tool("qemu-img", &[&start, options].concat(), &[from, &to]);
    to
}

/// Imports, verifies, restores, and gives the restored disk.
#[track_caller]
pub fn imported(source: &Path, dir: &Path, more: &[&str]) -> (Run, PathBuf) {
    let (image, disk) = (dir.join("imported"), dir.join("restored"));
    for left in [&image, &disk] {
        let _ = fs::remove_file(left);
    }
    let start = ["import", "-q", "--json"].map(AsRef::as_ref);
    let args = start
        .into_iter()
        .chain([source.as_os_str(), image.as_os_str()]);
    let args = args.chain(more.iter().map(AsRef::as_ref));
    let run = crate::run::finish(crate::run::command(args)).ok();
    imager!["verify", "-q", image].ok();
    imager!["restore", "-q", image, disk].ok();
    (run, disk)
}

/// Asserts that a source is refused and leaves nothing.
#[track_caller]
pub fn fails(source: &Path, dir: &Path, more: &[&str], code: &str) -> Run {
    let image = dir.join("not-made");
    let start = ["import", "-q", "--json"].map(AsRef::as_ref);
    let args = start
        .into_iter()
        .chain([source.as_os_str(), image.as_os_str()]);
    let args = args.chain(more.iter().map(AsRef::as_ref));
    let run = crate::run::finish(crate::run::command(args));
    let exit = run.exit.unwrap_or(-1);
    assert!(matches!(exit, 1..=3), "{}", run.stderr);
    let run = run.fails(code, exit).disk("not-involved");
    for name in ["not-made", "not-made.partial"] {
        assert!(!dir.join(name).exists(), "{name} was left");
    }
    run
}

fn same_as_a_backup(imaged: &Imaged, run: &Run) {
    let info = imager!["info", "--json", imaged.image].ok().json();
    assert_eq!(run.json()["used_bytes"], info["used_bytes"]);
    assert_eq!(run.json()["chunks"], info["chunks"]);
}

#[test]
fn every_qcow2_and_raw_file_becomes_the_disk() {
    let dir = folder();
    let variants: &[&[&str]] = &[
        &["-o", "compat=0.10"],
        &[],
        &["-c"],
        &["-c", "-o", "compression_type=zstd"],
        &["-o", "cluster_size=512"],
        &["-c", "-o", "cluster_size=2M"],
        &["-S", "0", "-o", "cluster_size=4k,preallocation=metadata"],
    ];
    let disks = [
        (disks::gpt(), 512),
        (disks::mbr(), 512),
        (disks::bare(), 512),
        (disks::gpt_4k(), 4096),
    ];
    for (n, (imaged, sector)) in disks.into_iter().enumerate() {
        let (run, restored) = imported(&imaged.disk.path, dir.path(), &[]);
        assert_eq!(run.json()["format"], "raw");
        assert_same(&imaged.disk.path, &restored, sector);
        same_as_a_backup(imaged, &run);
        // Each kind of disk in some kinds of file, each kind of file of some disks.
        for options in variants.iter().skip(n % 2).step_by(2) {
            let qcow2 = convert(options, &imaged.disk.path, dir.path().join("disk.qcow2"));
            let (run, restored) = imported(&qcow2, dir.path(), &[]);
            assert_eq!(run.json()["format"], "qcow2", "{options:?}");
            assert_eq!(run.json()["sector_size"], sector, "{options:?}");
            assert_same(&imaged.disk.path, &restored, sector);
            same_as_a_backup(imaged, &run);
        }
    }
}

#[test]
fn a_disk_that_is_no_whole_number_of_clusters_is_whole() {
    let dir = folder();
    let disk = disks::garbage(dir.path().join("odd"), 3 * MIB + 512);
    for options in [&["-o", "cluster_size=2M"][..], &["-c"]] {
        let qcow2 = convert(options, &disk, dir.path().join("odd.qcow2"));
        let (_, restored) = imported(&qcow2, dir.path(), &[]);
        assert!(
            fs::read(&disk).unwrap() == fs::read(restored).unwrap(),
            "{options:?}"
        );
    }
}

#[test]
fn zero_clusters_hide_what_is_behind_them() {
    let dir = folder();
    let base = disks::garbage(dir.path().join("base"), 4 * MIB);
    let top = dir.path().join("top.qcow2");
    let create = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", "base"];
    tool("qemu-img", &create, &[&top]);
    let writes = [
        "-f",
        "qcow2",
        "-c",
        "write -z 1M 1M",
        "-c",
        "write -P 7 0 64k",
    ];
    tool("qemu-io", &writes, &[&top]);
    // Two files deep.
    let over = dir.path().join("over.qcow2");
    let create = [
        "create",
        "-q",
        "-f",
        "qcow2",
        "-F",
        "qcow2",
        "-b",
        "top.qcow2",
    ];
    tool("qemu-img", &create, &[&over]);
    tool(
        "qemu-io",
        &["-f", "qcow2", "-c", "write -P 9 3M 5k"],
        &[&over],
    );

    let run = fails(&over, dir.path(), &[], "import-unsupported");
    assert!(run.stderr.contains("--backing"), "{}", run.stderr);
    let (_, restored) = imported(&over, dir.path(), &["--backing"]);
    let mut wanted = fs::read(&base).unwrap();
    wanted[MIB as usize..2 * MIB as usize].fill(0);
    wanted[..64 << 10].fill(7);
    wanted[3 * MIB as usize..][..5 << 10].fill(9);
    assert!(wanted == fs::read(restored).unwrap());

    // A chain without an end, a protocol, a format that is not said, a file that is gone.
    let place = |file: &Path| u64::from_be_bytes(peek(file, 8, 8).try_into().unwrap());
    for (name, code) in [
        (b"over.qcow2", "import-unsupported"),
        (b"nbd://a/bc", "import-unsupported"),
        (b"none.qcow2", "image-not-found"),
    ] {
        let broken = copy(&over, dir.path().join("broken.qcow2"));
        // The name is overwritten with another one.
        poke(&broken, place(&broken), name);
        poke(&broken, 16, &10u32.to_be_bytes());
        if name.starts_with(b"over") {
            fs::rename(&broken, &over).unwrap();
            fails(&over, dir.path(), &["--backing"], code);
        } else {
            fails(&broken, dir.path(), &["--backing"], code);
        }
    }
    // The extension that names the format comes first behind the header.
    let unsaid = copy(&top, dir.path().join("unsaid.qcow2"));
    assert_eq!(peek(&unsaid, 112, 4), 0xe279_2acau32.to_be_bytes());
    poke(&unsaid, 112, &[0x11; 4]);
    fails(&unsaid, dir.path(), &["--backing"], "import-unsupported");
}

#[test]
fn what_is_not_read_is_refused() {
    let dir = folder();
    let disk = &disks::bare().disk.path;
    let at = |name: &str| dir.path().join(name);
    for format in ["vmdk", "vhdx", "vdi", "vpc", "qed", "qcow", "parallels"] {
        let other = at(&format!("disk.{format}"));
        tool(
            "qemu-img",
            &["convert", "-f", "raw", "-O", format],
            &[disk, &other],
        );
        fails(&other, dir.path(), &[], "import-unsupported");
    }
    let other = at("fixed.vhd");
    let fixed = ["convert", "-f", "raw", "-O", "vpc", "-o", "subformat=fixed"];
    tool("qemu-img", &fixed, &[disk, &other]);
    fails(&other, dir.path(), &[], "import-unsupported");
    for options in ["extended_l2=on,cluster_size=16k", "data_file=data.raw"] {
        let other = at("other.qcow2");
        let mut create = Command::new("qemu-img");
        create.current_dir(dir.path());
        create.args([
            "create",
            "-q",
            "-f",
            "qcow2",
            "-o",
            options,
            "other.qcow2",
            "1M",
        ]);
        assert!(create.status().unwrap().success(), "{options}");
        fails(&other, dir.path(), &[], "import-unsupported");
    }
    let secret = [
        "create",
        "-q",
        "-f",
        "qcow2",
        "--object",
        "secret,id=s,data=abc",
    ];
    let luks = [
        "-o",
        "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
    ];
    let other = at("luks.qcow2");
    tool(
        "qemu-img",
        &[&secret[..], &luks].concat(),
        &[&other, Path::new("1M")],
    );
    let run = fails(&other, dir.path(), &[], "import-unsupported");
    assert!(run.stderr.contains("encrypted"), "{}", run.stderr);

    fails(&disks::bare().image, dir.path(), &[], "import-unsupported");
    fails(&at("nothing"), dir.path(), &[], "image-not-found");
    fails(
        Path::new("/dev/null"),
        dir.path(),
        &[],
        "import-unsupported",
    );
    // Not a qcow2 file although it is called one; and a raw disk that begins like another.
    fails(disk, dir.path(), &["--format", "qcow2"], "image-damaged");
    let vmdk = at("disk.vmdk");
    let (_, restored) = imported(&vmdk, dir.path(), &["--format", "raw"]);
    assert!(fs::read(vmdk).unwrap() == fs::read(restored).unwrap());
}

#[test]
fn damaged_and_torn_files_become_no_image() {
    let dir = folder();
    let disk = &disks::gpt().disk.path;
    let plain = convert(&[], disk, dir.path().join("plain.qcow2"));
    let packed = ["-c", "-o", "compression_type=zstd"];
    let packed = convert(&packed, disk, dir.path().join("packed.qcow2"));
    let torn = |of: &Path, len: u64| {
        let torn = copy(of, dir.path().join("torn.qcow2"));
        let file = fs::File::options().write(true).open(&torn).unwrap();
        file.set_len(len).unwrap();
        torn
    };
    for file in [&plain, &packed] {
        let len = fs::metadata(file).unwrap().len();
        for len in [50, 100, 65_536, len / 2, len - (65 << 10)] {
            let run = fails(
                &torn(file, len),
                dir.path(),
                &["--format", "qcow2"],
                "image-damaged",
            );
            assert_eq!(run.exit, Some(FAILED));
        }
    }
    let changed = |of: &Path, at: u64, bytes: &[u8]| {
        let changed = copy(of, dir.path().join("changed.qcow2"));
        poke(&changed, at, bytes);
        changed
    };
    // The marks of a file that was not closed, and of one that is corrupt.
    fails(
        &changed(&plain, 79, &[1]),
        dir.path(),
        &[],
        "import-unsupported",
    );
    fails(&changed(&plain, 79, &[2]), dir.path(), &[], "image-damaged");
    // An entry of the first table, and of a second one, that points beside a cluster.
    let number = |of: &Path, at: u64| u64::from_be_bytes(peek(of, at, 8).try_into().unwrap());
    let first = number(&plain, 40);
    let second = number(&plain, first) & !(1 << 63);
    for at in [first, second] {
        fails(
            &changed(&plain, at + 6, &[0x12]),
            dir.path(),
            &[],
            "image-damaged",
        );
    }
    // Without the mark that a zstd frame begins with, a cluster cannot be unpacked.
    let mut bytes = fs::read(&packed).unwrap();
    let magic = [0x28, 0xb5, 0x2f, 0xfd];
    let frames: Vec<usize> = (0..bytes.len() - 4)
        .filter(|&n| bytes[n..n + 4] == magic)
        .collect();
    assert!(frames.len() > 10, "{frames:?}");
    frames.iter().for_each(|&at| bytes[at] ^= 1);
    let changed = dir.path().join("changed.qcow2");
    fs::write(&changed, bytes).unwrap();
    fails(&changed, dir.path(), &[], "image-damaged");
}

#[test]
fn snapshots_inside_are_left_out_and_told() {
    let dir = folder();
    let qcow2 = convert(&[], &disks::bare().disk.path, dir.path().join("disk.qcow2"));
    tool("qemu-img", &["snapshot", "-c", "before"], &[&qcow2]);
    tool(
        "qemu-io",
        &["-f", "qcow2", "-c", "write -P 5 1M 1k"],
        &[&qcow2],
    );
    let raw = dir.path().join("raw");
    tool("qemu-img", &["convert", "-O", "raw"], &[&qcow2, &raw]);
    let (run, restored) = imported(&qcow2, dir.path(), &[]);
    run.warns("image-partial");
    assert_same(&raw, &restored, 512);
}

#[test]
fn a_file_that_is_being_written_is_refused() {
    let dir = folder();
    let disk = &disks::bare().disk.path;
    let raw = copy(disk, dir.path().join("raw"));
    let qcow2 = convert(&[], disk, dir.path().join("disk.qcow2"));
    for (format, file) in [("raw", raw), ("qcow2", qcow2)] {
        let mut writer = Command::new("qemu-io");
        writer.args(["-f", format]).arg(&file);
        writer.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut writer = writer.spawn().expect("qemu-io (package qemu-utils)");
        // Its answer says that it has the file open.
        let mut input = writer.stdin.take().unwrap();
        input.write_all(b"read 0 512\n").unwrap();
        let mut said = String::new();
        let mut output = BufReader::new(writer.stdout.take().unwrap());
        while !said.contains("ops") {
            assert!(output.read_line(&mut said).unwrap() > 0, "{said}");
        }
        fails(&file, dir.path(), &[], "disk-in-use");
        imported(&file, dir.path(), &["--force"]);
        input.write_all(b"quit\n").unwrap();
        assert!(writer.wait().unwrap().success());
        imported(&file, dir.path(), &[]);
    }
}

#[test]
fn nothing_is_replaced_without_leave() {
    let dir = folder();
    let disk = copy(&disks::bare().disk.path, dir.path().join("disk"));
    let out = dir.path().join("image");
    fs::write(&out, b"mine").unwrap();
    imager!["import", "-q", "--json", disk, out].refused("image-exists");
    imager!["import", "-q", "--json", "--overwrite", disk, disk].refused("image-exists");
    imager!["import", "-q", "--json", "--overwrite", disk, dir.path()].refused("image-exists");
    assert_eq!(fs::read(&out).unwrap(), b"mine");
    imager!["import", "-q", "--overwrite", disk, out].ok();
    imager!["verify", "-q", out].ok();
}
