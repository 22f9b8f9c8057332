//! The admin commands that are sent to NVMe drives.
//!
//! Owns: how they are encoded (NVM Express Base Specification 2.0, admin command set). Does not own:
//! sending (`ioctl::nvme`), what comes back (`data`).
//!
//! Only these can be built: none of them carries an address of memory besides the one buffer
//! that the kernel is given.

use super::data::Namespace;

/// What comes back is at most this long.
pub(crate) const MAX_DATA: usize = 4096;

const GET_LOG_PAGE: u8 = 0x02;
const IDENTIFY: u8 = 0x06;
const FORMAT_NVM: u8 = 0x80;
const SANITIZE: u8 = 0x84;

const ALL_NAMESPACES: u32 = 0xffff_ffff;
const HEALTH: u32 = 0x02;
const SANITIZE_STATUS: u32 = 0x81;

/// Longest answer to a question.
const ASK_MS: u32 = 60_000;
/// A format of a large drive takes hours.
const FORMAT_MS: u32 = 24 * 3600 * 1000;

/// How a drive erases with Format NVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormatErase {
    /// User data erase: what it puts there is the drive's own choice.
    UserData,
    /// Cryptographic erase: the drive forgets its key.
    Cryptographic,
}

/// How a drive sanitizes itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SanitizeAction {
    /// Its memory is erased block by block.
    BlockErase,
    /// It writes zeros over everything.
    Overwrite,
    /// It forgets its key.
    CryptoErase,
}

impl SanitizeAction {
    /// The number that stands for it, in the lowest three bits of the command's dword 10.
    pub const fn code(self) -> u32 {
        match self {
            SanitizeAction::BlockErase => 2,
            SanitizeAction::Overwrite => 3,
            SanitizeAction::CryptoErase => 4,
        }
    }
}

/// An admin command and how much it gives back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) opcode: u8,
    pub(crate) nsid: u32,
    pub(crate) cdw10: u32,
    pub(crate) cdw11: u32,
    pub(crate) timeout_ms: u32,
    /// Bytes that the drive gives back; at most [`MAX_DATA`].
    pub(crate) answer: usize,
}

impl Command {
    const fn ask(opcode: u8, nsid: u32, cdw10: u32, answer: usize) -> Command {
        Command {
            opcode,
            nsid,
            cdw10,
            cdw11: 0,
            timeout_ms: ASK_MS,
            answer,
        }
    }

    /// Identify, CNS 01h: the controller.
    pub(crate) const fn identify_controller() -> Command {
        Command::ask(IDENTIFY, 0, 0x01, 4096)
    }

    /// Identify, CNS 00h: a namespace.
    pub(crate) const fn identify_namespace(nsid: u32) -> Command {
        Command::ask(IDENTIFY, nsid, 0x00, 4096)
    }

    /// Identify, CNS 02h: the active namespaces, from the first.
    pub(crate) const fn active_namespaces() -> Command {
        Command::ask(IDENTIFY, 0, 0x02, 4096)
    }

    /// Identify, CNS 10h: all namespaces that are allocated, attached here or not. Only of
    /// controllers with namespace management.
    pub(crate) const fn allocated_namespaces() -> Command {
        Command::ask(IDENTIFY, 0, 0x10, 4096)
    }

    /// Get Log Page, 81h: how far a sanitize is. NUMDL counts 4 bytes, from 0.
    pub(crate) const fn sanitize_status() -> Command {
        let numdl = (512 / 4 - 1) << 16;
        Command::ask(GET_LOG_PAGE, ALL_NAMESPACES, numdl | SANITIZE_STATUS, 512)
    }

    /// Get Log Page, 02h: the drive's health.
    pub(crate) const fn health(timeout_ms: u32) -> Command {
        let numdl = (512 / 4 - 1) << 16;
        Command {
            timeout_ms,
            ..Command::ask(GET_LOG_PAGE, ALL_NAMESPACES, numdl | HEALTH, 512)
        }
    }

