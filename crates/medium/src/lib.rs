//! Bootable media of the Deploy-OS: what stands where on a CD or a stick.
//!
//! Owns: the file that says what a medium is ([`about`]), and the two kinds of media, byte by
//! byte: [`iso`], which starts from a CD and, copied with dd, from a stick; [`stick`], which
//! can be written to. Does not own: reading or writing anything: a medium is laid out as a
//! list of [`Piece`]s, and somebody else takes them to a file or a device.
//!
//! Everything is determined by what is put in: no clock, no random numbers.

#![warn(clippy::cast_possible_truncation, clippy::cast_sign_loss)]

pub mod about;
mod bios;
pub mod fat;
pub mod iso;
mod piece;
pub mod stick;
#[cfg(test)]
mod testing;
mod tree;

pub use about::{About, Part, Restore};
pub use bios::Bios;
pub use piece::{Content, Entry, Piece};

/// Folder of the Deploy-OS on a medium.
pub const FOLDER: &str = "deploy-os";
/// Says what the medium is; a medium is what has this file.
pub const ABOUT_FILE: &str = "deploy-os/medium.json";
/// Settings of the network, which people edit.
pub const SETTINGS_FILE: &str = "deploy-os/settings";
/// What a medium is called where volumes have names.
pub const LABEL: &str = "DEPLOY-OS";
/// Most bytes of a file on any medium, a multiple of every block size: FAT and a single
/// extent of ISO 9660 end at 4 GiB.
pub const MAX_FILE: u64 = (4 << 30) - (64 << 10);

/// Why a medium cannot be laid out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A name that not every file system takes.
    #[error("{0:?} is no name of a file on a medium")]
    Name(String),
    /// Two files of one name, or a file that is a folder elsewhere.
    #[error("{0} is there twice")]
    Twice(String),
    /// A file that is longer than [`MAX_FILE`].
    #[error("{path} has {size_bytes} bytes, more than fit into a file of a medium ({MAX_FILE})")]
    FileTooLarge {
        /// The file.
        path: String,
        /// Its size.
        size_bytes: u64,
    },
    /// It does not fit.
    #[error("{needed} bytes are needed, {size_bytes} are there")]
    Full {
        /// Bytes that are needed.
        needed: u64,
        /// Bytes that are there.
        size_bytes: u64,
    },
    /// A size at which there is no such medium.
    #[error("a medium of {size_bytes} bytes is {what}")]
    Size {
        /// The size.
        size_bytes: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The boot loader is not of the form that is known.
    #[error("the boot loader for BIOS: {0}")]
    Boot(&'static str),
}
