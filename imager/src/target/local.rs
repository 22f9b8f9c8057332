//! A restore from the medium that the machine was started from: no server, no network.
//!
//! Owns: the order of things, what a person is asked, what is said. Does not own: finding and
//! reading media ([`super::shelf`]), the restore ([`crate::restore`]).
//!
//! The whole image is read and proved before anything is asked or written. A person chooses
//! the disk and says yes; without a person the medium has to say so, and the disk has to be
//! the only one that it can mean. A medium is never that disk: it is in use.

use super::cmdline::CommandLine;
use super::console::{Console, Inquiry, JobView};
use super::medium::Medium;
use super::session::describe;
use super::shelf::{Drives, MediaReader, Shelf};
use crate::keyring::Keyring;
use crate::map::printable;
use crate::progress::Tracker;
use crate::restore::stream::ContainerSource;
use crate::restore::{self, CellWriter, Delivered, Guard, Plan, Restored, Source, show};
use crate::verify_image::{self, Verified};
use crate::{bad_ranges, clock, disks, machine, old_tables};
use ::medium::Restore;
use blockdev::{Device, Holder};
use image::{ImageKey, Layout, Root};
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use wire::{After, Code, DiskInfo, DiskState, Report, RestoreScope, size};

/// Bytes that are read at a time.
const BUFFER: usize = 256 << 10;

/// Lists the disks.
pub type List<'a> = &'a dyn Fn() -> Result<Vec<DiskInfo>, Report>;

/// A restore from media.
pub struct Local<'a> {
    /// Where people look.
    pub console: &'a Console,
    /// What the boot loader says.
    pub line: &'a CommandLine,
    /// Where media are.
    pub drives: &'a dyn Drives,
    /// What disks there are.
    pub list: List<'a>,
}

/// An image that was proved, and what its medium says of it.
struct Proved {
    restore: Restore,
    verified: Verified,
}

