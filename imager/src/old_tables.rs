//! The partition tables that a restore is about to overwrite.
//!
//! Owns: what is kept of them. Does not own: where (a file, the server).

use crate::source;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use blockdev::Device;
use wire::{DiskInfo, OldTables, TableBlob};

/// What is kept of each end of a disk whose table cannot be understood, in bytes.
const END_BYTES: u64 = 64 << 10;

/// Reads the tables: exactly their sectors if they can be understood, else both ends of
/// the disk. What cannot be read is left out: it could not be put back either.
pub fn read(device: &Device, disk: DiskInfo) -> OldTables {
    // What the partitions hold is not asked: on a large or failing disk that takes long.
    let table = diskmap::table::read(&source::Reader(device), source::geometry(device));
    let blob = |offset: u64, data: &[u8]| TableBlob {
        offset,
        data: STANDARD.encode(data),
    };
    let blobs = match table {
        Ok(Some(table)) if !table.blobs.is_empty() => {
            let blobs = table.blobs.iter();
            blobs.map(|b| blob(b.offset, &b.data)).collect()
        }
        _ => {
            let size = device.size_bytes();
            let len = END_BYTES.min(size);
            let mut buffer = vec![0; len as usize];
            let mut ends = Vec::new();
            for offset in [0, size - len] {
                if device.read_exact_at(offset, &mut buffer).is_ok() {
                    ends.push(blob(offset, &buffer));
                }
            }
            ends
        }
    };
    OldTables { disk, blobs }
}
