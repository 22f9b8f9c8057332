//! Network laboratories: a bridge in a namespace of its own, hosts on it, taps for
//! virtual machines.
//!
//! Owns: making the namespaces and links, running programs and closures inside them,
//! and removing everything on drop. Does not own: what runs there (DHCP servers,
//! virtual machines).
//!
//! Everything is made with `ip` from Debian's `iproute2` and wants root. Nothing
//! outside the namespaces made here is touched; no host interface is joined to the
//! bridge, so no packet can leave.
//!
//! ```no_run
//! # fn main() -> std::io::Result<()> {
//! let lab = testkit::netns::Lab::new()?;
//! let server = lab.host("srv", "10.99.0.1/24")?;
//! let mut dnsmasq = server.command("dnsmasq").arg("--no-daemon").spawn()?;
//! lab.tap("tap0")?;
//! let mut guest = lab.command("qemu-system-x86_64").args(["-netdev", "tap,id=n0,ifname=tap0,script=no,downscript=no"]).spawn()?;
//! # guest.kill()?; dnsmasq.kill()?; Ok(())
//! # }
//! ```

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Name of the bridge inside the laboratory's namespace.
pub const BRIDGE: &str = "br0";
/// Name of a host's one network interface inside its namespace.
pub const INTERFACE: &str = "eth0";
/// Start of every namespace name: `deploylab-PID-NUMBER-NAME`.
const PREFIX: &str = "deploylab";
/// Linux allows 15 bytes for an interface name; `v-` stands before a host's.
const MAX_HOST_NAME: usize = 13;
const MAX_INTERFACE_NAME: usize = 15;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A bridge in a namespace of its own. Dropping it removes the namespace and ends
/// the processes that still run in it.
#[derive(Debug)]
pub struct Lab {
    namespace: Namespace,
    number: u32,
}

/// A namespace with one interface, [`INTERFACE`], on the laboratory's bridge.
/// Dropping it removes it and ends the processes that still run in it.
#[derive(Debug)]
pub struct Host {
    namespace: Namespace,
    address: Option<String>,
}

impl Lab {
    /// Makes the bridge. Also removes what an earlier, killed test run left behind.
    ///
    /// # Errors
    /// Not root, or `ip` is missing or fails; the text says what to do.
    pub fn new() -> io::Result<Lab> {
        require("ip", "iproute2")?;
        remove_leftovers();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let namespace = Namespace::new(number, "bridge")?;
        // No forward delay: a port of the bridge works at once, as on a switch with
        // "port fast". No snooping: multicast floods, as on a switch without querier.
        namespace.ip(&[
            "link",
            "add",
            BRIDGE,
            "type",
            "bridge",
            "forward_delay",
            "0",
            "mcast_snooping",
            "0",
        ])?;
        namespace.ip(&["link", "set", BRIDGE, "up"])?;
        Ok(Lab { namespace, number })
    }

    /// Adds a host with an address, as `10.99.0.1/24`.
    ///
    /// # Errors
    /// The name is too long or taken, or `ip` refuses the address.
    pub fn host(&self, name: &str, address: &str) -> io::Result<Host> {
        let mut host = self.host_without_address(name)?;
        host.namespace
            .ip(&["addr", "add", address, "brd", "+", "dev", INTERFACE])?;
        // Programs that listen on all interfaces want a way to 255.255.255.255.
        host.namespace
            .ip(&["route", "add", "default", "dev", INTERFACE])?;
        host.address = Some(address.split('/').next().unwrap_or(address).to_owned());
        Ok(host)
    }

    /// Adds a host whose interface is up and has no address yet: a DHCP client.
    ///
    /// # Errors
    /// As [`Lab::host`].
    pub fn host_without_address(&self, name: &str) -> io::Result<Host> {
        check_name(name, MAX_HOST_NAME)?;
        let namespace = Namespace::new(self.number, name)?;
        let port = format!("v-{name}");
        self.namespace.ip(&[
            "link",
            "add",
            &port,
            "type",
            "veth",
            "peer",
            "name",
            INTERFACE,
            "netns",
            &namespace.name,
        ])?;
        self.namespace
            .ip(&["link", "set", &port, "master", BRIDGE, "up"])?;
        // Packets that a program gives out as one are apart on a cable: else a rule that
        // loses packets would lose many at once, and count them as one.
        namespace.ip(&["link", "set", INTERFACE, "gso_max_segs", "1", "up"])?;
        Ok(Host {
            namespace,
            address: None,
        })
    }

