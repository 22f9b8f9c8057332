//! A restore where the disk is the limit, beside writing the same bytes and nothing else.
//!
//! Owns: the limit (the kernel's own, by a control group). Does not own: the disk, the
//! writer (`read`).

use crate::disk::{self, Place, Side};
use crate::run;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Bytes a second that the disk takes: a good SATA disk.
const RATE: u64 = 250_000_000;

/// Measures it and prints the table. What the map of the target's disk is was written by the
/// measurement of the read-back.
pub fn measure(imager: &str, place: &Place, image: &str, runs: usize) -> io::Result<()> {
    let (_, to) = place.devices();
    let map = place.folder().join("restored.json").display().to_string();
    let bench = std::env::current_exe()?.display().to_string();
    let group = Group::new(Path::new(&to), RATE)?;
    // What a loop device has in the page cache is freed by the restore's discard, and has to
    // be found again: that memory, and not the disk, would be the limit.
    run::plain(&format!("losetup --direct-io=on {to}"))?;
    let inside = |command: String| format!("echo $$ > {}; {command}", group.members().display());
    let sides: [Side; 2] = [
        (
            "writing the used bytes, raw",
            inside(format!("{bench} read {to} {map} write")),
        ),
        (
            "imager restore --no-verify",
            inside(format!(
                "{imager} restore -q --yes --no-verify --save-tables none {image} {to}"
            )),
        ),
    ];
    disk::case(
        &format!("restore to a disk that takes {} MB/s", RATE / 1_000_000),
        &sides,
        &format!("cat {image} > /dev/null"),
        runs,
    )?;
    run::plain(&format!("losetup --direct-io=off {to}"))
}

/// A control group whose members write to a disk no faster than told, past the page cache.
pub struct Group(PathBuf);

impl Group {
    /// With so many bytes a second at most.
    pub fn new(disk: &Path, rate: u64) -> io::Result<Group> {
        let number = std::fs::metadata(disk)?.rdev();
        let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
        let old = Path::new("/sys/fs/cgroup/blkio");
        let (root, file, limit) = if old.is_dir() {
            let limit = format!("{major}:{minor} {rate}");
            (old, "blkio.throttle.write_bps_device", limit)
        } else {
            run::plain("echo +io > /sys/fs/cgroup/cgroup.subtree_control")?;
            let limit = format!("{major}:{minor} wbps={rate}");
            (Path::new("/sys/fs/cgroup"), "io.max", limit)
        };
        let group = Group(root.join(format!("deploy-bench-{}", std::process::id())));
        std::fs::create_dir(&group.0)?;
        std::fs::write(group.0.join(file), limit)?;
        Ok(group)
    }

    /// The file that takes the number of a process that is to be a member.
    pub fn members(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}
