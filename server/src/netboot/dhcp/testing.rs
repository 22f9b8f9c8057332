//! Packets for tests, put together byte by byte from the layouts of the RFCs and not
//! by the codec under test.

use proptest::collection::vec;
use proptest::prelude::{Strategy, any};

use super::packet::Packet;

/// Hexadecimal text with spaces and line breaks to bytes.
pub(crate) fn bytes(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    hex::decode(digits).unwrap()
}

/// The 240 bytes before the options.
pub(crate) fn head(op: u8, flags: &str, addresses: &str, sname: &[u8], file: &[u8]) -> Vec<u8> {
    let mut head = vec![op, 1, 6, 0];
    head.extend(bytes("3903f326"));
    head.extend(bytes(if op == 1 { "0004" } else { "0000" }));
    head.extend(bytes(flags));
    head.extend(bytes(addresses));
    head.extend(bytes("525400123456 00000000000000000000"));
    head.extend(sname);
    head.resize(108, 0);
    head.extend(file);
    head.resize(236, 0);
    head.extend(bytes("63825363"));
    head
}

/// A client's packet: no address yet, wants broadcasts.
pub(crate) fn request(options: &str) -> Vec<u8> {
    let mut packet = head(1, "8000", "00000000 00000000 00000000 00000000", b"", b"");
    packet.extend(bytes(options));
    packet
}

/// Option 97: type 0 and the 16 bytes of the GUID.
pub(crate) const GUID: &str = "61 11 00 0102030405060708090a0b0c0d0e0f10";

/// DHCPDISCOVER of an x86-64 UEFI firmware.
pub(crate) fn discover() -> Vec<u8> {
    request(&format!(
        "35 01 01  39 02 05c0  37 05 01 03 2b 42 43  {GUID}  5e 03 010310  5d 02 0007
         3c 20 505845436c69656e743a417263683a30303030373a554e44493a303033303136  ff 00 00"
    ))
}

/// Any packet that can be written and read back: all fields, ordinary options.
pub(crate) fn packets() -> impl Strategy<Value = Packet> {
    let option = (any::<u8>(), vec(any::<u8>(), 0..=255))
        .prop_filter("no length, or moves fields", |(code, _)| {
            !matches!(code, 0 | 52 | 255)
        });
    let fields = (
        any::<[u8; 3]>(),
        0..=16u8,
        any::<(u32, u16, u16)>(),
        any::<[[u8; 4]; 4]>(),
    );
    let names = (
        any::<[u8; 16]>(),
        vec(any::<u8>(), 64),
        vec(any::<u8>(), 128),
    );
    (fields, names, vec(option, 0..8)).prop_map(|(fields, names, options)| {
        let ([op, htype, hops], hlen, (xid, secs, flags), addresses) = fields;
        let [ciaddr, yiaddr, siaddr, giaddr] = addresses.map(std::net::Ipv4Addr::from);
        let (chaddr, sname, file) = (
            names.0,
            names.1.try_into().unwrap(),
            names.2.try_into().unwrap(),
        );
        Packet {
            op,
            htype,
            hlen,
            hops,
            xid,
            secs,
            flags,
            ciaddr,
            yiaddr,
            siaddr,
            giaddr,
            chaddr,
            sname,
            file,
            options,
        }
    })
}
