//! Packets on their way to a socket.
//!
//! Owns: their memory. Does not own: what they say.

/// Packets that are to be sent, in this order; the memory is used again.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Batch {
    /// Takes all packets out.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// The packets.
    pub fn packets(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let packet = self.bytes.get(start..end).unwrap_or_default();
            start = end;
            packet
        })
    }

    /// Packets of one length that follow each other, up to `most` of them and `most_bytes`:
    /// their bytes, and the length of each but the last, which may be shorter.
    pub fn runs(&self, most: usize, most_bytes: usize) -> impl Iterator<Item = (&[u8], usize)> {
        let mut at = 0usize;
        std::iter::from_fn(move || {
            let start = at.checked_sub(1).map_or(Some(&0), |n| self.ends.get(n))?;
            let len = self.ends.get(at)? - start;
            let mut end = *start;
            for count in 0..most.max(1) {
                let Some(next) = self.ends.get(at).copied() else {
                    break;
                };
                let own = next - end;
                if count > 0 && (own > len || next - start > most_bytes) {
                    break;
                }
                at += 1;
                end = next;
                if own < len {
                    break;
                }
            }
            Some((self.bytes.get(*start..end).unwrap_or_default(), len))
        })
    }

    /// How many packets there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Appends a packet.
    pub fn push(&mut self, packet: &[u8]) {
        self.bytes.extend_from_slice(packet);
        self.end();
    }

    /// Where the next packet is appended.
    pub(super) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The next packet is complete.
    pub(super) fn end(&mut self) {
        self.ends.push(self.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::Batch;
    use proptest::prelude::*;

    fn of(lengths: &[usize]) -> Batch {
        let mut batch = Batch::default();
        for (n, &len) in lengths.iter().enumerate() {
            batch.push(&vec![n as u8; len]);
        }
        batch
    }

    fn lengths(batch: &Batch, most: usize, most_bytes: usize) -> Vec<(usize, usize)> {
        let runs = batch.runs(most, most_bytes);
        runs.map(|(bytes, len)| (bytes.len(), len)).collect()
    }

    #[test]
    fn equal_packets_are_one_run_which_a_shorter_one_ends() {
        let batch = of(&[20, 30, 30, 30, 10, 30, 30]);
        let runs = [(20, 20), (100, 30), (60, 30)];
        assert_eq!(lengths(&batch, 44, 1000), runs);
        assert_eq!(
            lengths(&batch, 2, 1000),
            [(20, 20), (60, 30), (40, 30), (60, 30)]
        );
        assert_eq!(
            lengths(&batch, 44, 60),
            [(20, 20), (60, 30), (40, 30), (60, 30)]
        );
        assert_eq!(lengths(&of(&[]), 44, 1000), []);
        // A packet is never left out, however long it is.
        assert_eq!(lengths(&of(&[9, 9]), 0, 0), [(9, 9), (9, 9)]);
    }

    proptest! {
        #[test]
        fn cut_as_the_system_cuts_them_the_packets_come_out(
            packets in proptest::collection::vec(prop_oneof![Just(40usize), 1..60usize], 0..100),
            most in 1..50usize, most_bytes in 1..2000usize,
        ) {
            let batch = of(&packets);
            let cut: Vec<&[u8]> = batch
                .runs(most, most_bytes)
                .flat_map(|(bytes, len)| bytes.chunks(len))
                .collect();
            prop_assert!(cut == batch.packets().collect::<Vec<_>>());
            for (bytes, len) in batch.runs(most, most_bytes) {
                prop_assert!(bytes.len() <= most_bytes.max(len) && bytes.len().div_ceil(len) <= most);
            }
        }
    }
}
