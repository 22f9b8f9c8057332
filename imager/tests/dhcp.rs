//! The DHCP client and the kernel's network configuration against a foreign DHCP server
//! (dnsmasq) in a namespace laboratory. Wants root, iproute2 and dnsmasq.
//!
//! Owns: that bytes on a real link do what the state machine's tests say. Does not own:
//! lost and mangled packets (the unit tests).

use imager::target::net::configure;
use imager::target::net::dhcp::socket::Socket;
use imager::target::net::dhcp::{Event, Identity, Lease, Machine};
use imager::target::net::netlink::Request;
use imager::target::net::rtnl::Rtnl;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use testkit::netns::{Host, INTERFACE, Lab, require};

/// Far beyond what a busy machine needs; the test fails where it is reached.
const LIMIT: Duration = Duration::from_secs(60);

/// dnsmasq on a host of the laboratory; ends with the value.
struct Dnsmasq(Child);

impl Dnsmasq {
    fn start(host: &Host, folder: &Path) -> Self {
        require("dnsmasq", "dnsmasq-base").unwrap();
        let child = host
            .command("dnsmasq")
            .args([
                "--conf-file=/dev/null",
                "--port=0",
                "--no-daemon",
                "--no-ping",
            ])
            .args([
                "--interface=eth0",
                "--bind-interfaces",
                "--user=root",
                "--pid-file",
            ])
            .arg(format!(
                "--dhcp-leasefile={}",
                folder.join("leases").display()
            ))
            .arg("--dhcp-range=10.99.0.50,10.99.0.60,255.255.255.0,1h")
            .args([
                "--dhcp-option=3,10.99.0.1",
                "--dhcp-option=6,10.99.0.2,10.99.0.3",
            ])
            .args([
                "--dhcp-option=15,lab.example",
                "--dhcp-option=186,10.99.0.1",
            ])
            // 26501, as dnsmasq wants bytes.
            .arg("--dhcp-option=190,67:85")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Dnsmasq(child)
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn identity(mac: &str) -> Identity {
    let bytes: Vec<u8> = mac
        .trim()
        .split(':')
        .map(|pair| u8::from_str_radix(pair, 16).unwrap())
        .collect();
    Identity {
        mac: bytes.try_into().unwrap(),
        uuid: Some([7; 16]),
    }
}

/// Number and Ethernet address of the client's interface, as `ip` tells them.
fn interface(host: &Host) -> (u32, String) {
    let output = host
        .command("ip")
        .args(["-o", "link", "show", INTERFACE])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let index = text.split(':').next().unwrap().trim().parse().unwrap();
    let mac = text
        .split("link/ether ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap();
    (index, mac.to_owned())
}

/// Runs the client until it has an address.
fn obtain(identity: Identity) -> io::Result<Lease> {
    let socket = Socket::open(INTERFACE)?;
    let origin = Instant::now();
    let mut machine = Machine::new(identity, 0x1234_5678, Duration::ZERO);
    let mut buffer = vec![0; 2048];
    while origin.elapsed() < LIMIT {
        if let (Some(packet), _) = machine.poll(origin.elapsed()) {
            socket.send(&packet)?;
        }
        let wait = machine.due().saturating_sub(origin.elapsed());
        if let Some(bytes) = socket.receive(&mut buffer, wait)?
            && let Some(Event::Bound(lease)) = machine.receive(origin.elapsed(), bytes)
        {
            return Ok(lease);
        }
    }
    Err(io::Error::other(format!(
        "no address; heard: {:?}",
        machine.heard()
    )))
}

#[test]
fn an_address_is_obtained_put_into_force_and_taken_away_again() {
    let lab = Lab::new().unwrap();
    let server = lab.host("srv", "10.99.0.1/24").unwrap();
    let client = lab.host_without_address("cli").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let etc: PathBuf = folder.path().join("etc");
    let _dnsmasq = Dnsmasq::start(&server, folder.path());
    let listener = server
        .run(|| TcpListener::bind("10.99.0.1:26501"))
        .unwrap()
        .unwrap();

    let (index, mac) = interface(&client);
    let into = etc.clone();
    let (lease, reached, configured) = client
        .run(move || -> io::Result<_> {
            Rtnl::open()?.request(Request::LinkUp { index })?;
            let lease = obtain(identity(&mac))?;
            let configured = configure::apply(index, &lease)?;
            // Twice is once.
            configure::apply(index, &lease)?;
            configure::name_servers(&lease, &into)?;
            let reached = TcpStream::connect_timeout(&"10.99.0.1:26501".parse().unwrap(), LIMIT);
            Ok((lease, reached.map(drop), configured))
        })
        .unwrap()
        .unwrap();

    assert_eq!(lease.address.octets()[..3], [10, 99, 0]);
    assert!(
        (50..=60).contains(&lease.address.octets()[3]),
        "{}",
        lease.address
    );
    assert_eq!(
        (lease.prefix, lease.server),
        (24, Ipv4Addr::new(10, 99, 0, 1))
    );
    assert_eq!(lease.routers, [Ipv4Addr::new(10, 99, 0, 1)]);
    assert_eq!(lease.domain.as_deref(), Some("lab.example"));
    assert_eq!(lease.valid, Some(Duration::from_secs(3600)));
    assert_eq!(lease.announced.options, ["https://10.99.0.1:26501"]);
    let resolv = std::fs::read_to_string(etc.join("resolv.conf")).unwrap();
    assert!(
        resolv.contains("nameserver 10.99.0.2\nnameserver 10.99.0.3\n"),
        "{resolv}"
    );
    reached.unwrap();
    drop(listener);

    let show = |what: &[&str]| {
        let output = client.command("ip").args(what).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let address = show(&["-4", "-o", "addr", "show", INTERFACE]);
    assert!(
        address.contains(&format!("inet {}/24 brd 10.99.0.255", lease.address)),
        "{address}"
    );
    assert_eq!(address.lines().count(), 1, "{address}");
    let route = show(&["route", "show", "default"]);
    assert!(
        route.starts_with("default via 10.99.0.1 dev eth0 proto dhcp"),
        "{route}"
    );

    client
        .run(move || configure::undo(configured).and_then(|()| configure::undo(configured)))
        .unwrap()
        .unwrap();
    assert_eq!(show(&["-4", "-o", "addr", "show", INTERFACE]), "");
}
