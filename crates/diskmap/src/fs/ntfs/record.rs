//! File records: what protects their sectors, and the attributes in them.
//!
//! Owns: the update sequence array, which every record that spans sectors has, the
//! header of a record, and the walk over its attributes. Does not own: where records
//! are, or attributes in several records.

use crate::bytes::{array, le16, le32, le64};

/// A sequence number stands in the last two bytes of every so many bytes, whatever the
/// sector size of the disk.
const STRIDE: usize = 512;

/// Type codes of the attributes that are read.
pub(super) const ATTRIBUTE_LIST: u32 = 0x20;
pub(super) const VOLUME_NAME: u32 = 0x60;
pub(super) const VOLUME_INFORMATION: u32 = 0x70;
pub(super) const DATA: u32 = 0x80;
pub(super) const INDEX_ROOT: u32 = 0x90;
pub(super) const INDEX_ALLOCATION: u32 = 0xa0;
pub(super) const BITMAP: u32 = 0xb0;
/// Stands behind the last attribute.
const END: u32 = u32::MAX;

/// Checks a block of whole strides that begins with `magic`, and puts the bytes back
/// that its sequence numbers stand in place of.
pub(super) fn unprotect(block: &mut [u8], magic: &[u8; 4]) -> Result<(), String> {
    if block.get(..4) != Some(magic) {
        return Err(format!(
            "begins with {:02x?} in place of {}",
            block.get(..4).unwrap_or_default(),
            String::from_utf8_lossy(magic)
        ));
    }
    let (Some(at), Some(count)) = (le16(block, 4), le16(block, 6)) else {
        return Err("is cut off".into());
    };
    let (at, strides) = (usize::from(at), block.len() / STRIDE);
    if usize::from(count) != strides + 1 || at + 2 * usize::from(count) > STRIDE - 2 {
        return Err(format!("has {count} sequence numbers at byte {at}"));
    }
    let number = le16(block, at);
    for stride in 0..strides {
        let end = (stride + 1) * STRIDE - 2;
        let Some(saved) = array::<2>(block, at + 2 * (stride + 1)) else {
            return Err("is cut off".into());
        };
        if le16(block, end) != number {
            return Err(format!("was not written whole (part {stride})"));
        }
        crate::bytes::put(block, end, &saved);
    }
    Ok(())
}

/// A reference to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reference {
    pub number: u64,
    pub sequence: u16,
}

impl Reference {
    pub fn new(raw: u64) -> Reference {
        Reference {
            number: raw & 0xffff_ffff_ffff,
            sequence: (raw >> 48) as u16,
        }
    }
}

/// A record whose sequence numbers were right.
pub(super) struct Record {
    pub number: u64,
    pub sequence: u16,
    pub in_use: bool,
    pub directory: bool,
    /// The record that this one continues; raw 0 if it stands for itself.
    pub base: u64,
    bytes: Vec<u8>,
    first: usize,
}

impl Record {
    /// Takes the bytes of a record as they are on disk.
    pub fn decode(number: u64, mut bytes: Vec<u8>) -> Result<Record, String> {
        let wrong = |what: String| format!("file record {number} {what}");
        unprotect(&mut bytes, b"FILE").map_err(wrong)?;
        let header = || {
            Some((
                usize::from(le16(&bytes, 20)?),
                le32(&bytes, 24)? as usize,
                le16(&bytes, 16)?,
                le16(&bytes, 22)?,
                le64(&bytes, 32)?,
            ))
        };
        let Some((first, end, sequence, flags, base)) = header() else {
            return Err(wrong("is cut off".into()));
        };
        if first < 42 || first % 8 != 0 || first > end || end > bytes.len() {
            return Err(wrong(format!("has attributes from byte {first} to {end}")));
        }
        bytes.truncate(end);
        Ok(Record {
            number,
            sequence,
            in_use: flags & 1 != 0,
            directory: flags & 2 != 0,
            base,
            bytes,
            first,
        })
    }

    /// What stands in the record, without the numbers that protect it, which may differ
    /// between copies.
    pub fn content(&self) -> Vec<u8> {
        let mut content = self.bytes.clone();
        let at = usize::from(le16(&content, 4).unwrap_or(0));
        let len = 2 * usize::from(le16(&content, 6).unwrap_or(0));
        if let Some(numbers) = content.get_mut(at..at + len) {
            numbers.fill(0);
        }
        content
    }

