//! The pin itself: its text form and how it is taken from a certificate.
//!
//! Owns: parsing and printing of pins, extraction of the key from a certificate. Does
//! not own: the TLS handshake ([`crate::client`]).

use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;

/// SHA-256 of a certificate's DER-encoded SubjectPublicKeyInfo (as in RFC 7469).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin([u8; 32]);

/// Why there is no pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// The text is not 64 hex digits.
    #[error("a pin has 64 hexadecimal digits")]
    Text,
    /// The bytes are no X.509 certificate.
    #[error("the server's certificate cannot be parsed")]
    Certificate,
}

impl Pin {
    /// From the 32 bytes of the hash.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Pin(bytes)
    }

    /// From 64 hex digits; colons and surrounding white space are allowed.
    ///
    /// # Errors
    /// [`PinError::Text`] for anything else.
    pub fn from_hex(text: &str) -> Result<Self, PinError> {
        let text = text.trim();
        // Bounds the copy below; 32 pairs with 31 colons are the longest form.
        if text.len() > 95 {
            return Err(PinError::Text);
        }
        let digits: String = text.chars().filter(|c| *c != ':').collect();
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| PinError::Text)?;
        Ok(Pin(bytes))
    }

    /// The pin of a certificate in DER.
    ///
    /// # Errors
    /// [`PinError::Certificate`] if the bytes are no certificate.
    pub fn of_certificate(cert_der: &[u8]) -> Result<Self, PinError> {
        spki_sha256(cert_der).map(Pin)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// SHA-256 of the SubjectPublicKeyInfo of a certificate in DER. Total: any input gives
/// a hash or an error.
///
/// # Errors
/// [`PinError::Certificate`] if the bytes are no certificate.
pub fn spki_sha256(cert_der: &[u8]) -> Result<[u8; 32], PinError> {
    let der = CertificateDer::from(cert_der);
    let cert = webpki::EndEntityCert::try_from(&der).map_err(|_| PinError::Certificate)?;
    Ok(Sha256::digest(cert.subject_public_key_info()).into())
}

impl FromStr for Pin {
    type Err = PinError;
    fn from_str(text: &str) -> Result<Self, PinError> {
        Pin::from_hex(text)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::{Pin, PinError, spki_sha256};
    use proptest::prelude::*;

    #[test]
    fn text_form_round_trips() {
        let text = "00112233445566778899aabbccddeeff".repeat(2);
        let pin = Pin::from_hex(&text).unwrap();
        assert_eq!(pin.to_string(), text);
        let colons = text
            .as_bytes()
            .chunks(2)
            .map(|p| std::str::from_utf8(p).unwrap())
            .collect::<Vec<_>>()
            .join(":");
        assert_eq!(
            Pin::from_hex(&format!(" {} \n", colons.to_uppercase())).unwrap(),
            pin
        );
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "00",
            "zz",
            &"0".repeat(63),
            &"0".repeat(66),
            &"g".repeat(64),
            &"é".repeat(32),
        ] {
            assert_eq!(Pin::from_hex(text), Err(PinError::Text), "{text}");
        }
    }

    #[test]
    fn pin_is_the_hash_of_the_key_and_not_of_the_certificate() {
        let key = rcgen::KeyPair::generate().unwrap();
        let one = rcgen::CertificateParams::new(vec!["one".into()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        let two = rcgen::CertificateParams::new(vec!["two".into()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        assert_ne!(one.der(), two.der());
        let expected: [u8; 32] = {
            use sha2::Digest;
            sha2::Sha256::digest(rcgen::PublicKeyData::subject_public_key_info(&key)).into()
        };
        assert_eq!(spki_sha256(one.der()), Ok(expected));
        assert_eq!(spki_sha256(two.der()), Ok(expected));
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_pin_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = spki_sha256(&bytes);
        }

        #[test]
        fn a_damaged_certificate_never_panics(at in 0usize..300, bit in 0u8..8) {
            let key = rcgen::KeyPair::generate().unwrap();
            let cert = rcgen::CertificateParams::new(vec!["x".into()]).unwrap().self_signed(&key).unwrap();
            let mut der = cert.der().to_vec();
            let at = at % der.len();
            der[at] ^= 1 << bit;
            let _ = spki_sha256(&der);
        }
    }
}
