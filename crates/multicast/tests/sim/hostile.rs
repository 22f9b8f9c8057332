//! Hostile packets: whoever has no key costs nothing but a look at each packet; whoever has
//! one costs time, never content.

use super::world::{Life, Random, World, plan};
use multicast::packet::{Data, Need, ReceiverState, Report, peek};
use multicast::{Progress, Rate, Reason, SenderConfig, SenderEvent, SessionSecret};
use std::time::Duration;

const LINK: f64 = 5e6;
const LONGEST: Duration = Duration::from_secs(120);

fn world(lives: usize, seed: u64) -> World {
    let config = SenderConfig {
        rate: Rate::Fixed(LINK),
        ..SenderConfig::new(7)
    };
    let mut world = World::new(
        plan(6 << 20, seed),
        LINK,
        config,
        vec![Life::lossy(0.01); lives],
        seed,
    );
    world.sender.start(Duration::ZERO);
    world
}

fn finish(mut world: World) -> World {
    world.run(LONGEST);
    assert!(
        world
            .nodes
            .iter()
            .all(|node| node.end == Some(Progress::Done))
    );
    world
}

#[test]
fn packets_that_are_changed_cut_or_foreign_are_thrown_away() {
    let mut world = world(3, 1);
    world.overheard = Some(Vec::new());
    let mut random = Random::new(99);
    for _ in 0..2000 {
        world.step();
        let heard = world
            .overheard
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default();
        for packet in heard.iter().step_by(7) {
            let mut bytes = packet.to_vec();
            match random.next() % 4 {
                0 => {
                    let at = random.next() as usize % bytes.len();
                    bytes[at] ^= 1 << (random.next() % 8);
                }
                1 => bytes.truncate(random.next() as usize % bytes.len()),
                2 => bytes.extend_from_slice(&[0; 40]),
                _ => bytes
                    .iter_mut()
                    .skip(8)
                    .for_each(|byte| *byte = random.next() as u8),
            }
            world.inject(&bytes);
            world.sender.handle(world.now, &bytes);
        }
    }
    let taken = world.sender.status().reports;
    assert!(taken.1 > 100);
    let foreign = |world: &World| world.nodes[0].receiver.as_ref().unwrap().status().foreign;
    assert!(foreign(&world) > 100);
    finish(world);
}

/// Everything that was heard, again and again, in any order.
#[test]
fn replayed_packets_are_harmless() {
    let mut world = world(3, 2);
    world.overheard = Some(Vec::new());
    let mut random = Random::new(5);
    let mut kept = Vec::new();
    for _ in 0..3000 {
        world.step();
        kept.extend(
            world
                .overheard
                .as_mut()
                .map(std::mem::take)
                .unwrap_or_default(),
        );
        for _ in 0..2 {
            if let Some(packet) = kept.get(random.next() as usize % kept.len().max(1)) {
                let packet = packet.to_vec();
                world.inject(&packet);
                world.sender.handle(world.now, &packet);
            }
        }
    }
    let kinds = kept.iter().filter_map(|packet| peek(packet)).count();
    assert_eq!(kinds, kept.len());
    finish(world);
}

