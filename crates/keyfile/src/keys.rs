//! Recipients and identities: the two halves of an X25519 key, as age writes them.
//!
//! Owns: their texts. Does not own: what is wrapped with them.

use crate::Error;
use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32, Hrp};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

const RECIPIENT: &str = "age";
const IDENTITY: &str = "age-secret-key-";

/// The public half: who may open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipient(pub(crate) [u8; 32]);

/// The secret half.
pub struct Identity(pub(crate) StaticSecret);

impl Recipient {
    /// From `age1...`.
    ///
    /// # Errors
    /// [`Error::BadKey`] for anything else.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = Error::BadKey("a recipient begins with age1 and has 62 characters");
        Ok(Recipient(*decode(text.trim(), RECIPIENT).ok_or(wrong)?))
    }

    /// As `age1...`.
    pub fn to_text(self) -> String {
        encode(RECIPIENT, &self.0)
    }
}

impl Identity {
    /// From `AGE-SECRET-KEY-1...`; the first line of the text that is neither empty nor a
    /// comment counts, so an age identity file may be given whole.
    ///
    /// # Errors
    /// [`Error::BadKey`] for anything else.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = Error::BadKey("an identity begins with AGE-SECRET-KEY-1");
        let mut lines = text.lines().map(str::trim);
        let line = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
        let bytes = line.and_then(|line| decode(line, IDENTITY)).ok_or(wrong)?;
        Ok(Identity(StaticSecret::from(*bytes)))
    }

    /// A new one.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn generate() -> Result<Self, Error> {
        Ok(Identity(StaticSecret::from(*crate::random::<32>()?)))
    }

    /// As `AGE-SECRET-KEY-1...`.
    pub fn to_text(&self) -> Zeroizing<String> {
        let lower = Zeroizing::new(encode(IDENTITY, self.0.as_bytes()));
        Zeroizing::new(lower.to_ascii_uppercase())
    }

    /// Its public half.
    pub fn recipient(&self) -> Recipient {
        Recipient(PublicKey::from(&self.0).to_bytes())
    }
}

fn decode(text: &str, wanted: &str) -> Option<Zeroizing<[u8; 32]>> {
    let checked = CheckedHrpstring::new::<Bech32>(text).ok()?;
    if !checked.hrp().to_string().eq_ignore_ascii_case(wanted) {
        return None;
    }
    let mut bytes = Zeroizing::new([0; 32]);
    let mut count = 0;
    for byte in checked.byte_iter() {
        *bytes.get_mut(count)? = byte;
        count += 1;
    }
    (count == 32).then_some(bytes)
}

fn encode(hrp: &str, bytes: &[u8; 32]) -> String {
    // The two prefixes are valid, and 32 bytes are short enough.
    let hrp = Hrp::parse_unchecked(hrp);
    bech32::encode::<Bech32>(hrp, bytes).unwrap_or_default()
}
