//! What the tests of the other crates stand on: disk builders, faulty readers, and
//! guards for loop devices, network namespaces and virtual machines.
//!
//! Owns: making test surroundings and removing them. Does not own: any code that
//! ships.

pub mod accel;
pub mod build;
pub mod debian;
pub mod debian_disk;
pub mod faulty;
pub mod faulty_file;
pub mod files;
pub mod loopdev;
pub mod machine;
pub mod netns;
pub mod ovmf;
pub mod qemu;
pub mod qmp;

mod tool;