    /// Adds a tap device to the bridge, for a virtual machine that [`Lab::command`] starts.
    ///
    /// # Errors
    /// The name is too long or taken, or there is no `/dev/net/tun`.
    pub fn tap(&self, name: &str) -> io::Result<()> {
        check_name(name, MAX_INTERFACE_NAME)?;
        self.namespace
            .ip(&["tuntap", "add", "dev", name, "mode", "tap"])?;
        self.namespace
            .ip(&["link", "set", name, "master", BRIDGE, "up"])
    }

    /// Unplugs (`false`) or plugs in (`true`) a port of the bridge: a tap, or `v-HOST`.
    ///
    /// # Errors
    /// There is no such port.
    pub fn set_port(&self, port: &str, up: bool) -> io::Result<()> {
        self.namespace
            .ip(&["link", "set", port, if up { "up" } else { "down" }])
    }

    /// A command that runs in the bridge's namespace, where the taps are.
    pub fn command(&self, program: &str) -> Command {
        self.namespace.command(program)
    }

    /// Name of the bridge's namespace, for `ip netns` by hand.
    pub fn namespace(&self) -> &str {
        &self.namespace.name
    }
}

impl Host {
    /// A command that runs on this host, through `ip netns exec`.
    pub fn command(&self, program: &str) -> Command {
        self.namespace.command(program)
    }

    /// Starts a thread that lives on this host: sockets that it opens, and those of the
    /// threads it starts, are the host's. An async runtime made inside it belongs there too.
    ///
    /// # Errors
    /// The namespace cannot be opened or the thread not started. Failure to enter is
    /// what the thread returns.
    pub fn spawn<T, F>(&self, work: F) -> io::Result<thread::JoinHandle<io::Result<T>>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let namespace = File::open(self.namespace.path())?;
        thread::Builder::new()
            .name(self.namespace.name.clone())
            .spawn(move || {
                setns(&namespace, CloneFlags::CLONE_NEWNET)?;
                Ok(work())
            })
    }

    /// Runs a closure on this host and waits for it.
    ///
    /// # Errors
    /// As [`Host::spawn`]; a panic of the closure is an error too.
    pub fn run<T, F>(&self, work: F) -> io::Result<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.spawn(work)?
            .join()
            .map_err(|_| io::Error::other("the closure panicked on the laboratory host"))?
    }

    /// The host's address without its prefix length, if it was given one.
    pub fn address(&self) -> Option<&str> {
        self.address.as_deref()
    }

    /// Name of the host's namespace, for `ip netns` by hand.
    pub fn namespace(&self) -> &str {
        &self.namespace.name
    }
}

/// Says what to install when a program that a test needs is missing.
///
/// # Errors
/// The program is on no folder of `PATH`, nor in `/usr/sbin` or `/sbin`.
pub fn require(program: &str, debian_package: &str) -> io::Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    if std::env::split_paths(&path)
        .chain(extra)
        .any(|folder| folder.join(program).is_file())
    {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        format!("{program} is missing, which this test needs: apt-get install {debian_package}"),
    ))
}

#[derive(Debug)]
struct Namespace {
    name: String,
}

impl Namespace {
    fn new(number: u32, name: &str) -> io::Result<Namespace> {
        let name = format!("{PREFIX}-{}-{number}-{name}", std::process::id());
        ip(&["netns", "add", &name])?;
        let namespace = Namespace { name };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    fn ip(&self, arguments: &[&str]) -> io::Result<()> {
        let mut all = vec!["-n", &self.name];
        all.extend_from_slice(arguments);
        ip(&all)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Ends what still runs in a namespace and removes it. Never fails: it runs in drops.
fn remove(namespace: &str) {
    let own = std::process::id();
    if let Ok(output) = Command::new("ip")
        .args(["netns", "pids", namespace])
        .output()
    {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        for pid in text
            .split_whitespace()
            .filter_map(|word| word.parse::<i32>().ok())
        {
            if u32::try_from(pid) != Ok(own) {
                // It may have ended by itself in between.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
    if let Err(error) = ip(&["netns", "del", namespace]) {
        eprintln!("namespace {namespace} is left behind: {error}");
    }
}

/// Removes the namespaces of test processes that are no more, with what runs in them.
pub fn remove_leftovers() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if owner(&name).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            remove(&name);
        }
    }
}

/// The process id in a namespace name of ours.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?
        .strip_prefix('-')?
        .split('-')
        .next()?
        .parse()
        .ok()
}

fn check_name(name: &str, longest: usize) -> io::Result<()> {
    let sound = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric());
    if sound && name.len() <= longest {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("\"{name}\" is no name for a link: 1 to {longest} ASCII letters and digits"),
    ))
}

