//! Maps of very large file systems, beside partclone's.
//!
//! Owns: the file systems (in sparse files; only their metadata takes space) and the
//! commands of both sides. Does not own: the measurement.
//!
//! Both sides only make the map: `imager map`, and partclone's domain log, which is its
//! list of used extents. partclone waits for a clock of one second at its end, so its
//! processor time is to be looked at too.

use super::disk::{Side, case, scratch};
use super::{run, setting};
use e2e::built::Built;
use std::io;

/// Name, size in TiB, how it is made, partclone's program.
const DISKS: &[(&str, u64, &str, &str)] = &[
    (
        "ext4",
        2,
        "mkfs.ext4 -q -F -E lazy_itable_init=1,lazy_journal_init=1",
        "extfs",
    ),
    (
        "ext4",
        15,
        "mkfs.ext4 -q -F -E lazy_itable_init=1,lazy_journal_init=1",
        "extfs",
    ),
    ("NTFS", 2, "mkntfs -q -Q -F", "ntfs"),
    ("XFS", 2, "mkfs.xfs -q -f", "xfs"),
];

/// Measures every disk and prints the tables.
pub fn measure(built: &Built) -> io::Result<()> {
    let runs = setting("BENCH_RUNS", 5) as usize;
    let imager = built.program("imager").display().to_string();
    let folder = tempfile::Builder::new()
        .prefix("deploy-bench-")
        .tempdir_in(scratch())?;
    for (name, tib, mkfs, peer) in DISKS {
        let file = folder.path().join("disk").display().to_string();
        run::plain(&format!(
            "rm -f {file}; truncate -s {tib}T {file}; {mkfs} {file}"
        ))?;
        let domain = folder.path().join("domain").display().to_string();
        let sides: [Side; 2] = [
            (
                "imager map",
                format!("{imager} map --json {file} > /dev/null"),
            ),
            (
                "partclone, domain log",
                format!(
                    "rm -f {domain}; partclone.{peer} -D -q -f 1 -L /dev/null -s {file} -O {domain}"
                ),
            ),
        ];
        case(
            &format!("map of an empty {name} of {tib} TiB, warm cache"),
            &sides,
            "true",
            runs,
        )?;
    }
    Ok(())
}
