//! The keys that a job goes by.
//!
//! Owns: what is handed from the command line, or the kernel's, to readers and makers of
//! images, and how an encrypted image's key is come by. Does not own: what is demanded of
//! signatures ([`crate::trust`]), key files (`keyfile`), what keys do (`image::seal`).

use image::{ImageKey, Layout, PublicKey};
use keyfile::{Identity, Opener, Wants};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use wire::{Code, DiskState, Report};
use zeroize::Zeroizing;

/// Environment variable with a passphrase.
pub const PASSPHRASE_VARIABLE: &str = "DEPLOY_PASSPHRASE";
/// Longest file with a key, a passphrase or an identity.
const MAX_FILE: u64 = 64 << 10;

/// Asks a person for the passphrase of what is named.
pub type Ask = fn(&str) -> Result<Zeroizing<String>, Report>;

/// Where the key of encrypted images comes from.
#[derive(Clone, Default)]
pub struct KeySource {
    /// The key file; an image carries its own.
    pub file: Option<PathBuf>,
    /// File whose first line is the passphrase.
    pub passphrase_file: Option<PathBuf>,
    /// File with an age identity.
    pub identity: Option<PathBuf>,
    /// The passphrase may be in the environment or asked for.
    pub ask: Option<Ask>,
    /// Although there is a key file, images in the clear are taken, too.
    pub allow_plain: bool,
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key of {:?}", self.file)
    }
}

/// A key that was opened, and the file that it came in.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The key.
    pub key: Arc<ImageKey>,
    /// The key file.
    pub wrapped: Arc<str>,
}

/// Keys of a job.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    /// Only images that this key has signed are restored or called good; without it every
    /// signer's are, and unsigned ones.
    pub trusted: Option<PublicKey>,
    /// Where the key of encrypted images comes from.
    pub source: KeySource,
    /// The key that was opened before: a passphrase is asked for once.
    opened: Arc<Mutex<Option<Opened>>>,
}

impl Keyring {
    /// Keys of these sources; nothing is opened yet.
    pub fn new(trusted: Option<PublicKey>, source: KeySource) -> Self {
        Keyring {
            trusted,
            source,
            opened: Arc::default(),
        }
    }

    /// The key that new images are encrypted with, if a key file is named.
    ///
    /// # Errors
    /// `image-locked`: it does not open. Nothing is ever made in the clear instead.
    pub fn for_backup(&self) -> Result<Option<Opened>, Report> {
        match &self.source.file {
            Some(file) => self.open(&read(file)?).map(Some),
            None => Ok(None),
        }
    }

    /// The key of an image with this layout; none if it is not encrypted.
    ///
    /// # Errors
    /// `image-locked`: what is there does not open it, or it is another key's.
    /// `image-not-encrypted`: whoever names a key file wants an image that only its owner
    /// can have made; anybody can make one in the clear.
    pub fn for_image(&self, layout: &Layout) -> Result<Option<Arc<ImageKey>>, Report> {
        let Some(encryption) = &layout.encryption else {
            return match &self.source.file {
                Some(file) if !self.source.allow_plain => {
                    let found = format!(
                        "the image is not encrypted, and the key {} was given",
                        file.display()
                    );
                    let code = Code::ImageNotEncrypted;
                    Err(Report::new(code, found, DiskState::Untouched))
                }
                _ => Ok(None),
            };
        };
        let opened = match &self.source.file {
            Some(file) => self.open(&read(file)?)?,
            None => self.open(&encryption.wrapped_key)?,
        };
        if opened.key.id() == encryption.key() {
            return Ok(Some(opened.key));
        }
        Err(locked(format!(
            "the image is encrypted with key {}, the one that was given is {}",
            encryption.key(),
            opened.key.id()
        )))
    }

    fn open(&self, wrapped: &str) -> Result<Opened, Report> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = opened.as_ref().filter(|o| &*o.wrapped == wrapped) {
            return Ok(before.clone());
        }
        let secret = unwrapped(wrapped, &self.source)?;
        let new = Opened {
            key: Arc::new(ImageKey::new(&secret)),
            wrapped: wrapped.into(),
        };
        *opened = Some(new.clone());
        Ok(new)
    }
}

