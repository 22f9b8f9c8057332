//! A management server on loopback, or on a host of a laboratory, and its targets as
//! processes.
//!
//! Owns: starting `deployd` on free ports with a folder of its own, orders by `deployctl`,
//! the command line of a target. Does not own: what is measured.

use crate::run;
use e2e::built::Built;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use testkit::netns::Host;

const START_LIMIT: Duration = Duration::from_secs(60);

/// A server that ends when it is dropped.
pub struct Server {
    child: Child,
    state: PathBuf,
    url: String,
    /// Words before a command that runs where the server does.
    there: String,
    built: Built,
}

impl Server {
    /// Starts one on loopback in `state`, a folder that need not be there.
    pub fn start(built: &Built, state: &Path, transfers: u16) -> io::Result<Server> {
        Self::start_at(built, state, transfers, None)
    }

    /// The same on a host of a laboratory.
    pub fn start_on(host: &Host, built: &Built, state: &Path) -> io::Result<Server> {
        Self::start_at(built, state, 1, Some(host))
    }

    fn start_at(
        built: &Built,
        state: &Path,
        transfers: u16,
        host: Option<&Host>,
    ) -> io::Result<Server> {
        std::fs::create_dir_all(state)?;
        let (plain, data) = (free_port()?, free_port()?);
        let log = File::create(state.join("deployd.log"))?;
        let program = built.program("deployd").display().to_string();
        let address = host.and_then(Host::address).unwrap_or("127.0.0.1");
        let mut command = match host {
            Some(host) => host.command(&program),
            None => Command::new(&program),
        };
        let child = command
            .arg("--state")
            .arg(state)
            .args(["--address", address, "--proxy-dhcp", "off", "--tftp", "off"])
            .args([
                "--http-port",
                &plain.to_string(),
                "--data-port",
                &data.to_string(),
            ])
            .args(["--max-transfers", &transfers.to_string(), "--log", "warn"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let server = Server {
            child,
            state: state.to_owned(),
            url: format!("https://{address}:{data}"),
            there: host.map(on).unwrap_or_default(),
            built: built.clone(),
        };
        let end = Instant::now() + START_LIMIT;
        while let Err(error) = server.ctl("status") {
            if Instant::now() >= end {
                return Err(error);
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(server)
    }

    /// `deployctl` with these words.
    pub fn ctl(&self, words: &str) -> io::Result<()> {
        run::plain(&format!(
            "{}{} --server {} --state {} {words}",
            self.there,
            self.built.program("deployctl").display(),
            self.url,
            self.state.display()
        ))
    }

    /// The command line of target `number` with one disk. It checks in once, so that the
    /// server knows the machine under [`Server::machine`].
    pub fn target(&self, number: u16, disk: &str) -> io::Result<String> {
        Ok(format!(
            "{} target -q --server {} --pin {} --mac {} --uuid {} --disk {disk}",
            self.built.program("imager").display(),
            self.url,
            self.pin()?,
            Server::mac(number),
            Server::uuid(number),
        ))
    }

    /// Address of the data port.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Hash of its key.
    pub fn pin(&self) -> io::Result<String> {
        let text = std::fs::read_to_string(self.state.join("pin"))?;
        Ok(text.trim().to_owned())
    }

    /// Network address of target `number`.
    pub fn mac(number: u16) -> String {
        format!("52:54:00:00:{:02x}:{:02x}", number >> 8, number & 255)
    }

    /// UUID of target `number`.
    pub fn uuid(number: u16) -> String {
        format!("4c4c4544-0042-3510-8051-b4c04f4a{number:04x}")
    }

    /// The server's name for target `number`.
    pub fn machine(number: u16) -> String {
        format!("pc-52540000{number:04x}")
    }

    /// Peak resident memory so far, in KiB.
    pub fn peak_kib(&self) -> io::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
        number.ok_or_else(|| io::Error::other("no VmHWM of deployd"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already ended is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The words that run a command on a host of a laboratory.
pub fn on(host: &Host) -> String {
    format!("ip netns exec {} ", host.namespace())
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}
