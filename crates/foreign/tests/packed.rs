//! Streams that other programs have compressed.
//!
//! Owns: that each comes out as it went in, that torn and changed ones are noticed, and how
//! much memory one may ask for. Does not own: what is inside.

use foreign::{Packing, unpack};
use std::io::{Read, Write};
use std::process::{Command, Stdio};

/// What a program makes of `bytes`.
fn packed(command: &[&str], bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|e| panic!("{} (package xz-utils, bzip2, lz4): {e}", command[0]));
    let mut input = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || input.write_all(bytes).unwrap());
        let mut out = Vec::new();
        child.stdout.take().unwrap().read_to_end(&mut out).unwrap();
        assert!(child.wait().unwrap().success(), "{command:?}");
        out
    })
}

/// Half of it compresses well, half of it does not at all.
fn sample(len: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut noise = || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    (0..len)
        .map(|n| {
            if n / 5000 % 2 == 0 {
                (n / 97) as u8
            } else {
                noise()
            }
        })
        .collect()
}

/// Programs, and whether what they write has checksums.
const COMMANDS: &[(&[&str], bool)] = &[
    (&["xz", "-0"], true),
    (&["xz", "-6", "--check=sha256"], true),
    (
        &["xz", "-1", "--check=crc32", "-T2", "--block-size=64KiB"],
        true,
    ),
    (&["xz", "-1", "--check=none"], false),
    (&["xz", "--x86", "--lzma2=preset=1"], true),
    (&["xz", "--delta=dist=4", "--lzma2=preset=1"], true),
    (&["bzip2", "-1"], true),
    (&["bzip2", "-9"], true),
    (&["lz4", "-1"], true),
    (&["lz4", "-9", "-B4", "-BD"], true),
    (&["lz4", "-1", "-BX", "--no-frame-crc"], true),
    (&["lz4", "-1", "--no-frame-crc"], false),
];

fn unpacked(bytes: &[u8]) -> std::io::Result<(Packing, Vec<u8>)> {
    let (packing, mut reader) = unpack(bytes).map_err(std::io::Error::other)?;
    let mut all = Vec::new();
    reader.read_to_end(&mut all)?;
    Ok((packing, all))
}

#[test]
fn what_other_programs_pack_comes_out_as_it_went_in() {
    let plain = sample(1_500_000);
    for (command, checked) in COMMANDS {
        let once = packed(command, &plain);
        let (packing, all) = unpacked(&once).unwrap_or_else(|e| panic!("{command:?}: {e}"));
        assert!(all == plain, "{command:?}");
        assert_eq!(packing.is_checked(), *checked, "{command:?}");
        // One behind the other, as `cat` puts them.
        let (_, twice) = unpacked(&once.repeat(2)).unwrap_or_else(|e| panic!("{command:?}: {e}"));
        assert!(twice == plain.repeat(2), "{command:?}");
        let (_, empty) = unpacked(&packed(command, &[])).unwrap();
        assert!(empty.is_empty());
    }
}

#[test]
fn torn_and_changed_streams_do_not_end_well() {
    let plain = sample(12_000);
    for (command, checked) in COMMANDS {
        let good = packed(command, &plain);
        for cut in 12..good.len() {
            if cut % 97 == 0 || cut + 24 > good.len() || cut < 48 {
                assert!(unpacked(&good[..cut]).is_err(), "{command:?} cut at {cut}");
            }
        }
        // What is not checked may come out wrong, but it comes to an end.
        for at in (6..good.len()).step_by(61) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            let result = unpacked(&bad);
            let noticed = !matches!(&result, Ok((_, all)) if *all != plain);
            assert!(noticed || !checked, "{command:?} changed at {at}");
        }
        let behind = [&good[..], b"behind"].concat();
        assert!(unpacked(&behind).is_err(), "{command:?}");
    }
}

#[test]
fn a_window_of_any_size_is_not_given() {
    let fits = packed(&["xz", "--lzma2=preset=0,dict=128MiB"], b"text");
    assert_eq!(unpacked(&fits).unwrap().1, b"text");
    let large = packed(&["xz", "--lzma2=preset=0,dict=256MiB"], b"text");
    assert!(unpacked(&large).is_err());
}
