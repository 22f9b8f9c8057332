//! Encryption: what only the owner of a key can read, change or make.
//!
//! Owns: the key of images, the names and payloads of encrypted chunks, the layout's hidden
//! part and the proof of the root. Does not own: files that hold the key (`keyfile`),
//! records' headers ([`crate::record`]).
//!
//! From 32 secret bytes come, by BLAKE3 in its key-derivation mode, four keys and an id, so
//! that no use of one tells anything about another:
//!
//! | context | for |
//! |---|---|
//! | `deploy-os image key names v1` | keyed BLAKE3 of a chunk's plain bytes: its *mark* |
//! | `deploy-os image key records v1` | XChaCha20-Poly1305 of records |
//! | `deploy-os image key layout v1` | XChaCha20-Poly1305 of the layout |
//! | `deploy-os image key root v1` | keyed BLAKE3 of the root: the proof |
//! | `deploy-os image key id v1` | the first 16 bytes name the key |
//!
//! The name of an encrypted chunk is the BLAKE3 hash, with the context `deploy-os sealed
//! chunk v1`, of its mark. The mark stands in the record and is turned into the name by
//! whoever reads it: so nobody can store an encrypted record under the name of a plain
//! chunk, although nobody without the key can see what is inside.

use crate::record::Codec;
use crate::{Error, Hash};
use chacha20poly1305::aead::{AeadInPlace, KeyInit};
use chacha20poly1305::{Key, Tag, XChaCha20Poly1305, XNonce};
use std::fmt;
use std::io;
use zeroize::Zeroizing;

/// Bytes that sealing adds: nonce before, tag behind.
pub const OVERHEAD: usize = NONCE + TAG;
const NONCE: usize = 24;
const TAG: usize = 16;

const NAMES: &str = "deploy-os image key names v1";
const RECORDS: &str = "deploy-os image key records v1";
const LAYOUT: &str = "deploy-os image key layout v1";
const ROOT: &str = "deploy-os image key root v1";
const ID: &str = "deploy-os image key id v1";
const CHUNK: &str = "deploy-os sealed chunk v1";

type Subkey = Zeroizing<[u8; 32]>;

/// Names a key; tells nothing about it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyId(pub [u8; 16]);

impl KeyId {
    /// From 32 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let whole = Hash::from_hex(&format!("{text}{:032}", 0)).filter(|_| text.len() == 32)?;
        let mut id = [0; 16];
        id.copy_from_slice(&whole.0[..16]);
        Some(KeyId(id))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The key of encrypted images. Wiped from memory when it is dropped.
pub struct ImageKey {
    names: Subkey,
    records: Subkey,
    layout: Subkey,
    root: Subkey,
    id: KeyId,
}

impl ImageKey {
    /// The key that comes of 32 secret random bytes.
    pub fn new(secret: &[u8; 32]) -> Self {
        let derive = |context| Zeroizing::new(blake3::derive_key(context, secret));
        let mut id = [0; 16];
        id.copy_from_slice(&derive(ID)[..16]);
        ImageKey {
            names: derive(NAMES),
            records: derive(RECORDS),
            layout: derive(LAYOUT),
            root: derive(ROOT),
            id: KeyId(id),
        }
    }

    /// Its name.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The mark of a chunk.
    pub fn mark(&self, plain: &[u8]) -> Hash {
        Hash(*blake3::keyed_hash(&self.names, plain).as_bytes())
    }

    /// The proof that the owner of the key made the image with this root.
    pub fn proof(&self, root: Hash) -> Proof {
        Proof {
            key: self.id,
            code: Hash(*blake3::keyed_hash(&self.root, &root.0).as_bytes()),
        }
    }

    /// Whether `proof` is the one of this root; the time does not tell where it differs.
    pub fn proves(&self, proof: &Proof, root: Hash) -> bool {
        let wanted = blake3::keyed_hash(&self.root, &root.0);
        proof.key == self.id && wanted == blake3::Hash::from_bytes(proof.code.0)
    }

    /// Seals a record's payload: `out` from `start` on is replaced by nonce, sealed bytes
    /// and tag.
    pub(crate) fn seal_record(
        &self,
        bound: &Bound,
        out: &mut Vec<u8>,
        start: usize,
    ) -> Result<(), Error> {
        seal(&self.records, &bound.bytes(), out, start)
    }

    /// Opens a record's payload into `out`. `None` if it is not what was sealed.
    pub(crate) fn open_record(
        &self,
        bound: &Bound,
        sealed: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<()> {
        open(&self.records, &bound.bytes(), sealed, out)
    }

    /// Seals the hidden part of a layout.
    pub(crate) fn seal_layout(&self, json: &[u8]) -> Result<Vec<u8>, Error> {
        let mut out = json.to_vec();
        seal(&self.layout, &self.id.0, &mut out, 0)?;
        Ok(out)
    }

    /// Opens the hidden part of a layout.
    pub(crate) fn open_layout(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        open(&self.layout, &self.id.0, sealed, &mut out).map(|()| out)
    }
}

impl fmt::Debug for ImageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "image key {}", self.id)
    }
}

