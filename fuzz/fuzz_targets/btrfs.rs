//! Btrfs on a bare disk, given as pages at their places; magic number, UUIDs, addresses
//! and checksums of tree nodes can be made right, so that what they say is looked at.
//!
//! Input: a byte of knobs, then pages: their number (16 bits) and 4096 bytes, the last
//! may be shorter.
#![no_main]

mod disk;

use libfuzzer_sys::fuzz_target;

const PAGE: usize = 4096;
/// Page of the superblock.
const SUPER: usize = 16;
/// Pages that a disk of fuzz input has: nothing is behind them but zeros.
const PAGES: usize = 8192;

/// CRC-32C of every byte.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut value, mut bit) = (byte as u32, 0);
        while bit < 8 {
            value = (value >> 1) ^ (0x82f6_3b78 * (value & 1));
            bit += 1;
        }
        table[byte] = value;
        byte += 1;
    }
    table
};

fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc, &byte| (crc >> 8) ^ TABLE[usize::from(crc as u8 ^ byte)])
}

/// Makes what stands in front of a superblock's or node's fields right.
fn mend(bytes: &mut [u8], page: usize, fsid: &[u8], size: usize) {
    let at = page * PAGE;
    let Some(block) = bytes.get_mut(at..at + size) else { return };
    if page != SUPER {
        block[0x20..0x30].copy_from_slice(fsid);
        block[0x30..0x38].copy_from_slice(&(at as u64).to_le_bytes());
    }
    let sum = crc32c(&block[32..]);
    block[..4].copy_from_slice(&sum.to_le_bytes());
}

fuzz_target!(|data: &[u8]| {
    let Some((&knobs, rest)) = data.split_first() else { return };
    let mut pages = Vec::new();
    let mut bytes = vec![0; PAGES * PAGE];
    for part in rest.chunks(2 + PAGE) {
        let Some((number, content)) = part.split_at_checked(2) else { break };
        let page = usize::from(u16::from_le_bytes([number[0], number[1]])) % PAGES;
        bytes[page * PAGE..page * PAGE + content.len()].copy_from_slice(content);
        pages.push(page);
    }
    if knobs & 32 == 0 {
        let sb = &mut bytes[SUPER * PAGE..(SUPER + 1) * PAGE];
        sb[0x40..0x48].copy_from_slice(b"_BHRfS_M");
        let size = u32::from_le_bytes([sb[0x94], sb[0x95], sb[0x96], sb[0x97]]) as usize;
        let size = size.clamp(PAGE, 16 * PAGE);
        let fsid = sb[0x20..0x30].to_vec();
        // A node is its first page's, whatever pages follow.
        pages.sort_unstable();
        for &page in pages.iter().rev() {
            let size = if page == SUPER { PAGE } else { size };
            mend(&mut bytes, page, &fsid, size);
        }
    }
    disk::run(knobs, &bytes);
});
