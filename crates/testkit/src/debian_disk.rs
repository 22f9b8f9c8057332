//! Partitions, boot loaders and file systems of the Debian test disks.
//!
//! Owns: the two layouts, as tests rely on them. Does not own: what is in the root
//! file system (`debian`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::debian::run;

/// Counts up when the layouts change.
pub(crate) const RECIPE: u32 = 1;

const SECTOR: u64 = 512;
const DISK_BYTES: u64 = 2 << 30;
const ROOT_UUID: &str = "11111111-2222-4333-8444-555555555501";
const SWAP_UUID: &str = "11111111-2222-4333-8444-555555555502";
const DATA_UUID: &str = "11111111-2222-4333-8444-555555555503";
const ESP_ID: &str = "A1B2C3D4";
/// The MBR's boot code ends where the disk signature starts.
const BOOT_CODE_BYTES: usize = 440;

/// A partition in sectors of 512 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// First sector.
    pub start: u64,
    /// Length.
    pub sectors: u64,
}

impl Part {
    /// First byte on the disk.
    pub fn offset_bytes(self) -> u64 {
        self.start * SECTOR
    }

    /// Length in bytes.
    pub fn bytes(self) -> u64 {
        self.sectors * SECTOR
    }
}

/// The UEFI disk's EFI system partition (FAT32).
pub const UEFI_ESP: Part = part(2048, 131_072);
/// The UEFI disk's root file system (ext4).
pub const UEFI_ROOT: Part = part(133_120, 3_928_064);
/// The UEFI disk's swap.
pub const UEFI_SWAP: Part = part(4_061_184, 131_072);
/// The BIOS disk's root file system (ext4), bootable primary partition 1.
pub const BIOS_ROOT: Part = part(2048, 3_928_064);
/// The BIOS disk's `/data` (ext4), logical partition 5.
pub const BIOS_DATA: Part = part(3_932_160, 131_072);
/// The BIOS disk's swap, logical partition 6.
pub const BIOS_SWAP: Part = part(4_065_280, 129_024);

const fn part(start: u64, sectors: u64) -> Part {
    Part { start, sectors }
}

/// GPT with ESP, root and swap; GRUB at the removable-media path.
pub(crate) fn uefi(root: &Path, work: &Path, disk: &Path) -> io::Result<()> {
    partition(
        disk,
        &format!(
            "label: gpt\nlabel-id: 0A0B0C0D-1111-4222-8333-444455556666\n{}{}{}",
            line(UEFI_ESP, "type=U, name=esp"),
            line(UEFI_ROOT, "type=L, name=root"),
            line(UEFI_SWAP, "type=S, name=swap"),
        ),
    )?;
    write_system_files(
        root,
        &format!(
            "UUID={ROOT_UUID} / ext4 errors=remount-ro 0 1\n\
             UUID={}-{} /boot/efi vfat umask=0077 0 1\n\
             UUID={SWAP_UUID} none swap sw 0 0\n",
            &ESP_ID[..4],
            &ESP_ID[4..]
        ),
    )?;
    ext4(disk, UEFI_ROOT, ROOT_UUID, root)?;
    swap(disk, UEFI_SWAP, work)?;

    let loader = work.join("BOOTX64.EFI");
    grub(work, "x86_64-efi", &loader, &["part_gpt", "fat"])?;
    let esp = work.join("esp");
    File::create(&esp)?.set_len(UEFI_ESP.bytes())?;
    run(Command::new("mkfs.vfat")
        .args(["-F", "32", "-i", ESP_ID, "-n", "ESP"])
        .arg(&esp))?;
    run(Command::new("mmd")
        .arg("-i")
        .arg(&esp)
        .args(["::/EFI", "::/EFI/BOOT"]))?;
    run(Command::new("mcopy")
        .arg("-i")
        .arg(&esp)
        .arg(&loader)
        .arg("::/EFI/BOOT/BOOTX64.EFI"))?;
    place(&esp, disk, UEFI_ESP)
}

