//! What the tests of network boot in namespaces share: our server and dnsmasq on hosts of
//! a laboratory, and clients made of packets.
//!
//! Owns: starting and stopping them. Does not own: what is expected of them.
#![allow(dead_code)] // no test uses everything

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use server::db::Db;
use server::db::dhcp::Leases;
use server::netboot::dhcp::Packet;
use server::netboot::{Board, LeaseStore, NetbootConfig, ProxyMode, Shared, start};
use socket2::{Domain, Socket, Type};
use testkit::netns::{Host, INTERFACE, require};
use tokio::sync::watch;

/// Address of our server.
pub const OURS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
/// Kind of a message.
pub const DISCOVER: u8 = 1;
/// Kind of a message.
pub const REQUEST: u8 = 3;
/// Kind of a message.
pub const INFORM: u8 = 8;

/// Settings of our server, whose boot files are made in a folder.
pub fn config(pxe_dir: &Path) -> NetbootConfig {
    for name in ["undionly.kpxe", "snponly.efi", "grubnetx64.efi"] {
        std::fs::write(pxe_dir.join(name), format!("the content of {name}")).unwrap();
    }
    NetbootConfig {
        interface: None,
        server_ip: OURS,
        http_port: 26500,
        data_port: 26501,
        pin: "00".to_owned(),
        signer: String::new(),
        pxe_dir: pxe_dir.to_owned(),
        tftp: true,
        proxy_dhcp: ProxyMode::On,
        leases: None,
        extra_kernel_args: String::new(),
    }
}

/// Network boot on a host, until it is dropped.
pub struct Running {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<io::Result<()>>>,
    pub log: Log,
    pub board: Arc<Board>,
}

impl Running {
    pub fn on(host: &Host, config: NetbootConfig) -> Running {
        let folder = config.pxe_dir.clone();
        Running::with_state(host, config, &folder)
    }

    /// With its database in a folder.
    pub fn with_state(host: &Host, config: NetbootConfig, state: &Path) -> Running {
        let url = format!("sqlite://{}", state.join("db.sqlite").display());
        let board = Arc::new(Board::default());
        let shown = Arc::clone(&board);
        let (stop, shutdown) = watch::channel(false);
        let (ready, is_ready) = std::sync::mpsc::channel();
        let log = Log::default();
        let writer = log.clone();
        let work = move || {
            let subscriber = tracing_subscriber::fmt()
                .with_ansi(false)
                .with_writer(move || writer.clone())
                .finish();
            tracing::subscriber::with_default(subscriber, || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(async move {
                    let db = Arc::new(Db::open(&url).await.unwrap());
                    let leases: Arc<dyn LeaseStore> = Arc::new(Leases(Arc::clone(&db)));
                    let leases = Some(leases);
                    let shared = Shared { board, leases };
                    let netboot = start(&config, &shared, shutdown).await.unwrap();
                    ready.send(()).unwrap();
                    netboot.wait().await;
                    db.close().await;
                });
            });
        };
        let thread = Some(host.spawn(work).unwrap());
        is_ready.recv().expect("network boot starts");
        Running {
            stop,
            thread,
            log,
            board: shown,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // A panic there already failed the test.
            let _ = thread.join();
        }
    }
}

/// What the server said.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// dnsmasq as a DHCP server for 10.99.0.100 and up, until it is dropped.
pub struct Dnsmasq(Child);

impl Dnsmasq {
    pub fn on(host: &Host, folder: &Path, more: &[&str]) -> Dnsmasq {
        let range = "--dhcp-range=10.99.0.100,10.99.0.150,255.255.255.0,1h";
        let interface = format!("--interface={INTERFACE}");
        let mut all = vec![range, &interface, "--bind-interfaces"];
        all.extend(more);
        Dnsmasq::with(host, folder, &all)
    }

    /// With nothing that a test does not name.
    pub fn with(host: &Host, folder: &Path, options: &[&str]) -> Dnsmasq {
        require("dnsmasq", "dnsmasq-base").unwrap();
        let leases = folder.join("leases");
        let child = host
            .command("dnsmasq")
            .args([
                "--conf-file=/dev/null",
                "--port=0",
                "--no-daemon",
                "--no-ping",
                "--pid-file=",
            ])
            .arg(format!("--dhcp-leasefile={}", leases.display()))
            .args(options)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Dnsmasq(child)
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A request of a BIOS PXE client that wants broadcasts.
pub fn request(kind: u8, ciaddr: Ipv4Addr, giaddr: Ipv4Addr) -> Vec<u8> {
    let unspecified = Ipv4Addr::UNSPECIFIED;
    let mut chaddr = [0; 16];
    chaddr[..6].copy_from_slice(&[0x52, 0x54, 0, 0x12, 0x34, 0x56]);
    Packet {
        op: 1,
        htype: 1,
        hlen: 6,
        hops: 0,
        xid: 0x1234_5678,
        secs: 0,
        flags: 0x8000,
        ciaddr,
        yiaddr: unspecified,
        siaddr: unspecified,
        giaddr,
        chaddr,
        sname: [0; 64],
        file: [0; 128],
        options: vec![
            (53, vec![kind]),
            (55, vec![1, 3, 43, 60, 66, 67]),
            (60, b"PXEClient:Arch:00000:UNDI:002001".to_vec()),
            (93, vec![0, 0]),
            (97, vec![0; 17]),
        ],
    }
    .encode()
}

pub fn socket(port: u16) -> UdpSocket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    socket.set_broadcast(true).unwrap();
    // A program that another test starts may hold a copy of an earlier socket for a moment.
    socket.set_reuse_address(true).unwrap();
    socket.bind_device(Some(INTERFACE.as_bytes())).unwrap();
    socket
        .bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())
        .unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    socket.into()
}

/// Sends a packet again and again until the answers satisfy; fails after 40 tries.
pub fn ask(
    port: u16,
    packet: &[u8],
    to: &str,
    satisfied: impl FnMut(&[Packet]) -> bool,
) -> Vec<Packet> {
    ask_all(port, &[packet], to, satisfied)
}

/// As [`ask`], with several packets in order.
pub fn ask_all(
    port: u16,
    packets: &[&[u8]],
    to: &str,
    mut satisfied: impl FnMut(&[Packet]) -> bool,
) -> Vec<Packet> {
    let (socket, mut answers, mut buffer) = (socket(port), Vec::new(), [0; 2000]);
    for _ in 0..40 {
        for packet in packets {
            socket.send_to(packet, to).unwrap();
        }
        while let Ok((length, _)) = socket.recv_from(&mut buffer) {
            answers.push(Packet::decode(&buffer[..length]).unwrap());
            if satisfied(&answers) {
                return answers;
            }
        }
    }
    panic!("the answers do not suffice: {answers:#?}");
}

/// A DISCOVER or REQUEST of an ordinary client, known by the last byte of its hardware
/// address; `options` follow the kind of the message.
pub fn client_packet(last: u8, kind: u8, ciaddr: Ipv4Addr, options: &[(u8, &[u8])]) -> Vec<u8> {
    let mut packet = Packet::decode(&request(kind, ciaddr, Ipv4Addr::UNSPECIFIED)).unwrap();
    packet.chaddr[5] = last;
    packet.options.truncate(1);
    let more = options.iter().map(|(code, value)| (*code, value.to_vec()));
    packet.options.extend(more);
    packet.encode()
}

/// Waits until something is so; fails after half a minute.
pub fn wait_for(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..300 {
        if so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("waited in vain: {what}");
}
