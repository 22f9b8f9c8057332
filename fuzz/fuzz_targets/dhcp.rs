//! DHCP packets: reading, answering, recognising rivals. The modules stand alone, so
//! the server and what it links need not be built here.
#![no_main]

#[allow(dead_code, unused_imports)]
#[path = "../../server/src/netboot/dhcp/mod.rs"]
mod dhcp;

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
    let Ok(packet) = Packet::decode(&bytes) else { return };
    assert_eq!(Packet::decode(&packet.encode()).as_ref(), Ok(&packet));
    let config = ProxyConfig {
        script_url: "http://10.99.0.2:26500/boot/boot.ipxe".to_owned(),
        files_url: "http://10.99.0.2:26500/boot/files".to_owned(),
        bios_file: Some("undionly.kpxe".to_owned()),
        efi64_file: (knobs & 2 == 0).then(|| "snponly.efi".to_owned()),
    };
    for port in [Port::Dhcp67, Port::Boot4011] {
        if let Answer::Reply { packet: reply, .. } = answer(&bytes, &config, port, SERVER) {
            let reply = Packet::decode(&reply).expect("our own packets can be read");
            assert!(reply.yiaddr.is_unspecified() && reply.op == 2);
            assert_eq!((reply.xid, reply.chaddr, reply.giaddr), (packet.xid, packet.chaddr, packet.giaddr));
        }
    }
});
