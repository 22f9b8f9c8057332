//! Keys and tokens of the server.
//!
//! Owns: TLS key and certificate, pin, signing key, administrator's token: made at the first start,
//! kept in the state folder, readable by the server's user only. Does not own: the
//! tokens of executions (the database).

use image::SigningKey;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

/// What the server proves itself with, and what others prove themselves with.
pub struct Secrets {
    /// TLS configuration of the data port.
    pub tls: Arc<rustls::ServerConfig>,
    /// Hash of the TLS key.
    pub pin: pinned::Pin,
    /// Signs every image that is published.
    pub signing: Arc<SigningKey>,
    /// The signing key was made now: nothing is signed with it yet.
    pub signing_is_new: bool,
    /// Token of the administrator.
    pub admin_token: String,
}

/// Name of the administrator's token in the state folder.
pub const ADMIN_TOKEN_FILE: &str = "admin.token";
/// Name of the signing key's public half in the state folder.
pub const SIGNER_FILE: &str = "sign.pub";
/// Name of the pin in the state folder.
pub const PIN_FILE: &str = "pin";

impl Secrets {
    /// Reads the secrets from `state`, or makes them.
    ///
    /// # Errors
    /// I/O errors, and damaged files: they are never replaced silently, since every
    /// medium and boot script carries the old pin.
    pub fn load_or_create(state: &Path) -> io::Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let key_path = state.join("tls.key");
        if !key_path.exists() {
            let key = rcgen::KeyPair::generate().map_err(io::Error::other)?;
            write_secret(&key_path, &key.serialize_der())?;
        }
        let key_der = read_all(&key_path)?;
        let key = rcgen::KeyPair::try_from(key_der.as_slice())
            .map_err(|e| damaged(&key_path, &e.to_string()))?;
        let cert_path = state.join("tls.cert");
        if !cert_path.exists() {
            // Clients look at the key only; dates and names are for curious people.
            let mut params = rcgen::CertificateParams::new(vec!["deployd".to_owned()])
                .map_err(io::Error::other)?;
            params.not_after = rcgen::date_time_ymd(4000, 1, 1);
            let cert = params.self_signed(&key).map_err(io::Error::other)?;
            write_secret(&cert_path, cert.der())?;
        }
        let cert = CertificateDer::from(read_all(&cert_path)?);
        let pin =
            pinned::Pin::of_certificate(&cert).map_err(|e| damaged(&cert_path, &e.to_string()))?;
        let tls = tls_config(cert, key_der).map_err(|e| damaged(&key_path, &e.to_string()))?;
        replace(&state.join(PIN_FILE), format!("{pin}\n").as_bytes())?;
        let (signing, signing_is_new) = signing_key(state)?;
        let public = format!("{}\n", signing.public());
        replace(&state.join(SIGNER_FILE), public.as_bytes())?;
        let token_path = state.join(ADMIN_TOKEN_FILE);
        if !token_path.exists() {
            write_secret(&token_path, format!("{}\n", random_hex()?).as_bytes())?;
        }
        let admin_token = fs::read_to_string(&token_path)?.trim().to_owned();
        if admin_token.len() < 32 {
            return Err(damaged(&token_path, "it is too short"));
        }
        Ok(Secrets {
            tls,
            pin,
            signing: Arc::new(signing),
            signing_is_new,
            admin_token,
        })
    }
}

/// The key that signs images, and whether it was made now.
fn signing_key(state: &Path) -> io::Result<(SigningKey, bool)> {
    let path = state.join("sign.key");
    let is_new = !path.exists();
    if is_new {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).map_err(|e| io::Error::other(e.to_string()))?;
        write_secret(&path, SigningKey::from_seed(&seed)?.to_pem().as_bytes())?;
    }
    let text = Zeroizing::new(read_all(&path)?);
    let text = std::str::from_utf8(&text).map_err(|e| damaged(&path, &e.to_string()))?;
    let key = SigningKey::from_pem(text).map_err(|e| damaged(&path, &e.to_string()))?;
    Ok((key, is_new))
}

fn tls_config(
    cert: CertificateDer<'static>,
    key: Vec<u8>,
) -> Result<Arc<rustls::ServerConfig>, rustls::Error> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![cert], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn damaged(path: &Path, why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{} cannot be used: {why}", path.display()),
    )
}

/// 256 random bits as 64 hex digits.
///
/// # Errors
/// The system has no random numbers.
pub fn random_hex() -> io::Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|e| io::Error::other(e.to_string()))?;
    Ok(hex::encode(bytes))
}

/// A short random id, 80 bits in 20 hex digits.
///
/// # Errors
/// The system has no random numbers.
pub fn random_id() -> io::Result<String> {
    let mut bytes = [0; 10];
    getrandom::fill(&mut bytes).map_err(|e| io::Error::other(e.to_string()))?;
    Ok(hex::encode(bytes))
}

/// Whether two secrets are equal, in a time that does not tell where they differ.
pub fn equal(a: &str, b: &str) -> bool {
    // Hashing first hides the position of the first difference from the comparison.
    blake3::hash(a.as_bytes()) == blake3::hash(b.as_bytes())
}

/// Writes a file that only the server's user can read; whole or not at all.
///
/// # Errors
/// I/O errors.
pub fn write_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, bytes)
}

/// Replaces a file (mode 0600) so that a crash leaves the old or the new one.
///
/// # Errors
/// I/O errors.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = PathBuf::from(path).with_file_name(name);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_dir(path)
}

/// Makes the entry of `path` in its folder durable.
///
/// # Errors
/// I/O errors.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn read_all(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // Keys and certificates are small; anything else is not ours.
    File::open(path)?.take(64 << 10).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::Secrets;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn secrets_are_made_once_and_only_for_the_owner() {
        let dir = tempfile::tempdir().unwrap();
        let one = Secrets::load_or_create(dir.path()).unwrap();
        let two = Secrets::load_or_create(dir.path()).unwrap();
        assert_eq!(one.pin, two.pin);
        assert_eq!(one.admin_token, two.admin_token);
        assert_eq!(one.admin_token.len(), 64);
        assert_eq!(one.signing.public(), two.signing.public());
        assert!(one.signing_is_new && !two.signing_is_new);
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(
                entry.metadata().unwrap().permissions().mode() & 0o777,
                0o600,
                "{:?}",
                entry.path()
            );
        }
    }

    #[test]
    fn a_damaged_key_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        Secrets::load_or_create(dir.path()).unwrap();
        for name in ["tls.key", "sign.key"] {
            let path = dir.path().join(name);
            let good = std::fs::read(&path).unwrap();
            std::fs::write(&path, b"rubbish").unwrap();
            assert!(Secrets::load_or_create(dir.path()).is_err(), "{name}");
            assert_eq!(std::fs::read(&path).unwrap(), b"rubbish");
            std::fs::write(&path, good).unwrap();
        }
        Secrets::load_or_create(dir.path()).unwrap();
    }

    #[test]
    fn secrets_compare() {
        assert!(super::equal("abc", "abc"));
        assert!(!super::equal("abc", "abd") && !super::equal("abc", "ab"));
    }
}
