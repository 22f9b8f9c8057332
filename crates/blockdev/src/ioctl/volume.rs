//! Kernel calls on loop devices and mounted file systems.
//!
//! Owns: the `unsafe` of attaching a part of a disk as a device and of growing ext4, XFS
//! and Btrfs online; structures as in `linux/loop.h`, `ext4.h`, `xfs_fs.h`, `btrfs.h`.
//! Does not own: when that is done.

use super::LoopInfo64;
use nix::errno::Errno;
use std::fs::File;
use std::os::fd::AsRawFd;

mod raw {
    use nix::sys::ioctl::ioctl_num_type;
    use nix::{
        ioctl_none_bad, ioctl_read_bad, ioctl_write_ptr_bad, request_code_read, request_code_write,
    };

    pub const LOOP_CTL_GET_FREE: ioctl_num_type = 0x4C82;
    pub const LOOP_CONFIGURE: ioctl_num_type = 0x4C0A;
    pub const EXT4_IOC_RESIZE_FS: ioctl_num_type = request_code_write!(b'f', 16, 8);
    pub const XFS_IOC_FSGEOMETRY_V4: ioctl_num_type =
        request_code_read!(b'X', 124, size_of::<super::XfsGeometry>());
    pub const XFS_IOC_FSGROWFSDATA: ioctl_num_type =
        request_code_write!(b'X', 110, size_of::<super::XfsGrow>());
    pub const BTRFS_IOC_RESIZE: ioctl_num_type =
        request_code_write!(0x94, 3, size_of::<super::BtrfsArgs>());

    ioctl_none_bad!(loop_ctl_get_free, LOOP_CTL_GET_FREE);
    ioctl_write_ptr_bad!(loop_configure, LOOP_CONFIGURE, super::LoopConfig);
    ioctl_write_ptr_bad!(ext4_resize, EXT4_IOC_RESIZE_FS, u64);
    ioctl_read_bad!(xfs_geometry, XFS_IOC_FSGEOMETRY_V4, super::XfsGeometry);
    ioctl_write_ptr_bad!(xfs_grow, XFS_IOC_FSGROWFSDATA, super::XfsGrow);
    ioctl_write_ptr_bad!(btrfs_resize, BTRFS_IOC_RESIZE, super::BtrfsArgs);
}

/// `LO_FLAGS_AUTOCLEAR`: the device detaches itself when nobody has it open.
const AUTOCLEAR: u32 = 4;

/// `struct loop_config`.
#[repr(C)]
pub(super) struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

/// `struct xfs_fsop_geom_v4`.
#[repr(C)]
#[derive(Default)]
pub(super) struct XfsGeometry {
    block_size: u32,
    before_percent: [u32; 6],
    inode_percent: u32,
    data_blocks: u64,
    rest: [u64; 9],
}

/// `struct xfs_growfs_data`.
#[repr(C)]
pub(super) struct XfsGrow {
    new_blocks: u64,
    inode_percent: u32,
    unused: u32,
}

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
pub(super) struct BtrfsArgs {
    fd: i64,
    name: [u8; 4088],
}

const _: () = assert!(size_of::<LoopConfig>() == 304);
const _: () = assert!(size_of::<XfsGeometry>() == 112);
const _: () = assert!(size_of::<XfsGrow>() == 16);
const _: () = assert!(size_of::<BtrfsArgs>() == 4096);

/// Number of a loop device that is free now; somebody else may take it first.
pub(crate) fn free_loop(control: &File) -> Result<u32, Errno> {
    // SAFETY: open descriptor, no argument.
    let number = unsafe { raw::loop_ctl_get_free(control.as_raw_fd()) }?;
    u32::try_from(number).map_err(|_| Errno::EINVAL)
}

