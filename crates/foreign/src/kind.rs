//! What an image file is, by its first and last bytes.
//!
//! Owns: the signatures, of formats that are read and of formats that are not: a container
//! that is taken for a raw disk would be restored as one. Does not own: reading them.

/// What a file seems to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A qcow2 file.
    Qcow2,
    /// A partclone image that is not compressed.
    Partclone,
    /// Compressed in a way that [`crate::unpack`] reads: what is inside decides.
    Packed(&'static str),
    /// Something that is no raw disk and is not read, by its name.
    Other(&'static str),
    /// Nothing that is known: a raw disk, as far as can be told.
    Raw,
}

/// Bytes of the start of a file that [`kind`] looks at.
pub const HEAD: usize = 512;
/// Bytes of its end.
pub const TAIL: usize = 512;

/// Signatures: offset from the start, bytes, name.
const OTHERS: &[(usize, &[u8], &str)] = &[
    (0, b"DEPLOYIM", "a Deploy-OS image"),
    (0, b"QFI\xfb", "a qcow image of version 1"),
    (0, b"QED\0", "a QED image"),
    (0, b"KDMV", "a VMDK image"),
    (0, b"COWD", "a VMDK image"),
    (0, b"# Disk DescriptorFile", "the text of a VMDK image"),
    (0, b"vhdxfile", "a VHDX image"),
    (0, b"conectix", "a VHD image"),
    (0x40, &[0x7f, 0x10, 0xda, 0xbe], "a VDI image"),
    (0, b"WithoutFreeSpace", "a Parallels image"),
    (0, b"WithouFreSpacExt", "a Parallels image"),
    (0, b"MSWIM\0\0\0", "a WIM file"),
    (0, b"EVF\x09\x0d\x0a\xff\0", "an EnCase image"),
    (0, b"\xfd7zXZ\0", "compressed with xz"),
    (0, b"BZh", "compressed with bzip2"),
    (0, &[0x04, 0x22, 0x4d, 0x18], "compressed with lz4"),
    (0, b"\x89LZO\0\r\n\x1a\n", "compressed with lzop"),
    (0, b"LZIP", "compressed with lzip"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
];

/// Looks at the first (up to [`HEAD`]) and last (up to [`TAIL`]) bytes of a file.
pub fn kind(head: &[u8], tail: &[u8]) -> Kind {
    let version = crate::bytes::be32(head, 4);
    if head.starts_with(b"QFI\xfb") && version != 1 {
        return Kind::Qcow2;
    }
    if head.starts_with(crate::partclone::MAGIC) {
        return Kind::Partclone;
    }
    if head.starts_with(b"\x1f\x8b\x08") {
        return Kind::Packed("gzip");
    }
    if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return Kind::Packed("zstd");
    }
    let stands = |at: usize, bytes: &[u8]| head.get(at..).is_some_and(|h| h.starts_with(bytes));
    if let Some((.., name)) = OTHERS.iter().find(|(at, bytes, _)| stands(*at, bytes)) {
        return Kind::Other(name);
    }
    // A VHD of fixed size is a raw disk with a footer behind it.
    if tail.starts_with(b"conectix") {
        return Kind::Other("a VHD image");
    }
    Kind::Raw
}

#[cfg(test)]
mod tests {
    use super::{HEAD, Kind, OTHERS, kind};

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
        assert_eq!(kind(&[0; HEAD], b"conectix"), Kind::Other("a VHD image"));
    }
}
