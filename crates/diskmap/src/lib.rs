//! Partition tables and file systems to used extents.
//!
//! Owns: reading MBR and GPT, telling which bytes of a disk carry something, and
//! moving a table to a disk of another size. Does not own: any I/O (bytes come
//! through [`DiskRead`]), nor writing, chunks or images.
//!
//! Every byte that is read is foreign: the parsers are total (no panic, overflow,
//! unbounded loop or allocation), and whatever cannot be understood completely is
//! copied sector by sector with a reason, never by a guessed map.

#![forbid(unsafe_code)]

mod bytes;
mod checksum;
mod error;
mod extents;
mod fs;
mod gaps;
mod guid;
mod ldm;
mod model;
mod read;
mod scan;
pub mod table;
mod types;
mod view;

pub use error::{ScanError, TableError};
pub use extents::{Extent, Extents};
pub use fs::{ExtChecksums, ExtInodeChecksums, ExtJournal, WrongSum};
pub use fs::{InnerVolume, InnerVolumes, inner_volumes};
pub use model::{
    Blob, DiskMap, Geometry, Method, Region, RegionKind, ScanOptions, Selection, TableKind,
    Warning, WarningKind,
};
pub use read::DiskRead;
pub use scan::{scan, scan_selected};
