//! What is proved about a restored disk.
//!
//! Owns: the comparisons. Does not own: reading file systems (`testkit::files`).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use testkit::debian_disk::{BIOS_DATA, BIOS_ROOT, BIOS_SWAP, Part, UEFI_ESP, UEFI_ROOT, UEFI_SWAP};
use testkit::files::{self, Listing};
use testkit::qemu::Firmware;

/// Where a swap area's header ends.
const SWAP_HEADER_BYTES: usize = 4096;

/// Makes a blank disk: a sparse file of zeros.
///
/// # Errors
/// The file cannot be made.
pub fn blank(path: &Path, bytes: u64) -> io::Result<()> {
    File::create(path)?.set_len(bytes)
}

/// Makes a disk that is full of old things where tables and file systems start: a
/// restore has to get rid of them.
///
/// # Errors
/// The file cannot be made.
pub fn dirty(path: &Path, bytes: u64) -> io::Result<()> {
    blank(path, bytes)?;
    let file = OpenOptions::new().write(true).open(path)?;
    let junk = vec![0xd1; 1 << 20];
    for offset in (0..bytes).step_by(64 << 20) {
        file.write_all_at(&junk, offset)?;
    }
    file.write_all_at(&junk, bytes - junk.len() as u64)
}

/// Every difference between a source disk and what was restored from its image: files of
/// all file systems, swap headers, partitions, and the order of a moved GPT. Empty if all
/// is well.
///
/// # Errors
/// A disk cannot be read, or what should be a file system is none.
pub fn differences(firmware: Firmware, source: &Path, restored: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    match firmware {
        Firmware::Bios => {
            compare("root", files::ext4, BIOS_ROOT, source, restored, &mut found)?;
            compare("data", files::ext4, BIOS_DATA, source, restored, &mut found)?;
            compare_swap(BIOS_SWAP, source, restored, &mut found)?;
        }
        Firmware::Uefi => {
            compare("esp", files::fat, UEFI_ESP, source, restored, &mut found)?;
            compare("root", files::ext4, UEFI_ROOT, source, restored, &mut found)?;
            compare_swap(UEFI_SWAP, source, restored, &mut found)?;
            let verdict = output("sgdisk", "--verify", restored)?;
            if !verdict.contains("No problems found") || verdict.contains("corrupt GPT") {
                found.push(format!("sgdisk on the restored disk: {verdict}"));
            }
        }
    }
    let (before, after) = (partitions(source)?, partitions(restored)?);
    if before != after || before.is_empty() {
        found.push(format!("partitions: {before:?} became {after:?}"));
    }
    Ok(found)
}

fn compare(
    name: &str,
    list: fn(&Path, Part) -> io::Result<Listing>,
    part: Part,
    source: &Path,
    restored: &Path,
    found: &mut Vec<String>,
) -> io::Result<()> {
    let before = list(source, part)?;
    if before.is_empty() {
        found.push(format!("{name}: the source has no files"));
    }
    let all = files::differences(&before, &list(restored, part)?);
    found.extend(all.into_iter().map(|one| format!("{name}: {one}")));
    Ok(())
}

fn compare_swap(
    part: Part,
    source: &Path,
    restored: &Path,
    found: &mut Vec<String>,
) -> io::Result<()> {
    let read = |disk: &Path| -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; SWAP_HEADER_BYTES];
        File::open(disk)?.read_exact_at(&mut bytes, part.offset_bytes())?;
        Ok(bytes)
    };
    if read(source)? != read(restored)? {
        found.push("swap: the header differs".to_owned());
    }
    Ok(())
}

/// Start, length, type and identity of every partition, as sfdisk dumps them.
fn partitions(disk: &Path) -> io::Result<Vec<String>> {
    let path = disk.display().to_string();
    Ok(output("sfdisk", "--dump", disk)?
        .lines()
        .filter_map(|line| line.strip_prefix(&path))
        .map(str::to_owned)
        .collect())
}

fn output(program: &str, argument: &str, disk: &Path) -> io::Result<String> {
    let output = Command::new(program).arg(argument).arg(disk).output();
    let output = output.map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("{program}: {error}; apt-get install fdisk gdisk"),
        )
    })?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::{differences, dirty};
    use crate::built::cache;
    use std::os::unix::fs::FileExt;
    use testkit::debian;
    use testkit::debian_disk::BIOS_SWAP;
    use testkit::qemu::Firmware;

    #[test]
    fn a_copy_has_no_differences_and_damage_is_found() {
        let source = debian::disk(Firmware::Bios, &cache().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("copy");
        debian::copy(&source, &copy).unwrap();
        let none = differences(Firmware::Bios, &source, &copy).unwrap();
        assert!(none.is_empty(), "{none:?}");

        let file = std::fs::OpenOptions::new().write(true).open(&copy).unwrap();
        file.write_all_at(b"x", BIOS_SWAP.offset_bytes() + 1050)
            .unwrap();
        // The second logical partition is gone: its entry in the chain is overwritten.
        file.write_all_at(&[0; 64], 3_930_112 * 512 + 446).unwrap();
        let found = differences(Firmware::Bios, &source, &copy)
            .unwrap()
            .join("\n");
        assert!(
            found.contains("swap: ") && found.contains("partitions: "),
            "{found}"
        );
    }

    #[test]
    fn a_dirty_disk_has_something_at_both_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        dirty(&path, 130 << 20).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!((bytes[0], bytes[bytes.len() - 1]), (0xd1, 0xd1));
    }
}
