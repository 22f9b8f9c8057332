//! Keys of a session, and the tag that every packet ends with.
//!
//! Owns: deriving the keys, making and checking tags. Does not own: how a receiver comes
//! by its keys (a control connection that is encrypted and authenticated).
//!
//! All come from a secret that only the sender has, by BLAKE3's key derivation: one key for
//! what the sender says to all, and one for each receiver for what that receiver says. So a
//! receiver can pass itself off as the sender, which costs the others time, but never as
//! another receiver.

use std::fmt;

/// Length of the tag at the end of every packet, in bytes.
pub const TAG_LEN: usize = 16;

const DOWN: &str = "deploy-os multicast v1 sender to receivers";
const UP: &str = "deploy-os multicast v1 receiver to sender";

/// What only the sender knows: 32 random bytes, new for each session.
#[derive(Clone)]
pub struct SessionSecret([u8; 32]);

/// A key for packets of one direction.
#[derive(Clone, PartialEq, Eq)]
pub struct PacketKey([u8; 32]);

impl SessionSecret {
    /// Of bytes from the system's random number generator.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        SessionSecret(bytes)
    }

    /// The key of DATA and ANNOUNCE, for all receivers.
    #[must_use]
    pub fn down(&self, session: u32) -> PacketKey {
        PacketKey(derive(DOWN, &[&self.0, &session.to_le_bytes()]))
    }

    /// The key of REPORT and LEAVE of one receiver.
    #[must_use]
    pub fn up(&self, session: u32, receiver: u16) -> PacketKey {
        let parts: [&[u8]; 3] = [&self.0, &session.to_le_bytes(), &receiver.to_le_bytes()];
        PacketKey(derive(UP, &parts))
    }
}

impl PacketKey {
    /// A key that came over the control connection.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        PacketKey(bytes)
    }

    /// The bytes, for the control connection.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0
    }

    /// Appends the tag of everything in `packet` from `start` on.
    pub(crate) fn seal(&self, packet: &mut Vec<u8>, start: usize) {
        let tag = self.tag(packet.get(start..).unwrap_or_default());
        packet.extend_from_slice(&tag);
    }

    /// The packet without its tag, if the tag is right.
    pub(crate) fn open<'a>(&self, packet: &'a [u8]) -> Option<&'a [u8]> {
        let (body, tag) = packet.split_at_checked(packet.len().checked_sub(TAG_LEN)?)?;
        // Compared without a branch on secret bytes.
        let differs = self
            .tag(body)
            .iter()
            .zip(tag)
            .fold(0, |all, (a, b)| all | (a ^ b));
        (differs == 0).then_some(body)
    }

    fn tag(&self, body: &[u8]) -> [u8; TAG_LEN] {
        let mut tag = [0; TAG_LEN];
        tag.copy_from_slice(&blake3::keyed_hash(&self.0, body).as_bytes()[..TAG_LEN]);
        tag
    }
}

fn derive(context: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

impl fmt::Debug for SessionSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionSecret")
    }
}

impl fmt::Debug for PacketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PacketKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_direction_session_and_receiver_has_its_own_key() {
        let secret = SessionSecret::new([7; 32]);
        let keys = [
            secret.down(1),
            secret.down(2),
            secret.up(1, 0),
            secret.up(1, 1),
            secret.up(2, 0),
            SessionSecret::new([8; 32]).down(1),
        ];
        for (at, key) in keys.iter().enumerate() {
            assert!(keys.iter().skip(at + 1).all(|other| other != key));
        }
    }

    #[test]
    fn a_packet_opens_with_its_key_and_unchanged_only() {
        let key = SessionSecret::new([7; 32]).down(1);
        let mut packet = b"xbody".to_vec();
        key.seal(&mut packet, 1);
        assert_eq!(key.open(&packet[1..]), Some(&b"body"[..]));
        for at in 1..packet.len() {
            let mut changed = packet[1..].to_vec();
            changed[at - 1] ^= 1;
            assert_eq!(key.open(&changed), None);
        }
        assert_eq!(SessionSecret::new([7; 32]).down(2).open(&packet[1..]), None);
        assert_eq!(key.open(&packet[..9]), None);
    }
}
