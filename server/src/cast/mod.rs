//! Multicast sessions: one image to many machines at once.
//!
//! Owns: which sessions run, and what targets are answered. Does not own: one session
//! ([`session`]), ordering one ([`order`]), routes. A session's settings stand in the jobs
//! that belong to it, so that a restart of the server forgets no more than who was ready.

mod course;
mod gather;
pub mod order;
mod session;
pub mod shown;

use crate::app::App;
use crate::db::executions::{self, Execution};
use crate::db::machines;
use crate::failure::{Failure, Outcome};
use axum::http::StatusCode;
use course::{Parts, begin, open};
use multicast::MAX_SYMBOL_LEN;
use session::Session;
use shown::{SessionView, Stage};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use wire::{JobKind, JoinReply, Report, Session as Settings, SessionReply};

/// Time in which another sender on the group would be heard.
const LISTEN_FIRST: Duration = Duration::from_millis(600);
/// Sessions that are over and still shown.
const SHOWN: usize = 20;
/// Longest body of a join to a session that is over.
const JOIN_AFTER: usize = 16 << 20;
/// Longest time that a stop waits for sessions to say that they end.
const STOP_WITHIN: Duration = Duration::from_secs(1);

/// All sessions of this server.
#[derive(Default)]
pub struct Casts {
    /// Interface that sessions send from if they name none.
    pub interface: Option<String>,
    /// The newest last.
    sessions: Mutex<Vec<Arc<Session>>>,
    /// Held while one is made, by its id.
    making: tokio::sync::Mutex<()>,
}

impl Casts {
    /// Sessions that send from that interface unless they name another.
    pub fn new(interface: Option<String>) -> Self {
        Casts {
            interface,
            ..Casts::default()
        }
    }

    fn all(&self) -> MutexGuard<'_, Vec<Arc<Session>>> {
        // Every change is whole before anything can panic.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session of that id that is not over.
    fn running(&self, id: &str) -> Option<Arc<Session>> {
        let all = self.all();
        let found = all
            .iter()
            .rev()
            .find(|session| session.settings().session == id);
        found.filter(|session| !session.is_over()).cloned()
    }

    fn keep(&self, session: Arc<Session>) {
        let mut all = self.all();
        // An earlier round of the same machines is not shown any more.
        all.retain(|other| other.settings().session != session.settings().session);
        let over = all.iter().filter(|session| session.is_over()).count();
        if over >= SHOWN
            && let Some(oldest) = all.iter().position(|session| session.is_over())
        {
            all.remove(oldest);
        }
        all.push(session);
    }

    /// An execution has ended.
    pub fn gone(&self, execution: &Execution) {
        if let Some(settings) = settings(&execution.job)
            && let Some(session) = self.running(&settings.session)
        {
            session.gone(&execution.id);
        }
    }

    /// Whether an execution waits for its session.
    pub fn waits(&self, execution: &Execution) -> bool {
        settings(&execution.job)
            .and_then(|settings| self.running(&settings.session))
            .is_some_and(|session| session.waits(&execution.id))
    }

    /// What an execution that waits for its session waits for, for people.
    pub fn note(&self, execution: &Execution) -> Option<String> {
        let session = self.running(&settings(&execution.job)?.session)?;
        let here = session.here().filter(|_| session.waits(&execution.id))?;
        let id = &session.settings().session;
        Some(format!(
            "waits for its multicast session, with {here} machines ready; to start it now: deployctl multicast start {id}"
        ))
    }

