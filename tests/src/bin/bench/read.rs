//! The baseline of what must be done in any case: reading the used extents of a disk and
//! hashing them, or writing them.
//!
//! Owns: a reader as plain as it gets, with a thread for each core that hashes, and a writer.
//! Does not own: which extents (they come from `imager map --json --extents`).
//!
//! Called as `bench read DISK EXTENTS [hash] [direct]` or `bench read DISK EXTENTS write`, a
//! process of its own, so that it is measured like all others.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

/// Pieces as large as a cell of the image.
const PIECE: u64 = 1 << 20;
/// What direct input wants: memory and offsets in these steps.
const ALIGN: usize = 4096;

/// Runs the command line after `read`.
pub fn main(arguments: &[String]) -> io::Result<()> {
    let [disk, list, how @ ..] = arguments else {
        return Err(io::Error::other(
            "read DISK EXTENTS [hash] [direct], or read DISK EXTENTS write",
        ));
    };
    let has = |word: &str| how.iter().any(|w| w == word);
    if has("write") {
        return write(Path::new(disk), &pieces(&extents(Path::new(list))?));
    }
    let mut options = OpenOptions::new();
    options.read(true);
    if has("direct") {
        options.custom_flags(nix::libc::O_DIRECT);
    }
    let pieces = pieces(&extents(Path::new(list))?);
    read(&options.open(disk)?, &pieces, has("hash"))
}

/// The used extents of every region, from the JSON of the map.
fn extents(path: &Path) -> io::Result<Vec<(u64, u64)>> {
    let map: serde_json::Value = serde_json::from_slice(&std::fs::read(path)?)?;
    let regions = ["partitions", "gaps"]
        .iter()
        .filter_map(|key| map[key].as_array());
    let lists = regions
        .flatten()
        .filter_map(|region| region["extents"].as_array());
    let pair = |extent: &serde_json::Value| Some((extent[0].as_u64()?, extent[1].as_u64()?));
    let list: Vec<(u64, u64)> = lists.flatten().filter_map(pair).collect();
    if list.is_empty() {
        return Err(io::Error::other("the map lists no extents"));
    }
    Ok(list)
}

/// Extents in pieces that begin and end where direct input can.
fn pieces(extents: &[(u64, u64)]) -> Vec<(u64, usize)> {
    let step = ALIGN as u64;
    let mut pieces = Vec::new();
    for &(start, len) in extents {
        let end = (start + len).div_ceil(step) * step;
        let mut at = start / step * step;
        while at < end {
            let until = (at / PIECE * PIECE + PIECE).min(end);
            pieces.push((at, (until - at) as usize));
            at = until;
        }
    }
    pieces
}

/// Writes the pieces past the page cache, two at a time, and makes them durable.
fn write(disk: &Path, pieces: &[(u64, usize)]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let disk = options
        .write(true)
        .custom_flags(nix::libc::O_DIRECT)
        .open(disk)?;
    let next = std::sync::atomic::AtomicUsize::new(0);
    let all = || -> io::Result<()> {
        // Not zeros: a disk may find those easy.
        let buffer: Vec<u8> = (0..PIECE as usize + ALIGN)
            .map(|at| {
                (at as u64)
                    .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                    .to_le_bytes()[7]
            })
            .collect();
        let start = buffer.as_ptr().align_offset(ALIGN);
        loop {
            let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let Some(&(offset, len)) = pieces.get(at) else {
                return Ok(());
            };
            disk.write_all_at(&buffer[start..start + len], offset)?;
        }
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(all);
        all()?;
        other
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("a writer panicked")))
    })?;
    disk.sync_all()
}

fn read(disk: &File, pieces: &[(u64, usize)], hash: bool) -> io::Result<()> {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let (full, work) = mpsc::sync_channel::<(Vec<u8>, usize, usize)>(threads * 2);
    let (back, free) = mpsc::channel::<Vec<u8>>();
    let work = Arc::new(Mutex::new(work));
    for _ in 0..threads * 3 {
        let _ = back.send(vec![0; PIECE as usize + ALIGN]);
    }
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (work, back) = (Arc::clone(&work), back.clone());
            scope.spawn(move || {
                loop {
                    let next = work.lock().map(|work| work.recv());
                    let Ok(Ok((buffer, start, len))) = next else {
                        return;
                    };
                    if hash {
                        std::hint::black_box(blake3::hash(&buffer[start..start + len]));
                    }
                    let _ = back.send(buffer);
                }
            });
        }
        let mut result = Ok(());
        for &(offset, len) in pieces {
            let Ok(mut buffer) = free.recv() else { break };
            let start = buffer.as_ptr().align_offset(ALIGN);
            result = disk.read_exact_at(&mut buffer[start..start + len], offset);
            if result.is_err() || full.send((buffer, start, len)).is_err() {
                break;
            }
        }
        drop(full);
        result
    })
}
