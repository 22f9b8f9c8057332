//! Kernel calls that ask a disk for its health.
//!
//! Owns: the `unsafe` of an ATA command that only reads; the structure is that of `scsi/sg.h`.
//! Does not own: NVMe's commands ([`super::nvme`]), what the answers mean.

use super::nvme::admin;
use crate::nvme::Command;
use nix::errno::Errno;
use std::fs::File;
use std::os::fd::AsRawFd;

mod raw {
    use nix::ioctl_readwrite_bad;
    use nix::sys::ioctl::ioctl_num_type;

    pub const SG_IO: ioctl_num_type = 0x2285;

    ioctl_readwrite_bad!(sg_io, SG_IO, super::SgHeader);
}

/// Longest wait for an answer, in milliseconds: a disk that is dying may take its time.
const PATIENCE_MS: u32 = 5000;
/// Bytes of an answer.
pub(crate) const ANSWER: usize = 512;
/// Bytes of sense data that are looked at.
pub(crate) const SENSE: usize = 32;

/// `struct sg_io_hdr`.
#[repr(C)]
pub(super) struct SgHeader {
    interface_id: libc::c_int,
    direction: libc::c_int,
    command_len: u8,
    most_sense: u8,
    iovec_count: u16,
    data_len: u32,
    data: *mut u8,
    command: *const u8,
    sense: *mut u8,
    timeout_ms: u32,
    flags: u32,
    pack_id: libc::c_int,
    user: *mut u8,
    status: u8,
    masked_status: u8,
    message_status: u8,
    sense_len: u8,
    host_status: u16,
    driver_status: u16,
    left_over: libc::c_int,
    duration_ms: u32,
    info: u32,
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<SgHeader>() == 88);

/// The SMART / Health Information log of an NVMe drive (NVMe 1.4, 5.14.1.2).
pub(crate) fn nvme_log(file: &File) -> Result<[u8; ANSWER], Errno> {
    let mut answer = [0u8; ANSWER];
    match admin(file, &Command::health(PATIENCE_MS), &mut answer)? {
        0 => Ok(answer),
        // The drive itself says no.
        _ => Err(Errno::EIO),
    }
}

/// A SMART command of an ATA disk behind the SCSI layer (SAT, ATA PASS-THROUGH (16); ATA
/// command B0h). With `reads` an answer comes, else what the disk says is in the sense data.
pub(crate) fn ata_smart(
    file: &File,
    feature: u8,
    reads: bool,
) -> Result<([u8; ANSWER], [u8; SENSE]), Errno> {
    let mut answer = [0u8; ANSWER];
    let mut sense = [0u8; SENSE];
    let mut command = [0u8; 16];
    command[0] = 0x85;
    // Protocol (PIO in, or no data), and what the transfer's length is counted by; without
    // data the registers are asked for.
    [command[1], command[2]] = if reads { [0x08, 0x0e] } else { [0x06, 0x20] };
    command[4] = feature;
    command[6] = u8::from(reads);
    [command[10], command[12]] = [0x4f, 0xc2];
    command[14] = 0xb0;
    let mut header = SgHeader {
        interface_id: libc::c_int::from(b'S'),
        direction: if reads { -3 } else { -1 },
        command_len: 16,
        most_sense: 32,
        iovec_count: 0,
        data_len: if reads { 512 } else { 0 },
        data: answer.as_mut_ptr(),
        command: command.as_ptr(),
        sense: sense.as_mut_ptr(),
        timeout_ms: PATIENCE_MS,
        flags: 0,
        pack_id: 0,
        user: std::ptr::null_mut(),
        status: 0,
        masked_status: 0,
        message_status: 0,
        sense_len: 0,
        host_status: 0,
        driver_status: 0,
        left_over: 0,
        duration_ms: 0,
        info: 0,
    };
    // SAFETY: open descriptor; the kernel reads and writes its structure, whose size the
    // assertion above holds equal to ours, reads `command_len` bytes of the command, and writes
    // at most `data_len` and `most_sense` bytes to the two arrays, which have so many and live
    // until the call is over.
    unsafe { raw::sg_io(file.as_raw_fd(), &mut header) }?;
    let failed = header.host_status != 0 || reads && header.status != 0;
    match failed {
        true => Err(Errno::EIO),
        false => Ok((answer, sense)),
    }
}

#[cfg(test)]
mod tests {
    use super::{ata_smart, nvme_log, raw};
    use nix::errno::Errno;

    /// The numbers of the kernel's headers.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    #[test]
    fn numbers_are_the_kernel_s() {
        assert_eq!(raw::SG_IO as u32, 0x2285);
    }

    /// On other files every call is an error, not a wild write.
    #[test]
    fn other_files_are_refused() {
        let refused = |errno: Errno| matches!(errno, Errno::ENOTTY | Errno::EINVAL);
        let null = std::fs::File::open("/dev/null").unwrap();
        let file = tempfile::tempfile().unwrap();
        for file in [&null, &file] {
            assert!(nvme_log(file).is_err_and(refused));
            assert!(ata_smart(file, 0xd0, true).is_err_and(refused));
            assert!(ata_smart(file, 0xda, false).is_err_and(refused));
        }
    }
}
