//! `deployctl wipe` and `deployctl certificates`.
//!
//! Owns: their arguments, what they do and print. Does not own: what is shown before an
//! order ([`super::confirm`]).

use super::args::{self, AfterArg};
use super::client::{Answer, Client, Problem, encode};
use super::{confirm, create, print, show};
use crate::exec::certificates::CertificateView;
use crate::view::{JobRequest, MachineView, NewExecution};
use clap::Args;
use wire::{Code, WipeMethod, WipeOrder};

/// Arguments of a wipe.
#[derive(Debug, Args)]
pub struct Wipe {
    /// Name, id or network address.
    pub machine: String,
    /// Serial number, WWN, path or number=N of the disk [default: the only fixed one].
    #[arg(long)]
    pub disk: Option<String>,
    /// How: auto (the best that the disk can do, and the next one if that fails or cannot be
    /// proved), discard, overwrite, nvme-format, nvme-sanitize.
    #[arg(long, default_value = "auto", value_name = "METHOD")]
    pub method: WipeMethod,
    /// How many times every sector is overwritten; each time is read back.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub passes: u32,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
    /// What the machine does afterwards.
    #[arg(long, value_enum, default_value_t = AfterArg::Reboot)]
    pub after: AfterArg,
    /// Wait for the end and show progress.
    #[arg(long)]
    pub wait: bool,
}

/// Orders a wipe.
pub(super) fn run(client: &Client, json: bool, arguments: &Wipe) -> Answer<u8> {
    let order = WipeOrder {
        disk: arguments.disk.as_deref().map(args::disk),
        method: arguments.method,
        passes: arguments.passes,
    };
    order.check().map_err(Problem::usage)?;
    let machine: MachineView = client.get(&format!("/machines/{}", encode(&arguments.machine)))?;
    let warning =
        confirm::what_will_be_wiped(&machine, arguments.disk.as_deref(), arguments.method);
    if !json {
        eprintln!("{}", show::clean(&warning));
    }
    if !arguments.yes && !confirm::confirmed("the machine's name", &machine.name)? {
        return Err(Problem::new(
            Code::NotConfirmed,
            "the wipe was not confirmed; nothing was ordered",
        ));
    }
    let new = NewExecution {
        job: JobRequest::Wipe(order),
        after: arguments.after.into(),
        rate: None,
        scripts: Vec::new(),
    };
    create(client, json, &machine.id, &new, arguments.wait)
}

/// Lists certificates, or shows the one of an execution.
pub(super) fn certificates(client: &Client, json: bool, execution: Option<&str>) -> Answer<u8> {
    let Some(execution) = execution else {
        let all: Vec<CertificateView> = client.get("/certificates")?;
        return print(json, &all, |all| list(all));
    };
    let one: CertificateView = client.get(&format!("/certificates/{}", encode(execution)))?;
    print(json, &one, text)?;
    if one.is_valid {
        return Ok(0);
    }
    let found = format!("the signature of the certificate of {execution} is not of its text");
    Err(Problem::new(Code::ImageUntrusted, found)
        .with_advice("Somebody changed its file in the server's state folder: do not trust it."))
}

fn list(all: &[CertificateView]) -> String {
    if all.is_empty() {
        return "No disk was wiped yet.".to_owned();
    }
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|one| {
            let says = &one.says;
            let signature = match (one.is_valid, one.is_ours) {
                (true, true) => "good",
                (true, false) => "of another key",
                (false, _) => "BAD",
            };
            vec![
                says.execution.clone(),
                says.machine.clone(),
                says.wiped.disk.model.clone(),
                says.wiped.disk.serial.clone(),
                wire::size::bytes(says.wiped.bytes),
                says.wiped.method.to_string(),
                show::time(says.ended),
                signature.to_owned(),
            ]
        })
        .collect();
    show::table(
        &[
            "EXECUTION",
            "MACHINE",
            "MODEL",
            "SERIAL",
            "SIZE",
            "METHOD",
            "ENDED",
            "SIGNATURE",
        ],
        &rows,
    )
}

fn text(one: &CertificateView) -> String {
    let (says, wiped) = (&one.says, &one.says.wiped);
    let or_dash = |text: &str| match text {
        "" => "-".to_owned(),
        text => text.to_owned(),
    };
    let mut lines = vec![
        format!("Certificate of a wiped disk: execution {}", says.execution),
        format!(
            "machine   {} ({}), serial {}, uuid {}",
            says.machine,
            or_dash(&says.model),
            or_dash(&says.serial),
            or_dash(says.uuid.as_deref().unwrap_or_default())
        ),
        format!(
            "disk      {} ({} bytes), serial {}, wwn {}",
            or_dash(&wiped.disk.model),
            wiped.disk.size_bytes,
            or_dash(&wiped.disk.serial),
            or_dash(&wiped.disk.wwn)
        ),
        format!(
            "method    {}: {} (ordered: {})",
            wiped.method, wiped.action, wiped.ordered
        ),
        format!("wiped     {} bytes in {:.0} s", wiped.bytes, wiped.seconds),
        format!("proof     {}", says.proved),
    ];
    lines.extend(wiped.before.iter().map(|said| format!("before    {said}")));
    lines.push(format!("ordered   {}", show::time(says.ordered)));
    lines.push(format!("ended     {}", show::time(says.ended)));
    lines.push(match (one.is_valid, one.is_ours) {
        (true, true) => format!("signed by {}, this server's key", one.signed.signed_by),
        (true, false) => format!("signed by {}, another key", one.signed.signed_by),
        (false, _) => "signed by NOBODY: the signature is not of this text".to_owned(),
    });
    lines.join("\n")
}