    /// All attributes of this record.
    pub fn attributes(&self) -> Result<Vec<Attribute<'_>>, String> {
        let mut found = Vec::new();
        let mut at = self.first;
        loop {
            let wrong = |what: &str| format!("file record {}: {what} at byte {at}", self.number);
            let Some(kind) = le32(&self.bytes, at) else {
                return Err(wrong("no end of its attributes"));
            };
            if kind == END {
                return Ok(found);
            }
            let len = le32(&self.bytes, at + 4).unwrap_or(0) as usize;
            let bytes = at
                .checked_add(len)
                .filter(|_| len >= 24 && len.is_multiple_of(8))
                .and_then(|end| self.bytes.get(at..end));
            let attribute = bytes.and_then(|bytes| Attribute::decode(kind, bytes));
            found.push(attribute.ok_or_else(|| wrong("an attribute without sense"))?);
            at += len;
        }
    }
}

/// An attribute, or a part of one.
#[derive(Clone, Debug)]
pub(super) struct Attribute<'a> {
    pub kind: u32,
    /// UTF-16.
    pub name: &'a [u8],
    /// Compressed, encrypted, sparse.
    pub flags: u16,
    /// Its number among the attributes of its record.
    pub instance: u16,
    pub body: Body<'a>,
}

/// Where the value of an attribute is.
#[derive(Clone, Debug)]
pub(super) enum Body<'a> {
    /// In the record.
    Resident(&'a [u8]),
    /// In clusters.
    Outside(Outside<'a>),
}

/// A value in clusters, or a part of one.
#[derive(Clone, Debug)]
pub(super) struct Outside<'a> {
    /// First cluster of the value that this part covers.
    pub first: u64,
    /// Clusters that this part covers.
    pub count: u64,
    /// Bytes of the value; only the first part has them right.
    pub size: u64,
    /// Bytes that were ever written; what is behind reads as zero.
    pub valid: u64,
    /// Where the clusters are.
    pub pairs: &'a [u8],
}

impl<'a> Attribute<'a> {
    fn decode(kind: u32, bytes: &'a [u8]) -> Option<Attribute<'a>> {
        let [outside, name_len] = array(bytes, 8)?;
        let name_at = usize::from(le16(bytes, 10)?);
        let name = match usize::from(name_len) * 2 {
            0 => &[],
            len => bytes.get(name_at..name_at + len)?,
        };
        let body = match outside {
            0 => {
                let len = le32(bytes, 16)? as usize;
                let at = usize::from(le16(bytes, 20)?);
                Body::Resident(bytes.get(at..at.checked_add(len)?)?)
            }
            1 => {
                let (first, last) = (le64(bytes, 16)?, le64(bytes, 24)?);
                Body::Outside(Outside {
                    first,
                    // An empty value ends one before it begins.
                    count: last.wrapping_add(1).checked_sub(first)?,
                    size: le64(bytes, 48)?,
                    valid: le64(bytes, 56)?,
                    pairs: bytes.get(usize::from(le16(bytes, 32)?)..)?,
                })
            }
            _ => return None,
        };
        Some(Attribute {
            kind,
            name,
            flags: le16(bytes, 12)?,
            instance: le16(bytes, 14)?,
            body,
        })
    }

    /// Whether it has this type and, in ASCII, this name.
    pub fn is(&self, kind: u32, name: &str) -> bool {
        self.kind == kind && same_name(self.name, name)
    }
}

/// Whether a name in UTF-16 is the given one in ASCII.
pub(super) fn same_name(utf16: &[u8], ascii: &str) -> bool {
    utf16.len() == 2 * ascii.len()
        && utf16
            .chunks_exact(2)
            .zip(ascii.bytes())
            .all(|(unit, byte)| unit == [byte, 0])
}

#[cfg(test)]
mod tests {
    use super::{Body, DATA, Record, VOLUME_NAME, same_name, unprotect};
    use crate::bytes::put;

