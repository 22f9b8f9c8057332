//! The seam between network boot and the server's core.
//!
//! Owns: what is told about a machine that boots, and what can be answered. Does not
//! own: the decision.

use std::future::Future;
use std::pin::Pin;

use wire::Report;

/// What iPXE tells about the machine that it runs on. Everything comes from the
/// network unauthenticated: it selects a machine, it proves nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootSeen {
    /// MAC addresses in lower case with colons (`52:54:00:12:34:56`), the one that
    /// booted first, none twice. Never empty when a [`BootDecider`] is asked.
    pub macs: Vec<String>,
    /// SMBIOS UUID in lower case with dashes, if there is a well-formed one. It may
    /// still be a placeholder of the maker.
    pub uuid: Option<String>,
    /// SMBIOS manufacturer, control characters removed, at most
    /// [`super::query::MAX_TEXT`] characters; may be empty.
    pub manufacturer: String,
    /// SMBIOS product name, as [`BootSeen::manufacturer`].
    pub product: String,
    /// SMBIOS serial number, as [`BootSeen::manufacturer`].
    pub serial: String,
    /// Firmware interface: `pcbios` or `efi`.
    pub platform: String,
    /// Architecture of the boot loader: `i386`, `x86_64`, `arm64`.
    pub buildarch: String,
}

/// What a machine does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootDecision {
    /// Boot the Deploy-OS.
    DeployOs {
        /// Shown on the machine's screen, as "backup of pc-17".
        why: String,
    },
    /// Boot the machine's own disk.
    LocalDisk {
        /// Shown on the machine's screen, as "nothing is assigned to pc-17".
        why: String,
    },
    /// Show why no job is given, then boot the local disk.
    Refused(Report),
}

/// The answer of a [`BootDecider`] on its way.
pub type Decision = Pin<Box<dyn Future<Output = BootDecision> + Send>>;

/// Decides what a machine boots, and registers machines that it does not know.
pub trait BootDecider: Send + Sync {
    /// Called once for every fetch of a machine's boot script. An answer that takes
    /// longer than [`super::http::DECISION_TIMEOUT`] is given up; the machine then
    /// asks again.
    fn decide(&self, seen: BootSeen) -> Decision;
}
