//! Other servers that answer network boots, or give out addresses.
//!
//! Owns: recognising them by their broadcast offers. Does not own: listening.

use std::net::Ipv4Addr;

use super::option;
use super::packet::{MessageType, Packet};

/// The server that names a boot file in an offer seen on port 68, if it is not us.
/// An address server that only marks its offers with option 60, without a boot file,
/// leads clients to port 4011 and is no rival.
pub fn rival(bytes: &[u8], server_ip: Ipv4Addr) -> Option<Ipv4Addr> {
    let packet = Packet::decode(bytes).ok()?;
    let is_offer = matches!(
        packet.message_type(),
        Some(MessageType::Offer | MessageType::Ack)
    );
    let field = packet.file.iter().any(|byte| *byte != 0);
    let named = field
        || packet
            .option(option::BOOT_FILE)
            .is_some_and(|file| !file.is_empty());
    let server = packet
        .address_option(option::SERVER_ID)
        .unwrap_or(packet.siaddr);
    (packet.op == 2 && is_offer && named && server != server_ip).then_some(server)
}

/// The server that gives out an address in a packet seen on port 68, if it is not us. A
/// boot server beside an address server names no address.
pub fn address_server(bytes: &[u8], server_ip: Ipv4Addr) -> Option<Ipv4Addr> {
    let packet = Packet::decode(bytes).ok()?;
    let gives = matches!(
        packet.message_type(),
        Some(MessageType::Offer | MessageType::Ack)
    ) && !packet.yiaddr.is_unspecified();
    let server = packet
        .address_option(option::SERVER_ID)
        .unwrap_or(packet.siaddr);
    (packet.op == 2 && gives && server != server_ip).then_some(server)
}

/// The hardware address in our probes: of no maker, and different for two servers.
pub fn probe_mac(server_ip: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = server_ip.octets();
    [0x02, 0xd0, a, b, c, d]
}

/// A question that every address server answers: who gives out addresses here? Nothing
/// that is offered is taken.
pub fn probe(server_ip: Ipv4Addr, xid: u32) -> Vec<u8> {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut chaddr = [0; 16];
    if let Some(place) = chaddr.first_chunk_mut::<6>() {
        *place = probe_mac(server_ip);
    }
    Packet {
        op: 1,
        htype: 1,
        hlen: 6,
        hops: 0,
        xid,
        secs: 0,
        flags: 0x8000,
        ciaddr: none,
        yiaddr: none,
        siaddr: none,
        giaddr: none,
        chaddr,
        sname: [0; 64],
        file: [0; 128],
        options: vec![
            (option::MESSAGE_TYPE, vec![MessageType::Discover as u8]),
            (
                option::PARAMETERS,
                vec![option::SUBNET_MASK, option::ROUTER, option::NAME_SERVER],
            ),
        ],
    }
    .encode()
}

/// Whether a packet is a probe of ours that came back.
pub fn is_probe(packet: &Packet, server_ip: Ipv4Addr) -> bool {
    packet.hlen == 6 && packet.chaddr.starts_with(&probe_mac(server_ip))
}

#[cfg(test)]
mod tests {
    use super::{address_server, is_probe, probe, rival};
    use crate::netboot::dhcp::packet::Packet;
    use crate::netboot::dhcp::testing::{bytes, discover, head};
    use std::net::Ipv4Addr;

    const OURS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);

    fn offer(server: &str, file: &[u8], more: &str) -> Vec<u8> {
        let mut packet = head(2, "8000", "00000000 0a630064 00000000 00000000", b"", file);
        packet.extend(bytes(&format!("35 01 02 36 04 {server} {more} ff")));
        packet
    }

    #[test]
    fn only_others_that_name_a_boot_file_are_rivals() {
        let other = Some(Ipv4Addr::new(10, 99, 0, 1));
        assert_eq!(rival(&offer("0a630001", b"pxelinux.0", ""), OURS), other);
        assert_eq!(rival(&offer("0a630001", b"", "43 01 61"), OURS), other);
        assert_eq!(
            rival(&offer("0a630001", b"", ""), OURS),
            None,
            "an address server"
        );
        assert_eq!(
            rival(&offer("0a630002", b"pxelinux.0", ""), OURS),
            None,
            "our own"
        );
        assert_eq!(rival(&discover(), OURS), None);
        assert_eq!(rival(b"junk", OURS), None);
    }

    #[test]
    fn only_others_that_name_an_address_are_address_servers() {
        let other = Some(Ipv4Addr::new(10, 99, 0, 1));
        assert_eq!(address_server(&offer("0a630001", b"", ""), OURS), other);
        assert_eq!(address_server(&offer("0a630002", b"", ""), OURS), None);
        let mut proxy = offer("0a630001", b"pxelinux.0", "");
        proxy[16..20].fill(0);
        assert_eq!(address_server(&proxy, OURS), None, "a boot server");
        assert_eq!(address_server(&discover(), OURS), None);
        assert_eq!(address_server(b"junk", OURS), None);
    }

    #[test]
    fn our_probe_is_a_discover_and_known_again() {
        let packet = Packet::decode(&probe(OURS, 7)).unwrap();
        assert_eq!(packet.option(53).unwrap(), [1]);
        assert!(is_probe(&packet, OURS));
        assert!(
            !is_probe(&packet, Ipv4Addr::new(10, 99, 0, 3)),
            "another server's"
        );
        assert!(!is_probe(&Packet::decode(&discover()).unwrap(), OURS));
    }
}
