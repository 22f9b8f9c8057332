//! Running the system's programs in tests.
//!
//! Owns: turning a missing or failing program into a failure that says what to do.
//! Does not own: what is run.

use std::io::ErrorKind;
use std::process::Command;

/// Debian packages of the programs that the disk builders use.
const PACKAGES: &[(&str, &str)] = &[
    ("debugfs", "e2fsprogs"),
    ("losetup", "mount"),
    ("mcopy", "mtools"),
    ("mdel", "mtools"),
    ("mkfs.ext4", "e2fsprogs"),
    ("mkfs.fat", "dosfstools"),
    ("mkswap", "util-linux"),
    ("mke2fs", "e2fsprogs"),
    ("sfdisk", "fdisk"),
];

/// Runs a program to its end and gives what it printed.
///
/// # Panics
/// If it is missing (with the package to install) or fails (with what it said).
pub(crate) fn run(command: &mut Command) -> String {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let package = PACKAGES
                .iter()
                .find(|(program, _)| *program == name)
                .map_or(name.as_str(), |p| p.1);
            panic!("{name} is missing: apt-get install {package}");
        }
        Err(error) => panic!("{name} does not start: {error}"),
    };
    assert!(
        output.status.success(),
        "{command:?} failed, {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
