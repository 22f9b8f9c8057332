//! Images: chunks by content, records, manifests, containers and packs.
//!
//! Owns: every byte of the stored formats (`docs/reference/image-format.md`), and the
//! proof that what is read is what was written. Does not own: devices, sockets, or
//! where used extents come from. No code here opens a file or a connection except
//! [`pack`], which is given a path by its caller.
//!
//! The pieces, smallest first: a *chunk* is the used bytes of one grid cell of a
//! region ([`cells`]); a *record* is a chunk compressed, with its name and checks
//! ([`record`]); a *manifest* lists the chunks of an image in pages ([`manifest`]); a
//! *container* is a manifest with its records between the pages ([`container`]); a
//! *pack* is a run of records on a server ([`pack`]). A container that is a file can be
//! read at any place of the disk that it holds ([`open`]).

pub mod assemble;
pub mod bad;
pub mod cells;
pub mod container;
pub mod encryption;
mod error;
mod hash;
pub mod index;
pub mod layout;
pub mod manifest;
pub mod open;
pub mod pack;
pub mod record;
pub mod salvage;
pub mod seal;
pub mod section;
pub mod sign;
pub mod signature;
pub mod structure;
mod tree;

pub use bad::BadRange;
pub use cells::{CellMap, Used};
pub use encryption::Encryption;
pub use error::Error;
pub use hash::Hash;
pub use layout::Layout;
pub use open::{OpenImage, ReadAt};
pub use seal::ImageKey;
pub use section::Version;
pub use signature::{PublicKey, Signature, SigningKey};
pub use tree::{ChunkRef, Root, TreeHasher};

/// Newest format version that this crate reads. An image is written in the oldest one
/// that can say what it holds, see [`Version`].
pub const FORMAT_VERSION: u16 = Version::NEWEST.number();

/// Grid on which regions are cut unless something else is asked for, in bytes.
pub const DEFAULT_CELL_SIZE: u32 = 1 << 20;
/// Smallest grid, in bytes.
pub const MIN_CELL_SIZE: u32 = 64 << 10;
/// Largest grid, in bytes; also the longest chunk.
pub const MAX_CELL_SIZE: u32 = 4 << 20;
/// Most chunks in one page of a manifest.
pub const PAGE_CHUNKS: usize = 1024;
