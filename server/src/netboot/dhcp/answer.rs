//! What a proxyDHCP server answers (PXE specification 2.1, sections 2.2 and 2.4;
//! RFC 4578; UEFI specification, section "HTTP Boot").
//!
//! Owns: the decision whether, what and whereto. Pure: bytes in, bytes out. Does not
//! own: sockets, or addresses of clients: `yiaddr` is always zero.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::client::{Client, Program};
use super::option;
use super::packet::{Malformed, MessageType, Packet, decode_options, encode_options};

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;

/// The port that a packet came in on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// 67, where clients broadcast to all servers.
    Dhcp67,
    /// 4011, where a client asks the boot server that it chose.
    Boot4011,
}

/// What is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyConfig {
    /// URL of the first-stage script, for iPXE.
    pub script_url: String,
    /// URL of the folder of boot files, without a slash at the end, for UEFI HTTP boot.
    pub files_url: String,
    /// Boot loader for BIOS machines, if there is one.
    pub bios_file: Option<String>,
    /// Boot loader for x86-64 UEFI machines, if there is one.
    pub efi64_file: Option<String>,
}

/// Where an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To everybody on the interface, port 68.
    Broadcast,
    /// To a relay, or a client that has an address.
    Address(SocketAddrV4),
    /// Back to the address and port that the request came from.
    Sender,
}

/// Why a packet gets no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ignored {
    /// It is no DHCP packet.
    #[error("{0}")]
    Malformed(Malformed),
    /// It comes from a server, perhaps from us.
    #[error("it comes from a server")]
    FromServer,
    /// An ordinary DHCP client, or a message for the address server.
    #[error("it is not meant for a boot server")]
    NotForUs,
    /// A boot client for which there is no boot file. Worth a line in the log.
    #[error("machine {mac} has architecture {architecture}, for which there is no boot file")]
    NoBootFile {
        /// The client's hardware address.
        mac: String,
        /// The client's architecture (IANA's numbers).
        architecture: u16,
    },
}

/// What to do with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Send a packet.
    Reply {
        /// The packet.
        packet: Vec<u8>,
        /// Where it goes.
        to: Destination,
        /// The client's hardware address, for the log.
        mac: String,
        /// The boot file or URL that is offered, for the log.
        boot_file: String,
    },
    /// Send nothing.
    Ignore(Ignored),
}

/// Decides on a packet that came in on `port`. `server_ip` is the address by which the
/// client reaches us.
pub fn answer(request: &[u8], config: &ProxyConfig, port: Port, server_ip: Ipv4Addr) -> Answer {
    match try_answer(request, config, port, server_ip) {
        Ok(reply) => reply,
        Err(ignored) => Answer::Ignore(ignored),
    }
}

fn try_answer(
    request: &[u8],
    config: &ProxyConfig,
    port: Port,
    server_ip: Ipv4Addr,
) -> Result<Answer, Ignored> {
    let request = Packet::decode(request).map_err(Ignored::Malformed)?;
    if request.op != 1 {
        return Err(Ignored::FromServer);
    }
    let client = Client::of(&request).ok_or(Ignored::NotForUs)?;
    let kind = kind_of_answer(&request, port, server_ip).ok_or(Ignored::NotForUs)?;
    let boot_file = boot_file(&client, config).ok_or_else(|| Ignored::NoBootFile {
        mac: request.mac(),
        architecture: client.architecture,
    })?;
    let packet = reply(&request, &client, kind, &boot_file, server_ip).encode();
    Ok(Answer::Reply {
        packet,
        to: destination(&request, port),
        mac: request.mac(),
        boot_file,
    })
}

/// A broadcast REQUEST takes an address from the server that it names; only if that is
/// us, or if it came to the boot server's own port, is it ours.
fn kind_of_answer(request: &Packet, port: Port, server_ip: Ipv4Addr) -> Option<MessageType> {
    let chosen = request.address_option(option::SERVER_ID);
    match (request.message_type()?, port) {
        (MessageType::Discover, Port::Dhcp67) => Some(MessageType::Offer),
        (MessageType::Request, Port::Dhcp67) if chosen == Some(server_ip) => Some(MessageType::Ack),
        (MessageType::Inform, Port::Dhcp67) => Some(MessageType::Ack),
        (MessageType::Request | MessageType::Inform, Port::Boot4011) => chosen
            .is_none_or(|server| server == server_ip)
            .then_some(MessageType::Ack),
        _ => None,
    }
}

