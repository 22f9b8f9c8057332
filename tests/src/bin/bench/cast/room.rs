//! One image to many hosts of a laboratory at once: by the imager and by udpcast.
//!
//! Owns: the hosts, their links and losses, the command lines of both sides, and the course
//! of one transfer. Does not own: which transfers there are, or what they are held against.

use super::crew::{Crew, Event, Processors, What};
use crate::run;
use crate::slow::Group;
use serde_json::Value;
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use testkit::loopdev::{LoopDevice, Mounted};
use testkit::netns::{Host, INTERFACE, Lab};

const GROUP: &str = "239.255.26.30:26530";
/// udpcast's: for data, and for finding each other.
const PEER_DATA: &str = "239.255.26.31";
const PEER_MEETING: &str = "239.255.26.32";
const PEER_PORT: &str = "26540";
/// Time that all programs have to be ready.
const TO_BE_READY: Duration = Duration::from_secs(60);

/// Hosts on a bridge: a sender, and receivers.
pub struct Network {
    // Hosts go before their laboratory.
    sender: Host,
    receivers: Vec<Host>,
    lab: Lab,
    /// How many receivers are plugged in: what the bridge sends to others costs time, too.
    plugged: Cell<usize>,
}

impl Network {
    /// With so many receivers.
    pub fn new(receivers: usize) -> io::Result<Network> {
        let lab = Lab::new()?;
        // A switch does not show every packet to a firewall, port by port.
        let plain = "cd /proc/sys/net/bridge 2> /dev/null || exit 0
                     for each in bridge-nf-call-*; do echo 0 > $each; done";
        lab.command("bash").args(["-c", plain]).status()?;
        Ok(Network {
            sender: lab.host("snd", "10.99.1.1/24")?,
            receivers: (0..receivers)
                .map(|n| lab.host(&format!("r{n}"), &format!("10.99.1.{}/24", n + 2)))
                .collect::<io::Result<_>>()?,
            lab,
            plugged: Cell::new(receivers),
        })
    }

    /// Plugs in the first receivers, and unplugs the others.
    pub fn plug(&self, receivers: usize) -> io::Result<()> {
        let before = self.plugged.replace(receivers);
        for host in before.min(receivers)..before.max(receivers) {
            self.lab.set_port(&format!("v-r{host}"), host < receivers)?;
        }
        Ok(())
    }

    /// Shapes the sender's link to so many Mbit/s, or not at all.
    pub fn shape(&self, mbit: Option<u64>) -> io::Result<()> {
        let on = crate::loopback::on(&self.sender);
        run::plain(&match mbit {
            Some(mbit) => format!(
                "{on}tc qdisc replace dev {INTERFACE} root tbf rate {mbit}mbit burst 64kb latency 50ms"
            ),
            None => format!("{on}tc qdisc del dev {INTERFACE} root 2> /dev/null || true"),
        })
    }

    /// Whether the sender's card takes packets that the system has not cut apart yet. Without,
    /// each packet is one of its own from the sender's link on, so that rules can lose it.
    pub fn whole_runs(&self, on: bool) -> io::Result<()> {
        let most = if on { 64 } else { 1 };
        let here = crate::loopback::on(&self.sender);
        run::plain(&format!(
            "{here}ip link set dev {INTERFACE} gso_max_segs {most}"
        ))
    }

    /// Has every receiver lose so many of a thousand packets that come, each by itself.
    pub fn lose(&self, per_mille: u32) -> io::Result<()> {
        for host in &self.receivers {
            let none = "add table netdev loss\ndelete table netdev loss\n";
            let chain = format!("udp dport != 0 numgen random mod 1000 < {per_mille} drop");
            let some = format!(
                "add table netdev loss\n\
                 add chain netdev loss in {{ type filter hook ingress device \"{INTERFACE}\" priority 0; }}\n\
                 add rule netdev loss in {chain}\n"
            );
            let rules = match per_mille {
                0 => none.to_owned(),
                _ => format!("{none}{some}"),
            };
            let output = host.command("nft").arg(rules).output()?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                return Err(io::Error::other(format!("nft: {said}")));
            }
        }
        Ok(())
    }
}

