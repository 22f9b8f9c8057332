//! The program `imager` as users meet it: real disks made by the system's own tools,
//! real exit codes, real bytes compared.
//!
//! Owns: what the command line promises. Does not own: the parsers' and formats' own
//! cases (the crates' tests), networks and virtual machines (`tests/`).
//!
//! Loop devices and mounts are used, so these run as root. One test program, so that the
//! disks that many tests read are built once.

mod bad_sectors;
mod checks;
mod chosen;
mod compare;
mod diff;
mod disks;
mod encryption;
mod export;
mod file_systems;
mod generated;
mod images;
mod import;
mod import_changes;
mod import_clonezilla;
mod import_gaps;
mod import_guesses;
mod import_outputs;
mod import_partclone;
mod inside;
mod interrupted;
mod kept;
mod listing;
mod media;
mod nbd;
mod numbers;
mod order;
mod outputs;
mod partial;
mod passphrase;
mod refusals;
mod reuse;
mod round_trip;
mod run;
mod signatures;
mod sizes;
mod streams;
mod tables;
mod target;
mod terminal;
mod usage;
mod wipe;
