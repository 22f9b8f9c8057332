//! What the tests of the other crates stand on: disk builders, faulty readers, and
//! guards for loop devices, network namespaces and virtual machines.
//!
//! Owns: making test surroundings and removing them. Does not own: any code that
//! ships.

pub mod netns;
