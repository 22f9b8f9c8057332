//! Signatures: whose word it is that an image is what its root names.
//!
//! Owns: Ed25519 keys in their stored forms, the message that is signed, and the body of
//! a signature section. Does not own: which keys are trusted (the programs), or where the
//! section stands ([`crate::manifest`], [`crate::container`]).
//!
//! Body (little-endian), one section for each signature:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 2 | scheme: 1 Ed25519 |
//! | 2 | 2 | reserved, zero |
//! | 4 | 32 | public key |
//! | 36 | 64 | signature (RFC 8032) |
//!
//! Or the proof of an encrypted image, which exactly those have:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 2 | scheme: 2 |
//! | 2 | 2 | reserved, zero |
//! | 4 | 16 | id of the key |
//! | 20 | 32 | keyed BLAKE3 of the root hash ([`crate::seal`]) |
//!
//! Signed are the 28 bytes `deploy-os image signature v1`, a zero byte and the 32 bytes of
//! the root hash. The root covers everything that is restored; that the same image may
//! stand in files of several versions of the format is why the version is not signed.

mod statement;

pub use statement::Statement;

use crate::cells::Cursor;
use crate::seal::{ImageKey, KeyId, Proof};
use crate::section::{self, Counted, Kind};
use crate::{Encryption, Error, Hash, Layout};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use std::fmt;
use std::io::{self, Read, Write};
use zeroize::{Zeroize, Zeroizing};

/// Most signatures of an image.
pub const MAX_SIGNATURES: usize = 16;

const CONTEXT: &[u8; 29] = b"deploy-os image signature v1\0";
const ED25519_SCHEME: u16 = 1;
const PROOF_SCHEME: u16 = 2;
/// What stands before the 32 bytes of an Ed25519 key in PKCS #8 (RFC 8410).
const PKCS8_HEAD: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";

/// The public half of a signing key: names the signer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// From 64 hexadecimal digits, white space around them allowed.
    pub fn from_hex(text: &str) -> Option<Self> {
        Hash::from_hex(text.trim()).map(|hash| PublicKey(hash.0))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hash(self.0).fmt(f)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A signing key. Its secret half is wiped from memory when it is dropped.
pub struct SigningKey {
    seed: Zeroizing<[u8; 32]>,
    pair: Ed25519KeyPair,
}

impl SigningKey {
    /// The key of 32 secret bytes, which the caller takes from the system's random numbers.
    ///
    /// # Errors
    /// None that is known: every 32 bytes are a key.
    pub fn from_seed(seed: &[u8; 32]) -> io::Result<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed)
            .map_err(|e| io::Error::other(format!("no Ed25519 key: {e}")))?;
        let seed = Zeroizing::new(*seed);
        Ok(SigningKey { seed, pair })
    }

    /// From PKCS #8 in PEM, as `openssl genpkey -algorithm ed25519` and [`Self::to_pem`]
    /// write it.
    ///
    /// # Errors
    /// Anything else.
    pub fn from_pem(text: &str) -> io::Result<Self> {
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "no Ed25519 key in PEM");
        let inner = text
            .trim()
            .strip_prefix(PEM_BEGIN)
            .and_then(|rest| rest.strip_suffix(PEM_END))
            .ok_or_else(wrong)?;
        let lines = Zeroizing::new(inner.lines().map(str::trim).collect::<String>());
        let der = Zeroizing::new(STANDARD.decode(lines.as_bytes()).map_err(|_| wrong())?);
        let mut seed = Zeroizing::new([0; 32]);
        match der.strip_prefix(&PKCS8_HEAD) {
            Some(rest) if rest.len() == 32 => seed.copy_from_slice(rest),
            _ => return Err(wrong()),
        }
        Self::from_seed(&seed)
    }

    /// PKCS #8 in PEM.
    pub fn to_pem(&self) -> Zeroizing<String> {
        let mut der = PKCS8_HEAD.to_vec();
        der.extend_from_slice(&*self.seed);
        let pem = format!("{PEM_BEGIN}\n{}\n{PEM_END}\n", STANDARD.encode(&der));
        der.zeroize();
        Zeroizing::new(pem)
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        let mut key = [0; 32];
        // An Ed25519 public key has 32 bytes.
        key.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(key)
    }

    /// Signs an image by its root.
    pub fn sign(&self, root: Hash) -> Signature {
        let mut signature = [0; 64];
        // An Ed25519 signature has 64 bytes.
        signature.copy_from_slice(self.pair.sign(&message(root)).as_ref());
        Signature {
            key: self.public(),
            signature,
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "signing key {}", self.public())
    }
}

