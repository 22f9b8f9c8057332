//! The course of one TFTP transfer, without sockets, files or clocks.
//!
//! Owns: which blocks are sent when, repetition and its limit. Does not own: reading
//! blocks, or waiting. Blocks have absolute numbers here, so files with more than
//! 65535 blocks work: numbers on the wire go on from 65535 to 0.
//!
//! Two rules keep duplicates from breeding (RFC 1123 section 4.2.3.1): an
//! acknowledgement that is not news never sends anything with a window of one; with a
//! larger window, where it means that the first block of the window is missing
//! (RFC 7440 section 4), it does so once per wait.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::negotiate::{Agreed, negotiate};
use super::packet::{Packet, Request};

/// Repetitions of one window before the client is given up. With the default time-out
/// that is about 40 seconds.
pub const MAX_REPETITIONS: u32 = 8;
/// Longest wait before a repetition.
pub const LONGEST_WAIT: Duration = Duration::from_secs(8);

/// What the driver of a transfer does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send the acknowledged options ([`Transfer::option_ack`]), then wait.
    SendOptions,
    /// Send these blocks, then wait.
    SendBlocks(RangeInclusive<u64>),
    /// Go on waiting: what came changes nothing.
    Wait,
    /// Everything arrived.
    Done,
    /// The client ended the transfer (it may only have wanted the size).
    Aborted(String),
    /// The client is silent.
    GivenUp,
}

/// The state of a transfer.
#[derive(Clone, Debug)]
pub struct Transfer {
    size: u64,
    agreed: Agreed,
    options: Vec<(String, String)>,
    /// Number of the last block, which is shorter than the block size, perhaps empty.
    last: u64,
    /// Everything up to here has arrived. `None` = not even the options.
    arrived: Option<u64>,
    /// Highest block that was sent.
    sent: u64,
    repetitions: u32,
    /// A doubled acknowledgement was already answered in this wait.
    answered_double: bool,
}

impl Transfer {
    /// Begins a transfer of a file of `size` bytes.
    pub fn begin(request: &Request, size: u64) -> (Transfer, Step) {
        let (agreed, options) = negotiate(&request.options, size);
        let mut transfer = Transfer {
            size,
            agreed,
            last: size / u64::from(agreed.block_size) + 1,
            arrived: if options.is_empty() { Some(0) } else { None },
            options,
            sent: 0,
            repetitions: 0,
            answered_double: false,
        };
        let step = transfer.send();
        (transfer, step)
    }

    /// A packet came from the client.
    pub fn on_packet(&mut self, packet: &Packet) -> Step {
        match packet {
            Packet::Ack { block } => self.on_ack(*block),
            Packet::Error { code, message } => {
                Step::Aborted(format!("error {}: {message}", code.0))
            }
            _ => Step::Wait,
        }
    }

    fn on_ack(&mut self, block: u16) -> Step {
        let Some(arrived) = self.arrived else {
            return if block == 0 {
                self.progress(0)
            } else {
                Step::Wait
            };
        };
        // How far the acknowledgement is ahead, modulo 65536; stale ones are far ahead.
        let ahead = u64::from(block.wrapping_sub(arrived as u16));
        if ahead > self.sent.saturating_sub(arrived) {
            return Step::Wait;
        }
        if ahead > 0 {
            return self.progress(arrived + ahead);
        }
        if self.agreed.window == 1 || self.answered_double || self.sent == 0 {
            return Step::Wait;
        }
        self.answered_double = true;
        self.send()
    }

    fn progress(&mut self, arrived: u64) -> Step {
        self.arrived = Some(arrived);
        self.repetitions = 0;
        self.answered_double = false;
        self.send()
    }

    /// Nothing came for [`Transfer::wait`].
    pub fn on_timeout(&mut self) -> Step {
        self.repetitions += 1;
        self.answered_double = false;
        if self.repetitions > MAX_REPETITIONS {
            Step::GivenUp
        } else {
            self.send()
        }
    }

