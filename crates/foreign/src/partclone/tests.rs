//! Images made by hand, for what today's partclone does not write: format 0001 in all its
//! ways, other kinds of checksum, damage of every byte.

use super::checksum::{Running, Way};
use super::{Mode, Partclone};
use crate::Error;
use proptest::prelude::{ProptestConfig, any, prop, prop_assert, proptest};

const BLOCK: usize = 512;
/// Which of eleven blocks are held.
const HELD: [bool; 11] = [
    true, false, true, true, false, false, true, true, true, false, true,
];

fn block(number: usize) -> Vec<u8> {
    (0..BLOCK)
        .map(|n| (n * 7 + number * 13 + 1) as u8)
        .collect()
}

fn blocks() -> impl Iterator<Item = (usize, Vec<u8>)> {
    (0..HELD.len()).filter(|&n| HELD[n]).map(|n| (n, block(n)))
}

fn crc(bytes: &[u8]) -> [u8; 4] {
    (!crc32fast::hash(bytes)).to_le_bytes()
}

/// Format 0002.
fn format_2(kind: u16, size: u16, strip: u32, reseed: bool, bits: bool) -> Vec<u8> {
    let mut bytes = b"partclone-image\x000.3.23\0\0\0\0\0\0\0\x000002".to_vec();
    bytes.extend(0xc0deu16.to_le_bytes());
    bytes.extend(b"EXTFS\0\0\0\0\0\0\0\0\0\0\0");
    for number in [(HELD.len() * BLOCK) as u64, HELD.len() as u64, 7, 7] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend((BLOCK as u32).to_le_bytes());
    bytes.extend(18u32.to_le_bytes());
    for number in [2, 64, kind, size] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(strip.to_le_bytes());
    bytes.extend([u8::from(reseed), if bits { 1 } else { 8 }]);
    let sum = crc(&bytes);
    bytes.extend(sum);
    assert_eq!(bytes.len(), 110);
    if bits {
        let list: Vec<u8> = HELD
            .chunks(8)
            .map(|c| c.iter().enumerate().map(|(n, &b)| u8::from(b) << n).sum())
            .collect();
        let sum = crc(&list);
        bytes.extend(list);
        bytes.extend(sum);
    } else {
        bytes.extend(HELD.map(u8::from));
        bytes.extend(b"BiTmAgIc");
    }
    let mode = match kind {
        0x20 => Mode::Crc32,
        0x30 => Mode::Xxh64,
        _ => Mode::None,
    };
    let mut sum = Running::new(mode);
    let mut count = 0;
    let digest = |sum: &Running| match sum {
        Running::None => Vec::new(),
        Running::Crc32(h) => (!h.clone().finalize()).to_le_bytes().to_vec(),
        Running::Xxh64(h) => std::hash::Hasher::finish(&**h).to_le_bytes().to_vec(),
    };
    for (_, block) in blocks() {
        bytes.extend(&block);
        sum.update(&block);
        count += 1;
        if count == strip {
            bytes.extend(digest(&sum));
            count = 0;
            if reseed {
                sum = Running::new(mode);
            }
        }
    }
    if count > 0 {
        bytes.extend(digest(&sum));
    }
    bytes
}

/// Format 0001; `wide` with the four bytes that early programs wrote behind checksums.
fn format_1(way: Way, wide: bool) -> Vec<u8> {
    let mut bytes = b"partclone-imageEXTFS\0\0\0\0\0\0\0\0\0\x000001\0\0".to_vec();
    bytes.extend((BLOCK as u32).to_le_bytes());
    for number in [(HELD.len() * BLOCK) as u64, HELD.len() as u64, 7] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.resize(4160, 0);
    bytes.extend(HELD.map(u8::from));
    bytes.extend(b"BiTmAgIc");
    let mut sum = u32::MAX;
    for (_, block) in blocks() {
        sum = way.next(sum, &block);
        bytes.extend(&block);
        bytes.extend(sum.to_le_bytes());
        if wide {
            bytes.extend([0xaa; 4]);
        }
    }
    bytes
}

