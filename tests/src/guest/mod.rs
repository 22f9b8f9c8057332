//! Guests that run a script of ours: the Deploy-OS's kernel and initramfs, a store that
//! carries files in and results out, and disks of any kind.
//!
//! Owns: putting such a guest together, running it to its end (or cutting its power), and
//! reading what its steps said. Does not own: what is tested ([`sectors`], [`growth`],
//! [`claims`], [`unclean`]), QEMU (`testkit`).

pub mod claims;
pub mod growth;
pub mod sectors;
pub mod unclean;

use crate::built::Built;
use crate::machines::LIMIT;
use crate::matrix::content::{ok, s};
use serde_json::Value;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use testkit::build::Tree;
use testkit::loopdev::Mounted;
use testkit::qemu::{Disk, Firmware, Spec};

/// What every script begins with.
const LIBRARY: &str = include_str!("lib.sh");
/// Size of the store in bytes; it is sparse.
const STORE_BYTES: u64 = 1 << 30;
/// The guest says so when its script is through.
const END: &str = "GUEST-END";
/// Busybox becomes the first process, and the store's script takes over. On a loaded host
/// the emulated timer ticks too late for the kernel's check of it.
const COMMAND_LINE: &str = "console=ttyS0 no_timer_check rdinit=/bin/busybox -- sh -c \
    \"/bin/busybox --install -s /bin 2>/dev/null; mount -t devtmpfs dev /dev; \
    mount -t ext4 /dev/vda /mnt && exec sh /mnt/run\"";

/// How a guest ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It unmounts its store and ends.
    Regular,
    /// Its power is cut after the last step. Only the store is flushed before.
    PowerCut,
}

/// A guest that is being put together. Files of a test that goes wrong stay visible in
/// the messages only: all of them lie in the test's own folder.
#[derive(Debug)]
pub struct Guest {
    name: String,
    folder: PathBuf,
    disks: Vec<Disk>,
    script: String,
}

impl Guest {
    /// A guest whose store is made in `folder`.
    ///
    /// # Panics
    /// If the folder cannot be written to.
    pub fn new(name: &str, folder: &Path) -> Guest {
        let guest = Guest {
            name: name.to_owned(),
            folder: folder.join(name),
            disks: Vec::new(),
            script: LIBRARY.to_owned(),
        };
        fs::create_dir_all(guest.store()).expect("a folder for the store");
        guest
    }

    /// What is put here is below `/mnt` in the guest.
    pub fn store(&self) -> PathBuf {
        self.folder.join("store")
    }

    /// Attaches a disk.
    pub fn attach(&mut self, disk: Disk) {
        self.disks.push(disk);
    }

    /// Adds lines to the script.
    pub fn script(&mut self, lines: &str) {
        self.script.push_str(lines);
        self.script.push('\n');
    }

    /// Puts files onto the store, below `name`, and their hashes into `name.list`.
    ///
    /// # Panics
    /// If they cannot be written.
    pub fn carry(&self, name: &str, tree: &Tree) {
        let folder = self.store().join(name);
        tree.write_to(&folder);
        self.hashes_of(name, &folder);
    }

    /// Puts only the hashes of files there.
    ///
    /// # Panics
    /// If they cannot be written.
    pub fn carry_hashes(&self, name: &str, tree: &Tree) {
        let folder = tempfile::tempdir().expect("a folder");
        tree.write_to(folder.path());
        self.hashes_of(name, folder.path());
    }

    fn hashes_of(&self, name: &str, folder: &Path) {
        let list = "cd \"$1\" && find . -type f -print0 | sort -z | xargs -0 sha256sum >\"$2\"";
        let file = self.store().join(format!("{name}.list"));
        ok("sh", &["-c", list, "-", s(folder), s(&file)]);
    }

