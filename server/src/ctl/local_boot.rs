//! The argument of `deployctl machines local-boot`.
//!
//! Owns: its words and help. Does not own: what they mean ([`LocalBoot`]).

use crate::netboot::LocalBoot;
use clap::ValueEnum;

/// How a machine boots its own disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LocalBootArg {
    /// BIOS: the first disk; UEFI: the boot loader ends with a failure.
    Auto,
    /// The boot loader ends with a failure.
    Exit,
    /// The boot loader ends with success.
    ExitOk,
    /// UEFI: GRUB looks for a boot loader on the machine's disks.
    Search,
}

impl From<LocalBootArg> for LocalBoot {
    fn from(way: LocalBootArg) -> LocalBoot {
        match way {
            LocalBootArg::Auto => LocalBoot::Auto,
            LocalBootArg::Exit => LocalBoot::Exit,
            LocalBootArg::ExitOk => LocalBoot::ExitOk,
            LocalBootArg::Search => LocalBoot::Search,
        }
    }
}
