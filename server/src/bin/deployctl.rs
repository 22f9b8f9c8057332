//! `deployctl`, the command line of the management server.
//!
//! Owns: nothing but its start. Does not own: commands ([`server::ctl`]).

use clap::Parser;
use server::ctl;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ExitCode::from(ctl::run(&ctl::args::Cli::parse()))
}
