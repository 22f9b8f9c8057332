//! `imager wipe`.
//!
//! Owns: its options, what is shown before, and the confirmation. Does not own: the checks
//! and the wiping (`crate::wipe`).

use super::shown::Shown;
use super::{Output, print_warnings, warnings_json};
use crate::progress::Silent;
use crate::restore::show::look;
use crate::wipe::{self, Ended, Guard, Plan, show};
use crate::{clock, disks, in_use, report};
use blockdev::Device;
use serde_json::{Value, json};
use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use wire::{Code, DiskInfo, DiskState, Report, WipeMethod, WipeOrder};

/// Options of `imager wipe`.
#[derive(Clone, clap::Args)]
pub struct Args {
    /// Block device or raw image file to wipe; or number, serial number or WWN of a disk
    disk: PathBuf,
    /// How: auto (the best that the disk can do, and the next one if that fails or cannot be
    /// proved), discard, overwrite, nvme-format, nvme-sanitize
    #[arg(long, default_value = "auto", value_name = "METHOD")]
    method: WipeMethod,
    /// How many times every sector is overwritten; each time is read back
    #[arg(long, default_value_t = 1, value_name = "N")]
    passes: u32,
    /// Do not ask before the disk is wiped
    #[arg(long)]
    yes: bool,
    /// Show what the disk can do and what would be done, and do nothing
    #[arg(long)]
    plan: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
}

/// Wipes a disk.
pub fn run(args: &Args) -> Result<Output, Report> {
    let path = disks::find(&args.disk, disks::list)?;
    let order = WipeOrder {
        disk: None,
        method: args.method,
        passes: args.passes,
    };
    order
        .check()
        .map_err(|found| Report::new(Code::Usage, found, DiskState::NotInvolved))?;
    if args.plan {
        return plan(&path, &order);
    }
    let shown = Shown::start("wipe", args.quiet);
    let device = wipe::open(&path, shown.sink())?;
    let disk = in_use::identify(&path)?;
    let plan = Plan::make(&device, &path, &order)?;
    let mut guard = CliGuard {
        disk: &disk,
        ask: !args.yes,
    };
    let ended = wipe::run(device, &disk, &plan, &mut guard, shown.sink());
    drop(shown);
    let Ended { wiped, warnings } = ended?;
    print_warnings(&warnings);
    let before: String = wiped
        .before
        .iter()
        .map(|said| format!("Before that: {said}.\n"))
        .collect();
    let mut value = serde_json::to_value(&wiped).unwrap_or_default();
    if let Value::Object(fields) = &mut value {
        fields.insert("result".to_owned(), json!("done"));
        fields.insert("proved".to_owned(), json!(wiped.proved()));
        fields.insert("ended".to_owned(), json!(clock::now_rfc3339()));
        fields.insert("warnings".to_owned(), warnings_json(&warnings));
    }
    Ok(Output {
        text: format!("Wipe done: {}.\n{before}", wiped.sentence()),
        json: value,
        aside: false,
    })
}

/// Shows what a wipe would do. The disk is opened for reading only.
fn plan(path: &Path, order: &WipeOrder) -> Result<Output, Report> {
    in_use::refuse_if_held(path)?;
    let device = Device::open_read(path).map_err(|e| report::open(&e, DiskState::Untouched))?;
    let disk = in_use::identify(path)?;
    let plan = Plan::make(&device, path, order)?;
    let view = show::View {
        plan: &plan,
        disk: &disk,
        map: look(&device, &Silent),
    };
    Ok(Output {
        text: view.text(),
        json: view.json(),
        aside: false,
    })
}

struct CliGuard<'a> {
    disk: &'a DiskInfo,
    ask: bool,
}

impl Guard for CliGuard<'_> {
    /// Nobody gets back what a file held either: it is asked for one, too.
    fn before_write(&mut self, device: &Device, plan: &Plan) -> Result<(), Report> {
        if !self.ask {
            return Ok(());
        }
        let refuse =
            |found: &str| Err(Report::new(Code::NotConfirmed, found, DiskState::Untouched));
        if !std::io::stdin().is_terminal() {
            return refuse("there is no terminal to ask on");
        }
        let view = show::View {
            plan,
            disk: self.disk,
            map: look(device, &Silent),
        };
        eprint!("\n{}Type yes to go on: ", view.text());
        let mut answer = String::new();
        let read = std::io::stdin().lock().read_line(&mut answer);
        if read.is_ok() && answer.trim().eq_ignore_ascii_case("yes") {
            Ok(())
        } else {
            refuse("the answer was not yes")
        }
    }
}
