//! NTFS on a bare disk. The disk is put together from parts: sector (4 bytes), length
//! (2 bytes), bytes; so the log may be large and the input small. The signature is always
//! right; one knob fills the rest with the bytes of an empty log, one makes the sequence
//! numbers of records right.
#![no_main]

mod disk;

use libfuzzer_sys::fuzz_target;

/// Largest disk.
const SIZE: usize = 2 << 20;

/// Puts the sequence number of a protected block at the end of each of its sectors.
fn repair(block: &mut [u8]) {
    let at = usize::from(u16::from_le_bytes([block[4], block[5]]));
    let Some(number) = block.get(at..at + 2) else { return };
    let number = [number[0], number[1]];
    for sector in block.chunks_exact_mut(512) {
        sector[510..].copy_from_slice(&number);
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&knobs, mut rest)) = data.split_first() else { return };
    let mut bytes = vec![if knobs & 64 != 0 { 0xff } else { 0 }; SIZE];
    while let Some((place, tail)) = rest.split_first_chunk::<6>() {
        let sector = u32::from_le_bytes([place[0], place[1], place[2], place[3]]);
        let at = sector as usize % (SIZE / 512) * 512;
        let len = usize::from(u16::from_le_bytes([place[4], place[5]])).min(tail.len());
        let (part, tail) = tail.split_at(len);
        let len = len.min(SIZE - at);
        bytes[at..at + len].copy_from_slice(&part[..len]);
        rest = tail;
    }
    bytes[3..11].copy_from_slice(b"NTFS    ");
    if knobs & 32 != 0 {
        for at in (0..SIZE - 4096).step_by(512) {
            match &bytes[at..at + 4] {
                b"FILE" => repair(&mut bytes[at..at + 1024]),
                b"INDX" | b"RSTR" => repair(&mut bytes[at..at + 4096]),
                _ => {}
            }
        }
    }
    disk::run(knobs, &bytes);
});