/// What a sealed payload belongs to, and cannot be opened without.
pub(crate) struct Bound {
    pub mark: Hash,
    pub plain_len: u32,
    pub codec: Codec,
}

impl Bound {
    fn bytes(&self) -> [u8; 37] {
        let mut bytes = [0; 37];
        bytes[..32].copy_from_slice(&self.mark.0);
        bytes[32..36].copy_from_slice(&self.plain_len.to_le_bytes());
        bytes[36] = self.codec as u8;
        bytes
    }
}

/// The word of a key's owner for an image, without which an encrypted image is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Which key.
    pub key: KeyId,
    /// Keyed BLAKE3 of the root.
    pub code: Hash,
}

/// Name of the encrypted chunk with this mark.
pub fn name_of_mark(mark: Hash) -> Hash {
    Hash(blake3::derive_key(CHUNK, &mark.0))
}

/// Name of a chunk, of an encrypted image if there is a key.
pub fn name(key: Option<&ImageKey>, plain: &[u8]) -> Hash {
    match key {
        Some(key) => name_of_mark(key.mark(plain)),
        None => Hash::of(plain),
    }
}

/// Computes a chunk's name from its bytes as they come.
pub struct Namer<'a> {
    key: Option<&'a ImageKey>,
    hasher: blake3::Hasher,
}

impl<'a> Namer<'a> {
    /// For a chunk of an encrypted image if there is a key.
    pub fn new(key: Option<&'a ImageKey>) -> Self {
        let hasher = match key {
            Some(key) => blake3::Hasher::new_keyed(&key.names),
            None => blake3::Hasher::new(),
        };
        Namer { key, hasher }
    }

    /// The next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// The name.
    pub fn name(&self) -> Hash {
        let hash = Hash(*self.hasher.finalize().as_bytes());
        match self.key {
            Some(_) => name_of_mark(hash),
            None => hash,
        }
    }
}

fn seal(key: &Subkey, bound: &[u8], out: &mut Vec<u8>, start: usize) -> Result<(), Error> {
    let failed = |source| Error::Io {
        operation: "encrypting",
        source,
    };
    let mut nonce = [0; NONCE];
    getrandom::fill(&mut nonce).map_err(|e| failed(io::Error::other(e.to_string())))?;
    let plain_end = out.len();
    out.resize(plain_end + NONCE, 0);
    out.copy_within(start..plain_end, start + NONCE);
    out[start..start + NONCE].copy_from_slice(&nonce);
    let cipher = XChaCha20Poly1305::new(Key::from_slice(&**key));
    let tag = cipher
        .encrypt_in_place_detached(&XNonce::from(nonce), bound, &mut out[start + NONCE..])
        .map_err(|_| failed(io::Error::other("too long")))?;
    out.extend_from_slice(&tag);
    Ok(())
}

