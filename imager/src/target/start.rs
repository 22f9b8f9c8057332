//! From the start of the Deploy-OS to its server: settings of a medium, the network, and the
//! person in front of it where nothing is found.
//!
//! Owns: which settings count, when they are asked for, where they are saved. Does not own:
//! the search itself ([`super::net`]), the questions ([`super::form`]).
//!
//! A medium is looked for unless the command line names a server: what booted from the
//! network does not go by a stick that was forgotten in the machine.

use super::cmdline::CommandLine;
use super::console::{Console, Key};
use super::form;
use super::medium::{self, Medium};
use super::net::nics::Sysfs;
use super::net::{self, Connected, NoWay, Patience, Plan};
use super::settings::{self, Settings};
use super::system::End;
use ::medium::SETTINGS_FILE;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use wire::{Code, DiskState, Report};

/// Where name servers are written.
const ETC: &str = "/etc";
/// How long a medium is looked for; USB takes seconds.
const MEDIUM_WAIT: Duration = Duration::from_secs(8);
/// How long Esc is waited for before saved settings are used.
const ESCAPE_WAIT: Duration = Duration::from_secs(3);
/// Then the local disk is booted if nothing answered and nobody is there (spec facts,
/// "Discovery").
const LOCAL_DISK_AFTER: Duration = Duration::from_secs(5);

/// Why there is no server to go on with.
pub enum Stop {
    /// What the error screen shows.
    Report(Box<Report>),
    /// It was shown, and this was chosen.
    End(End),
}

impl From<Report> for Stop {
    fn from(report: Report) -> Self {
        Stop::Report(Box::new(report))
    }
}

/// The settings in use, and where they are from.
struct Held {
    settings: Settings,
    from: String,
    /// The medium that was found.
    medium: Option<Medium>,
    /// They are a file on it.
    saved: bool,
}

/// Finds the server, with the help of a person where it cannot be found.
///
/// # Errors
/// See [`Stop`].
pub fn find_server(
    line: &CommandLine,
    uuid: Option<[u8; 16]>,
    console: &Console,
) -> Result<Connected, Stop> {
    let mut held = Held::look_for(line, console);
    let mut asked = false;
    loop {
        let pressed = Arc::new(AtomicBool::new(false));
        console.listen_for_escape(Some(Arc::clone(&pressed)));
        if held.saved {
            wait_for_escape(&held.from, &pressed, console);
        }
        state(
            console,
            "looking for the network and the server (Esc: settings)",
        );
        let stop = || pressed.load(Ordering::Relaxed);
        let plan = held.plan(line, uuid);
        let outcome = net::connect(&plan, &|text| console.say(text), &stop);
        console.listen_for_escape(None);
        let why = match outcome {
            Ok(connected) => return Ok(connected),
            Err(NoWay::Stopped) => "Esc was pressed.".to_owned(),
            Err(NoWay::Report(report)) => {
                // On a medium without settings and in a network without DHCP nothing else
                // can help: the questions come by themselves, once.
                let lacks_settings = held.medium.is_some() && !held.saved && !asked;
                if report.code != Code::NoAddress || !lacks_settings {
                    match choose(&report, line, console)? {
                        Key::Settings => {}
                        Key::PowerOff => return Err(Stop::End(End::PowerOff)),
                        Key::Reboot | Key::Shell => return Err(Stop::End(End::Reboot)),
                    }
                }
                format!("{}: {}", report.code, report.found)
            }
        };
        asked = true;
        held.change(line, &why, console);
    }
}

/// The error screen with its choices. Only where nothing answered it ends by itself.
fn choose(report: &Report, line: &CommandLine, console: &Console) -> Result<Key, Stop> {
    let by_itself = (report.code == Code::ServerNotFound).then_some(LOCAL_DISK_AFTER);
    let after = line.error_reboot.or(by_itself);
    let gone = || {
        let found = "the console is gone";
        Report::new(Code::Internal, found, DiskState::NotInvolved)
    };
    Ok(console.ask_or_settings(report, after).ok_or_else(gone)?)
}

