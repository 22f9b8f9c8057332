//! `imager send`.
//!
//! Owns: its options, and what is shown of a room. Does not own: sending (`crate::room`).

use super::shown::Shown;
use super::{Output, info};
use crate::report;
use crate::room::Listing;
use crate::room::send::{self, Ended, Outcome, Settings};
use group::Group;
use multicast::{MAX_SYMBOL_LEN, Rate};
use serde_json::json;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use wire::{Code, DiskState, Report, size};

/// Options of `imager send`.
#[derive(clap::Args)]
pub struct Args {
    /// Image file
    file: PathBuf,
    /// Group and port to send to, as 239.1.2.3:26530 or [ff05::1:2]:26530; receivers connect
    /// to the same port by TCP
    #[arg(long, value_name = "GROUP:PORT")]
    multicast: SocketAddr,
    /// Network interface to send from [default: what the routes say]
    #[arg(long, value_name = "IF")]
    interface: Option<String>,
    /// Bits a second, all headers counted: as 900M or 2.5G [default: as fast as the network
    /// carries, up to 10G]
    #[arg(long, value_name = "RATE", value_parser = bits)]
    rate: Option<f64>,
    /// Start when so many receivers are ready
    #[arg(long, value_name = "N", default_value_t = 1)]
    receivers: u32,
    /// Start with those that are there so many seconds after the first is ready [default:
    /// wait for all]
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
    /// How many routers packets may pass, and one
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=255))]
    ttl: u32,
    /// Bytes of the image in a packet, where the network's packets are shorter than 1500: a
    /// multiple of 64 from 256 to 1408
    #[arg(long, value_name = "BYTES", default_value_t = MAX_SYMBOL_LEN)]
    symbol: u16,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
}

/// Sends an image to a room.
pub fn run(args: &Args) -> Result<Output, Report> {
    let usage = |text: String| Report::new(Code::Usage, text, DiskState::NotInvolved);
    let group = Group::new(args.multicast, args.interface.as_deref())
        .map_err(|error| usage(error.to_string()))?;
    if !args.symbol.is_multiple_of(64) || !(256..=MAX_SYMBOL_LEN).contains(&args.symbol) {
        return Err(usage(format!(
            "--symbol {}: a multiple of 64 from 256 to 1408",
            args.symbol
        )));
    }
    let defaults = Settings::new(group);
    let settings = Settings {
        ttl: args.ttl,
        rate: args
            .rate
            .map_or(defaults.rate, |bits| Rate::Fixed(bits / 8.0)),
        symbol_len: args.symbol,
        receivers: args.receivers.max(1),
        wait: args.wait.map(Duration::from_secs),
        ..defaults
    };
    let listing = Listing::read(info::open(&args.file)?)
        .map_err(|e| report::image(&e, DiskState::NotInvolved))?;
    let name = args.file.file_name().unwrap_or_default().to_string_lossy();
    let shown = Shown::start("send", args.quiet);
    let waits = settings.receivers;
    let ended = send::run(listing, &name, &settings, shown.sink(), &mut |code| {
        // Wanted even with --quiet: nobody can receive without it.
        eprintln!("Code: {code}  (waiting for {waits} receivers)");
    })?;
    drop(shown);
    result(&ended)
}

fn result(ended: &Ended) -> Result<Output, Report> {
    let failed: Vec<String> = ended
        .receivers
        .iter()
        .filter_map(|(from, outcome)| match outcome {
            Outcome::Done { .. } => None,
            Outcome::Failed(found) => Some(format!("{from} failed: {found}")),
            Outcome::Lost(error) => Some(format!("{from} was lost: {error}")),
        })
        .collect();
    let done = ended.receivers.len() - failed.len();
    if !failed.is_empty() {
        let found = format!(
            "{} of {} receivers did not say that they are done: {}",
            failed.len(),
            ended.receivers.len(),
            failed.join("; ")
        );
        return Err(
            Report::new(Code::ConnectionLost, found, DiskState::NotInvolved)
                .with_advice("Look at those machines, and send to them again."),
        );
    }
    let status = &ended.status;
    let share = |packets: u64| packets as f64 * 100.0 / status.packets.max(1) as f64;
    let receivers: Vec<_> = ended
        .receivers
        .iter()
        .map(|(from, outcome)| match outcome {
            Outcome::Done {
                multicast,
                unicast,
                why,
            } => json!({"address": from.to_string(), "multicast": multicast, "unicast": unicast, "why": why}),
            Outcome::Failed(text) | Outcome::Lost(text) => {
                json!({"address": from.to_string(), "failed": text})
            }
        })
        .collect();
    Ok(Output {
        text: format!(
            "Sent to {done} receivers, all done, in {}: {} packets, {:.1} % parity, {:.1} % repair, passes: {}.\n",
            size::duration(ended.time.as_secs()),
            status.packets,
            share(status.parity_packets),
            share(status.repair_packets),
            status.pass,
        ),
        json: json!({
            "result": "done",
            "receivers": receivers,
            "packets": status.packets,
            "parity_packets": status.parity_packets,
            "repair_packets": status.repair_packets,
            "passes": status.pass,
            "seconds": ended.time.as_secs_f64(),
        }),
        aside: false,
    })
}

/// A rate in bits a second, as 900M.
fn bits(text: &str) -> Result<f64, String> {
    let (number, unit) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1e3),
        Some((at, 'm' | 'M')) => (&text[..at], 1e6),
        Some((at, 'g' | 'G')) => (&text[..at], 1e9),
        _ => (text, 1.0),
    };
    let rate = number.parse::<f64>().ok().map(|number| number * unit);
    rate.filter(|rate| (1e5..=1e12).contains(rate))
        .ok_or_else(|| "a number of bits a second from 100k to 1000G".to_owned())
}

#[cfg(test)]
mod tests {
    use super::bits;

    #[test]
    fn rates_have_units() {
        assert_eq!(bits("900M"), Ok(9e8));
        assert_eq!(bits("2.5g"), Ok(2.5e9));
        assert_eq!(bits("300000"), Ok(3e5));
        for bad in ["", "M", "-5M", "1", "nan", "infG", "5 M"] {
            assert!(bits(bad).is_err(), "{bad}");
        }
    }
}
