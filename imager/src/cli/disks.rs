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
pub fn run(_args: &Args) -> Result<Output, Report> {
    let (text, json) = crate::disks::listing()?;
    Ok(Output {
        text,
        json,
        aside: false,
    })
}
