//! proxyDHCP in network namespaces: beside dnsmasq as the address server, on another
//! host and on the same one, behind a relay, and against a rival.

mod netboot_support;

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use server::netboot::dhcp::Packet;
use server::netboot::proxy::Proxy;
use server::netboot::{NetbootConfig, NetbootError, ProxyMode, start};
use socket2::{Domain, Socket, Type};
use testkit::netns::{Host, INTERFACE, Lab, require};
use tokio::sync::watch;

const OURS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
const DISCOVER: u8 = 1;
const REQUEST: u8 = 3;
const INFORM: u8 = 8;

fn config(pxe_dir: &Path) -> NetbootConfig {
    for name in ["undionly.kpxe", "snponly.efi"] {
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
        extra_kernel_args: String::new(),
    }
}

/// Network boot on a host, until it is dropped.
struct Running {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<io::Result<()>>>,
    log: Log,
}

impl Running {
    fn on(host: &Host, config: NetbootConfig) -> Running {
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
                    let netboot = start(&config, shutdown).await.unwrap();
                    ready.send(()).unwrap();
                    netboot.wait().await;
                });
            });
        };
        let thread = Some(host.spawn(work).unwrap());
        is_ready.recv().expect("network boot starts");
        Running { stop, thread, log }
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

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
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
struct Dnsmasq(Child);

