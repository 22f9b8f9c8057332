//! The state machine against a played server, with lost and mutated packets.

use super::super::packet::tests::{IDENTITY, reply};
use super::super::packet::{ACK, NAK, OFFER};
use super::{Event, Machine, Transmit};
use proptest::prelude::*;
use std::net::Ipv4Addr;
use std::time::Duration;

const HOUR: [u8; 6] = [51, 4, 0, 0, 14, 16];

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn xid(sent: &Transmit) -> u32 {
    u32::from_be_bytes(sent.bytes[4..8].try_into().unwrap())
}

fn kind(sent: &Transmit) -> u8 {
    sent.bytes[242]
}

/// What a good server answers.
fn good(sent: &Transmit) -> Vec<u8> {
    let kind = if kind(sent) == 1 { OFFER } else { ACK };
    reply(xid(sent), kind, [10, 0, 0, 50], &HOUR)
}

fn bound() -> Machine {
    let mut machine = Machine::new(IDENTITY, 100, at(0));
    let discover = machine.poll(at(0)).0.unwrap();
    assert_eq!(machine.receive(at(0), &good(&discover)), None);
    let request = machine.poll(at(0)).0.unwrap();
    assert!(matches!(
        machine.receive(at(0), &good(&request)),
        Some(Event::Bound(_))
    ));
    machine
}

#[test]
fn an_address_is_had_in_four_packets() {
    let machine = bound();
    assert_eq!(machine.due(), at(1800));
    assert_eq!(machine.heard(), ["10.0.0.1 offers 10.0.0.50"]);
}

#[test]
fn a_silent_network_is_asked_at_growing_intervals_for_as_long_as_it_takes() {
    let mut machine = Machine::new(IDENTITY, 100, at(0));
    let mut times = Vec::new();
    while machine.due() <= at(100) {
        let now = machine.due();
        let sent = machine.poll(now).0.unwrap();
        assert_eq!((kind(&sent), sent.to), (1, Ipv4Addr::BROADCAST));
        assert_eq!(machine.poll(now), (None, None));
        times.push(now.as_secs());
    }
    assert_eq!(
        times,
        [0, 1, 3, 7, 15, 23, 31, 39, 47, 55, 63, 71, 79, 87, 95]
    );
}

#[test]
fn an_offer_that_is_not_confirmed_is_given_up() {
    let mut machine = Machine::new(IDENTITY, 100, at(0));
    let discover = machine.poll(at(0)).0.unwrap();
    machine.receive(at(0), &good(&discover));
    let kinds: Vec<u8> = (0..6)
        .map(|_| {
            let now = machine.due();
            kind(&machine.poll(now).0.unwrap())
        })
        .collect();
    assert_eq!(kinds, [3, 3, 3, 3, 1, 1]);
}

#[test]
fn a_refusal_starts_again_after_a_pause() {
    let mut machine = Machine::new(IDENTITY, 100, at(0));
    let discover = machine.poll(at(0)).0.unwrap();
    machine.receive(at(0), &good(&discover));
    let request = machine.poll(at(0)).0.unwrap();
    assert_eq!(
        machine.receive(at(1), &reply(xid(&request), NAK, [0; 4], &[])),
        None
    );
    assert_eq!(machine.due(), at(3));
    let again = machine.poll(at(3)).0.unwrap();
    assert_eq!(kind(&again), 1);
    assert_ne!(xid(&again), xid(&request));
}

#[test]
fn an_ack_of_another_server_does_not_bind() {
    let mut machine = Machine::new(IDENTITY, 100, at(0));
    let discover = machine.poll(at(0)).0.unwrap();
    machine.receive(at(0), &good(&discover));
    let request = machine.poll(at(0)).0.unwrap();
    let mut other = good(&request);
    other[248] = 2; // option 54: 10.0.0.2
    assert_eq!(machine.receive(at(0), &other), None);
}