/// Who sends and receives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Side {
    /// `imager send` and `imager receive`, at this rate in Mbit/s or at an automatic one.
    Imager(Option<u64>),
    /// udpcast, with this forward error correction and greatest rate in Mbit/s.
    Udpcast(Option<&'static str>, Option<u64>),
}

/// A disk that takes so little.
pub struct Slow {
    group: Group,
    device: LoopDevice,
    /// Where its file is. It cannot be punched: a discard would be held to the limit, too,
    /// which no disk does.
    _memory: Mounted,
}

impl Slow {
    /// One of that size that takes so many bytes a second.
    pub fn new(size: u64, rate: u64) -> io::Result<Slow> {
        let memory = Mounted::ramfs();
        let file = memory.path().join("disk");
        File::create(&file)?.set_len(size)?;
        let device = LoopDevice::attach(&file, 512);
        Ok(Slow {
            group: Group::new(device.path(), rate)?,
            device,
            _memory: memory,
        })
    }

    /// The device.
    pub fn path(&self) -> &Path {
        self.device.path()
    }

    /// The same command, limited.
    fn limited(&self, command: &Command) -> Command {
        let mut limited = Command::new("bash");
        let enter = format!("echo $$ > {}; exec \"$@\"", self.group.members().display());
        limited.args(["-c", &enter, "bash"]);
        limited.arg(command.get_program()).args(command.get_args());
        limited
    }
}

/// A transfer that is to be made.
pub struct Session<'a> {
    /// The program.
    pub imager: &'a str,
    /// Who.
    pub side: Side,
    /// What.
    pub image: &'a Path,
    /// Where the receivers' disks are made.
    pub targets: &'a Path,
    /// Receivers at the start.
    pub receivers: usize,
    /// One more joins so long after the start.
    pub late: Option<Duration>,
    /// These are killed so long after the start.
    pub killed: Vec<(usize, Duration)>,
    /// The first receiver has this disk.
    pub slow: Option<&'a Slow>,
    /// It is killed when the others are done.
    pub drop_slow: bool,
    /// Time after which it has failed.
    pub longest: Duration,
}

/// What came of it.
pub struct Transfer {
    /// Seconds from the first packet to the last receiver's word; nothing if a receiver was
    /// killed.
    pub seconds: Option<f64>,
    /// Seconds until each receiver was done, counted from the first packet.
    pub each: Vec<Option<f64>>,
    /// Processor seconds of the sender.
    pub cpu: f64,
    /// Part of the processors that was free.
    pub free: f64,
    /// What the imager told.
    pub told: Option<Value>,
}

impl Transfer {
    /// When the last of the receivers that are left over by `skip` was done.
    pub fn last(&self, skip: impl Fn(usize) -> bool) -> f64 {
        let kept = self.each.iter().enumerate().filter(|(n, _)| !skip(*n));
        kept.map(|(_, done)| done.unwrap_or(f64::NAN))
            .fold(0.0, |a, b| if b.is_nan() { b } else { f64::max(a, b) })
    }

    /// Which part of the packets was so.
    pub fn share(&self, kind: &str) -> f64 {
        let number = |key: &str| self.told.as_ref()?[key].as_f64();
        number(kind).unwrap_or(f64::NAN) / number("packets").unwrap_or(f64::NAN)
    }
}

/// Path of a receiver's disk.
pub fn target(session: &Session<'_>, receiver: usize) -> PathBuf {
    match session.slow {
        Some(slow) if receiver == 0 => slow.path().to_owned(),
        _ => session.targets.join(format!("t{receiver}")),
    }
}

struct Course<'a> {
    network: &'a Network,
    session: &'a Session<'a>,
    crew: Crew,
    until: Instant,
    /// The sender's place in the crew, and each receiver's.
    sender: usize,
    receivers: Vec<usize>,
    /// The first packet.
    began: Option<(Instant, Processors)>,
    words: Vec<Option<Instant>>,
    complete: Option<Instant>,
    cpu: f64,
    after: Option<Processors>,
}

