//! VHDX, dynamic, after Microsoft's open specification ([MS-VHDX]).
//!
//! Owns: identifier, headers, region table, metadata and block allocation table. Does not
//! own: the data.
//!
//! Places: 0 identifier; 64 KiB and 128 KiB headers; 192 KiB and 256 KiB region tables;
//! 1 MiB an empty log; 2 MiB metadata; 3 MiB the allocation table; then the blocks. All
//! numbers are little-endian, checksums are CRC-32C over a structure whose checksum is zero.

use super::alloc::Allocation;
use super::{Plan, cannot_hold, output};
use image::open::{OpenImage, ReadAt};
use std::fs::File;
use std::os::unix::fs::FileExt;
use wire::{Code, DiskState, Report};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// Largest disk of the format.
const MAX_DISK: u64 = 64 << 40;
/// Most blocks of 1 MiB; disks that would have more have larger blocks.
const MAX_BLOCKS: u64 = 1 << 20;
const LOG_AT: u64 = MIB;
const METADATA_AT: u64 = 2 * MIB;
const BAT_AT: u64 = 3 * MIB;
/// Place of the first item in the metadata region.
const ITEMS_AT: u32 = 64 << 10;
/// State of a block that has a place.
const FULLY_PRESENT: u64 = 6;
/// State of a block that reads as zeros.
const ZERO: u64 = 2;

const BAT: &str = "2dc27766-f623-4200-9d64-115e9bfd4a08";
const METADATA: &str = "8b7ca206-4790-4b9a-b8fe-575f050f886e";
const FILE_PARAMETERS: &str = "caa16737-fa36-4d43-b3b6-33f0aa44e76b";
const DISK_SIZE: &str = "2fa54224-cd1b-4876-b211-5dbed83bf4b8";
const DISK_ID: &str = "beca12ab-b2e6-4523-93ef-c309e000c746";
const SECTOR_SIZE: &str = "8141bf1d-a96f-4709-ba47-f233a8faab5f";
const PHYSICAL_SECTOR_SIZE: &str = "cda348c7-445d-4471-9cc9-e9885251c556";

/// Writes everything but the data.
pub(super) fn write<S: ReadAt>(image: &OpenImage<S>, file: &File) -> Result<Plan, Report> {
    let disk = &image.layout().disk;
    let (sector, size) = (u64::from(disk.sector_size), disk.size_bytes);
    if !matches!(sector, 512 | 4096) {
        let found = format!("a disk with sectors of {sector} bytes; VHDX knows 512 and 4096");
        let report = Report::new(Code::SectorSizeUnsupported, found, DiskState::NotInvolved);
        return Err(report.with_advice("Export to raw or qcow2."));
    }
    if size > MAX_DISK {
        return Err(cannot_hold(format!(
            "a disk of {size} bytes; VHDX holds up to 64 TiB"
        )));
    }
    let size = size.div_ceil(sector) * sector;
    let block = (size / MAX_BLOCKS).next_power_of_two().max(MIB);
    let mut blocks = Allocation::of(image, block)?;
    let numbers = Numbers {
        sector,
        physical: match disk.physical_sector_size {
            4096 => 4096,
            _ => sector,
        },
        size,
        block,
    };
    let entries = numbers.bat_entries();
    let bat_len = (entries * 8).div_ceil(MIB) * MIB;
    blocks.begin_at(BAT_AT + bat_len);

    let put = |at: u64, bytes: &[u8]| file.write_all_at(bytes, at).map_err(|e| output(&e));
    put(0, &identifier())?;
    let ids = ids()?;
    for (copy, at) in [64 * KIB, 128 * KIB].into_iter().enumerate() {
        put(at, &header(copy as u64 + 1, &ids))?;
    }
    let regions = region_table(bat_len);
    put(192 * KIB, &regions)?;
    put(256 * KIB, &regions)?;
    put(METADATA_AT, &metadata(&numbers, &ids[2]))?;
    let per_chunk = numbers.blocks_per_chunk();
    let mut bat = Vec::with_capacity((entries * 8) as usize);
    for number in 0..size.div_ceil(block) {
        let entry = blocks
            .block_at(number)
            .map_or(ZERO, |at| at | FULLY_PRESENT);
        bat.extend_from_slice(&entry.to_le_bytes());
        if (number + 1).is_multiple_of(per_chunk) {
            // Place of a sector bitmap, which only differencing disks have.
            bat.extend_from_slice(&[0; 8]);
        }
    }
    bat.truncate((entries * 8) as usize);
    put(BAT_AT, &bat)?;
    Ok(Plan {
        length: BAT_AT + bat_len + blocks.count() * block,
        blocks: Some(blocks),
    })
}

struct Numbers {
    sector: u64,
    physical: u64,
    size: u64,
    block: u64,
}

impl Numbers {
    /// Blocks between two places of sector bitmaps in the table.
    fn blocks_per_chunk(&self) -> u64 {
        (1 << 23) * self.sector / self.block
    }

    fn bat_entries(&self) -> u64 {
        let blocks = self.size.div_ceil(self.block);
        blocks + blocks.saturating_sub(1) / self.blocks_per_chunk()
    }
}