    /// Format NVM of one namespace, which keeps its format.
    pub(crate) fn format(nsid: u32, now: &Namespace, erase: FormatErase) -> Command {
        let ses = match erase {
            FormatErase::UserData => 1,
            FormatErase::Cryptographic => 2,
        };
        let index = u32::from(now.format_index);
        let mut cdw10 = index & 0xf;
        cdw10 |= u32::from(now.metadata_at_end_of_block) << 4;
        cdw10 |= u32::from(now.protection & 0b111) << 5;
        cdw10 |= u32::from(now.protection_first) << 8;
        cdw10 |= ses << 9;
        cdw10 |= (index >> 4 & 0b11) << 12;
        Command {
            timeout_ms: FORMAT_MS,
            ..Command::ask(FORMAT_NVM, nsid, cdw10, 0)
        }
    }

    /// Sanitize. Restricted completion (AUSE clear): after a failure the drive gives no data
    /// until a sanitize has succeeded. One pass of zeros where it overwrites.
    pub(crate) const fn sanitize(action: SanitizeAction) -> Command {
        let owpass = match action {
            SanitizeAction::Overwrite => 1 << 4,
            _ => 0,
        };
        Command::ask(SANITIZE, 0, action.code() | owpass, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::{Command, FormatErase, SanitizeAction};
    use crate::nvme::data::Namespace;

    /// Identify (CNS values) and Get Log Page, command dwords 10.
    #[test]
    fn questions() {
        let health = Command::health(7);
        assert_eq!((health.opcode, health.nsid), (0x02, u32::MAX));
        assert_eq!(
            (health.cdw10, health.answer, health.timeout_ms),
            (0x007f_0002, 512, 7)
        );
        let identify = Command::identify_controller();
        assert_eq!(
            (
                identify.opcode,
                identify.nsid,
                identify.cdw10,
                identify.answer
            ),
            (0x06, 0, 1, 4096)
        );
        let namespace = Command::identify_namespace(7);
        assert_eq!(
            (namespace.opcode, namespace.nsid, namespace.cdw10),
            (0x06, 7, 0)
        );
        assert_eq!(Command::active_namespaces().cdw10, 2);
        assert_eq!(Command::allocated_namespaces().cdw10, 0x10);
        let log = Command::sanitize_status();
        assert_eq!(
            (log.opcode, log.nsid, log.cdw10, log.answer),
            (0x02, u32::MAX, 0x007f_0081, 512)
        );
    }

    /// Format NVM, command dword 10.
    #[test]
    fn a_format_keeps_the_namespace_s_format() {
        let plain = Namespace::default();
        let user = Command::format(1, &plain, FormatErase::UserData);
        assert_eq!(
            (user.opcode, user.nsid, user.cdw10, user.cdw11),
            (0x80, 1, 1 << 9, 0)
        );
        let crypto = Command::format(1, &plain, FormatErase::Cryptographic);
        assert_eq!(crypto.cdw10, 2 << 9);
        let special = Namespace {
            format_index: 0x23,
            metadata_at_end_of_block: true,
            protection: 2,
            protection_first: true,
            ..plain
        };
        let command = Command::format(2, &special, FormatErase::UserData);
        let wanted = 3 | 1 << 4 | 2 << 5 | 1 << 8 | 1 << 9 | 2 << 12;
        assert_eq!((command.nsid, command.cdw10), (2, wanted));
        assert!(command.timeout_ms > 3_600_000, "it takes hours");
    }

    /// Sanitize, command dword 10.
    #[test]
    fn a_sanitize_is_of_the_whole_drive_and_may_not_end_in_a_failure_unseen() {
        let command = |action| {
            let command = Command::sanitize(action);
            assert_eq!((command.opcode, command.nsid, command.cdw11), (0x84, 0, 0));
            assert_eq!(command.cdw10 & 1 << 3, 0, "AUSE");
            command.cdw10
        };
        assert_eq!(command(SanitizeAction::BlockErase), 0x02);
        assert_eq!(command(SanitizeAction::Overwrite), 0x13);
        assert_eq!(command(SanitizeAction::CryptoErase), 0x04);
    }
}
