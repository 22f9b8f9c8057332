//! `deployctl`, the command line of the server.
//!
//! Owns: what commands do. Does not own: arguments ([`args`]), connection ([`client`]),
//! text ([`show`], [`watch`]). Names from the server are printed without control
//! characters, so that none can play with a terminal.

pub mod args;
pub mod client;
mod confirm;
mod disks;
mod hardware;
pub mod local_boot;
mod multicast;
mod network;
mod script;
mod show;
mod stock;
mod watch;
mod wipe;

use crate::http::api::{BootWay, ImageInfo, LogView, Rename};
use crate::netboot::LocalBoot;
use crate::store::check::Verified;
use crate::view::{
    ExecutionView, ImageView, JobRequest, MachineView, NewExecution, Overview, Placement,
    VersionView,
};
use args::{Backup, Cli, Command, Images, Machines, Restore, Retention};
use client::{Answer, Client, Problem, encode};
use multicast::Multicast;
use serde::Serialize;
use std::io::Write;
use watch::Watched;
use wire::Code;

/// Runs a command; the result is the exit code.
pub fn run(cli: &Cli) -> u8 {
    match command(cli) {
        Ok(exit) => exit,
        Err(problem) => {
            if cli.json {
                let error = serde_json::json!({ "error": problem.report });
                println!("{error}");
            } else {
                eprintln!("{}", show::clean(&problem.report.to_string()));
            }
            problem.exit
        }
    }
}

fn command(cli: &Cli) -> Answer<u8> {
    let (pin, token) = client::secrets(&cli.state, cli.pin.as_deref(), cli.token_file.as_deref())?;
    let client = Client::new(&cli.server, pin, token)?;
    let json = cli.json;
    match &cli.command {
        Command::Machines {
            command: None | Some(Machines::List),
        } => {
            let machines: Vec<MachineView> = client.get("/machines")?;
            print(json, &machines, |m| show::machines(m))
        }
        Command::Machines {
            command: Some(Machines::Show { machine }),
        } => {
            let machine: MachineView = client.get(&format!("/machines/{}", encode(machine)))?;
            print(json, &machine, show::machine)
        }
        Command::Machines {
            command: Some(Machines::Rename { machine, name }),
        } => {
            let path = format!("/machines/{}/rename", encode(machine));
            client.post_silent(&path, &Rename { name: name.clone() })?;
            said(json, &format!("{machine} is now {name}"))
        }
        Command::Machines {
            command: Some(Machines::LocalBoot { machine, way }),
        } => {
            let path = format!("/machines/{}/local-boot", encode(machine));
            let way = LocalBoot::from(*way);
            client.post_silent(&path, &BootWay { way })?;
            said(
                json,
                &format!("{machine} boots its disk by \"{}\"", way.as_str()),
            )
        }
        Command::Machines {
            command: Some(Machines::Forget { machine }),
        } => {
            client.delete(&format!("/machines/{}", encode(machine)))?;
            said(json, &format!("{machine} is forgotten"))
        }
        Command::Backup(arguments) => backup(&client, json, arguments),
        Command::Restore(arguments) => restore(&client, json, arguments),
        Command::Multicast { command } => {
            multicast::run(&client, json, command.as_ref().unwrap_or(&Multicast::List))
        }
        Command::Script(command) => script::run(&client, json, command),
        Command::Wipe(arguments) => wipe::run(&client, json, arguments),
        Command::Certificates { execution } => {
            wipe::certificates(&client, json, execution.as_deref())
        }
        Command::DiskCheck {
            machine,
            after,
            wait,
        } => {
            let new = NewExecution {
                job: JobRequest::DiskCheck,
                after: (*after).into(),
                rate: None,
                scripts: Vec::new(),
            };
            create(&client, json, machine, &new, *wait)
        }
        Command::Status {
            machine,
            watch: true,
        } => {
            let watched = Watched {
                machine: machine.as_deref(),
                ..Watched::default()
            };
            watch::until_done(&client, json, &watched)
        }
        Command::Status {
            machine: None,
            watch: false,
        } => {
            let overview: Overview = client.get("/overview")?;
            print(json, &overview, show::overview)
        }
        Command::Status {
            machine: Some(machine),
            watch: false,
        } => {
            let executions: Vec<ExecutionView> =
                client.get(&format!("/machines/{}/executions", encode(machine)))?;
            print(json, &executions, |e| show::executions(e))
        }
        Command::Network => print(json, &client.get("/network")?, network::text),
        Command::Clear { machine } => {
            let cleared: Option<ExecutionView> =
                client.post(&format!("/machines/{}/clear", encode(machine)), &())?;
            let text = match &cleared {
                Some(execution) => {
                    format!("the {} of {} is cleared", execution.kind, execution.machine)
                }
                None => format!("{machine} has nothing to clear"),
            };
            print(json, &cleared, |_| text)
        }
        Command::Interrupt { machine } => {
            let execution: ExecutionView =
                client.post(&format!("/machines/{}/interrupt", encode(machine)), &())?;
            print(json, &execution, |e| {
                show::executions(std::slice::from_ref(e))
            })
        }
        Command::Images { command } => {
            images(&client, json, command.as_ref().unwrap_or(&Images::List))
        }
        Command::Keys => {
            let server: VersionView = client.get("/version")?;
            print(json, &server, show::keys)
        }
        Command::Retention { command } => {
            stock::retention(&client, json, command.as_ref().unwrap_or(&Retention::Show))
        }
        Command::Scrub { wait, status } => stock::scrub(&client, json, *wait, *status),
        Command::Log { machine, execution } => {
            let query = execution
                .as_ref()
                .map(|id| format!("?execution={}", encode(id)))
                .unwrap_or_default();
            let log: LogView = client.get(&format!("/machines/{}/log{query}", encode(machine)))?;
            print(json, &log, |log| {
                show::clean(log.text.as_deref().unwrap_or_default())
            })
        }
    }
}