fn message(root: Hash) -> [u8; 61] {
    let mut message = [0; 61];
    message[..29].copy_from_slice(CONTEXT);
    message[29..].copy_from_slice(&root.0);
    message
}

/// A signature of an image's root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Who signed.
    pub key: PublicKey,
    /// Ed25519 signature.
    pub signature: [u8; 64],
}

impl Signature {
    /// Whether the key's owner signed this root.
    pub fn is_of(&self, root: Hash) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.key.0)
            .verify(&message(root), &self.signature)
            .is_ok()
    }

    /// Body of the section.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(100);
        body.extend_from_slice(&ED25519_SCHEME.to_le_bytes());
        body.extend_from_slice(&[0; 2]);
        body.extend_from_slice(&self.key.0);
        body.extend_from_slice(&self.signature);
        body
    }

    /// Decodes the body of the section at `offset`; total on any input. Whether it fits the
    /// image, [`Self::is_of`] tells.
    pub fn decode(body: &[u8], offset: u64) -> Result<Self, Error> {
        let mut cursor = Cursor::new(body, offset);
        let scheme = cursor.u32()?;
        if scheme != u32::from(ED25519_SCHEME) {
            return Err(cursor.damaged(format!("a signature of the unknown scheme {scheme}")));
        }
        let key = PublicKey(cursor.hash()?.0);
        let (first, second) = (cursor.hash()?, cursor.hash()?);
        if cursor.left() > 0 {
            return Err(cursor.damaged("a signature is too long"));
        }
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&first.0);
        signature[32..].copy_from_slice(&second.0);
        Ok(Signature { key, signature })
    }
}

/// The signatures that came with an image, each found to be its key's word on this root.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signatures {
    list: Vec<Signature>,
    proof: Option<Proof>,
}

impl Signatures {
    /// Takes the section with `body` at `offset`, which stands behind the root.
    pub(crate) fn take(&mut self, body: &[u8], root: Hash, offset: u64) -> Result<(), Error> {
        if body.starts_with(&PROOF_SCHEME.to_le_bytes()) {
            let again = self.proof.replace(decode_proof(body, offset)?);
            return match again {
                None => Ok(()),
                Some(_) => Err(Error::damaged("one proof too many", offset)),
            };
        }
        let signature = Signature::decode(body, offset)?;
        if self.list.len() >= MAX_SIGNATURES || self.list.iter().any(|s| s.key == signature.key) {
            return Err(Error::damaged("one signature too many", offset));
        }
        if !signature.is_of(root) {
            let what = format!(
                "the signature of key {} is not of this image",
                signature.key
            );
            return Err(Error::damaged(what, offset));
        }
        self.list.push(signature);
        Ok(())
    }

    pub(crate) fn list(&self) -> &[Signature] {
        &self.list
    }

    /// The proof of an encrypted image.
    pub(crate) fn proof(&self) -> Option<&Proof> {
        self.proof.as_ref()
    }

    /// Looked at where all sections have come: an encrypted image has the proof of its key,
    /// and no other image has one. Whoever has the key knows whether it is right.
    pub(crate) fn complete(
        &self,
        layout: &Layout,
        key: Option<&ImageKey>,
        root: Hash,
        offset: u64,
    ) -> Result<(), Error> {
        let wanted = layout.encryption.as_ref().map(Encryption::key);
        if self.proof.map(|proof| proof.key) != wanted {
            let what = "the proof of an encrypted image is missing or out of place";
            return Err(Error::damaged(what, offset));
        }
        match (key, &self.proof) {
            (Some(key), Some(proof)) if !key.proves(proof, root) => Err(Error::damaged(
                "the image was not made by the owner of its key, or was changed",
                offset,
            )),
            _ => Ok(()),
        }
    }
}

fn decode_proof(body: &[u8], offset: u64) -> Result<Proof, Error> {
    let mut cursor = Cursor::new(body, offset);
    let scheme = cursor.u32()?;
    let mut key = KeyId([0; 16]);
    key.0[..8].copy_from_slice(&cursor.u64()?.to_le_bytes());
    key.0[8..].copy_from_slice(&cursor.u64()?.to_le_bytes());
    let code = cursor.hash()?;
    if cursor.left() > 0 || scheme != u32::from(PROOF_SCHEME) {
        return Err(cursor.damaged("a proof of an impossible form"));
    }
    Ok(Proof { key, code })
}