    fn send(&mut self) -> Step {
        let Some(arrived) = self.arrived else {
            return Step::SendOptions;
        };
        if arrived == self.last {
            return Step::Done;
        }
        self.sent = self.last.min(arrived + u64::from(self.agreed.window));
        Step::SendBlocks(arrived + 1..=self.sent)
    }

    /// How long to wait from the last progress or repetition on: twice as long after
    /// each repetition, up to [`LONGEST_WAIT`] or what the client asked for.
    pub fn wait(&self) -> Duration {
        let longest = LONGEST_WAIT.max(self.agreed.timeout);
        self.agreed
            .timeout
            .saturating_mul(1 << self.repetitions.min(MAX_REPETITIONS))
            .min(longest)
    }

    /// Where a block lies in the file: offset and length in bytes. The length is below
    /// the block size for the last block only.
    pub fn place(&self, block: u64) -> (u64, usize) {
        let block_size = u64::from(self.agreed.block_size);
        let offset = block.saturating_sub(1).saturating_mul(block_size);
        let length = self.size.saturating_sub(offset).min(block_size);
        // At most the block size, which is 16 bits wide.
        (offset, length as usize)
    }

    /// A block's number on the wire.
    pub fn wire_number(block: u64) -> u16 {
        (block % 65_536) as u16
    }

