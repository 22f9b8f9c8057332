//! The cases of the multicast benchmark, and what each is held against.
//!
//! Owns: losses, late, slow and killed receivers, bars. Does not own: running them.

use super::room::{Side, Transfer};
use super::thousand::{self, Chance};
use super::{Bench, Entry, FEW, Image, Links, MANY, Plan, Results, mib, middle};
use std::io;
use std::time::Duration;

const IMAGER: &str = "imager --rate of the link";
const AUTOMATIC: &str = "imager, automatic rate";
const UDPCAST: &str = "udpcast";
/// As its manual gives it for an example.
const FEC: &str = "8x8/128";
/// Rate for the sender's processor time, in Mbit/s.
const FAST: u64 = 1000;

/// Runs the cases that are wanted.
pub fn run(bench: &mut Bench) -> io::Result<()> {
    let asked = std::env::var("BENCH_CAST").unwrap_or_default();
    let wanted = |case: &str| asked.is_empty() || asked.split(',').any(|name| name == case);
    let Links {
        few,
        many,
        few_lossy,
        many_lossy,
    } = bench.links;
    if wanted("2") {
        no_loss(bench, few)?;
    }
    if wanted("3") {
        lossy(bench, 10, FEW, few_lossy, 0.85)?;
        lossy(bench, 10, MANY, many_lossy, 0.85)?;
    }
    if wanted("4") {
        lossy(bench, 50, FEW, few_lossy, 0.70)?;
    }
    bench.network().lose(0)?;
    if wanted("5") {
        one_and_many(bench, many)?;
    }
    if wanted("6") {
        slow_disk(bench, few)?;
    }
    if wanted("7") {
        late(bench, few)?;
    }
    if wanted("8") {
        killed(bench, many)?;
    }
    if wanted("9") {
        processor_time(bench)?;
    }
    if wanted("10") {
        a_thousand(bench)?;
    }
    Ok(())
}

fn entry(name: &'static str, side: Side, receivers: usize) -> Entry {
    Entry {
        name,
        plan: Plan::new(side, receivers),
    }
}

/// Seconds of the runs that went well.
fn seconds(results: &Results) -> f64 {
    middle(results.iter().flatten().filter_map(|t| t.seconds))
}

fn heading(title: &str, runs: usize) {
    println!("\n{title} (median of {runs})");
    println!(
        "  {:<34} {:>8} {:>15} {:>9} {:>12} {:>7} {:>9} {:>9}",
        "", "s", "(min-max)", "MiB/s", "of the link", "free", "parity", "repair"
    );
}

/// Prints the goodput of each entry; the share of the link of the first.
fn table(entries: &[Entry], results: &[Results], image: &Image, mbit: u64) -> f64 {
    let mut first = None;
    for (entry, results) in entries.iter().zip(results) {
        let runs: Vec<&Transfer> = results.iter().flatten().collect();
        if runs.is_empty() {
            println!("  {:<34} failed", entry.name);
            continue;
        }
        let time = seconds(results);
        let (low, high) = runs
            .iter()
            .filter_map(|t| t.seconds)
            .fold((f64::INFINITY, 0.0), |(low, high), s| {
                (s.min(low), s.max(high))
            });
        let share = Bench::least(image, mbit) / time;
        first.get_or_insert(share);
        let part = |kind| middle(runs.iter().map(|t| t.share(kind))) * 100.0;
        let told = match entry.plan.side {
            Side::Imager(_) => format!(
                "{:>7.1} % {:>7.1} %",
                part("parity_packets"),
                part("repair_packets")
            ),
            Side::Udpcast(..) => String::new(),
        };
        println!(
            "  {:<34} {time:>8.2} {:>15} {:>9.2} {:>10.1} % {:>5.0} % {told}",
            entry.name,
            format!("{low:.2}-{high:.2}"),
            mib(image.records) / time,
            share * 100.0,
            middle(runs.iter().map(|t| t.free)) * 100.0,
        );
    }
    first.unwrap_or(f64::NAN)
}

