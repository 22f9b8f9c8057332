//! The imager: backs up and restores disks, as a command on any Linux and as `/init`
//! of the Deploy-OS.
//!
//! Owns: composing disks, images and network into jobs. Does not own: parsing
//! (`diskmap`), formats (`image`), devices (`blockdev`), messages (`wire`).

pub mod progress;
pub mod remote;
pub mod target;
