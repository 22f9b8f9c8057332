//! A site: one network with our management server, beside a foreign DHCP server or alone.
//!
//! Owns: starting, killing and asking the servers. Does not own: machines
//! (`machines`), what an answer means (`status`).
//!
//! ```text
//!            br0 (namespace of its own, no way out)
//!   server 10.99.0.1   router 10.99.0.2   tap0 .. tap2
//!   deployd            dnsmasq: leases    virtual machines
//!   proxyDHCP, TFTP,
//!   HTTP, data
//! ```

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use testkit::machine::Machine;
use testkit::netns::{Host, INTERFACE, Lab, require};

use crate::built::Built;
use crate::page;
use crate::status::Status;

/// Address of the management server.
pub const SERVER: &str = "10.99.0.1";
/// Address of the host that gives out leases.
const ROUTER: &str = "10.99.0.2";
/// Port of the server's page and interface, on its own loopback.
const CONSOLE_PORT: u16 = 26500;
/// How often the server is asked while waiting.
const POLL: Duration = Duration::from_millis(500);
/// Starting a program takes long on a loaded host.
const START_LIMIT: Duration = Duration::from_secs(120);

/// The taps that a site has, for up to three machines.
pub const TAPS: [&str; 3] = ["tap0", "tap1", "tap2"];

/// A network with its servers. Everything ends when it is dropped.
#[derive(Debug)]
pub struct Site {
    // The children before the namespaces they live in: fields are dropped in order.
    deployd: Option<Running>,
    _dnsmasq: Option<Running>,
    server: Host,
    _router: Host,
    lab: Lab,
    state: TempDir,
    built: Built,
    logs: PathBuf,
    starts: u32,
    /// More options of `deployd`.
    options: Vec<String>,
}

impl Site {
    /// Makes the network, and starts the foreign DHCP server and ours.
    ///
    /// # Errors
    /// A program is missing, this is not root, or a server does not start.
    pub fn new(built: &Built, name: &str) -> io::Result<Site> {
        Site::make(built, name, true, &[])
    }

    /// Without a foreign DHCP server: ours leases the addresses. `options` are more options
    /// of `deployd`.
    ///
    /// # Errors
    /// As [`Site::new`].
    pub fn closed(built: &Built, name: &str, options: &[&str]) -> io::Result<Site> {
        let range = ["--dhcp-range", "10.99.0.100-10.99.0.199"];
        Site::make(built, name, false, &[&range[..], options].concat())
    }

    /// A network in which nobody gives out addresses.
    ///
    /// # Errors
    /// As [`Site::new`].
    pub fn without_dhcp(built: &Built, name: &str) -> io::Result<Site> {
        Site::make(built, name, false, &[])
    }

    fn make(built: &Built, name: &str, foreign: bool, options: &[&str]) -> io::Result<Site> {
        require("dnsmasq", "dnsmasq-base")?;
        let logs = built.logs(name);
        if logs.exists() {
            fs::remove_dir_all(&logs)?;
        }
        fs::create_dir_all(&logs)?;
        let lab = Lab::new()?;
        let server = lab.host("server", &format!("{SERVER}/24"))?;
        let router = lab.host("router", &format!("{ROUTER}/24"))?;
        for tap in TAPS {
            lab.tap(tap)?;
        }
        let state = tempfile::Builder::new().prefix("deployd-").tempdir()?;
        let mut leases = router.command("dnsmasq");
        leases
            .args(["--conf-file=/dev/null", "--port=0", "--no-daemon"])
            .args(["--bind-interfaces", "--log-dhcp", "--user=root"])
            .arg(format!("--interface={INTERFACE}"))
            .arg("--dhcp-range=10.99.0.100,10.99.0.199,1h")
            .arg(format!("--dhcp-option=3,{ROUTER}"))
            .arg(format!(
                "--dhcp-leasefile={}",
                state.path().join("leases").display()
            ));
        let dnsmasq = match foreign {
            true => Some(Running::start(leases, &logs.join("dnsmasq.log"))?),
            false => None,
        };
        let mut site = Site {
            deployd: None,
            _dnsmasq: dnsmasq,
            server,
            _router: router,
            lab,
            state,
            built: built.clone(),
            logs,
            starts: 0,
            options: options.iter().map(|option| (*option).to_owned()).collect(),
        };
        site.start_server()?;
        Ok(site)
    }

    /// Starts the management server (again), and waits until it answers.
    ///
    /// # Errors
    /// It ends or does not answer; its log is named.
    pub fn start_server(&mut self) -> io::Result<()> {
        self.starts += 1;
        let log = self.server_log_file();
        let mut command = self
            .server
            .command(&self.built.program("deployd").display().to_string());
        command
            .arg("--state")
            .arg(self.state())
            .args(["--interface", INTERFACE, "--address", SERVER])
            .arg("--pxe-dir")
            .arg(self.built.pxe())
            .args(["--proxy-dhcp", "on"])
            .args(&self.options)
            // An emulated timer on a loaded host is late; the kernel's check of it would
            // end in a panic that says nothing about this system.
            .args(["--kernel-args", "no_timer_check"]);
        let mut running = Running::start(command, &log)?;
        let end = Instant::now() + START_LIMIT;
        while self.status().is_err() {
            if let Some(status) = running.child.try_wait()? {
                let said = fs::read_to_string(&log).unwrap_or_default();
                return Err(io::Error::other(format!(
                    "deployd ended ({status}): {said}"
                )));
            }
            if Instant::now() >= end {
                let error = self.status().err();
                return Err(io::Error::other(format!(
                    "deployd does not answer (log: {}): {error:?}",
                    log.display()
                )));
            }
            thread::sleep(POLL);
        }
        self.deployd = Some(running);
        Ok(())
    }

