//! Wrapping the secret and unwrapping it.
//!
//! Owns: the cryptography of the age format, version 1, as its specification has it. Does
//! not own: its text (`format`).

use crate::format::{self, Stanza};
use crate::{Error, Identity, Lock, Opener, Recipient, Secret, random};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use chacha20poly1305::aead::{Aead, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

const X25519_INFO: &[u8] = b"age-encryption.org/v1/X25519";
const SCRYPT_SALT: &[u8] = b"age-encryption.org/v1/scrypt";
/// Work of a new passphrase, as a power of two: 128 MiB of memory, which a machine with 512
/// MiB has before its job begins.
const WORK: u8 = 17;
/// Most work that a file may ask for: 512 MiB, a power of two more than `age -p` does.
const MAX_WORK: u8 = 19;

type FileKey = Zeroizing<[u8; 16]>;

/// The secret in a new file, as text.
///
/// # Errors
/// No recipients; no random numbers.
pub fn wrap(secret: &Secret, lock: &Lock<'_>) -> Result<String, Error> {
    let file_key: FileKey = random()?;
    let stanzas = match lock {
        Lock::Passphrase(passphrase) => vec![scrypt_stanza(&file_key, passphrase)?],
        Lock::Recipients([]) => return Err(Error::BadKey("there is no recipient")),
        Lock::Recipients(list) => {
            let one = |recipient| x25519_stanza(&file_key, recipient);
            list.iter().map(one).collect::<Result<_, _>>()?
        }
    };
    let header = format::header(&stanzas);
    let mac = header_mac(&file_key, header.as_bytes())
        .finalize()
        .into_bytes();
    let nonce = random::<16>()?;
    let mut payload = nonce.to_vec();
    payload.extend(cipher(&payload_key(&file_key, &nonce[..])).map(|cipher| {
        // One last block: counter 0, and the mark of the last one.
        cipher
            .encrypt(&last_nonce(), &secret[..])
            .unwrap_or_default()
    })?);
    Ok(format::armored(&header, &mac, &payload))
}

/// The secret of a file.
///
/// # Errors
/// [`Error::Wrong`] for what does not open it, [`Error::NotAKeyFile`] for damage.
pub fn unwrap(text: &str, opener: &Opener<'_>) -> Result<Secret, Error> {
    let file = format::parse(text)?;
    let file_key = match opener {
        Opener::Passphrase(passphrase) => match &file.stanzas[..] {
            [stanza] if stanza.kind == "scrypt" => open_scrypt(stanza, passphrase)?,
            _ => return Err(Error::Wrong("a passphrase (it wants an identity)")),
        },
        Opener::Identities(identities) => {
            let stanzas = file.stanzas.iter().filter(|s| s.kind == "X25519");
            let mut pairs = stanzas.flat_map(|s| identities.iter().map(move |i| (s, i)));
            pairs
                .find_map(|(stanza, identity)| open_x25519(stanza, identity))
                .ok_or(Error::Wrong("this identity"))?
        }
    };
    header_mac(&file_key, &file.header)
        .verify_slice(&file.mac)
        .map_err(|_| Error::NotAKeyFile("its header was changed"))?;
    let damaged = || Error::NotAKeyFile("it holds no secret of 32 bytes");
    let (nonce, sealed) = file.payload.split_at_checked(16).ok_or_else(damaged)?;
    let plain = cipher(&payload_key(&file_key, nonce))?
        .decrypt(&last_nonce(), sealed)
        .map(Zeroizing::new)
        .map_err(|_| damaged())?;
    let mut secret = Secret::default();
    if plain.len() != secret.len() {
        return Err(damaged());
    }
    secret.copy_from_slice(&plain);
    Ok(secret)
}

fn last_nonce() -> Nonce {
    let mut nonce = Nonce::default();
    nonce[11] = 1;
    nonce
}

fn cipher(key: &[u8; 32]) -> Result<ChaCha20Poly1305, Error> {
    Ok(ChaCha20Poly1305::new(Key::from_slice(key)))
}

fn derive(secret: &[u8], salt: &[u8], info: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    // 32 bytes are less than the most that HKDF gives.
    let _ = Hkdf::<Sha256>::new(Some(salt), secret).expand(info, &mut *key);
    key
}

fn payload_key(file_key: &FileKey, nonce: &[u8]) -> Zeroizing<[u8; 32]> {
    derive(&file_key[..], nonce, b"payload")
}

fn header_mac(file_key: &FileKey, header: &[u8]) -> Hmac<Sha256> {
    let key = derive(&file_key[..], b"", b"header");
    let mut block = Zeroizing::new([0; 64]);
    block[..32].copy_from_slice(&*key);
    // A key shorter than a block is filled with zeros (RFC 2104).
    let mut mac = <Hmac<Sha256> as KeyInit>::new((&*block).into());
    mac.update(header);
    mac
}

/// The file key sealed with a key that is used once.
fn seal(key: &[u8; 32], file_key: &FileKey) -> Result<Vec<u8>, Error> {
    let sealed = cipher(key)?.encrypt(&Nonce::default(), &file_key[..]);
    sealed.map_err(|_| Error::NotAKeyFile("it cannot be sealed"))
}

fn open(key: &[u8; 32], body: &[u8]) -> Option<FileKey> {
    if body.len() != 32 {
        return None;
    }
    let plain = cipher(key).ok()?.decrypt(&Nonce::default(), body).ok()?;
    let plain = Zeroizing::new(plain);
    let mut file_key = FileKey::default();
    file_key.copy_from_slice(plain.get(..16)?);
    Some(file_key)
}

fn x25519_stanza(file_key: &FileKey, recipient: &Recipient) -> Result<Stanza, Error> {
    let secret = StaticSecret::from(*random::<32>()?);
    let share = PublicKey::from(&secret);
    let shared = secret.diffie_hellman(&PublicKey::from(recipient.0));
    if !shared.was_contributory() {
        return Err(Error::BadKey("the recipient is no good key"));
    }
    let salt = [*share.as_bytes(), recipient.0].concat();
    let key = derive(shared.as_bytes(), &salt, X25519_INFO);
    Ok(Stanza {
        kind: "X25519".to_owned(),
        arguments: vec![STANDARD_NO_PAD.encode(share.as_bytes())],
        body: seal(&key, file_key)?,
    })
}

fn open_x25519(stanza: &Stanza, identity: &Identity) -> Option<FileKey> {
    let [share] = &stanza.arguments[..] else {
        return None;
    };
    let share: [u8; 32] = STANDARD_NO_PAD.decode(share).ok()?.try_into().ok()?;
    let shared = identity.0.diffie_hellman(&PublicKey::from(share));
    if !shared.was_contributory() {
        return None;
    }
    let salt = [share, identity.recipient().0].concat();
    open(&derive(shared.as_bytes(), &salt, X25519_INFO), &stanza.body)
}

fn scrypt_stanza(file_key: &FileKey, passphrase: &str) -> Result<Stanza, Error> {
    let salt = random::<16>()?;
    let key = stretch(passphrase, &salt[..], WORK)?;
    Ok(Stanza {
        kind: "scrypt".to_owned(),
        arguments: vec![STANDARD_NO_PAD.encode(&salt[..]), WORK.to_string()],
        body: seal(&key, file_key)?,
    })
}

fn open_scrypt(stanza: &Stanza, passphrase: &str) -> Result<FileKey, Error> {
    let damaged = || Error::NotAKeyFile("its header is damaged");
    let [salt, work] = &stanza.arguments[..] else {
        return Err(damaged());
    };
    let salt = STANDARD_NO_PAD.decode(salt).map_err(|_| damaged())?;
    let work: u8 = work.parse().map_err(|_| damaged())?;
    if salt.len() != 16 || work == 0 || work > MAX_WORK {
        return Err(Error::NotAKeyFile("its passphrase asks for too much work"));
    }
    open(&*stretch(passphrase, &salt, work)?, &stanza.body).ok_or(Error::Wrong("this passphrase"))
}

fn stretch(passphrase: &str, salt: &[u8], work: u8) -> Result<Zeroizing<[u8; 32]>, Error> {
    let wrong = |_| Error::NotAKeyFile("its passphrase cannot be computed");
    let params = scrypt::Params::new(work, 8, 1, 32).map_err(wrong)?;
    let salt = [SCRYPT_SALT, salt].concat();
    let mut key = Zeroizing::new([0; 32]);
    let done = scrypt::scrypt(passphrase.as_bytes(), &salt, &params, &mut *key);
    done.map_err(|_| Error::NotAKeyFile("its passphrase cannot be computed"))?;
    Ok(key)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
