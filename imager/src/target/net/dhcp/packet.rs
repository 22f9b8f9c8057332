//! DHCP packets: what a client sends, and the leases in what it receives (RFC 2131,
//! RFC 2132, RFC 3396; options 93, 97: RFC 4578).
//!
//! Owns: the bytes. Does not own: when which packet is sent.

use super::announced::Announced;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Message types (option 53).
pub const DISCOVER: u8 = 1;
/// A server's offer.
pub const OFFER: u8 = 2;
/// A client's request.
pub const REQUEST: u8 = 3;
/// The server agrees.
pub const ACK: u8 = 5;
/// The server disagrees.
pub const NAK: u8 = 6;

const HEADER_BYTES: usize = 236;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// BOOTP's smallest packet; some relays drop shorter ones.
const SMALLEST: usize = 300;
/// Larger than any Ethernet frame; what is beyond is not looked at.
const LARGEST: usize = 9216;

/// What is asked for: mask, routers, DNS, host and domain name, MTU, broadcast, lease
/// and its times, the server's identity, vendor options, and the options 186, 187,
/// 190, 192 by which a server of ours can be announced.
const WANTED: [u8; 16] = [
    1, 3, 6, 12, 15, 26, 28, 43, 51, 54, 58, 59, 186, 187, 190, 192,
];

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Ethernet address.
    pub mac: [u8; 6],
    /// SMBIOS UUID as it lies in the firmware's memory (option 97).
    pub uuid: Option<[u8; 16]>,
}

/// A request to be encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// [`DISCOVER`] or [`REQUEST`].
    pub kind: u8,
    /// Transaction.
    pub xid: u32,
    /// Seconds since the client began.
    pub secs: u16,
    /// The address that the client uses already (renewal).
    pub client: Option<Ipv4Addr>,
    /// Option 50.
    pub requested: Option<Ipv4Addr>,
    /// Option 54.
    pub server: Option<Ipv4Addr>,
}

/// An address and what came with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// Length of its network prefix.
    pub prefix: u8,
    /// Routers, best first.
    pub routers: Vec<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// Domain name.
    pub domain: Option<String>,
    /// The server that gave it.
    pub server: Ipv4Addr,
    /// For how long; `None` is for ever.
    pub valid: Option<Duration>,
    /// When it is renewed with its server.
    pub renew: Duration,
    /// When it is renewed with any server.
    pub rebind: Duration,
    /// Servers of ours that came with it.
    pub announced: Announced,
}

/// An answer that gives no address, from a server beside the address server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Who says so.
    pub server: Ipv4Addr,
    /// What it says; never nothing.
    pub announced: Announced,
}

/// A reply that belongs to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// [`OFFER`]
    Offer(Lease),
    /// [`ACK`]
    Ack(Lease),
    /// [`NAK`], with the server's words.
    Nak(String),
    /// [`OFFER`] without an address.
    Proxy(Proxy),
}

impl Outgoing {
    /// The bytes.
    pub fn encode(&self, identity: &Identity) -> Vec<u8> {
        let mut packet = vec![0; HEADER_BYTES];
        packet[0..4].copy_from_slice(&[1, 1, 6, 0]); // request, Ethernet, 6 bytes, no hops
        packet[4..8].copy_from_slice(&self.xid.to_be_bytes());
        packet[8..10].copy_from_slice(&self.secs.to_be_bytes());
        match self.client {
            Some(address) => packet[12..16].copy_from_slice(&address.octets()),
            // Without an address nothing but a broadcast reaches us.
            None => packet[10] = 0x80,
        }
        packet[28..34].copy_from_slice(&identity.mac);
        packet.extend(COOKIE);
        option(&mut packet, 53, &[self.kind]);
        // The same client identifier as PXE firmware and iPXE use: the same lease.
        let [a, b, c, d, e, f] = identity.mac;
        option(&mut packet, 61, &[1, a, b, c, d, e, f]);
        if let Some(address) = self.requested {
            option(&mut packet, 50, &address.octets());
        }
        if let Some(server) = self.server {
            option(&mut packet, 54, &server.octets());
        }
        option(&mut packet, 57, &1500_u16.to_be_bytes());
        // Not "PXEClient": no boot server shall answer.
        option(&mut packet, 60, b"deploy-os");
        if let Some(uuid) = identity.uuid {
            let mut value = vec![0];
            value.extend(uuid);
            option(&mut packet, 97, &value);
        }
        option(&mut packet, 55, &WANTED);
        packet.push(255);
        packet.resize(packet.len().max(SMALLEST), 0);
        packet
    }
}

