//! Signed texts that are no images.
//!
//! Owns: what is signed, so that no text can be passed off as one of another kind, nor as an
//! image. Does not own: keys, what the texts say.
//!
//! Signed are the bytes of the kind, a zero byte, and the text as it is:
//!
//! | kind | bytes |
//! |---|---|
//! | certificate of a wipe | `deploy-os wipe certificate v1` |
//! | script | `deploy-os script v1` |

use super::{Signature, SigningKey};
use ring::signature::{ED25519, UnparsedPublicKey};

/// Kinds of signed texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statement {
    /// A server's word that a disk was wiped.
    WipeCertificate,
    /// A script that targets may run.
    Script,
}

impl Statement {
    fn message(self, text: &[u8]) -> Vec<u8> {
        let kind: &[u8] = match self {
            Statement::WipeCertificate => b"deploy-os wipe certificate v1\0",
            Statement::Script => b"deploy-os script v1\0",
        };
        [kind, text].concat()
    }
}

impl SigningKey {
    /// Signs a text.
    pub fn sign_statement(&self, kind: Statement, text: &[u8]) -> Signature {
        let mut signature = [0; 64];
        // An Ed25519 signature has 64 bytes.
        signature.copy_from_slice(self.pair.sign(&kind.message(text)).as_ref());
        Signature {
            key: self.public(),
            signature,
        }
    }
}

impl Signature {
    /// Whether the key's owner signed this text.
    pub fn is_of_statement(&self, kind: Statement, text: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.key.0)
            .verify(&kind.message(text), &self.signature)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::Statement;
    use crate::{Hash, SigningKey};

    #[test]
    fn a_text_s_signature_is_of_nothing_else() {
        let key = SigningKey::from_seed(&[7; 32]).unwrap();
        let text = [3; 32];
        let signed = key.sign_statement(Statement::WipeCertificate, &text);
        assert!(signed.is_of_statement(Statement::WipeCertificate, &text));
        assert!(!signed.is_of_statement(Statement::WipeCertificate, &text[1..]));
        assert!(!signed.is_of_statement(Statement::Script, &text));
        assert!(!signed.is_of(Hash(text)));
        let image = key.sign(Hash(text));
        assert!(!image.is_of_statement(Statement::WipeCertificate, &text));
    }
}
