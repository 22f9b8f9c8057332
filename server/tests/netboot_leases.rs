//! Leasing addresses in network namespaces: busybox's udhcpc as the client, dnsmasq as a
//! relay and as the server that must not be disturbed.

#[path = "netboot_support/lab.rs"]
mod lab;

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use lab::{
    DISCOVER, Dnsmasq, OURS, REQUEST, Running, ask, client_packet, config, request, wait_for,
};
use server::netboot::{LeaseConfig, NetbootConfig};
use testkit::netns::{Host, INTERFACE, Lab, require};
use wire::Code;

const NONE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const ROUTER: &str = "10.99.0.1";

fn leasing(folder: &Path, ranges: &[&str]) -> NetbootConfig {
    NetbootConfig {
        leases: Some(LeaseConfig {
            ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(),
            routers: vec![ROUTER.parse().unwrap()],
            name_servers: vec!["10.99.0.53".parse().unwrap()],
            seconds: 3600,
            settle: Duration::from_secs(1),
            grub: false,
        }),
        ..config(folder)
    }
}

/// What udhcpc was given, by the names of its script. `more` are its options.
fn udhcpc(
    host: &Host,
    folder: &Path,
    interface: &str,
    more: &[&str],
) -> Option<HashMap<String, String>> {
    require("busybox", "busybox-static").unwrap();
    let (script, result) = (folder.join("bound.sh"), folder.join("bound"));
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = bound ] && env >{}\nexit 0\n",
        result.display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let _ = std::fs::remove_file(&result);
    let output = host
        .command("busybox")
        .args([
            "udhcpc", "-f", "-q", "-n", "-t", "15", "-T", "1", "-i", interface, "-s",
        ])
        .arg(&script)
        .args(more)
        .output()
        .unwrap();
    let text = std::fs::read_to_string(&result).ok()?;
    assert!(output.status.success(), "{output:?}");
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    Some(pairs.map(|(n, v)| (n.to_owned(), v.to_owned())).collect())
}

fn ip_of(host: &Host, folder: &Path) -> String {
    udhcpc(host, folder, INTERFACE, &[]).expect("an address")["ip"].clone()
}

fn trouble(running: &Running, text: &str) -> bool {
    let troubles = running.board.troubles(0);
    troubles
        .iter()
        .any(|t| t.report.code == Code::DhcpConflict && t.report.found.contains(text))
}

