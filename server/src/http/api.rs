//! Routes of operators: `/api`, for the web page and `deployctl`.
//!
//! Owns: paths and the administrator's token. Does not own: what is done.

use super::{bearer, body, certificates, stock};
use crate::app::App;
use crate::cast;
use crate::db::{self, chunks, executions, images, machines};
use crate::exec::{self, control};
use crate::failure::{Failure, Outcome};
use crate::netboot::LocalBoot;
use crate::netboot::board::NetworkView;
use crate::secrets;
use crate::store::check::Verified;
use crate::view::{
    self, ExecutionView, ImageView, MachineView, NewExecution, Overview, Placement, Transfers,
    VersionView,
};
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use wire::script::ScriptResult;
use wire::{Code, PROTOCOL_VERSION, SOFTWARE_VERSION};

type Shared = State<Arc<App>>;

/// Executions that a list shows.
const LISTED: i64 = 100;

/// New name of a machine.
#[derive(Debug, Serialize, Deserialize)]
pub struct Rename {
    /// The name.
    pub name: String,
}

/// Log of an execution.
#[derive(Debug, Serialize, Deserialize)]
pub struct LogView {
    /// Which one.
    pub execution: ExecutionView,
    /// Its log, if the target sent one.
    pub text: Option<String>,
}

/// An image with its layout.
#[derive(Debug, Serialize, Deserialize)]
pub struct ImageInfo {
    /// What the list shows.
    #[serde(flatten)]
    pub image: ImageView,
    /// Disk, partitions and file systems.
    pub layout: image::Layout,
    /// What the disk did not give when it was backed up.
    #[serde(default)]
    pub bad_ranges: Vec<BadRangeView>,
    /// Public keys of its signatures, each found good.
    #[serde(default)]
    pub signed_by: Vec<String>,
}

/// Bytes of an image that were not read: zeros stand for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadRangeView {
    /// Partition number; none outside of partitions.
    pub partition: Option<u32>,
    /// File system that they belong to; empty if unknown.
    pub file_system: String,
    /// First byte on the disk.
    pub start_bytes: u64,
    /// Bytes.
    pub size_bytes: u64,
}

fn bad_ranges(layout: &image::Layout, bad: &[image::BadRange]) -> Vec<BadRangeView> {
    bad.iter()
        .filter_map(|range| {
            let region = layout.regions.get(range.region as usize)?;
            Some(BadRangeView {
                partition: region.number,
                file_system: region.file_system.clone(),
                start_bytes: region.start.saturating_add(range.start),
                size_bytes: range.len,
            })
        })
        .collect()
}

/// The routes, without `/api`.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/version", get(version))
        .route("/overview", get(overview))
        .route("/network", get(network))
        .route("/machines", get(list_machines))
        .route("/machines/{machine}", get(one_machine).delete(forget))
        .route("/machines/{machine}/rename", post(rename))
        .route("/machines/{machine}/local-boot", post(local_boot))
        .route("/machines/{machine}/executions", get(history).post(create))
        .route("/machines/{machine}/placements", post(placements))
        .route("/machines/{machine}/interrupt", post(interrupt))
        .route("/machines/{machine}/clear", post(clear))
        .route("/machines/{machine}/log", get(log))
        .route("/executions/{execution}", get(one_execution))
        .route("/executions/{execution}/scripts", get(script_results))
        .route("/images", get(list_images))
        .route("/images/{image}", get(one_image).delete(delete_image))
        .route("/images/{image}/verify", post(verify))
        .merge(stock::routes())
        .merge(certificates::routes())
        .merge(super::cast::operators())
        .route_layer(middleware::from_fn_with_state(
            Arc::clone(&app),
            administrator,
        ))
        .with_state(app)
}

async fn administrator(State(app): Shared, request: Request, next: Next) -> Response {
    match bearer(request.headers()) {
        Ok(token) if secrets::equal(token, &app.admin_token) => next.run(request).await,
        Ok(_) => Failure::unauthorized("this is not the administrator's token").into_response(),
        Err(failure) => failure
            .with_advice("Use the token in the server's state folder.")
            .into_response(),
    }
}

async fn version(State(app): Shared) -> Json<VersionView> {
    Json(version_view(&app))
}

fn version_view(app: &App) -> VersionView {
    VersionView {
        version: SOFTWARE_VERSION.to_owned(),
        protocol: PROTOCOL_VERSION,
        pin: app.pin.to_string(),
        signing_key: app.store.signer().map(|key| key.to_string()),
    }
}

