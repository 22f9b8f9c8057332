//! The short code of a room, and the keys that come of it.
//!
//! Owns: making a code, reading what somebody typed, and the exchange by which two ends that
//! know the same code get a key that nobody else has. Does not own: the connection.
//!
//! The exchange is SPAKE2 over Ed25519: who listens learns nothing of the code, and who
//! takes part can try one code each time. Both ends prove that they have the key, the
//! receiver first, so that a sender can count the wrong ones.

use spake2::{Ed25519Group, Identity, Password, Spake2};
use std::fmt;

/// No letters that are taken for others.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Characters of a code, 5 bits each.
const LENGTH: usize = 8;
/// Length of a message of the exchange.
pub const MESSAGE_LEN: usize = 33;
/// Length of a proof.
pub const PROOF_LEN: usize = 32;

/// A code, as `k7m2-9xq4`.
#[derive(Clone, PartialEq, Eq)]
pub struct RoomCode(String);

impl RoomCode {
    /// A new one, of random bytes.
    #[must_use]
    pub fn new(random: [u8; LENGTH]) -> Self {
        let letter = |byte: u8| char::from(ALPHABET[usize::from(byte & 31)]);
        RoomCode(random.into_iter().map(letter).collect())
    }

    /// What somebody typed, if it can be a code: spaces, hyphens and case do not matter,
    /// and letters that look like digits are those.
    #[must_use]
    pub fn typed(text: &str) -> Option<Self> {
        let code: String = text
            .chars()
            .filter(|c| !c.is_whitespace() && *c != '-')
            .map(|c| match c.to_ascii_lowercase() {
                'o' => '0',
                'i' | 'l' => '1',
                other => other,
            })
            .collect();
        let known = |c: char| u8::try_from(c).is_ok_and(|c| ALPHABET.contains(&c));
        (code.len() == LENGTH && code.chars().all(known)).then_some(RoomCode(code))
    }
}

impl fmt::Display for RoomCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, second) = self.0.split_at(LENGTH / 2);
        write!(f, "{first}-{second}")
    }
}

/// Which end this is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It shows the code.
    Sender,
    /// It was told the code.
    Receiver,
}

/// An exchange that has begun.
pub struct Exchange {
    state: Spake2<Ed25519Group>,
    end: End,
}

/// What an exchange gives.
pub struct Keys {
    /// Key of what this end sends.
    pub ours: [u8; 32],
    /// Key of what the other end sends.
    pub theirs: [u8; 32],
    /// Shows the other end that this one has the key.
    pub proof: [u8; PROOF_LEN],
    expected: [u8; PROOF_LEN],
}

impl Exchange {
    /// Begins; the message is for the other end.
    #[must_use]
    pub fn begin(code: &RoomCode, end: End) -> (Self, Vec<u8>) {
        let password = Password::new(code.0.as_bytes());
        let receiver = Identity::new(b"deploy-os room v1 receiver");
        let sender = Identity::new(b"deploy-os room v1 sender");
        let (state, message) = match end {
            End::Receiver => Spake2::<Ed25519Group>::start_a(&password, &receiver, &sender),
            End::Sender => Spake2::<Ed25519Group>::start_b(&password, &receiver, &sender),
        };
        (Exchange { state, end }, message)
    }

    /// Takes the other end's message. `None` if it is none. Whether both have the same code
    /// is not known before the proofs were compared.
    #[must_use]
    pub fn finish(self, message: &[u8]) -> Option<Keys> {
        let secret = self.state.finish(message).ok()?;
        let derive = |what: &str| {
            let context = format!("deploy-os room v1 {what}");
            blake3::derive_key(&context, &secret)
        };
        let (ours, theirs) = match self.end {
            End::Sender => ("sender", "receiver"),
            End::Receiver => ("receiver", "sender"),
        };
        Some(Keys {
            ours: derive(&format!("key {ours}")),
            theirs: derive(&format!("key {theirs}")),
            proof: derive(&format!("proof {ours}")),
            expected: derive(&format!("proof {theirs}")),
        })
    }
}

impl Keys {
    /// Whether the other end has the same key.
    #[must_use]
    pub fn accepts(&self, proof: &[u8; PROOF_LEN]) -> bool {
        let differs = self
            .expected
            .iter()
            .zip(proof)
            .fold(0, |all, (a, b)| all | (a ^ b));
        differs == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(sender: &RoomCode, receiver: &RoomCode) -> (Keys, Keys) {
        let (a, to_b) = Exchange::begin(sender, End::Sender);
        let (b, to_a) = Exchange::begin(receiver, End::Receiver);
        assert_eq!((to_a.len(), to_b.len()), (MESSAGE_LEN, MESSAGE_LEN));
        (a.finish(&to_a).unwrap(), b.finish(&to_b).unwrap())
    }

    #[test]
    fn codes_are_read_as_people_write_them() {
        let code = RoomCode::new([20, 7, 1, 0, 9, 255, 22, 4]);
        assert_eq!(code.to_string(), "m710-9zp4");
        for text in ["m710-9zp4", " M7I0 9ZP4 ", "m7lo9zp4"] {
            assert!(RoomCode::typed(text) == Some(code.clone()), "{text}");
        }
        for text in ["", "m710-9zp", "m710-9zp44", "m710-9zpu", "ärger-12"] {
            assert!(RoomCode::typed(text).is_none(), "{text}");
        }
    }

    #[test]
    fn the_same_code_gives_the_same_keys_and_others_do_not() {
        let (one, other) = (RoomCode::new([1; 8]), RoomCode::new([2; 8]));
        let (sender, receiver) = exchange(&one, &one);
        assert!(sender.ours == receiver.theirs && sender.theirs == receiver.ours);
        assert!(sender.accepts(&receiver.proof) && receiver.accepts(&sender.proof));
        assert!(!sender.accepts(&sender.proof), "not what was just heard");
        let (again, _) = exchange(&one, &one);
        assert!(again.ours != sender.ours);
        let (sender, receiver) = exchange(&one, &other);
        assert!(!sender.accepts(&receiver.proof) && !receiver.accepts(&sender.proof));
    }

    #[test]
    fn messages_that_are_none_are_refused() {
        for message in [&[][..], &[0; 33], &[0x41; 32], &[0xFF; 33], &[0x42; 34]] {
            let (exchange, _) = Exchange::begin(&RoomCode::new([1; 8]), End::Sender);
            assert!(exchange.finish(message).is_none());
        }
    }
}
