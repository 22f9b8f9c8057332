//! The seam between network boot and the server's core.
//!
//! Owns: what is told about a machine that boots, and what can be answered. Does not
//! own: the decision.

use std::future::Future;
use std::pin::Pin;

use serde::{Deserialize, Serialize};
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

/// How a machine's own disk is booted. Firmware differs in what it makes of a boot loader
/// that ends, so a machine can have a way of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LocalBoot {
    /// BIOS: the first disk, else the boot loader ends. UEFI: it ends with a failure.
    #[default]
    Auto,
    /// The boot loader ends with a failure, on BIOS too.
    Exit,
    /// The boot loader ends with success.
    ExitOk,
    /// UEFI: GRUB looks for a boot loader on the machine's disks. BIOS: as [`LocalBoot::Auto`].
    Search,
}

impl LocalBoot {
    /// All of them.
    pub const ALL: [LocalBoot; 4] = [
        LocalBoot::Auto,
        LocalBoot::Exit,
        LocalBoot::ExitOk,
        LocalBoot::Search,
    ];

    /// The word that is typed and stored.
    pub fn as_str(self) -> &'static str {
        match self {
            LocalBoot::Auto => "auto",
            LocalBoot::Exit => "exit",
            LocalBoot::ExitOk => "exit-ok",
            LocalBoot::Search => "search",
        }
    }

    /// Reads the word; one that is not known means [`LocalBoot::Auto`].
    pub fn parse(word: &str) -> LocalBoot {
        let known = LocalBoot::ALL.into_iter().find(|way| way.as_str() == word);
        known.unwrap_or_default()
    }
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
        /// How.
        how: LocalBoot,
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