async fn overview(State(app): Shared) -> Outcome<Json<Overview>> {
    let mut conn = app.db.read().await?;
    let now = db::now();
    let known = machines::all(&mut conn).await?;
    let names: HashMap<String, String> = known
        .iter()
        .map(|m| (m.id.clone(), m.name.clone()))
        .collect();
    let mut machine_views = Vec::with_capacity(known.len());
    for machine in known {
        machine_views.push(listed(&app, &mut conn, machine, now).await?);
    }
    let executions = executions::newest(&mut conn, None, LISTED).await?;
    let name = |id: &str| names.get(id).map_or("", String::as_str);
    Ok(Json(Overview {
        server: version_view(&app),
        now,
        free_bytes: app.store.free_bytes()?,
        machines: machine_views,
        executions: executions
            .iter()
            .map(|e| view::execution(&app, e, name(&e.machine), now))
            .collect(),
        images: image_list(&mut conn).await?,
        transfers: transfers(&app, &mut conn, now).await?,
        sessions: {
            drop(conn);
            cast::views(&app).await?
        },
        troubles: app.board.troubles(now),
    }))
}

/// Services, leases and troubles of network boot.
async fn network(State(app): Shared) -> Json<NetworkView> {
    Json(app.board.view(db::now()))
}

/// A machine without its disk check and parts, which are long and asked for alone.
async fn listed(
    app: &App,
    conn: &mut db::Conn,
    machine: machines::Machine,
    now: i64,
) -> Outcome<MachineView> {
    let machine = machines::Machine {
        disk_check: None,
        hardware: None,
        ..machine
    };
    view::machine(app, conn, machine, now).await
}

async fn list_machines(State(app): Shared) -> Outcome<Json<Vec<MachineView>>> {
    let mut conn = app.db.read().await?;
    let mut views = Vec::new();
    for machine in machines::all(&mut conn).await? {
        views.push(listed(&app, &mut conn, machine, db::now()).await?);
    }
    Ok(Json(views))
}

async fn one_machine(
    State(app): Shared,
    Path(machine): Path<String>,
) -> Outcome<Json<MachineView>> {
    let mut conn = app.db.read().await?;
    let machine = control::machine(&mut conn, &machine).await?;
    view::machine(&app, &mut conn, machine, db::now())
        .await
        .map(Json)
}

async fn forget(State(app): Shared, Path(machine): Path<String>) -> Outcome<()> {
    control::forget(&app, &machine).await
}

async fn rename(State(app): Shared, Path(machine): Path<String>, body: Body) -> Outcome<()> {
    let Rename { name } = body::message(body).await?;
    control::rename(&app, &machine, &name).await
}

/// How a machine's own disk is booted.
#[derive(Debug, Serialize, Deserialize)]
pub struct BootWay {
    /// The way.
    pub way: LocalBoot,
}

async fn local_boot(State(app): Shared, Path(machine): Path<String>, body: Body) -> Outcome<()> {
    let BootWay { way } = body::message(body).await?;
    control::set_local_boot(&app, &machine, way).await
}

async fn show(app: &App, execution: &executions::Execution) -> Outcome<ExecutionView> {
    let machine = machines::by_id(&mut *app.db.read().await?, &execution.machine).await?;
    let name = machine.map(|m| m.name).unwrap_or_default();
    Ok(view::execution(app, execution, &name, db::now()))
}

async fn create(
    State(app): Shared,
    Path(machine): Path<String>,
    body: Body,
) -> Outcome<Json<ExecutionView>> {
    let execution = control::create(&app, &machine, body::message(body).await?, db::now()).await?;
    show(&app, &execution).await.map(Json)
}

/// What an order would write where; nothing is ordered.
async fn placements(
    State(app): Shared,
    Path(machine): Path<String>,
    body: Body,
) -> Outcome<Json<Vec<Placement>>> {
    let request: NewExecution = body::message(body).await?;
    exec::set::preview(&app, &machine, request.job, db::now())
        .await
        .map(Json)
}

async fn history(
    State(app): Shared,
    Path(machine): Path<String>,
) -> Outcome<Json<Vec<ExecutionView>>> {
    let mut conn = app.db.read().await?;
    let machine = control::machine(&mut conn, &machine).await?;
    let executions = executions::newest(&mut conn, Some(&machine.id), LISTED).await?;
    Ok(Json(
        executions
            .iter()
            .map(|e| view::execution(&app, e, &machine.name, db::now()))
            .collect(),
    ))
}

async fn one_execution(State(app): Shared, Path(id): Path<String>) -> Outcome<Json<ExecutionView>> {
    let execution = executions::by_id(&mut *app.db.read().await?, &id).await?;
    let execution =
        execution.ok_or_else(|| Failure::not_found(format!("there is no execution {id}")))?;
    show(&app, &execution).await.map(Json)
}

async fn script_results(
    State(app): Shared,
    Path(id): Path<String>,
) -> Outcome<Json<Vec<ScriptResult>>> {
    let execution = executions::by_id(&mut *app.db.read().await?, &id).await?;
    let execution =
        execution.ok_or_else(|| Failure::not_found(format!("there is no execution {id}")))?;
    exec::scripts::results(&app, &execution).await.map(Json)
}

async fn interrupt(
    State(app): Shared,
    Path(machine): Path<String>,
) -> Outcome<Json<ExecutionView>> {
    let execution = control::interrupt(&app, &machine, db::now()).await?;
    show(&app, &execution).await.map(Json)
}