#[test]
fn a_closed_network_is_served_and_a_restart_keeps_who_has_what() {
    let (folder, lab) = (tempfile::tempdir().unwrap(), Lab::new().unwrap());
    let ours = lab.host("srv", "10.99.0.2/24").unwrap();
    let hosts = ["a", "b", "c"].map(|name| lab.host_without_address(name).unwrap());
    let settings = leasing(folder.path(), &["10.99.0.100-10.99.0.101"]);
    let running = Running::on(&ours, settings.clone());
    wait_for("it leases", || {
        running.log.text().contains("addresses are leased")
    });
    let first = udhcpc(
        &hosts[0],
        folder.path(),
        INTERFACE,
        &["-x", "hostname:pc-a"],
    )
    .unwrap();
    let expected = [
        ("ip", "10.99.0.100"),
        ("subnet", "255.255.255.0"),
        ("router", ROUTER),
        ("dns", "10.99.0.53"),
        ("lease", "3600"),
        ("serverid", "10.99.0.2"),
        ("broadcast", "10.99.0.255"),
    ];
    for (name, value) in expected {
        assert_eq!(first.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert_eq!(ip_of(&hosts[1], folder.path()), "10.99.0.101");
    drop(running);

    let running = Running::on(&ours, settings);
    wait_for("it leases", || {
        running.log.text().contains("addresses are leased")
    });
    // In the other order: it remembers who had what.
    assert_eq!(ip_of(&hosts[1], folder.path()), "10.99.0.101");
    assert_eq!(ip_of(&hosts[0], folder.path()), "10.99.0.100");
    let view = running.board.view(server::db::now());
    assert_eq!((view.ranges[0].leased, view.ranges[0].free), (2, 0));
    assert_eq!((view.leases[0].host.as_str(), view.leases.len()), ("", 2));

    // A third machine: the pool is empty, and that is told with numbers.
    let discover = client_packet(3, DISCOVER, NONE, &[]);
    let log = running.log.clone();
    hosts[2]
        .run(move || {
            let socket = lab::socket(68);
            wait_for("it is told", || {
                socket.send_to(&discover, "255.255.255.255:67").unwrap();
                log.text().contains("has no free address")
            });
        })
        .unwrap();
    assert!(
        trouble(&running, "of 2 addresses 2 are leased"),
        "{:?}",
        running.board.troubles(0)
    );

    // Given back (from its address, which udhcpc leaves to its script), it is the third
    // machine's, and the trouble is over.
    let added = hosts[0]
        .command("ip")
        .args(["addr", "add", "10.99.0.100/24", "dev", INTERFACE])
        .status()
        .unwrap();
    assert!(added.success());
    // With -q it would not say so: it gives back what it has when it is stopped.
    let stopped = hosts[0]
        .command("timeout")
        .args([
            "4",
            "busybox",
            "udhcpc",
            "-f",
            "-R",
            "-i",
            INTERFACE,
            "-s",
            "/bin/true",
        ])
        .output()
        .unwrap();
    let given_back = running.log.text().contains("address given back");
    assert!(given_back, "{stopped:?}");
    assert_eq!(ip_of(&hosts[2], folder.path()), "10.99.0.100");
    assert!(!trouble(&running, "no free address"));
}

#[test]
fn nothing_is_leased_beside_another_server() {
    let (folder, lab) = (tempfile::tempdir().unwrap(), Lab::new().unwrap());
    let foreign = lab.host("dhcp", "10.99.0.1/24").unwrap();
    let ours = lab.host("srv", "10.99.0.2/24").unwrap();
    let client = lab.host_without_address("cli").unwrap();
    let _dnsmasq = Dnsmasq::on(&foreign, folder.path(), &[]);
    // It answers from here on.
    let discover = request(DISCOVER, NONE, NONE);
    client
        .run(move || ask(68, &discover, "255.255.255.255:67", |all| !all.is_empty()))
        .unwrap();
    let mut settings = leasing(folder.path(), &["10.99.0.200-10.99.0.220"]);
    if let Some(leases) = &mut settings.leases {
        leases.settle = Duration::from_secs(20);
    }
    let running = Running::on(&ours, settings);
    wait_for("the probe finds it", || trouble(&running, "10.99.0.1"));
    assert!(
        running.log.text().contains("dhcp-conflict"),
        "{}",
        running.log.text()
    );
    let state = &running.board.view(0).services[0].state;
    assert!(state.contains("stands aside for 10.99.0.1"), "{state}");

    // The other one gives the address, we the boot file.
    let discover = request(DISCOVER, NONE, NONE);
    let answers = client
        .run(move || {
            ask(68, &discover, "255.255.255.255:67", |all| {
                all.iter().any(|p| p.file.starts_with(b"undionly.kpxe\0"))
                    && all.iter().any(|p| !p.yiaddr.is_unspecified())
            })
        })
        .unwrap();
    for packet in answers {
        let ours = packet.address_option(54) == Some(OURS);
        assert_eq!(ours, packet.yiaddr.is_unspecified(), "{packet:?}");
    }
    assert!(!running.log.text().contains("addresses are leased"));
}

#[test]
fn a_server_that_appears_later_stops_new_leases_only() {
    let (folder, lab) = (tempfile::tempdir().unwrap(), Lab::new().unwrap());
    let foreign = lab.host("dhcp", "10.99.0.1/24").unwrap();
    let ours = lab.host("srv", "10.99.0.2/24").unwrap();
    let client = lab.host_without_address("cli").unwrap();
    let running = Running::on(&ours, leasing(folder.path(), &["10.99.0.200-10.99.0.220"]));
    wait_for("it leases", || {
        running.log.text().contains("addresses are leased")
    });
    let own = Ipv4Addr::new(10, 99, 0, 200);
    client
        .run(move || {
            let discover = client_packet(1, DISCOVER, NONE, &[]);
            ask(68, &discover, "255.255.255.255:67", |all| {
                all.iter().any(|p| p.yiaddr == own)
            });
            let (server, address) = (OURS.octets(), own.octets());
            let named: [(u8, &[u8]); 2] = [(54, &server), (50, &address)];
            let take = client_packet(1, REQUEST, NONE, &named);
            ask(68, &take, "255.255.255.255:67", |all| {
                all.iter().any(|p| p.option(53) == Some(vec![5]))
            });
        })
        .unwrap();

    let _dnsmasq = Dnsmasq::on(&foreign, folder.path(), &[]);
    // Another client asks; the other server's offer is overheard.
    let log = running.log.clone();
    client
        .run(move || {
            let discover = client_packet(2, DISCOVER, NONE, &[]);
            ask(68, &discover, "255.255.255.255:67", |all| {
                !all.is_empty() && log.text().contains("dhcp-conflict")
            })
        })
        .unwrap();
    assert!(trouble(&running, "the DHCP server 10.99.0.1"));
    let added = client
        .command("ip")
        .args(["addr", "add", "10.99.0.200/24", "dev", INTERFACE])
        .status()
        .unwrap();
    assert!(added.success());
    let answers = client
        .run(move || {
            // Who asks anew is left to the other server; ours comes first or not at all.
            let discover = client_packet(3, DISCOVER, NONE, &[]);
            let mut answers = ask(68, &discover, "255.255.255.255:67", |all| all.len() > 2);
            let renew = client_packet(1, REQUEST, own, &[]);
            answers.retain(|p| p.chaddr[5] == 3);
            (
                answers,
                ask(68, &renew, "10.99.0.2:67", |all| {
                    all.iter().any(|p| p.yiaddr == own)
                }),
            )
        })
        .unwrap();
    let foreigner = Some(Ipv4Addr::new(10, 99, 0, 1));
    assert!(
        answers.0.iter().all(|p| p.address_option(54) == foreigner),
        "{:?}",
        answers.0
    );
    let renewed = answers.1.iter().find(|p| p.yiaddr == own).unwrap();
    assert_eq!(
        (renewed.option(53).unwrap(), renewed.address_option(54)),
        (vec![5], Some(OURS))
    );
}

#[test]
fn a_machine_behind_a_relay_gets_an_address_of_its_subnet() {
    let (folder, lab) = (tempfile::tempdir().unwrap(), Lab::new().unwrap());
    let ours = lab.host("srv", "10.99.0.2/24").unwrap();
    let relay = lab.host("relay", "10.99.0.3/24").unwrap();
    let client = lab.host_without_address("cli").unwrap();
    // A second network between relay and client.
    let ip = |host: &Host, line: &str| {
        let done = host.command("ip").args(line.split(' ')).status().unwrap();
        assert!(done.success(), "{line}");
    };
    let peer = format!(
        "link add low0 type veth peer name high0 netns {}",
        client.namespace()
    );
    ip(&relay, &peer);
    ip(&relay, "addr add 10.98.0.1/24 dev low0");
    ip(&relay, "link set low0 up");
    ip(&client, "link set high0 up");
    let _relay = Dnsmasq::with(&relay, folder.path(), &["--dhcp-relay=10.98.0.1,10.99.0.2"]);
    let mut settings = leasing(
        folder.path(),
        &["10.99.0.100-10.99.0.101", "10.98.0.50-10.98.0.59/24"],
    );
    if let Some(leases) = &mut settings.leases {
        leases.routers.push("10.98.0.1".parse().unwrap());
    }
    let running = Running::on(&ours, settings);
    wait_for("it leases", || {
        running.log.text().contains("addresses are leased")
    });
    let given =
        udhcpc(&client, folder.path(), "high0", &[]).expect("an address by way of the relay");
    assert_eq!(
        (given["ip"].as_str(), given["router"].as_str()),
        ("10.98.0.50", "10.98.0.1")
    );
}

#[test]
fn a_taken_port_67_is_told_with_its_owner() {
    let (folder, lab) = (tempfile::tempdir().unwrap(), Lab::new().unwrap());
    let both = lab.host("srv", "10.99.0.2/24").unwrap();
    let _dnsmasq = Dnsmasq::on(&both, folder.path(), &[]);
    let client = lab.host_without_address("cli").unwrap();
    let discover = request(DISCOVER, NONE, NONE);
    client
        .run(move || ask(68, &discover, "255.255.255.255:67", |all| !all.is_empty()))
        .unwrap();
    let settings = leasing(folder.path(), &["10.99.0.200-10.99.0.220"]);
    let error = both
        .run(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let (_stop, shutdown) = tokio::sync::watch::channel(false);
            let shared = server::netboot::Shared::default();
            let start = server::netboot::start(&settings, &shared, shutdown);
            runtime.block_on(async { start.await.map(|_| ()).unwrap_err().to_string() })
        })
        .unwrap();
    assert!(
        error.contains("67/udp") && error.contains("dnsmasq (process "),
        "{error}"
    );
}
