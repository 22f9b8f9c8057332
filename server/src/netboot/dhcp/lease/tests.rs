//! An address server's answers, by the states of a client, and byte for byte where it
//! matters.

use super::{DECLINED_SECONDS, Event, Given, Leasing, OFFER_SECONDS, answer, pool_of};
use crate::netboot::dhcp::answer::{Destination, ProxyConfig};
use crate::netboot::dhcp::packet::Packet;
use crate::netboot::dhcp::pool::Pool;
use crate::netboot::dhcp::table::{Held, Table};
use crate::netboot::dhcp::testing::{bytes, discover, head, request};
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use std::net::Ipv4Addr;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 100);
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 101);
const HOUR: i64 = 3600;

fn leasing() -> Leasing {
    let pool = |range: &str| {
        Pool::new(
            range.parse().unwrap(),
            24,
            &[ROUTER, Ipv4Addr::new(10, 98, 0, 1)],
            &[SERVER],
        )
        .unwrap()
    };
    Leasing {
        server_ip: SERVER,
        pools: vec![
            pool("10.99.0.100-10.99.0.101"),
            pool("10.98.0.50-10.98.0.59"),
        ],
        name_servers: vec![ROUTER],
        seconds: 3600,
        data_port: 26501,
        http_port: 26500,
        boot: Some(ProxyConfig {
            script_url: "http://10.99.0.2:26500/boot/boot.ipxe".to_owned(),
            files_url: "http://10.99.0.2:26500/boot/files".to_owned(),
            bios_file: Some("undionly.kpxe".to_owned()),
            efi64_file: Some("snponly.efi".to_owned()),
            efi64_http_file: Some("snponly.efi".to_owned()),
        }),
    }
}

/// A client's packet: options in hexadecimal, and the last byte of its hardware address.
fn client(last: u8, options: &str) -> Packet {
    let mut packet = Packet::decode(&request(&format!("{options} ff"))).unwrap();
    packet.chaddr[5] = last;
    packet
}

struct Server {
    leasing: Leasing,
    table: Table,
    now: i64,
    open: bool,
}

impl Server {
    fn new() -> Server {
        Server {
            leasing: leasing(),
            table: Table::default(),
            now: 1000,
            open: true,
        }
    }

    fn given(&mut self, request: &Packet) -> Given {
        let pool = pool_of(request, &self.leasing).expect("the client is in a pool");
        answer(
            request,
            pool,
            &self.leasing,
            &mut self.table,
            self.open,
            self.now,
        )
    }

    fn event(&mut self, request: &Packet) -> Event {
        self.given(request).event
    }

    fn ask(&mut self, last: u8, options: &str) -> Event {
        self.event(&client(last, options))
    }

    /// A client takes an address as RFC 2131 tells.
    fn take(&mut self, last: u8) -> Ipv4Addr {
        let Event::Offered(address) = self.ask(last, "35 01 01") else {
            panic!("nothing was offered")
        };
        let wanted = hex::encode(address.octets());
        let taken = self.ask(last, &format!("35 01 03 36 04 0a630002 32 04 {wanted}"));
        assert_eq!(taken, Event::Granted(address));
        address
    }
}

fn reply(given: &Given) -> (Packet, Destination) {
    let (packet, to) = given.reply.as_ref().expect("there is an answer");
    (Packet::decode(packet).unwrap(), *to)
}

/// Byte for byte, so that nothing can change unseen.
#[test]
fn the_offer_to_uefi_firmware_is_the_golden_one() {
    let mut golden = head(
        2,
        "8000",
        "00000000 0a630064 0a630002 00000000",
        b"10.99.0.2",
        b"snponly.efi",
    );
    golden.extend(bytes(
        "35 01 02  36 04 0a630002  33 04 00000e10  3a 04 00000708  3b 04 00000c4e
         01 04 ffffff00  1c 04 0a6300ff  03 04 0a630001  06 04 0a630001",
    ));
    golden.extend(bytes("42 09"));
    golden.extend(b"10.99.0.2");
    golden.extend(bytes("43 0b"));
    golden.extend(b"snponly.efi");
    golden.extend(bytes("61 11 00 0102030405060708090a0b0c0d0e0f10 ff"));
    golden.resize(golden.len().max(300), 0);
    let given = Server::new().given(&Packet::decode(&discover()).unwrap());
    assert_eq!(given.event, Event::Offered(FIRST));
    let (packet, to) = given.reply.unwrap();
    assert_eq!(hex::encode(packet), hex::encode(golden));
    assert_eq!(to, Destination::Broadcast);
    assert!(given.store.is_empty(), "an offer is no lease");
}

