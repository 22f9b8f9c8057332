//! Superblocks of Linux software RAID by recipe: no kernel with md is needed to make
//! them, and mdadm reads them.

use super::{ok, poke, s, sparse};
use std::path::{Path, PathBuf};

const MAGIC: u32 = 0xa92b_4efc;

/// A member of an array, all fields as in a clean mirror of two devices.
pub struct Recipe {
    /// "0.90", "1.0", "1.1" or "1.2".
    pub version: &'static str,
    pub level: i32,
    pub features: u32,
    pub role: u16,
    /// `u64::MAX` if nothing is to be synchronised.
    pub resync: u64,
    /// Flags of the device.
    pub flags: u8,
    /// The first entry of the list of bad blocks.
    pub bad_block: u64,
    /// State of the array and of the device, as version 0.90 has them.
    pub state: u32,
    pub device_state: u32,
    /// Minor number of version 0.90.
    pub minor: u32,
}

impl Recipe {
    pub fn new(version: &'static str) -> Recipe {
        Recipe {
            version,
            level: 1,
            // A write-intent bitmap and a list of bad blocks.
            features: 1 | 8,
            role: 0,
            resync: u64::MAX,
            flags: 0,
            bad_block: u64::MAX,
            state: 1,
            device_state: 6,
            minor: 90,
        }
    }

    /// Byte offset of the superblock in a member of `size` bytes.
    pub fn place(&self, size: u64) -> u64 {
        match self.version {
            "0.90" => (size & !0xffff) - 0x1_0000,
            "1.0" => (size - 8192) & !0xfff,
            "1.1" => 0,
            _ => 4096,
        }
    }

    /// Where the content starts.
    pub fn data(&self) -> u64 {
        match self.version {
            "0.90" | "1.0" => 0,
            _ => 1 << 20,
        }
    }

    /// Makes the content in `inner` the one of a member: a file beside it.
    pub fn wrap(&self, inner: &Path) -> PathBuf {
        let content = std::fs::read(inner).unwrap();
        let size = self.data() + content.len() as u64 + (256 << 10) + 1536;
        let path = sparse(&inner.with_extension("member"), size);
        poke(&path, self.data(), &content);
        self.write(&path, content.len() as u64);
        path
    }

    /// Writes the superblock into a member whose content has `len` bytes.
    pub fn write(&self, path: &Path, len: u64) {
        let size = path.metadata().unwrap().len();
        let place = self.place(size);
        if self.version == "0.90" {
            poke(path, place, &self.version0(len));
            return;
        }
        poke(path, place + 4096, &bitmap(len));
        // The list of bad blocks stands 8 KiB away from the superblock.
        let away: i64 = if self.version == "1.0" { -8192 } else { 8192 };
        poke(path, place, &self.version1(size, len, away / 512));
        let mut list = [0xffu8; 4096];
        list[..8].copy_from_slice(&self.bad_block.to_le_bytes());
        poke(path, place.checked_add_signed(away).unwrap(), &list);
    }

    /// Two near copies for RAID10.
    fn layout(&self) -> u32 {
        if self.level == 10 { 0x102 } else { 0 }
    }

    fn version1(&self, size: u64, len: u64, bad_blocks: i64) -> Vec<u8> {
        const DEVICES: u32 = 128;
        let mut raw = vec![0u8; 256 + 2 * DEVICES as usize];
        let mut put = |at: usize, bytes: &[u8]| raw[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC.to_le_bytes());
        put(4, &1u32.to_le_bytes());
        put(8, &self.features.to_le_bytes());
        put(16, &UUID);
        put(32, b"host:mirror");
        put(64, &1_700_000_000u64.to_le_bytes());
        put(72, &self.level.to_le_bytes());
        put(76, &self.layout().to_le_bytes());
        put(80, &(len / 512).to_le_bytes());
        put(88, &if self.level == 1 { 0u32 } else { 1024 }.to_le_bytes());
        put(92, &2u32.to_le_bytes());
        put(96, &8i32.to_le_bytes());
        put(128, &(self.data() / 512).to_le_bytes());
        put(136, &(len / 512).to_le_bytes());
        put(144, &(self.place(size) / 512).to_le_bytes());
        put(160, &1u32.to_le_bytes());
        put(168, &[7; 16]);
        put(184, &[self.flags]);
        put(186, &8u16.to_le_bytes());
        put(188, &(bad_blocks as i32).to_le_bytes());
        put(192, &1_700_000_001u64.to_le_bytes());
        put(200, &17u64.to_le_bytes());
        put(208, &self.resync.to_le_bytes());
        put(220, &DEVICES.to_le_bytes());
        put(256, &[0xff; 2 * DEVICES as usize]);
        put(256, &1u16.to_le_bytes());
        put(258, &self.role.to_le_bytes());
        let sum = folded(&raw);
        raw[216..220].copy_from_slice(&sum.to_le_bytes());
        raw
    }

    fn version0(&self, len: u64) -> Vec<u8> {
        let mut words = vec![0u32; 1024];
        words[0] = MAGIC;
        words[2] = self.minor;
        for (word, bytes) in [5, 13, 14, 15].into_iter().zip(UUID.chunks(4)) {
            words[word] = u32::from_be_bytes(bytes.try_into().unwrap());
        }
        words[6] = 1_700_000_000;
        words[7] = self.level as u32;
        words[8] = (len / 1024) as u32;
        words[9] = 2;
        words[10] = 2;
        words[32] = 1_700_000_001;
        words[33] = self.state;
        words[34] = 2;
        words[35] = 2;
        words[39] = 17;
        words[64] = self.layout();
        words[65] = 64 << 10;
        words[128..133].copy_from_slice(&[0, 8, 1, 0, 6]);
        words[160..165].copy_from_slice(&[1, 8, 17, u32::from(self.role) + 1, self.device_state]);
        words.copy_within(160..192, 992);
        let raw: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        words[38] = folded(&raw);
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }
}

/// UUID of every array here.
pub const UUID: [u8; 16] = [
    0x9f, 0x3a, 0x11, 0x02, 0x55, 0x66, 0x77, 0x88, 0x90, 0xab, 0xcd, 0xef, 1, 2, 3, 4,
];

/// The head of a write-intent bitmap.
fn bitmap(len: u64) -> Vec<u8> {
    let mut raw = vec![0u8; 256];
    raw[..4].copy_from_slice(b"bitm");
    raw[4] = 4;
    raw[8..24].copy_from_slice(&UUID);
    raw[24..32].copy_from_slice(&17u64.to_le_bytes());
    raw[32..40].copy_from_slice(&17u64.to_le_bytes());
    raw[40..48].copy_from_slice(&(len / 512).to_le_bytes());
    raw[52..56].copy_from_slice(&(1u32 << 20).to_le_bytes());
    raw[56] = 5;
    raw
}

/// The checksum of both families.
fn folded(raw: &[u8]) -> u32 {
    let sum: u64 = raw
        .chunks(4)
        .map(|word| u64::from(u32::from_le_bytes(word.try_into().unwrap())))
        .sum();
    ((sum & 0xffff_ffff) + (sum >> 32)) as u32
}

/// What mdadm says of a member: the value of each line.
pub fn examine(path: &Path) -> impl Fn(&str) -> String {
    let text = ok("mdadm", &["--examine", s(path)]);
    move |name| {
        let line = text
            .lines()
            .find(|line| line.split(" : ").next().unwrap().trim() == name);
        let line = line.unwrap_or_else(|| panic!("no {name} in {text}"));
        line.split_once(" : ").unwrap().1.trim().to_string()
    }
}
