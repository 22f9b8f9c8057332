//! A thousand receivers' control traffic: what it costs the sender.
//!
//! Owns: a process that is a sender and nothing else, so that its memory and processor time
//! are its own, and receivers that keep no record. Does not own: the engines (`multicast`).
//!
//! Sender and receivers speak by UDP on loopback. One socket takes the sender's packets
//! for all receivers, each of which then loses some by itself.

use super::crew::processor_seconds;
use multicast::{
    Batch, Bits, Plan, Progress, Rate, Receiver, ReceiverConfig, Run, Sender, SenderConfig,
    SessionSecret,
};
use serde_json::{Value, json};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes a second: little, since every receiver looks at every packet here.
const RATE: f64 = 125_000.0;
/// The records: about seventeen seconds at that rate.
const RECORDS: u32 = 16;
const RECORD: u32 = 100_000;
const SYMBOL: u16 = 256;
const SESSION: u32 = 1;
/// Of a thousand packets so many are lost.
const LOST: u64 = 10;
const LONGEST: Duration = Duration::from_secs(120);

/// What it cost.
pub struct Cost {
    /// Seconds from the first packet until the sender knew that all are done.
    pub seconds: f64,
    /// Processor seconds of the sender's process.
    pub cpu: f64,
    /// Its peak memory in KiB.
    pub peak_kib: u64,
    /// Reports that it took.
    pub reports: u64,
    /// The most of them in a second.
    pub most: u64,
}

/// Runs a session of so many receivers.
pub fn run(receivers: u16) -> io::Result<Cost> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_read_timeout(Some(Duration::from_millis(1)))?;
    let port = socket.local_addr()?.port().to_string();
    let child = Command::new(std::env::current_exe()?)
        .args(["session", &port, &receivers.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut child = Ended(child);
    let most = receive(&socket, receivers, &mut child.0)?;
    let mut output = String::new();
    if let Some(mut stdout) = child.0.stdout.take() {
        io::Read::read_to_string(&mut stdout, &mut output)?;
    }
    let told: Value = serde_json::from_str(&output)?;
    let number = |key: &str| {
        let number = told[key].as_f64();
        number.ok_or_else(|| io::Error::other(format!("no {key} in {told}")))
    };
    Ok(Cost {
        seconds: number("seconds")?,
        cpu: number("cpu")?,
        peak_kib: number("peak_kib")? as u64,
        reports: number("reports")? as u64,
        most,
    })
}

/// A process that does not outlive this.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// All receivers, until the sender's process is over; the most reports of a second.
fn receive(socket: &UdpSocket, count: u16, child: &mut Child) -> io::Result<u64> {
    let plan = plan()?;
    // The same as the other process makes: all keys come of the secret.
    let mut twin = sender(&plan);
    let config = ReceiverConfig {
        memory: 1 << 20,
        ..ReceiverConfig::default()
    };
    let mut receivers = Vec::new();
    for _ in 0..count {
        let member = twin.join(Duration::ZERO);
        let member = member.ok_or_else(|| io::Error::other("no room for a receiver"))?;
        let wanted = Bits::all(plan.records());
        receivers.push(Receiver::new(
            plan.clone(),
            member,
            wanted,
            config.clone(),
            Duration::ZERO,
        ));
    }
    let began = Instant::now();
    let (mut from, mut chance) = (None, Chance(0x9E37_79B9_7F4A_7C15));
    let (mut second, mut in_second, mut most) = (0, 0, 0);
    let (mut buffer, mut packet) = (vec![0; 2048], Vec::new());
    loop {
        if began.elapsed() > LONGEST {
            return Err(io::Error::other("the session of many takes too long"));
        }
        match socket.recv_from(&mut buffer) {
            Ok((len, sender)) => {
                from = Some(sender);
                let now = began.elapsed();
                for receiver in &mut receivers {
                    if chance.next() % 1000 >= LOST {
                        receiver.handle(now, buffer.get(..len).unwrap_or_default());
                        while receiver.next_record().is_some() {}
                    }
                }
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if let Some(status) = child.try_wait()? {
                    break match status.success() {
                        true => Ok(most),
                        false => Err(io::Error::other("the sender of many failed")),
                    };
                }
            }
            Err(e) => return Err(e),
        }
        let now = began.elapsed();
        for receiver in &mut receivers {
            if receiver.wake_at().is_none_or(|due| now < due) {
                continue;
            }
            packet.clear();
            if let Some(to) = from.filter(|_| receiver.transmit(now, &mut packet)) {
                socket.send_to(&packet, to)?;
                if second != now.as_secs() {
                    (second, in_second) = (now.as_secs(), 0);
                }
                in_second += 1;
                most = most.max(in_second);
            }
            if matches!(
                receiver.standing(now),
                Progress::Silent | Progress::Dismissed(_)
            ) {
                return Err(io::Error::other("a receiver of many was left out"));
            }
        }
    }
}

/// The sender's process: `bench session PORT RECEIVERS`.
pub fn session(arguments: &[String]) -> io::Result<()> {
    let usage = || io::Error::other("session PORT RECEIVERS");
    let [port, receivers] = arguments else {
        return Err(usage());
    };
    let port: u16 = port.parse().map_err(|_| usage())?;
    let receivers: u16 = receivers.parse().map_err(|_| usage())?;
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_nonblocking(true)?;
    let plan = plan()?;
    let mut sender = sender(&plan);
    for _ in 0..receivers {
        sender.join(Duration::ZERO).ok_or_else(usage)?;
    }
    let began = Instant::now();
    sender.start(Duration::ZERO);
    let (mut batch, mut buffer) = (Batch::default(), vec![0; 2048]);
    while !sender.all_done() {
        let now = began.elapsed();
        if now > LONGEST {
            return Err(io::Error::other("not all are done in time"));
        }
        batch.clear();
        sender.transmit(now, &mut Zeros, &mut batch, 64)?;
        for packet in batch.packets() {
            // A receiver that is behind loses it.
            let _ = socket.send_to(packet, to);
        }
        loop {
            match socket.recv_from(&mut buffer) {
                Ok((len, _)) => sender.handle(now, buffer.get(..len).unwrap_or_default()),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        while sender.next_event().is_some() {}
        let nap = sender.wake_at().saturating_sub(began.elapsed());
        thread::sleep(nap.min(Duration::from_micros(500)));
    }
    let told = json!({
        "seconds": began.elapsed().as_secs_f64(),
        "cpu": processor_seconds(std::process::id()),
        "peak_kib": peak_kib(),
        "reports": sender.status().reports.0,
    });
    println!("{told}");
    Ok(())
}

fn peak_kib() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn plan() -> io::Result<Plan> {
    Plan::new((0..RECORDS).map(|_| RECORD), SYMBOL).map_err(io::Error::other)
}

fn sender(plan: &Plan) -> Sender {
    let config = SenderConfig {
        rate: Rate::Fixed(RATE),
        ..SenderConfig::new(SESSION)
    };
    Sender::new(
        plan.clone(),
        SessionSecret::new([7; 32]),
        config,
        Duration::ZERO,
    )
}

/// Records that nobody looks into.
struct Zeros;

impl Run for Zeros {
    fn read_at(&mut self, _: u64, out: &mut [u8]) -> io::Result<()> {
        out.fill(0);
        Ok(())
    }
}

/// Random numbers, the same in each run (xorshift64*).
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }
}