impl Dnsmasq {
    fn on(host: &Host, folder: &Path, more: &[&str]) -> Dnsmasq {
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
            .arg(format!("--interface={INTERFACE}"))
            .arg("--bind-interfaces")
            .arg(format!("--dhcp-leasefile={}", leases.display()))
            .arg("--dhcp-range=10.99.0.100,10.99.0.150,255.255.255.0,1h")
            .args(more)
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
fn request(kind: u8, ciaddr: Ipv4Addr, giaddr: Ipv4Addr) -> Vec<u8> {
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

fn socket(port: u16) -> UdpSocket {
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
fn ask(
    port: u16,
    packet: &[u8],
    to: &str,
    satisfied: impl FnMut(&[Packet]) -> bool,
) -> Vec<Packet> {
    ask_all(port, &[packet], to, satisfied)
}

/// As [`ask`], with several packets in order.
fn ask_all(
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

fn is_ours(packet: &Packet) -> bool {
    packet.file.starts_with(b"undionly.kpxe\0")
}

fn gives_address(packet: &Packet) -> bool {
    !packet.yiaddr.is_unspecified()
}

fn discover_both(client: &Host) -> (Packet, Packet) {
    let discover = || request(DISCOVER, Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED);
    let answers = client.run(move || {
        ask(68, &discover(), "255.255.255.255:67", |all| {
            all.iter().any(is_ours) && all.iter().any(gives_address)
        })
    });
    let answers = answers.unwrap();
    let find =
        |which: fn(&Packet) -> bool| answers.iter().find(|packet| which(packet)).unwrap().clone();
    (find(gives_address), find(is_ours))
}

#[test]
fn a_client_gets_its_address_from_dnsmasq_and_its_boot_file_from_us() {
    let (folder, lab) = (tempfile::tempdir().unwrap(), Lab::new().unwrap());
    let foreign = lab.host("dhcp", "10.99.0.1/24").unwrap();
    let ours = lab.host("srv", "10.99.0.2/24").unwrap();
    let client = lab.host_without_address("cli").unwrap();
    let _dnsmasq = Dnsmasq::on(&foreign, folder.path(), &[]);
    let running = Running::on(&ours, config(folder.path()));

    let (address, boot) = discover_both(&client);
    assert_eq!(
        address.address_option(54),
        Some(Ipv4Addr::new(10, 99, 0, 1))
    );
    assert!(
        address.file.iter().all(|byte| *byte == 0),
        "dnsmasq names no boot file"
    );
    assert_eq!((boot.siaddr, boot.yiaddr), (OURS, Ipv4Addr::UNSPECIFIED));
    assert_eq!(boot.option(60).unwrap(), b"PXEClient");
    assert_eq!(boot.option(97).unwrap(), [0; 17]);

    // With its address, the client can ask on 4011 too, and fetch the file.
    let own = address.yiaddr;
    let cidr = format!("{own}/24");
    let done = client
        .command("ip")
        .args(["addr", "add", &cidr, "dev", INTERFACE])
        .status()
        .unwrap();
    assert!(done.success());
    let acknowledged = client
        .run(move || {
            ask(
                68,
                &request(REQUEST, own, Ipv4Addr::UNSPECIFIED),
                "10.99.0.2:4011",
                |all| !all.is_empty(),
            )
        })
        .unwrap();
    assert_eq!(acknowledged[0].option(53).unwrap(), [5]);
    assert!(is_ours(&acknowledged[0]));
    let fetched = client
        .run(|| {
            netboot_support::fetch(
                "10.99.0.2:69".parse().unwrap(),
                "undionly.kpxe",
                &[("tsize", "0")],
                |_| false,
            )
        })
        .unwrap()
        .unwrap();
    assert_eq!(fetched.bytes, b"the content of undionly.kpxe");
    assert_eq!(
        fetched.options,
        [("tsize".to_owned(), fetched.bytes.len().to_string())]
    );

    let log = running.log.text();
    assert!(
        log.contains("network boot offered") && log.contains("52:54:00:12:34:56"),
        "{log}"
    );
    assert!(
        !log.contains("dhcp-conflict"),
        "an address server is no rival: {log}"
    );
}

#[test]
fn an_address_server_on_the_same_host_shares_port_67() {
    let (folder, lab) = (tempfile::tempdir().unwrap(), Lab::new().unwrap());
    let both = lab.host("srv", "10.99.0.2/24").unwrap();
    let client = lab.host_without_address("cli").unwrap();
    let _dnsmasq = Dnsmasq::on(&both, folder.path(), &[]);
    // Its answer says that it has its port.
    let discover = request(DISCOVER, Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED);
    client
        .run(move || {
            ask(68, &discover, "255.255.255.255:67", |all| {
                all.iter().any(gives_address)
            })
        })
        .unwrap();

    let running = Running::on(&both, config(folder.path()));
    assert!(
        running.log.text().contains("dnsmasq (process "),
        "{}",
        running.log.text()
    );
    discover_both(&client);
}

#[test]
fn a_port_that_is_not_shared_leaves_4011_and_a_taken_4011_names_its_owner() {
    let (folder, lab) = (tempfile::tempdir().unwrap(), Lab::new().unwrap());
    let host = lab.host("srv", "10.99.0.2/24").unwrap();
    let settings = config(folder.path());
    let (on_67, on_4011) = host
        .run(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let _inside = runtime.enter();
            let _taken = UdpSocket::bind("0.0.0.0:67").unwrap();
            let first = Proxy::open(&settings).unwrap();
            // The first has 4011 now.
            (first.hears_port_67(), Proxy::open(&settings).map(|_| ()))
        })
        .unwrap();
    assert!(!on_67);
    let Err(NetbootError::PortTaken {
        port: 4011, owner, ..
    }) = on_4011
    else {
        panic!("{on_4011:?}")
    };
    assert!(
        owner.contains(&format!("(process {})", std::process::id())),
        "{owner}"
    );
}

#[test]
fn an_address_that_no_interface_has_is_told() {
    let (folder, lab) = (tempfile::tempdir().unwrap(), Lab::new().unwrap());
    let host = lab.host("srv", "10.99.0.7/24").unwrap();
    let settings = config(folder.path());
    let error = host
        .run(move || Proxy::open(&settings).map(|_| ()).unwrap_err())
        .unwrap();
    assert!(error.to_string().contains("10.99.0.2"), "{error}");
}

#[test]
fn a_relay_is_answered_on_port_67() {
    let (folder, lab) = (tempfile::tempdir().unwrap(), Lab::new().unwrap());
    let ours = lab.host("srv", "10.99.0.2/24").unwrap();
    let relay = lab.host("relay", "10.99.0.3/24").unwrap();
    let _running = Running::on(&ours, config(folder.path()));
    let relay_ip = Ipv4Addr::new(10, 99, 0, 3);
    let discover = request(DISCOVER, Ipv4Addr::UNSPECIFIED, relay_ip);
    let answers = relay
        .run(move || ask(67, &discover, "10.99.0.2:67", |all| !all.is_empty()))
        .unwrap();
    assert!(is_ours(&answers[0]));
    assert_eq!(answers[0].giaddr, relay_ip);
}

#[test]
fn a_rival_is_told_once() {
    let (folder, lab) = (tempfile::tempdir().unwrap(), Lab::new().unwrap());
    let foreign = lab.host("dhcp", "10.99.0.1/24").unwrap();
    let ours = lab.host("srv", "10.99.0.2/24").unwrap();
    let client = lab.host_without_address("cli").unwrap();
    let _dnsmasq = Dnsmasq::on(&foreign, folder.path(), &["--dhcp-boot=pxelinux.0"]);
    let running = Running::on(&ours, config(folder.path()));
    let log = running.log.clone();
    client
        .run(move || {
            let discover = request(DISCOVER, Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED);
            ask(68, &discover, "255.255.255.255:67", |all| {
                all.iter().filter(|packet| gives_address(packet)).count() > 1
                    && log.text().contains("dhcp-conflict")
            })
        })
        .unwrap();
    // Its offers go on.
    for _ in 0..3 {
        discover_both(&client);
    }
    let log = running.log.text();
    assert_eq!(log.matches("dhcp-conflict").count(), 1, "{log}");
    assert!(log.contains("10.99.0.1"), "{log}");
}

#[test]
fn clients_that_do_not_boot_are_left_alone() {
    let (folder, lab) = (tempfile::tempdir().unwrap(), Lab::new().unwrap());
    let ours = lab.host("srv", "10.99.0.2/24").unwrap();
    let client = lab.host("cli", "10.99.0.9/24").unwrap();
    let _running = Running::on(&ours, config(folder.path()));
    let answers = client.run(|| {
        let own = Ipv4Addr::new(10, 99, 0, 9);
        let mut ordinary = Packet::decode(&request(INFORM, own, Ipv4Addr::UNSPECIFIED)).unwrap();
        ordinary.options.retain(|(code, _)| *code == 53);
        ordinary.xid = 1;
        let boot = request(INFORM, own, Ipv4Addr::UNSPECIFIED);
        // In order on one link: an answer to the first comes before that to the second.
        ask_all(68, &[&ordinary.encode(), &boot], "10.99.0.2:67", |all| {
            !all.is_empty()
        })
    });
    assert!(
        answers
            .unwrap()
            .iter()
            .all(|packet| packet.xid == 0x1234_5678)
    );
}