#[test]
fn an_offer_that_is_taken_becomes_a_lease_that_is_stored() {
    let mut server = Server::new();
    assert_eq!(server.ask(1, "35 01 01"), Event::Offered(FIRST));
    let given = server.given(&client(
        1,
        "35 01 03 36 04 0a630002 32 04 0a630064 0c 03 70633a",
    ));
    assert_eq!(given.event, Event::Granted(FIRST));
    let lease = &given.store[0];
    assert_eq!((lease.held, lease.until), (Held::Leased, 1000 + HOUR));
    assert_eq!(
        (lease.host.as_str(), lease.mac.as_str()),
        ("pc:", "52:54:00:12:34:01")
    );
    let (packet, _) = reply(&given);
    assert_eq!(packet.option(53).unwrap(), [5]);
    assert_eq!(packet.yiaddr, FIRST);
    assert_eq!(server.ask(2, "35 01 01"), Event::Offered(SECOND));
}

#[test]
fn what_was_not_offered_is_refused() {
    let mut server = Server::new();
    let given = server.given(&client(1, "35 01 03 36 04 0a630002 32 04 0a630064"));
    assert!(matches!(given.event, Event::Refused(FIRST, _)));
    let (packet, to) = reply(&given);
    assert_eq!(packet.option(53).unwrap(), [6]);
    assert_eq!(
        (packet.yiaddr, to),
        (Ipv4Addr::UNSPECIFIED, Destination::Broadcast)
    );
    assert_eq!(packet.option(51), None);
    // An offer that has ended, and went to another meanwhile.
    server.ask(1, "35 01 01");
    server.now += OFFER_SECONDS;
    assert_eq!(server.ask(2, "35 01 01"), Event::Offered(FIRST));
    let late = server.ask(1, "35 01 03 36 04 0a630002 32 04 0a630064");
    assert!(matches!(late, Event::Refused(..)), "{late:?}");
}

#[test]
fn who_chooses_another_server_is_seen() {
    let mut server = Server::new();
    server.ask(1, "35 01 01");
    let other = Event::Other(Ipv4Addr::new(10, 99, 0, 1));
    assert_eq!(
        server.ask(1, "35 01 03 36 04 0a630001 32 04 0a6300c8"),
        other
    );
    assert_eq!(
        server.ask(2, "35 01 01"),
        Event::Offered(FIRST),
        "the offer is free again"
    );
}

#[test]
fn a_client_that_boots_again_is_confirmed_refused_or_not_known() {
    let mut server = Server::new();
    server.take(1);
    assert_eq!(
        server.ask(1, "35 01 03 32 04 0a630064"),
        Event::Granted(FIRST)
    );
    let wrong = server.ask(1, "35 01 03 32 04 0a630065");
    assert!(
        matches!(wrong, Event::Refused(..)),
        "another address than its own: {wrong:?}"
    );
    let network = server.ask(2, "35 01 03 32 04 c0a80007");
    assert!(
        matches!(network, Event::Refused(..)),
        "another network: {network:?}"
    );
    let used = server.ask(2, "35 01 03 32 04 0a630064");
    assert!(
        matches!(used, Event::Refused(..)),
        "another client's: {used:?}"
    );
    let unknown = server.ask(2, "35 01 03 32 04 0a630065");
    assert!(
        matches!(unknown, Event::Silent(_)),
        "RFC 2131 wants silence: {unknown:?}"
    );
}

#[test]
fn a_client_that_renews_is_answered_at_its_address() {
    let mut server = Server::new();
    server.take(1);
    server.now += HOUR / 2;
    let mut renewing = client(1, "35 01 03");
    renewing.ciaddr = FIRST;
    let given = server.given(&renewing);
    assert_eq!(
        (&given.event, given.store[0].until),
        (&Event::Granted(FIRST), server.now + HOUR)
    );
    let (packet, to) = reply(&given);
    assert_eq!(to, Destination::Address("10.99.0.100:68".parse().unwrap()));
    assert_eq!((packet.ciaddr, packet.yiaddr), (FIRST, FIRST));
    // Of a store that was lost: nobody else has it.
    let mut lost = client(2, "35 01 03");
    lost.ciaddr = SECOND;
    assert_eq!(server.event(&lost), Event::Granted(SECOND));
    // Somebody else's, and one that is not in the range.
    lost.ciaddr = FIRST;
    assert!(matches!(server.event(&lost), Event::Refused(..)));
    lost.ciaddr = Ipv4Addr::new(10, 99, 0, 7);
    assert!(matches!(server.event(&lost), Event::Refused(..)));
}