/// MBR with a bootable root and an extended partition; GRUB in the gap behind the MBR.
pub(crate) fn bios(root: &Path, work: &Path, disk: &Path) -> io::Result<()> {
    let extended = part(3_930_112, 264_192);
    partition(
        disk,
        &format!(
            "label: dos\nlabel-id: 0x1a2b3c4d\n{}{}{}{}",
            line(BIOS_ROOT, "type=83, bootable"),
            line(extended, "type=5"),
            line(BIOS_DATA, "type=83"),
            line(BIOS_SWAP, "type=82"),
        ),
    )?;
    write_system_files(
        root,
        &format!(
            "UUID={ROOT_UUID} / ext4 errors=remount-ro 0 1\n\
             UUID={DATA_UUID} /data ext4 defaults 0 2\n\
             UUID={SWAP_UUID} none swap sw 0 0\n"
        ),
    )?;
    ext4(disk, BIOS_ROOT, ROOT_UUID, root)?;
    let data = work.join("data");
    fs::create_dir_all(&data)?;
    fs::write(data.join("notes"), "on a logical partition\n")?;
    ext4(disk, BIOS_DATA, DATA_UUID, &data)?;
    swap(disk, BIOS_SWAP, work)?;

    let core = work.join("core.img");
    grub(work, "i386-pc", &core, &["biosdisk"])?;
    let boot = fs::read("/usr/lib/grub/i386-pc/boot.img")?;
    let code = boot
        .get(..BOOT_CODE_BYTES)
        .ok_or_else(|| io::Error::other("GRUB's boot.img is too short"))?;
    let core = fs::read(core)?;
    if core.len() as u64 > BIOS_ROOT.offset_bytes() - SECTOR {
        return Err(io::Error::other("GRUB's core does not fit behind the MBR"));
    }
    // Both parts name sector 1 and 2 by default: no block list has to be patched.
    let mut file = OpenOptions::new().write(true).open(disk)?;
    file.write_all(code)?;
    file.seek(SeekFrom::Start(SECTOR))?;
    file.write_all(&core)?;
    file.sync_all()
}

fn line(part: Part, rest: &str) -> String {
    format!("start={}, size={}, {rest}\n", part.start, part.sectors)
}

fn partition(disk: &Path, script: &str) -> io::Result<()> {
    File::create(disk)?.set_len(DISK_BYTES)?;
    let mut child = Command::new("sfdisk")
        .arg("--quiet")
        .arg(disk)
        .stdin(Stdio::piped())
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(script.as_bytes())?;
    }
    if child.wait()?.success() {
        return Ok(());
    }
    Err(io::Error::other("sfdisk refuses the layout"))
}

fn write_system_files(root: &Path, fstab: &str) -> io::Result<()> {
    fs::write(root.join("etc/fstab"), fstab)?;
    fs::write(
        root.join("boot/grub/grub.cfg"),
        format!(
            "serial --unit=0 --speed=115200\n\
             terminal_input serial console\nterminal_output serial console\n\
             set timeout=0\n\
             menuentry Debian {{\n  linux /vmlinuz root=UUID={ROOT_UUID} ro console=tty0 console=ttyS0,115200 no_timer_check\n  initrd /initrd.img\n}}\n"
        ),
    )
}

fn ext4(disk: &Path, part: Part, uuid: &str, content: &Path) -> io::Result<()> {
    run(Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-U", uuid])
        .args(["-E", &format!("offset={}", part.offset_bytes()), "-d"])
        .args([content, disk])
        .arg(format!("{}k", part.bytes() / 1024)))
}

fn swap(disk: &Path, part: Part, work: &Path) -> io::Result<()> {
    let area = work.join("swap");
    File::create(&area)?.set_len(part.bytes())?;
    run(Command::new("mkswap").args(["-U", SWAP_UUID]).arg(&area))?;
    place(&area, disk, part)
}

/// Copies a file system into its partition; zeros stay holes.
fn place(from: &Path, disk: &Path, part: Part) -> io::Result<()> {
    run(Command::new("dd")
        .arg(format!("if={}", from.display()))
        .arg(format!("of={}", disk.display()))
        .arg(format!("seek={}", part.offset_bytes()))
        .args(["bs=64k", "oflag=seek_bytes", "conv=notrunc,sparse"]))
}

fn grub(work: &Path, format: &str, output: &Path, more: &[&str]) -> io::Result<()> {
    let early = work.join("early.cfg");
    fs::write(
        &early,
        format!(
            "search.fs_uuid {ROOT_UUID} root\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n"
        ),
    )?;
    run(Command::new("grub-mkimage")
        .args(["-O", format, "-p", "/boot/grub", "-c"])
        .arg(&early)
        .arg("-o")
        .arg(output)
        .args(["part_msdos", "ext2", "search", "search_fs_uuid", "normal"])
        .args(["linux", "configfile", "serial", "terminal", "echo"])
        .args(more))
}