#[test]
fn renewal_goes_to_the_server_then_to_all_and_keeps_the_address() {
    let mut machine = bound();
    assert_eq!(machine.poll(at(1799)), (None, None));
    let renewal = machine.poll(at(1800)).0.unwrap();
    assert_eq!(
        (kind(&renewal), renewal.to),
        (3, Ipv4Addr::new(10, 0, 0, 1))
    );
    assert_eq!(renewal.bytes[12..16], [10, 0, 0, 50]);
    assert_eq!(machine.due(), at(1800 + 675));
    let rebinding = machine.poll(at(3150)).0.unwrap();
    assert_eq!(rebinding.to, Ipv4Addr::BROADCAST);
    let event = machine.receive(at(3160), &good(&rebinding));
    assert!(matches!(event, Some(Event::Renewed(_))), "{event:?}");
    assert_eq!(machine.due(), at(3160 + 1800));
}

#[test]
fn a_lease_that_ends_or_is_refused_is_lost_and_looked_for_anew() {
    let mut machine = bound();
    machine.poll(at(1800));
    let (sent, event) = machine.poll(at(3600));
    assert!(sent.is_none() && matches!(event, Some(Event::Lost(_))));
    let later = machine.due();
    assert_eq!(kind(&machine.poll(later).0.unwrap()), 1);

    let mut machine = bound();
    let renewal = machine.poll(at(1800)).0.unwrap();
    let event = machine.receive(at(1800), &reply(xid(&renewal), NAK, [0; 4], &[]));
    assert!(matches!(event, Some(Event::Lost(_))));
}

#[test]
fn an_endless_lease_is_never_renewed() {
    let mut machine = Machine::new(IDENTITY, 100, at(0));
    let discover = machine.poll(at(0)).0.unwrap();
    machine.receive(at(0), &reply(xid(&discover), OFFER, [10, 0, 0, 50], &[]));
    let request = machine.poll(at(0)).0.unwrap();
    machine.receive(at(0), &reply(xid(&request), ACK, [10, 0, 0, 50], &[]));
    assert_eq!(machine.poll(at(u32::MAX.into())), (None, None));
}

#[test]
fn who_only_asks_takes_nothing() {
    let mut machine = Machine::asking(IDENTITY, 100, at(0));
    let discover = machine.poll(at(0)).0.unwrap();
    let event = machine.receive(at(0), &good(&discover));
    assert!(matches!(event, Some(Event::Bound(_))), "{event:?}");
    assert_eq!(machine.poll(at(100_000)), (None, None));
}

#[test]
fn a_proxys_offer_is_told_before_and_after_the_address() {
    let says = [186, 4, 10, 0, 0, 9];
    let mut machine = Machine::new(IDENTITY, 100, at(0));
    let discover = machine.poll(at(0)).0.unwrap();
    let proxy = reply(xid(&discover), OFFER, [0; 4], &says);
    let told = |event: Option<Event>| match event {
        Some(Event::Proxy(proxy)) => proxy.announced.options,
        other => panic!("{other:?}"),
    };
    assert_eq!(told(machine.receive(at(0), &proxy)), ["10.0.0.9"]);
    machine.receive(at(0), &good(&discover));
    let request = machine.poll(at(0)).0.unwrap();
    assert_eq!(kind(&request), 3);
    machine.receive(at(0), &good(&request));
    assert_eq!(told(machine.receive(at(1), &proxy)), ["10.0.0.9"]);
    assert_eq!(machine.due(), at(1800));
}

proptest! {
    /// However many packets are lost or mutated: the machine goes on, never floods, and
    /// is bound as soon as the network is good again.
    #[test]
    fn losses_and_mutations_only_delay(
        fates in proptest::collection::vec((0u8..3, any::<u16>(), any::<u8>()), 0..40),
        random in any::<u32>(),
    ) {
        let mut machine = Machine::new(IDENTITY, random, at(0));
        let mut fates = fates.into_iter();
        let mut is_bound = false;
        for _ in 0..80 {
            let now = machine.due();
            if now > at(1700) {
                break;
            }
            let (Some(sent), _) = machine.poll(now) else { continue };
            let mut answer = good(&sent);
            match fates.next() {
                Some((0, ..)) => continue,
                Some((1, place, value)) => {
                    let place = usize::from(place) % answer.len();
                    answer[place] = value;
                }
                _ => {}
            }
            is_bound |= matches!(machine.receive(now, &answer), Some(Event::Bound(_)));
            prop_assert!(machine.due() >= now);
        }
        prop_assert!(is_bound);
    }

    #[test]
    fn any_packet_is_taken(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        bound().receive(at(10), &bytes);
    }
}
