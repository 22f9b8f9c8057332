//! Golden packets, and replies of servers that are wrong in every way.

use super::{
    ACK, DISCOVER, Identity, Incoming, Lease, NAK, OFFER, Outgoing, Proxy, REQUEST, parse,
};
use proptest::prelude::*;
use std::net::Ipv4Addr;
use std::time::Duration;

pub(in crate::target::net) const IDENTITY: Identity = Identity {
    mac: [0x52, 0x54, 0, 0xaa, 0, 1],
    uuid: Some([0x11; 16]),
};

/// A server's reply with the given options after the cookie.
pub(in crate::target::net) fn reply(xid: u32, kind: u8, address: [u8; 4], more: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 236];
    packet[..4].copy_from_slice(&[2, 1, 6, 0]);
    packet[4..8].copy_from_slice(&xid.to_be_bytes());
    packet[16..20].copy_from_slice(&address);
    packet[28..34].copy_from_slice(&IDENTITY.mac);
    packet.extend([99, 130, 83, 99, 53, 1, kind, 54, 4, 10, 0, 0, 1]);
    packet.extend(more);
    packet.push(255);
    packet
}

fn lease_of(more: &[u8]) -> Lease {
    match parse(&reply(7, ACK, [10, 0, 0, 50], more), &IDENTITY, 7) {
        Some(Incoming::Ack(lease)) => lease,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_discover_has_these_bytes() {
    let bytes = Outgoing {
        kind: DISCOVER,
        xid: 0x0102_0304,
        secs: 5,
        ..Outgoing::default()
    }
    .encode(&IDENTITY);
    let text = hex::encode(&bytes);
    assert!(text.starts_with(concat!(
        "01010600",
        "01020304",
        "0005",
        "8000",
        "00000000",
        "00000000",
        "00000000",
        "00000000",
        "525400aa0001",
        "00000000000000000000"
    )));
    assert!(bytes[44..236].iter().all(|b| *b == 0));
    assert_eq!(
        hex::encode(&bytes[236..]),
        concat!(
            "63825363",
            "350101",
            "3d0701525400aa0001",
            "390205dc",
            "3c096465706c6f792d6f73",
            "61110011111111111111111111111111111111",
            "37100103060c0f1a1c2b33363a3bbabbbec0",
            "ff"
        )
    );
    assert!(bytes.len() >= 300);
}

#[test]
fn requests_name_address_and_server_and_renewals_their_own_address() {
    let address = Ipv4Addr::new(10, 0, 0, 50);
    let server = Ipv4Addr::new(10, 0, 0, 1);
    let request = Outgoing {
        kind: REQUEST,
        requested: Some(address),
        server: Some(server),
        ..Outgoing::default()
    };
    let text = hex::encode(&request.encode(&IDENTITY)[236..]);
    assert!(
        text.contains("32040a000032") && text.contains("36040a000001"),
        "{text}"
    );
    let renewal = Outgoing {
        kind: REQUEST,
        client: Some(address),
        ..Outgoing::default()
    };
    let bytes = renewal.encode(&Identity {
        uuid: None,
        ..IDENTITY
    });
    assert_eq!(bytes[10..16], [0, 0, 10, 0, 0, 50]);
    assert!(bytes.len() >= 300);
}

#[test]
fn a_full_lease_is_read() {
    let lease = lease_of(&[
        1, 4, 255, 255, 252, 0, 3, 8, 10, 0, 0, 1, 10, 0, 0, 2, 6, 4, 10, 0, 0, 3, 15, 12, b'l',
        b'a', b'b', b'.', b'e', b'x', b'a', b'm', b'p', b'l', b'e', 0, 51, 4, 0, 0, 14, 16, 58, 4,
        0, 0, 5, 0, 59, 4, 0, 0, 10, 0,
    ]);
    assert_eq!(lease.address, Ipv4Addr::new(10, 0, 0, 50));
    assert_eq!(lease.prefix, 22);
    assert_eq!(
        lease.routers,
        [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)]
    );
    assert_eq!(lease.dns, [Ipv4Addr::new(10, 0, 0, 3)]);
    assert_eq!(lease.domain.as_deref(), Some("lab.example"));
    assert_eq!(lease.valid, Some(Duration::from_secs(3600)));
    assert_eq!(
        (lease.renew, lease.rebind),
        (Duration::from_secs(1280), Duration::from_secs(2560))
    );
    assert!(lease.announced.is_empty());
}

#[test]
fn what_a_server_leaves_out_has_a_default() {
    let lease = lease_of(&[51, 4, 0, 0, 14, 16]);
    assert_eq!(
        (lease.prefix, lease.routers.len(), lease.domain),
        (8, 0, None)
    );
    assert_eq!(
        (lease.renew, lease.rebind),
        (Duration::from_secs(1800), Duration::from_secs(3150))
    );
    assert_eq!(lease_of(&[]).valid, None);
    assert_eq!(lease_of(&[51, 4, 255, 255, 255, 255]).valid, None);
    // Times that contradict the lease are not believed, nor is a mask with holes.
    let odd = lease_of(&[
        51, 4, 0, 0, 14, 16, 58, 4, 0, 1, 0, 0, 59, 4, 0, 0, 0, 0, 1, 4, 255, 0, 255, 0,
    ]);
    assert_eq!(
        (odd.renew, odd.rebind, odd.prefix),
        (Duration::from_secs(1800), Duration::from_secs(3150), 8)
    );
}

#[test]
fn an_option_in_parts_is_joined_and_overloaded_fields_are_read() {
    let lease = lease_of(&[15, 3, b'l', b'a', b'b', 0, 15, 3, b'.', b'e', b'x']);
    assert_eq!(lease.domain.as_deref(), Some("lab.ex"));
    let mut packet = reply(7, ACK, [10, 0, 0, 50], &[52, 1, 1]);
    packet[108..114].copy_from_slice(&[1, 4, 255, 255, 255, 128]);
    let Some(Incoming::Ack(lease)) = parse(&packet, &IDENTITY, 7) else {
        panic!()
    };
    assert_eq!(lease.prefix, 25);
}

#[test]
fn a_server_of_ours_can_be_announced() {
    let lease = lease_of(&[186, 4, 10, 0, 0, 9, 190, 2, 0x67, 0x85]);
    assert_eq!(lease.announced.options, ["https://10.0.0.9:26501"]);
    let lease = lease_of(&[43, 10, 186, 4, 10, 0, 0, 9, 190, 2, 0x67, 0x85]);
    assert_eq!(lease.announced.options, ["https://10.0.0.9:26501"]);
}

#[test]
fn an_offer_without_an_address_is_taken_if_it_announces_a_server() {
    let announcing = [186, 4, 10, 0, 0, 9];
    let Some(Incoming::Proxy(Proxy { server, announced })) =
        parse(&reply(7, OFFER, [0; 4], &announcing), &IDENTITY, 7)
    else {
        panic!()
    };
    assert_eq!(server, Ipv4Addr::new(10, 0, 0, 1));
    assert_eq!(announced.options, ["10.0.0.9"]);
    for (kind, more) in [(OFFER, &[][..]), (ACK, &announcing)] {
        let packet = reply(7, kind, [0; 4], more);
        assert_eq!(parse(&packet, &IDENTITY, 7), None);
    }
}

#[test]
fn replies_to_others_are_not_ours() {
    let good = reply(7, OFFER, [10, 0, 0, 50], &[]);
    assert!(matches!(
        parse(&good, &IDENTITY, 7),
        Some(Incoming::Offer(_))
    ));
    assert_eq!(parse(&good, &IDENTITY, 8), None);
    let other = Identity {
        mac: [0x52, 0x54, 0, 0xaa, 0, 2],
        uuid: None,
    };
    assert_eq!(parse(&good, &other, 7), None);
    for address in [[0; 4], [255; 4], [224, 0, 0, 1], [127, 0, 0, 1]] {
        assert_eq!(parse(&reply(7, OFFER, address, &[]), &IDENTITY, 7), None);
    }
    for (at, value) in [(0, 1), (1, 6), (2, 16), (236, 0)] {
        let mut bad = good.clone();
        bad[at] = value;
        assert_eq!(parse(&bad, &IDENTITY, 7), None, "byte {at}");
    }
}

#[test]
fn a_refusal_keeps_the_servers_words() {
    let nak = reply(7, NAK, [0; 4], &[56, 6, b'p', b'o', b'o', b'l', 7, b'!']);
    assert_eq!(
        parse(&nak, &IDENTITY, 7),
        Some(Incoming::Nak("pool!".to_owned()))
    );
}

proptest! {
    #[test]
    fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        parse(&bytes, &IDENTITY, 7);
    }

    #[test]
    fn any_options_are_read(
        more in proptest::collection::vec(any::<u8>(), 0..300),
        kind in any::<u8>(),
        address in any::<[u8; 4]>(),
        overload in any::<[u8; 192]>(),
    ) {
        let mut packet = reply(7, kind, address, &more);
        packet[44..236].copy_from_slice(&overload);
        if let Some(Incoming::Offer(lease) | Incoming::Ack(lease)) = parse(&packet, &IDENTITY, 7) {
            prop_assert!(lease.prefix >= 1 && lease.prefix <= 32);
            prop_assert!(lease.renew <= lease.rebind);
        }
    }

    #[test]
    fn any_cut_of_a_good_reply_is_read(len in 0usize..300) {
        let good = reply(7, ACK, [10, 0, 0, 50], &[1, 4, 255, 255, 255, 0, 51, 4, 0, 0, 14, 16]);
        parse(&good[..len.min(good.len())], &IDENTITY, 7);
    }
}
