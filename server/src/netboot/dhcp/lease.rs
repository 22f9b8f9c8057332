//! What an address server answers (RFC 2131 section 4.3; RFC 3046 and 3527 for relays).
//!
//! Owns: the decision which address, for how long, and with which options; boot clients
//! get their boot file in the same packet. Does not own: who has which address
//! ([`super::table`]), storing, sockets.
//!
//! A client is known by its hardware address, not by the identifier that it sends:
//! firmware, iPXE and the Deploy-OS of one machine send different ones, and are one
//! machine with one address.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::answer::{Destination, ProxyConfig, boot_file, put_text};
use super::client::{Client, Program};
use super::option;
use super::packet::{MessageType, Packet, decode_options};
use super::pool::Pool;
use super::table::{Held, Lease, Table};

/// Seconds that an address is kept for a client that was offered it.
pub const OFFER_SECONDS: i64 = 60;
/// Seconds that an address is set aside which a client found used.
pub const DECLINED_SECONDS: i64 = 3_600;
/// Longest name of a client that is kept, in characters.
const MAX_HOST: usize = 63;
/// Longest identifier of a client without hardware address, in bytes.
const MAX_CLIENT_ID: usize = 64;
const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;

/// What is leased, and what comes with it.
#[derive(Clone, Debug)]
pub struct Leasing {
    /// The server's address, by which clients name it.
    pub server_ip: Ipv4Addr,
    /// Ranges, each of its subnet.
    pub pools: Vec<Pool>,
    /// Name servers.
    pub name_servers: Vec<Ipv4Addr>,
    /// Seconds of a lease.
    pub seconds: u32,
    /// Port of check-in and data, for targets that boot from a medium.
    pub data_port: u16,
    /// Port of boot scripts, for the same.
    pub http_port: u16,
    /// What boot clients are offered, unless they are none of ours.
    pub boot: Option<ProxyConfig>,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An address was offered.
    Offered(Ipv4Addr),
    /// An address was leased, or its lease made longer.
    Granted(Ipv4Addr),
    /// The client was told not to use an address.
    Refused(Ipv4Addr, &'static str),
    /// A client with an address of its own was given the options.
    Informed(Ipv4Addr),
    /// A client gave its address back.
    Released(Ipv4Addr),
    /// A client found its address used by something else.
    Declined(Ipv4Addr),
    /// No address of this pool is free.
    Empty(usize),
    /// The client takes its address from another server.
    Other(Ipv4Addr),
    /// Nothing is said, and why.
    Silent(&'static str),
}

/// The outcome of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// What became of it.
    pub event: Event,
    /// Leases that must be stored before the answer goes out.
    pub store: Vec<Lease>,
    /// The answer, if there is one.
    pub reply: Option<(Vec<u8>, Destination)>,
}

/// The pool that a client is in: that of its relay's subnet, of its own address, or ours.
pub fn pool_of(request: &Packet, leasing: &Leasing) -> Option<usize> {
    let link = request
        .option(option::RELAY_AGENT)
        .and_then(|value| decode_options(&value).ok())
        .and_then(|parts| {
            let (_, link) = parts
                .into_iter()
                .find(|(code, _)| *code == option::LINK_SELECTION)?;
            <[u8; 4]>::try_from(link).ok().map(Ipv4Addr::from)
        });
    let place = if !request.giaddr.is_unspecified() {
        link.unwrap_or(request.giaddr)
    } else if !request.ciaddr.is_unspecified() {
        request.ciaddr
    } else {
        leasing.server_ip
    };
    leasing.pools.iter().position(|pool| pool.reaches(place))
}

/// Decides on a request of a client in the pool with number `index`. New addresses are
/// given only if `open`; who has one may keep it either way.
pub fn answer(
    request: &Packet,
    index: usize,
    leasing: &Leasing,
    table: &mut Table,
    open: bool,
    now: i64,
) -> Given {
    let silent = |why| Given::of(Event::Silent(why));
    let (Some(pool), Some(client)) = (leasing.pools.get(index), client_of(request)) else {
        return silent("the client does not say who it is");
    };
    let desk = Desk {
        request,
        leasing,
        pool,
        client,
        now,
    };
    match request.message_type() {
        Some(MessageType::Discover) if open => match desk.discover(table) {
            Some(given) => given,
            None => Given::of(Event::Empty(index)),
        },
        Some(MessageType::Request) => desk.request(table, open),
        Some(MessageType::Decline) => desk.decline(table),
        Some(MessageType::Release) => desk.release(table),
        Some(MessageType::Inform) => desk.inform(),
        _ => silent("it is not meant for an address server"),
    }
}

/// The client, by its hardware address; without one, by its identifier.
fn client_of(request: &Packet) -> Option<String> {
    let used = request.chaddr.get(..usize::from(request.hlen))?;
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    if used.iter().any(|byte| *byte != 0) {
        return Some(format!("{:02x}-{}", request.htype, hex(used)));
    }
    let id = request.option(option::CLIENT_ID)?;
    (!id.is_empty() && id.len() <= MAX_CLIENT_ID).then(|| format!("id-{}", hex(&id)))
}

const NOT_KNOWN: Given = Given {
    event: Event::Silent("the client is not known"),
    store: Vec::new(),
    reply: None,
};

/// One request and what it is answered from.
struct Desk<'a> {
    request: &'a Packet,
    leasing: &'a Leasing,
    pool: &'a Pool,
    client: String,
    now: i64,
}