/// All that an image holds: offsets and bytes.
fn read(bytes: &[u8]) -> Result<Vec<(u64, u8)>, Error> {
    let image = Partclone::open(bytes, u64::MAX)?;
    let mut all = Vec::new();
    image.copy(&mut |at, part| {
        all.extend(part.iter().enumerate().map(|(n, &b)| (at + n as u64, b)));
        Ok(())
    })?;
    Ok(all)
}

fn wanted() -> Vec<(u64, u8)> {
    let one = |(n, block): (usize, Vec<u8>)| {
        let bytes = block.into_iter().enumerate();
        bytes
            .map(move |(at, b)| ((n * BLOCK + at) as u64, b))
            .collect::<Vec<_>>()
    };
    blocks().flat_map(one).collect()
}

fn every_format_2() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (kind, size) in [(0, 0), (0x20, 4), (0x30, 8)] {
        for (strip, reseed) in [(1, true), (2, false), (3, true), (7, false), (256, true)] {
            for bits in [true, false] {
                let strip = if kind == 0 { 0 } else { strip };
                all.push(format_2(kind, size, strip, reseed, bits));
            }
        }
    }
    all
}

#[test]
fn every_kind_of_image_is_read() {
    for bytes in every_format_2() {
        assert!(read(&bytes).unwrap() == wanted());
    }
    for way in Way::ALL {
        for wide in [false, true] {
            assert!(
                read(&format_1(way, wide)).unwrap() == wanted(),
                "{way:?} {wide}"
            );
        }
    }
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    for (kind, size) in [(0x20, 4), (0x30, 8)] {
        let good = format_2(kind, size, 3, true, true);
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            assert!(read(&bytes).is_err(), "byte {at}");
            assert!(read(&good[..at]).is_err(), "cut at {at}");
        }
        assert!(read(&[&good[..], b"x"].concat()).is_err());
    }
    for wide in [false, true] {
        let good = format_1(Way::ALL[0], wide);
        // What the last four bytes would be was never settled.
        let end = good.len() - if wide { 4 } else { 0 };
        for at in 4160..end {
            assert!(read(&good[..at]).is_err(), "cut at {at}");
        }
    }
}

#[test]
fn an_image_larger_than_its_partition_is_refused_before_its_list_is_read() {
    let good = format_2(0x20, 4, 1, true, true);
    let size = (HELD.len() * BLOCK) as u64;
    assert!(Partclone::open(&good[..], size).is_ok());
    // Without the list it would be torn.
    for bytes in [&good[..110], &format_1(Way::ALL[0], false)[..4160]] {
        let Err(error) = Partclone::open(bytes, size - 1) else {
            panic!("it was taken");
        };
        assert!(error.to_string().contains("its partition has"), "{error}");
    }
}

#[test]
fn sizes_without_sense_are_damage() {
    let good = format_1(Way::ALL[0], false);
    for (at, value) in [
        (36, 0u64),
        (36, 511),
        (36, 1 << 31),
        (40, u64::MAX),
        (48, 0),
        (48, u64::MAX),
    ] {
        let mut bytes = good.clone();
        let len = if at == 36 { 4 } else { 8 };
        bytes[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
        let error = read(&bytes);
        assert!(matches!(error, Err(Error::Damaged { .. })), "{at} {value}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn no_input_makes_it_panic(
        first in any::<bool>(), cut in 0usize..9000,
        changes in prop::collection::vec((0usize..4300, any::<u8>()), 0..6),
    ) {
        let mut bytes = if first { format_1(Way::ALL[1], true) } else { format_2(0x20, 4, 2, true, true) };
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        bytes.truncate(cut);
        if let Ok(all) = read(&bytes) {
            prop_assert!(all.is_sorted_by_key(|(at, _)| *at));
        }
    }
}
