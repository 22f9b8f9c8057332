//! Multicast: one image to many receivers at once, beside udpcast.
//!
//! Owns: the images, the link's rate, running each transfer in turns with its peers, and the
//! tables. Does not own: which cases there are (`cases`), the course of a transfer (`room`).
//!
//! All hosts share the cores, so that a link is shaped to a rate that leaves some of them
//! free ([`FREE`]); that is found first, for 8 receivers and for 32. The images are not
//! compressed: both sides then write as many bytes as they send.

mod cases;
mod crew;
mod room;
mod thousand;

pub use thousand::session;

use crate::disk::{Kind, Place};
use crate::setting;
use e2e::built::Built;
use room::{Network, Session, Side, Slow, Transfer};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use testkit::loopdev::Mounted;
use testkit::netns::require;

/// Part of the processors that is to be free at the links' rate.
const FREE: f64 = 0.2;
/// Rates that are tried, in Mbit/s.
const RATES: [u64; 20] = [
    10, 15, 20, 25, 30, 40, 50, 60, 75, 90, 100, 125, 150, 200, 250, 300, 400, 500, 600, 800,
];
/// Receivers in most cases, and in the large ones.
pub const FEW: usize = 8;
pub const MANY: usize = 32;

/// An image, and what it has to become.
pub struct Image {
    file: PathBuf,
    /// Bytes of its records.
    pub records: u64,
    disk: Content,
    own: Content,
}

/// Length and hash of what a disk or file holds.
#[derive(Clone, Copy, PartialEq)]
struct Content(u64, blake3::Hash);

/// Mbit/s of the link: with few receivers and with many, and when each loses 1 %, which
/// takes more work.
#[derive(Clone, Copy, Default)]
pub struct Links {
    pub few: u64,
    pub many: u64,
    pub few_lossy: u64,
    pub many_lossy: u64,
}

/// Everything that cases need.
pub struct Bench {
    imager: String,
    network: Network,
    folder: Mounted,
    /// For few receivers, and for many: a third of it.
    pub large: Image,
    pub small: Image,
    pub runs: usize,
    /// The links' rates.
    pub links: Links,
    /// Bars that were not met.
    missed: Vec<String>,
}

