//! `imager discover`: which server a target would find here, and from where.
//!
//! Owns: its options and the printed list. Does not own: the search
//! ([`crate::target::net`]), which is the one that `/init` makes.

use super::Output;
use crate::target::cmdline::CommandLine;
use crate::target::discovery::Source;
use crate::target::inventory;
use crate::target::net::{self, Connected, NoWay, Patience, Plan};
use crate::target::settings::Settings;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;
use wire::{Code, DiskState, Report};

/// Options of `imager discover`.
#[derive(clap::Args)]
pub struct Args {
    /// Network card to use: name or MAC address [default: all]
    #[arg(long)]
    nic: Option<String>,
    /// Settings file, as on a medium
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Words of a kernel command line, as "deploy.server=..."
    #[arg(long, value_name = "WORDS", default_value = "")]
    arguments: String,
    /// Longest wait for a link, an address, and a server each
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    limit: u64,
    /// Bring cards up and take an address, as the Deploy-OS does: this changes the network
    /// of this machine
    #[arg(long)]
    configure: bool,
    /// With --configure: folder for resolv.conf
    #[arg(long, value_name = "FOLDER", default_value = "/etc", hide = true)]
    etc: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Do not tell what is going on
    #[arg(long, short)]
    quiet: bool,
}

/// Looks for the server.
pub fn run(args: &Args) -> Result<Output, Report> {
    let plan = plan(args)?;
    let tell = |text: &str| {
        if !args.quiet {
            eprintln!("{text}");
        }
    };
    match net::connect(&plan, &tell, &|| false) {
        Ok(connected) => Ok(output(&connected)),
        Err(NoWay::Report(report)) => Err(report),
        Err(NoWay::Stopped) => Err(usage("nothing stops this search".to_owned())),
    }
}

fn plan(args: &Args) -> Result<Plan, Report> {
    let mut words = args.arguments.clone();
    if let Some(nic) = &args.nic {
        words.push_str(&format!(" deploy.nic={nic}"));
    }
    let line = CommandLine::parse(&words);
    if let Some(problem) = line.refused.iter().chain(&line.problems).next() {
        return Err(usage(problem.clone()));
    }
    let (settings, settings_from) = match &args.settings {
        None => (Settings::default(), "none given".to_owned()),
        Some(path) => {
            let name = path.display().to_string();
            let text = std::fs::read(path).map_err(|e| usage(format!("{name}: {e}")))?;
            let (settings, problems) = Settings::parse(&String::from_utf8_lossy(&text));
            for problem in problems {
                eprintln!("{name}: {problem}");
            }
            let from = match settings.servers().is_empty() {
                true => format!("no server in {name}"),
                false => name,
            };
            (settings, from)
        }
    };
    let limit = Duration::from_secs(args.limit.clamp(1, 3600));
    Ok(Plan {
        line: line.settings,
        settings,
        settings_from,
        uuid: inventory::raw_uuid(),
        etc: args.etc.clone(),
        only_asks: !args.configure,
        patience: Patience {
            card: Duration::from_secs(2).min(limit),
            link: limit,
            address: limit,
            server: limit,
            refused: Duration::from_secs(4).min(limit),
        },
    })
}

fn usage(found: String) -> Report {
    Report::new(Code::Usage, found, DiskState::NotInvolved)
}

fn output(connected: &Connected) -> Output {
    let Connected {
        nic,
        lease,
        server,
        pin,
        source,
        outcomes,
        ..
    } = connected;
    let mut text = format!(
        "{server}\n\nfound by {source}, by way of {} ({}/{}); its key has the pin {pin}\n\n",
        nic.name, lease.address, lease.prefix
    );
    for one in Source::ALL {
        let said = outcomes.iter().find(|(source, _)| *source == one);
        let said = said.map_or("not asked", |(_, said)| said.as_str());
        text.push_str(&format!("{:<14}{said}\n", one.to_string()));
    }
    let sources: serde_json::Map<_, _> = outcomes
        .iter()
        .map(|(source, said)| (source.to_string(), json!(said)))
        .collect();
    Output {
        text,
        json: json!({
            "result": "done",
            "server": server.to_string(),
            "pin": pin.to_string(),
            "source": source.to_string(),
            "nic": nic.name,
            "address": format!("{}/{}", lease.address, lease.prefix),
            "sources": sources,
        }),
        aside: false,
    }
}
