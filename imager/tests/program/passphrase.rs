//! A person who is asked for a passphrase, and changes their mind.
//!
//! Owns: how the terminal is left. Does not own: what passphrases open (`encryption`).

use crate::disks::{self, folder};
use crate::imager;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A terminal of its own, on which a command of the program runs, and then one that shows
/// how the terminal is.
struct Seat {
    script: Child,
    screen: String,
}

impl Seat {
    fn new(command: &str) -> Self {
        // Ctrl-C goes to the shell, too, which is to go on. Who starts the tests in the
        // background may have all of them ignore it.
        let shell = format!(
            "trap : INT; sh -c 'echo pid=$$; exec env --default-signal=INT,QUIT {} {command}'; \
             echo ended=$?; stty -a",
            env!("CARGO_BIN_EXE_imager")
        );
        let script = Command::new("script")
            .args(["--quiet", "--command", &shell, "/dev/null"])
            .env("SHELL", "/bin/sh")
            .env_remove("DEPLOY_PASSPHRASE")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script is missing: apt-get install bsdutils");
        Seat {
            script,
            screen: String::new(),
        }
    }

    /// Reads the screen until it shows `text`.
    fn until(&mut self, text: &str) {
        let screen = self.script.stdout.as_mut().expect("a pipe");
        while !self.screen.contains(text) {
            let mut byte = [0];
            let count = screen.read(&mut byte).expect("it is read");
            assert_ne!(count, 0, "no {text} in {}", self.screen);
            self.screen.push(char::from(byte[0]));
        }
    }

    fn types(&mut self, keys: &[u8]) {
        let keyboard = self.script.stdin.as_mut().expect("a pipe");
        keyboard.write_all(keys).expect("it is typed");
    }

    fn imager(&self) -> Pid {
        let (_, pid) = self.screen.split_once("pid=").expect("it is told");
        let digits = pid.split_whitespace().next().expect("a number");
        Pid::from_raw(digits.parse().expect("a number"))
    }

    /// How the command ended, and whether the terminal shows what is typed.
    fn end(mut self) -> (String, bool) {
        self.until("echoctl");
        self.until("extproc");
        drop(self.script.stdin.take());
        self.script.wait().expect("script ends");
        let (_, ended) = self.screen.split_once("ended=").expect("it ended");
        let exit = ended
            .split_whitespace()
            .next()
            .expect("a number")
            .to_owned();
        let words: Vec<&str> = ended.split_whitespace().collect();
        let shows = words.contains(&"echo") && words.contains(&"isig");
        assert!(shows != words.contains(&"-echo"), "{}", self.screen);
        (exit, shows)
    }
}

/// A key with the passphrase `horse`, and an image.
fn locked(dir: &Path) -> (PathBuf, PathBuf) {
    let [pass, key, image] = ["pass", "key", "image"].map(|name| dir.join(name));
    std::fs::write(&pass, "horse\n").unwrap();
    imager!["key", "new", "--passphrase", "--passphrase-file", pass, key].ok();
    let disk = &disks::bare().disk.path;
    let how = ["--key", "--passphrase-file"];
    imager!["backup", "-q", how[0], key, how[1], pass, disk, image].ok();
    (key, image)
}

#[test]
fn whatever_ends_the_question_the_terminal_shows_what_is_typed_again() {
    let dir = folder();
    let (key, image) = locked(dir.path());
    // One that has not begun yet, and one that hears signals itself.
    for command in ["info", "verify -q", "verify"] {
        let line = format!("{command} --key {} {}", key.display(), image.display());
        let begun = command != "info";
        let asked = || {
            let mut seat = Seat::new(&line);
            seat.until("Passphrase of");
            seat
        };
        let mut right = asked();
        right.types(b"horss\x7fe\n");
        assert_eq!(right.end(), ("0".to_owned(), true), "{command}");
        let mut wrong = asked();
        wrong.types(b"hors\n");
        assert_eq!(wrong.end(), ("3".to_owned(), true), "{command}");
        for (key, by_signal) in [(b"\x03", "130"), (b"\x1c", "131")] {
            let mut stopped = asked();
            stopped.types(b"hor");
            stopped.types(key);
            let (exit, shows) = stopped.end();
            assert!(shows, "{command} and {key:?}");
            let held = begun && by_signal == "130";
            assert_eq!(exit, if held { "1" } else { by_signal }, "{command}");
        }
        // The end of what is typed is no passphrase, also not behind half of one.
        for keys in [&b"\x04"[..], b"horse\x04\x04"] {
            let mut none = asked();
            none.types(keys);
            none.until("none was typed");
            assert_eq!(none.end(), ("3".to_owned(), true), "{command} {keys:?}");
        }
        // One signal is enough, also where the job hears it.
        let stopped = asked();
        kill(stopped.imager(), Signal::SIGTERM).unwrap();
        let (exit, shows) = stopped.end();
        let ended = if begun { "1" } else { "143" };
        assert!(shows && exit == ended, "{command}: {exit}");
    }
}
