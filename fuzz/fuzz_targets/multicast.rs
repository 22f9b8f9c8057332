//! Multicast packets, at both ends: any bytes, with a right tag for whoever has the key. The
//! receiver gives out at most the records of its plan, and the sender answers nobody else.
#![no_main]

use libfuzzer_sys::fuzz_target;
use multicast::{
    Batch, Bits, Plan, Receiver, ReceiverConfig, Run, Sender, SenderConfig, SessionSecret,
};
use std::time::Duration;

const SESSION: u32 = 7;

struct Zeros;

impl Run for Zeros {
    fn read_at(&mut self, _: u64, out: &mut [u8]) -> std::io::Result<()> {
        out.fill(0);
        Ok(())
    }
}

fuzz_target!(|data: &[u8]| {
    let plan = Plan::new([64, 100_000, 3000, 70_000], 256).expect("a plan");
    let secret = SessionSecret::new([1; 32]);
    let mut sender = Sender::new(
        plan.clone(),
        secret.clone(),
        SenderConfig::new(SESSION),
        Duration::ZERO,
    );
    let member = sender.join(Duration::ZERO).expect("room for one");
    let config = ReceiverConfig {
        memory: 200_000,
        queue: 50_000,
        ..ReceiverConfig::default()
    };
    let wanted = Bits::all(plan.records());
    let mut receiver = Receiver::new(plan.clone(), member, wanted, config, Duration::ZERO);
    sender.start(Duration::ZERO);
    let (mut rest, mut now) = (data, Duration::ZERO);
    let mut batch = Batch::default();
    let mut out = Vec::new();
    let mut given = Bits::none(plan.records());
    // Pieces: a knob, a length, bytes behind a header of ours.
    while let [knob, low, high, tail @ ..] = rest {
        let len = usize::from(u16::from_le_bytes([*low, *high]) & 2047).min(tail.len());
        let (body, after) = tail.split_at(len);
        rest = after;
        now += Duration::from_micros(u64::from(*knob) * 500);
        let mut packet = b"DM\x01".to_vec();
        packet.push(knob & 7);
        packet.extend_from_slice(&SESSION.to_le_bytes());
        packet.extend_from_slice(body);
        let key = if knob & 8 == 0 {
            secret.down(SESSION).to_bytes()
        } else {
            secret.up(SESSION, 0).to_bytes()
        };
        let tag = blake3::keyed_hash(&key, &packet);
        packet.extend_from_slice(&tag.as_bytes()[..16]);
        receiver.handle(now, &packet);
        sender.handle(now, &packet);
        batch.clear();
        sender
            .transmit(now, &mut Zeros, &mut batch, 64)
            .expect("zeros can be read");
        if knob & 16 == 0 {
            batch.packets().for_each(|packet| {
                receiver.handle(now, packet);
            });
        }
        out.clear();
        if receiver.transmit(now, &mut out) {
            sender.handle(now, &out);
        }
        while let Some(record) = receiver.next_record() {
            let range = plan.record_range(record.record);
            assert_eq!(record.bytes.len() as u64, range.end - range.start);
            assert!(given.insert(record.record), "a record twice");
        }
        assert!(receiver.status().memory <= 500_000);
    }
});