/// Writes the section of a proof and returns its length.
pub(crate) fn write_proof(out: &mut impl Write, proof: &Proof) -> io::Result<u64> {
    let mut body = u32::from(PROOF_SCHEME).to_le_bytes().to_vec();
    body.extend_from_slice(&proof.key.0);
    body.extend_from_slice(&proof.code.0);
    section::write_section(out, Kind::Signature, &body)?;
    Ok((section::HEADER_LEN + body.len()) as u64)
}

/// Writes the section of a signature and returns its length.
pub(crate) fn write(out: &mut impl Write, signature: &Signature) -> io::Result<u64> {
    let body = signature.encode();
    section::write_section(out, Kind::Signature, &body)?;
    Ok((section::HEADER_LEN + body.len()) as u64)
}

/// Reads the sections between root and index of a container, and returns where the index
/// stands, whose body is in `body` then.
pub(crate) fn read_until_index<R: Read>(
    input: &mut Counted<R>,
    root: Hash,
    body: &mut Vec<u8>,
) -> Result<(Signatures, u64), Error> {
    let mut found = Signatures::default();
    loop {
        let at = input.position();
        let mut first = [0; 4];
        input
            .read_exact(&mut first)
            .map_err(|e| Error::io("reading the index", e, at))?;
        let header = section::read_section_header(input, first)?;
        header.read_body(input, body)?;
        match header.kind {
            Kind::Signature => found.take(body, root, at)?,
            Kind::Index => return Ok((found, at)),
            other => {
                let what = format!("a {other:?} section out of place");
                return Err(Error::damaged(what, at));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32]).unwrap()
    }

    /// First test of RFC 8032 (7.1): the public key of a secret one.
    #[test]
    fn keys_are_those_of_the_standard() {
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let seed = Hash::from_hex(seed).unwrap().0;
        let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let key = SigningKey::from_seed(&seed).unwrap();
        assert_eq!(key.public().to_string(), public);
    }

    #[test]
    fn a_signature_is_of_one_root_and_one_key() {
        let (one, other) = (Hash::of(b"one"), Hash::of(b"other"));
        let signature = key(1).sign(one);
        assert!(signature.is_of(one) && !signature.is_of(other));
        let another = Signature {
            key: key(2).public(),
            ..signature
        };
        assert!(!another.is_of(one));
        assert_eq!(
            Signature::decode(&signature.encode(), 0).unwrap(),
            signature
        );
    }

    #[test]
    fn keys_keep_their_form() {
        let again = SigningKey::from_pem(&key(7).to_pem()).unwrap();
        assert_eq!(again.public(), key(7).public());
        let hex = key(7).public().to_string();
        assert_eq!(
            PublicKey::from_hex(&format!(" {hex}\n")),
            Some(again.public())
        );
        for text in [
            "",
            "-----BEGIN PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
        ] {
            assert!(SigningKey::from_pem(text).is_err(), "{text}");
        }
        assert!(!format!("{:?}", key(7)).contains("07070707"));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let root = Hash::of(b"root");
        let mut found = Signatures::default();
        found.take(&key(1).sign(root).encode(), root, 0).unwrap();
        found
            .take(&key(1).sign(root).encode(), root, 0)
            .unwrap_err();
        let foreign = key(2).sign(Hash::of(b"foreign")).encode();
        found.take(&foreign, root, 0).unwrap_err();
        found.take(&key(2).sign(root).encode(), root, 0).unwrap();
        assert_eq!(found.list().len(), 2);
    }

    proptest! {
        #[test]
        fn any_bytes_decode_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            if let Ok(signature) = Signature::decode(&bytes, 0) {
                prop_assert_eq!(signature.encode(), bytes);
            }
        }

        #[test]
        fn no_flipped_bit_is_a_signature(bit in 32usize..800) {
            let root = Hash::of(b"root");
            let mut body = key(3).sign(root).encode();
            body[bit / 8] ^= 1 << (bit % 8);
            let read = Signature::decode(&body, 0);
            prop_assert!(!read.is_ok_and(|signature| signature.is_of(root)));
        }
    }
}
