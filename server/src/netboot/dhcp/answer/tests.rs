//! Answers to requests, byte for byte where it matters.

use super::{Answer, Destination, Ignored, Packet, Port, ProxyConfig, answer};
use crate::netboot::dhcp::testing::{GUID, bytes, discover, head, request};
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use std::net::Ipv4Addr;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);

fn config() -> ProxyConfig {
    ProxyConfig {
        script_url: "http://10.99.0.2:26500/boot/boot.ipxe".to_owned(),
        files_url: "http://10.99.0.2:26500/boot/files".to_owned(),
        bios_file: Some("undionly.kpxe".to_owned()),
        efi64_file: Some("snponly.efi".to_owned()),
        efi64_http_file: Some("snponly.efi".to_owned()),
    }
}

fn on(port: Port, packet: &[u8]) -> Answer {
    answer(packet, &config(), port, SERVER)
}

fn reply(port: Port, packet: &[u8]) -> (Packet, Destination, String) {
    match on(port, packet) {
        Answer::Reply {
            packet,
            to,
            boot_file,
            ..
        } => (Packet::decode(&packet).unwrap(), to, boot_file),
        Answer::Ignore(why) => panic!("ignored: {why}"),
    }
}

fn client(kind: &str, class: &str, more: &str) -> Vec<u8> {
    let class_hex = hex::encode(class);
    request(&format!(
        "35 01 {kind} 3c {:02x} {class_hex} {more} ff",
        class.len()
    ))
}

fn file_for(class: &str, more: &str) -> String {
    reply(Port::Dhcp67, &client("01", class, more)).2
}

/// Byte for byte, so that nothing can change unseen.
#[test]
fn offer_to_uefi_pxe_is_the_golden_one() {
    let mut golden = head(
        2,
        "8000",
        "00000000 00000000 0a630002 00000000",
        b"10.99.0.2",
        b"snponly.efi",
    );
    golden.extend(bytes(&format!(
        "35 01 02  36 04 0a630002  3c 09 505845436c69656e74  {GUID}  2b 04 06 01 08 ff  ff"
    )));
    golden.resize(300, 0);
    let Answer::Reply {
        packet,
        to,
        mac,
        boot_file,
    } = on(Port::Dhcp67, &discover())
    else {
        panic!()
    };
    assert_eq!(hex::encode(packet), hex::encode(golden));
    assert_eq!(
        (to, mac.as_str()),
        (Destination::Broadcast, "52:54:00:12:34:56")
    );
    assert_eq!(boot_file, "snponly.efi");
}

#[test]
fn offer_to_uefi_http_is_the_golden_one() {
    let url = "http://10.99.0.2:26500/boot/files/snponly.efi";
    let mut golden = head(
        2,
        "8000",
        "00000000 00000000 0a630002 00000000",
        b"10.99.0.2",
        url.as_bytes(),
    );
    golden.extend(bytes(
        "35 01 02  36 04 0a630002  3c 0a 48545450436c69656e74  43 2d",
    ));
    golden.extend(url.as_bytes());
    golden.push(0xff);
    golden.resize(golden.len().max(300), 0);
    let request = client("01", "HTTPClient:Arch:00016:UNDI:003001", "5d 02 0010");
    let Answer::Reply { packet, .. } = on(Port::Dhcp67, &request) else {
        panic!()
    };
    assert_eq!(hex::encode(packet), hex::encode(golden));
}

#[test]
fn the_boot_file_follows_program_and_architecture() {
    assert_eq!(
        file_for("PXEClient:Arch:00000:UNDI:002001", "5d 02 0000"),
        "undionly.kpxe"
    );
    assert_eq!(file_for("PXEClient", ""), "undionly.kpxe");
    assert_eq!(file_for("PXEClient", "5d 02 0007"), "snponly.efi");
    assert_eq!(file_for("PXEClient", "5d 02 0009"), "snponly.efi");
    for class in ["PXEClient:Arch:00000", "HTTPClient"] {
        assert_eq!(
            file_for(class, "4d 04 69505845"),
            "http://10.99.0.2:26500/boot/boot.ipxe"
        );
        assert_eq!(
            file_for(class, "af 00"),
            "http://10.99.0.2:26500/boot/boot.ipxe"
        );
    }
}

#[test]
fn architectures_without_a_boot_file_are_named() {
    for architecture in [6u16, 10, 11, 16] {
        let request = client("01", "PXEClient", &format!("5d 02 {architecture:04x}"));
        let mac = "52:54:00:12:34:56".to_owned();
        assert_eq!(
            on(Port::Dhcp67, &request),
            Answer::Ignore(Ignored::NoBootFile { mac, architecture })
        );
    }
    let without = ProxyConfig {
        bios_file: None,
        ..config()
    };
    let request = client("01", "PXEClient", "");
    assert!(matches!(
        answer(&request, &without, Port::Dhcp67, SERVER),
        Answer::Ignore(Ignored::NoBootFile { .. })
    ));
}