fn open(key: &Subkey, bound: &[u8], sealed: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (nonce, rest) = sealed.split_at_checked(NONCE)?;
    let (body, tag) = rest.split_at_checked(rest.len().checked_sub(TAG)?)?;
    out.clear();
    out.extend_from_slice(body);
    let cipher = XChaCha20Poly1305::new(Key::from_slice(&**key));
    let (nonce, tag) = (XNonce::from_slice(nonce), Tag::from_slice(tag));
    let opened = cipher.decrypt_in_place_detached(nonce, bound, out, tag);
    if opened.is_err() {
        out.clear();
    }
    opened.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Compression, Decoder, Encoder, RecordReader};
    use std::sync::Arc;

    fn key(seed: u8) -> Arc<ImageKey> {
        Arc::new(ImageKey::new(&[seed; 32]))
    }

    fn record(key: &Arc<ImageKey>, compression: Compression, plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = Encoder::new(compression)
            .unwrap()
            .sealed_with(Some(Arc::clone(key)));
        let header = encoder.encode(plain, &mut out).unwrap();
        assert_eq!(header.record_len(), out.len() as u64);
        assert_eq!(header.name, name(Some(key), plain));
        out
    }

    fn read(key: Option<&Arc<ImageKey>>, record: &[u8]) -> Result<Vec<u8>, Error> {
        let mut payload = Vec::new();
        let header = RecordReader::new(record, 0).next_record(&mut payload)?;
        let header = header.ok_or_else(|| Error::damaged("nothing", 0))?;
        let mut plain = Vec::new();
        Decoder::new()
            .opened_with(key.cloned())
            .decode(&header, &payload, 0, &mut plain)?;
        Ok(plain)
    }

    fn samples() -> Vec<(Compression, Vec<u8>)> {
        let text: Vec<u8> = b"Deploy-OS ".iter().copied().cycle().take(2000).collect();
        let mut noise = vec![0; 700];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        vec![
            (Compression::Zstd(1), text.clone()),
            (Compression::Deflate(6), text.clone()),
            (Compression::None, text),
            (Compression::Zstd(1), noise),
            (Compression::Zstd(1), vec![0; 3584]),
            (Compression::Zstd(1), vec![9]),
        ]
    }

    #[test]
    fn every_codec_gives_the_bytes_back_to_its_key_only() {
        for (compression, plain) in samples() {
            let sealed = record(&key(1), compression, &plain);
            assert_eq!(read(Some(&key(1)), &sealed).unwrap(), plain);
            assert!(read(Some(&key(2)), &sealed).is_err());
            assert!(read(None, &sealed).is_err());
            let few = &plain[..plain.len().min(16)];
            let is_zero = plain.iter().all(|&b| b == 0);
            let shown = sealed.windows(few.len()).any(|part| part == few);
            assert!(!shown || is_zero || few.len() < 8, "plain bytes show");
        }
    }

    #[test]
    fn no_flipped_bit_is_ever_taken() {
        for (compression, plain) in samples() {
            let sealed = record(&key(1), compression, &plain);
            for bit in 0..sealed.len() * 8 {
                let mut changed = sealed.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                assert!(read(Some(&key(1)), &changed).is_err(), "bit {bit}");
            }
            for cut in 1..sealed.len() {
                assert!(read(Some(&key(1)), &sealed[..cut]).is_err(), "cut {cut}");
            }
        }
    }

    /// Whoever can make checksums right again has still no key.
    #[test]
    fn a_forged_header_does_not_open() {
        let (compression, plain) = samples().swap_remove(0);
        let sealed = record(&key(1), compression, &plain);
        let forge = |at: usize, value: u8| {
            let mut changed = sealed.clone();
            changed[at] ^= value;
            let crc = crc32fast::hash(&changed[..60]);
            changed[60..64].copy_from_slice(&crc.to_le_bytes());
            changed
        };
        // Codec, plain length, mark: all bound.
        for (at, value) in [(4, 3), (8, 1), (16, 1), (47, 0x80)] {
            assert!(read(Some(&key(1)), &forge(at, value)).is_err(), "byte {at}");
        }
        // A payload of another chunk of the same key, with its checks made right.
        let other = record(&key(1), compression, &vec![b'x'; 2000]);
        let mut swapped = sealed[..64].to_vec();
        swapped[12..16].copy_from_slice(&other[12..16]);
        swapped[48..60].copy_from_slice(&other[48..60]);
        let crc = crc32fast::hash(&swapped[..60]);
        swapped[60..64].copy_from_slice(&crc.to_le_bytes());
        swapped.extend_from_slice(&other[64..]);
        assert!(read(Some(&key(1)), &swapped).is_err());
    }

    #[test]
    fn equal_chunks_are_one_within_a_key_and_strangers_across() {
        let plain = b"the same bytes";
        let (one, two) = (name(Some(&key(1)), plain), name(Some(&key(2)), plain));
        assert_eq!(one, name(Some(&key(1)), plain));
        assert!(one != two && one != Hash::of(plain) && two != Hash::of(plain));
        assert!(key(1).mark(plain) != one);
        for (key, whole) in [(Some(&*key(1)), one), (None, Hash::of(plain))] {
            let mut namer = Namer::new(key);
            plain.chunks(3).for_each(|part| namer.update(part));
            assert_eq!(namer.name(), whole);
        }
        // Two records of one chunk differ: a nonce is never used twice.
        let twice = [0, 1].map(|_| record(&key(1), Compression::None, plain));
        assert!(twice[0][64..] != twice[1][64..] && twice[0][16..48] == twice[1][16..48]);
    }

    #[test]
    fn a_plain_record_is_none_of_an_encrypted_image() {
        let mut out = Vec::new();
        Encoder::new(Compression::None)
            .unwrap()
            .encode(b"plain", &mut out)
            .unwrap();
        assert!(read(Some(&key(1)), &out).is_err());
        assert_eq!(read(None, &out).unwrap(), b"plain");
    }

    #[test]
    fn a_proof_is_of_one_root_and_one_key() {
        let (root, other) = (Hash::of(b"root"), Hash::of(b"other"));
        let proof = key(1).proof(root);
        assert!(key(1).proves(&proof, root));
        assert!(!key(1).proves(&proof, other) && !key(2).proves(&proof, root));
    }

    #[test]
    fn ids_keep_their_form_and_debug_tells_no_secret() {
        let id = key(1).id();
        assert_eq!(KeyId::from_hex(&id.to_string()), Some(id));
        for text in ["", "00", &"0".repeat(33), &"x".repeat(32)] {
            assert_eq!(KeyId::from_hex(text), None, "{text}");
        }
        assert_eq!(format!("{:?}", key(1)), format!("image key {id}"));
    }
}
