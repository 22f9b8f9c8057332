//! File trees that are the same on every machine.
//!
//! Owns: names, sizes and bytes from a seed, and the hashes to compare with. Does
//! not own: putting them into file systems.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// BLAKE3 hash of each file's bytes, by path relative to the root.
pub type Hashes = BTreeMap<String, [u8; 32]>;

/// All times of all files: 2023-11-14, a date that FAT can hold.
pub(crate) const FILE_TIME: u64 = 1_700_000_000;

/// A stream of pseudo-random numbers (SplitMix64): the same for the same seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts the stream of this seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next_u64() % limit
    }

    /// Fills a buffer with bytes that no compressor makes smaller.
    pub fn fill(&mut self, buf: &mut [u8]) {
        for piece in buf.chunks_mut(8) {
            piece.copy_from_slice(&self.next_u64().to_le_bytes()[..piece.len()]);
        }
    }

    /// So many random bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.fill(&mut bytes);
        bytes
    }
}

/// A tree of files: some empty, some tiny, one of the largest size; random, text-like
/// and zero-filled contents by turns; three levels of directories.
#[derive(Clone, Debug)]
pub struct Tree {
    seed: u64,
    files: usize,
    largest: usize,
}

impl Tree {
    /// `files` files of at most `largest` bytes.
    pub fn new(seed: u64, files: usize, largest: usize) -> Tree {
        Tree {
            seed,
            files,
            largest,
        }
    }

    /// Path (relative to the root) and contents of every file.
    pub fn files(&self) -> impl Iterator<Item = (String, Vec<u8>)> + '_ {
        (0..self.files).map(|index| {
            let mut random = Random::new(self.seed ^ (index as u64) << 32);
            let path = match index % 3 {
                0 => format!("file-{index}.bin"),
                1 => format!("directory-{}/file-{index}.bin", index % 7),
                _ => format!("directory-{}/second level/file-{index}.bin", index % 5),
            };
            let len = match index {
                0 => self.largest,
                1 => 0,
                2 => 1,
                _ => random.below(self.largest as u64 + 1) as usize,
            };
            let contents = match index % 4 {
                0 | 1 => random.bytes(len),
                2 => (0..len)
                    .map(|at| b"the quick brown fox "[at % 20])
                    .collect(),
                _ => vec![0; len],
            };
            (path, contents)
        })
    }

    /// What [`hashes_of`] gives for this tree.
    pub fn hashes(&self) -> Hashes {
        self.files()
            .map(|(path, contents)| (path, *blake3::hash(&contents).as_bytes()))
            .collect()
    }

    /// Writes all files below a directory.
    ///
    /// # Panics
    /// If that fails.
    pub fn write_to(&self, root: &Path) {
        for (path, contents) in self.files() {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("joined to a root"))
                .expect("a directory for the tree");
            fs::write(&path, contents).expect("a file of the tree");
            set_times(&path);
        }
        for_each_entry(root, &mut |path| set_times(path));
        set_times(root);
    }
}

/// Hashes of all files below a directory. `lost+found` is passed over.
///
/// # Panics
/// If something cannot be read.
pub fn hashes_of(root: &Path) -> Hashes {
    let mut hashes = Hashes::new();
    for_each_entry(root, &mut |path| {
        if path.is_file() {
            let name = path
                .strip_prefix(root)
                .expect("below the root")
                .to_string_lossy()
                .into_owned();
            let contents = fs::read(path).expect("a file that was listed");
            hashes.insert(name, *blake3::hash(&contents).as_bytes());
        }
    });
    hashes
}

fn for_each_entry(dir: &Path, act: &mut impl FnMut(&Path)) {
    let mut paths: Vec<_> = fs::read_dir(dir)
        .expect("a directory to list")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.file_name().is_some_and(|name| name != "lost+found"))
        .collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            for_each_entry(&path, act);
        }
        act(&path);
    }
}

pub(super) fn set_times(path: &Path) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(FILE_TIME);
    let times = fs::FileTimes::new().set_accessed(time).set_modified(time);
    File::open(path)
        .and_then(|file| file.set_times(times))
        .expect("times of the tree");
}

#[cfg(test)]
mod tests {
    use super::{Random, Tree, hashes_of};

    #[test]
    fn known_stream() {
        // Published first values of SplitMix64 for seed 1234567.
        let mut random = Random::new(1_234_567);
        assert_eq!(
            [random.next_u64(), random.next_u64()],
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]
        );
    }

    #[test]
    fn what_is_written_has_the_known_hashes() {
        let tree = Tree::new(1, 30, 5000);
        let dir = tempfile::tempdir().unwrap();
        tree.write_to(dir.path());
        assert_eq!(hashes_of(dir.path()), tree.hashes());
        assert_eq!(tree.hashes().len(), 30);
        assert_ne!(tree.hashes(), Tree::new(2, 30, 5000).hashes());
        assert!(tree.files().any(|(_, contents)| contents.len() == 5000));
    }
}
