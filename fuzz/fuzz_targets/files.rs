//! The readers of files in images: a file system of each kind, read to its end. The modules
//! stand alone, so the imager and what it links need not be built here; what they ask of it
//! is below.
//!
//! The disk is put together from parts: its size in KiB (2 bytes), then place in units of
//! 512 bytes (4 bytes), length (2 bytes), bytes. The lower bits of the first byte choose the
//! reader, one knob repairs what every record of NTFS ends with.
#![no_main]

#[allow(dead_code)]
#[path = "../../imager/src/files/mod.rs"]
mod files;

/// What the readers ask of the program around them.
mod progress {
    pub trait ProgressSink {
        fn interrupted(&self) -> bool;
    }
}

mod report {
    use wire::{Code, DiskState, Report};

    pub fn image(error: &image::Error, disk: DiskState) -> Report {
        Report::new(Code::ImageDamaged, error.to_string(), disk)
    }
}

mod map {
    pub fn printable(text: &str, most: usize) -> String {
        text.chars().take(most).collect()
    }
}

use files::part::{Bytes, Part};
use files::walk::{Visitor, walk};
use files::{Fail, Kind, Node, Tree};
use image::layout::Region;
use libfuzzer_sys::fuzz_target;
use std::cell::Cell;

/// Names, pieces and reads of one input: what is beyond is cut off, as by an operator.
const BUDGET: u32 = 4000;
/// Largest disk.
const SIZE: usize = 4 << 20;

/// A disk in memory that holds all of itself.
struct Memory(Vec<u8>);

impl Bytes for Memory {
    fn counted(&self, buf: &mut [u8], offset: u64) -> Result<u64, image::Error> {
        let from = offset as usize;
        buf.copy_from_slice(&self.0[from..from + buf.len()]);
        Ok(buf.len() as u64)
    }
}

struct Budget(Cell<u32>);

impl progress::ProgressSink for Budget {
    fn interrupted(&self) -> bool {
        self.0.set(self.0.get().saturating_sub(1));
        self.0.get() == 0
    }
}

struct Reader<'a> {
    tree: &'a dyn Tree,
    left: u32,
}

impl Visitor for Reader<'_> {
    fn entry(&mut self, _: &[u8], name: &[u8], node: Result<Node, Fail>) -> Result<bool, Fail> {
        self.left = self.left.checked_sub(1).ok_or(Fail::Interrupted)?;
        let Ok(node) = node else { return Ok(false) };
        assert!(name != b"." && name != b"..");
        match node.kind {
            Kind::File => {
                let mut pieces = 1000u32;
                let _ = files::read(self.tree, &node, &mut |_| {
                    pieces = pieces.checked_sub(1).ok_or(Fail::Interrupted)?;
                    Ok(())
                });
            }
            Kind::Symlink => {
                if let Ok(target) = self.tree.target(&node) {
                    assert!(target.len() as u64 <= files::MAX_TARGET * 3);
                }
            }
            _ => {}
        }
        Ok(true)
    }

    fn leave(&mut self, _: &[u8], _: &Node, _: Option<Fail>) -> Result<(), Fail> {
        Ok(())
    }
}

/// Puts the sequence number of a protected block at the end of each of its sectors.
fn repair(block: &mut [u8]) {
    let at = usize::from(u16::from_le_bytes([block[4], block[5]]));
    let Some(number) = block.get(at..at + 2) else { return };
    let number = [number[0], number[1]];
    for sector in block.chunks_exact_mut(512) {
        sector[510..].copy_from_slice(&number);
    }
}

fn disk(data: &[u8]) -> Option<Vec<u8>> {
    let (size, mut rest) = data.split_first_chunk::<2>()?;
    let size = (usize::from(u16::from_le_bytes(*size)) << 10).clamp(64 << 10, SIZE);
    let mut bytes = vec![0; size];
    while let Some((place, tail)) = rest.split_first_chunk::<6>() {
        let sector = u32::from_le_bytes([place[0], place[1], place[2], place[3]]);
        let at = sector as usize % (size / 512) * 512;
        let len = usize::from(u16::from_le_bytes([place[4], place[5]])).min(tail.len());
        let (part, tail) = tail.split_at(len);
        let len = len.min(size - at);
        bytes[at..at + len].copy_from_slice(&part[..len]);
        rest = tail;
    }
    Some(bytes)
}

fuzz_target!(|data: &[u8]| {
    let Some((&knobs, rest)) = data.split_first() else { return };
    let Some(mut bytes) = disk(rest) else { return };
    let file_system = ["ext4", "ntfs", "fat12", "fat16", "fat32"][usize::from(knobs & 7) % 5];
    if knobs & 8 != 0 {
        for at in (0..bytes.len() - 4096).step_by(512) {
            match &bytes[at..at + 4] {
                b"FILE" => repair(&mut bytes[at..at + 1024]),
                b"INDX" => repair(&mut bytes[at..at + 4096]),
                _ => {}
            }
        }
    }
    let region = Region {
        kind: "whole".into(),
        size: bytes.len() as u64,
        file_system: file_system.into(),
        method: "full".into(),
        ..Region::default()
    };
    let memory = Memory(bytes);
    let budget = Budget(Cell::new(BUDGET));
    let part = Part::over(&memory, &region, Vec::new(), &budget);
    let Ok(tree) = files::open(&part) else { return };
    let _ = files::path::find(&*tree, b"folder/link/../file/", true);
    if let Ok(root) = tree.root() {
        let _ = walk(&*tree, &root, b"", &mut Reader { tree: &*tree, left: 2000 });
    }
});
