//! `deployctl multicast`: many machines are restored by one session.
//!
//! Owns: what the commands do. Does not own: arguments ([`args`]), text ([`text`]), the
//! question ([`super::confirm`]).

mod args;
pub(super) mod text;

pub use args::Multicast;

use super::args::disk;
use super::client::{Answer, Client, Problem, encode};
use super::watch::{self, Watched};
use super::{confirm, print, show};
use crate::cast::shown::{NewSession, Ordered, SessionView, Settings};
use crate::http::api::ImageInfo;
use crate::view::{JobRequest, MachineView, NewExecution};
use args::Writing;
use wire::{Code, RestoreScope};

/// Runs a command; the result is the exit code.
pub(super) fn run(client: &Client, json: bool, command: &Multicast) -> Answer<u8> {
    match command {
        Multicast::Restore(arguments) => {
            let image: ImageInfo = client.get(&format!("/images/{}", encode(&arguments.image)))?;
            if image.image.set.is_some() && image.image.id != arguments.image {
                let found = format!("image \"{}\" is of several disks", arguments.image);
                return Err(Problem::usage(found).with_advice(
                    "A session brings the image of one disk: name it by its id (deployctl images).",
                ));
            }
            let order = Order {
                image,
                session: None,
                settings: arguments.sending.settings(),
                writing: &arguments.writing,
            };
            order.place(client, json, &arguments.machines)
        }
        Multicast::Add(arguments) => {
            let sessions: Vec<SessionView> = client.get("/sessions")?;
            let Some(session) = sessions.into_iter().find(|s| s.id == arguments.session) else {
                let found = format!("there is no session {}", arguments.session);
                return Err(Problem::usage(found)
                    .with_advice("deployctl multicast list shows all sessions."));
            };
            let order = Order {
                image: client.get(&format!("/images/{}", encode(&session.image_id)))?,
                session: Some(session.id),
                settings: Settings::default(),
                writing: &arguments.writing,
            };
            order.place(client, json, &arguments.machines)
        }
        Multicast::List => {
            let sessions: Vec<SessionView> = client.get("/sessions")?;
            print(json, &sessions, |s| text::sessions(s))
        }
        Multicast::Start { session } => {
            let path = format!("/sessions/{}/start", encode(session));
            let session: SessionView = client.post(&path, &())?;
            print(json, &session, text::line)
        }
    }
}

/// What is asked for, but for the machines.
struct Order<'a> {
    image: ImageInfo,
    session: Option<String>,
    settings: Settings,
    writing: &'a Writing,
}

impl Order<'_> {
    fn place(self, client: &Client, json: bool, names: &[String]) -> Answer<u8> {
        let machines = machines(client, names)?;
        let writing = self.writing;
        if !json {
            let warning = confirm::what_of_a_room(&machines, &self.image, writing.disk.as_deref());
            eprintln!("{}", show::clean(&warning));
        }
        if !writing.yes && !confirmed(&machines)? {
            return Err(Problem::new(
                Code::NotConfirmed,
                "the restore was not confirmed; nothing was ordered",
            ));
        }
        let new = NewSession {
            machines: machines.into_iter().map(|machine| machine.id).collect(),
            execution: NewExecution {
                job: JobRequest::Restore {
                    disk: writing.disk.as_deref().map(disk),
                    disks: Vec::new(),
                    all_disks: false,
                    // The one that is shown, even if a newer one appears meanwhile.
                    image: self.image.image.id,
                    verify: !writing.no_verify,
                    force: writing.force,
                    scope: RestoreScope::default(),
                    reuse: writing.reuse,
                },
                after: writing.after.into(),
                rate: None,
                scripts: Vec::new(),
            },
            session: self.session,
            settings: self.settings,
        };
        let ordered: Ordered = client.post("/sessions", &new)?;
        if !writing.wait {
            return print(json, &ordered, text::ordered);
        }
        if !json {
            eprintln!("{}", show::clean(&text::ordered(&ordered)));
        }
        let executions: Vec<String> = ordered.executions.into_iter().map(|e| e.id).collect();
        let watched = Watched {
            executions: &executions,
            session: Some(&ordered.session.id),
            ..Watched::default()
        };
        watch::until_done(client, json, &watched)
    }
}

/// The machines that are meant, each once.
fn machines(client: &Client, names: &[String]) -> Answer<Vec<MachineView>> {
    let mut machines: Vec<MachineView> = Vec::with_capacity(names.len());
    for name in names {
        let machine: MachineView = client.get(&format!("/machines/{}", encode(name)))?;
        if machines.iter().all(|known| known.id != machine.id) {
            machines.push(machine);
        }
    }
    Ok(machines)
}

fn confirmed(machines: &[MachineView]) -> Answer<bool> {
    match machines {
        [one] => confirm::confirmed("the machine's name", &one.name),
        several => confirm::confirmed("the number of machines", &several.len().to_string()),
    }
}