fn no_loss(bench: &mut Bench, link: u64) -> io::Result<()> {
    heading(
        &format!("{FEW} receivers, no loss, link of {link} Mbit/s"),
        bench.runs,
    );
    bench.network().shape(Some(link))?;
    bench.network().lose(0)?;
    let entries = [
        entry(IMAGER, Side::Imager(Some(link)), FEW),
        entry(AUTOMATIC, Side::Imager(None), FEW),
        entry(UDPCAST, Side::Udpcast(None, None), FEW),
    ];
    let results = bench.rounds(&bench.large, link, &entries)?;
    let share = table(&entries, &results, &bench.large, link);
    bench.bar(
        share >= 0.92,
        format!("no loss: {:.1} % of the link (bar: 92 %)", share * 100.0),
    );
    Ok(())
}

fn lossy(bench: &mut Bench, per_mille: u32, count: usize, link: u64, bar: f64) -> io::Result<()> {
    let percent = per_mille / 10;
    heading(
        &format!("{count} receivers, each loses {percent} % by itself, link of {link} Mbit/s"),
        bench.runs,
    );
    bench.network().shape(Some(link))?;
    bench.network().lose(per_mille)?;
    let entries = [
        entry(IMAGER, Side::Imager(Some(link)), count),
        entry(AUTOMATIC, Side::Imager(None), count),
        entry(UDPCAST, Side::Udpcast(None, None), count),
        entry(
            "udpcast --fec 8x8/128",
            Side::Udpcast(Some(FEC), Some(link)),
            count,
        ),
    ];
    let image = if count > FEW {
        &bench.small
    } else {
        &bench.large
    };
    let results = bench.rounds(image, link, &entries)?;
    let share = table(&entries, &results, image, link);
    bench.bar(
        share >= bar,
        format!(
            "{count} receivers that lose {percent} %: {:.1} % of the link (bar: {:.0} %)",
            share * 100.0,
            bar * 100.0
        ),
    );
    Ok(())
}

fn one_and_many(bench: &mut Bench, link: u64) -> io::Result<()> {
    heading(
        &format!("one receiver and {MANY}, no loss, link of {link} Mbit/s"),
        bench.runs,
    );
    bench.network().shape(Some(link))?;
    let entries = [
        entry("imager, 1 receiver", Side::Imager(Some(link)), 1),
        entry("imager, 32 receivers", Side::Imager(Some(link)), MANY),
        entry("udpcast, 1 receiver", Side::Udpcast(None, None), 1),
        entry("udpcast, 32 receivers", Side::Udpcast(None, None), MANY),
    ];
    let results = bench.rounds(&bench.small, link, &entries)?;
    table(&entries, &results, &bench.small, link);
    if let [one, many, peer_one, peer_many] = &results[..] {
        let ratio = seconds(many) / seconds(one);
        println!(
            "  time of {MANY} / time of 1: udpcast {:.2}",
            seconds(peer_many) / seconds(peer_one)
        );
        bench.bar(
            ratio <= 1.15,
            format!("time of {MANY} receivers / time of one: {ratio:.2} (bar: 1.15)"),
        );
    }
    Ok(())
}

