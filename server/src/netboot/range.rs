//! The `Range` header of HTTP (RFC 9110 section 14).
//!
//! Owns: turning it into a part of a file. Does not own: the answer.

/// The part of a file that is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it: no range was asked for, or one that may be left unheeded.
    Whole,
    /// `length` bytes from `offset` on; never empty.
    Some {
        /// First byte.
        offset: u64,
        /// Number of bytes.
        length: u64,
    },
    /// Nothing of what was asked for exists.
    Unsatisfiable,
}

/// Reads a `Range` header for a file of `size` bytes. Several ranges, other units and
/// damaged headers give the whole file, as RFC 9110 allows.
pub fn part(header: &str, size: u64) -> Part {
    let Some((first, last)) = header
        .trim()
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'))
    else {
        return Part::Whole;
    };
    match (number(first), number(last)) {
        (Some(first), _) if last.is_empty() => from_to(first, size.saturating_sub(1), size),
        (Some(first), Some(last)) if first <= last => from_to(first, last, size),
        (None, Some(count)) if first.is_empty() => {
            if count == 0 || size == 0 {
                return Part::Unsatisfiable;
            }
            let length = count.min(size);
            Part::Some {
                offset: size - length,
                length,
            }
        }
        _ => Part::Whole,
    }
}

fn from_to(first: u64, last: u64, size: u64) -> Part {
    if first >= size {
        return Part::Unsatisfiable;
    }
    Part::Some {
        offset: first,
        length: last.min(size - 1) - first + 1,
    }
}

/// Digits only: `parse` alone would take a plus sign.
fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        text.parse().ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{Part, part};
    use proptest::prelude::{any, prop_assert, proptest};

    #[test]
    fn ranges_are_cut_to_the_file() {
        let some = |offset, length| Part::Some { offset, length };
        assert_eq!(part("bytes=0-0", 10), some(0, 1));
        assert_eq!(part("bytes=2-", 10), some(2, 8));
        assert_eq!(part("bytes=2-99", 10), some(2, 8));
        assert_eq!(part("bytes=-3", 10), some(7, 3));
        assert_eq!(part("bytes=-30", 10), some(0, 10));
    }

    #[test]
    fn what_lies_outside_is_unsatisfiable() {
        for header in ["bytes=10-", "bytes=10-12", "bytes=-0"] {
            assert_eq!(part(header, 10), Part::Unsatisfiable, "{header}");
        }
        assert_eq!(part("bytes=0-", 0), Part::Unsatisfiable);
        assert_eq!(part("bytes=-1", 0), Part::Unsatisfiable);
    }

    #[test]
    fn odd_headers_give_the_whole() {
        for header in [
            "",
            "bytes=",
            "bytes=-",
            "bytes=5-2",
            "bytes=0-1,3-4",
            "lines=1-2",
            "bytes=+1-2",
            "bytes=a-b",
        ] {
            assert_eq!(part(header, 10), Part::Whole, "{header}");
        }
        assert_eq!(part(&format!("bytes={}-", "9".repeat(40)), 10), Part::Whole);
    }

    proptest! {
        #[test]
        fn parts_lie_inside(first in any::<u64>(), last in any::<u64>(), size in any::<u64>()) {
            for header in [format!("bytes={first}-{last}"), format!("bytes={first}-"), format!("bytes=-{last}")] {
                if let Part::Some { offset, length } = part(&header, size) {
                    prop_assert!(length > 0 && offset.checked_add(length).is_some_and(|end| end <= size));
                }
            }
        }
    }
}
