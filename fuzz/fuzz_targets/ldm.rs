//! The database of a Windows dynamic disk: the input is laid over a sound one (exclusive
//! or), so that no input at all is a disk with four volumes.
#![no_main]

#[path = "../../crates/diskmap/tests/ldm/database.rs"]
#[allow(dead_code)] // the tests use more of it
mod database;
mod disk;

use database::{CONFIG, DATA_START, DISK, SECTORS, contents, everything, private_header, records, vmdb};
use diskmap::{DiskRead, Geometry, ScanOptions};
use libfuzzer_sys::fuzz_target;
use std::io;

/// Bytes of the database that the input can reach, from its first sector.
const REACH: usize = 32 << 10;

/// A disk of which only these pieces are not zero.
struct Pieces(Vec<(u64, Vec<u8>)>);

impl DiskRead for Pieces {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let end = offset + buf.len() as u64;
        if end > SECTORS * 512 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buf.fill(0);
        for (start, bytes) in &self.0 {
            let (from, to) = (offset.max(*start), end.min(start + bytes.len() as u64));
            if from < to {
                buf[(from - offset) as usize..(to - offset) as usize]
                    .copy_from_slice(&bytes[(from - start) as usize..(to - start) as usize]);
            }
        }
        Ok(())
    }
}

fn table() -> Vec<u8> {
    let mut mbr = vec![0; 512];
    mbr[446 + 4] = 0x42;
    mbr[446 + 8..446 + 12].copy_from_slice(&(DATA_START as u32).to_le_bytes());
    let sectors = (CONFIG - DATA_START - 2048) as u32;
    mbr[446 + 12..446 + 16].copy_from_slice(&sectors.to_le_bytes());
    mbr[510..512].copy_from_slice(&[0x55, 0xaa]);
    mbr
}

fuzz_target!(|data: &[u8]| {
    // The input's first 512 bytes are for the private header, the others for the database.
    let mut sound = private_header(DISK);
    let mut config = vec![0; REACH];
    for sector in [1, 2] {
        config[sector * 512..][..512].copy_from_slice(&contents());
    }
    let list = vmdb(&records(&everything()));
    config[17 * 512..][..list.len()].copy_from_slice(&list);
    sound.append(&mut config);
    for (byte, change) in sound.iter_mut().zip(data) {
        *byte ^= change;
    }
    let config = sound.split_off(512);
    let last = (SECTORS - 1) * 512;
    let pieces = Pieces(vec![
        (0, table()),
        (6 * 512, sound.clone()),
        (last, sound.clone()),
        (CONFIG * 512, config),
        ((CONFIG + 1856) * 512, sound),
    ]);
    let geometry = Geometry { size_bytes: SECTORS * 512, sector_size: 512 };
    let map = disk::check(&pieces, geometry, &ScanOptions::default());
    if data.is_empty() {
        let text = format!("{:?}", map.expect("a sound disk").regions);
        assert!(text.contains("Volume1") || text.contains("dynamic"), "{text}");
    }
});
