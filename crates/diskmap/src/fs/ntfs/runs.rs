//! Mapping pairs: which clusters hold a value.
//!
//! Owns: their encoding. Does not own: what the value is.

/// Clusters in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Clusters.
    pub len: u64,
    /// First cluster on the volume; none if it is a hole, which reads as zero.
    pub start: Option<u64>,
}

/// Decodes mapping pairs of exactly `count` clusters on a volume of `clusters`.
pub(super) fn decode(pairs: &[u8], count: u64, clusters: u64) -> Result<Vec<Run>, String> {
    let mut runs = Vec::new();
    let (mut at, mut covered, mut place) = (0, 0u64, 0i64);
    let mut take = |len: usize| {
        let bytes = pairs.get(at..at + len);
        at += len;
        bytes.ok_or("a list of clusters is cut off")
    };
    loop {
        let head = take(1)?[0];
        if head == 0 {
            break;
        }
        let len = number(take(usize::from(head & 15))?).filter(|&len| len > 0);
        let offset = take(usize::from(head >> 4))?;
        let len = len.and_then(|len| u64::try_from(len).ok());
        let total = len.and_then(|len| covered.checked_add(len));
        let (Some(len), Some(total)) = (len, total.filter(|&total| total <= count)) else {
            return Err(format!(
                "a list of {count} clusters has a run without sense"
            ));
        };
        covered = total;
        let start = if offset.is_empty() {
            None
        } else {
            let next = number(offset).and_then(|offset| place.checked_add(offset));
            place = next.ok_or("a list of clusters has a run without sense")?;
            let start = u64::try_from(place).ok();
            let inside = start.filter(|s| s.checked_add(len).is_some_and(|end| end <= clusters));
            Some(inside.ok_or_else(|| {
                format!("clusters {place} and on are in use; the volume has {clusters}")
            })?)
        };
        runs.push(Run { len, start });
    }
    if covered != count {
        return Err(format!("a list of {count} clusters has only {covered}"));
    }
    Ok(runs)
}

/// A little-endian number with a sign, of up to eight bytes.
fn number(bytes: &[u8]) -> Option<i64> {
    let negative = bytes.last()? & 0x80 != 0;
    let mut all = [if negative { 0xff } else { 0 }; 8];
    all.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i64::from_le_bytes(all))
}

#[cfg(test)]
mod tests {
    use super::{Run, decode, number};

    #[test]
    fn runs_forward_backward_and_holes() {
        let pairs = [
            0x21, 0x18, 0x34, 0x56, // 24 from 0x5634
            0x11, 0x08, 0xf0, // 8, 16 before the last start
            0x01, 0x05, // a hole
            0x12, 0x00, 0x01, 0x10, // 256
            0x00,
        ];
        let run = |len, start| Run { len, start };
        assert_eq!(
            decode(&pairs, 293, 1 << 16).unwrap(),
            [
                run(24, Some(0x5634)),
                run(8, Some(0x5624)),
                run(5, None),
                run(256, Some(0x5634))
            ]
        );
        assert_eq!(decode(&[0], 0, 9).unwrap(), []);
    }

    #[test]
    fn lists_without_sense_are_refused() {
        let cases: [(&[u8], u64, &str); 9] = [
            (&[], 0, "cut off"),
            (&[0x21, 4, 1], 4, "cut off"),
            (&[0x11, 4, 1], 4, "cut off"),
            (&[0x11, 4, 1, 0], 5, "has only 4"),
            (&[0x11, 4, 1, 0], 3, "without sense"),
            (&[0x11, 0xfc, 1, 0], 4, "without sense"),
            (&[0x10, 1, 0], 4, "without sense"),
            (&[0x11, 4, 0xff, 0], 4, "clusters -1 and on"),
            (&[0x11, 4, 0x5d, 0], 4, "clusters 93 and on"),
        ];
        for (pairs, count, words) in cases {
            let error = decode(pairs, count, 96).unwrap_err();
            assert!(error.contains(words), "{pairs:x?}: {error}");
        }
        assert!(decode(&[0x11, 4, 0x5c, 0], 4, 96).is_ok());
        let large = [
            0x81, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0x11, 1, 1, 0,
        ];
        assert!(decode(&large, 2, u64::MAX).is_err());
        assert_eq!(number(&[1; 9]), None);
    }
}