/// The secret of a key file.
fn unwrapped(wrapped: &str, source: &KeySource) -> Result<keyfile::Secret, Report> {
    let failed = |e: keyfile::Error| locked(e.to_string());
    match keyfile::wants(wrapped).map_err(failed)? {
        Wants::Passphrase => {
            let passphrase = passphrase(source)?;
            keyfile::unwrap(wrapped, &Opener::Passphrase(&passphrase)).map_err(failed)
        }
        Wants::Identity => {
            let Some(path) = &source.identity else {
                return Err(locked(
                    "the key wants an identity, and none was given".into(),
                ));
            };
            let identity = Identity::parse(&read(path)?).map_err(failed)?;
            let identities = std::slice::from_ref(&identity);
            keyfile::unwrap(wrapped, &Opener::Identities(identities)).map_err(failed)
        }
    }
}

fn passphrase(source: &KeySource) -> Result<Zeroizing<String>, Report> {
    if let Some(path) = &source.passphrase_file {
        let text = read(path)?;
        let first = text.lines().next().unwrap_or_default();
        return Ok(Zeroizing::new(first.to_owned()));
    }
    match source.ask {
        Some(ask) => match std::env::var(PASSPHRASE_VARIABLE) {
            Ok(text) => Ok(Zeroizing::new(text)),
            Err(_) => ask("the key"),
        },
        None => Err(locked(
            "the key wants a passphrase, and none was given".into(),
        )),
    }
}

/// Reads a small secret file.
///
/// # Errors
/// `image-locked`: it cannot be read.
pub fn read(path: &Path) -> Result<Zeroizing<String>, Report> {
    let failed = |e: std::io::Error| locked(format!("{}: {e}", path.display()));
    let mut text = Zeroizing::new(String::new());
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_FILE)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(text)
}

fn locked(found: String) -> Report {
    Report::new(Code::ImageLocked, found, DiskState::Untouched)
}

#[cfg(test)]
mod tests {
    use super::{KeySource, Keyring};
    use image::Layout;
    use keyfile::{Identity, Lock, new_secret, wrap};
    use wire::Code;

    #[test]
    fn the_key_file_beside_its_identity_opens_its_images_only() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::generate().unwrap();
        let make = |name: &str| {
            let lock = [identity.recipient()];
            let text = wrap(&new_secret().unwrap(), &Lock::Recipients(&lock)).unwrap();
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (one, two) = (make("one"), make("two"));
        let file = dir.path().join("identity");
        std::fs::write(&file, &*identity.to_text()).unwrap();
        let ring = |key: Option<&std::path::PathBuf>, identity: bool| {
            let source = KeySource {
                file: key.cloned(),
                identity: identity.then(|| file.clone()),
                ..KeySource::default()
            };
            Keyring::new(None, source)
        };
        let opened = ring(Some(&one), true).for_backup().unwrap().unwrap();
        let layout = Layout {
            cell_size: 1 << 16,
            ..Layout::default()
        };
        let sealed = layout.sealed(&opened.key, &opened.wrapped).unwrap();
        for good in [ring(Some(&one), true), ring(None, true)] {
            let key = good.for_image(&sealed).unwrap().unwrap();
            assert_eq!(key.id(), opened.key.id());
        }
        for bad in [
            ring(Some(&two), true),
            ring(Some(&one), false),
            ring(None, false),
        ] {
            assert_eq!(bad.for_image(&sealed).unwrap_err().code, Code::ImageLocked);
        }
        assert!(ring(None, false).for_image(&layout).unwrap().is_none());
        assert!(ring(None, true).for_backup().unwrap().is_none());
        // An image in the clear in the place of an encrypted one.
        let mut keyed = ring(Some(&one), true);
        let report = keyed.for_image(&layout).unwrap_err();
        assert_eq!(report.code, Code::ImageNotEncrypted);
        keyed.source.allow_plain = true;
        assert!(keyed.for_image(&layout).unwrap().is_none());
        let missing = dir.path().join("missing");
        let report = ring(Some(&missing), true).for_backup().unwrap_err();
        assert_eq!(report.code, Code::ImageLocked);
    }
}
