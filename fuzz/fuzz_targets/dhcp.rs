//! DHCP packets: reading, answering, recognising rivals, leasing addresses. The modules
//! stand alone, so the server and what it links need not be built here.
#![no_main]

#[allow(dead_code, unused_imports)]
#[path = "../../server/src/netboot/dhcp/mod.rs"]
mod dhcp;

use dhcp::lease::{self, Leasing, pool_of};
use dhcp::pool::Pool;
use dhcp::table::Table;
use dhcp::{Answer, Packet, Port, ProxyConfig, answer};
use libfuzzer_sys::fuzz_target;
use std::net::Ipv4Addr;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
/// Fixed fields and magic cookie.
const HEAD: usize = 240;

fuzz_target!(|data: &[u8]| {
    let Some((&knobs, rest)) = data.split_first() else { return };
    let mut bytes = rest.to_vec();
    // Most inputs should get as far as the options.
    if knobs & 1 == 0 && bytes.len() >= HEAD {
        bytes[0] = 1;
        bytes[2] = 6;
        bytes[236..HEAD].copy_from_slice(&[99, 130, 83, 99]);
    }
    let _ = dhcp::conflict::rival(&bytes, SERVER);
    let _ = dhcp::conflict::address_server(&bytes, SERVER);
    let Ok(packet) = Packet::decode(&bytes) else { return };
    assert_eq!(Packet::decode(&packet.encode()).as_ref(), Ok(&packet));
    let config = ProxyConfig {
        script_url: "http://10.99.0.2:26500/boot/boot.ipxe".to_owned(),
        files_url: "http://10.99.0.2:26500/boot/files".to_owned(),
        bios_file: Some("undionly.kpxe".to_owned()),
        efi64_file: (knobs & 2 == 0).then(|| "snponly.efi".to_owned()),
        efi64_http_file: (knobs & 2 == 0).then(|| "snponly.efi".to_owned()),
    };
    for port in [Port::Dhcp67, Port::Boot4011] {
        if let Answer::Reply { packet: reply, .. } = answer(&bytes, &config, port, SERVER) {
            let reply = Packet::decode(&reply).expect("our own packets can be read");
            assert!(reply.yiaddr.is_unspecified() && reply.op == 2);
            assert_eq!((reply.xid, reply.chaddr, reply.giaddr), (packet.xid, packet.chaddr, packet.giaddr));
        }
    }
    leases(&packet, config, rest);
});

/// The same packet again and again with another kind, client, wish and time, as the last
/// bytes of the input say: no address has two clients, and none lies outside.
fn leases(packet: &Packet, config: ProxyConfig, input: &[u8]) {
    let pool = |text: &str| {
        Pool::new(text.parse().expect("a range"), 24, &[Ipv4Addr::new(10, 98, 0, 1)], &[SERVER]).expect("a pool")
    };
    let leasing = Leasing {
        server_ip: SERVER,
        pools: vec![pool("10.99.0.1-10.99.0.4"), pool("10.98.0.8-10.98.0.9")],
        name_servers: vec![SERVER],
        seconds: 200,
        data_port: 1,
        http_port: 2,
        boot: Some(config),
    };
    let (mut table, mut now) = (Table::default(), 0);
    let deeds = &input[input.len().saturating_sub(64)..];
    for deed in deeds.chunks_exact(4) {
        let mut request = packet.clone();
        request.chaddr[0] = deed[0] >> 4;
        if deed[1] & 1 == 0 {
            request.options.retain(|(code, _)| !matches!(code, 50 | 53 | 54));
            request.options.push((53, vec![deed[0] & 15]));
            request.options.push((50, vec![10, 99, 0, deed[2] & 7]));
            if deed[1] & 2 == 0 {
                request.options.push((54, SERVER.octets().to_vec()));
            }
        }
        if deed[1] & 4 == 0 {
            (request.ciaddr, request.giaddr) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED);
        }
        if deed[1] & 8 == 0 {
            request.ciaddr = Ipv4Addr::new(10, 99, 0, deed[2] & 7);
        }
        now += i64::from(deed[3]);
        let Some(index) = pool_of(&request, &leasing) else { continue };
        let pool = &leasing.pools[index];
        let before = table.clone();
        let given = lease::answer(&request, index, &leasing, &mut table, deed[1] & 16 == 0, now);
        let Some((reply, _)) = given.reply else { continue };
        let reply = Packet::decode(&reply).expect("our own packets can be read");
        if reply.yiaddr.is_unspecified() {
            continue;
        }
        assert!(pool.holds(reply.yiaddr));
        let client = table.leases().chain(given.store.iter()).find(|l| l.address == reply.yiaddr && l.until > now);
        if let (Some(old), Some(new)) = (before.leases().find(|l| l.address == reply.yiaddr && l.until > now), client) {
            assert!(old.client == new.client || old.held == dhcp::table::Held::Released, "an address has two clients");
        }
    }
}
