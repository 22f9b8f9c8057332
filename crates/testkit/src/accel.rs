//! Whether virtual machines run with KVM or are emulated: found out by running one.
//!
//! Owns: the probe and its remembered answer. A `/dev/kvm` that opens proves
//! nothing: nested hypervisors exist whose guests stop at ordinary instructions. So
//! the project's own kernel is booted once and its programs are run.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::qemu::{Firmware, Spec};

/// What runs the guests' instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The host's processor.
    Kvm,
    /// QEMU's translator: works everywhere, many times slower.
    Emulation,
}

impl Accelerator {
    /// As the console shows it.
    pub fn name(self) -> &'static str {
        match self {
            Accelerator::Kvm => "KVM",
            Accelerator::Emulation => "emulation (TCG)",
        }
    }
}

/// The probe's guest says this when it has counted, hashed and run the imager.
const PROOF: &str = "GUEST-RUNS-42";
/// With KVM a boot takes two seconds; a guest that hangs is none.
const PROBE_LIMIT: Duration = Duration::from_secs(45);

/// KVM if a guest really runs with it, else emulation. The answer is kept in `cache`
/// for this machine's processor and kernel. `pxe` holds `vmlinuz` and `initramfs.img`.
///
/// # Errors
/// The answer cannot be kept. A probe that fails is an answer, not an error.
pub fn choose(cache: &Path, pxe: &Path) -> io::Result<Accelerator> {
    if !Path::new("/dev/kvm").exists() {
        return Ok(Accelerator::Emulation);
    }
    let remembered = answer_file(cache)?;
    if let Ok(text) = fs::read_to_string(&remembered) {
        return Ok(if text.trim() == "kvm" {
            Accelerator::Kvm
        } else {
            Accelerator::Emulation
        });
    }
    let (answer, text) = match probe(pxe) {
        Ok(()) => (Accelerator::Kvm, "kvm".to_owned()),
        Err(error) => (Accelerator::Emulation, format!("emulation\n{error}")),
    };
    fs::create_dir_all(cache)?;
    fs::write(remembered, text)?;
    Ok(answer)
}

fn probe(pxe: &Path) -> io::Result<()> {
    let logs = tempfile::tempdir()?;
    let mut spec = Spec::new("kvm-probe", Firmware::Bios, Accelerator::Kvm);
    let line = "console=ttyS0 rdinit=/bin/busybox -- sh -c \
        \"busybox sha256sum /init && /init --version && busybox echo GUEST-RUNS-$((6*7)); busybox poweroff -f\"";
    spec.kernel = Some((
        pxe.join("vmlinuz"),
        pxe.join("initramfs.img"),
        line.to_owned(),
    ));
    let mut machine = spec.start(|qemu| Command::new(qemu), logs.path())?;
    machine.wait_for(PROOF, PROBE_LIMIT).map(|_| ())
}

/// One answer for each kind of machine: caches are copied between machines.
fn answer_file(cache: &Path) -> io::Result<PathBuf> {
    let processor = fs::read_to_string("/proc/cpuinfo")?
        .lines()
        .find(|line| line.starts_with("model name"))
        .unwrap_or("unknown")
        .to_owned();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut name: String = format!("{processor}-{kernel}")
        .chars()
        .filter(|letter| letter.is_ascii_alphanumeric())
        .collect();
    name.truncate(100);
    Ok(cache.join(format!("accelerator-{name}")))
}

#[cfg(test)]
mod tests {
    use super::{Accelerator, answer_file, choose};
    use std::path::Path;

    #[test]
    fn a_kernel_that_does_not_start_means_emulation_and_is_remembered() {
        if !Path::new("/dev/kvm").exists() {
            let nowhere = Path::new("/nowhere");
            assert_eq!(choose(nowhere, nowhere).unwrap(), Accelerator::Emulation);
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let answer = choose(folder.path(), Path::new("/nowhere")).unwrap();
        assert_eq!(answer, Accelerator::Emulation);
        let file = answer_file(folder.path()).unwrap();
        assert!(
            std::fs::read_to_string(&file)
                .unwrap()
                .starts_with("emulation\n")
        );
        std::fs::write(&file, "kvm").unwrap();
        assert_eq!(
            choose(folder.path(), Path::new("/nowhere")).unwrap(),
            Accelerator::Kvm,
            "the remembered answer is taken"
        );
    }
}