    /// The packet with the acknowledged options.
    pub fn option_ack(&self) -> Packet {
        Packet::OptionAck(self.options.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::{LONGEST_WAIT, MAX_REPETITIONS, Step, Transfer};
    use crate::netboot::tftp::packet::{ErrorCode, Packet, Request};
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
    use std::time::Duration;

    fn begin(size: u64, options: &[(&str, &str)]) -> (Transfer, Step) {
        let options = options
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect();
        Transfer::begin(
            &Request {
                file: "f".to_owned(),
                mode: "octet".to_owned(),
                options,
            },
            size,
        )
    }

    fn ack(transfer: &mut Transfer, block: u16) -> Step {
        transfer.on_packet(&Packet::Ack { block })
    }

    #[test]
    fn without_options_data_comes_at_once_and_ends_with_a_short_block() {
        let (mut transfer, first) = begin(1000, &[]);
        assert_eq!(first, Step::SendBlocks(1..=1));
        assert_eq!(ack(&mut transfer, 1), Step::SendBlocks(2..=2));
        assert_eq!(
            (transfer.place(1), transfer.place(2)),
            ((0, 512), (512, 488))
        );
        assert_eq!(ack(&mut transfer, 2), Step::Done);
    }

    #[test]
    fn a_multiple_of_the_block_size_ends_with_an_empty_block() {
        for (size, last) in [(0, 1), (512, 2), (1024, 3)] {
            let (mut transfer, _) = begin(size, &[]);
            for block in 1..last {
                assert_eq!(
                    ack(&mut transfer, block),
                    Step::SendBlocks(u64::from(block) + 1..=u64::from(block) + 1)
                );
            }
            assert_eq!(transfer.place(u64::from(last)), (size, 0));
            assert_eq!(ack(&mut transfer, last), Step::Done);
        }
    }

    #[test]
    fn options_are_acknowledged_first() {
        let (mut transfer, first) = begin(5000, &[("blksize", "1024"), ("tsize", "0")]);
        assert_eq!(first, Step::SendOptions);
        assert_eq!(
            transfer.option_ack().encode(),
            b"\0\x06blksize\x001024\0tsize\x005000\0"
        );
        assert_eq!(ack(&mut transfer, 1), Step::Wait, "no block was sent yet");
        assert_eq!(transfer.on_timeout(), Step::SendOptions);
        assert_eq!(ack(&mut transfer, 0), Step::SendBlocks(1..=1));
        let abort = Packet::error(ErrorCode::OPTIONS, "only the size");
        assert_eq!(
            transfer.on_packet(&abort),
            Step::Aborted("error 8: only the size".to_owned())
        );
    }

    #[test]
    fn doubled_acknowledgements_send_nothing() {
        let (mut transfer, _) = begin(5000, &[]);
        assert_eq!(ack(&mut transfer, 1), Step::SendBlocks(2..=2));
        assert_eq!(ack(&mut transfer, 1), Step::Wait);
        assert_eq!(ack(&mut transfer, 0), Step::Wait, "older");
        assert_eq!(ack(&mut transfer, 3), Step::Wait, "not sent yet");
        assert_eq!(ack(&mut transfer, 2), Step::SendBlocks(3..=3));
    }

    #[test]
    fn windows_advance_and_go_back_to_the_first_missing_block() {
        let (mut transfer, _) = begin(512 * 20, &[("windowsize", "4")]);
        assert_eq!(ack(&mut transfer, 0), Step::SendBlocks(1..=4));
        assert_eq!(ack(&mut transfer, 4), Step::SendBlocks(5..=8));
        assert_eq!(
            ack(&mut transfer, 6),
            Step::SendBlocks(7..=10),
            "7 was lost"
        );
        assert_eq!(
            ack(&mut transfer, 6),
            Step::SendBlocks(7..=10),
            "7 was lost again"
        );
        assert_eq!(ack(&mut transfer, 6), Step::Wait, "only once per wait");
        assert_eq!(transfer.on_timeout(), Step::SendBlocks(7..=10));
        assert_eq!(ack(&mut transfer, 10), Step::SendBlocks(11..=14));
    }

    #[test]
    fn block_numbers_wrap_to_zero() {
        let (mut transfer, _) = begin(512 * 70_000 + 5, &[]);
        for block in 1..=70_000u64 {
            let step = ack(&mut transfer, Transfer::wire_number(block));
            assert_eq!(step, Step::SendBlocks(block + 1..=block + 1));
        }
        assert_eq!(Transfer::wire_number(65_536), 0);
        assert_eq!(
            ack(&mut transfer, Transfer::wire_number(70_001)),
            Step::Done
        );
    }

    #[test]
    fn a_silent_client_is_given_up_after_longer_and_longer_waits() {
        let (mut transfer, _) = begin(5000, &[]);
        let mut waits = Vec::new();
        loop {
            waits.push(transfer.wait().as_secs());
            match transfer.on_timeout() {
                Step::SendBlocks(blocks) => assert_eq!(blocks, 1..=1),
                step => break assert_eq!(step, Step::GivenUp),
            }
        }
        assert_eq!(waits, [1, 2, 4, 8, 8, 8, 8, 8, 8]);
        assert_eq!(waits.len() as u32, MAX_REPETITIONS + 1);
        assert!(waits.iter().all(|wait| *wait <= LONGEST_WAIT.as_secs()));
    }

    #[test]
    fn progress_starts_the_count_of_repetitions_anew() {
        let (mut transfer, _) = begin(5000, &[("timeout", "20")]);
        assert_eq!(transfer.wait(), Duration::from_secs(20));
        for block in 0..5 {
            for _ in 0..MAX_REPETITIONS {
                assert_ne!(transfer.on_timeout(), Step::GivenUp);
            }
            assert_ne!(ack(&mut transfer, block), Step::Wait);
        }
    }

    proptest! {
        /// Whatever a client acknowledges, blocks stay within the file, and no
        /// acknowledgement sends more than a window.
        #[test]
        fn acknowledgements_never_lead_astray(
            size in 0..200_000u64,
            window in 1..=40u64,
            acks in proptest::collection::vec(any::<u16>(), 0..60),
            near in proptest::collection::vec(0..20u16, 0..60),
        ) {
            let (mut transfer, _) = begin(size, &[("windowsize", &window.to_string())]);
            for block in acks.into_iter().chain(near) {
                if let Step::SendBlocks(blocks) = ack(&mut transfer, block) {
                    prop_assert!(blocks.end() - blocks.start() < 32);
                    let (offset, length) = transfer.place(*blocks.end());
                    prop_assert!(offset + length as u64 <= size);
                    prop_assert_eq!(transfer.wait(), Duration::from_secs(1));
                }
            }
        }
    }
}
