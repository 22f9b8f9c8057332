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
    /// 67 shared with an address server on this host, which has our address as its name:
    /// a REQUEST that names it is that server's, and a second answer would make the
    /// client decline.
    Shared67,
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
    /// The same for those that fetch it by HTTP.
    pub efi64_http_file: Option<String>,
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
        (MessageType::Discover, Port::Dhcp67 | Port::Shared67) => Some(MessageType::Offer),
        (MessageType::Request, Port::Dhcp67) if chosen == Some(server_ip) => Some(MessageType::Ack),
        (MessageType::Inform, Port::Dhcp67 | Port::Shared67) => Some(MessageType::Ack),
        (MessageType::Request | MessageType::Inform, Port::Boot4011) => chosen
            .is_none_or(|server| server == server_ip)
            .then_some(MessageType::Ack),
        _ => None,
    }
}

/// The boot file by program and architecture. IANA: 0 BIOS; 7 x86-64 UEFI and 9 EBC,
/// which x86-64 firmware says too; 16 x86-64 UEFI over HTTP. There is none yet for
/// 6 and 15 (IA32 UEFI), 11 and 19 (64-bit Arm UEFI).
pub(super) fn boot_file(client: &Client, config: &ProxyConfig) -> Option<String> {
    if client.program == Program::Ipxe {
        return Some(config.script_url.clone());
    }
    let (file, http) = match (client.architecture, client.program) {
        (0, Program::Pxe) => (config.bios_file.as_ref()?, false),
        (7 | 9, Program::Pxe) => (config.efi64_file.as_ref()?, false),
        (7 | 9 | 16, Program::Http) => (config.efi64_http_file.as_ref()?, true),
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
pub(super) fn put_text(field: &mut [u8], text: &str) -> bool {
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
mod tests;