fn ip(arguments: &[&str]) -> io::Result<()> {
    let output = Command::new("ip").args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!(
        "\"ip {}\" failed (laboratories need root and network namespaces): {said}",
        arguments.join(" ")
    )))
}

#[cfg(test)]
mod tests {
    use super::{INTERFACE, Lab, check_name, owner, require};
    use std::net::UdpSocket;

    #[test]
    fn hosts_reach_each_other_and_vanish_on_drop() {
        let lab = Lab::new().unwrap();
        let a = lab.host("a", "10.99.0.1/24").unwrap();
        let b = lab.host("b", "10.99.0.2/24").unwrap();
        let names = [
            lab.namespace().to_owned(),
            a.namespace().to_owned(),
            b.namespace().to_owned(),
        ];

        let socket = a
            .run(|| UdpSocket::bind("10.99.0.1:7000").unwrap())
            .unwrap();
        let sent = b.run(|| {
            UdpSocket::bind("10.99.0.2:0")
                .unwrap()
                .send_to(b"hello", "10.99.0.1:7000")
                .unwrap()
        });
        assert_eq!(sent.unwrap(), 5);
        let mut buffer = [0u8; 16];
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!(
            (&buffer[..length], from.ip().to_string()),
            (&b"hello"[..], "10.99.0.2".to_owned())
        );

        // The test itself stays where it was: that address is nobody's here.
        assert!(UdpSocket::bind("10.99.0.1:7000").is_err());

        let mut left_running = b.command("sleep").arg("1000").spawn().unwrap();
        drop((a, b, lab));
        assert!(
            !left_running.wait().unwrap().success(),
            "killed with its namespace"
        );
        for name in names {
            assert!(
                !std::path::Path::new("/run/netns").join(&name).exists(),
                "{name} is left"
            );
        }
    }

    #[test]
    fn taps_join_the_bridge() {
        let lab = Lab::new().unwrap();
        lab.tap("tap0").unwrap();
        let output = lab
            .command("ip")
            .args(["-o", "link", "show", "master", super::BRIDGE])
            .output()
            .unwrap();
        assert!(
            String::from_utf8_lossy(&output.stdout).contains("tap0"),
            "{output:?}"
        );
        assert!(lab.tap("a-name-beyond-15").is_err());
        lab.set_port("tap0", false).unwrap();
        assert!(lab.set_port("tap9", false).is_err());
    }

    #[test]
    fn hosts_without_address_have_a_link_only() {
        let lab = Lab::new().unwrap();
        let host = lab.host_without_address("cli").unwrap();
        let output = host
            .command("ip")
            .args(["-4", "-o", "addr", "show", "dev", INTERFACE])
            .output()
            .unwrap();
        assert!(output.status.success());
        assert_eq!(String::from_utf8_lossy(&output.stdout), "");
        assert_eq!(host.address(), None);
    }

    #[test]
    fn names_are_ours_only_with_prefix_and_process_id() {
        assert_eq!(owner("deploylab-123-0-bridge"), Some(123));
        assert_eq!(owner("deploylab-x-0-bridge"), None);
        assert_eq!(owner("somebody-123-0"), None);
        assert!(check_name("srv", 13).is_ok());
        for bad in ["", "a b", "-x", "fourteenletter"] {
            assert!(check_name(bad, 13).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_missing_program_is_told_with_its_package() {
        let error = require("no-such-program-here", "its-package").unwrap_err();
        assert!(error.to_string().contains("apt-get install its-package"));
    }
}
