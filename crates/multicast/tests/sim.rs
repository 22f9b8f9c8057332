//! The engines in a simulated network: every receiver ends with exactly the records, at the
//! rate that is promised. Time is virtual, so that these figures are the same everywhere.

#[path = "sim/hostile.rs"]
mod hostile;
#[path = "sim/world.rs"]
mod world;

use multicast::{Bits, Progress, Rate, Reason, SenderConfig, SenderEvent};
use std::time::Duration;
use world::{Life, World, plan};

/// 20 Mbit/s: what counts is the time in rounds, and that is real with few packets.
const LINK: f64 = 2.5e6;
/// About eleven seconds of the link.
const IMAGE: u64 = 26 << 20;
const LONGEST: Duration = Duration::from_secs(300);

/// Share of the link that was records, until the last of those nodes was done.
fn goodput(world: &World, nodes: impl Iterator<Item = usize>) -> f64 {
    let done = nodes.map(|n| world.nodes[n].done_at.unwrap());
    world.plan.total_len() as f64 / world.link / done.max().unwrap().as_secs_f64()
}

fn fixed() -> SenderConfig {
    SenderConfig {
        rate: Rate::Fixed(LINK),
        ..SenderConfig::new(7)
    }
}

/// Runs receivers that live so, and returns the world and the share of the link.
fn room(lives: Vec<Life>, seed: u64) -> (World, f64) {
    let count = lives.len();
    let mut world = World::new(plan(IMAGE, seed), LINK, fixed(), lives, seed);
    world.run(LONGEST);
    assert!(
        world
            .nodes
            .iter()
            .all(|node| node.end == Some(Progress::Done))
    );
    let share = goodput(&world, 0..count);
    (world, share)
}

fn check(name: &str, lives: Vec<Life>, least: f64) {
    let (world, goodput) = room(lives, 1);
    let status = world.sender.status();
    println!(
        "{name}: goodput {:.1} % of the link, parity {:.1} %, repair {:.1} %, {:.0} reports/s, memory {} KiB",
        goodput * 100.0,
        status.parity_packets as f64 / status.packets as f64 * 100.0,
        status.repair_packets as f64 / status.packets as f64 * 100.0,
        world.reports as f64 / world.now.as_secs_f64(),
        world.nodes.iter().map(|n| n.most_memory).max().unwrap() >> 10,
    );
    assert!(goodput >= least, "{name}: {goodput}");
}

#[test]
fn no_loss() {
    check("8, no loss", vec![Life::lossy(0.0); 8], 0.92);
    check("1, no loss", vec![Life::lossy(0.0)], 0.92);
}

#[test]
fn one_percent() {
    check("8, 1 %", vec![Life::lossy(0.01); 8], 0.85);
    check("32, 1 %", vec![Life::lossy(0.01); 32], 0.85);
}

#[test]
fn five_percent() {
    check("8, 5 %", vec![Life::lossy(0.05); 8], 0.70);
    check("32, 5 %", vec![Life::lossy(0.05); 32], 0.70);
}

#[test]
fn join_at_half_is_done_within_1_6_image_times() {
    let mut lives = vec![Life::lossy(0.001); 3];
    let (_, alone) = room(lives.clone(), 2);
    let image_time = Duration::from_secs_f64(IMAGE as f64 / LINK / alone);
    lives.push(Life {
        joins: image_time / 2,
        ..Life::lossy(0.001)
    });
    let (world, _) = room(lives, 2);
    let times: Vec<f64> = world
        .nodes
        .iter()
        .map(|node| node.done_at.unwrap().as_secs_f64() / image_time.as_secs_f64())
        .collect();
    println!("join at 50 %: done after image times of {times:.3?}");
    assert!(times[3] <= 1.6);
    assert!(times[..3].iter().all(|&time| time <= 1.05));
}

#[test]
fn a_slow_receiver_is_sent_away_and_costs_the_others_little() {
    let (_, without) = room(vec![Life::lossy(0.005); 8], 3);
    let mut lives = vec![Life::lossy(0.005); 8];
    lives[4].disk = LINK / 10.0;
    let config = SenderConfig {
        patience: Duration::from_secs(3),
        ..fixed()
    };
    let mut world = World::new(plan(IMAGE, 3), LINK, config, lives, 3);
    world.config.queue = 4 << 20;
    world.config.memory = 6 << 20;
    world.run(LONGEST);
    let others = goodput(&world, (0..8).filter(|&n| n != 4));
    println!(
        "one slow disk: the others {:.3} of the rate without",
        others / without
    );
    assert!(others >= without * 0.95, "{others} {without}");
    assert_eq!(world.nodes[4].end, Some(Progress::Dismissed(Reason::Slow)));
    let slow = world.nodes[4].receiver.as_ref().unwrap();
    let (got, lacking) = (world.nodes[4].got.count(), slow.lacking().count());
    assert!(got > 0 && lacking > 0);
    assert!(world.events.contains(&SenderEvent::Left(4, Reason::Slow)));
    assert!(world.nodes[4].most_memory < (4 << 20) + (6 << 20) + (2 << 20));
}