#[test]
fn what_is_given_back_is_given_again() {
    let mut server = Server::new();
    server.take(1);
    server.take(2);
    assert_eq!(server.ask(3, "35 01 01"), Event::Empty(0));
    let mut release = client(3, "35 01 07 36 04 0a630002");
    release.ciaddr = FIRST;
    assert!(
        matches!(server.event(&release), Event::Silent(_)),
        "not its own"
    );
    release.chaddr[5] = 1;
    let given = server.given(&release);
    assert_eq!(given.event, Event::Released(FIRST));
    assert_eq!(given.store[0].held, Held::Released);
    assert_eq!(server.ask(3, "35 01 01"), Event::Offered(FIRST));
}

#[test]
fn an_address_that_something_else_uses_is_set_aside() {
    let mut server = Server::new();
    server.take(1);
    let stranger = server.ask(2, "35 01 04 36 04 0a630002 32 04 0a630064");
    assert!(
        matches!(stranger, Event::Silent(_)),
        "only who has it can say so"
    );
    let given = server.given(&client(1, "35 01 04 36 04 0a630002 32 04 0a630064"));
    assert_eq!(given.event, Event::Declined(FIRST));
    assert_eq!(given.store[0].held, Held::Declined);
    assert_eq!(server.take(1), SECOND);
    assert_eq!(server.ask(2, "35 01 01"), Event::Empty(0));
    server.now += DECLINED_SECONDS;
    assert_eq!(
        server.ask(2, "35 01 01"),
        Event::Offered(FIRST),
        "it is tried again"
    );
}

#[test]
fn who_has_an_address_of_its_own_gets_the_options_only() {
    let mut server = Server::new();
    let mut inform = client(1, "35 01 08 37 04 03 ba be c0");
    inform.ciaddr = Ipv4Addr::new(10, 99, 0, 7);
    let given = server.given(&inform);
    assert_eq!(given.event, Event::Informed(inform.ciaddr));
    let (packet, to) = reply(&given);
    assert_eq!(to, Destination::Address("10.99.0.7:68".parse().unwrap()));
    assert_eq!(
        (packet.yiaddr, packet.option(51)),
        (Ipv4Addr::UNSPECIFIED, None)
    );
    assert_eq!(packet.option(3).unwrap(), ROUTER.octets());
    // It asked where the management server is.
    assert_eq!(packet.option(186).unwrap(), SERVER.octets());
    assert_eq!(packet.option(190).unwrap(), 26501u16.to_be_bytes());
    assert_eq!(packet.option(192).unwrap(), 26500u16.to_be_bytes());
}

#[test]
fn relays_get_addresses_of_their_own_subnet() {
    let mut server = Server::new();
    let mut relayed = client(1, "35 01 01 52 06 01 04 65746830");
    relayed.giaddr = Ipv4Addr::new(10, 98, 0, 1);
    let given = server.given(&relayed);
    assert_eq!(given.event, Event::Offered(Ipv4Addr::new(10, 98, 0, 50)));
    let (packet, to) = reply(&given);
    assert_eq!(to, Destination::Address("10.98.0.1:67".parse().unwrap()));
    assert_eq!(packet.option(3).unwrap(), [10, 98, 0, 1]);
    assert_eq!(
        packet.options.last().unwrap(),
        &(82, bytes("01 04 65746830"))
    );
    // The relay may say that the client is in another subnet than it itself.
    let mut selected = client(1, "35 01 01 52 06 05 04 0a620001");
    selected.giaddr = Ipv4Addr::new(172, 16, 0, 1);
    assert_eq!(pool_of(&selected, &server.leasing), Some(1));
    selected.options.pop();
    assert_eq!(
        pool_of(&selected, &server.leasing),
        None,
        "no range for that subnet"
    );
    // A refusal must be broadcast by the relay.
    let mut wrong = client(2, "35 01 03 32 04 0a630064");
    wrong.giaddr = Ipv4Addr::new(10, 98, 0, 1);
    let (packet, to) = reply(&server.given(&wrong));
    assert_eq!(
        (packet.flags, to),
        (
            0x8000,
            Destination::Address("10.98.0.1:67".parse().unwrap())
        )
    );
}

