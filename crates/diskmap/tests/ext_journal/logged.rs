//! File systems with a journal to replay, made by debugfs.
//!
//! Owns: the recipe, and finding parts of the journal. Does not own: any case.
//!
//! The recipe makes a file system and two later states of it. What differs is logged as two
//! transactions over the first state, so that what is in use before and after each of
//! them is known to the block.

use crate::common::{fill, ok, ok_with_input, poke, s, whole};
use crate::image::{Dump, Image, dumpe2fs, image, number};
use diskmap::{Extents, Method, Region, WarningKind};
use std::path::{Path, PathBuf};

/// A file system with two transactions to replay.
pub struct Logged {
    pub image: Image,
    pub block: u64,
    /// What is in use in one of its states, at least.
    pub used: Extents,
}

/// Blocks that are in use in the first state and differ in the second one, with their
/// content there. What was free before is written to `disk` at once: the kernel logs
/// only metadata, too.
fn difference(from: &Path, to: &Path, disk: &Path) -> (Vec<u64>, Vec<u8>) {
    let Dump { used, block, .. } = dumpe2fs(from);
    let (from, to) = (std::fs::read(from).unwrap(), std::fs::read(to).unwrap());
    let (mut blocks, mut bytes) = (Vec::new(), Vec::new());
    let pairs = from.chunks(block as usize).zip(to.chunks(block as usize));
    for (number, (_, new)) in (0..).zip(pairs).filter(|(_, (old, new))| old != new) {
        if used.contains(number * block) {
            blocks.push(number);
            bytes.extend_from_slice(new);
        } else {
            poke(disk, number * block, new);
        }
    }
    (blocks, bytes)
}

fn list(blocks: &[u64]) -> String {
    let words: Vec<String> = blocks.iter().map(u64::to_string).collect();
    words.join(",")
}

/// Runs debugfs with the journal open.
pub fn journal(path: &Path, open: &str, commands: &[String]) {
    let script = format!("jo {open}\n{}\njc\n", commands.join("\n"));
    let output = ok_with_input("debugfs", &["-w", "-f", "-", s(path)], &script);
    assert!(!output.contains("while"), "{output}");
}

/// Logs two later states of a file system with these options of `jo`.
pub fn logged(mib: u64, args: &[&str], open: &str) -> Logged {
    let image = image(mib, args);
    let block = dumpe2fs(&image.path).block;
    let mut used = Extents::new();
    let first = image.work.join("first-state");
    std::fs::copy(&image.path, &first).unwrap();
    let mut states: Vec<PathBuf> = vec![first];
    let new = image.work.join("new");
    fill(&new, 6, 20_000);
    for (step, files) in [[0u64, 1, 2], [3, 4, 5]].into_iter().enumerate() {
        let state = image.work.join(format!("state{step}"));
        std::fs::copy(&states[step], &state).unwrap();
        let mut script = String::new();
        for i in files {
            let file = new.join(format!("d{}/file{i}", i % 5));
            script += &format!("write {} new{i}\n", s(&file));
            std::fs::copy(&file, image.tree.join(format!("new{i}"))).unwrap();
            // Files that the recipe left: what they take is free afterwards.
            let old = format!("d{}/file{}", (i * 3 + 1) % 5, i * 3 + 1);
            script += &format!("rm /{old}\n");
            std::fs::remove_file(image.tree.join(old)).unwrap();
        }
        ok_with_input("debugfs", &["-w", "-f", "-", s(&state)], &script);
        states.push(state);
    }
    let mut commands = Vec::new();
    for (step, pair) in states.windows(2).enumerate() {
        let (blocks, bytes) = difference(&pair[0], &pair[1], &image.path);
        let file = image.work.join(format!("blocks{step}"));
        std::fs::write(&file, bytes).unwrap();
        commands.push(format!("jw -b {} {}", list(&blocks), s(&file)));
    }
    for state in &states {
        let dump = dumpe2fs(state);
        used = used.union(&dump.used.subtract(&dump.skippable));
    }
    journal(&image.path, open, &commands);
    Logged { image, block, used }
}

pub fn unclean_map(path: &Path) -> Region {
    let (region, map) = whole(path);
    assert_eq!(region.method, Method::Used, "{}", region.reason);
    assert_eq!(map.warnings.len(), 1, "{:?}", map.warnings);
    assert_eq!(map.warnings[0].kind, WarningKind::FsDirty);
    region
}

/// Blocks of the journal by what they are, as debugfs tells.
pub fn journal_blocks(path: &Path, what: &str) -> Vec<u64> {
    ok("debugfs", &["-c", "-R", "logdump -c", s(path)])
        .lines()
        .filter(|line| line.contains(what))
        .map(|line| number(line.split_once("at block ").unwrap().1))
        .collect()
}

/// Byte offset of a block of the journal.
pub fn place(logged: &Logged, block: u64) -> u64 {
    let request = format!("bmap <8> {block}");
    number(&ok(
        "debugfs",
        &["-c", "-R", &request, s(&logged.image.path)],
    )) * logged.block
}
