//! ISO 9660 and UDF: images of discs, also on sticks and in partitions.
//!
//! Owns: how far the volume reaches, by both standards at once, since a bridge disc
//! carries both (ECMA-119; ECMA-167 and OSTA UDF 2.60). Does not own: what is free
//! inside: all of it up to the end is copied.

use super::{Fault, Map, Mapped, Volume, behind, damaged};
use crate::bytes::{has, le16, le32, text};
use crate::checksum::crc_itu_t;
use crate::view::{ReadFailure, View};

/// First volume descriptor, for both standards.
const START: u64 = 32 << 10;
/// Size of a volume descriptor of ECMA-119.
const DESCRIPTOR: u64 = 2048;
/// Descriptors that are looked at; discs have a handful.
const MAX_DESCRIPTORS: u64 = 64;
/// Writers may leave a volume's last run-out blocks out of its size.
const RUN_OUT: u64 = 150 * 2048;
/// Logical block sizes that UDF is found at.
const BLOCKS: [u64; 4] = [2048, 512, 4096, 1024];

/// What the descriptors say.
struct Disc {
    size: u64,
    problem: Option<String>,
}

/// Looks for volume descriptors.
pub(super) fn look(view: &View<'_>) -> Result<Option<Volume>, ReadFailure> {
    let iso = iso(view)?;
    let udf = udf(view)?;
    let name = match (&iso, &udf) {
        (None, None) => return Ok(None),
        (None, Some(_)) => "udf",
        (Some(_), _) => "iso9660",
    };
    let (label, uuid) = match &iso {
        Some((_, primary)) => (
            text(primary.get(40..72).unwrap_or_default()),
            stamp(primary),
        ),
        None => Default::default(),
    };
    let mut size = 0;
    let mut problem = None;
    for found in [iso.map(|(reach, _)| reach), udf].into_iter().flatten() {
        match found {
            Ok(reach) => size = size.max(reach),
            Err(what) => problem = problem.or(Some(what)),
        }
    }
    Ok(Some(Volume {
        name,
        label,
        uuid,
        size,
        wraps: false,
        map: Box::new(Disc { size, problem }),
    }))
}

impl Map for Disc {
    fn used(&self, view: &View<'_>, _: u32) -> Result<Mapped, Fault> {
        if let Some(problem) = &self.problem {
            return damaged(problem.clone());
        }
        let size = self.size.saturating_add(RUN_OUT).min(view.size());
        if partitions_reach(view)? > size {
            return Err(Fault::Unsupported(
                "the partition table in front of it has partitions behind it".into(),
            ));
        }
        Ok(Mapped {
            reason: Some("A disc image is read-only: it is copied up to its end.".into()),
            ..Mapped::from(behind::nothing(view, size)?)
        })
    }
}

/// How far the partitions reach that a hybrid image lists in its first sector. Their
/// sectors have 512 bytes, whatever the disk's have.
fn partitions_reach(view: &View<'_>) -> Result<u64, Fault> {
    let first = view.bytes_up_to(0, 512)?;
    if !has(&first, 510, &[0x55, 0xaa]) {
        return Ok(0);
    }
    let reach = |entry: usize| {
        let number = |at| u64::from(le32(&first, 446 + 16 * entry + at).unwrap_or(0));
        match first.get(446 + 16 * entry + 4) {
            None | Some(0) => 0,
            Some(_) => (number(8) + number(12)) * 512,
        }
    };
    Ok((0..4).map(reach).max().unwrap_or(0))
}

/// Bytes that a volume reaches to, or what is wrong with it.
type Reach = Result<u64, String>;

/// ECMA-119: the reach, and the primary descriptor.
fn iso(view: &View<'_>) -> Result<Option<(Reach, Vec<u8>)>, ReadFailure> {
    let mut primary = None;
    let mut reach: Reach = Ok(0);
    for index in 0..MAX_DESCRIPTORS {
        let raw = view.bytes_up_to(START + index * DESCRIPTOR, DESCRIPTOR as usize)?;
        if raw.len() < DESCRIPTOR as usize || !has(&raw, 1, b"CD001") {
            break;
        }
        let found = match raw[0] {
            1 | 2 => volume_reach(&raw),
            3 => partition_reach(&raw),
            255 => break,
            _ => continue,
        };
        reach = reach.and_then(|so_far| Ok(so_far.max(found?)));
        if raw[0] == 1 && primary.is_none() {
            primary = Some(raw);
        }
    }
    Ok(primary.map(|raw| (reach, raw)))
}

/// A number that ECMA-119 stores in both byte orders.
fn both(raw: &[u8], at: usize) -> Option<u64> {
    let little = le32(raw, at)?;
    let big = le32(raw, at + 4)?.swap_bytes();
    (little == big).then_some(u64::from(little))
}

fn volume_reach(raw: &[u8]) -> Reach {
    let block = le16(raw, 128).unwrap_or(0);
    let same = le16(raw, 130).map(u16::swap_bytes) == Some(block);
    match both(raw, 80) {
        Some(blocks) if same && matches!(block, 512 | 1024 | 2048) => Ok(blocks * u64::from(block)),
        _ => Err("a volume descriptor contradicts itself".into()),
    }
}

