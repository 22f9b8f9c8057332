//! The kernel command line, as far as it speaks to us.
//!
//! Owns: the `deploy.*` keys and their forms. Does not own: what is done about them.
//! Total on any text: unknown keys are ignored, a known key with a bad value is kept as
//! a problem that the console shows.
//!
//! | key | meaning |
//! |---|---|
//! | `deploy.server=`, `deploy.pin=`, `deploy.nic=` and all other keys of [`super::settings`] | as there |
//! | `deploy.signer=` | public key that has to have signed an image before it is restored, 64 hex digits |
//! | `deploy.key=` | key file in the initramfs: backups are encrypted, only encrypted images restored; its passphrase or identity is in the file of the same name with `.passphrase` or `.identity` behind |
//! | `deploy.allow-plain` | with a key, restore images that are not encrypted, too |
//! | `deploy.medium=` | id of the medium that the machine was started from, 32 hex digits |
//! | `deploy.restore` | restore the image on that medium, without network and server |
//! | `deploy.after=` | what to do after the job, whatever the server says: `reboot`, `poweroff`, `boot-local`, `shell` |
//! | `deploy.error-reboot=` | seconds after which an error screen reboots by itself |
//! | `deploy.watchdog=0` | leave the machine's watchdog alone |
//! | `deploy.shell` | open the rescue shell before anything else |
//! | `deploy.debug` | leave the kernel's messages on the console |

use crate::keyring::{KeySource, Keyring};
use crate::target::settings::Settings;
use image::PublicKey;
use std::path::PathBuf;
use std::time::Duration;

/// The kernel gives at most 4 KiB (x86: 2 KiB); more is not looked at.
const MAX_BYTES: usize = 16 << 10;
const MAX_ERROR_REBOOT: u64 = 7 * 24 * 3600;

/// What the command line says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// Server, pin, network.
    pub settings: Settings,
    /// The key that has to have signed what is restored.
    pub signer: Option<PublicKey>,
    /// Key file of encrypted images.
    pub key: Option<PathBuf>,
    /// Images in the clear are restored although there is a key.
    pub allow_plain: bool,
    /// The medium that this machine was started from.
    pub medium: Option<String>,
    /// Restore the image on it.
    pub restore: bool,
    /// What to do after the job.
    pub after: Option<AfterChoice>,
    /// When an error screen reboots.
    pub error_reboot: Option<Duration>,
    /// Leave the machine's watchdog alone.
    pub no_watchdog: bool,
    /// Open a shell first.
    pub shell: bool,
    /// Leave kernel messages on.
    pub debug: bool,
    /// Wrong values of keys that protect something: without them nothing may go on.
    pub refused: Vec<String>,
    /// Keys whose values are wrong, as sentences.
    pub problems: Vec<String>,
}

/// `deploy.after=`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterChoice {
    /// Reboot; booting the local disk is one, too.
    Reboot,
    /// Power off.
    PowerOff,
    /// Open the rescue shell; its end reboots.
    Shell,
}

