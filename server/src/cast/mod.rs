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
use crate::exec::state::State;
use crate::failure::{Failure, Outcome};
use axum::body::Bytes;
use axum::http::StatusCode;
use course::{Parts, begin, open};
use multicast::MAX_SYMBOL_LEN;
use session::Session;
use shown::{SessionView, Stage};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use wire::{JobKind, JoinReply, Report, Session as Settings, SessionReply};

/// Time in which another sender on the group would be heard.
const LISTEN_FIRST: Duration = Duration::from_millis(600);
/// How old the count of machines that can still come may be.
const COUNTED_EVERY: Duration = Duration::from_secs(1);
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
    /// Held while one is made.
    making: tokio::sync::Mutex<()>,
    /// Of each session, how many machines can still come, and when that was found.
    coming: tokio::sync::Mutex<Option<(Instant, HashMap<String, u32>)>>,
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

    /// A target said something.
    pub fn heard(&self, execution: &Execution) {
        if let Some(settings) = settings(&execution.job)
            && let Some(session) = self.running(&settings.session)
        {
            session.heard(&execution.id);
        }
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
        JobKind::Backup { .. } | JobKind::Wipe(_) | JobKind::Script { .. } | JobKind::DiskCheck => {
            None
        }
    }
}

fn of_job(execution: &Execution) -> Outcome<(&Settings, &str, &str)> {
    match &execution.job {
        JobKind::Restore {
            multicast: Some(settings),
            image,
            image_name,
            ..
        } => Ok((settings, image, image_name)),
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

/// Whether a machine has not begun, and can take part in a round that begins now.
fn can_come(execution: &Execution) -> bool {
    matches!(
        execution.state,
        State::Waiting | State::Booting | State::Preparing
    )
}

/// How many machines of a session can still come; a second old at most, for all of them ask
/// every second.
async fn coming(app: &App, session: &str) -> Outcome<u32> {
    let mut known = app.casts.coming.lock().await;
    let fresh = known
        .as_ref()
        .is_some_and(|(at, _)| at.elapsed() < COUNTED_EVERY);
    if !fresh {
        let all = ordered(app).await?;
        let count =
            |mates: Vec<Execution>| mates.iter().filter(|mate| can_come(mate)).count() as u32;
        let counts = all.into_iter().map(|(id, mates)| (id, count(mates)));
        *known = Some((Instant::now(), counts.collect()));
    }
    let counts = known.as_ref().map(|(_, counts)| counts);
    Ok(counts
        .and_then(|counts| counts.get(session))
        .copied()
        .unwrap_or(1))
}

/// A target is ready and asks whether its session starts.
///
/// # Errors
/// There can be no session: the report says why, and the target fails with it.
pub async fn ready(app: &App, execution: &Execution) -> Outcome<SessionReply> {
    let (settings, image, image_name) = of_job(execution)?;
    // One that goes on after a power cut is not among those.
    let coming = coming(app, &settings.session).await? + u32::from(!can_come(execution));
    let machine = machines::by_id(&mut *app.db.read().await?, &execution.machine).await?;
    let machine = machine.map(|machine| machine.name).unwrap_or_default();
    let session = match app.casts.running(&settings.session) {
        Some(session) => session,
        None => {
            let _one_at_a_time = app.casts.making.lock().await;
            match app.casts.running(&settings.session) {
                Some(session) => session,
                None => match make(app, settings, image, image_name).await? {
                    Some(session) => session,
                    // There is nothing to send: everybody may go on.
                    None => return Ok(SessionReply::Start),
                },
            }
        }
    };
    Ok(session.ready(&execution.id, &machine, coming))
}

async fn make(
    app: &App,
    settings: &Settings,
    image: &str,
    image_name: &str,
) -> Outcome<Option<Arc<Session>>> {
    let mut settings = settings.clone();
    if settings.interface.is_none() {
        settings.interface.clone_from(&app.casts.interface);
    }
    let symbol = settings.symbol.unwrap_or(MAX_SYMBOL_LEN);
    let Some(run) = app.store.run_of(image, symbol).await? else {
        return Ok(None);
    };
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
            number: u32::from_le_bytes(number),
            secret,
        })
        .map_err(|error| Failure::internal(format!("a thread for multicast: {error}")))
    })
    .await??;
    tracing::info!(session = %session.settings().session, group = %session.settings().group, "a multicast session is open");
    app.casts.keep(Arc::clone(&session));
    Ok(Some(session))
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
pub fn list(app: &App, execution: &Execution) -> Outcome<Bytes> {
    let (settings, ..) = of_job(execution)?;
    let session = app.casts.running(&settings.session);
    Ok(session.map(|session| session.list()).unwrap_or_default())
}

/// Longest body of a join: a bit for each record.
pub fn longest_join(app: &App, execution: &Execution) -> usize {
    let session = of_job(execution)
        .ok()
        .and_then(|(settings, ..)| app.casts.running(&settings.session));
    // One that is over is told in words.
    session.map_or(JOIN_AFTER, |session| session.records() as usize / 8 + 1)
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
            let count = mates.iter().filter(|mate| can_come(mate)).count();
            views.push(waiting(first, count as u32));
        }
    }
    views.sort_by(|a, b| a.id.cmp(&b.id));
    views.extend(known.iter().map(|session| {
        let mates = ordered.get(&session.settings().session);
        let coming = mates.map_or(0, |mates| {
            mates.iter().filter(|mate| can_come(mate)).count()
        });
        session.view(coming as u32)
    }));
    Ok(views)
}

/// A session of which no machine was there yet.
fn waiting(execution: &Execution, coming: u32) -> SessionView {
    let (settings, image, name) = match of_job(execution) {
        Ok((settings, image, name)) => (settings.clone(), image, name),
        Err(_) => (Settings::default(), "", ""),
    };
    SessionView {
        id: settings.session,
        group: settings.group,
        image: name.to_owned(),
        image_id: image.to_owned(),
        stage: Stage::Waiting,
        ready: 0,
        targets: settings.targets.unwrap_or(coming).min(coming),
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
            Stage::Starting => Failure::conflict(format!("no machine of multicast session {id} has joined yet"))
                .with_advice("They erase their tables, or hash their disks; it sends as soon as one has joined and this is said again."),
            _ => Failure::conflict(format!("multicast session {id} has started already")),
        });
    }
    tracing::info!(session = id, "an operator starts a multicast session");
    Ok(view(views(app).await?).unwrap_or(known))
}