/// Reads a reply; `None` if it is not for this client and transaction, or makes no sense.
pub fn parse(bytes: &[u8], identity: &Identity, xid: u32) -> Option<Incoming> {
    let header = bytes.get(..HEADER_BYTES)?;
    let options = bytes.get(HEADER_BYTES..bytes.len().min(LARGEST))?;
    let ours = header[0] == 2
        && header[1..3] == [1, 6]
        && header[4..8] == xid.to_be_bytes()
        && header[28..34] == identity.mac;
    let options = options.strip_prefix(&COOKIE)?;
    if !ours {
        return None;
    }
    let get = |code| value(options, header, code);
    let kind = get(53)?.first().copied()?;
    if kind == NAK {
        let words = get(56).unwrap_or_default();
        return Some(Incoming::Nak(printable(&words)));
    }
    let address = first_address(&header[16..20])?;
    if kind == OFFER && address.is_unspecified() {
        let server = first_address(&get(54)?)?;
        let announced = Announced::read(&get);
        let proxy = Proxy { server, announced };
        return Some(proxy)
            .filter(|proxy| !proxy.announced.is_empty())
            .map(Incoming::Proxy);
    }
    let lease = lease(address, get)?;
    match kind {
        OFFER => Some(Incoming::Offer(lease)),
        ACK => Some(Incoming::Ack(lease)),
        _ => None,
    }
}

fn lease(address: Ipv4Addr, get: impl Fn(u8) -> Option<Vec<u8>>) -> Option<Lease> {
    let usable = !(address.is_unspecified()
        || address.is_broadcast()
        || address.is_multicast()
        || address.is_loopback());
    let server = first_address(&get(54)?)?;
    if !usable {
        return None;
    }
    let seconds = |code| Some(u32::from_be_bytes(get(code)?.try_into().ok()?));
    let valid = match seconds(51) {
        // BOOTP servers and infinite leases.
        None | Some(u32::MAX) => None,
        Some(seconds) => Some(Duration::from_secs(seconds.max(60).into())),
    };
    let total = valid.unwrap_or(Duration::MAX);
    let within = |code, part: Duration| {
        let told = seconds(code).map(|s| Duration::from_secs(s.into()));
        told.filter(|t| !t.is_zero() && *t < total).unwrap_or(part)
    };
    let rebind = within(59, total.saturating_sub(total / 8));
    let renew = within(58, total / 2).min(rebind);
    Some(Lease {
        address,
        prefix: get(1)
            .and_then(|mask| prefix(&mask))
            .unwrap_or_else(|| classful(address)),
        routers: addresses(get(3)),
        dns: addresses(get(6)),
        domain: get(15).and_then(|name| domain(&name)),
        server,
        valid,
        renew,
        rebind,
        announced: Announced::read(&get),
    })
}

fn option(packet: &mut Vec<u8>, code: u8, value: &[u8]) {
    packet.push(code);
    // Every value that we send is shorter than 255 bytes.
    packet.push(u8::try_from(value.len()).unwrap_or(0));
    packet.extend(value);
}

/// An option's value from the option field, and from `file` and `sname` where option 52
/// says that they hold options.
fn value(options: &[u8], header: &[u8], code: u8) -> Option<Vec<u8>> {
    let direct = collect(options, code);
    let overload = collect(options, 52)
        .and_then(|v| v.first().copied())
        .unwrap_or(0);
    direct
        .or_else(|| collect(header.get(108..236).filter(|_| overload & 1 != 0)?, code))
        .or_else(|| collect(header.get(44..108).filter(|_| overload & 2 != 0)?, code))
}

/// All parts of an option, joined (RFC 3396). A part that reaches past the end ends the
/// search: what stood before it is still good.
pub(super) fn collect(mut options: &[u8], code: u8) -> Option<Vec<u8>> {
    let mut found: Option<Vec<u8>> = None;
    loop {
        match options {
            [] | [255, ..] | [_] => return found,
            [0, rest @ ..] => options = rest,
            [this, len, rest @ ..] => {
                let Some((value, after)) = rest.split_at_checked(usize::from(*len)) else {
                    return found;
                };
                if *this == code {
                    found.get_or_insert_default().extend(value);
                }
                options = after;
            }
        }
    }
}

fn first_address(value: &[u8]) -> Option<Ipv4Addr> {
    value
        .first_chunk::<4>()
        .map(|octets| Ipv4Addr::from(*octets))
}

pub(super) fn addresses(value: Option<Vec<u8>>) -> Vec<Ipv4Addr> {
    let value = value.unwrap_or_default();
    let all = value.chunks_exact(4).filter_map(first_address);
    all.filter(|a| !a.is_unspecified()).take(8).collect()
}

fn prefix(mask: &[u8]) -> Option<u8> {
    let mask = first_address(mask)?.to_bits();
    let ones = mask.leading_ones();
    let contiguous = mask.checked_shl(ones).unwrap_or(0) == 0;
    // At most 32.
    if contiguous && ones > 0 {
        u8::try_from(ones).ok()
    } else {
        None
    }
}

fn classful(address: Ipv4Addr) -> u8 {
    match address.octets()[0] {
        0..=127 => 8,
        128..=191 => 16,
        _ => 24,
    }
}

pub(crate) fn domain(name: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(name)
        .ok()?
        .trim_matches(['\0', ' ', '.']);
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let good = !text.is_empty() && text.len() <= 253 && text.bytes().all(plain);
    good.then(|| text.to_owned())
}

fn printable(words: &[u8]) -> String {
    let text = String::from_utf8_lossy(words);
    text.chars().filter(|c| !c.is_control()).take(120).collect()
}

#[cfg(test)]
#[path = "packet_tests.rs"]
pub(in crate::target::net) mod tests;