    /// Kills the management server as a power cut would (SIGKILL).
    ///
    /// # Errors
    /// It does not run.
    pub fn kill_server(&mut self) -> io::Result<()> {
        match self.deployd.take() {
            Some(running) => running.kill(),
            None => Err(io::Error::other("the server does not run")),
        }
    }

    /// Keeps the server from storing anything, as long as the guard lives: another program
    /// holds the database's write lock. It still reads, and answers from what it has.
    ///
    /// # Errors
    /// `sqlite3` is missing, or does not get the lock.
    pub fn hold_database(&self) -> io::Result<Running> {
        require("sqlite3", "sqlite3")?;
        let mut child = Command::new("sqlite3")
            .arg(self.state().join("deployd.sqlite"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let mut held = Running {
            child,
            _input: input,
        };
        let mut said = String::new();
        if let (Some(input), Some(output)) = (&mut held._input, output) {
            input.write_all(b".bail on\n.timeout 60000\nBEGIN IMMEDIATE;\nSELECT 'held';\n")?;
            BufReader::new(output).read_line(&mut said)?;
        }
        if said.trim() == "held" {
            return Ok(held);
        }
        Err(io::Error::other(format!(
            "sqlite3 did not get the database's write lock: {said}"
        )))
    }

    /// Runs `deployctl` on the server's host and returns what it prints.
    ///
    /// # Errors
    /// It fails; its words are in the error.
    pub fn ctl(&self, arguments: &[&str]) -> io::Result<String> {
        let mut command = self
            .server
            .command(&self.built.program("deployctl").display().to_string());
        let output = command
            .arg("--state")
            .arg(self.state())
            .args(arguments)
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        Err(io::Error::other(format!(
            "deployctl {arguments:?} ({}): {text}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        )))
    }

    /// What the server says about its machines, executions and images.
    ///
    /// # Errors
    /// It does not answer, or not as expected.
    pub fn status(&self) -> io::Result<Status> {
        Status::parse(&self.ctl(&["status", "--json"])?)
    }

    /// Waits until the server's status is as wanted, and returns it. `guest` is the machine
    /// that has to bring it about.
    ///
    /// # Errors
    /// It is not within `limit`, or the guest ends before; the last status and the guest's
    /// console are in the error.
    pub fn wait_status(
        &self,
        what: &str,
        limit: Duration,
        guest: &mut Machine,
        mut wanted: impl FnMut(&Status) -> bool,
    ) -> io::Result<Status> {
        let end = Instant::now() + limit;
        loop {
            // Asked before the server is: what the guest did before its end counts.
            let ended = !guest.is_running()?;
            let status = self.status()?;
            if wanted(&status) {
                return Ok(status);
            }
            let why = if ended {
                "the machine ended before".to_owned()
            } else if Instant::now() >= end {
                format!("not within {} s", limit.as_secs())
            } else {
                thread::sleep(POLL);
                continue;
            };
            return Err(guest.failure(&format!("{what}: {why}; the server says: {status:?}")));
        }
    }

    /// A command in the namespace of the taps, for virtual machines.
    pub fn command(&self, program: &str) -> Command {
        self.lab.command(program)
    }

    /// Where the logs of this run lie.
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// What the management server logged since its last start.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn server_log(&self) -> io::Result<String> {
        fs::read_to_string(self.server_log_file())
    }

    fn server_log_file(&self) -> PathBuf {
        self.logs.join(format!("deployd-{}.log", self.starts))
    }

    /// The server's state folder: database, images, keys.
    pub fn state(&self) -> PathBuf {
        self.state.path().join("state")
    }

    /// Makes the server's page reachable on a loopback port of this machine.
    ///
    /// # Errors
    /// As [`page::forward`].
    pub fn page(&self) -> io::Result<SocketAddr> {
        page::forward(&self.server, CONSOLE_PORT)
    }

    /// The administrator's token.
    ///
    /// # Errors
    /// The server has not written it.
    pub fn token(&self) -> io::Result<String> {
        Ok(fs::read_to_string(self.token_file())?.trim().to_owned())
    }

    /// The pin of the server's key, as boot scripts give it to machines.
    ///
    /// # Errors
    /// The server has not written it.
    pub fn pin(&self) -> io::Result<String> {
        Ok(fs::read_to_string(self.state().join("pin"))?
            .trim()
            .to_owned())
    }

    /// How `deployctl` is called for this site, to be shown.
    pub fn ctl_line(&self) -> String {
        format!(
            "ip netns exec {} {} --state {} status",
            self.server.namespace(),
            self.built.program("deployctl").display(),
            self.state().display()
        )
    }

    fn token_file(&self) -> PathBuf {
        self.state().join("admin.token")
    }
}

/// A child process that is killed on drop.
#[derive(Debug)]
pub struct Running {
    child: Child,
    _input: Option<ChildStdin>,
}

impl Running {
    fn start(mut command: Command, log: &Path) -> io::Result<Running> {
        let log = File::create(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Running {
            child,
            _input: None,
        })
    }

    fn kill(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(|_| ())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already ended is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
