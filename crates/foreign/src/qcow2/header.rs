//! The header of a qcow2 file, and what of it makes an image unreadable here.
//!
//! Owns: header and header extensions. Does not own: the tables they point to. The
//! specification is QEMU's docs/interop/qcow2.txt.

use crate::Error;
use crate::bytes::{be32, be64};

/// Longest first-level table in bytes, as QEMU has it.
const MAX_L1_BYTES: u64 = 32 << 20;
/// Longest name of a backing file, by the specification.
const MAX_NAME: u32 = 1023;

/// Incompatible features.
const DIRTY: u64 = 1;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;
const COMPRESSION_TYPE: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;

const CONVERT: &str = "Convert it with qemu-img convert -O qcow2, and import the result.";

/// How compressed clusters are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    /// Bare deflate.
    Deflate,
    Zstd,
}

/// What stands in a header.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub version: u32,
    pub cluster_bits: u32,
    /// Size of the disk in bytes.
    pub size: u64,
    /// Entries of the first-level table that the disk needs.
    pub l1_entries: u64,
    pub l1_offset: u64,
    pub snapshots: u32,
    pub compression: Compression,
    /// Name of the backing file: offset and length in the first cluster.
    pub backing: Option<(u64, u32)>,
    /// Where header extensions start.
    pub length: u32,
}

impl Header {
    /// Bytes of [`Header::parse`]'s input that count.
    pub const BYTES: usize = 112;

    /// Reads the header of a file of `file_len` bytes.
    pub fn parse(bytes: &[u8], file_len: u64) -> Result<Header, Error> {
        if bytes.len() < 72 || !bytes.starts_with(b"QFI\xfb") {
            return Error::damaged("the file has no qcow2 header");
        }
        let version = be32(bytes, 4);
        if !matches!(version, 2 | 3) {
            return Error::unsupported(format!("qcow2 of version {version}"), CONVERT);
        }
        if version == 3 && bytes.len() < 104 {
            return Error::damaged("the qcow2 header is torn");
        }
        let cluster_bits = be32(bytes, 20);
        if !(9..=21).contains(&cluster_bits) {
            return Error::damaged(format!("clusters of 2^{cluster_bits} bytes"));
        }
        if be32(bytes, 32) != 0 {
            return Error::unsupported(
                "the qcow2 image is encrypted",
                "Decrypt it with qemu-img convert, and import the result.",
            );
        }
        let length = if version == 2 { 72 } else { be32(bytes, 100) };
        let longest = 1u64 << cluster_bits;
        if version == 3 && (length < 104 || length % 8 != 0 || u64::from(length) > longest) {
            return Error::damaged(format!("a qcow2 header of {length} bytes"));
        }
        let size = be64(bytes, 24);
        // One second-level table is one cluster of 8-byte entries.
        let table_reach = 1u64 << (2 * cluster_bits - 3);
        let l1_entries = size.div_ceil(table_reach);
        let l1_offset = be64(bytes, 40);
        if u64::from(be32(bytes, 36)) < l1_entries || l1_entries > MAX_L1_BYTES / 8 {
            return Error::damaged(format!(
                "a disk of {size} bytes, and a table of {} entries for it",
                be32(bytes, 36)
            ));
        }
        let l1_end = l1_offset.checked_add(l1_entries * 8);
        if l1_end.is_none_or(|end| end > file_len) {
            return Error::damaged("its first table is not in the file: it is torn");
        }
        let name_len = be32(bytes, 16);
        let name_at = be64(bytes, 8);
        if name_at != 0 && (name_len == 0 || name_len > MAX_NAME || name_at >= longest) {
            return Error::damaged("the name of its backing file is out of range");
        }
        Ok(Header {
            version,
            cluster_bits,
            size,
            l1_entries,
            l1_offset,
            snapshots: be32(bytes, 60),
            compression: features(bytes, version, length)?,
            backing: (name_at != 0).then_some((name_at, name_len)),
            length,
        })
    }
}

