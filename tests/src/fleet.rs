//! A management server on loopback or on a host of a laboratory, and targets that are programs.
//!
//! Owns: starting, killing and asking them. Does not own: virtual machines (`site`), what
//! lies between target and server (`wire_tap`).
//!
//! A target is `imager target` on raw files or devices. Each start of it is a boot of its
//! machine, so SIGKILL is a power cut for everything but the page cache.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use testkit::netns::Host;

use crate::built;
use crate::status::{Execution, Status};

/// How often something is looked at while waiting.
const POLL: Duration = Duration::from_millis(50);
/// A loaded host is slow; what takes longer than this hangs.
const LIMIT: Duration = Duration::from_secs(600);

/// A server with its state. Everything ends when it is dropped.
#[derive(Debug)]
pub struct Fleet {
    deployd: Option<Child>,
    host: Option<Host>,
    address: String,
    bin: PathBuf,
    dir: TempDir,
    ports: (u16, u16),
    options: Vec<String>,
}

impl Fleet {
    /// Starts a server with these more options.
    ///
    /// # Errors
    /// The programs are missing, or it does not start.
    pub fn new(options: &[&str]) -> io::Result<Fleet> {
        let ports = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let [http, data] = ports;
        let ports = (http?.local_addr()?.port(), data?.local_addr()?.port());
        Fleet::start(None, "127.0.0.1", ports, options)
    }

    /// Starts a server on a host that has this address, with these more options.
    ///
    /// # Errors
    /// As [`Fleet::new`].
    pub fn on(host: Host, address: &str, options: &[&str]) -> io::Result<Fleet> {
        Fleet::start(Some(host), address, (26500, 26501), options)
    }

    fn start(
        host: Option<Host>,
        address: &str,
        ports: (u16, u16),
        options: &[&str],
    ) -> io::Result<Fleet> {
        let mut fleet = Fleet {
            deployd: None,
            host,
            address: address.to_owned(),
            bin: built::programs()?,
            dir: tempfile::Builder::new().prefix("fleet-").tempdir()?,
            ports,
            options: options.iter().map(ToString::to_string).collect(),
        };
        fleet.start_server()?;
        Ok(fleet)
    }

    /// Starts the server (again); it answers when this returns.
    ///
    /// # Errors
    /// It ends instead; its words are in the error.
    pub fn start_server(&mut self) -> io::Result<()> {
        let mut child = self
            .program("deployd")
            .arg("--state")
            .arg(self.state())
            .args(["--address", &self.address])
            .args(["--http-port", &self.ports.0.to_string()])
            .args(["--data-port", &self.ports.1.to_string()])
            .args(["--proxy-dhcp", "off", "--tftp", "off"])
            .args(&self.options)
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
        self.deployd = Some(child);
        let mut lines = BufReader::new(stderr).lines();
        let mut said = String::new();
        for line in lines.by_ref() {
            let line = line?;
            // Printed when the ports are open.
            if line.starts_with("Token:") {
                thread::spawn(move || lines.for_each(drop));
                return Ok(());
            }
            said += &line;
            said.push('\n');
        }
        Err(io::Error::other(format!("deployd ended: {said}")))
    }