impl Local<'_> {
    /// Restores, and says what comes after.
    ///
    /// # Errors
    /// What the error screen shows.
    pub fn run(&self) -> Result<After, Report> {
        self.console.update(|view| {
            view.server = "none: the image is on the medium".into();
            view.network = "not used".into();
        });
        let console = self.console;
        let tell = move |report: Option<&Report>| tell(console, report);
        let shelf = Shelf::new(self.drives, self.line.medium.clone(), &tell);
        self.state("looking for the medium with the image");
        let (medium, restore) = shelf.get(1);
        self.say_medium(&medium);
        // From here on it is about this image and no other.
        let shelf = Shelf::new(self.drives, Some(medium.about.id), &tell);
        let image = restore.image.clone();
        self.console.update(move |view| {
            view.job = Some(JobView {
                verb: "restore".into(),
                image,
                disk: "...".into(),
            });
        });
        let keyring = self.line.keyring();
        let proved = self.prove(&shelf, restore, &keyring).map_err(untouched)?;
        let disk = self.choose(&proved)?;
        let shown = describe(&disk);
        self.console.update(move |view| {
            if let Some(job) = &mut view.job {
                job.disk = shown;
            }
        });
        let done = self.write(&shelf, &proved, &disk, &keyring)?;
        self.end(&proved, &disk, &done)
    }

    /// Reads the whole image and compares every byte of it with its checksums.
    fn prove(
        &self,
        shelf: &Shelf<'_>,
        restore: Restore,
        keyring: &Keyring,
    ) -> Result<Proved, Report> {
        self.console.say("job verify started");
        let tracker = self.tracker();
        self.console.track(Some(Arc::clone(&tracker)));
        let input = MediaReader::open(shelf);
        let verified = verify_image::verify(input, keyring, tracker.as_ref());
        self.console.track(None);
        let verified = verified?;
        let root = &verified.root;
        self.console.say(&format!(
            "note the image is good: {} in {} chunks, every byte checked",
            size::bytes(root.plain_bytes),
            root.chunks
        ));
        Ok(Proved { restore, verified })
    }

    /// The disk that the medium names, that is the only one, or that a person names.
    fn choose(&self, proved: &Proved) -> Result<DiskInfo, Report> {
        self.state("looking for disks");
        // Every medium that is there is mounted now, and so in use.
        self.drives.look();
        let disks = super::inventory::settled_disks(self.list)?;
        let free: Vec<DiskInfo> = disks.into_iter().filter(|d| !is_medium(d)).collect();
        let restore = &proved.restore;
        if restore.unattended || restore.disk.is_some() {
            return disks::select(&free, restore.disk.as_ref()).cloned();
        }
        if free.is_empty() {
            return disks::select(&free, None).cloned();
        }
        self.state("waiting for an answer");
        let mut problem = String::new();
        loop {
            let answer = self.ask(Inquiry {
                title: "RESTORE".into(),
                text: question(proved, &free, &problem),
                question: "Number of the disk that is overwritten:".into(),
            })?;
            let number = answer.trim().parse().ok();
            let chosen = free.iter().find(|disk| Some(disk.number) == number);
            if let Some(disk) = chosen {
                return Ok(disk.clone());
            }
            problem = format!("{:?} is none of the numbers.\n", answer.trim());
        }
    }

    fn write(
        &self,
        shelf: &Shelf<'_>,
        proved: &Proved,
        disk: &DiskInfo,
        keyring: &Keyring,
    ) -> Result<Restored, Report> {
        let path = Path::new(&disk.path);
        let device = restore::open(path, &RestoreScope::default())?;
        let layout = &proved.verified.layout;
        let now = show::look(&device, &crate::progress::Silent);
        let misfit = machine::misfit(layout, now.as_ref());
        let refuses = proved.restore.unattended && !proved.restore.force;
        if let Some(report) = misfit.clone().filter(|_| refuses) {
            return Err(report);
        }
        let input = BufReader::with_capacity(BUFFER, MediaReader::open(shelf));
        let input: Box<dyn Read + Send + '_> = Box::new(input);
        let mut image = Same {
            image: ContainerSource::open(input, keyring)?,
            proved: &proved.verified,
        };
        image.check_layout()?;
        let mut guard = MediaGuard {
            local: self,
            disk,
            layout,
            unattended: proved.restore.unattended,
            warnings: misfit.into_iter().collect(),
        };
        self.console.say("job restore started");
        self.state("restore");
        let tracker = self.tracker();
        self.console.track(Some(Arc::clone(&tracker)));
        let options = restore::Options::default();
        let run = || {
            let sink = tracker.as_ref();
            restore::run(device, path, &mut image, &mut guard, &options, sink)
        };
        let done = catch_unwind(AssertUnwindSafe(run))
            .unwrap_or_else(|panic| Err(super::panic_report(panic.as_ref(), DiskState::Unknown)));
        self.console.track(None);
        done
    }

    /// Says what was done, and what comes after.
    fn end(&self, proved: &Proved, disk: &DiskInfo, done: &Restored) -> Result<After, Report> {
        let lost = bad_ranges::warning_of_image(&proved.verified.layout, &done.bad);
        let warnings: Vec<&Report> = done.warnings.iter().chain(&lost).collect();
        let mut text = format!(
            "Image {} was restored: {} written to {}, read back and found right.\n",
            proved.restore.image,
            size::bytes(done.written_bytes),
            describe(disk)
        );
        if let Some(grown) = &done.grown {
            text += &format!("note: {grown}.\n");
        }
        for warning in warnings {
            let warning = format!("{}: {}", warning.code, warning.found);
            self.console.say(&format!("note {warning}"));
            text += &format!("warning: {warning}\n");
        }
        self.console.say(&format!(
            "note {} written, read back and found right",
            size::bytes(done.written_bytes)
        ));
        self.console.say("done");
        self.state("done");
        if proved.restore.unattended {
            // A machine that started from the medium again would restore again.
            return Ok(After::PowerOff);
        }
        text += "\nTake the medium out, so that the machine starts from its disk.\n";
        self.ask(Inquiry {
            title: "DONE".into(),
            text,
            question: "Press Enter to restart:".into(),
        })
        .map(|_| After::Reboot)
    }

    fn ask(&self, inquiry: Inquiry) -> Result<String, Report> {
        self.console.inquire(inquiry).ok_or_else(|| {
            let found = "there is no console to ask on";
            Report::new(Code::NotConfirmed, found, DiskState::Untouched)
        })
    }

    /// Says which medium this is.
    fn say_medium(&self, medium: &Medium) {
        let device = medium.device.display();
        self.console
            .say(&format!("medium {device}: {}", medium.about.id));
    }

    fn tracker(&self) -> Arc<Tracker> {
        let notes = self.console.clone();
        Arc::new(Tracker::new(move |text| notes.say(&format!("note {text}"))))
    }

    fn state(&self, text: &str) {
        let text = text.to_owned();
        self.console.update(move |view| view.state = text);
    }
}

/// Says what is waited for, or that it is there.
fn tell(console: &Console, report: Option<&Report>) {
    let Some(report) = report else {
        console.update(|view| view.notice.clear());
        console.say("note the medium is there");
        return;
    };
    console.say(&format!("waiting {}: {}", report.code, report.found));
    let notice = format!(
        "{} {} {} The drives are looked at again every second.",
        report.code.headline(),
        report.found,
        report.advice
    );
    console.update(move |view| view.notice = notice);
}

fn untouched(report: Report) -> Report {
    Report {
        disk: DiskState::Untouched,
        ..report
    }
}

/// Whether a disk carries a medium that is mounted.
fn is_medium(disk: &DiskInfo) -> bool {
    let holders = blockdev::holders(Path::new(&disk.path)).unwrap_or_default();
    holders.iter().any(|holder| {
        matches!(holder, Holder::Mount { target, .. } if target.starts_with(super::medium::MOUNTS))
    })
}