/// Makes a transfer.
pub fn transfer(network: &Network, session: &Session<'_>) -> io::Result<Transfer> {
    let told = session.targets.join("told.json");
    let mut course = Course {
        network,
        session,
        crew: Crew::new(),
        until: Instant::now() + TO_BE_READY,
        sender: 0,
        receivers: Vec::new(),
        began: None,
        words: vec![None; session.receivers + usize::from(session.late.is_some())],
        complete: None,
        cpu: f64::NAN,
        after: None,
    };
    match session.side {
        Side::Imager(rate) => course.imager(rate, &told)?,
        Side::Udpcast(fec, rate) => course.udpcast(fec, rate)?,
    }
    course.result(&told)
}

impl Course<'_> {
    fn imager(&mut self, rate: Option<u64>, told: &Path) -> io::Result<()> {
        let session = self.session;
        let mut command = self.network.sender.command(session.imager);
        command.args(["send", "--multicast", GROUP, "--json", "--receivers"]);
        command.arg(session.receivers.to_string());
        if let Some(mbit) = rate {
            command.args(["--rate", &format!("{mbit}M")]);
        }
        command.arg(session.image).stdout(File::create(told)?);
        self.sender = self.crew.start("imager send", command)?;
        let code = loop {
            if let What::Said(line) = self.event()?.what
                && let Some((_, rest)) = line.split_once("Code: ")
            {
                break rest
                    .split_whitespace()
                    .next()
                    .unwrap_or_default()
                    .to_owned();
            }
        };
        for receiver in 0..session.receivers {
            self.receive(receiver, &code)?;
        }
        let mut late = session.late;
        let mut killed = session.killed.clone();
        while !self.crew.are_over() {
            let since = self.began.map(|(began, _)| began);
            let due = |after: Duration| since.is_some_and(|began| began.elapsed() >= after);
            if late.is_some_and(due) {
                late = None;
                self.receive(session.receivers, &code)?;
            }
            for (receiver, _) in killed.extract_if(.., |(_, after)| due(*after)) {
                self.kill(receiver)?;
            }
            if session.drop_slow && self.words.iter().skip(1).all(Option::is_some) {
                self.kill(0)?;
            }
            let look_again = Instant::now() + Duration::from_millis(10);
            let Some(event) = self.next_event(look_again)? else {
                continue;
            };
            let What::Said(line) = &event.what else {
                continue;
            };
            if event.who == self.sender && line.contains("sending begins") {
                self.begun(event.at)?;
            }
            // As "10.99.1.7:40000 is done".
            if let Some((from, _)) = line.split_once(" is done")
                && let Some((address, _)) = from.rsplit(' ').next().and_then(|a| a.split_once(':'))
                && let Some(receiver) = self.receiver_at(address)
            {
                self.word(receiver, event.at)?;
            }
        }
        Ok(())
    }

    fn receive(&mut self, receiver: usize, code: &str) -> io::Result<()> {
        let session = self.session;
        let host = &self.network.receivers[receiver];
        let mut command = host.command(session.imager);
        command.args(["receive", "--multicast", GROUP, "--code", code]);
        command.args(["--no-verify", "--quiet", "--yes", "--save-tables", "none"]);
        command.arg(target(session, receiver));
        self.start_receiver(receiver, command)
    }

    fn udpcast(&mut self, fec: Option<&str>, rate: Option<u64>) -> io::Result<()> {
        let session = self.session;
        let common = ["--nokbd", "--interface", INTERFACE, "--portbase", PEER_PORT];
        for receiver in 0..session.receivers {
            let mut command = self.network.receivers[receiver].command("udp-receiver");
            command
                .args(common)
                .args(["--mcast-rdv-address", PEER_MEETING]);
            let path = target(session, receiver);
            match session.slow {
                // As the imager writes: past the page cache, which no limit holds.
                Some(_) if receiver == 0 => {
                    let writer = format!(
                        "dd of={} bs=1M oflag=direct iflag=fullblock status=none",
                        path.display()
                    );
                    command.args(["--pipe", &writer]);
                }
                _ => {
                    command.arg("--file").arg(path);
                }
            }
            self.start_receiver(receiver, command)?;
        }
        let mut command = self.network.sender.command("udp-sender");
        command
            .args(common)
            .args(["--mcast-rdv-address", PEER_MEETING]);
        command.args(["--mcast-data-address", PEER_DATA]);
        command.args(["--full-duplex", "--rexmit-hello-interval", "300"]);
        command.args(["--min-receivers", &session.receivers.to_string()]);
        if let Some(fec) = fec {
            command.args(["--fec", fec]);
        }
        if let Some(mbit) = rate {
            command.args(["--max-bitrate", &format!("{mbit}m")]);
        }
        command
            .arg("--file")
            .arg(session.image)
            .stdout(Stdio::null());
        self.sender = self.crew.start("udp-sender", command)?;
        while !self.crew.are_over() {
            let event = self.event()?;
            match &event.what {
                What::Said(line) if event.who == self.sender => {
                    if line.starts_with("Starting transfer") {
                        self.begun(event.at)?;
                    } else if line.starts_with("Transfer complete") {
                        self.complete = Some(event.at);
                        self.after = Some(Processors::look()?);
                    }
                }
                What::Said(_) => {}
                What::Ended { .. } => {
                    let receiver = self.receivers.iter().position(|&who| who == event.who);
                    if let Some(receiver) = receiver {
                        self.word(receiver, event.at)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn start_receiver(&mut self, receiver: usize, mut command: Command) -> io::Result<()> {
        if let Some(slow) = self.session.slow.filter(|_| receiver == 0) {
            command = slow.limited(&command);
        }
        command.stdout(Stdio::null());
        let who = self.crew.start(&format!("receiver {receiver}"), command)?;
        self.receivers.push(who);
        Ok(())
    }

    /// The next event; a program that fails is an error, unless it was to be killed.
    fn next_event(&mut self, until: Instant) -> io::Result<Option<Event>> {
        let Some(event) = self.crew.next(until.min(self.until))? else {
            if Instant::now() >= self.until {
                let who = self.receivers.iter().copied();
                let hangs = who
                    .chain([self.sender])
                    .find(|&who| !self.crew.is_over(who));
                return Err(self
                    .crew
                    .failure(hangs.unwrap_or(self.sender), "takes too long"));
            }
            return Ok(None);
        };
        if let What::Ended { ok, cpu } = event.what {
            let spared = match event.who == self.sender {
                true => {
                    self.cpu = cpu;
                    !self.session.killed.is_empty() || self.session.drop_slow
                }
                false => self
                    .receivers
                    .iter()
                    .position(|&who| who == event.who)
                    .is_some_and(|n| {
                        self.session.killed.iter().any(|(killed, _)| *killed == n)
                            || (self.session.drop_slow && n == 0)
                    }),
            };
            if !ok && !spared {
                return Err(self.crew.failure(event.who, "failed"));
            }
        }
        Ok(Some(event))
    }

    fn event(&mut self) -> io::Result<Event> {
        loop {
            if let Some(event) = self.next_event(self.until)? {
                return Ok(event);
            }
        }
    }

    fn begun(&mut self, at: Instant) -> io::Result<()> {
        self.began = Some((at, Processors::look()?));
        self.until = at + self.session.longest;
        Ok(())
    }

    fn word(&mut self, receiver: usize, at: Instant) -> io::Result<()> {
        self.words[receiver] = Some(at);
        if self.complete.is_none() {
            self.after = Some(Processors::look()?);
        }
        Ok(())
    }

    fn kill(&mut self, receiver: usize) -> io::Result<()> {
        match self.receivers.get(receiver) {
            Some(&who) => self.crew.kill(who),
            None => Ok(()),
        }
    }

    fn receiver_at(&self, address: &str) -> Option<usize> {
        let mut hosts = self.network.receivers.iter();
        hosts.position(|host| host.address() == Some(address))
    }

    fn result(self, told: &Path) -> io::Result<Transfer> {
        let (Some((began, before)), Some(after)) = (self.began, self.after) else {
            return Err(self.crew.failure(self.sender, "never began"));
        };
        let since = |at: Instant| at.saturating_duration_since(began).as_secs_f64();
        let told = match self.session.side {
            Side::Imager(_) => serde_json::from_slice::<Value>(&std::fs::read(told)?).ok(),
            Side::Udpcast(..) => None,
        };
        let seconds = match &told {
            Some(told) => told["seconds"].as_f64(),
            None => self.complete.map(since),
        };
        Ok(Transfer {
            seconds,
            each: self.words.iter().map(|word| word.map(since)).collect(),
            cpu: self.cpu,
            free: after.free_since(before),
            told,
        })
    }
}
