//! The whole system in virtual machines: what the QEMU tests and the demo share.
//!
//! Owns: a site (network, foreign DHCP server, management server) and the machines of
//! a run; a fleet of targets without machines. Does not own: namespaces, QEMU and disks themselves (crate `testkit`), nor
//! the programs under test, which are taken from `out/` as `build.sh` left them.

pub mod built;
pub mod fleet;
pub mod guest;
pub mod machines;
pub mod matrix;
pub mod page;
pub mod proof;
pub mod site;
pub mod status;
pub mod story;
pub mod wire_tap;
