//! A person at a terminal: what is shown before a device is overwritten, and the answer.
//!
//! Owns: the confirmation. Does not own: `--yes`, and no terminal (`refusals`).

use crate::compare::assert_same;
use crate::disks::{self, copy, folder, hash};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use testkit::loopdev::LoopDevice;

/// Restores on a terminal of its own, on which this is typed; exit code and screen.
fn typed(answer: &str, device: &Path) -> (Option<i32>, String) {
    let line = format!(
        "{} restore --save-tables none {} {}",
        env!("CARGO_BIN_EXE_imager"),
        disks::gpt().image.display(),
        device.display()
    );
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script is missing: apt-get install bsdutils");
    let mut keyboard = child.stdin.take().expect("a pipe");
    keyboard.write_all(answer.as_bytes()).expect("it is typed");
    let output = child.wait_with_output().expect("script ends");
    drop(keyboard);
    let screen = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code(), screen)
}

#[test]
fn only_yes_overwrites_a_device() {
    let dir = folder();
    let backing = copy(&disks::mbr().disk.path, dir.path().join("disk.img"));
    File::options()
        .write(true)
        .open(&backing)
        .unwrap()
        .set_len(disks::gpt().disk.size)
        .unwrap();
    let device = LoopDevice::attach(&backing, 512);
    let before = hash(&backing);
    for answer in ["no\n", "\n", "y\n", "yes please\n"] {
        let (exit, screen) = typed(answer, device.path());
        assert_eq!(exit, Some(3), "{screen}");
        assert!(screen.contains("not-confirmed"), "{screen}");
        assert_eq!(hash(&backing), before, "{answer:?} overwrote it");
    }
    let (exit, screen) = typed("yes\n", device.path());
    assert_eq!(exit, Some(0), "{screen}");
    // What was there and what will be there, before the question.
    let question = screen.find("Type yes").expect("a question");
    for shown in [
        device.path().to_str().unwrap(),
        "EVERYTHING",
        "MBR",
        "ext2",
        "gpt table",
    ] {
        let place = screen
            .find(shown)
            .unwrap_or_else(|| panic!("no {shown} in {screen}"));
        assert!(place < question, "{shown} is shown too late");
    }
    assert_same(&disks::gpt().disk.path, device.path(), 512);
}
