//! What a target is told on its way to the server: answers of DHCP servers, those beside
//! them, and name servers. The modules stand alone, so the imager need not be built here.
#![no_main]
#![allow(dead_code)]

#[path = "../../imager/src/target/net/dhcp/announced.rs"]
mod announced;
#[path = "../../imager/src/target/discovery/dns.rs"]
mod dns;
#[path = "../../imager/src/target/net/dhcp/packet.rs"]
mod packet;
#[path = "../../imager/src/remote/address.rs"]
mod remote;
#[path = "../../imager/src/target/discovery/srv.rs"]
mod srv;

use dns::{Kind, Record};
use libfuzzer_sys::fuzz_target;
use packet::{Identity, Incoming};

const IDENTITY: Identity = Identity {
    mac: [0x52, 0x54, 0, 0xaa, 0, 1],
    uuid: None,
};

fuzz_target!(|data: &[u8]| {
    let Some((&knobs, rest)) = data.split_first() else { return };
    match knobs % 3 {
        0 => dhcp(rest),
        1 => names(rest, Kind::A, "deploy.lab.example"),
        _ => names(rest, Kind::Srv, "_deploy._tcp.lab.example"),
    }
});

fn dhcp(bytes: &[u8]) {
    let mut packet = bytes.to_vec();
    // Most inputs should get as far as the options.
    if packet.len() >= 243 {
        packet[..8].copy_from_slice(&[2, 1, 6, 0, 0, 0, 0, 7]);
        packet[28..34].copy_from_slice(&IDENTITY.mac);
        packet[236..240].copy_from_slice(&[99, 130, 83, 99]);
    }
    let announced = match packet::parse(&packet, &IDENTITY, 7) {
        Some(Incoming::Offer(lease) | Incoming::Ack(lease)) => {
            assert!((1..=32).contains(&lease.prefix) && lease.renew <= lease.rebind);
            lease.announced
        }
        Some(Incoming::Proxy(proxy)) => proxy.announced,
        _ => return,
    };
    for text in announced.options.iter().chain(&announced.vendor) {
        assert!(remote::ServerAddress::parse(text).is_ok(), "{text}");
    }
}

fn names(bytes: &[u8], kind: Kind, name: &str) {
    let question = dns::question(7, name, kind).expect("a name that can be asked for");
    let mut message = question.clone();
    // An answer to this question, with as many records as the input says.
    message[2] = 0x80;
    if let Some((&count, rest)) = bytes.split_first() {
        message[7] = count;
        message.extend(rest);
    }
    let records = dns::answer(&message, &question).unwrap_or_default();
    let services = records.into_iter().filter_map(|record| match record {
        Record::Srv(srv) => Some(srv),
        Record::A(_) => None,
    });
    let ordered = srv::order(services.collect(), |most| most / 2);
    assert!(ordered.is_sorted_by_key(|srv| srv.priority));
    let _ = dns::answer(bytes, &question);
}
