//! Bootable media of the Deploy-OS: what stands where on a CD or a stick.
//!
//! Owns: the file that says what a medium is ([`about`]). Does not own: reading or writing
//! devices; nothing here does I/O.

#![warn(clippy::cast_possible_truncation, clippy::cast_sign_loss)]

pub mod about;

pub use about::{About, Part, Restore};

/// Folder of the Deploy-OS on a medium.
pub const FOLDER: &str = "deploy-os";
/// Says what the medium is; a medium is what has this file.
pub const ABOUT_FILE: &str = "deploy-os/medium.json";
/// Settings of the network, which people edit.
pub const SETTINGS_FILE: &str = "deploy-os/settings";