fn backup(client: &Client, json: bool, arguments: &Backup) -> Answer<u8> {
    let job = JobRequest::Backup {
        disk: args::only(&arguments.disk).map(args::disk),
        disks: args::several(&arguments.disk),
        all_disks: arguments.all_disks,
        image: arguments.image.clone(),
        full: arguments.full.contains(&0),
        codec: arguments.codec.into(),
        level: arguments.level,
        partitions: arguments.partitions.clone(),
        full_partitions: arguments.full.iter().copied().filter(|&n| n > 0).collect(),
        skip_bad: arguments.skip_bad,
    };
    let new = NewExecution {
        job,
        after: arguments.after.into(),
        rate: arguments.rate,
        scripts: arguments.scripts.read()?,
    };
    create(client, json, &arguments.machine, &new, arguments.wait)
}

fn restore(client: &Client, json: bool, arguments: &Restore) -> Answer<u8> {
    let machine: MachineView = client.get(&format!("/machines/{}", encode(&arguments.machine)))?;
    let image: ImageInfo = client.get(&format!("/images/{}", encode(&arguments.image)))?;
    // The name of a backup of several disks means all of them, an id one image.
    let one = image.image.set.is_none() || image.image.id == arguments.image;
    let set = arguments.all_disks || arguments.disk.len() > 1 || !one;
    if set && (image.image.set.is_none() || arguments.disk.len() == 1) {
        return Err(Problem::usage(format!(
            "image \"{}\" is of {}",
            arguments.image,
            if one { "one disk" } else { "several disks" }
        ))
        .with_advice("Name one disk for one image; an image of several is named by its id."));
    }
    let job = JobRequest::Restore {
        disk: args::only(&arguments.disk).map(args::disk),
        disks: args::several(&arguments.disk),
        all_disks: set && arguments.disk.is_empty(),
        // The one that is shown, even if a newer one appears meanwhile.
        image: image.image.id.clone(),
        verify: !arguments.no_verify,
        force: arguments.force,
        scope: arguments.scope(),
        reuse: arguments.reuse,
    };
    let mut new = NewExecution {
        job,
        after: arguments.after.into(),
        rate: arguments.rate,
        scripts: arguments.scripts.read()?,
    };
    let warning = show::clean(&if set {
        let path = format!("/machines/{}/placements", encode(&machine.id));
        let placements: Vec<Placement> = client.post(&path, &new)?;
        let warning = confirm::what_of_a_set(&machine, &image, &placements);
        // What was shown is what is ordered, whatever the machine shows meanwhile.
        if let JobRequest::Restore {
            disks, all_disks, ..
        } = &mut new.job
        {
            *disks = placements.into_iter().map(|one| one.disk).collect();
            *all_disks = false;
        }
        warning
    } else {
        confirm::what_will_be_overwritten(
            &machine,
            &image,
            args::only(&arguments.disk),
            &arguments.scope(),
        )
    });
    if !json {
        eprintln!("{warning}");
    }
    if !arguments.yes && !confirm::confirmed("the machine's name", &machine.name)? {
        return Err(Problem::new(
            Code::NotConfirmed,
            "the restore was not confirmed; nothing was ordered",
        ));
    }
    create(client, json, &machine.id, &new, arguments.wait)
}