/// Measures the cases that `BENCH_CAST` names (as `2,5`), or all.
pub fn measure(built: &Built) -> io::Result<()> {
    for (program, package) in [
        ("nft", "nftables"),
        ("tc", "iproute2"),
        ("udp-sender", "udpcast"),
        ("udp-receiver", "udpcast"),
    ] {
        require(program, package)?;
    }
    let imager = built.program("imager").display().to_string();
    let folder = Mounted::tmpfs();
    let size = setting("BENCH_MIB", 384) << 20;
    let mut bench = Bench {
        large: Image::make(&imager, folder.path(), "large", size)?,
        small: Image::make(&imager, folder.path(), "small", size / 3)?,
        network: Network::new(MANY + 1)?,
        imager,
        folder,
        runs: setting("BENCH_RUNS", 3).max(1) as usize,
        links: Links::default(),
        missed: Vec::new(),
    };
    println!(
        "\nMulticast: images of {:.1} and {:.1} MiB of records, not compressed; receivers are \
         hosts of a laboratory, their disks are in memory",
        mib(bench.large.records),
        mib(bench.small.records)
    );
    bench.links()?;
    cases::run(&mut bench)?;
    match bench.missed[..] {
        [] => println!("\nAll bars were met."),
        ref missed => println!("\nNot met:\n  {}", missed.join("\n  ")),
    }
    Ok(())
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

impl Image {
    fn make(imager: &str, folder: &Path, name: &str, size: u64) -> io::Result<Image> {
        let place = Place::of_size(Kind::Ext4, size)?;
        let (disk, _) = place.devices();
        let file = folder.join(name);
        crate::run::plain(&format!(
            "{imager} backup -q --codec none {disk} {}",
            file.display()
        ))?;
        let damaged = |e: image::Error| io::Error::other(e.to_string());
        let listing = imager::room::Listing::read(File::open(&file)?).map_err(damaged)?;
        Ok(Image {
            records: listing.lengths().map(u64::from).sum(),
            disk: Content::of(Path::new(&disk), size)?,
            own: Content::of(&file, std::fs::metadata(&file)?.len())?,
            file,
        })
    }
}

impl Content {
    fn of(path: &Path, len: u64) -> io::Result<Content> {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(io::Read::take(File::open(path)?, len))?;
        Ok(Content(hasher.count(), hasher.finalize()))
    }
}

/// A competitor of a case: its name and the transfer.
pub struct Entry {
    pub name: &'static str,
    pub plan: Plan,
}

/// A transfer of a case.
pub struct Plan {
    pub side: Side,
    pub receivers: usize,
    pub late: Option<Duration>,
    pub killed: Vec<(usize, Duration)>,
    /// Bytes a second of the first receiver's disk.
    pub slow: Option<u64>,
    pub drop_slow: bool,
    /// How many times as long as the link needs it may take.
    pub patience: u32,
}

impl Plan {
    pub fn new(side: Side, receivers: usize) -> Plan {
        Plan {
            side,
            receivers,
            late: None,
            killed: Vec::new(),
            slow: None,
            drop_slow: false,
            patience: 8,
        }
    }
}

/// What the runs of an entry gave; a peer that failed gives nothing.
pub type Results = Vec<Option<Transfer>>;

impl Bench {
    /// Seconds that the link needs for the records alone.
    pub fn least(image: &Image, mbit: u64) -> f64 {
        image.records as f64 * 8.0 / (mbit as f64 * 1e6)
    }

    /// The network, to shape it or have it lose packets.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Says whether a bar was met, and remembers it if not.
    pub fn bar(&mut self, met: bool, text: String) {
        println!("  {}: {text}", if met { "met" } else { "NOT MET" });
        if !met {
            self.missed.push(text);
        }
    }

    /// Runs all entries once, in turns; what is restored is compared if `compare` is set.
    pub fn round(
        &self,
        image: &Image,
        mbit: u64,
        entries: &[Entry],
        results: &mut [Results],
        compare: bool,
    ) -> io::Result<()> {
        for (entry, results) in entries.iter().zip(results) {
            let made = self.transfer(image, mbit, &entry.plan, compare);
            results.push(match (made, entry.plan.side) {
                (Ok(transfer), _) => Some(transfer),
                (Err(error), Side::Udpcast(..)) => {
                    println!("  {}: {error}", entry.name);
                    None
                }
                (Err(error), Side::Imager(_)) => return Err(error),
            });
        }
        Ok(())
    }

    /// Runs all entries in turns, so often as is set.
    pub fn rounds(&self, image: &Image, mbit: u64, entries: &[Entry]) -> io::Result<Vec<Results>> {
        let mut results: Vec<Results> = entries.iter().map(|_| Vec::new()).collect();
        for run in 0..self.runs {
            self.round(image, mbit, entries, &mut results, run == 0)?;
        }
        println!("  restored and equal: every receiver of the first run");
        Ok(results)
    }

    fn transfer(
        &self,
        image: &Image,
        mbit: u64,
        plan: &Plan,
        compare: bool,
    ) -> io::Result<Transfer> {
        let targets = tempfile::tempdir_in(self.folder.path())?;
        let slow = match plan.slow {
            None => None,
            Some(rate) => Some(Slow::new(image.disk.0.max(image.own.0), rate)?),
        };
        let session = Session {
            imager: &self.imager,
            side: plan.side,
            image: &image.file,
            targets: targets.path(),
            receivers: plan.receivers,
            late: plan.late,
            killed: plan.killed.clone(),
            slow: slow.as_ref(),
            drop_slow: plan.drop_slow,
            longest: Duration::from_secs_f64(
                Self::least(image, mbit) * f64::from(plan.patience) + 30.0,
            ),
        };
        let late = usize::from(plan.late.is_some());
        self.network.plug(plan.receivers + late)?;
        let transfer = room::transfer(&self.network, &session)?;
        if compare {
            let content = match plan.side {
                Side::Imager(_) => image.disk,
                Side::Udpcast(..) => image.own,
            };
            for receiver in 0..transfer.each.len() {
                let spared = plan.killed.iter().any(|(killed, _)| *killed == receiver)
                    || (plan.drop_slow && receiver == 0);
                let target = room::target(&session, receiver);
                if !spared && Content::of(&target, content.0)? != content {
                    let text = format!("receiver {receiver} of {:?} has something else", plan.side);
                    return Err(io::Error::other(text));
                }
            }
        }
        Ok(transfer)
    }

    /// Finds the rates of the links, or takes them of `BENCH_LINK` (as `200,50`, or
    /// `200,50,100,40` with those that lose).
    fn links(&mut self) -> io::Result<()> {
        let given = std::env::var("BENCH_LINK").unwrap_or_default();
        let mut given = given.split(',').map(|rate| rate.parse().ok());
        let few = given.next().flatten();
        let many = given.next().flatten().or(few);
        let few_lossy = given.next().flatten().or(few);
        let many_lossy = given.next().flatten().or(many);
        println!(
            "\nThe links: the highest rate that leaves {:.0} % of the processors free",
            FREE * 100.0
        );
        self.network.lose(0)?;
        self.links.few = self.link(few, FEW, 100)?;
        self.links.many = self.link(many, MANY, 30)?;
        println!("  when each receiver loses 1 %:");
        self.network.lose(10)?;
        // A sender that does not keep up leaves processors free, too: no more than without loss.
        self.links.few_lossy = self
            .link(few_lossy, FEW, self.links.few)?
            .min(self.links.few);
        self.links.many_lossy = self
            .link(many_lossy, MANY, self.links.many)?
            .min(self.links.many);
        self.network.lose(0)
    }

    fn link(&self, given: Option<u64>, receivers: usize, first: u64) -> io::Result<u64> {
        if let Some(mbit) = given {
            println!("  {receivers} receivers: {mbit} Mbit/s, as BENCH_LINK says");
            return Ok(mbit);
        }
        let place = |rate: f64| RATES.iter().rposition(|&r| r as f64 <= rate).unwrap_or(0);
        let free = |at: usize| -> io::Result<f64> {
            let mbit = RATES[at];
            self.network.shape(Some(mbit))?;
            let plan = Plan::new(Side::Imager(Some(mbit)), receivers);
            let image = if receivers > FEW {
                &self.small
            } else {
                &self.large
            };
            let transfer = self.transfer(image, mbit, &plan, false)?;
            println!(
                "  {receivers} receivers at {mbit} Mbit/s: {:.0} % free",
                transfer.free * 100.0
            );
            Ok(transfer.free)
        };
        // Where it should be, if all of the work is the packets'.
        let start = free(place(first as f64))?;
        let mut at = place(first as f64 * (1.0 - FREE) / (1.0 - start).max(0.01));
        let mut fits = free(at)? >= FREE;
        while fits && at + 1 < RATES.len() {
            fits = free(at + 1)? >= FREE;
            at += usize::from(fits);
            if !fits {
                println!("  {receivers} receivers: {} Mbit/s", RATES[at]);
                return Ok(RATES[at]);
            }
        }
        while !fits && at > 0 {
            at -= 1;
            fits = free(at)? >= FREE;
        }
        println!("  {receivers} receivers: {} Mbit/s", RATES[at]);
        Ok(RATES[at])
    }
}

/// The middle of some numbers.
pub fn middle(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}