impl Desk<'_> {
    fn discover(&self, table: &mut Table) -> Option<Given> {
        let wanted = self.request.address_option(option::REQUESTED_ADDRESS);
        let address = table.choose(self.pool, &self.client, wanted, self.now)?;
        table.offer(address, &self.client, self.now + OFFER_SECONDS);
        Some(Given {
            event: Event::Offered(address),
            store: Vec::new(),
            reply: Some(self.reply(MessageType::Offer, address)),
        })
    }

    /// The states of a client are told apart as in RFC 2131 section 4.3.2. While another
    /// server gives out addresses, its clients are not refused anything.
    fn request(&self, table: &mut Table, open: bool) -> Given {
        let chosen = self.request.address_option(option::SERVER_ID);
        let wanted = self.request.address_option(option::REQUESTED_ADDRESS);
        let current = Some(self.request.ciaddr).filter(|address| !address.is_unspecified());
        match (chosen, wanted, current) {
            (Some(server), _, _) if server != self.leasing.server_ip => {
                table.forget_offers(&self.client);
                Given::of(Event::Other(server))
            }
            (Some(_), Some(address), None) => self.selecting(table, address, open),
            (None, Some(address), None) => self.rebooting(table, address, open),
            (_, _, Some(address)) => self.renewing(table, address, open),
            _ => Given::of(Event::Silent("the request names no address")),
        }
    }

    /// It takes what we offered. An offer that has ended is good as long as nobody else
    /// was given the address.
    fn selecting(&self, table: &mut Table, address: Ipv4Addr, open: bool) -> Given {
        let offered =
            table.is_offered(address, &self.client, self.now) || self.is_own(table, address);
        if offered && self.may_have(table, address) {
            return self.grant(table, address);
        }
        if !open {
            return NOT_KNOWN;
        }
        self.refuse(
            address,
            "it was not offered, or somebody else has it by now",
        )
    }

    /// It has an address of an earlier boot and asks whether that is still right.
    fn rebooting(&self, table: &mut Table, address: Ipv4Addr, open: bool) -> Given {
        if !open && !self.is_own(table, address) {
            return NOT_KNOWN;
        }
        if !self.pool.reaches(address) {
            return self.refuse(address, "it belongs to another network");
        }
        match table.of_client(&self.client).map(|lease| lease.address) {
            Some(own) if own == address && self.may_have(table, address) => {
                self.grant(table, address)
            }
            Some(_) => self.refuse(address, "it is not, or no longer, this client's"),
            None if !table.is_open(address, &self.client, self.now) => {
                self.refuse(address, "somebody else has it")
            }
            // RFC 2131: a server that does not know the client says nothing.
            None => NOT_KNOWN,
        }
    }

    /// It uses an address and wants it for longer. What is not known here may be of a store
    /// that was lost: it is granted if nobody else has it.
    fn renewing(&self, table: &mut Table, address: Ipv4Addr, open: bool) -> Given {
        let known = self.is_own(table, address);
        if !known && !open {
            return NOT_KNOWN;
        }
        if self.may_have(table, address) {
            return self.grant(table, address);
        }
        self.refuse(
            address,
            "it is not one that is given here, or somebody else has it",
        )
    }

    fn decline(&self, table: &mut Table) -> Given {
        let Some(address) = self.request.address_option(option::REQUESTED_ADDRESS) else {
            return Given::of(Event::Silent("the refusal names no address"));
        };
        // Only what it was given: else one client could empty the pool in a moment.
        let given =
            self.is_own(table, address) || table.is_offered(address, &self.client, self.now);
        if !given || !self.pool.holds(address) {
            return Given::of(Event::Silent("it refuses an address that it was not given"));
        }
        let until = self.now + DECLINED_SECONDS;
        let stored = table.decline(self.lease(address, Held::Declined, until));
        Given {
            event: Event::Declined(address),
            store: vec![stored],
            reply: None,
        }
    }

    fn release(&self, table: &mut Table) -> Given {
        let address = self.request.ciaddr;
        match table.release(address, &self.client, self.now) {
            Some(lease) => Given {
                event: Event::Released(address),
                store: vec![lease],
                reply: None,
            },
            None => Given::of(Event::Silent(
                "it gives back an address that it does not have",
            )),
        }
    }

    fn inform(&self) -> Given {
        Given {
            event: Event::Informed(self.request.ciaddr),
            store: Vec::new(),
            reply: Some(self.reply(MessageType::Ack, Ipv4Addr::UNSPECIFIED)),
        }
    }

    fn is_own(&self, table: &Table, address: Ipv4Addr) -> bool {
        table
            .of_client(&self.client)
            .is_some_and(|lease| lease.address == address)
    }

    fn may_have(&self, table: &Table, address: Ipv4Addr) -> bool {
        self.pool.holds(address) && table.is_open(address, &self.client, self.now)
    }

    fn lease(&self, address: Ipv4Addr, held: Held, until: i64) -> Lease {
        let host = self.request.option(option::HOST_NAME).unwrap_or_default();
        let host = String::from_utf8_lossy(&host);
        Lease {
            address,
            client: self.client.clone(),
            mac: self.request.mac(),
            host: host
                .chars()
                .filter(|c| c.is_ascii_graphic())
                .take(MAX_HOST)
                .collect(),
            held,
            since: self.now,
            until,
        }
    }

    fn grant(&self, table: &mut Table, address: Ipv4Addr) -> Given {
        let until = self.now + i64::from(self.leasing.seconds);
        let store = table.grant(self.lease(address, Held::Leased, until));
        Given {
            event: Event::Granted(address),
            store,
            reply: Some(self.reply(MessageType::Ack, address)),
        }
    }

    fn refuse(&self, address: Ipv4Addr, why: &'static str) -> Given {
        let mut packet = self.blank(MessageType::Nak);
        packet.ciaddr = Ipv4Addr::UNSPECIFIED;
        packet
            .options
            .push((option::MESSAGE, why.as_bytes().to_vec()));
        self.repeat(&mut packet);
        let to = if self.request.giaddr.is_unspecified() {
            Destination::Broadcast
        } else {
            // The client has no address that counts: the relay must broadcast.
            packet.flags |= 0x8000;
            Destination::Address(SocketAddrV4::new(self.request.giaddr, SERVER_PORT))
        };
        Given {
            event: Event::Refused(address, why),
            store: Vec::new(),
            reply: Some((packet.encode(), to)),
        }
    }

    /// Fixed fields, kind and server.
    fn blank(&self, kind: MessageType) -> Packet {
        let request = self.request;
        let server = self.leasing.server_ip;
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
            siaddr: Ipv4Addr::UNSPECIFIED,
            giaddr: request.giaddr,
            chaddr: request.chaddr,
            sname: [0; 64],
            file: [0; 128],
            options: vec![
                (option::MESSAGE_TYPE, vec![kind as u8]),
                (option::SERVER_ID, server.octets().to_vec()),
            ],
        }
    }

    /// An offer or an acknowledgement; the address is unspecified for clients that have one.
    fn reply(&self, kind: MessageType, address: Ipv4Addr) -> (Vec<u8>, Destination) {
        let mut packet = self.blank(kind);
        packet.yiaddr = address;
        let seconds = self.leasing.seconds;
        if kind == MessageType::Offer {
            packet.ciaddr = Ipv4Addr::UNSPECIFIED;
        }
        if !address.is_unspecified() {
            let times = [
                (option::LEASE_TIME, seconds),
                (option::RENEWAL_TIME, seconds / 2),
                (option::REBINDING_TIME, seconds / 8 * 7),
            ];
            for (code, seconds) in times {
                packet.options.push((code, seconds.to_be_bytes().to_vec()));
            }
        }
        let addresses =
            |list: &[Ipv4Addr]| list.iter().flat_map(|ip| ip.octets()).collect::<Vec<u8>>();
        let pool = self.pool;
        packet.options.extend([
            (option::SUBNET_MASK, addresses(&[pool.mask()])),
            (option::BROADCAST, addresses(&[pool.broadcast()])),
        ]);
        for (code, list) in [
            (option::ROUTER, pool.routers()),
            (option::NAME_SERVER, self.leasing.name_servers.as_slice()),
        ] {
            if !list.is_empty() {
                packet.options.push((code, addresses(list)));
            }
        }
        self.own_options(&mut packet);
        self.boot(&mut packet);
        self.repeat(&mut packet);
        let to = if !self.request.giaddr.is_unspecified() {
            Destination::Address(SocketAddrV4::new(self.request.giaddr, SERVER_PORT))
        } else if !self.request.ciaddr.is_unspecified() && kind == MessageType::Ack {
            Destination::Address(SocketAddrV4::new(self.request.ciaddr, CLIENT_PORT))
        } else {
            Destination::Broadcast
        };
        (packet.encode(), to)
    }

    /// Where the server is, for a target that boots from a medium and asks.
    fn own_options(&self, packet: &mut Packet) {
        let wanted = self.request.option(option::PARAMETERS).unwrap_or_default();
        let leasing = self.leasing;
        let own = [
            (option::DEPLOY_SERVER, leasing.server_ip.octets().to_vec()),
            (
                option::DEPLOY_SECURE_PORT,
                leasing.data_port.to_be_bytes().to_vec(),
            ),
            (
                option::DEPLOY_PLAIN_PORT,
                leasing.http_port.to_be_bytes().to_vec(),
            ),
        ];
        let own = own.into_iter().filter(|(code, _)| wanted.contains(code));
        packet.options.extend(own);
    }

    /// The boot file, in the field and, where it is asked for or does not fit, as option.
    /// Firmware takes it from an ordinary offer, without the vendor options that a boot
    /// server beside an address server has to send; HTTP clients want their class back.
    fn boot(&self, packet: &mut Packet) {
        let Some((config, client)) = self.leasing.boot.as_ref().zip(Client::of(self.request))
        else {
            return;
        };
        let Some(file) = boot_file(&client, config) else {
            return;
        };
        let server = self.leasing.server_ip;
        packet.siaddr = server;
        put_text(&mut packet.sname, &server.to_string());
        let fits = put_text(&mut packet.file, &file);
        let wanted = self.request.option(option::PARAMETERS).unwrap_or_default();
        if client.http_class {
            packet
                .options
                .push((option::VENDOR_CLASS, b"HTTPClient".to_vec()));
        } else if wanted.contains(&option::TFTP_SERVER) {
            let server = server.to_string().into_bytes();
            packet.options.push((option::TFTP_SERVER, server));
        }
        if client.http_class || !fits || wanted.contains(&option::BOOT_FILE) {
            packet.options.push((option::BOOT_FILE, file.into_bytes()));
        }
        if client.program == Program::Ipxe {
            // Else it waits some seconds for a boot server beside us.
            let value = vec![option::IPXE_NO_PROXY, 1, 1];
            packet.options.push((option::IPXE, value));
        }
    }

    /// What has to come back unchanged; the relay's part stands last.
    fn repeat(&self, packet: &mut Packet) {
        for code in [option::CLIENT_ID, option::CLIENT_GUID, option::RELAY_AGENT] {
            if let Some(value) = self.request.option(code) {
                packet.options.push((code, value));
            }
        }
    }
}

impl Given {
    fn of(event: Event) -> Given {
        Given {
            event,
            store: Vec::new(),
            reply: None,
        }
    }
}

#[cfg(test)]
mod tests;