#[test]
fn receivers_that_vanish_cost_the_others_nothing() {
    let (_, without) = room(vec![Life::lossy(0.01); 10], 4);
    let mut lives = vec![Life::lossy(0.01); 10];
    lives[0].vanishes = Duration::from_secs(2);
    lives[7].vanishes = Duration::from_secs(8);
    let mut world = World::new(plan(IMAGE, 4), LINK, fixed(), lives, 4);
    world.run(LONGEST);
    let others = goodput(&world, (0..10).filter(|&n| n != 0 && n != 7));
    println!(
        "two of ten vanish: the others {:.3} of the rate without",
        others / without
    );
    assert!(others >= without * 0.98);
    while world.now < Duration::from_secs(25) {
        world.step();
    }
    for gone in [0, 7] {
        let event = SenderEvent::Left(gone, Reason::Vanished);
        assert!(world.events.contains(&event));
    }
    assert!(world.sender.all_done());
}

#[test]
fn bursts_reordering_and_repetition_change_nothing() {
    let odd = Life {
        bursts: (0.0002, 120),
        late: 0.05,
        twice: 0.05,
        ..Life::lossy(0.005)
    };
    let mut world = World::new(plan(16 << 20, 5), LINK, fixed(), vec![odd; 6], 5);
    world.common_loss = 0.01;
    world.run(LONGEST);
    assert!(
        world
            .nodes
            .iter()
            .all(|node| node.end == Some(Progress::Done))
    );
    let goodput = goodput(&world, 0..6);
    println!(
        "bursts of 120, 5 % late, 5 % twice, 1 % common: goodput {:.1} %",
        goodput * 100.0
    );
    assert!(goodput > 0.6);
}

#[test]
fn who_waits_long_for_the_start_is_not_taken_for_gone() {
    let lives = vec![Life::lossy(0.01); 2];
    let mut world = World::new(plan(2 << 20, 13), LINK, fixed(), lives, 13);
    while world.now < Duration::from_secs(60) {
        world.step();
    }
    // The announcements of the first rounds are lost.
    world
        .nodes
        .iter_mut()
        .for_each(|node| node.life.deaf = true);
    world.sender.start(world.now);
    while world.now < Duration::from_millis(60_500) {
        world.step();
    }
    world
        .nodes
        .iter_mut()
        .for_each(|node| node.life.deaf = false);
    world.run(LONGEST);
    let done = Some(Progress::Done);
    assert!(world.nodes.iter().all(|node| node.end == done));
    let left = |event: &&SenderEvent| matches!(event, SenderEvent::Left(..));
    assert_eq!(world.events.iter().find(left), None);
}

#[test]
fn half_of_all_packets_lost_is_slow_and_right() {
    let mut world = World::new(
        plan(4 << 20, 6),
        LINK,
        fixed(),
        vec![Life::lossy(0.5); 3],
        6,
    );
    world.run(LONGEST);
    assert!(
        world
            .nodes
            .iter()
            .all(|node| node.end == Some(Progress::Done))
    );
}

#[test]
fn a_network_without_multicast_is_noticed() {
    let mut lives = vec![Life::lossy(0.0); 3];
    lives[1].deaf = true;
    let mut world = World::new(plan(16 << 20, 7), LINK, fixed(), lives, 7);
    world.config.silence = Duration::from_secs(3);
    world.run(LONGEST);
    let ends: Vec<_> = world.nodes.iter().map(|node| node.end).collect();
    let done = Some(Progress::Done);
    assert_eq!(ends, [done, Some(Progress::Silent), done]);
    let deaf = world.nodes[1].receiver.as_ref().unwrap();
    assert!(!deaf.has_heard());
    assert_eq!(deaf.lacking().count(), world.plan.records());
}

