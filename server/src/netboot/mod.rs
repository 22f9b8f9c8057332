//! Network boot: proxyDHCP, addresses, TFTP, boot scripts and boot files.
//!
//! Owns: what a machine meets between its firmware's first DHCP packet and the start
//! of the Deploy-OS's kernel. Does not own: which machine has what to do (the
//! [`BootDecider`], implemented by the server's core) or the check-in afterwards.
//!
//! The path of a machine: firmware broadcasts DHCPDISCOVER, [`dhcp`] names a boot
//! file (and an address only where [`lessor`] may: else that is the DHCP server's business), [`tftp`] or [`http`] sends
//! it, iPXE asks again and is given the URL of the first-stage script, which chains
//! to the machine's own script made by [`script`].

pub mod board;
pub mod config;
pub mod decide;
pub mod dhcp;
pub mod error;
pub mod files;
pub mod http;
pub mod lessor;
pub mod portowner;
pub mod proxy;
pub mod query;
pub mod range;
pub mod script;
pub mod service;
pub mod tftp;

pub use board::Board;
pub use config::{BootConfig, LeaseConfig, NetbootConfig, ProxyMode};
pub use decide::{BootDecider, BootDecision, BootSeen, Decision, LocalBoot};
pub use error::NetbootError;
pub use http::router;
pub use lessor::LeaseStore;
pub use service::{Netboot, Shared, run, start};