#[test]
fn beside_another_server_only_who_has_an_address_keeps_it() {
    let mut server = Server::new();
    server.take(1);
    server.open = false;
    assert!(matches!(server.ask(2, "35 01 01"), Event::Silent(_)));
    let mut renewing = client(1, "35 01 03");
    renewing.ciaddr = FIRST;
    assert_eq!(server.event(&renewing), Event::Granted(FIRST));
    renewing.chaddr[5] = 2;
    renewing.ciaddr = SECOND;
    assert!(matches!(server.event(&renewing), Event::Silent(_)));
    // The other server's clients are not refused anything.
    for options in [
        "35 01 03 32 04 c0a80007",
        "35 01 03 32 04 0a630064",
        "35 01 03 36 04 0a630002 32 04 0a630065",
    ] {
        assert!(
            matches!(server.ask(2, options), Event::Silent(_)),
            "{options}"
        );
    }
}

#[test]
fn one_machine_has_one_address_whatever_it_calls_itself() {
    let mut server = Server::new();
    assert_eq!(server.take(1), FIRST);
    assert_eq!(
        server.ask(1, "35 01 01 3d 03 00 01 02"),
        Event::Offered(FIRST)
    );
    let given = server.given(&client(1, "35 01 01 3d 03 00 01 02"));
    assert_eq!(reply(&given).0.option(61).unwrap(), [0, 1, 2], "RFC 6842");
    let mut without = client(0, "35 01 01 3d 03 00 01 02");
    without.chaddr = [0; 16];
    assert_eq!(server.event(&without), Event::Offered(SECOND));
    without.options.pop();
    assert!(matches!(server.event(&without), Event::Silent(_)));
}

#[test]
fn boot_clients_get_their_file_with_the_address() {
    let mut server = Server::new();
    let of = |server: &mut Server, class: &str, more: &str| {
        let options = format!(
            "35 01 01 3c {:02x} {} {more}",
            class.len(),
            hex::encode(class)
        );
        reply(&server.given(&client(1, &options))).0
    };
    let ipxe = of(&mut server, "PXEClient", "4d 04 69505845");
    assert!(
        ipxe.file
            .starts_with(b"http://10.99.0.2:26500/boot/boot.ipxe\0")
    );
    assert_eq!(
        ipxe.option(175).unwrap(),
        [176, 1, 1],
        "it need not wait for a proxy"
    );
    let http = of(&mut server, "HTTPClient:Arch:00016", "5d 02 0010");
    assert_eq!(http.option(60).unwrap(), b"HTTPClient");
    assert_eq!(
        http.option(67).unwrap(),
        b"http://10.99.0.2:26500/boot/files/snponly.efi"
    );
    let bios = of(&mut server, "PXEClient", "5d 02 0000");
    assert_eq!(
        (bios.siaddr, bios.option(60), bios.option(43)),
        (SERVER, None, None)
    );
    let ordinary = of(&mut server, "MSFT 5.0", "");
    assert_eq!(
        (ordinary.siaddr, ordinary.file),
        (Ipv4Addr::UNSPECIFIED, [0; 128])
    );
    let unknown = of(&mut server, "PXEClient", "5d 02 0006");
    assert_eq!(
        (unknown.yiaddr, unknown.file),
        (FIRST, [0; 128]),
        "an address, and no file"
    );
    server.leasing.boot = None;
    assert_eq!(of(&mut server, "PXEClient", "5d 02 0000").file, [0; 128]);
}

proptest! {
    /// Whatever comes, what is given lies in the range, and the answer is the client's.
    #[test]
    fn any_request_is_answered_within_the_range(
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6),
        kind in 0..10u8,
        wanted in any::<[u8; 4]>(),
        near in any::<bool>(),
    ) {
        let mut bytes = discover();
        for (place, value) in damage {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        let Ok(mut request) = Packet::decode(&bytes) else { return Ok(()) };
        let wanted = if near { vec![10, 99, 0, 98 + wanted[3] % 6] } else { wanted.to_vec() };
        request.options.retain(|(code, _)| *code != 53 && *code != 50);
        request.options.extend([(53, vec![kind]), (50, wanted)]);
        let mut server = Server::new();
        server.take(9);
        let Some(pool) = pool_of(&request, &server.leasing) else { return Ok(()) };
        let given = answer(&request, pool, &server.leasing, &mut server.table, true, 1001);
        for lease in &given.store {
            prop_assert!(server.leasing.pools[pool].holds(lease.address));
        }
        if let Some((packet, _)) = given.reply {
            let reply = Packet::decode(&packet).unwrap();
            prop_assert_eq!((reply.op, reply.xid, reply.chaddr), (2, request.xid, request.chaddr));
            prop_assert!(reply.yiaddr.is_unspecified() || server.leasing.pools[pool].holds(reply.yiaddr));
            prop_assert!(reply.yiaddr != FIRST || request.chaddr[5] == 9, "that is another's");
        }
    }
}