    /// Kills the server as a power cut would.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill_server(&mut self) -> io::Result<()> {
        let mut child = self.deployd.take().ok_or(io::ErrorKind::NotFound)?;
        child.kill()?;
        child.wait().map(|_| ())
    }

    /// The port of check-in and data.
    pub fn data_port(&self) -> u16 {
        self.ports.1
    }

    /// The server's address without anything in between.
    pub fn url(&self) -> String {
        format!("https://{}:{}", self.address, self.ports.1)
    }

    /// A folder for a test's files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// One of the programs, where the server runs.
    pub fn program(&self, name: &str) -> Command {
        self.program_on(self.host.as_ref(), name)
    }

    fn program_on(&self, host: Option<&Host>, name: &str) -> Command {
        let path = self.bin.join(name);
        match host {
            Some(host) => host.command(&path.display().to_string()),
            None => Command::new(path),
        }
    }

    /// Runs `deployctl` and returns what it prints.
    ///
    /// # Errors
    /// It fails; its words are in the error.
    pub fn ctl(&self, arguments: &[&str]) -> io::Result<String> {
        let output = self
            .program("deployctl")
            .arg("--state")
            .arg(self.state())
            .args(["--server", &self.url()])
            .args(arguments)
            .stdin(Stdio::null())
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

    /// Waits until the newest execution of this kind is as wanted.
    ///
    /// # Errors
    /// It does not come about; what the server says is in the error.
    pub fn wait(
        &self,
        machine: &str,
        kind: &str,
        wanted: impl Fn(&Execution) -> bool,
    ) -> io::Result<Execution> {
        let end = Instant::now() + LIMIT;
        loop {
            let status = self.status()?;
            match status.execution(machine, kind) {
                Some(execution) if wanted(&execution) => return Ok(execution),
                _ if Instant::now() >= end => {
                    return Err(io::Error::other(format!("it hangs: {status:?}")));
                }
                _ => thread::sleep(POLL),
            }
        }
    }

    /// Boots a machine: `imager target` with these disks, by way of `url`.
    ///
    /// # Errors
    /// It does not start.
    pub fn boot(&self, machine: &Machine, url: &str) -> io::Result<Target> {
        self.boot_on(self.host.as_ref(), machine, url)
    }

    /// As [`Fleet::boot`], on another host than the server's.
    ///
    /// # Errors
    /// As [`Fleet::boot`].
    pub fn boot_on(&self, host: Option<&Host>, machine: &Machine, url: &str) -> io::Result<Target> {
        let pin = fs::read_to_string(self.state().join("pin"))?;
        let said = self.dir.path().join(format!("{}.said", machine.number));
        let mut command = self.program_on(host, "imager");
        command
            .args(["target", "--json", "--server", url, "--pin", pin.trim()])
            .args(["--mac", &machine.mac(), "--uuid", &machine.uuid()]);
        for disk in &machine.disks {
            command.arg("--disk").arg(disk);
        }
        command.args(&machine.options);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&said)?)
            .spawn()?;
        Ok(Target { child, said })
    }

    /// Boots a machine for the first time, so that the server knows it, and returns its name.
    ///
    /// # Errors
    /// The server does not know it afterwards.
    pub fn register(&self, machine: &Machine) -> io::Result<String> {
        let end = self.boot(machine, &self.url())?.finish()?;
        let name = self.status()?.machine(&machine.mac());
        name.ok_or_else(|| io::Error::other(format!("it did not register: {end:?}")))
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // It may not run.
        let _ = self.kill_server();
    }
}

/// A machine of the fleet: an identity and its disks.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Which one it is.
    pub number: u8,
    /// Its disks, in their order.
    pub disks: Vec<PathBuf>,
    /// More options of its target, as for keys.
    pub options: Vec<String>,
}

impl Machine {
    /// A machine with these disks.
    pub fn new(number: u8, disks: &[&Path]) -> Machine {
        Machine {
            number,
            disks: disks.iter().map(|disk| disk.to_path_buf()).collect(),
            options: Vec::new(),
        }
    }

    /// Its network address.
    pub fn mac(&self) -> String {
        format!("52:54:00:00:07:{:02x}", self.number)
    }

    fn uuid(&self) -> String {
        format!("6c1f0000-1111-4222-8333-4444555566{:02x}", self.number)
    }
}

/// A target that runs. It is killed when it is dropped.
#[derive(Debug)]
pub struct Target {
    child: Child,
    said: PathBuf,
}

/// How a target ended.
#[derive(Debug)]
pub struct End {
    /// Its exit.
    pub status: ExitStatus,
    /// What it printed.
    pub json: Value,
    /// What it told people.
    pub said: String,
}

impl Target {
    /// Pulls the plug.
    ///
    /// # Errors
    /// It cannot be killed.
    pub fn kill(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(|_| ())
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// Nobody can tell.
    pub fn is_running(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits until something is so while the target runs. `false`: it ended before.
    ///
    /// # Errors
    /// It hangs.
    pub fn until(&mut self, what: impl Fn() -> bool) -> io::Result<bool> {
        let end = Instant::now() + LIMIT;
        while !what() {
            if !self.is_running()? {
                return Ok(false);
            }
            if Instant::now() >= end {
                return Err(io::Error::other(format!("it hangs: {}", self.words())));
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(true)
    }

    /// What it told people so far.
    pub fn words(&self) -> String {
        fs::read_to_string(&self.said).unwrap_or_default()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It hangs, or prints no JSON.
    pub fn finish(mut self) -> io::Result<End> {
        let mut out = self.child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let printed = thread::spawn(move || {
            let mut text = String::new();
            out.read_to_string(&mut text).map(|_| text)
        });
        self.until(|| false)?;
        let status = self.child.wait()?;
        let text = printed
            .join()
            .map_err(|_| io::Error::other("the reader panicked"))??;
        let said = self.words();
        let json = serde_json::from_str(&text)
            .map_err(|e| io::Error::other(format!("{e}: {text}{said}")))?;
        Ok(End { status, json, said })
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // Already ended is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
