//! Certificates of wiped disks: what can be shown when the disk, the machine and its history
//! are long gone.
//!
//! Owns: what they say, their files in the state folder, their signature. Does not own:
//! whether a wipe is believed ([`super::state::final_state`]).
//!
//! A certificate is a text in JSON that is signed as it stands, with the key that signs
//! images. Nothing deletes one.

use super::files;
use crate::app::App;
use crate::db::executions::Execution;
use crate::db::{Conn, machines};
use crate::failure::{Failure, Outcome};
use image::signature::Statement;
use image::{PublicKey, Signature};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use wire::{SOFTWARE_VERSION, Wiped};

/// Most certificates that a list has; the newest.
const LISTED: usize = 1000;
/// Longest file that is read.
const MAX_BYTES: u64 = 1 << 20;

/// What a certificate says. Times are seconds since 1970 (UTC), of the server's clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// Version of this shape.
    pub version: u32,
    /// Id of the execution.
    pub execution: String,
    /// Name of the machine at that time.
    pub machine: String,
    /// Its id.
    pub machine_id: String,
    /// Its UUID, if it has a real one.
    pub uuid: Option<String>,
    /// Its SMBIOS serial number.
    pub serial: String,
    /// Its vendor and product.
    pub model: String,
    /// When the wipe was ordered.
    pub ordered: i64,
    /// When the machine got the job.
    pub began: Option<i64>,
    /// When it reported that it was done.
    pub ended: i64,
    /// Version of the server.
    pub server_version: String,
    /// What was done, to which disk, and how it was proved.
    pub wiped: Wiped,
    /// The proof in words.
    pub proved: String,
}

/// A certificate as it is kept: the text that is signed, and whose word it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// JSON of a [`Certificate`].
    pub certificate: String,
    /// Public key, hex; empty if the server has none.
    pub signed_by: String,
    /// Ed25519 signature, hex.
    pub signature: String,
}

/// A certificate as operators see it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CertificateView {
    /// As it is kept.
    #[serde(flatten)]
    pub signed: Signed,
    /// What it says.
    pub says: Certificate,
    /// The signature is of this text.
    pub is_valid: bool,
    /// The key is this server's.
    pub is_ours: bool,
}

impl Signed {
    /// Whether the key's owner signed the text.
    pub fn is_valid(&self) -> bool {
        let key = PublicKey::from_hex(&self.signed_by);
        let bytes: Option<[u8; 64]> = hex::decode(&self.signature)
            .ok()
            .and_then(|bytes| bytes.try_into().ok());
        let (Some(key), Some(signature)) = (key, bytes) else {
            return false;
        };
        let text = self.certificate.as_bytes();
        Signature { key, signature }.is_of_statement(Statement::WipeCertificate, text)
    }
}

fn folder(app: &App) -> PathBuf {
    app.state_dir.join("certificates")
}

/// Writes the certificate of a wipe that is believed; durable when this returns.
///
/// # Errors
/// The database does not answer, or the file cannot be written.
pub(crate) async fn make(
    app: &App,
    conn: &mut Conn,
    execution: &Execution,
    wiped: &Wiped,
    now: i64,
) -> Outcome<()> {
    let machine = machines::by_id(conn, &execution.machine).await?;
    let Some(machine) = machine else {
        return Err(Failure::internal("an execution without its machine"));
    };
    let certificate = Certificate {
        version: 1,
        execution: execution.id.clone(),
        machine: machine.name,
        machine_id: machine.id,
        uuid: machine.uuid,
        serial: machine.serial,
        model: machine.model,
        ordered: execution.created,
        began: execution.started,
        ended: now,
        server_version: SOFTWARE_VERSION.to_owned(),
        proved: wiped.proved(),
        wiped: wiped.clone(),
    };
    let text = serde_json::to_string(&certificate)?;
    let signature = app
        .store
        .signing_key()
        .map(|key| key.sign_statement(Statement::WipeCertificate, text.as_bytes()));
    let signed = Signed {
        signed_by: signature.map_or(String::new(), |signature| signature.key.to_string()),
        signature: signature.map_or(String::new(), |signature| hex::encode(signature.signature)),
        certificate: text,
    };
    let path = folder(app).join(format!("{}.json", execution.id));
    files::write(path, serde_json::to_vec_pretty(&signed)?).await
}

/// The newest certificates, the last one first.
///
/// # Errors
/// The folder cannot be read.
pub async fn all(app: &App) -> Outcome<Vec<CertificateView>> {
    let (folder, ours) = (folder(app), app.store.signer());
    let read = move || -> std::io::Result<Vec<CertificateView>> {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|ending| ending == "json") {
                match view(&path, ours) {
                    Ok(view) => found.push(view),
                    Err(error) => {
                        tracing::error!(file = %path.display(), %error, "a certificate cannot be read");
                    }
                }
            }
        }
        found.sort_by_key(|view| std::cmp::Reverse(view.says.ended));
        found.truncate(LISTED);
        Ok(found)
    };
    tokio::task::spawn_blocking(read)
        .await?
        .map_err(|e| Failure::io("reading the certificates", &e))
}

/// The certificate of this execution.
///
/// # Errors
/// There is none, or its file cannot be read.
pub async fn one(app: &App, execution: &str) -> Outcome<CertificateView> {
    let none = || {
        Failure::not_found(format!("there is no certificate of execution {execution}"))
            .with_advice("List those that are there with: deployctl certificates")
    };
    // Ids are made by the server: nothing else may name a file.
    if execution.is_empty() || !execution.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(none());
    }
    let path = folder(app).join(format!("{execution}.json"));
    let ours = app.store.signer();
    let read = tokio::task::spawn_blocking(move || view(&path, ours)).await?;
    read.map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => none(),
        _ => Failure::io("reading a certificate", &e),
    })
}

fn view(path: &Path, ours: Option<PublicKey>) -> std::io::Result<CertificateView> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(MAX_BYTES)
        .read_to_end(&mut bytes)?;
    let signed: Signed = serde_json::from_slice(&bytes)?;
    let says = serde_json::from_str(&signed.certificate)?;
    Ok(CertificateView {
        says,
        is_valid: signed.is_valid(),
        is_ours: ours.is_some_and(|key| key.to_string() == signed.signed_by),
        signed,
    })
}

#[cfg(test)]
mod tests {
    use super::Signed;
    use image::SigningKey;
    use image::signature::Statement;

    #[test]
    fn a_changed_certificate_is_nobody_s_word() {
        let key = SigningKey::from_seed(&[3; 32]).unwrap();
        let text = r#"{"version":1}"#;
        let signature = key.sign_statement(Statement::WipeCertificate, text.as_bytes());
        let signed = Signed {
            certificate: text.to_owned(),
            signed_by: key.public().to_string(),
            signature: hex::encode(signature.signature),
        };
        assert!(signed.is_valid());
        let changes: [fn(&mut Signed); 4] = [
            |s| s.certificate = s.certificate.replace('1', "2"),
            |s| s.signed_by = "00".repeat(32),
            |s| s.signature.clear(),
            |s| s.signature = "zz".repeat(64),
        ];
        for change in changes {
            let mut other = signed.clone();
            change(&mut other);
            assert!(!other.is_valid(), "{other:?}");
        }
    }
}
