//! Feature bits.
//!
//! Owns: which are known, and which of them say where metadata lies. Does not own:
//! what follows from them.

/// Features that a system may ignore.
pub(super) mod compat {
    pub const HAS_JOURNAL: u32 = 0x4;
    pub const SPARSE_SUPER2: u32 = 0x200;
    /// Preallocation, AFS inodes, journal, attributes, resize inode, directory index,
    /// sparse_super2, fast commits, stable inodes, orphan file.
    pub const KNOWN: u32 =
        0x1 | 0x2 | HAS_JOURNAL | 0x8 | 0x10 | 0x20 | SPARSE_SUPER2 | 0x400 | 0x800 | 0x1000;
    /// Those that a running system never changes and a map depends on.
    pub const LAYOUT: u32 = HAS_JOURNAL | 0x10 | SPARSE_SUPER2;
}

/// Features without which a system must not mount.
pub(super) mod incompat {
    pub const RECOVER: u32 = 0x4;
    pub const JOURNAL_DEV: u32 = 0x8;
    pub const META_BG: u32 = 0x10;
    pub const B64: u32 = 0x80;
    pub const MMP: u32 = 0x100;
    pub const FLEX_BG: u32 = 0x200;
    pub const CSUM_SEED: u32 = 0x2000;
    /// file types, recovery, meta_bg, extents, 64bit, mmp, flex_bg, ea_inode,
    /// checksum seed, large directories, inline data, encryption, case folding.
    pub const KNOWN: u32 = 0x2
        | RECOVER
        | META_BG
        | 0x40
        | B64
        | MMP
        | FLEX_BG
        | 0x400
        | CSUM_SEED
        | 0x4000
        | 0x8000
        | 0x1_0000
        | 0x2_0000;
    /// Those that ext2 and ext3 have.
    pub const OLD: u32 = 0x2 | RECOVER | META_BG;
    /// As in [`super::compat`].
    pub const LAYOUT: u32 = JOURNAL_DEV | META_BG | B64 | MMP | FLEX_BG | CSUM_SEED;
}

/// Features without which a system must not write.
pub(super) mod ro_compat {
    pub const SPARSE_SUPER: u32 = 0x1;
    pub const GDT_CSUM: u32 = 0x10;
    pub const BIGALLOC: u32 = 0x200;
    pub const METADATA_CSUM: u32 = 0x400;
    pub const ORPHAN_PRESENT: u32 = 0x1_0000;
    /// sparse_super, large and huge files, group checksums, many directories, extra
    /// inode size, quota, bigalloc, metadata checksums, read-only, project quota,
    /// shared blocks, verity, orphans.
    pub const KNOWN: u32 = 0x1
        | 0x2
        | 0x8
        | GDT_CSUM
        | 0x20
        | 0x40
        | 0x100
        | BIGALLOC
        | METADATA_CSUM
        | 0x1000
        | 0x2000
        | 0x4000
        | 0x8000
        | ORPHAN_PRESENT;
    /// Those that ext2 and ext3 have.
    pub const OLD: u32 = 0x1 | 0x2 | 0x4;
    /// As in [`super::compat`].
    pub const LAYOUT: u32 = SPARSE_SUPER | GDT_CSUM | BIGALLOC | METADATA_CSUM;
}