    /// A record of 1024 bytes with these attributes, as it is on disk.
    fn record(attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![0u8; 1024];
        put(&mut bytes, 0, b"FILE");
        put(&mut bytes, 4, &[48, 0, 3, 0]);
        put(&mut bytes, 16, &[5, 0]);
        put(&mut bytes, 20, &[56, 0, 3, 0]);
        let mut at = 56;
        for attribute in attributes {
            put(&mut bytes, at, attribute);
            at += attribute.len();
        }
        put(&mut bytes, at, &[0xff; 4]);
        put(&mut bytes, 24, &(at as u32 + 8).to_le_bytes());
        // The number, and what stands in its places.
        let saved = [bytes[510], bytes[511], bytes[1022], bytes[1023]];
        put(&mut bytes, 48, &[7, 1]);
        put(&mut bytes, 50, &saved);
        put(&mut bytes, 510, &[7, 1]);
        put(&mut bytes, 1022, &[7, 1]);
        bytes
    }

    fn name(text: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0u8; (24 + text.len()).next_multiple_of(8)];
        let len = bytes.len() as u32;
        put(&mut bytes, 0, &VOLUME_NAME.to_le_bytes());
        put(&mut bytes, 4, &len.to_le_bytes());
        put(&mut bytes, 16, &(text.len() as u32).to_le_bytes());
        put(&mut bytes, 20, &[24]);
        put(&mut bytes, 24, text);
        bytes
    }

    fn data() -> Vec<u8> {
        let mut bytes = vec![0u8; 80];
        put(&mut bytes, 0, &DATA.to_le_bytes());
        put(&mut bytes, 4, &[80, 0, 0, 0, 1, 1, 72]);
        put(&mut bytes, 16, &3u64.to_le_bytes());
        put(&mut bytes, 24, &9u64.to_le_bytes());
        put(&mut bytes, 32, &[64]);
        put(&mut bytes, 64, &[0x11, 7, 5, 0]);
        put(&mut bytes, 72, b"a\0");
        bytes
    }

    #[test]
    fn what_stood_under_the_numbers_comes_back() {
        let long = vec![0xabu8; 600];
        let record = Record::decode(3, record(&[name(&long), data()])).unwrap();
        assert!(record.in_use && record.directory && record.sequence == 5);
        let all = record.attributes().unwrap();
        assert!(matches!(&all[0].body, Body::Resident(bytes) if *bytes == long));
        assert!(all[0].is(VOLUME_NAME, "") && all[1].is(DATA, "a") && !all[1].is(DATA, ""));
        let Body::Outside(body) = &all[1].body else {
            panic!()
        };
        assert_eq!((body.first, body.count), (3, 7));
        assert!(body.pairs.starts_with(&[0x11, 7, 5, 0]));
    }

    #[test]
    fn copies_may_have_other_numbers() {
        let one = record(&[name(b"x")]);
        let mut other = one.clone();
        for at in [48, 510, 1022] {
            put(&mut other, at, &[9, 9]);
        }
        let content = |bytes| Record::decode(0, bytes).unwrap().content();
        assert_eq!(content(one), content(other));
        assert_ne!(
            content(record(&[name(b"x")])),
            content(record(&[name(b"y")]))
        );
    }

    #[test]
    fn records_without_sense_are_refused() {
        let good = record(&[name(b"x"), data()]);
        let cases: [(usize, &[u8], &str); 11] = [
            (0, b"BAAD", "begins with"),
            (6, &[2, 0], "sequence numbers"),
            (4, &[0xfe, 1], "sequence numbers"),
            (1022, &[0, 0], "not written whole (part 1)"),
            (20, &[57], "attributes from byte 57"),
            (24, &[0xff, 0xff], "to 65535"),
            (24, &[64, 0], "without sense"),
            (24, &[168, 0], "no end"),
            (60, &[0], "without sense"),
            (64, &[2], "without sense"),
            (72, &[0xff], "without sense"),
        ];
        for (at, change, words) in cases {
            let mut bytes = good.clone();
            put(&mut bytes, at, change);
            let result = Record::decode(4, bytes).and_then(|r| r.attributes().map(|a| a.len()));
            let error = result.expect_err(words);
            assert!(error.contains(words), "{at}: {error}");
        }
        assert!(unprotect(&mut [], b"FILE").is_err());
        assert!(unprotect(&mut b"FILE".to_vec(), b"FILE").is_err());
    }

    #[test]
    fn names_in_ascii() {
        assert!(same_name(b"$\0I\0", "$I") && same_name(b"", ""));
        assert!(!same_name(b"$\0I\x01", "$I") && !same_name(b"$\0", "$I"));
    }
}
