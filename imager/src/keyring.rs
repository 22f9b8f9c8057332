//! The keys that a job goes by.
//!
//! Owns: what is handed from the command line, or the kernel's, to the readers of images.
//! Does not own: what is demanded of signatures ([`crate::trust`]).

use image::PublicKey;

/// Keys of a job.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    /// Only images that this key has signed are restored or called good; without it every
    /// signer's are, and unsigned ones.
    pub trusted: Option<PublicKey>,
}
