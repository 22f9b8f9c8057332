//! Options of a TFTP transfer (RFC 2347, 2348, 2349, 7440).
//!
//! Owns: which are accepted, and with what values. Options that are unknown or make
//! no sense are left out of the answer, as RFC 2347 wants. Does not own: the transfer.

use std::time::Duration;

/// Block size without negotiation.
pub const DEFAULT_BLOCK: u16 = 512;
/// Largest block that fits an Ethernet frame with its IPv4, UDP and TFTP headers.
/// Larger wishes get this: fragments are lost on the boot ROMs' small buffers.
pub const LARGEST_BLOCK: u16 = 1468;
/// Largest window in blocks.
pub const LARGEST_WINDOW: u16 = 32;
/// Wait before the first repetition without negotiation.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);

/// What both sides agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// Bytes in a block, 8 to [`LARGEST_BLOCK`].
    pub block_size: u16,
    /// Blocks that are sent before an acknowledgement is waited for.
    pub window: u16,
    /// Wait before the first repetition.
    pub timeout: Duration,
}

/// Goes through a request's options. Returns what is agreed, and the options to
/// acknowledge, in the order and spelling of the request.
pub fn negotiate(options: &[(String, String)], file_size: u64) -> (Agreed, Vec<(String, String)>) {
    let mut agreed = Agreed {
        block_size: DEFAULT_BLOCK,
        window: 1,
        timeout: DEFAULT_TIMEOUT,
    };
    let mut accepted: Vec<(String, String)> = Vec::new();
    for (name, value) in options {
        // Each option may be there once; the first counts.
        if accepted
            .iter()
            .any(|(known, _)| known.eq_ignore_ascii_case(name))
        {
            continue;
        }
        let wish: Option<u64> = value.parse().ok();
        let answer = match (name.to_ascii_lowercase().as_str(), wish) {
            ("blksize", Some(wish @ 8..)) => {
                agreed.block_size = at_most(wish, LARGEST_BLOCK);
                agreed.block_size.to_string()
            }
            ("windowsize", Some(wish @ 1..)) => {
                agreed.window = at_most(wish, LARGEST_WINDOW);
                agreed.window.to_string()
            }
            ("timeout", Some(wish @ 1..=255)) => {
                agreed.timeout = Duration::from_secs(wish);
                wish.to_string()
            }
            ("tsize", Some(_)) => file_size.to_string(),
            _ => continue,
        };
        accepted.push((name.clone(), answer));
    }
    (agreed, accepted)
}

fn at_most(wish: u64, limit: u16) -> u16 {
    u16::try_from(wish).unwrap_or(limit).min(limit)
}

#[cfg(test)]
mod tests {
    use super::{Agreed, DEFAULT_TIMEOUT, negotiate};
    use std::time::Duration;

    fn with(options: &[(&str, &str)]) -> (Agreed, Vec<(String, String)>) {
        let owned: Vec<_> = options
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect();
        negotiate(&owned, 1_000_000)
    }

    #[test]
    fn wishes_are_met_within_limits() {
        let (agreed, accepted) = with(&[
            ("tsize", "0"),
            ("BlkSize", "65464"),
            ("windowsize", "4"),
            ("timeout", "3"),
        ]);
        assert_eq!(
            agreed,
            Agreed {
                block_size: 1468,
                window: 4,
                timeout: Duration::from_secs(3)
            }
        );
        let text: Vec<String> = accepted.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(
            text,
            ["tsize=1000000", "BlkSize=1468", "windowsize=4", "timeout=3"]
        );
        assert_eq!(with(&[("windowsize", "65535")]).0.window, 32);
        assert_eq!(with(&[("blksize", "99999999")]).0.block_size, 1468);
    }

    #[test]
    fn nonsense_is_left_out() {
        let nonsense = [
            ("blksize", "7"),
            ("blksize", "many"),
            ("windowsize", "0"),
            ("timeout", "0"),
            ("timeout", "256"),
            ("tsize", "-1"),
            ("multicast", ""),
        ];
        let (agreed, accepted) = with(&nonsense);
        assert_eq!(
            agreed,
            Agreed {
                block_size: 512,
                window: 1,
                timeout: DEFAULT_TIMEOUT
            }
        );
        assert_eq!(accepted, []);
    }

    #[test]
    fn an_option_counts_once() {
        let (agreed, accepted) = with(&[("blksize", "1024"), ("BLKSIZE", "512")]);
        assert_eq!((agreed.block_size, accepted.len()), (1024, 1));
    }
}
