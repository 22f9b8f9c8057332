//! The imager: backs up and restores disks, as a command on any Linux and as `/init`
//! of the Deploy-OS.
//!
//! Owns: composing disks, images and network into jobs. Does not own: parsing
//! (`diskmap`), formats (`image`), devices (`blockdev`), messages (`wire`).

pub mod alive;
pub mod backup;
pub mod bad_ranges;
pub mod boot_entries;
pub mod cast;
pub mod cli;
pub mod clock;
pub mod diff;
pub mod disks;
pub mod export;
pub mod extract;
pub mod files;
pub mod grow;
pub mod import;
pub mod in_use;
pub mod job;
pub mod keyring;
pub mod machine;
pub mod map;
pub mod media;
pub mod nbd;
pub mod numbering;
pub mod old_tables;
pub mod partitions;
pub mod progress;
pub mod recover;
pub mod remote;
pub mod report;
pub mod restore;
pub mod room;
pub mod script;
pub mod sectors;
pub mod several;
pub mod shrink;
pub mod source;
pub mod target;
pub mod trust;
pub mod verify_image;
pub mod wipe;