fn create(
    client: &Client,
    json: bool,
    machine: &str,
    new: &NewExecution,
    wait: bool,
) -> Answer<u8> {
    let made: ExecutionView =
        client.post(&format!("/machines/{}/executions", encode(machine)), new)?;
    if wait {
        let watched = Watched {
            machine: Some(machine),
            executions: &[made.id],
            ..Watched::default()
        };
        return watch::until_done(client, json, &watched);
    }
    print(json, &made, |e| show::executions(std::slice::from_ref(e)))
}

fn images(client: &Client, json: bool, command: &Images) -> Answer<u8> {
    match command {
        Images::List => {
            let images: Vec<ImageView> = client.get("/images")?;
            print(json, &images, |i| show::images(i))
        }
        Images::Info { image } => {
            let info: ImageInfo = client.get(&format!("/images/{}", encode(image)))?;
            print(json, &info, show::image)
        }
        Images::Verify { image } => {
            let result: Verified =
                client.post(&format!("/images/{}/verify", encode(image)), &())?;
            print(json, &result, |r| show::verified(image, r))?;
            if result.damaged == 0 {
                return Ok(0);
            }
            let found = format!(
                "{} of {} chunks of \"{image}\" are damaged",
                result.damaged, result.chunks
            );
            if json {
                return Ok(1);
            }
            Err(Problem::new(Code::ImageDamaged, found)
                .with_advice("Back the machine up again: damaged chunks are sent anew."))
        }
        Images::Pin { image } => stock::pin(client, json, image, true),
        Images::Unpin { image } => stock::pin(client, json, image, false),
        Images::Prune { dry_run } => stock::prune(client, json, *dry_run),
        Images::Export { image, file } => stock::export(client, json, image, file),
        Images::Import { file, name } => stock::import(client, json, file, name.as_deref()),
        Images::Delete { image } => {
            client.delete(&format!("/images/{}", encode(image)))?;
            said(json, &format!("{image} is deleted"))
        }
    }
}

/// Prints JSON or text.
fn print<T: Serialize + ?Sized>(
    json: bool,
    value: &T,
    text: impl FnOnce(&T) -> String,
) -> Answer<u8> {
    let failed =
        |e: std::io::Error| Problem::new(Code::OutputFailed, format!("standard output: {e}"));
    let mut text = if json {
        serde_json::to_string_pretty(value)
            .map_err(|e| Problem::new(Code::Internal, e.to_string()))?
    } else {
        show::clean(&text(value))
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // The reader has seen enough, as `head` does.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(0),
        Err(e) => Err(failed(e)),
        Ok(()) => Ok(0),
    }
}

fn said(json: bool, text: &str) -> Answer<u8> {
    print(json, &serde_json::json!({ "done": true }), |_| {
        text.to_owned()
    })
}
