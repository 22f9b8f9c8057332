//! The disks and images that many tests read, each built once.
//!
//! Owns: their contents, and the folder that they and the tests' own files live in.
//! Does not own: how disks are built (`testkit`).

use crate::imager;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tempfile::TempDir;
use testkit::build::{BuiltDisk, DiskBuilder, Tree};

pub const MIB: u64 = 1 << 20;

/// A disk that was built, and its image.
pub struct Imaged {
    /// The disk.
    pub disk: BuiltDisk,
    /// The image file.
    pub image: PathBuf,
}

/// A folder for one test's files; it goes away with the value.
pub fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder for the test")
}

/// Folder of the shared disks. A process cannot tidy up what it shares to its end, so
/// each one removes what earlier ones left.
fn shared() -> &'static Path {
    static SHARED: OnceLock<PathBuf> = OnceLock::new();
    SHARED.get_or_init(|| {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
        for entry in fs::read_dir(root).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let owner = name
                .to_str()
                .and_then(|name| name.strip_prefix("imager-disks-"));
            if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let path = root.join(format!("imager-disks-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder for shared disks");
        path
    })
}

fn imaged(name: &str, plan: DiskBuilder) -> Imaged {
    let disk = plan.build(&shared().join(format!("{name}.img")));
    let image = shared().join(format!("{name}.dpl"));
    imager!["backup", "-q", disk.path, image].ok();
    Imaged { disk, image }
}

/// GPT, 512-byte sectors: FAT32, ext4, swap, noise; boot code; unused space not zero.
pub fn gpt() -> &'static Imaged {
    static DISK: OnceLock<Imaged> = OnceLock::new();
    DISK.get_or_init(|| imaged("gpt", gpt_plan()))
}

fn gpt_plan() -> DiskBuilder {
    let tree = Tree::new(1, 24, 150_000);
    DiskBuilder::gpt(72 * MIB, 512)
        .boot_code(1)
        .stale()
        .fat32(36 * MIB, &tree)
        .ext4(16 * MIB, &tree)
        .swap(4 * MIB)
        .raw(3 * MIB, 7)
}

/// GPT, 4096-byte sectors.
pub fn gpt_4k() -> &'static Imaged {
    static DISK: OnceLock<Imaged> = OnceLock::new();
    DISK.get_or_init(|| {
        let tree = Tree::new(2, 24, 150_000);
        let plan = DiskBuilder::gpt(56 * MIB, 4096)
            .boot_code(2)
            .fat(16, 20 * MIB, &tree)
            .ext4(20 * MIB, &tree)
            .gap(2 * MIB)
            .swap(4 * MIB)
            .raw(MIB, 8);
        imaged("gpt-4k", plan)
    })
}

/// MBR with logical partitions, boot code before and behind the first sector.
pub fn mbr() -> &'static Imaged {
    static DISK: OnceLock<Imaged> = OnceLock::new();
    DISK.get_or_init(|| {
        let tree = Tree::new(3, 24, 100_000);
        let plan = DiskBuilder::mbr(64 * MIB, 512)
            .boot_code(3)
            .stale()
            .ext("ext2", 1024, 12 * MIB, &tree)
            .logical()
            .ext4(16 * MIB, &tree)
            .swap(4 * MIB)
            .fat(16, 8 * MIB, &tree)
            .raw(2 * MIB, 9);
        imaged("mbr", plan)
    })
}

/// One ext4 on a disk without a table.
pub fn bare() -> &'static Imaged {
    static DISK: OnceLock<Imaged> = OnceLock::new();
    DISK.get_or_init(|| {
        let tree = Tree::new(4, 24, 150_000);
        imaged(
            "bare",
            DiskBuilder::bare(24 * MIB, 512)
                .stale()
                .ext4(24 * MIB, &tree),
        )
    })
}

/// Noise that no compressor makes smaller: an image of about its own size.
pub fn noise() -> &'static Imaged {
    static DISK: OnceLock<Imaged> = OnceLock::new();
    DISK.get_or_init(|| {
        let plan = DiskBuilder::gpt(40 * MIB, 512)
            .raw(20 * MIB, 10)
            .raw(16 * MIB, 11);
        imaged("noise", plan)
    })
}

/// A copy that the test may change.
pub fn copy(of: &Path, to: PathBuf) -> PathBuf {
    fs::copy(of, &to).expect("space for a copy");
    to
}

/// A file of so many bytes, none of them zero: what is left over from an old life.
pub fn garbage(path: PathBuf, len: u64) -> PathBuf {
    let piece: Vec<u8> = (0..MIB).map(|n| (n % 251) as u8 + 1).collect();
    let mut bytes = piece.repeat(len.div_ceil(MIB) as usize);
    bytes.truncate(len as usize);
    fs::write(&path, bytes).expect("space for garbage");
    path
}

/// Overwrites bytes of a file.
pub fn poke(path: &Path, offset: u64, bytes: &[u8]) {
    fs::File::options()
        .write(true)
        .open(path)
        .and_then(|file| file.write_all_at(bytes, offset))
        .expect("the bytes are written");
}

/// Reads bytes of a file or device.
pub fn peek(path: &Path, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fs::File::open(path)
        .and_then(|file| file.read_exact_at(&mut bytes, offset))
        .expect("the bytes are there");
    bytes
}

/// Changes one byte of a file.
pub fn flip(path: &Path, offset: u64) {
    let byte = peek(path, offset, 1)[0];
    poke(path, offset, &[byte ^ 0x20]);
}

/// Hash of a whole file or device.
pub fn hash(path: &Path) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    let mut file = fs::File::open(path).expect("the file to hash");
    std::io::copy(&mut file, &mut hasher).expect("the file is read");
    hasher.finalize()
}