impl CommandLine {
    /// Parses a command line. Where a key stands twice, the last one counts, as for the
    /// kernel.
    pub fn parse(text: &str) -> Self {
        let mut line = CommandLine::default();
        let mut end = text.len().min(MAX_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        for word in words(&text[..end]) {
            if let Some(setting) = word.strip_prefix("deploy.") {
                let (key, value) = setting.split_once('=').unwrap_or((setting, ""));
                line.set(key, value);
            }
        }
        let contradictions = line.settings.contradictions();
        let told = contradictions.iter().map(|what| format!("deploy.{what}"));
        line.problems.extend(told);
        line
    }

    /// The keys that jobs go by.
    pub fn keyring(&self) -> Keyring {
        let beside = |end: &str| {
            let mut name = self.key.clone()?.into_os_string();
            name.push(end);
            Some(PathBuf::from(name)).filter(|path| path.exists())
        };
        let source = KeySource {
            file: self.key.clone(),
            passphrase_file: beside(".passphrase"),
            identity: beside(".identity"),
            ask: None,
            allow_plain: self.allow_plain,
        };
        Keyring::new(self.signer, source)
    }

    fn set(&mut self, key: &str, value: &str) {
        let outcome = match key {
            "signer" => match PublicKey::from_hex(value) {
                Some(key) => {
                    self.signer = Some(key);
                    Ok(())
                }
                None => {
                    let found = format!("deploy.signer={value:?} is no public key");
                    return self.refused.push(found);
                }
            },
            "key" if value.starts_with('/') => {
                self.key = Some(value.into());
                Ok(())
            }
            "key" => {
                let found = format!("deploy.key={value:?} is no path of a file");
                return self.refused.push(found);
            }
            "allow-plain" => flag(value).map(|on| self.allow_plain = on),
            "medium" => medium_id(value).map(|id| self.medium = Some(id)),
            "restore" => flag(value).map(|on| self.restore = on),
            "after" => after_choice(value).map(|choice| self.after = Some(choice)),
            "error-reboot" => seconds(value).map(|wait| self.error_reboot = Some(wait)),
            "watchdog" => flag(value).map(|on| self.no_watchdog = !on),
            "shell" => flag(value).map(|on| self.shell = on),
            "debug" => flag(value).map(|on| self.debug = on),
            "pin" => {
                if let Err(problem) = self.settings.set(key, value) {
                    self.refused
                        .push(format!("deploy.pin={value:?} is no pin: {problem}"));
                }
                return;
            }
            // What is not one of them either is somebody else's.
            _ => self.settings.set(key, value).map(|_| ()),
        };
        if let Err(problem) = outcome {
            self.problems
                .push(format!("deploy.{key}= is ignored: {problem}"));
        }
    }
}

fn medium_id(value: &str) -> Result<String, String> {
    if value.len() == 32 && value.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(value.to_ascii_lowercase())
    } else {
        Err(format!("{value:?} is not 32 hex digits"))
    }
}

fn after_choice(value: &str) -> Result<AfterChoice, String> {
    match value {
        "reboot" | "boot-local" => Ok(AfterChoice::Reboot),
        "poweroff" | "power-off" => Ok(AfterChoice::PowerOff),
        "shell" => Ok(AfterChoice::Shell),
        _ => Err(format!(
            "{value:?} is none of reboot, poweroff, boot-local, shell"
        )),
    }
}

fn seconds(value: &str) -> Result<Duration, String> {
    match value.parse::<u64>() {
        Ok(seconds) if seconds <= MAX_ERROR_REBOOT => Ok(Duration::from_secs(seconds)),
        _ => Err(format!(
            "{value:?} is not a number of seconds up to {MAX_ERROR_REBOOT}"
        )),
    }
}

fn flag(value: &str) -> Result<bool, String> {
    match value {
        "" | "1" | "yes" => Ok(true),
        "0" | "no" => Ok(false),
        _ => Err(format!("{value:?} is neither 1 nor 0")),
    }
}