async fn clear(
    State(app): Shared,
    Path(machine): Path<String>,
) -> Outcome<Json<Option<ExecutionView>>> {
    match control::clear(&app, &machine, db::now()).await? {
        Some(execution) => show(&app, &execution).await.map(Some).map(Json),
        None => Ok(Json(None)),
    }
}

/// Which log of a machine.
#[derive(Debug, Deserialize)]
struct WhichLog {
    /// Id of the execution; the newest with a log if not given.
    execution: Option<String>,
}

async fn log(
    State(app): Shared,
    Path(machine): Path<String>,
    Query(which): Query<WhichLog>,
) -> Outcome<Json<LogView>> {
    let mut conn = app.db.read().await?;
    let machine = control::machine(&mut conn, &machine).await?;
    let mut all = executions::newest(&mut conn, Some(&machine.id), LISTED).await?;
    if let Some(id) = &which.execution {
        all.retain(|e| e.id == *id);
    }
    for execution in &all {
        if let Some(text) = exec::read_log(&app, &execution.id).await? {
            let execution = view::execution(&app, execution, &machine.name, db::now());
            return Ok(Json(LogView {
                execution,
                text: Some(text),
            }));
        }
    }
    Err(
        Failure::not_found(format!("there is no log of machine \"{}\"", machine.name))
            .with_advice("A target sends its log at the end of its job."),
    )
}

async fn list_images(State(app): Shared) -> Outcome<Json<Vec<ImageView>>> {
    image_list(&mut *app.db.read().await?).await.map(Json)
}

async fn image_list(conn: &mut db::Conn) -> Outcome<Vec<ImageView>> {
    let hurt = chunks::hurt_images(conn).await?;
    Ok(view::images(images::all(conn).await?, &hurt))
}

/// An image as operators see it, with what is known of its chunks.
pub(super) async fn shown(app: &App, image: images::Image, newest: bool) -> Outcome<ImageView> {
    let (_, hurt, _) = chunks::totals(&mut *app.db.read().await?, &image.id).await?;
    Ok(view::image(image, newest, hurt))
}

/// How many transfers run and wait.
async fn transfers(app: &App, conn: &mut db::Conn, now: i64) -> Outcome<Transfers> {
    let open = executions::all_open(conn).await?;
    let waiting = open.iter().filter(|e| app.live.place(&e.id, now).is_some());
    Ok(Transfers {
        running: open
            .iter()
            .filter(|e| exec::holds_slot(app, e, now))
            .count(),
        most: app.limits.max_transfers,
        waiting: waiting.count(),
    })
}

pub(super) async fn image_of(app: &App, reference: &str) -> Outcome<(images::Image, bool)> {
    let mut conn = app.db.read().await?;
    let Some(found) = images::by_reference(&mut conn, reference).await? else {
        return Err(Failure::new(
            Code::ImageNotFound,
            format!("there is no image \"{reference}\""),
        ));
    };
    let newest = images::by_reference(&mut conn, &found.name)
        .await?
        .is_some_and(|newest| newest.id == found.id);
    Ok((found, newest))
}

/// The images that are meant: by the name of a backup of several disks all of them, in
/// order, else one.
pub(super) async fn images_of(app: &App, reference: &str) -> Outcome<Vec<images::Image>> {
    let (image, _) = image_of(app, reference).await?;
    let Some(set) = image.set.as_ref().filter(|_| image.id != reference) else {
        return Ok(vec![image]);
    };
    let all = images::of_set(&mut *app.db.read().await?, &set.id).await?;
    if all.len() != set.of as usize {
        let found = format!(
            "of the {} images \"{}\" only {} are there",
            set.of,
            image.name,
            all.len()
        );
        return Err(Failure::new(Code::ImageDamaged, found)
            .with_advice("Name those that are there one by one, by their ids."));
    }
    Ok(all)
}

async fn one_image(State(app): Shared, Path(image): Path<String>) -> Outcome<Json<ImageInfo>> {
    let (image, newest) = image_of(&app, &image).await?;
    let found = app.store.contents(&image.id).await?;
    Ok(Json(ImageInfo {
        image: shown(&app, image, newest).await?,
        bad_ranges: bad_ranges(&found.layout, &found.bad),
        signed_by: found.signed_by.iter().map(ToString::to_string).collect(),
        layout: found.layout,
    }))
}

async fn verify(State(app): Shared, Path(image): Path<String>) -> Outcome<Json<Verified>> {
    let mut all = Verified::default();
    for image in images_of(&app, &image).await? {
        all.add(app.store.verify(&image).await?);
    }
    Ok(Json(all))
}

async fn delete_image(State(app): Shared, Path(image): Path<String>) -> Outcome<Json<ImageView>> {
    let (image, newest) = image_of(&app, &image).await?;
    let view = shown(&app, image, newest).await?;
    app.store.delete(&view.id).await?;
    Ok(Json(view))
}