#[test]
fn a_network_that_drops_long_packets_is_noticed() {
    let mut lives = vec![Life::lossy(0.0); 2];
    lives[1].longest = 1000;
    let mut world = World::new(plan(16 << 20, 7), LINK, fixed(), lives, 7);
    world.config.silence = Duration::from_secs(3);
    world.run(LONGEST);
    let ends: Vec<_> = world.nodes.iter().map(|node| node.end).collect();
    assert_eq!(ends, [Some(Progress::Done), Some(Progress::Silent)]);
    assert!(world.nodes[1].receiver.as_ref().unwrap().has_heard());
}

#[test]
fn little_memory_is_kept_to() {
    let mut world = World::new(
        plan(8 << 20, 8),
        LINK,
        fixed(),
        vec![Life::lossy(0.04); 3],
        8,
    );
    world.config.memory = 3 << 20;
    world.run(LONGEST);
    for node in &world.nodes {
        assert_eq!(node.end, Some(Progress::Done));
        let queue = (1 << 20) + 64 + 192 * 1408;
        assert!(
            node.most_memory <= (3 << 20) + queue,
            "{}",
            node.most_memory
        );
    }
}

#[test]
fn the_rate_of_the_link_is_found() {
    let config = SenderConfig {
        rate: Rate::Auto {
            start: 1e6,
            most: 1e9,
        },
        ..SenderConfig::new(7)
    };
    let mut world = World::new(plan(IMAGE, 9), LINK, config, vec![Life::lossy(0.005); 8], 9);
    world.run(LONGEST);
    let goodput = goodput(&world, 0..8);
    println!(
        "automatic rate: goodput {:.1} % of the link",
        goodput * 100.0
    );
    assert!(goodput > 0.8, "{goodput}");
}

#[test]
fn only_slow_disks_get_their_own_rate() {
    let config = SenderConfig {
        rate: Rate::Auto {
            start: 1e6,
            most: LINK,
        },
        ..SenderConfig::new(7)
    };
    let mut lives = vec![Life::lossy(0.0); 3];
    lives.iter_mut().for_each(|life| life.disk = LINK / 4.0);
    let bytes = 24 << 20;
    let mut world = World::new(plan(bytes, 10), LINK, config, lives, 10);
    world.config.queue = 2 << 20;
    world.run(LONGEST);
    assert!(
        world
            .nodes
            .iter()
            .all(|node| node.end == Some(Progress::Done))
    );
    let share = goodput(&world, 0..3) * 4.0;
    let surplus = world.sender.status().packets as f64 * 1408.0 / bytes as f64;
    println!(
        "slow disks only: {:.0} % of their rate, {surplus:.2} of the bytes sent",
        share * 100.0
    );
    assert!(share > 0.7 && surplus < 2.0);
}

#[test]
fn a_late_end_leaves_a_list_of_what_is_lacking() {
    let mut world = World::new(
        plan(8 << 20, 11),
        LINK,
        fixed(),
        vec![Life::lossy(0.0); 2],
        11,
    );
    world.sender.start(Duration::ZERO);
    while world.now < Duration::from_millis(900) {
        world.step();
    }
    world.sender.finish(world.now);
    while !world.sender.is_over() {
        world.step();
    }
    (0..10).for_each(|_| world.step());
    for node in &world.nodes {
        assert_eq!(node.end, Some(Progress::Ended));
        let lacking: Bits = node.receiver.as_ref().unwrap().lacking().clone();
        assert_eq!(lacking.count() + node.got.count(), world.plan.records());
    }
    assert!(world.sender.join(world.now).is_none());
}

#[test]
fn a_thousand_receivers_cost_the_sender_a_bounded_number_of_packets() {
    let mut lives = vec![Life::lossy(0.01); 1000];
    // All but some join while it runs.
    for (n, life) in lives.iter_mut().enumerate() {
        life.joins = Duration::from_millis(n as u64 * 2);
    }
    let mut world = World::new(
        plan(2 << 20, 12),
        LINK / 10.0,
        SenderConfig {
            rate: Rate::Fixed(LINK / 10.0),
            ..SenderConfig::new(7)
        },
        lives,
        12,
    );
    world.config.memory = 2 << 20;
    world.sender.start(Duration::ZERO);
    let (mut most, mut before) = (0, 0);
    for second in 1..=16u64 {
        while world.now < Duration::from_secs(second) {
            world.step();
        }
        most = most.max(world.reports - before);
        before = world.reports;
    }
    let status = world.sender.status();
    println!(
        "1000 receivers: at most {most} reports a second, {:.0} on average, {} of {} blocks, loss {:.4}",
        world.reports as f64 / 16.0,
        status.blocks.0,
        status.blocks.1,
        status.loss,
    );
    assert!(most <= 300, "{most}");
    assert!(status.members.iter().all(|member| member.wanted > 0));
}