/// Words as the kernel sees them: white space separates, double quotes protect.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => word.push(c),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::{AfterChoice, CommandLine};
    use crate::target::settings::NicChoice;
    use proptest::prelude::*;
    use std::time::Duration;

    const PIN: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    #[test]
    fn a_boot_scripts_line_is_understood() {
        let line = CommandLine::parse(&format!(
            "BOOT_IMAGE=/vmlinuz console=tty0 console=ttyS0,115200 deploy.server=https://10.0.0.1:26501;deploy \
             deploy.pin={PIN} deploy.signer={PIN} deploy.key=/etc/k deploy.allow-plain deploy.after=poweroff deploy.medium=00112233445566778899AABBCCDDEEFF deploy.restore deploy.nic=52-54-00-AA-00-01 \
             deploy.error-reboot=60 deploy.watchdog=0 deploy.debug deploy.unknown=7 quiet\n"
        ));
        let servers = line.settings.servers();
        let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["https://10.0.0.1:26501", "https://deploy:443"]);
        assert_eq!(line.settings.pin.map(|pin| pin.as_bytes()[1]), Some(0x11));
        assert_eq!(line.keyring().source.file, Some("/etc/k".into()));
        assert!(line.keyring().source.allow_plain);
        assert_eq!(line.signer.map(|key| key.0[1]), Some(0x11));
        assert_eq!(line.after, Some(AfterChoice::PowerOff));
        let nic = NicChoice::Mac("52:54:00:aa:00:01".into());
        assert_eq!(line.settings.nic, Some(nic));
        assert_eq!(line.error_reboot, Some(Duration::from_secs(60)));
        let medium = "00112233445566778899aabbccddeeff";
        assert_eq!(line.medium.as_deref(), Some(medium));
        assert!(line.debug && line.restore && line.no_watchdog && !line.shell);
        assert!(line.problems.is_empty(), "{:?}", line.problems);
    }

    #[test]
    fn the_last_of_two_counts_and_quotes_protect() {
        let line = CommandLine::parse("deploy.server=a deploy.server=\"b; c\" deploy.shell=0");
        let servers = line.settings.servers();
        let servers: Vec<&str> = servers.iter().map(|s| s.host.as_str()).collect();
        assert_eq!(servers, ["b", "c"]);
        assert!(!line.shell);
    }

    #[test]
    fn bad_values_are_told_and_change_nothing() {
        let line = CommandLine::parse(
            "deploy.server=ftp://x deploy.pin=12 deploy.signer=12 deploy.key=k deploy.after=explode deploy.error-reboot=-1 \
             deploy.nic=way-too-long-for-a-name deploy.shell=maybe deploy.medium=12 deploy.restore=x",
        );
        assert_eq!(line.problems.len(), 7, "{:?}", line.problems);
        assert_eq!(line.refused.len(), 3, "{:?}", line.refused);
        assert_eq!(
            CommandLine {
                problems: Vec::new(),
                refused: Vec::new(),
                ..line
            },
            CommandLine::default()
        );
    }

    #[test]
    fn network_cards_are_chosen_by_name_or_mac() {
        let choice = |text: &str| {
            CommandLine::parse(&format!("deploy.nic={text}"))
                .settings
                .nic
        };
        assert!(choice("eth1").is_some_and(|c| c.fits("eth1", "") && !c.fits("eth0", "")));
        let mac = choice("01-52-54-00-AA-00-01").unwrap();
        assert!(mac.fits("any", "52:54:00:aa:00:01") && !mac.fits("any", "52:54:00:aa:00:02"));
        assert_eq!(choice("a/b"), None);
    }

    #[test]
    fn the_network_can_be_set() {
        let line = CommandLine::parse(
            "deploy.address=10.0.0.5/24 deploy.gateway=10.0.0.1 deploy.dns=10.0.0.2,10.0.0.3 \
             deploy.domain=lab.example deploy.vlan=7 deploy.server=a deploy.port=80",
        );
        assert!(line.problems.is_empty(), "{:?}", line.problems);
        assert_eq!(line.settings.get("mask"), "255.255.255.0");
        assert_eq!(line.settings.get("dns"), "10.0.0.2 10.0.0.3");
        assert_eq!(line.settings.servers()[0].to_string(), "http://a:80");
        let line = CommandLine::parse("deploy.address=10.0.0.5");
        assert_eq!(
            line.problems,
            ["deploy.address is not used: it has no mask"]
        );
    }

    proptest! {
        #[test]
        fn any_text_is_parsed(text in "\\PC{0,200}") {
            CommandLine::parse(&text);
        }

        #[test]
        fn any_value_is_parsed(
            key in "server|address|dns|pin|signer|key|allow-plain|nic|medium|restore|after|error-reboot|watchdog|shell|debug", value in "\\PC{0,60}"
        ) {
            CommandLine::parse(&format!("deploy.{key}={value}"));
        }
    }
}