#[test]
fn only_boot_clients_and_messages_for_us_are_answered() {
    let not_for_us = Answer::Ignore(Ignored::NotForUs);
    assert_eq!(on(Port::Dhcp67, &client("01", "MSFT 5.0", "")), not_for_us);
    assert_eq!(
        on(Port::Dhcp67, &request("35 01 01 ff")),
        not_for_us,
        "no class"
    );
    assert_eq!(
        on(Port::Dhcp67, &client("03", "PXEClient", "")),
        not_for_us,
        "request without server"
    );
    assert_eq!(
        on(Port::Dhcp67, &client("03", "PXEClient", "36 04 0a630001")),
        not_for_us,
        "another's request"
    );
    assert_eq!(
        on(Port::Boot4011, &client("03", "PXEClient", "36 04 0a630001")),
        not_for_us
    );
    assert_eq!(
        on(Port::Boot4011, &client("01", "PXEClient", "")),
        not_for_us,
        "discover on 4011"
    );
    assert_eq!(
        on(Port::Dhcp67, &client("04", "PXEClient", "")),
        not_for_us,
        "decline"
    );
    let Answer::Reply { packet, .. } = on(Port::Dhcp67, &discover()) else {
        panic!()
    };
    assert_eq!(
        on(Port::Dhcp67, &packet),
        Answer::Ignore(Ignored::FromServer),
        "our own offer"
    );
}

#[test]
fn requests_to_us_are_acknowledged_where_they_came_from() {
    let (packet, to, _) = reply(
        Port::Boot4011,
        &client("03", "PXEClient", "2b 07 47 04 8000 0000 ff"),
    );
    assert_eq!(packet.option(53).unwrap(), [5]);
    assert_eq!(
        packet.option(43).unwrap(),
        bytes("06 01 08 47 04 8000 0000 ff")
    );
    assert_eq!(to, Destination::Sender);
    let (packet, _, _) = reply(Port::Dhcp67, &client("03", "PXEClient", "36 04 0a630002"));
    assert_eq!(packet.option(53).unwrap(), [5]);
    let (packet, _, _) = reply(Port::Dhcp67, &client("08", "PXEClient", ""));
    assert_eq!(packet.option(53).unwrap(), [5]);
    // On a shared port the same request is the address server's beside us.
    assert_eq!(
        on(Port::Shared67, &client("03", "PXEClient", "36 04 0a630002")),
        Answer::Ignore(Ignored::NotForUs)
    );
    let (packet, _, _) = reply(Port::Shared67, &client("01", "PXEClient", ""));
    assert_eq!(packet.option(53).unwrap(), [2]);
}

#[test]
fn relays_and_clients_with_an_address_get_unicasts() {
    let mut relayed = discover();
    relayed[24..28].copy_from_slice(&[10, 1, 0, 1]);
    relayed[12..16].copy_from_slice(&[10, 1, 0, 77]);
    let (packet, to, _) = reply(Port::Dhcp67, &relayed);
    assert_eq!(to, Destination::Address("10.1.0.1:67".parse().unwrap()));
    assert_eq!(packet.giaddr, Ipv4Addr::new(10, 1, 0, 1));
    relayed[24..28].fill(0);
    assert_eq!(
        reply(Port::Dhcp67, &relayed).1,
        Destination::Address("10.1.0.77:68".parse().unwrap())
    );
}

#[test]
fn a_url_too_long_for_the_field_goes_into_the_option() {
    let url = format!("http://10.99.0.2/{}", "x".repeat(200));
    let config = ProxyConfig {
        script_url: url.clone(),
        ..config()
    };
    let request = client("01", "PXEClient", "af 00");
    let Answer::Reply { packet, .. } = answer(&request, &config, Port::Dhcp67, SERVER) else {
        panic!()
    };
    let packet = Packet::decode(&packet).unwrap();
    assert_eq!(packet.file, [0; 128]);
    assert_eq!(packet.option(67).unwrap(), url.as_bytes());
}

proptest! {
    #[test]
    fn damaged_requests_never_get_an_address(
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6),
        on_4011 in any::<bool>(),
    ) {
        let mut request = discover();
        for (place, value) in damage {
            let place = place.index(request.len());
            request[place] = value;
        }
        let port = if on_4011 { Port::Boot4011 } else { Port::Dhcp67 };
        if let Answer::Reply { packet, .. } = on(port, &request) {
            let reply = Packet::decode(&packet).unwrap();
            prop_assert!(reply.yiaddr.is_unspecified());
            prop_assert_eq!(&packet[4..8], &request[4..8]);
            prop_assert_eq!(&packet[28..44], &request[28..44]);
        }
    }
}