fn wait_for_escape(from: &str, pressed: &AtomicBool, console: &Console) {
    console.say(&format!(
        "note settings of {from} are used; press Esc to change or clear them"
    ));
    state(
        console,
        "using the saved settings (Esc: change or clear them)",
    );
    let end = Instant::now() + ESCAPE_WAIT;
    while Instant::now() < end && !pressed.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn state(console: &Console, text: &'static str) {
    console.update(move |view| view.state = text.to_owned());
}

impl Held {
    fn look_for(line: &CommandLine, console: &Console) -> Held {
        if !line.settings.servers().is_empty() {
            return Held::nothing("not looked for (the command line names the server)");
        }
        state(console, "looking for a medium with settings");
        let media = medium::find(MEDIUM_WAIT);
        Held::of_media(media, console)
    }

    fn nothing(from: &str) -> Held {
        Held {
            settings: Settings::default(),
            from: from.to_owned(),
            medium: None,
            saved: false,
        }
    }

    /// The settings of the first medium that has some.
    fn of_media(media: Vec<Medium>, console: &Console) -> Held {
        for medium in &media {
            let path = medium.file(SETTINGS_FILE);
            let from = format!("{SETTINGS_FILE} on {}", medium.device.display());
            match read(&path) {
                Ok(text) => {
                    let (settings, problems) = Settings::parse(&text);
                    for problem in problems {
                        console.say(&format!("note {from}: {problem}"));
                    }
                    if settings.is_empty() {
                        continue;
                    }
                    return Held {
                        settings,
                        from,
                        medium: Some(medium.clone()),
                        saved: true,
                    };
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    console.say(&format!("note {from}: {error}"));
                    return Held {
                        settings: Settings::unreadable(format!("{from}: {error}")),
                        from,
                        medium: Some(medium.clone()),
                        saved: true,
                    };
                }
            }
        }
        let from = match media.is_empty() {
            true => "no medium",
            false => "none on the medium",
        };
        // What is saved goes where it can be written.
        let writable = media.iter().find(|medium| medium.writable);
        Held {
            medium: writable.or(media.first()).cloned(),
            ..Held::nothing(from)
        }
    }

    fn plan(&self, line: &CommandLine, uuid: Option<[u8; 16]>) -> Plan {
        let from = match self.settings.is_empty() || !self.settings.servers().is_empty() {
            true => self.from.clone(),
            false => format!("no server in {}", self.from),
        };
        Plan {
            line: line.settings.clone(),
            settings: self.settings.clone(),
            settings_from: from,
            uuid,
            etc: PathBuf::from(ETC),
            only_asks: false,
            patience: Patience::default(),
        }
    }

    /// Has the settings typed. Where the form is left everything stays as it was.
    fn change(&mut self, line: &CommandLine, why: &str, console: &Console) {
        console.say("note the settings are being changed");
        if self.saved {
            let title = format!("Settings of {}.", self.from);
            let label = "e: edit, c: clear, Enter: keep";
            match form::letter(console, &title, label, "ec") {
                Some('c') => return self.clear(console),
                Some(_) => {}
                None => return,
            }
        }
        let nic = self.settings.nic.as_ref().or(line.settings.nic.as_ref());
        let cards = form::cards(&Sysfs::default(), nic);
        let Some(settings) = form::edit(console, why, &cards, &self.settings) else {
            return console.say("note the settings are as they were");
        };
        self.settings = settings;
        self.from = "typed".to_owned();
        self.saved = false;
        let Some(medium) = self.medium.clone().filter(|medium| medium.writable) else {
            return;
        };
        let title = "The settings are used now.";
        let label = format!(
            "Save them on {} for the next start (y/n)",
            medium.device.display()
        );
        if form::letter(console, title, &label, "yn") == Some('y') {
            let text = self.settings.to_text();
            match medium.with_writable(|root| save(root, &text)) {
                Ok(()) => console.say(&format!("note saved on {}", medium.device.display())),
                Err(error) => console.say(&format!(
                    "note not saved on {}: {error}",
                    medium.device.display()
                )),
            }
        }
    }

    /// Without settings everything is found out.
    fn clear(&mut self, console: &Console) {
        if let Some(medium) = &self.medium {
            let cleared = medium.with_writable(|root| fs::remove_file(root.join(SETTINGS_FILE)));
            console.say(&match cleared {
                Ok(()) => format!("note {} is removed", self.from),
                Err(error) => format!("note {} stays for the next start: {error}", self.from),
            });
        }
        self.settings = Settings::default();
        self.from = "cleared".to_owned();
        self.saved = false;
    }
}

/// A settings file, as far as it is looked at; bytes that are no text are shown as such.
fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    let limit = settings::MAX_BYTES as u64 + 1;
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Writes the settings beside the old ones, then in their place.
fn save(root: &Path, text: &str) -> io::Result<()> {
    let path = root.join(SETTINGS_FILE);
    let new = path.with_extension("new");
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::{Held, SETTINGS_FILE, read, save};
    use crate::target::console::Console;
    use crate::target::journal::Journal;
    use crate::target::medium::Medium;
    use crate::target::settings::Settings;
    use ::medium::About;
    use std::path::Path;
    use std::sync::Arc;

    fn console() -> Console {
        Console::on(Arc::new(Journal::default()), Vec::new())
    }

    fn medium(mount: &Path, writable: bool) -> Medium {
        Medium {
            mount: mount.to_owned(),
            device: "/dev/sdx1".into(),
            writable,
            about: About::parse(
                format!(r#"{{"format":1,"version":"0","id":"{}"}}"#, "0".repeat(32)).as_bytes(),
            )
            .unwrap(),
        }
    }

    #[test]
    fn what_is_saved_is_found_and_told_where_it_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let (settings, _) = Settings::parse("server = a\naddress = 10.0.0.5/24");
        save(dir.path(), &settings.to_text()).unwrap();
        save(dir.path(), &format!("{}colour = red\n", settings.to_text())).unwrap();
        let console = console();
        let held = Held::of_media(vec![medium(dir.path(), false)], &console);
        assert!(held.saved);
        assert_eq!(held.settings, settings);
        assert_eq!(held.from, "deploy-os/settings on /dev/sdx1");
        let log = console.journal().text();
        assert!(log.contains("colour"), "{log}");
        let names = std::fs::read_dir(dir.path().join("deploy-os")).unwrap();
        assert_eq!(names.count(), 1);
    }

    #[test]
    fn a_medium_without_settings_is_where_they_are_saved() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        // A file without a setting is none.
        save(one.path(), "# nothing\n").unwrap();
        let media = vec![medium(one.path(), false), medium(two.path(), true)];
        let held = Held::of_media(media, &console());
        assert!(!held.saved && held.settings.is_empty());
        assert_eq!(held.from, "none on the medium");
        assert_eq!(held.medium.unwrap().mount, two.path());
        assert_eq!(Held::of_media(Vec::new(), &console()).from, "no medium");
    }

    #[test]
    fn settings_that_cannot_be_read_are_not_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join(SETTINGS_FILE)).unwrap();
        let held = Held::of_media(vec![medium(dir.path(), false)], &console());
        assert!(held.settings.lost_pin.is_some());
    }

    #[test]
    fn a_file_is_read_to_its_limit_and_need_not_be_text() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), &"#".repeat(40_000)).unwrap();
        let path = dir.path().join(SETTINGS_FILE);
        assert_eq!(read(&path).unwrap().len(), 16_385);
        std::fs::write(&path, b"server = a\n\xff\xfe").unwrap();
        assert!(read(&path).unwrap().starts_with("server = a\n"));
    }
}
