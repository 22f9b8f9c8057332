//! Tests of the packets' bytes.

use super::*;
use crate::key::SessionSecret;
use proptest::prelude::*;

const SESSION: u32 = 0x0102_0304;

fn down() -> PacketKey {
    SessionSecret::new([1; 32]).down(SESSION)
}

fn up() -> PacketKey {
    SessionSecret::new([1; 32]).up(SESSION, 5)
}

fn example_announce() -> Announce {
    Announce {
        number: 9,
        state: SessionState::Sending,
        sent: 1 << 33,
        frontier: 6,
        blocks: 7,
        rate: 125_000,
        pass: 1,
        poll: 3,
        elapsed: 25_000,
        period: 200_000,
        slots: 32,
        dismissed: vec![(4, Reason::Slow)],
    }
}

fn example_report() -> Report {
    Report {
        receiver: 5,
        state: ReceiverState::Receiving,
        sequence: 2,
        poll: 3,
        announced: 1000,
        seen: 990,
        refused: 1,
        done: 4,
        wanted: 7,
        needs: vec![Need {
            block: 5,
            count: 1,
            symbols: 3,
        }],
    }
}

/// The hex texts of the reference are packets of ours, and the only form of them.
#[test]
fn the_examples_of_the_reference_are_what_we_send() {
    let text = include_str!("../../../docs/reference/multicast.md");
    let mut examples = text
        .split("```hex\n")
        .skip(1)
        .map(|part| part.split("```").next().unwrap())
        .map(|hex| hex::decode(hex.split_whitespace().collect::<String>()).unwrap());
    let payload = [0xAB; 256];
    let mut made = Vec::new();
    Data {
        block: 6,
        record: 2,
        offset: 1000,
        len: 500,
        symbol: 3,
        source: 2,
        payload: &payload,
    }
    .encode(SESSION, &down(), &mut made);
    assert_eq!(examples.next().unwrap(), made, "{}", hex::encode(&made));
    made.clear();
    example_announce().encode(SESSION, &down(), &mut made);
    assert_eq!(examples.next().unwrap(), made, "{}", hex::encode(&made));
    made.clear();
    example_report().encode(SESSION, &up(), &mut made);
    assert_eq!(examples.next().unwrap(), made, "{}", hex::encode(&made));
    made.clear();
    encode_leave(5, Reason::Stopped, 3, SESSION, &up(), &mut made);
    assert_eq!(examples.next().unwrap(), made, "{}", hex::encode(&made));
    assert_eq!(examples.next(), None);
}

#[test]
fn packets_come_back_as_they_went() {
    let mut made = Vec::new();
    let announce = example_announce();
    announce.encode(SESSION, &down(), &mut made);
    assert_eq!(
        decode_down(&made, SESSION, &down()),
        Some(Down::Announce(announce))
    );
    assert_eq!(decode_down(&made, SESSION + 1, &down()), None);
    assert_eq!(decode_down(&made, SESSION, &up()), None);
    assert_eq!(decode_up(&made, SESSION, &down()), None);

    made.clear();
    let mut report = example_report();
    report.needs = vec![report.needs[0]; MAX_NEEDS + 1];
    report.encode(SESSION, &up(), &mut made);
    report.needs.truncate(MAX_NEEDS);
    assert!(made.len() <= MAX_PACKET_LEN);
    assert_eq!(peek(&made), Some((Kind::Report, SESSION, 5)));
    assert_eq!(decode_up(&made, SESSION, &up()), Some(Up::Report(report)));

    made.clear();
    encode_leave(5, Reason::Silent, 3, SESSION, &up(), &mut made);
    let leave = Up::Leave {
        receiver: 5,
        reason: Reason::Silent,
        sequence: 3,
    };
    assert_eq!(decode_up(&made, SESSION, &up()), Some(leave));
}

/// With a right tag, what the fields say has to be possible all the same: a member has keys.
#[test]
fn impossible_fields_are_no_packets() {
    let payload = [0; 256];
    let good = Data {
        block: 6,
        record: 2,
        offset: 1000,
        len: 500,
        symbol: 3,
        source: 2,
        payload: &payload,
    };
    let sent = |data: &Data<'_>| {
        let mut made = Vec::new();
        data.encode(SESSION, &down(), &mut made);
        decode_down(&made, SESSION, &down()).is_some()
    };
    assert!(sent(&good));
    for bad in [
        Data { len: 0, ..good },
        Data { len: 513, ..good },
        Data { len: 256, ..good },
        Data { symbol: 66, ..good },
        Data { source: 0, ..good },
        Data {
            payload: &payload[..255],
            ..good
        },
        Data {
            source: 193,
            len: 193 * 256,
            ..good
        },
    ] {
        assert!(!sent(&bad), "{bad:?}");
    }
    let mut report = example_report();
    for (count, symbols) in [(0, 1), (1, 0), (1, 193)] {
        report.needs = vec![Need {
            block: 0,
            count,
            symbols,
        }];
        let mut made = Vec::new();
        report.encode(SESSION, &up(), &mut made);
        assert_eq!(decode_up(&made, SESSION, &up()), None);
    }
    let mut announce = example_announce();
    announce.frontier = 8;
    let mut made = Vec::new();
    announce.encode(SESSION, &down(), &mut made);
    assert_eq!(decode_down(&made, SESSION, &down()), None);
}

proptest! {
    /// Any bytes with a right tag: nothing breaks, and what is read is what stands there.
    #[test]
    fn any_bytes_are_read_without_harm(
        kind in 0u8..6, body in prop::collection::vec(any::<u8>(), 0..1500), zero in any::<bool>(),
    ) {
        let mut packet = Vec::new();
        packet.extend_from_slice(b"DM\x01");
        packet.push(kind);
        packet.extend_from_slice(&SESSION.to_le_bytes());
        packet.extend(body.iter().map(|&b| if zero { b & 1 } else { b }));
        let _ = peek(&packet);
        let _ = decode_down(&packet, SESSION, &down());
        let mut from_below = packet.clone();
        down().seal(&mut packet, 0);
        match decode_down(&packet, SESSION, &down()) {
            Some(Down::Data(data)) => {
                let mut again = Vec::new();
                data.encode(SESSION, &down(), &mut again);
                prop_assert_eq!(again, packet);
            }
            Some(Down::Announce(_)) | None => {}
        }
        up().seal(&mut from_below, 0);
        if let Some(Up::Report(report)) = decode_up(&from_below, SESSION, &up()) {
            let mut again = Vec::new();
            report.encode(SESSION, &up(), &mut again);
            prop_assert_eq!(again, from_below);
        }
    }

    /// A changed byte anywhere, or a lost end, is noticed.
    #[test]
    fn a_changed_packet_is_none(at in 0usize..68, bit in 0u8..8, cut in 0usize..76) {
        let mut made = Vec::new();
        example_report().encode(SESSION, &up(), &mut made);
        let whole = made.len();
        let mut cut_off = made.clone();
        cut_off.truncate(cut.min(whole - 1));
        prop_assert_eq!(decode_up(&cut_off, SESSION, &up()), None);
        made[at] ^= 1 << bit;
        prop_assert_eq!(decode_up(&made, SESSION, &up()), None);
    }
}
