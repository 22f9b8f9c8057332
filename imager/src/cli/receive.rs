//! `imager receive`.
//!
//! Owns: its options, and asking for the code. Does not own: receiving (`crate::room`), the
//! restore's checks and questions (`restore`).

use super::Output;
use super::restore::{self as to_disk, To};
use crate::restore;
use crate::room::code::RoomCode;
use crate::room::find;
use crate::room::receive::RoomSource;
use group::Group;
use std::io::{BufRead, IsTerminal};
use std::net::{IpAddr, SocketAddr};
use wire::{Code, DiskState, Report};

/// Options of `imager receive`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub to: To,
    /// Group and port that the sender sends to, as 239.1.2.3:26530 or [ff05::1:2]:26530
    #[arg(long, value_name = "GROUP:PORT")]
    multicast: SocketAddr,
    /// Network interface that joins the group [default: what the routes say]
    #[arg(long, value_name = "IF")]
    interface: Option<String>,
    /// Code that the sender shows [default: it is asked for]
    #[arg(long)]
    code: Option<String>,
    /// Address of the sender [default: found by its packets]
    #[arg(long, value_name = "ADDRESS")]
    from: Option<IpAddr>,
}

/// Receives an image and writes it to a disk.
pub fn run(args: &Args) -> Result<Output, Report> {
    let to = args.to.named()?;
    let keyring = to.keyring()?;
    let group = Group::new(args.multicast, args.interface.as_deref())
        .map_err(|error| Report::new(Code::Usage, error.to_string(), DiskState::Untouched))?;
    let never = || false;
    let sender = match args.from {
        Some(address) => SocketAddr::new(address, group.address.port()),
        None => find(&group, &never)?,
    };
    let code = code(args.code.as_deref(), sender)?;
    let mut image = RoomSource::open(group, sender, &code, &keyring, &never)?;
    to_disk::write(&to, None, &mut image, |job, image| {
        let mut guard = image.ready(job.guard, job.progress);
        let done = restore::run(
            job.device,
            job.path,
            image,
            &mut guard,
            job.options,
            job.progress,
        );
        image.finish(done.as_ref().err());
        let mut done = done?;
        let (multicast, unicast) = image.counts();
        let text = format!("{multicast} chunks came by multicast, {unicast} by unicast");
        job.progress.note(&text);
        done.warnings.extend(image.warning());
        Ok(done)
    })
}

fn code(given: Option<&str>, sender: SocketAddr) -> Result<RoomCode, Report> {
    let text = match given {
        Some(text) => text.to_owned(),
        None if std::io::stdin().is_terminal() => {
            eprint!("Code that the sender {sender} shows: ");
            let mut line = String::new();
            // A line that cannot be read is no code.
            let _ = std::io::stdin().lock().read_line(&mut line);
            line
        }
        None => String::new(),
    };
    RoomCode::typed(&text).ok_or_else(|| {
        let found = "there is no code, or it is none: eight letters and digits, as k7m2-9xq4";
        Report::new(Code::Usage, found, DiskState::Untouched)
            .with_advice("Type the code that the sender shows, or give it with --code.")
    })
}