fn question(proved: &Proved, disks: &[DiskInfo], problem: &str) -> String {
    let layout = &proved.verified.layout;
    let mut text = format!(
        "Image {}, made of {} on {}: a disk of {}, {} used. Every byte of it is right.\n\
         Nothing is written before the disk was shown and you said yes.\n\nDisks:\n",
        proved.restore.image,
        printable(&layout.machine.name, 40),
        printable(&layout.created, 40),
        size::bytes(layout.disk.size_bytes),
        size::bytes(layout.used_bytes()),
    );
    for disk in disks {
        text += &format!("  {:>3}  {}\n", disk.number, describe(disk));
    }
    text + "\n" + problem
}

/// The image as it was proved: a source that turns out to be another one is refused before
/// heads and tables are written.
struct Same<'a, S> {
    image: S,
    proved: &'a Verified,
}

impl<S: Source> Same<'_, S> {
    fn check_layout(&self) -> Result<(), Report> {
        if *self.image.layout() == self.proved.layout {
            return Ok(());
        }
        Err(changed(DiskState::Untouched))
    }
}

fn changed(disk: DiskState) -> Report {
    let found = "the medium holds another image than the one that was checked";
    Report::new(Code::ImageDamaged, found, disk)
}

impl<S: Source> Source for Same<'_, S> {
    fn layout(&self) -> &Layout {
        self.image.layout()
    }

    fn key(&self) -> Option<Arc<ImageKey>> {
        self.image.key()
    }

    fn transfer(&mut self, writer: &CellWriter<'_>) -> Result<Delivered, Report> {
        let delivered = self.image.transfer(writer)?;
        let Root { root, .. } = self.proved.root;
        if delivered.root.root != root {
            return Err(changed(DiskState::Incomplete));
        }
        Ok(delivered)
    }

    fn heads(&mut self, writer: &CellWriter<'_>) -> Result<(), Report> {
        self.image.heads(writer)
    }
}

/// A person who has to say yes, where there is one; and the old tables, where they can be
/// kept.
struct MediaGuard<'a> {
    local: &'a Local<'a>,
    disk: &'a DiskInfo,
    layout: &'a Layout,
    unattended: bool,
    warnings: Vec<Report>,
}

impl Guard for MediaGuard<'_> {
    fn before_write(&mut self, device: &Device, plan: &Plan) -> Result<(), Report> {
        let media = self.local.drives.look();
        let keeper = media.iter().find(|medium| medium.writable);
        if !self.unattended {
            self.confirm(device, plan, keeper.is_some())?;
        }
        let console = self.local.console;
        match keeper.map(|medium| self.keep_tables(device, medium)) {
            Some(Ok(name)) => {
                console.say(&format!("note the old partition tables are in {name}"));
            }
            Some(Err(error)) => {
                console.say(&format!(
                    "note the old partition tables were not kept: {error}"
                ));
            }
            None => console.say("note the old partition tables were not kept: no writable medium"),
        }
        Ok(())
    }
}

impl MediaGuard<'_> {
    fn confirm(&self, device: &Device, plan: &Plan, keeps_tables: bool) -> Result<(), Report> {
        let view = show::View {
            plan,
            layout: self.layout,
            disk: self.disk,
            map: show::look(device, &crate::progress::Silent),
            warnings: self.warnings.clone(),
        };
        let mut text = view.text();
        if !keeps_tables {
            text += "note: the old partition tables are not kept: the medium is read-only.\n";
        }
        let answer = self.local.ask(Inquiry {
            title: "RESTORE".into(),
            text,
            question: format!("Type yes to overwrite disk {}:", self.disk.number),
        })?;
        if answer.trim().eq_ignore_ascii_case("yes") {
            return Ok(());
        }
        let found = "the answer was not yes";
        Err(Report::new(Code::NotConfirmed, found, DiskState::Untouched)
            .with_advice("Restart from the medium to be asked again."))
    }

    /// Keeps the old tables on the medium; gives the file's name there.
    fn keep_tables(&self, device: &Device, medium: &Medium) -> io::Result<String> {
        let old = old_tables::read(device, self.disk.clone());
        let json = serde_json::to_vec_pretty(&old)?;
        let plain = |c: &char| c.is_ascii_alphanumeric();
        let serial: String = self.disk.serial.chars().filter(plain).take(20).collect();
        let stamp: String = clock::now_rfc3339().chars().filter(plain).collect();
        let name = format!("{}/old-tables-{serial}-{stamp}.json", ::medium::FOLDER);
        medium.with_writable(|root| {
            let mut file = File::create(root.join(&name))?;
            file.write_all(&json)?;
            file.sync_all()
        })?;
        Ok(name)
    }
}

#[cfg(test)]
#[path = "local_tests.rs"]
mod tests;
