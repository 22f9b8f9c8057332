//! Runs of clusters, as attributes list them.
//!
//! Owns: decoding the list. Does not own: which attribute has it.

use crate::files::Fail;

/// Most runs of a stream: bounds its memory.
pub(super) const MAX_RUNS: usize = 4 << 20;

/// Most clusters of a stream: of any size they are fewer than 2^63 bytes.
pub(super) const MAX_CLUSTERS: u64 = 1 << 41;

/// Clusters of a stream that stand one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// First cluster of the stream.
    pub at: u64,
    /// Cluster of the volume where it stands; none for a hole.
    pub cluster: Option<u64>,
    /// Clusters, one at least.
    pub count: u64,
}

/// Decodes a list whose first run begins at cluster `at` of the stream, in a volume of so
/// many clusters.
pub(super) fn decode(raw: &[u8], mut at: u64, clusters: u64) -> Result<Vec<Run>, Fail> {
    let bad = || Fail::damaged("a list of clusters is damaged");
    let (mut runs, mut left, mut last) = (Vec::new(), raw, 0i64);
    while let Some((&head, rest)) = left.split_first()
        && head != 0
    {
        let (len, offset) = (usize::from(head & 15), usize::from(head >> 4));
        if len == 0 || len > 8 || offset > 8 || rest.len() < len + offset {
            return Err(bad());
        }
        let count = number(&rest[..len], false).cast_unsigned();
        let cluster = if offset > 0 {
            last = last
                .checked_add(number(&rest[len..len + offset], true))
                .ok_or_else(bad)?;
            let first = u64::try_from(last).map_err(|_| bad())?;
            if first.checked_add(count).is_none_or(|end| end > clusters) {
                return Err(bad());
            }
            Some(first)
        } else {
            None
        };
        let end = at.checked_add(count).filter(|&end| end < MAX_CLUSTERS);
        if count == 0 || runs.len() >= MAX_RUNS {
            return Err(bad());
        }
        runs.push(Run { at, cluster, count });
        at = end.ok_or_else(bad)?;
        left = &rest[len + offset..];
    }
    Ok(runs)
}

/// Up to eight bytes, the last one with the sign if there is one.
fn number(raw: &[u8], signed: bool) -> i64 {
    let fill = match raw.last() {
        Some(last) if signed && last & 0x80 != 0 => 0xff,
        _ => 0,
    };
    let mut all = [fill; 8];
    all[..raw.len()].copy_from_slice(raw);
    i64::from_le_bytes(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forward_backward_and_holes() {
        // 0x18 clusters at 0x5634, 5 that are not there, 0x20 at 0x5634 - 0x20.
        let raw = [
            0x21, 0x18, 0x34, 0x56, 0x01, 0x05, 0x11, 0x20, 0xe0, 0, 9, 9,
        ];
        let run = |at, cluster, count| Run { at, cluster, count };
        assert_eq!(
            decode(&raw, 7, 1 << 20).unwrap(),
            [
                run(7, Some(0x5634), 0x18),
                run(0x1f, None, 5),
                run(0x24, Some(0x5614), 0x20)
            ]
        );
    }

    #[test]
    fn impossible_lists() {
        for raw in [
            &[0x11, 0, 1][..],
            &[0x10, 1],
            &[0x21, 1, 1],
            &[0x11, 1, 0xff],
            &[0x11, 9, 0x7f],
            &[0x91, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
            &[0x08, 255, 255, 255, 255, 255, 255, 255, 255],
        ] {
            assert!(decode(raw, 0, 0x80).is_err(), "{raw:x?}");
        }
    }
}
