//! Network boot under rough conditions: packets that are lost, and junk.

#[path = "netboot_support/lab.rs"]
mod lab;
mod netboot_support;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use lab::{DISCOVER, INFORM, REQUEST, Running, ask, client_packet, config, request, wait_for};
use netboot_support::fetch;
use server::netboot::tftp::packet::{Packet as Tftp, Request};
use server::netboot::{LeaseConfig, NetbootConfig};
use testkit::netns::{Host, INTERFACE, Lab, require};

const NONE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const TFTP: &str = "10.99.0.2:69";

/// Loses packets that come in on a host by chance.
fn lose(host: &Host, per_mille: u32) {
    require("nft", "nftables").unwrap();
    let rules = format!(
        "add table netdev loss\n\
         add chain netdev loss in {{ type filter hook ingress device \"{INTERFACE}\" priority 0; }}\n\
         add rule netdev loss in udp dport != 0 numgen random mod 1000 < {per_mille} counter drop\n"
    );
    let output = host.command("nft").arg(rules).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// How many packets a host has lost.
fn lost(host: &Host) -> u64 {
    let output = host
        .command("nft")
        .args(["list", "table", "netdev", "loss"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let counted = text
        .split("counter packets ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    counted
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{text}"))
}

fn content(folder: &Path, name: &str, length: usize) -> Vec<u8> {
    let bytes: Vec<u8> = (0..length)
        .map(|n| ((n / 4 * 0x9e37_79b1) >> (8 * (n % 4))) as u8)
        .collect();
    std::fs::write(folder.join(name), &bytes).unwrap();
    bytes
}

#[test]
fn files_arrive_whole_although_every_twentieth_packet_is_lost() {
    let (folder, lab) = (tempfile::tempdir().unwrap(), Lab::new().unwrap());
    let ours = lab.host("srv", "10.99.0.2/24").unwrap();
    let client = lab.host("cli", "10.99.0.9/24").unwrap();
    let bytes = content(folder.path(), "file", 300_000);
    let _running = Running::on(&ours, config(folder.path()));
    lose(&ours, 50);
    lose(&client, 50);
    for window in ["1", "8", "32"] {
        let fetched = client.run(move || {
            let wishes = [("blksize", "1468"), ("windowsize", window), ("tsize", "0")];
            fetch(TFTP.parse().unwrap(), "file", &wishes, |_| false).unwrap()
        });
        assert!(fetched.unwrap().bytes == bytes, "window {window}");
    }
    // A client that somebody else wrote.
    require("busybox", "busybox-static").unwrap();
    let copy = folder.path().join("copy");
    let done = client
        .command("busybox")
        .args(["tftp", "-g", "-b", "1400", "-r", "file", "-l"])
        .arg(&copy)
        .arg("10.99.0.2")
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
    assert!(std::fs::read(copy).unwrap() == bytes);
    let (there, here) = (lost(&ours), lost(&client));
    assert!(there > 0 && here > 0, "nothing was lost: {there}, {here}");
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }

    fn spoil(&mut self, packet: &mut Vec<u8>) {
        for _ in 0..=self.roll(12) {
            let place = self.roll(packet.len());
            packet[place] = self.roll(256) as u8;
        }
        if self.roll(3) == 0 {
            packet.truncate(self.roll(packet.len() + 1));
        }
    }
}

fn flood(target: &'static str, from_port: u16, count: usize, seeds: Vec<Vec<u8>>) {
    let socket = lab::socket(from_port);
    let mut dice = Dice(0x1234_5678_9abc_def1);
    for number in 0..count {
        let mut packet = seeds[dice.roll(seeds.len())].clone();
        dice.spoil(&mut packet);
        // The queue may be full: junk that is lost is no loss.
        let _ = socket.send_to(&packet, target);
        if number % 64 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn junk_keeps_nobody_from_address_and_boot_file() {
    let (folder, lab) = (tempfile::tempdir().unwrap(), Lab::new().unwrap());
    let ours = lab.host("srv", "10.99.0.2/16").unwrap();
    let enemy = lab.host("enemy", "10.99.0.66/16").unwrap();
    let client = lab.host("cli", "10.99.0.9/16").unwrap();
    let bytes = content(folder.path(), "file", 40_000);
    let settings = NetbootConfig {
        leases: Some(LeaseConfig {
            // Junk asks for addresses too.
            ranges: vec!["10.99.4.0-10.99.200.0".parse().unwrap()],
            routers: Vec::new(),
            name_servers: Vec::new(),
            seconds: 3600,
            settle: Duration::from_secs(1),
            grub: false,
        }),
        ..config(folder.path())
    };
    let running = Running::on(&ours, settings);
    wait_for("it leases", || {
        running.log.text().contains("addresses are leased")
    });

    let own = Ipv4Addr::new(10, 99, 0, 66);
    let mut dhcp = vec![
        request(DISCOVER, NONE, NONE),
        request(INFORM, own, NONE),
        request(REQUEST, own, NONE),
    ];
    for kind in [DISCOVER, REQUEST, 4, 7, INFORM] {
        let named: [(u8, &[u8]); 3] = [
            (54, &[10, 99, 0, 2]),
            (50, &[10, 99, 4, 0]),
            (82, b"\x05\x04\x0a\x63\x04\x00"),
        ];
        dhcp.push(client_packet(7, kind, NONE, &named));
        dhcp.push(client_packet(7, kind, own, &named));
    }
    let options =
        ["blksize", "tsize", "timeout", "windowsize"].map(|name| (name.to_owned(), "7".to_owned()));
    let read = |file: &str| {
        let (file, mode) = (file.to_owned(), "octet".to_owned());
        let options = options.to_vec();
        Request {
            file,
            mode,
            options,
        }
    };
    let tftp = vec![
        Tftp::Read(read("file")).encode(),
        Tftp::Write(read("file")).encode(),
        Tftp::Ack { block: 1 }.encode(),
        Tftp::OptionAck(options.to_vec()).encode(),
        b"\0\x01../../../etc/passwd\0octet\0".to_vec(),
        b"\0\x01\xff\xfe\0octet\0".to_vec(),
    ];
    let on_4011 = dhcp.clone();
    enemy
        .run(move || flood("255.255.255.255:67", 68, 6000, dhcp))
        .unwrap();
    enemy
        .run(move || flood("10.99.0.2:4011", 68, 3000, on_4011))
        .unwrap();
    enemy.run(move || flood(TFTP, 2000, 6000, tftp)).unwrap();

    let granted = client
        .run(|| {
            let discover = client_packet(9, DISCOVER, NONE, &[(60, b"PXEClient")]);
            let offers = ask(68, &discover, "255.255.255.255:67", |all| {
                all.iter()
                    .any(|p| !p.yiaddr.is_unspecified() && p.chaddr[5] == 9)
            });
            let offer = offers
                .iter()
                .find(|p| p.chaddr[5] == 9 && !p.yiaddr.is_unspecified())
                .unwrap()
                .clone();
            let address = offer.yiaddr.octets();
            let named: [(u8, &[u8]); 2] = [(54, &[10, 99, 0, 2]), (50, &address)];
            let take = client_packet(9, REQUEST, NONE, &named);
            let acks = ask(68, &take, "255.255.255.255:67", |all| {
                all.iter()
                    .any(|p| p.option(53) == Some(vec![5]) && p.yiaddr == offer.yiaddr)
            });
            (offer, acks.len())
        })
        .unwrap();
    assert!(granted.0.file.starts_with(b"undionly.kpxe\0") && granted.1 > 0);
    let fetched = client
        .run(|| {
            fetch(
                TFTP.parse().unwrap(),
                "file",
                &[("blksize", "1024")],
                |_| false,
            )
            .unwrap()
        })
        .unwrap();
    assert!(fetched.bytes == bytes);
}

/// Names that lead out of the folder, in bytes that no string of ours could hold.
#[test]
fn odd_names_get_an_error_or_nothing_and_never_a_file() {
    let (folder, lab) = (tempfile::tempdir().unwrap(), Lab::new().unwrap());
    let pxe = folder.path().join("pxe");
    std::fs::create_dir(&pxe).unwrap();
    std::fs::write(folder.path().join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink(folder.path().join("secret"), pxe.join("link")).unwrap();
    std::os::unix::fs::symlink(folder.path(), pxe.join("up")).unwrap();
    let ours = lab.host("srv", "10.99.0.2/24").unwrap();
    let client = lab.host("cli", "10.99.0.9/24").unwrap();
    let _running = Running::with_state(&ours, config(&pxe), folder.path());
    let absolute = folder
        .path()
        .join("secret")
        .into_os_string()
        .into_encoded_bytes();
    let names: Vec<Vec<u8>> = [
        &b"../secret"[..],
        b"/../secret",
        b"//../secret",
        b"./../secret",
        b"pxe/../../secret",
        b"link",
        b"/link",
        b"up/secret",
        b"..\\secret",
        b"%2e%2e/secret",
        b"\xc0\xae\xc0\xae/secret",
        b"\xff\xfe",
        b"\x7f\x01",
        b"undionly.kpxe/",
        b"undionly.kpxe\n",
        b" undionly.kpxe",
        &absolute,
        &[b'a'; 900],
    ]
    .into_iter()
    .map(<[u8]>::to_vec)
    .collect();
    let kinds = client.run(move || {
        let server: SocketAddr = TFTP.parse().unwrap();
        let ask = |name: &[u8]| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket
                .set_read_timeout(Some(Duration::from_millis(400)))
                .unwrap();
            socket
                .send_to(&[b"\0\x01", name, b"\0octet\0"].concat(), server)
                .unwrap();
            let mut buffer = [0; 600];
            socket.recv_from(&mut buffer).ok().map(|_| buffer[1])
        };
        let mut kinds: Vec<Option<u8>> = names.iter().map(|name| ask(name)).collect();
        kinds.push(ask(b"undionly.kpxe"));
        kinds
    });
    let mut kinds = kinds.unwrap();
    assert_eq!(kinds.pop().unwrap(), Some(3), "an honest name gets data");
    assert!(
        kinds.iter().all(|kind| matches!(kind, None | Some(5))),
        "{kinds:?}"
    );
}
