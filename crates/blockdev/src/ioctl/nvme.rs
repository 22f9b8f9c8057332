//! Kernel calls on NVMe drives.
//!
//! Owns: the `unsafe` of sending an admin command; the structure is that of
//! `linux/nvme_ioctl.h`. Does not own: which commands there are (`crate::nvme`).

use crate::nvme::{Command, MAX_DATA};
use nix::errno::Errno;
use std::fs::File;
use std::os::fd::AsRawFd;

mod raw {
    use nix::sys::ioctl::ioctl_num_type;
    use nix::{ioctl_none_bad, ioctl_readwrite_bad, request_code_none, request_code_readwrite};

    pub const NVME_IOCTL_ID: ioctl_num_type = request_code_none!(b'N', 0x40);
    pub const NVME_IOCTL_ADMIN_CMD: ioctl_num_type =
        request_code_readwrite!(b'N', 0x41, size_of::<super::AdminCommand>());

    ioctl_none_bad!(nvme_id, NVME_IOCTL_ID);
    ioctl_readwrite_bad!(nvme_admin_cmd, NVME_IOCTL_ADMIN_CMD, super::AdminCommand);
}

/// `struct nvme_passthru_cmd`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AdminCommand {
    opcode: u8,
    flags: u8,
    reserved: u16,
    nsid: u32,
    cdw2: u32,
    cdw3: u32,
    metadata: u64,
    addr: u64,
    metadata_len: u32,
    data_len: u32,
    /// Command dwords 10 to 15.
    cdw10: [u32; 6],
    timeout_ms: u32,
    result: u32,
}

const _: () = assert!(
    size_of::<AdminCommand>() == 72,
    "size that the kernel reads"
);

impl AdminCommand {
    /// The command, whose answer goes to `data_len` bytes at `addr`.
    fn new(command: &Command, addr: u64, data_len: u32) -> AdminCommand {
        AdminCommand {
            opcode: command.opcode,
            nsid: command.nsid,
            addr,
            data_len,
            cdw10: [command.cdw10, command.cdw11, 0, 0, 0, 0],
            timeout_ms: command.timeout_ms,
            ..AdminCommand::default()
        }
    }
}

/// Number of the namespace that the device is.
pub(crate) fn namespace_id(file: &File) -> Result<u32, Errno> {
    // SAFETY: open descriptor, no argument.
    let id = unsafe { raw::nvme_id(file.as_raw_fd()) }?;
    u32::try_from(id).map_err(|_| Errno::EINVAL)
}

/// Sends the command and waits for its end: the drive's status, 0 if it says that all went
/// well. What it gives back stands in `answer` then.
pub(crate) fn admin(file: &File, command: &Command, answer: &mut [u8]) -> Result<u16, Errno> {
    // The drive gives as much as the command says, whatever the kernel was told.
    if answer.len() != command.answer || answer.len() > MAX_DATA {
        return Err(Errno::EINVAL);
    }
    let length = u32::try_from(answer.len()).map_err(|_| Errno::EINVAL)?;
    let addr = match length {
        0 => 0,
        _ => answer.as_mut_ptr().expose_provenance() as u64,
    };
    let mut message = AdminCommand::new(command, addr, length);
    // SAFETY: open descriptor; the kernel reads and writes its structure, which ours has the
    // layout and (asserted above) size of, and writes at most `data_len` bytes at `addr`,
    // which are those of `answer`, borrowed for as long as the call lasts. `Command` has no
    // commands that make the drive use other memory.
    let status = unsafe { raw::nvme_admin_cmd(file.as_raw_fd(), &mut message) }?;
    u16::try_from(status).map_err(|_| Errno::EIO)
}

#[cfg(test)]
mod tests {
    use super::{AdminCommand, admin, namespace_id, raw};
    use crate::nvme::{Command, FormatErase, Namespace};
    use nix::errno::Errno;
    use std::mem::offset_of;

    /// The numbers of the kernel's header.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    #[test]
    fn numbers_are_the_kernel_s() {
        assert_eq!(raw::NVME_IOCTL_ID as u32, 0x4e40);
        assert_eq!(raw::NVME_IOCTL_ADMIN_CMD as u32, 0xc048_4e41);
    }

    #[test]
    fn fields_stand_where_the_kernel_reads_them() {
        let places = [
            (offset_of!(AdminCommand, nsid), 4),
            (offset_of!(AdminCommand, metadata), 16),
            (offset_of!(AdminCommand, addr), 24),
            (offset_of!(AdminCommand, metadata_len), 32),
            (offset_of!(AdminCommand, data_len), 36),
            (offset_of!(AdminCommand, cdw10), 40),
            (offset_of!(AdminCommand, timeout_ms), 64),
            (offset_of!(AdminCommand, result), 68),
        ];
        for (ours, kernel) in places {
            assert_eq!(ours, kernel);
        }
        let format = Command::format(3, &Namespace::default(), FormatErase::UserData);
        let message = AdminCommand::new(&format, 0, 0);
        assert_eq!((message.opcode, message.nsid), (0x80, 3));
        assert_eq!(message.cdw10, [1 << 9, 0, 0, 0, 0, 0]);
        assert_eq!((message.flags, message.addr, message.data_len), (0, 0, 0));
    }

    /// On other files every call is an error, not a wild write.
    #[test]
    fn other_files_are_refused() {
        let refused = |errno: Errno| matches!(errno, Errno::ENOTTY | Errno::EINVAL);
        for file in [
            tempfile::tempfile().unwrap(),
            std::fs::File::open("/dev/null").unwrap(),
        ] {
            assert!(namespace_id(&file).is_err_and(refused));
            let mut answer = [7; 4096];
            let asked = admin(&file, &Command::identify_controller(), &mut answer);
            assert!(asked.is_err_and(refused));
            assert_eq!(answer, [7; 4096]);
            // A buffer that the answer does not fit is refused before the kernel is asked.
            let asked = admin(&file, &Command::identify_controller(), &mut answer[..512]);
            assert_eq!(asked, Err(Errno::EINVAL));
        }
    }
}
