//! LVM2 on a bare disk; magic numbers and checksums of the label in sector 1 and of the
//! metadata 4 KiB behind the start are always right.
#![no_main]

mod disk;

use libfuzzer_sys::fuzz_target;

/// Where the area of metadata starts.
const AREA: usize = 4096;

fn checksum(parts: &[&[u8]]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new_with_initial(!0xf597_a6cf);
    parts.iter().for_each(|part| hasher.update(part));
    (!hasher.finalize()).to_le_bytes()
}

fn number(bytes: &[u8], at: usize) -> usize {
    let raw = bytes[at..at + 8].try_into().unwrap_or_default();
    usize::try_from(u64::from_le_bytes(raw)).unwrap_or(usize::MAX)
}

/// The checksum of the text in force, which may go on at the start of its ring.
fn text(area: &[u8]) -> Option<[u8; 4]> {
    let (size, offset, len) = (number(area, 32), number(area, 40), number(area, 48));
    let first = len.min(size.checked_sub(offset)?);
    let front = area.get(offset..offset.checked_add(first)?)?;
    let back = area.get(512..512usize.checked_add(len - first)?)?;
    Some(checksum(&[front, back]))
}

fuzz_target!(|data: &[u8]| {
    let Some((&knobs, rest)) = data.split_first() else { return };
    let mut bytes = rest.to_vec();
    if let Some(label) = bytes.get_mut(512..1024) {
        label[..8].copy_from_slice(b"LABELONE");
        label[8..16].copy_from_slice(&1u64.to_le_bytes());
        label[24..32].copy_from_slice(b"LVM2 001");
        let sum = checksum(&[&label[20..]]);
        label[16..20].copy_from_slice(&sum);
    }
    if let Some(area) = bytes.get_mut(AREA..).filter(|area| area.len() >= 512) {
        area[4..20].copy_from_slice(b" LVM2 x[5A%r0N*>");
        if let Some(sum) = text(area) {
            area[56..60].copy_from_slice(&sum);
        }
        let sum = checksum(&[&area[4..512]]);
        area[..4].copy_from_slice(&sum);
    }
    disk::run(knobs, &bytes);
});