/// A disk that takes a tenth of what the link brings; the others' take all of it.
fn slow_disk(bench: &mut Bench, link: u64) -> io::Result<()> {
    let rate = link * 1_000_000 / 8 / 10;
    println!(
        "\none of {FEW} receivers with a disk of {:.2} MB/s, a tenth of the link of {link} Mbit/s (median of {})",
        rate as f64 / 1e6,
        bench.runs
    );
    bench.network().shape(Some(link))?;
    let slow = |side, drop_slow| Plan {
        slow: Some(rate),
        drop_slow,
        patience: 30,
        ..Plan::new(side, FEW)
    };
    let imager = Side::Imager(Some(link));
    let udpcast = Side::Udpcast(None, None);
    let with = |name, side, drop_slow| Entry {
        name,
        plan: slow(side, drop_slow),
    };
    // The slow one takes ten times as long: it is waited for once, with the smaller image.
    let results = bench.rounds(
        &bench.large,
        link,
        &[entry(IMAGER, imager, FEW), with(IMAGER, imager, true)],
    )?;
    let mut all: Vec<Results> = vec![Vec::new(), Vec::new(), Vec::new()];
    let entries = [
        with(IMAGER, imager, false),
        entry(UDPCAST, udpcast, FEW),
        with(UDPCAST, udpcast, false),
    ];
    bench.round(&bench.small, link, &entries, &mut all, true)?;
    let others = |results: &Results| middle(results.iter().flatten().map(|t| t.last(|n| n == 0)));
    let lost = |results: &[Results]| match results {
        [without, with] => {
            let (without, with) = (others(without), others(with));
            println!(
                "  the other {} receivers: {without:.2} s without, {with:.2} s with it",
                FEW - 1
            );
            1.0 - without / with
        }
        _ => f64::NAN,
    };
    let of_imager = lost(&results);
    println!("  {:.0} MiB, one run:", mib(bench.small.records));
    if let Some(first) = all.first().and_then(|runs| runs.first()?.as_ref()) {
        println!(
            "  the slow one itself: {:.2} s, restored and equal",
            first.each.first().copied().flatten().unwrap_or(f64::NAN)
        );
    }
    let of_peer = lost(all.get(1..).unwrap_or_default());
    println!("  udpcast: the others lose {:.1} %", of_peer * 100.0);
    bench.bar(
        of_imager <= 0.05,
        format!(
            "one slow disk: the others lose {:.1} % (bar: 5 %)",
            of_imager * 100.0
        ),
    );
    Ok(())
}

fn late(bench: &mut Bench, link: u64) -> io::Result<()> {
    heading(
        &format!("{FEW} receivers and one that comes at half time, link of {link} Mbit/s"),
        bench.runs,
    );
    bench.network().shape(Some(link))?;
    let first = bench.rounds_of_one(link)?;
    let half = Duration::from_secs_f64(first / 2.0);
    let entries = [
        entry(IMAGER, Side::Imager(Some(link)), FEW),
        Entry {
            name: "imager, one more at half time",
            plan: Plan {
                late: Some(half),
                ..Plan::new(Side::Imager(Some(link)), FEW)
            },
        },
    ];
    let results = bench.rounds(&bench.large, link, &entries)?;
    table(&entries, &results, &bench.large, link);
    if let [without, with] = &results[..] {
        let times = seconds(with) / seconds(without);
        let others = middle(with.iter().flatten().map(|t| t.last(|n| n == FEW)))
            / middle(without.iter().flatten().map(|t| t.last(|n| n == FEW)));
        println!("  the {FEW} that were there: {others:.2} of their time without it");
        bench.bar(
            times <= 1.6,
            format!("join at half time: done after {times:.2} image times (bar: 1.6)"),
        );
    }
    Ok(())
}

impl Bench {
    /// Seconds of one transfer to few receivers.
    fn rounds_of_one(&self, link: u64) -> io::Result<f64> {
        let entries = [entry(IMAGER, Side::Imager(Some(link)), FEW)];
        let mut results = vec![Vec::new()];
        self.round(&self.large, link, &entries, &mut results, false)?;
        Ok(results.first().map_or(f64::NAN, seconds))
    }
}

fn killed(bench: &mut Bench, link: u64) -> io::Result<()> {
    let count = (MANY as f64 * 0.1).round() as usize;
    println!(
        "\n{MANY} receivers, {count} of them killed at random, link of {link} Mbit/s (median of {})",
        bench.runs
    );
    bench.network().shape(Some(link))?;
    let mut chance = Chance(0x2026_1122);
    let least = Bench::least(&bench.small, link);
    let mut results: Vec<Results> = vec![Vec::new(), Vec::new()];
    let mut rests = Vec::new();
    for run in 0..bench.runs {
        let mut killed: Vec<(usize, Duration)> = Vec::new();
        while killed.len() < count {
            let who = chance.next() as usize % MANY;
            let when = least * (0.1 + 0.8 * (chance.next() % 1000) as f64 / 1000.0);
            if !killed.iter().any(|(other, _)| *other == who) {
                killed.push((who, Duration::from_secs_f64(when)));
            }
        }
        println!("  run {}: {killed:.1?}", run + 1);
        let entries = [
            entry(IMAGER, Side::Imager(Some(link)), MANY),
            Entry {
                name: IMAGER,
                plan: Plan {
                    killed: killed.clone(),
                    ..Plan::new(Side::Imager(Some(link)), MANY)
                },
            },
        ];
        bench.round(&bench.small, link, &entries, &mut results, true)?;
        let rest = results.get(1).and_then(|runs| runs.last()?.as_ref());
        rests.push(rest.map_or(f64::NAN, |t| {
            t.last(|n| killed.iter().any(|(k, _)| *k == n))
        }));
    }
    println!("  restored and equal: every receiver that was not killed, in all runs");
    let all = results.first().map_or(f64::NAN, |runs| {
        middle(runs.iter().flatten().map(|t| t.last(|_| false)))
    });
    let rest = middle(rests.into_iter());
    println!("  all: {all:.2} s; the rest when some are killed: {rest:.2} s");
    bench.bar(
        rest <= all * 1.05,
        format!(
            "{count} of {MANY} killed: the rest take {:.2} of the time (bar: unaffected, 1.05)",
            rest / all
        ),
    );
    Ok(())
}