/// A GUID as it is stored: the first three groups little-endian.
fn guid(text: &str) -> [u8; 16] {
    let hex: Vec<u8> = text.bytes().filter(|&byte| byte != b'-').collect();
    let mut out = [0; 16];
    // The constants above have 32 digits each; a test holds them to it.
    let _ = hex::decode_to_slice(&hex, &mut out);
    out[..4].reverse();
    out[4..6].reverse();
    out[6..8].reverse();
    out
}

/// Three new GUIDs: of this writing, of the data, of the disk.
fn ids() -> Result<[[u8; 16]; 3], Report> {
    let mut ids = [[0; 16]; 3];
    for id in &mut ids {
        getrandom::fill(id).map_err(|e| {
            let found = format!("no random numbers: {e}");
            Report::new(Code::Internal, found, DiskState::NotInvolved)
        })?;
        // Version 4, in the stored byte order.
        id[7] = id[7] & 0x0f | 0x40;
        id[8] = id[8] & 0x3f | 0x80;
    }
    Ok(ids)
}

fn identifier() -> Vec<u8> {
    let mut out = b"vhdxfile".to_vec();
    out.extend("Deploy-OS imager".encode_utf16().flat_map(u16::to_le_bytes));
    out
}

fn header(sequence: u64, ids: &[[u8; 16]; 3]) -> Vec<u8> {
    let mut out = vec![0; 4096];
    out[..4].copy_from_slice(b"head");
    out[8..16].copy_from_slice(&sequence.to_le_bytes());
    out[16..32].copy_from_slice(&ids[0]);
    out[32..48].copy_from_slice(&ids[1]);
    // 48: no log to replay; 64: version of the log.
    out[66..68].copy_from_slice(&1u16.to_le_bytes());
    out[68..72].copy_from_slice(&(MIB as u32).to_le_bytes());
    out[72..80].copy_from_slice(&LOG_AT.to_le_bytes());
    seal(&mut out);
    out
}

fn region_table(bat_len: u64) -> Vec<u8> {
    let mut out = b"regi\0\0\0\0".to_vec();
    out.extend_from_slice(&2u32.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    for (id, at, len) in [(BAT, BAT_AT, bat_len), (METADATA, METADATA_AT, MIB)] {
        out.extend_from_slice(&guid(id));
        out.extend_from_slice(&at.to_le_bytes());
        // 8 MiB at most: 2^20 blocks have no more than twice as many entries.
        out.extend_from_slice(&(len as u32).to_le_bytes());
        out.extend_from_slice(&1u32.to_le_bytes()); // required
    }
    out.resize(64 << 10, 0);
    seal(&mut out);
    out
}

fn metadata(numbers: &Numbers, disk_id: &[u8; 16]) -> Vec<u8> {
    const REQUIRED: u32 = 4;
    const OF_DISK: u32 = 2 | REQUIRED;
    // Block size, then flags: blocks need not stay allocated, no parent.
    let parameters = (numbers.block as u32 as u64).to_le_bytes().to_vec();
    let items = [
        (FILE_PARAMETERS, parameters, REQUIRED),
        (DISK_SIZE, numbers.size.to_le_bytes().to_vec(), OF_DISK),
        (DISK_ID, disk_id.to_vec(), OF_DISK),
        (
            SECTOR_SIZE,
            (numbers.sector as u32).to_le_bytes().to_vec(),
            OF_DISK,
        ),
        (
            PHYSICAL_SECTOR_SIZE,
            (numbers.physical as u32).to_le_bytes().to_vec(),
            OF_DISK,
        ),
    ];
    let mut table = b"metadata\0\0".to_vec();
    table.extend_from_slice(&(items.len() as u16).to_le_bytes());
    table.resize(32, 0);
    let mut bodies = Vec::new();
    for (id, body, flags) in items {
        table.extend_from_slice(&guid(id));
        let numbers = [ITEMS_AT + bodies.len() as u32, body.len() as u32, flags, 0];
        table.extend(numbers.iter().flat_map(|n| n.to_le_bytes()));
        bodies.extend_from_slice(&body);
    }
    table.resize(ITEMS_AT as usize, 0);
    table.extend_from_slice(&bodies);
    table
}

/// Puts the checksum, which is zero so far, into bytes 4 to 7.
fn seal(bytes: &mut [u8]) {
    let crc = crc32c(bytes);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// CRC-32C (Castagnoli) of a few small tables; speed is of no interest.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::{BAT, DISK_ID, Numbers, crc32c, guid, ids};

    #[test]
    fn checksums_and_guids_are_those_of_the_specifications() {
        // The check value of CRC-32C.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(
            guid(BAT)[..8],
            [0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42]
        );
        assert_eq!(
            guid(DISK_ID)[8..],
            [0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46]
        );
        let new = ids().unwrap();
        assert_ne!(new[0], new[1]);
        assert_eq!(new[0][7] >> 4, 4);
    }

    #[test]
    fn bitmap_places_stand_between_chunks_of_blocks() {
        let mut numbers = Numbers {
            sector: 512,
            physical: 512,
            size: 4096 << 20,
            block: 1 << 20,
        };
        assert_eq!(
            (numbers.blocks_per_chunk(), numbers.bat_entries()),
            (4096, 4096)
        );
        numbers.size += 1;
        assert_eq!(numbers.bat_entries(), 4098);
        numbers.sector = 4096;
        assert_eq!(
            (numbers.blocks_per_chunk(), numbers.bat_entries()),
            (32768, 4097)
        );
    }
}