/// A member that asks for everything all the time, and one report a thousand times.
#[test]
fn a_flood_of_requests_is_answered_once_a_round() {
    let calm = finish(world(3, 3)).sender.status().packets;
    let mut world = world(3, 3);
    world.step();
    // What the real receiver 2 would say with its key; a member's key is its own.
    let secret = SessionSecret::new([3; 32]);
    let blocks = world.plan.blocks();
    let (mut sequence, mut packet) = (1_000_000, Vec::new());
    for step in 0..4000 {
        for poll in 0..20 {
            sequence += 1;
            packet.clear();
            let report = Report {
                receiver: 2,
                state: ReceiverState::Receiving,
                sequence,
                poll: step / 100 + poll,
                announced: 0,
                seen: 0,
                refused: 0,
                done: 0,
                wanted: blocks,
                needs: vec![
                    Need {
                        block: 0,
                        count: u16::MAX,
                        symbols: 192
                    };
                    128
                ],
            };
            report.encode(7, &secret.up(7, 2), &mut packet);
            world.sender.handle(world.now, &packet);
            // Not with another member's key.
            packet.clear();
            report.encode(7, &secret.up(7, 1), &mut packet);
            world.sender.handle(world.now, &packet);
        }
        world.step();
    }
    let status = world.sender.status();
    println!(
        "flood: {} taken, {} thrown away",
        status.reports.0, status.reports.1
    );
    assert!(status.reports.0 < 200);
    for node in &world.nodes[..2] {
        assert_eq!(node.end, Some(Progress::Done));
    }
    println!("flood: {} packets, {calm} without", status.packets);
}

/// A member can make packets with the sender's key. What comes of them is some record bytes
/// that no proof fits: the caller says so, and the record comes again.
#[test]
fn forged_symbols_of_a_member_cost_time_only() {
    let mut world = world(1, 4);
    let key = SessionSecret::new([4; 32]).down(7);
    world.step();
    let place = world.plan.block(0).unwrap();
    let receiver = world.nodes[0].receiver.as_mut().unwrap();
    let payload = [0x55; 1408];
    let mut packet = Vec::new();
    for symbol in 0..place.source {
        packet.clear();
        let data = Data {
            block: 0,
            record: place.record,
            offset: place.offset,
            len: place.len,
            symbol,
            source: place.source,
            payload: &payload,
        };
        data.encode(7, &key, &mut packet);
        assert!(receiver.handle(world.now, &packet));
    }
    // Those that are whole are refused by whoever knows their names.
    let mut forged = Vec::new();
    while let Some(record) = receiver.next_record() {
        assert!(record.bytes.iter().all(|&byte| byte == 0x55));
        forged.push(record.record);
    }
    for record in 0..world.plan.records_in(0).end {
        receiver.want_again(record);
    }
    // Fields that do not fit the plan are no packets of it.
    for (record, offset, len) in [(1, 0, place.len), (0, 1, place.len), (0, 0, place.len - 1)] {
        packet.clear();
        let data = Data {
            block: 0,
            record,
            offset,
            len,
            symbol: 0,
            source: place.source,
            payload: &payload,
        };
        data.encode(7, &key, &mut packet);
        assert!(!receiver.handle(world.now, &packet));
    }
    finish(world);
}

#[test]
fn a_member_that_never_has_anything_does_not_keep_the_session() {
    let mut world = world(2, 5);
    world.nodes[1].life.deaf = true;
    world.step();
    let secret = SessionSecret::new([5; 32]);
    let (mut packet, mut sequence) = (Vec::new(), 0);
    let mut left = None;
    while left.is_none() && world.now < LONGEST {
        sequence += 1;
        packet.clear();
        let status = world.sender.status();
        let report = Report {
            receiver: 1,
            state: ReceiverState::Receiving,
            sequence,
            poll: world.sender.round(),
            announced: status.packets,
            seen: status.packets,
            refused: 0,
            done: 0,
            wanted: world.plan.blocks(),
            needs: vec![Need {
                block: 0,
                count: u16::MAX,
                symbols: 192,
            }],
        };
        report.encode(7, &secret.up(7, 1), &mut packet);
        world.sender.handle(world.now, &packet);
        world.step();
        let gone = SenderEvent::Left(1, Reason::Lossy);
        left = world.events.contains(&gone).then_some(status.pass);
    }
    let (events, status) = (&world.events, world.sender.status());
    assert!(
        left.is_some(),
        "it keeps the session for ever: {events:?}, {status:?}"
    );
    assert_eq!(world.nodes[0].end, Some(Progress::Done));
    println!("left in pass {left:?}");
}