/// A volume partition: location and size in logical sectors.
fn partition_reach(raw: &[u8]) -> Reach {
    match (both(raw, 72), both(raw, 80)) {
        (Some(start), Some(sectors)) => Ok((start + sectors) * 2048),
        _ => Err("a partition descriptor contradicts itself".into()),
    }
}

/// The time of the last change, or of creation, as other tools show it in place of a UUID.
fn stamp(primary: &[u8]) -> String {
    for at in [830, 813] {
        let digits = primary.get(at..at + 16).unwrap_or_default();
        if digits.iter().all(u8::is_ascii_digit) && digits.iter().any(|&d| d != b'0') {
            let text = text(digits);
            let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
            return [
                (0, 4),
                (4, 6),
                (6, 8),
                (8, 10),
                (10, 12),
                (12, 14),
                (14, 16),
            ]
            .map(|(from, to)| part(from, to))
            .join("-");
        }
    }
    String::new()
}

/// ECMA-167: the reach, if the recognition sequence announces UDF.
fn udf(view: &View<'_>) -> Result<Option<Reach>, ReadFailure> {
    let mut announced = false;
    // Descriptors of the sequence are one sector apart, and a sector may be larger.
    'steps: for step in [2048, 4096] {
        for index in 0..MAX_DESCRIPTORS {
            let raw = view.bytes_up_to(START + index * step, 7)?;
            if has(&raw, 1, b"NSR02") || has(&raw, 1, b"NSR03") {
                announced = true;
                break 'steps;
            }
            let known = [b"BEA01", b"CD001", b"BOOT2", b"TEA01", b"CDW02"];
            if !known.into_iter().any(|id| has(&raw, 1, id)) {
                break;
            }
        }
    }
    if !announced {
        return Ok(None);
    }
    for block in BLOCKS {
        if let Some(anchor) = descriptor(view, 256, block)?.filter(|raw| tag(raw) == 2) {
            return volume_sequence(view, &anchor, block).map(Some);
        }
    }
    Ok(Some(Err("its anchor is missing".into())))
}

/// The descriptor of a block, if its tag and checksums are right.
fn descriptor(view: &View<'_>, at: u64, block: u64) -> Result<Option<Vec<u8>>, ReadFailure> {
    let raw = view.bytes_up_to(at.saturating_mul(block), 512)?;
    if raw.len() < 512 {
        return Ok(None);
    }
    let sum = (0..16)
        .filter(|&i| i != 4)
        .fold(0u8, |sum, i| sum.wrapping_add(raw[i]));
    let crc_len = usize::from(le16(&raw, 10).unwrap_or(u16::MAX));
    let covered = raw.get(16..16 + crc_len);
    let right = sum == raw[4]
        && covered.is_some_and(|bytes| le16(&raw, 8) == Some(crc_itu_t(bytes)))
        && le32(&raw, 12).map(u64::from) == Some(at);
    Ok(right.then_some(raw))
}

fn tag(raw: &[u8]) -> u16 {
    le16(raw, 0).unwrap_or(0)
}

/// Follows the main volume descriptor sequence.
fn volume_sequence(view: &View<'_>, anchor: &[u8], block: u64) -> Result<Reach, ReadFailure> {
    let number = |raw: &[u8], at| u64::from(le32(raw, at).unwrap_or(0));
    let extent = |raw: &[u8], len, start| {
        (number(raw, start) + number(raw, len).div_ceil(block)).saturating_mul(block)
    };
    let mut reach = (256 * block + block)
        .max(extent(anchor, 16, 20))
        .max(extent(anchor, 24, 28));
    let (first, blocks) = (number(anchor, 20), number(anchor, 16).div_ceil(block));
    let mut partitions = 0;
    for index in 0..blocks.min(MAX_DESCRIPTORS) {
        let Some(raw) = descriptor(view, first + index, block)? else {
            break;
        };
        match tag(&raw) {
            3 => return Ok(Err("its descriptors go on elsewhere".into())),
            5 => {
                partitions += 1;
                let end = number(&raw, 188) + number(&raw, 192);
                reach = reach.max(end.saturating_mul(block));
            }
            6 => {
                if number(&raw, 212) != block {
                    return Ok(Err(format!("it has blocks of {} bytes", number(&raw, 212))));
                }
                reach = reach.max(extent(&raw, 432, 436));
            }
            8 => break,
            _ => {}
        }
    }
    if partitions == 0 {
        return Ok(Err("it has no partition".into()));
    }
    // On media that can be rewritten further anchors stand in the last block and 256 blocks
    // before it; what they announce lies between, and all of it is the volume's.
    let blocks = view.size() / block;
    for from_end in [1, 257] {
        let Some(at) = blocks.checked_sub(from_end) else {
            continue;
        };
        if descriptor(view, at, block)?.is_some_and(|raw| tag(&raw) == 2) {
            reach = blocks * block;
        }
    }
    Ok(Ok(reach))
}
