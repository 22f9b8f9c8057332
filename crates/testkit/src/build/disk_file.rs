//! The disk file: its partition table, and ranges copied into and out of it.
//!
//! Owns: running sfdisk, and copies that keep a file sparse. Does not own: what the
//! table says.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::loopdev::LoopDevice;

/// Writes a partition table into a raw file by a script for sfdisk.
pub(super) fn write_table(disk: &Path, sector_size: u32, script: &str) {
    // sfdisk takes the sector size from the device only.
    let device = (sector_size != 512).then(|| LoopDevice::attach(disk, sector_size));
    sfdisk(device.as_ref().map_or(disk, LoopDevice::path), script);
}

fn sfdisk(target: &Path, script: &str) {
    let mut child = Command::new("sfdisk")
        .args([
            "--quiet",
            "--no-reread",
            "--no-tell-kernel",
            "--wipe",
            "never",
        ])
        .arg(target)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("sfdisk is missing: apt-get install fdisk");
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(script.as_bytes())
        .expect("sfdisk reads its script");
    let output = child.wait_with_output().expect("sfdisk ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "sfdisk failed on\n{script}{said}");
}

/// Copies a range, leaving out pages of zeros.
pub(super) fn copy_range(from: &File, from_offset: u64, to: &File, to_offset: u64, len: u64) {
    let mut piece = vec![0; 1 << 20];
    let mut done = 0;
    while done < len {
        let count = usize::try_from(len - done)
            .unwrap_or(usize::MAX)
            .min(piece.len());
        from.read_exact_at(&mut piece[..count], from_offset + done)
            .expect("the range to copy");
        for (page, at) in piece[..count]
            .chunks(4096)
            .zip((to_offset + done..).step_by(4096))
        {
            if page.iter().any(|&b| b != 0) {
                to.write_all_at(page, at).expect("space to copy to");
            }
        }
        done += count as u64;
    }
}
