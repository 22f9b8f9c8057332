//! `imager nbd`.
//!
//! Owns: its options, and saying where clients are waited for. Does not own: serving them
//! (`crate::nbd`).

use super::keys::ReadKeys;
use super::shown::Shown;
use super::{Output, opened, print_warnings, warnings_json};
use crate::nbd::{self, Listener};
use crate::{bad_ranges, trust};
use serde_json::json;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use wire::{Report, size};

/// Options of `imager nbd`.
#[derive(clap::Args)]
pub struct Args {
    /// Image file; it is only read
    image: PathBuf,
    /// Socket to make, for clients of this host and user
    #[arg(long, value_name = "PATH", conflicts_with = "listen")]
    socket: Option<PathBuf>,
    /// Address and port
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:10809")]
    listen: SocketAddr,
    /// End when the last client has left
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    keys: ReadKeys,
    /// Print where clients are waited for as JSON
    #[arg(long)]
    pub json: bool,
}

/// Serves an image until a signal comes.
pub fn run(args: &Args) -> Result<Output, Report> {
    let listener = match &args.socket {
        Some(path) => Listener::unix(path)?,
        None => Listener::tcp(args.listen)?,
    };
    let image = opened::open(&args.image, &args.keys)?;
    let warnings = opened::warnings(&image);
    print_warnings(&warnings);
    if args.socket.is_none() && !args.listen.ip().is_loopback() {
        eprintln!(
            "warning: everybody who reaches {} can read the disk",
            args.listen
        );
    }
    // Signals are held from here on: no client is waited for that one could not stop.
    let shown = Shown::start("nbd", true);
    let exports = nbd::exports(&image);
    let uri = listener.uri();
    let line = if args.json {
        let list: Vec<_> = exports
            .iter()
            .map(|e| json!({"name": e.name, "description": e.description, "size_bytes": e.size}))
            .collect();
        let value = json!({
            "result": "serving",
            "uri": uri,
            "exports": list,
            "disk_bytes": image.disk_size(),
            "sector_size": image.layout().disk.sector_size,
            "partial": image.layout().is_partial(),
            "bad_ranges": bad_ranges::json(image.layout(), image.bad()),
            "root": image.root().root.to_hex(),
            "signed_by": trust::json(image.signatures()),
            "warnings": warnings_json(&warnings),
        });
        format!("{value:#}\n")
    } else {
        let partitions: Vec<&str> = exports[1..].iter().map(|e| e.name.as_str()).collect();
        let partitions = match partitions.as_slice() {
            [] => String::new(),
            list => format!("; partitions as exports {}", list.join(", ")),
        };
        format!(
            "Serving the disk of {} read-only at {uri}{partitions}. Ctrl-C ends it.\n",
            size::bytes(image.disk_size())
        )
    };
    let mut out = std::io::stdout();
    // Where nobody reads it, clients may come all the same.
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    nbd::serve(&image, &listener, args.once, shown.sink())?;
    Ok(Output {
        text: String::new(),
        json: serde_json::Value::Null,
        aside: false,
    })
}
