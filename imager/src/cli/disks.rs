//! `imager disks`.
//!
//! Owns: its options. Does not own: the list (`crate::disks`).

use super::Output;
use wire::Report;

/// Options of `imager disks`.
#[derive(clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Lists the disks.
pub fn run(args: &Args) -> Result<Output, Report> {
    crate::disks::run(args.json)?;
    Ok(Output {
        text: String::new(),
        json: serde_json::Value::Null,
        aside: false,
    })
}
