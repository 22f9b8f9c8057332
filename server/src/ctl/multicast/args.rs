//! Arguments of `deployctl multicast`.
//!
//! Owns: their names and help. Does not own: what they do.

use crate::cast::shown::Settings;
use crate::ctl::args::AfterArg;
use clap::{Args, Subcommand};

/// Commands for multicast sessions.
#[derive(Debug, Subcommand)]
pub enum Multicast {
    /// Restore one image to many machines at once, at their next network boot. Everything on
    /// their disks is overwritten.
    Restore(Restore),
    /// Restore further machines by a session that is there: they join it while it runs, or
    /// form its next round.
    Add(Add),
    /// List all sessions with their machines.
    List,
    /// Start a session now, with the machines that are ready.
    Start {
        /// Id of the session.
        session: String,
    },
}

/// Arguments of a new session.
#[derive(Debug, Args)]
pub struct Restore {
    /// Names, ids or network addresses.
    #[arg(required = true, value_name = "MACHINE")]
    pub machines: Vec<String>,
    /// Name (its newest) or id of the image, which is of one disk.
    #[arg(long)]
    pub image: String,
    /// How it is sent.
    #[command(flatten)]
    pub sending: Sending,
    /// How it is written.
    #[command(flatten)]
    pub writing: Writing,
}

/// Arguments of further machines.
#[derive(Debug, Args)]
pub struct Add {
    /// Id of the session.
    pub session: String,
    /// Names, ids or network addresses.
    #[arg(required = true, value_name = "MACHINE")]
    pub machines: Vec<String>,
    /// How it is written.
    #[command(flatten)]
    pub writing: Writing,
}

/// How a session sends.
#[derive(Debug, Args)]
pub struct Sending {
    /// Multicast group, IPv4 or IPv6, as 239.255.10.1, [ff05::1:2]:26530 [default: a free one
    /// of 239.255.0.0/16, port 26530].
    #[arg(long, value_name = "G[:PORT]")]
    pub group: Option<String>,
    /// The server's network interface to send from [default: the one of network boot, or what
    /// its routes say].
    #[arg(long, value_name = "IF")]
    pub interface: Option<String>,
    /// Bytes a second with all headers, as 50M; at least 1M [default: as fast as the network
    /// carries].
    #[arg(long, value_name = "BYTES", value_parser = wire::size::parse)]
    pub rate: Option<u64>,
    /// Start when so many are ready [default: all that were ordered].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub targets: Option<u32>,
    /// Start so long after the first is ready, with those that are ready then [default: wait
    /// for all].
    #[arg(long, value_name = "SECONDS")]
    pub longest_wait: Option<u32>,
    /// Routers that packets may pass, and one [default: 1, none].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    pub ttl: Option<u8>,
    /// Bytes of the image in a packet, a multiple of 64 from 256 to 1408, for networks with
    /// packets shorter than 1500 [default: 1408].
    #[arg(long, value_name = "BYTES", value_parser = symbol)]
    pub symbol: Option<u16>,
}

impl Sending {
    /// The settings that are asked for.
    pub fn settings(&self) -> Settings {
        Settings {
            group: self.group.clone(),
            interface: self.interface.clone(),
            rate: self.rate,
            targets: self.targets,
            longest_wait: self.longest_wait,
            ttl: self.ttl,
            symbol: self.symbol,
        }
    }
}

/// How every machine writes.
#[derive(Debug, Args)]
pub struct Writing {
    /// Serial number, WWN, path or number=N of the disk, on every machine [default: the only
    /// fixed one].
    #[arg(long)]
    pub disk: Option<String>,
    /// Hash what the disks hold; what no machine lacks is not sent.
    #[arg(long)]
    pub reuse: bool,
    /// Do not read back what was written.
    #[arg(long)]
    pub no_verify: bool,
    /// Go on although architecture or firmware mode differ.
    #[arg(long)]
    pub force: bool,
    /// What the machines do afterwards.
    #[arg(long, value_enum, default_value_t = AfterArg::Reboot)]
    pub after: AfterArg,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
    /// Wait for the end of all and show progress.
    #[arg(long)]
    pub wait: bool,
}

fn symbol(text: &str) -> Result<u16, String> {
    text.parse()
        .ok()
        .filter(|&length: &u16| (256..=1408).contains(&length) && length % 64 == 0)
        .ok_or_else(|| format!("{text:?} is no multiple of 64 from 256 to 1408"))
}

#[cfg(test)]
mod tests {
    use super::symbol;

    #[test]
    fn symbols_are_multiples_of_64_that_fit_a_packet() {
        for good in ["256", "1024", "1408"] {
            assert!(symbol(good).is_ok(), "{good}");
        }
        for bad in ["", "0", "192", "1000", "1472", "65536", "-64", "1k"] {
            assert!(symbol(bad).is_err(), "{bad}");
        }
    }
}