    /// Boots it, waits for its end and gives what it said.
    ///
    /// # Panics
    /// If it does not get there; the end of its console is in the message.
    pub fn run(mut self, built: &Built, end: End) -> Results {
        let last = match end {
            End::Regular => "cd /; umount /mnt; echo GUEST-END; reboot -f",
            End::PowerCut => "sync -f /mnt; echo GUEST-END; sleep 100000",
        };
        self.script(last);
        fs::write(self.store().join("run"), &self.script).expect("the script");
        let store = self.folder.join("store.img");
        let file = File::create_new(&store).expect("a file for the store");
        file.set_len(STORE_BYTES).expect("space for the store");
        let tree = self.store();
        ok(
            "mke2fs",
            &["-q", "-F", "-t", "ext4", "-d", s(&tree), s(&store)],
        );
        let accelerator = built.accelerator().expect("what runs guests");
        let mut spec = Spec::new(&self.name, Firmware::Bios, accelerator);
        let pxe = built.pxe();
        let (kernel, initramfs) = (pxe.join("vmlinuz"), pxe.join("initramfs.img"));
        spec.kernel = Some((kernel, initramfs, COMMAND_LINE.to_owned()));
        spec.disks.push(Disk::new(&store, "store"));
        spec.disks.append(&mut self.disks);
        let mut machine = spec
            .start(|qemu| Command::new(qemu), &built.logs("guest"))
            .unwrap_or_else(|e| panic!("{e}"));
        let time = machine.wait_for(END, LIMIT);
        let time = time.unwrap_or_else(|e| panic!("{e}"));
        match end {
            End::Regular => machine.wait_exit(LIMIT).map(|_| ()),
            End::PowerCut => machine.kill(),
        }
        .unwrap_or_else(|e| panic!("{e}"));
        println!("  guest {}: {:.0} s", self.name, time.as_secs_f64());
        let mounted = Mounted::new(&store, "loop");
        let results = self.folder.join("out");
        let said = mounted.path().join("out");
        ok("cp", &["-r", s(&said), s(&results)]);
        Results { folder: results }
    }
}

/// What the steps of a guest said, by their names.
#[derive(Debug)]
pub struct Results {
    folder: PathBuf,
}

impl Results {
    /// Standard output of a step that must have succeeded.
    ///
    /// # Panics
    /// If it did not, or the guest never came to it.
    pub fn ok(&self, step: &str) -> String {
        let (code, out, err) = self.of(step);
        assert_eq!(code, "0", "{step} failed:\n{out}{err}");
        out
    }

    /// What a step of the imager that must have succeeded printed as JSON.
    ///
    /// # Panics
    /// As [`Results::ok`], or if it is no JSON.
    pub fn json(&self, step: &str) -> Value {
        let out = self.ok(step);
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{step}: {e}: {out}"))
    }

    /// What the imager found when it refused with this code; `disk` is what it must say
    /// about the disk.
    ///
    /// # Panics
    /// If it did not refuse, or for another reason.
    pub fn refused(&self, step: &str, code: &str, disk: &str) -> String {
        let (exit, out, err) = self.of(step);
        assert_ne!(exit, "0", "{step} was not refused:\n{out}{err}");
        let value: Value =
            serde_json::from_str(&out).unwrap_or_else(|e| panic!("{step}: {e}: {out}{err}"));
        assert_eq!(value["code"], code, "{step}: {out}");
        assert_eq!(value["disk"], disk, "{step}: {out}");
        value["found"].as_str().unwrap_or_default().to_owned()
    }

    /// Partitions of a step that printed the kernel's table: number, start and size in
    /// bytes.
    ///
    /// # Panics
    /// As [`Results::ok`].
    pub fn table(&self, step: &str) -> Vec<(u32, u64, u64)> {
        let text = self.ok(step);
        let numbers = |line: &str| -> Option<(u32, u64, u64)> {
            let mut words = line.split_whitespace();
            let number = words.next()?.parse().ok()?;
            let start: u64 = words.next()?.parse().ok()?;
            let size: u64 = words.next()?.parse().ok()?;
            Some((number, start * 512, size * 512))
        };
        text.lines()
            .map(|line| numbers(line).unwrap_or_else(|| panic!("{step}: {text}")))
            .collect()
    }

    fn of(&self, step: &str) -> (String, String, String) {
        let read = |what: &str| {
            let path = self.folder.join(format!("{step}.{what}"));
            let bytes = fs::read(&path).unwrap_or_else(|e| {
                panic!(
                    "the guest never came to step {step}: {}: {e}",
                    path.display()
                )
            });
            String::from_utf8_lossy(&bytes).into_owned()
        };
        (read("code").trim().to_owned(), read("out"), read("err"))
    }
}

/// Whether the result of a job carries this warning. (Others may stand beside it: the host
/// that made an image may have another firmware than the guest.)
pub fn warns(result: &Value, code: &str) -> bool {
    let warnings = result["warnings"].as_array().expect("warnings");
    warnings.iter().any(|one| one["code"] == code)
}

/// Backs a disk file up on the host, by way of a loop device of its sector size. Gives
/// what the imager printed.
///
/// # Panics
/// If that fails.
pub fn host_backup(imager: &Path, disk: &Path, sector: u32, image: &Path) -> Value {
    let attached = testkit::loopdev::LoopDevice::attach(disk, sector);
    let text = ok(
        s(imager),
        &["backup", "--quiet", "--json", s(attached.path()), s(image)],
    );
    serde_json::from_str(&text).expect("JSON")
}