/// The sender's processor time at a rate that its link does not hold up.
fn processor_time(bench: &mut Bench) -> io::Result<()> {
    println!(
        "\nprocessor time of the sender, one receiver, {FAST} Mbit/s, no shaped link (median of {})",
        bench.runs
    );
    bench.network().shape(None)?;
    let imager = [entry(
        "imager send --rate 1000M",
        Side::Imager(Some(FAST)),
        1,
    )];
    let peers = [
        entry(
            "udp-sender --max-bitrate 1000m",
            Side::Udpcast(None, Some(FAST)),
            1,
        ),
        entry(
            "udp-sender --fec 8x8/128, the same",
            Side::Udpcast(Some(FEC), Some(FAST)),
            1,
        ),
    ];
    let mut first = None;
    let mut shown = |card: &str, entries: &[Entry], results: &[Results]| {
        for (entry, results) in entries.iter().zip(results) {
            let time = seconds(results);
            let cpu = middle(results.iter().flatten().map(|t| t.cpu));
            let rate = mib(bench.large.records) / time;
            println!(
                "  {:<36} {card:<28} {time:>6.2} s, {rate:>6.1} MiB/s, {cpu:>6.2} processor s, {:.2} cores",
                entry.name,
                cpu / time
            );
            first.get_or_insert((cpu / time, rate));
        }
    };
    // As most cards of 1 Gbit/s and more: the system leaves it to them to cut packets apart.
    bench.network().whole_runs(true)?;
    let results = bench.rounds(&bench.large, FAST, &imager)?;
    shown("card that cuts packets", &imager, &results);
    bench.network().whole_runs(false)?;
    let results = bench.rounds(&bench.large, FAST, &imager)?;
    shown("card that does not", &imager, &results);
    let results = bench.rounds(&bench.large, FAST, &peers)?;
    shown("", &peers, &results);
    let (cores, rate) = first.unwrap_or((f64::NAN, f64::NAN));
    bench.bar(
        cores <= 0.5,
        format!("sender at 1 Gbit/s ({rate:.0} MiB/s of records): {cores:.2} cores (bar: 0.5)"),
    );
    Ok(())
}

fn a_thousand(bench: &mut Bench) -> io::Result<()> {
    println!("\ncontrol traffic, engines alone, 1 Mbit/s, each receiver loses 1 % by itself");
    for count in [1, 100, 1000] {
        let cost = thousand::run(count)?;
        println!(
            "  {count:>5} receivers: done after {:>5.1} s; {:>4} reports, {:>4.0} a second, at most {:>3}; \
             sender {:.2} processor s, {:.1} % of a core, peak {:.1} MiB",
            cost.seconds,
            cost.reports,
            cost.reports as f64 / cost.seconds,
            cost.most,
            cost.cpu,
            cost.cpu / cost.seconds * 100.0,
            cost.peak_kib as f64 / 1024.0
        );
        if count == 1000 {
            bench.bar(
                cost.most <= 300,
                format!(
                    "{count} receivers: at most {} reports in a second (bar: 300)",
                    cost.most
                ),
            );
        }
    }
    Ok(())
}
