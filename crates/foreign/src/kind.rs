//! What an image file is, by its first and last bytes.
//!
//! Owns: the signatures, of formats and compressions that are read and of those that are not: a
//! container that is taken for a raw disk would be restored as one. Does not own: reading them.

use crate::Packing;

/// What a file seems to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A qcow2 file.
    Qcow2,
    /// A partclone image that is not compressed.
    Partclone,
    /// Compressed in a way that [`crate::unpack`] reads: what is inside decides.
    Packed(&'static str),
    /// Compressed in another way, by its name.
    OtherPacked(&'static str),
    /// Something that is no raw disk and is not read, by its name.
    Other(&'static str),
    /// Nothing that is known: a raw disk, as far as can be told.
    Raw,
}

/// Bytes of the start of a file that [`kind`] looks at.
pub const HEAD: usize = 512;
/// Bytes of its end.
pub const TAIL: usize = 512;

/// Compressions: the bytes that their files begin with, name.
const PACKED: &[(&[u8], &str)] = &[
    (&[0x02, 0x21, 0x4c, 0x18], "lz4 in its old format"),
    (b"\x89LZO\0\r\n\x1a\n", "lzop"),
    (b"LZIP", "lzip"),
    (b"LRZI", "lrzip"),
    (b"\x5d\0\0", "lzma"),
];

/// Other signatures: offset from the start, bytes, name.
const OTHERS: &[(usize, &[u8], &str)] = &[
    (0, b"DEPLOYIM", "a Deploy-OS image"),
    (0, b"QFI\xfb", "a qcow image of version 1"),
    (0, b"QED\0", "a QED image"),
    (0, b"KDMV", "a VMDK image"),
    (0, b"COWD", "a VMDK image"),
    (0, b"\xbe\xba\xfe\xca\0\0\0\0", "a VMDK image (seSparse)"),
    (0, b"# Disk DescriptorFile", "the text of a VMDK image"),
    (0, b"vhdxfile", "a VHDX image"),
    (0, b"conectix", "a VHD image"),
    (0x40, &[0x7f, 0x10, 0xda, 0xbe], "a VDI image"),
    (0, b"WithoutFreeSpace", "a Parallels image"),
    (0, b"WithouFreSpacExt", "a Parallels image"),
    (0, b"VMA\0", "a backup of Proxmox (VMA)"),
    (0, b"MSWIM\0\0\0", "a WIM file"),
    (0, b"EVF\x09\x0d\x0a\xff\0", "an EnCase image"),
    (0, b"EVF2\r\n\x81\0", "an EnCase image"),
    (0, b"\0ntfsclone-image", "an image of ntfsclone"),
    (0, b"PaRtImAgE-VoLuMe", "an image of partimage"),
    (0, b"FsA0", "an archive of fsarchiver"),
    (0, &[0xfe, 0xef], "a Ghost image"),
    (257, b"ustar", "a tar archive, as OVA files are"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
];

/// Signatures of the last 512 bytes: bytes at their start, name.
const BEHIND: &[(&[u8], &str)] = &[
    // A VHD of fixed size is a raw disk with a footer behind it.
    (b"conectix", "a VHD image"),
    (b"koly", "a DMG image"),
];

/// The compression of a file that [`crate::unpack`] reads, by its first bytes.
pub(crate) fn packing(head: &[u8]) -> Option<Packing> {
    let skipped = head.first().is_some_and(|b| b & 0xf0 == 0x50)
        && head.get(1..4) == Some(&[0x2a, 0x4d, 0x18]);
    if head.starts_with(b"\x1f\x8b\x08") {
        Some(Packing::Gzip)
    } else if skipped || head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        // Tools that compress in parallel put a frame that is to be skipped in front.
        Some(Packing::Zstd)
    } else if head.starts_with(b"\xfd7zXZ\0") {
        // The second byte of the flags says which check there is, 0: none.
        Some(Packing::Xz(
            head.get(7).is_some_and(|flags| flags & 15 != 0),
        ))
    } else if head.starts_with(b"BZh") {
        Some(Packing::Bzip2)
    } else if head.starts_with(&[0x04, 0x22, 0x4d, 0x18]) {
        // Checksums of blocks, of the content.
        Some(Packing::Lz4(
            head.get(4).is_some_and(|flags| flags & 0x14 != 0),
        ))
    } else {
        None
    }
}

/// The compression of a file that is not unpacked, by its first bytes.
pub(crate) fn other_packing(head: &[u8]) -> Option<&'static str> {
    let found = PACKED.iter().find(|(bytes, _)| head.starts_with(bytes));
    found.map(|(_, name)| *name)
}

/// Looks at the first (up to [`HEAD`]) and last (up to [`TAIL`]) bytes of a file.
pub fn kind(head: &[u8], tail: &[u8]) -> Kind {
    let version = crate::bytes::be32(head, 4);
    if head.starts_with(b"QFI\xfb") && version != 1 {
        return Kind::Qcow2;
    }
    if head.starts_with(crate::partclone::MAGIC) {
        return Kind::Partclone;
    }
    if let Some(packing) = packing(head) {
        return Kind::Packed(packing.name());
    }
    if let Some(name) = other_packing(head) {
        return Kind::OtherPacked(name);
    }
    let stands = |at: usize, bytes: &[u8]| head.get(at..).is_some_and(|h| h.starts_with(bytes));
    if let Some((.., name)) = OTHERS.iter().find(|(at, bytes, _)| stands(*at, bytes)) {
        return Kind::Other(name);
    }
    match BEHIND.iter().find(|(bytes, _)| tail.starts_with(bytes)) {
        Some((_, name)) => Kind::Other(name),
        None => Kind::Raw,
    }
}

#[cfg(test)]
mod tests {
    use super::{BEHIND, HEAD, Kind, OTHERS, PACKED, kind};

    #[test]
    fn only_what_is_nothing_else_is_a_raw_disk() {
        assert_eq!(kind(&[], &[]), Kind::Raw);
        assert_eq!(kind(&[0; HEAD], &[0; 512]), Kind::Raw);
        for version in [2, 3, 4] {
            assert_eq!(
                kind(&[b"QFI\xfb\0\0\0", &[version][..]].concat(), &[]),
                Kind::Qcow2
            );
        }
        for (at, bytes, name) in OTHERS {
            let mut head = vec![0; HEAD];
            head[*at..at + bytes.len()].copy_from_slice(bytes);
            if name.contains("version 1") {
                head[7] = 1;
            }
            assert_eq!(kind(&head, &[]), Kind::Other(name));
        }
        for (bytes, name) in BEHIND {
            assert_eq!(kind(&[0; HEAD], bytes), Kind::Other(name));
        }
        for (bytes, name) in PACKED {
            assert_eq!(kind(bytes, &[]), Kind::OtherPacked(name));
        }
        assert_eq!(kind(b"\x50\x2a\x4d\x18\x04", &[]), Kind::Packed("zstd"));
        assert_eq!(kind(b"\x1f\x8b\x08", b"koly"), Kind::Packed("gzip"));
        for (bytes, name) in [
            (&b"\xfd7zXZ\0\0\x04"[..], "xz"),
            (b"BZh9", "bzip2"),
            (b"\x04\x22\x4d\x18\x64", "lz4"),
        ] {
            assert_eq!(kind(bytes, &[]), Kind::Packed(name));
        }
    }

    /// By the letter, so that a signature that is lost is missed here.
    #[test]
    fn what_is_often_mistaken_for_a_disk_is_known() {
        let tar = [&[0; 257][..], b"ustar  \0"].concat();
        let heads: [&[u8]; 8] = [
            &tar,
            b"\0ntfsclone-image\x0a",
            b"PaRtImAgE-VoLuMe\0",
            b"VMA\0\0\0\0\x01",
            b"FsA02\0",
            b"EVF2\r\n\x81\0",
            b"\xfe\xef\x01\x01",
            b"\xbe\xba\xfe\xca\0\0\0\0\x01",
        ];
        for head in heads {
            assert!(matches!(kind(head, &[]), Kind::Other(_)), "{head:?}");
        }
        for head in [&b"LRZI\0\x06"[..], b"\x5d\0\0\x80\0", b"\x02\x21\x4c\x18"] {
            assert!(matches!(kind(head, &[]), Kind::OtherPacked(_)), "{head:?}");
        }
    }
}
