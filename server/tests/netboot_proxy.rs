//! proxyDHCP in network namespaces: beside dnsmasq as the address server, on another
//! host and on the same one, behind a relay, and against a rival.

#[path = "netboot_support/lab.rs"]
mod lab;
mod netboot_support;

use std::net::{Ipv4Addr, UdpSocket};

use lab::{DISCOVER, Dnsmasq, INFORM, OURS, REQUEST, Running, ask, ask_all, config, request};
use server::netboot::dhcp::Packet;
use server::netboot::proxy::Proxy;
use server::netboot::{NetbootError, Shared};
use testkit::netns::{Host, INTERFACE, Lab};

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
            let first = Proxy::open(&settings, &Shared::default()).unwrap();
            // The first has 4011 now.
            (
                first.hears_port_67(),
                Proxy::open(&settings, &Shared::default()).map(|_| ()),
            )
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
        .run(move || {
            Proxy::open(&settings, &Shared::default())
                .map(|_| ())
                .unwrap_err()
        })
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