    /// Ends all sessions: what targets lack they fetch one by one.
    pub async fn stop(&self) {
        let running: Vec<_> = self
            .all()
            .iter()
            .filter(|s| !s.is_over())
            .cloned()
            .collect();
        running.iter().for_each(|session| session.stop());
        let until = tokio::time::Instant::now() + STOP_WITHIN;
        while running.iter().any(|session| !session.is_over())
            && tokio::time::Instant::now() < until
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The session of a job.
pub fn settings(job: &JobKind) -> Option<&Settings> {
    match job {
        JobKind::Restore { multicast, .. } => multicast.as_ref(),
        JobKind::Backup { .. } | JobKind::DiskCheck => None,
    }
}

fn of_job(execution: &Execution) -> Outcome<(&Settings, &str, &str, bool)> {
    match &execution.job {
        JobKind::Restore {
            multicast: Some(settings),
            image,
            image_name,
            reuse,
            ..
        } => Ok((settings, image, image_name, *reuse)),
        _ => Err(Failure::refused(
            "this execution belongs to no multicast session",
        )),
    }
}

/// Executions of each session that are not over.
async fn ordered(app: &App) -> Outcome<HashMap<String, Vec<Execution>>> {
    let mut sessions: HashMap<String, Vec<Execution>> = HashMap::new();
    for execution in executions::all_open(&mut *app.db.read().await?).await? {
        if let Some(settings) = settings(&execution.job).filter(|_| !execution.state.is_final()) {
            let id = settings.session.clone();
            sessions.entry(id).or_default().push(execution);
        }
    }
    Ok(sessions)
}

/// A target is ready and asks whether its session starts.
///
/// # Errors
/// There can be no session: the report says why, and the target fails with it.
pub async fn ready(app: &App, execution: &Execution) -> Outcome<SessionReply> {
    let (settings, image, image_name, reuse) = of_job(execution)?;
    let ordered = ordered(app).await?;
    let mates = ordered.get(&settings.session).map_or(1, Vec::len) as u32;
    let machine = machines::by_id(&mut *app.db.read().await?, &execution.machine).await?;
    let machine = machine.map(|machine| machine.name).unwrap_or_default();
    let session = match app.casts.running(&settings.session) {
        Some(session) => session,
        None => {
            let _one_at_a_time = app.casts.making.lock().await;
            match app.casts.running(&settings.session) {
                Some(session) => session,
                None => make(app, settings, image, image_name, reuse).await?,
            }
        }
    };
    Ok(session.ready(&execution.id, &machine, mates))
}

async fn make(
    app: &App,
    settings: &Settings,
    image: &str,
    image_name: &str,
    reuse: bool,
) -> Outcome<Arc<Session>> {
    let mut settings = settings.clone();
    if settings.interface.is_none() {
        settings.interface.clone_from(&app.casts.interface);
    }
    let symbol = settings.symbol.unwrap_or(MAX_SYMBOL_LEN);
    let run = app.store.run_of(image, symbol).await?;
    let random = |error: getrandom::Error| Failure::internal(format!("random numbers: {error}"));
    let (mut number, mut secret) = ([0; 4], [0; 32]);
    getrandom::fill(&mut number).map_err(random)?;
    getrandom::fill(&mut secret).map_err(random)?;
    let (image, image_name) = (image.to_owned(), image_name.to_owned());
    let session = tokio::task::spawn_blocking(move || {
        let (socket, group) = open(&settings, LISTEN_FIRST).map_err(of_report)?;
        begin(Parts {
            settings,
            image,
            image_name,
            run,
            socket,
            group,
            reuse,
            number: u32::from_le_bytes(number),
            secret,
        })
        .map_err(|error| Failure::internal(format!("a thread for multicast: {error}")))
    })
    .await??;
    tracing::info!(session = %session.settings().session, group = %session.settings().group, "a multicast session is open");
    app.casts.keep(Arc::clone(&session));
    Ok(session)
}

fn of_report(report: Report) -> Failure {
    Failure {
        status: StatusCode::CONFLICT,
        report: Box::new(report),
    }
}

/// The list of records of an execution's session: bytes of a symbol, then each length. Empty
/// if it is over.
///
/// # Errors
/// It belongs to none.
pub fn plan(app: &App, execution: &Execution) -> Outcome<Vec<u8>> {
    let (settings, ..) = of_job(execution)?;
    let Some(session) = app.casts.running(&settings.session) else {
        return Ok(Vec::new());
    };
    let plan = session.plan();
    let lengths = (0..plan.records()).map(|record| {
        let range = plan.record_range(record);
        // At most 4 MiB and a header.
        (range.end - range.start) as u32
    });
    let symbol = std::iter::once(plan.symbol_len() as u32);
    Ok(symbol.chain(lengths).flat_map(u32::to_le_bytes).collect())
}

/// Longest body of a join: a bit for each record.
pub fn longest_join(app: &App, execution: &Execution) -> usize {
    let session = of_job(execution)
        .ok()
        .and_then(|(settings, ..)| app.casts.running(&settings.session));
    // One that is over is told in words.
    session.map_or(JOIN_AFTER, |session| {
        session.plan().records() as usize / 8 + 1
    })
}

/// A target takes part in its session.
///
/// # Errors
/// It belongs to none.
pub async fn join(app: &App, execution: &Execution, wanted: Vec<u8>) -> Outcome<JoinReply> {
    let (settings, ..) = of_job(execution)?;
    match app.casts.running(&settings.session) {
        Some(session) => Ok(session.join(&execution.id, wanted).await),
        None => Ok(JoinReply::Unicast {
            why: "the session is over".to_owned(),
        }),
    }
}

/// All sessions that operators may care about, the newest first.
///
/// # Errors
/// The database fails.
pub async fn views(app: &App) -> Outcome<Vec<SessionView>> {
    let ordered = ordered(app).await?;
    let known: Vec<Arc<Session>> = app.casts.all().iter().rev().cloned().collect();
    let mut views = Vec::new();
    for (id, mates) in &ordered {
        if !known
            .iter()
            .any(|session| session.settings().session == *id)
            && let Some(first) = mates.first()
        {
            views.push(waiting(first, mates.len() as u32));
        }
    }
    views.sort_by(|a, b| a.id.cmp(&b.id));
    views.extend(known.iter().map(|session| {
        let mates = ordered.get(&session.settings().session).map_or(0, Vec::len);
        session.view(mates as u32)
    }));
    Ok(views)
}

/// A session of which no machine was there yet.
fn waiting(execution: &Execution, ordered: u32) -> SessionView {
    let (settings, image, name) = match of_job(execution) {
        Ok((settings, image, name, _)) => (settings.clone(), image, name),
        Err(_) => (Settings::default(), "", ""),
    };
    SessionView {
        id: settings.session,
        group: settings.group,
        image: name.to_owned(),
        image_id: image.to_owned(),
        stage: Stage::Waiting,
        ready: 0,
        targets: settings.targets.unwrap_or(ordered),
        starts_in: None,
        started: None,
        rate: 0,
        loss: 0.0,
        packets: 0,
        parity: 0.0,
        repair: 0.0,
        pass: 1,
        sent_bytes: 0,
        total_bytes: 0,
        receivers: Vec::new(),
        problem: None,
    }
}

/// Starts a session with those that are ready.
///
/// # Errors
/// There is no such session, nobody is ready, or it has started.
pub async fn start(app: &App, id: &str) -> Outcome<SessionView> {
    let view = |views: Vec<SessionView>| views.into_iter().find(|view| view.id == id);
    let known = view(views(app).await?);
    let Some(known) = known else {
        return Err(
            Failure::not_found(format!("there is no multicast session {id}"))
                .with_advice("List them with: deployctl multicast list"),
        );
    };
    if !app
        .casts
        .running(id)
        .is_some_and(|session| session.start_now())
    {
        return Err(match known.stage {
            Stage::Waiting => {
                Failure::conflict(format!("no machine of multicast session {id} is ready yet"))
                    .with_advice(
                        "Power the machines on; the first one that is ready can be started with.",
                    )
            }
            _ => Failure::conflict(format!("multicast session {id} has started already")),
        });
    }
    tracing::info!(session = id, "an operator starts a multicast session");
    Ok(view(views(app).await?).unwrap_or(known))
}