/// The boot file by program and architecture. IANA: 0 BIOS; 7 x86-64 UEFI and 9 EBC,
/// which x86-64 firmware says too; 16 x86-64 UEFI over HTTP. There is none yet for
/// 6 (IA32 UEFI) and 11 (64-bit Arm UEFI).
fn boot_file(client: &Client, config: &ProxyConfig) -> Option<String> {
    if client.program == Program::Ipxe {
        return Some(config.script_url.clone());
    }
    let (file, http) = match (client.architecture, client.program) {
        (0, Program::Pxe) => (config.bios_file.as_ref()?, false),
        (7 | 9, Program::Pxe) => (config.efi64_file.as_ref()?, false),
        (7 | 9 | 16, Program::Http) => (config.efi64_file.as_ref()?, true),
        _ => return None,
    };
    Some(if http {
        format!("{}/{file}", config.files_url)
    } else {
        file.clone()
    })
}

fn reply(
    request: &Packet,
    client: &Client,
    kind: MessageType,
    boot_file: &str,
    server_ip: Ipv4Addr,
) -> Packet {
    let class: &[u8] = if client.http_class {
        b"HTTPClient"
    } else {
        b"PXEClient"
    };
    let mut options = vec![
        (option::MESSAGE_TYPE, vec![kind as u8]),
        (option::SERVER_ID, server_ip.octets().to_vec()),
        (option::VENDOR_CLASS, class.to_vec()),
    ];
    if let Some(guid) = request.option(option::CLIENT_GUID) {
        options.push((option::CLIENT_GUID, guid));
    }
    if !client.http_class {
        options.push((option::VENDOR, pxe_options(request)));
    }
    let mut file = [0; 128];
    let fits = put_text(&mut file, boot_file);
    // UEFI's HTTP client looks at the option first; a URL may also be too long for the field.
    if client.http_class || !fits {
        options.push((option::BOOT_FILE, boot_file.as_bytes().to_vec()));
    }
    let mut sname = [0; 64];
    put_text(&mut sname, &server_ip.to_string());
    Packet {
        op: 2,
        htype: request.htype,
        hlen: request.hlen,
        hops: 0,
        xid: request.xid,
        secs: 0,
        flags: request.flags,
        ciaddr: request.ciaddr,
        yiaddr: Ipv4Addr::UNSPECIFIED,
        siaddr: server_ip,
        giaddr: request.giaddr,
        chaddr: request.chaddr,
        sname,
        file,
        options,
    }
}

/// PXE sub-options: the client is to load the offered file at once, without menu and
/// search. A boot item that it asked for comes back, or it would not take the answer.
fn pxe_options(request: &Packet) -> Vec<u8> {
    let mut inner = vec![(
        option::PXE_DISCOVERY_CONTROL,
        vec![option::PXE_USE_OFFERED_FILE],
    )];
    let asked = request
        .option(option::VENDOR)
        .and_then(|value| decode_options(&value).ok())
        .unwrap_or_default();
    inner.extend(
        asked
            .into_iter()
            .find(|(code, value)| *code == option::PXE_BOOT_ITEM && value.len() == 4),
    );
    let mut bytes = Vec::new();
    encode_options(&inner, &mut bytes);
    bytes
}

/// Puts a text and its closing zero into a field, or leaves the field empty.
fn put_text(field: &mut [u8], text: &str) -> bool {
    let fits = text.len() < field.len();
    if let (true, Some(place)) = (fits, field.get_mut(..text.len())) {
        place.copy_from_slice(text.as_bytes());
    }
    fits
}

/// RFC 2131 section 4.1. A client without address cannot be sent a unicast, as we give
/// it none: it is told by broadcast whatever its broadcast flag says.
fn destination(request: &Packet, port: Port) -> Destination {
    if port == Port::Boot4011 {
        return Destination::Sender;
    }
    if !request.giaddr.is_unspecified() {
        return Destination::Address(SocketAddrV4::new(request.giaddr, SERVER_PORT));
    }
    if !request.ciaddr.is_unspecified() {
        return Destination::Address(SocketAddrV4::new(request.ciaddr, CLIENT_PORT));
    }
    Destination::Broadcast
}

#[cfg(test)]
mod tests {
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
}
