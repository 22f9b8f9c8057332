//! `deployd`, the management server.
//!
//! Owns: process-wide set-up and signals. Does not own: the server
//! ([`server::daemon`]).

use clap::Parser;
use server::daemon;
use server::options::Options;
use std::io::IsTerminal;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    // Keys, tokens and images are nobody else's.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let filter =
        tracing_subscriber::EnvFilter::try_new(&options.log).unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    raise_file_limit();
    refuse_huge_pages();
    if options.rebuild_index {
        return rebuild_index(&options).await;
    }
    // Before anything is started, so that no signal is lost.
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        eprintln!("deployd: signals cannot be received");
        return ExitCode::from(1);
    };
    let server = tokio::select! {
        started = daemon::start(&options) => match started {
            Ok(server) => server,
            Err(report) => {
                eprintln!("deployd: {report}");
                return ExitCode::from(if report.code == wire::Code::Usage { 2 } else { 1 });
            }
        },
        _ = terminate.recv() => return ExitCode::SUCCESS,
        _ = interrupt.recv() => return ExitCode::SUCCESS,
    };
    tracing::info!(plain = %server.plain, data = %server.data, pin = %server.pin, "deployd {} runs", wire::SOFTWARE_VERSION);
    tell(&options, &server);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("deployd stops");
    server.stop().await;
    ExitCode::SUCCESS
}

/// Prints what was found. A store with damaged images is no success.
async fn rebuild_index(options: &Options) -> ExitCode {
    let rebuilt = match daemon::rebuild_index(options).await {
        Ok(rebuilt) => rebuilt,
        Err(report) => {
            eprintln!("deployd: {report}");
            return ExitCode::from(if report.code == wire::Code::Usage {
                2
            } else {
                1
            });
        }
    };
    println!(
        "{} images; {} packs with {} records, all read and hashed; {} records damaged, {} bytes are no records",
        rebuilt.images.len(),
        rebuilt.packs,
        rebuilt.records,
        rebuilt.damaged_records,
        rebuilt.lost_bytes
    );
    for image in &rebuilt.images {
        let state = match image.damaged {
            0 => "whole".to_owned(),
            count => format!("{count} chunks are damaged: back the machine up again"),
        };
        println!("  {} ({}): {state}", image.name, image.id);
    }
    for path in &rebuilt.set_aside {
        println!("  moved to lost/: {}", path.display());
    }
    ExitCode::from(if rebuilt.is_whole() { 0 } else { 1 })
}

/// Every connection and every pack in use is an open file, and the usual limit is 1024.
fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}

/// Each of many threads and connections has a little memory of its own; with a huge page
/// under each piece the server takes twice as much, and clearing them takes time.
fn refuse_huge_pages() {
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        tracing::debug!(%error, "huge pages stay on");
    }
}

/// Says where the console is. The token is shown on a terminal only: standard error of a
/// service ends in a log that others may read.
fn tell(options: &Options, server: &daemon::Server) {
    let token = options.state.join(server::secrets::ADMIN_TOKEN_FILE);
    let login = match std::io::stderr().is_terminal() {
        true => format!("#token={}", server.app.admin_token),
        false => String::new(),
    };
    eprintln!(
        "Console on this host:  http://127.0.0.1:{}/{login}",
        server.plain.port()
    );
    if let Some(address) = server.address {
        eprintln!(
            "Console from anywhere: https://{address}:{}/{login}",
            server.data.port()
        );
    }
    eprintln!("Token: in {}", token.display());
}