/// Looks at the features and tells how clusters are compressed.
fn features(bytes: &[u8], version: u32, length: u32) -> Result<Compression, Error> {
    if version == 2 {
        return Ok(Compression::Deflate);
    }
    let incompatible = be64(bytes, 72);
    if incompatible & CORRUPT != 0 {
        return Error::damaged("the image is marked as corrupt by the program that wrote it");
    }
    if incompatible & DIRTY != 0 {
        return Error::unsupported(
            "the image is marked as dirty: it is in use, or was not closed properly",
            "Shut the virtual machine down; then qemu-img check -r all puts it right.",
        );
    }
    if incompatible & EXTERNAL_DATA != 0 {
        return Error::unsupported("its data is in another file", CONVERT);
    }
    if incompatible & EXTENDED_L2 != 0 {
        return Error::unsupported("it has subclusters (extended_l2=on)", CONVERT);
    }
    let known = DIRTY | CORRUPT | EXTERNAL_DATA | COMPRESSION_TYPE | EXTENDED_L2;
    if incompatible & !known != 0 {
        let bits = incompatible & !known;
        return Error::unsupported(
            format!("it needs features that are unknown: {bits:#x}"),
            CONVERT,
        );
    }
    // The byte is there only in headers that are long enough for it.
    let kind = if length > 104 {
        bytes.get(104).copied().unwrap_or(0)
    } else {
        0
    };
    match (kind, incompatible & COMPRESSION_TYPE != 0) {
        (0, _) => Ok(Compression::Deflate),
        (1, true) => Ok(Compression::Zstd),
        (1, false) => Error::damaged("it is compressed with zstd, and does not say so"),
        (other, _) => Error::unsupported(format!("its compression is unknown: {other}"), CONVERT),
    }
}

/// The format of the backing file, of the header extensions that stand in `bytes`.
pub(super) fn backing_format(bytes: &[u8]) -> Option<String> {
    let mut at = 0usize;
    while let Some(head) = bytes.get(at..at.checked_add(8)?) {
        let (kind, len) = (be32(head, 0), be32(head, 4) as usize);
        let data = bytes.get(at + 8..(at + 8).checked_add(len)?)?;
        match kind {
            0 => return None,
            0xe279_2aca => return Some(String::from_utf8_lossy(data).into_owned()),
            _ => at = (at + 8).checked_add(len.checked_next_multiple_of(8)?)?,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Compression, Header, backing_format};
    use crate::Error;

    /// A header of version 3 with clusters of 64 KiB for a disk of 1 GiB.
    fn good() -> Vec<u8> {
        let mut bytes = vec![0; Header::BYTES];
        bytes[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        bytes[23] = 16;
        bytes[24..32].copy_from_slice(&(1u64 << 30).to_be_bytes());
        bytes[39] = 2; // two tables of 512 MiB
        bytes[45] = 3; // at 196608
        bytes[103] = 112;
        bytes
    }

    fn changed(at: usize, value: u8) -> Result<Header, Error> {
        let mut bytes = good();
        bytes[at] = value;
        Header::parse(&bytes, 1 << 20)
    }

    #[test]
    fn a_good_header_is_taken_and_each_wrong_field_is_not() {
        let header = changed(0, b'Q').unwrap();
        assert_eq!((header.size, header.l1_entries), (1 << 30, 2));
        assert_eq!(header.compression, Compression::Deflate);
        for (at, value) in [
            (0, 0),
            (23, 8),
            (23, 22),
            (39, 1),
            (40, 1),
            (44, 1),
            (79, 2),
            (103, 3),
            (103, 96),
            (104, 1),
            (14, 1),
        ] {
            let error = changed(at, value);
            assert!(
                matches!(error, Err(Error::Damaged { .. })),
                "{at} {value} {error:?}"
            );
        }
        for (at, value) in [
            (7, 4),
            (35, 1),
            (79, 1),
            (79, 4),
            (79, 16),
            (79, 32),
            (72, 1),
        ] {
            let error = changed(at, value);
            assert!(
                matches!(error, Err(Error::Unsupported { .. })),
                "{at} {value} {error:?}"
            );
        }
    }

    #[test]
    fn extensions_end_where_they_end() {
        let text = [&[0xe2, 0x79, 0x2a, 0xca, 0, 0, 0, 3][..], b"raw\0\0\0\0\0"].concat();
        assert_eq!(backing_format(&text).as_deref(), Some("raw"));
        let behind = [&[1, 2, 3, 4, 0, 0, 0, 1, 9, 0, 0, 0, 0, 0, 0, 0][..], &text].concat();
        assert_eq!(backing_format(&behind).as_deref(), Some("raw"));
        assert_eq!(backing_format(&[[0; 8], [1; 8]].concat()), None);
        assert_eq!(backing_format(&text[..9]), None);
        assert_eq!(backing_format(&[0xff; 64]), None);
    }
}
