//! The kernel calls that have no safe form.
//!
//! Owns: with [`health`], [`volume`] and [`nvme`] every `unsafe` block of the project, one function a
//! call, each safe to call with any open file. Does not own: what the calls are used for.
//!
//! Numbers are built with nix's macros, whose type follows the platform (`ulong` on
//! glibc, `int` on musl).

use nix::errno::Errno;
use std::fs::File;
use std::os::fd::AsRawFd;

pub(crate) mod health;
pub(crate) mod nvme;
pub(crate) mod volume;

mod raw {
    use nix::sys::ioctl::ioctl_num_type;
    use nix::{
        ioctl_none_bad, ioctl_read_bad, ioctl_write_ptr_bad, request_code_none, request_code_read,
        request_code_write,
    };

    /// Request type of the block layer.
    const BLK: u8 = 0x12;

    pub const BLKROGET: ioctl_num_type = request_code_none!(BLK, 94);
    pub const BLKRRPART: ioctl_num_type = request_code_none!(BLK, 95);
    pub const BLKFLSBUF: ioctl_num_type = request_code_none!(BLK, 97);
    pub const BLKSSZGET: ioctl_num_type = request_code_none!(BLK, 104);
    // Declared with size_t, but always a 64-bit number.
    pub const BLKGETSIZE64: ioctl_num_type = request_code_read!(BLK, 114, size_of::<usize>());
    // These two are declared without a direction, but read a start and a length.
    pub const BLKDISCARD: ioctl_num_type = request_code_none!(BLK, 119);
    pub const BLKZEROOUT: ioctl_num_type = request_code_none!(BLK, 127);
    pub const BLKPBSZGET: ioctl_num_type = request_code_none!(BLK, 123);
    pub const LOOP_GET_STATUS64: ioctl_num_type = 0x4C05;

    // Declared with long, but always a 32-bit number.
    pub const FS_IOC_GETFLAGS: ioctl_num_type = request_code_read!(b'f', 1, size_of::<usize>());
    pub const FS_IOC_SETFLAGS: ioctl_num_type = request_code_write!(b'f', 2, size_of::<usize>());

    ioctl_read_bad!(fs_getflags, FS_IOC_GETFLAGS, libc::c_int);
    ioctl_write_ptr_bad!(fs_setflags, FS_IOC_SETFLAGS, libc::c_int);
    ioctl_none_bad!(blkrrpart, BLKRRPART);
    ioctl_none_bad!(blkflsbuf, BLKFLSBUF);
    ioctl_read_bad!(blkroget, BLKROGET, libc::c_int);
    ioctl_read_bad!(blksszget, BLKSSZGET, libc::c_int);
    ioctl_read_bad!(blkpbszget, BLKPBSZGET, libc::c_uint);
    ioctl_read_bad!(blkgetsize64, BLKGETSIZE64, u64);
    ioctl_write_ptr_bad!(blkdiscard, BLKDISCARD, [u64; 2]);
    ioctl_write_ptr_bad!(blkzeroout, BLKZEROOUT, [u64; 2]);
    ioctl_read_bad!(loop_get_status64, LOOP_GET_STATUS64, super::LoopInfo64);
}

/// `struct loop_info64` of the kernel.
#[repr(C)]
pub(crate) struct LoopInfo64 {
    /// Device number of the file system that the backing file is on.
    pub lo_device: u64,
    /// Inode number of the backing file.
    pub lo_inode: u64,
    /// Device number of the backing block device, or 0.
    pub lo_rdevice: u64,
    /// First byte of the backing file that belongs to the device.
    pub lo_offset: u64,
    /// Bytes that belong to the device; 0 means all.
    pub lo_sizelimit: u64,
    lo_number: u32,
    lo_encrypt_type: u32,
    lo_encrypt_key_size: u32,
    /// `LO_FLAGS_*` of `linux/loop.h`.
    pub lo_flags: u32,
    lo_file_name: [u8; 64],
    lo_crypt_name: [u8; 64],
    lo_encrypt_key: [u8; 32],
    lo_init: [u64; 2],
}

const _: () = assert!(
    std::mem::size_of::<LoopInfo64>() == 232,
    "size that the kernel writes"
);

/// Size of a block device in bytes.
pub(crate) fn size_bytes(file: &File) -> Result<u64, Errno> {
    let mut size = 0u64;
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and the
    // kernel writes one u64 to a live, aligned u64 (other drivers reject the number).
    unsafe { raw::blkgetsize64(file.as_raw_fd(), &mut size) }?;
    Ok(size)
}

/// Logical sector size in bytes.
pub(crate) fn logical_sector_size(file: &File) -> Result<u32, Errno> {
    let mut size: libc::c_int = 0;
    // SAFETY: open descriptor; the kernel writes one int to a live int.
    unsafe { raw::blksszget(file.as_raw_fd(), &mut size) }?;
    u32::try_from(size).map_err(|_| Errno::EINVAL)
}

/// Physical sector size in bytes.
pub(crate) fn physical_sector_size(file: &File) -> Result<u32, Errno> {
    let mut size: libc::c_uint = 0;
    // SAFETY: open descriptor; the kernel writes one unsigned int to a live one.
    unsafe { raw::blkpbszget(file.as_raw_fd(), &mut size) }?;
    Ok(size)
}

/// Whether the device is write-protected.
pub(crate) fn read_only(file: &File) -> Result<bool, Errno> {
    let mut flag: libc::c_int = 0;
    // SAFETY: open descriptor; the kernel writes one int to a live int.
    unsafe { raw::blkroget(file.as_raw_fd(), &mut flag) }?;
    Ok(flag != 0)
}