/// Makes `device` show `len` bytes of `backing` from `offset` on, in sectors of
/// `sector_size` bytes, until nobody has it open any more.
pub(crate) fn configure_loop(
    device: &File,
    backing: &File,
    offset: u64,
    len: u64,
    sector_size: u32,
) -> Result<(), Errno> {
    let mut info = LoopInfo64::zeroed();
    info.lo_offset = offset;
    info.lo_sizelimit = len;
    info.lo_flags = AUTOCLEAR;
    let config = LoopConfig {
        fd: u32::try_from(backing.as_raw_fd()).map_err(|_| Errno::EBADF)?,
        block_size: sector_size,
        info,
        reserved: [0; 8],
    };
    // SAFETY: open descriptors; the kernel reads its structure, which ours has the layout
    // and (asserted above) size of.
    unsafe { raw::loop_configure(device.as_raw_fd(), &config) }.map(drop)
}

/// Grows the mounted ext4 that `inside` lies in to that many of its blocks.
pub(crate) fn grow_ext4(inside: &File, blocks: u64) -> Result<(), Errno> {
    // SAFETY: open descriptor; the kernel reads one 64-bit number.
    unsafe { raw::ext4_resize(inside.as_raw_fd(), &blocks) }.map(drop)
}

/// Grows the mounted XFS that `inside` lies in to what fits `bytes`.
pub(crate) fn grow_xfs(inside: &File, bytes: u64) -> Result<(), Errno> {
    let mut geometry = XfsGeometry::default();
    // SAFETY: open descriptor; the kernel writes at most its structure, whose size the
    // assertion above holds equal to ours; any bytes are valid for it.
    unsafe { raw::xfs_geometry(inside.as_raw_fd(), &mut geometry) }?;
    let block = u64::from(geometry.block_size);
    let new_blocks = bytes.checked_div(block).ok_or(Errno::EINVAL)?;
    if new_blocks <= geometry.data_blocks {
        return Ok(());
    }
    let grow = XfsGrow {
        new_blocks,
        inode_percent: geometry.inode_percent,
        unused: 0,
    };
    // SAFETY: open descriptor; the kernel reads its structure, which ours has the layout of.
    unsafe { raw::xfs_grow(inside.as_raw_fd(), &grow) }.map(drop)
}

/// Grows the mounted Btrfs that `inside` lies in to the size of its first device.
pub(crate) fn grow_btrfs(inside: &File) -> Result<(), Errno> {
    let mut args = BtrfsArgs {
        fd: 0,
        name: [0; 4088],
    };
    args.name[..3].copy_from_slice(b"max");
    // SAFETY: open descriptor; the kernel reads its structure, which ours has the layout
    // of, with a name that ends in a zero.
    unsafe { raw::btrfs_resize(inside.as_raw_fd(), &args) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::{configure_loop, free_loop, grow_btrfs, grow_ext4, grow_xfs, raw};
    use nix::errno::Errno;

    /// The numbers of the kernel's headers.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    #[test]
    fn numbers_are_the_kernel_s() {
        let numbers = [
            (raw::EXT4_IOC_RESIZE_FS, 0x4008_6610),
            (raw::XFS_IOC_FSGEOMETRY_V4, 0x8070_587c),
            (raw::XFS_IOC_FSGROWFSDATA, 0x4010_586e),
            (raw::BTRFS_IOC_RESIZE, 0x5000_9403),
        ];
        for (ours, kernel) in numbers {
            assert_eq!(ours as u32, kernel, "{ours:x}");
        }
    }

    /// On other files every call is an error, not a wild write.
    #[test]
    fn other_files_are_refused() {
        let file = tempfile::tempfile().unwrap();
        let refused = |errno: Errno| {
            matches!(
                errno,
                Errno::ENOTTY | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::EPERM
            )
        };
        assert!(free_loop(&file).is_err_and(refused));
        assert!(configure_loop(&file, &file, 0, 512, 512).is_err_and(refused));
        let null = std::fs::File::open("/dev/null").unwrap();
        assert!(grow_ext4(&null, 1).is_err_and(refused));
        assert!(grow_xfs(&null, 1).is_err_and(refused));
        assert!(grow_btrfs(&null).is_err_and(refused));
    }
}
