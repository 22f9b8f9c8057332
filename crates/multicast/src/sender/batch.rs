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

    /// Where the next packet is appended.
    pub(super) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The next packet is complete.
    pub(super) fn end(&mut self) {
        self.ends.push(self.bytes.len());
    }
}