/// Writes back and drops the page cache of a block device.
pub(crate) fn flush_buffers(file: &File) -> Result<(), Errno> {
    // SAFETY: open descriptor; the call takes no argument and touches no memory of ours.
    unsafe { raw::blkflsbuf(file.as_raw_fd()) }.map(drop)
}

/// Asks the kernel to read the partition table again.
pub(crate) fn reread_partitions(file: &File) -> Result<(), Errno> {
    // SAFETY: open descriptor; the call takes no argument and touches no memory of ours.
    unsafe { raw::blkrrpart(file.as_raw_fd()) }.map(drop)
}

/// Makes a range of a block device read back as zeros. In whole sectors.
pub(crate) fn zero_out(file: &File, start: u64, len: u64) -> Result<(), Errno> {
    let range = [start, len];
    // SAFETY: open descriptor; the kernel only reads two u64 from a live array.
    unsafe { raw::blkzeroout(file.as_raw_fd(), &range) }.map(drop)
}

/// Tells a block device that a range is not needed. In whole sectors.
pub(crate) fn discard(file: &File, start: u64, len: u64) -> Result<(), Errno> {
    let range = [start, len];
    // SAFETY: open descriptor; the kernel only reads two u64 from a live array.
    unsafe { raw::blkdiscard(file.as_raw_fd(), &range) }.map(drop)
}

/// `FS_*_FL` of a file, as `chattr` changes them.
pub(crate) fn file_flags(file: &File) -> Result<libc::c_int, Errno> {
    // The kernel takes and gives a 32-bit number, although the call is declared with a long.
    let mut flags: libc::c_int = 0;
    // SAFETY: open descriptor; the kernel writes one int to a live int.
    unsafe { raw::fs_getflags(file.as_raw_fd(), &mut flags) }?;
    Ok(flags)
}

/// Sets the flags of a file.
pub(crate) fn set_file_flags(file: &File, flags: libc::c_int) -> Result<(), Errno> {
    // SAFETY: open descriptor; the kernel reads one int from a live int.
    unsafe { raw::fs_setflags(file.as_raw_fd(), &flags) }.map(drop)
}

impl LoopInfo64 {
    /// All fields 0.
    pub(crate) fn zeroed() -> LoopInfo64 {
        LoopInfo64 {
            lo_device: 0,
            lo_inode: 0,
            lo_rdevice: 0,
            lo_offset: 0,
            lo_sizelimit: 0,
            lo_number: 0,
            lo_encrypt_type: 0,
            lo_encrypt_key_size: 0,
            lo_flags: 0,
            lo_file_name: [0; 64],
            lo_crypt_name: [0; 64],
            lo_encrypt_key: [0; 32],
            lo_init: [0; 2],
        }
    }
}

/// What a loop device is attached to; `ENXIO` if to nothing.
pub(crate) fn loop_status(file: &File) -> Result<LoopInfo64, Errno> {
    let mut info = LoopInfo64::zeroed();
    // SAFETY: open descriptor; the kernel writes at most the size of its structure,
    // which the assertion above holds equal to ours, and any bytes are valid for it.
    unsafe { raw::loop_get_status64(file.as_raw_fd(), &mut info) }?;
    Ok(info)
}

#[cfg(test)]
mod tests {
    use super::{
        discard, file_flags, flush_buffers, logical_sector_size, loop_status, physical_sector_size,
        raw, read_only, reread_partitions, set_file_flags, size_bytes, zero_out,
    };
    use nix::errno::Errno;

    /// The numbers of the kernel's `linux/fs.h` and `linux/loop.h` on 64-bit machines:
    /// on most disks a wrong one would go unnoticed where two sizes are equal.
    #[cfg(target_pointer_width = "64")]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    #[test]
    fn numbers_are_the_kernel_s() {
        let numbers = [
            (raw::FS_IOC_GETFLAGS, 0x8008_6601),
            (raw::FS_IOC_SETFLAGS, 0x4008_6602),
            (raw::BLKROGET, 0x125e),
            (raw::BLKRRPART, 0x125f),
            (raw::BLKFLSBUF, 0x1261),
            (raw::BLKSSZGET, 0x1268),
            (raw::BLKGETSIZE64, 0x8008_1272),
            (raw::BLKDISCARD, 0x1277),
            (raw::BLKPBSZGET, 0x127b),
            (raw::BLKZEROOUT, 0x127f),
            (raw::LOOP_GET_STATUS64, 0x4c05),
        ];
        for (ours, kernel) in numbers {
            // Signed on musl: the same bits.
            assert_eq!(ours as u32, kernel, "{ours:x}");
        }
    }

    /// Every call on a descriptor that is no block device must come back as an
    /// error, not as a wild write. Calls on real devices: `tests/loop_device.rs`.
    #[test]
    fn other_files_are_refused() {
        let file = tempfile::tempfile().unwrap();
        let refused = |errno: Errno| matches!(errno, Errno::ENOTTY | Errno::EINVAL);
        assert!(refused(size_bytes(&file).unwrap_err()));
        assert!(refused(logical_sector_size(&file).unwrap_err()));
        assert!(refused(physical_sector_size(&file).unwrap_err()));
        assert!(refused(read_only(&file).unwrap_err()));
        assert!(refused(flush_buffers(&file).unwrap_err()));
        assert!(refused(reread_partitions(&file).unwrap_err()));
        assert!(refused(zero_out(&file, 0, 512).unwrap_err()));
        assert!(refused(discard(&file, 0, 512).unwrap_err()));
        assert!(loop_status(&file).is_err_and(refused));
        let null = std::fs::File::open("/dev/null").unwrap();
        assert!(file_flags(&null).is_err_and(refused));
        assert!(set_file_flags(&null, 0).is_err_and(refused));
    }
}
