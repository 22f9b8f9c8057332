//! Disks that hold such a database.
//!
//! Owns: where its copies stand on MBR and GPT disks. Does not own: its bytes.

use crate::common::{self, disk, ok, poke, s};
use crate::database::{
    CONFIG, DATA_START, DISK, SECTORS, Volume, contents, private_header, records, vmdb,
};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A dynamic disk of 64 MiB with those volumes.
pub fn dynamic(gpt: bool, volumes: &[Volume]) -> (TempDir, PathBuf) {
    let (dir, path) = disk(SECTORS / 2048);
    let config = if gpt {
        // The database lies in a partition; its last sector is the private header.
        let data_end = CONFIG - 2048 - 1;
        ok(
            "sgdisk",
            &[
                "-a",
                "1",
                "-n",
                &format!("1:{DATA_START}:{data_end}"),
                "-t",
                "1:AF9B60A0-1431-4F62-BC68-3311714A69AD",
                "-n",
                &format!("2:{}:{}", CONFIG - 2048, SECTORS - 34),
                "-t",
                "2:5808C8AA-7E8F-42E0-85D2-E1E90434CFB3",
                s(&path),
            ],
        );
        CONFIG - 1024
    } else {
        let script = format!(
            "label: dos\nstart={DATA_START}, size={}, type=42\n",
            CONFIG - DATA_START - 2048
        );
        common::ok_with_input("sfdisk", &["-q", s(&path)], &script);
        CONFIG
    };
    write_database(&path, gpt, config, volumes);
    (dir, path)
}

pub fn write_database(path: &Path, gpt: bool, config: u64, volumes: &[Volume]) {
    let mut header = private_header(DISK);
    header[0x12b..0x133].copy_from_slice(&config.to_be_bytes());
    if gpt {
        header[0x133..0x13b].copy_from_slice(&1900u64.to_be_bytes());
        poke(path, (SECTORS - 34) * 512, &header);
    } else {
        poke(path, 6 * 512, &header);
        poke(path, (SECTORS - 1) * 512, &header);
        poke(path, (config + 1856) * 512, &header);
    }
    for sector in [1, 2] {
        poke(path, (config + sector) * 512, &contents());
    }
    poke(path, (config + 17) * 512, &vmdb(&records(volumes)));
}
