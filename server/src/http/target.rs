//! Routes of targets: the table of `wire::message`.
//!
//! Owns: paths, tokens and limits. Does not own: what is done.

use super::{bearer, body};
use crate::app::App;
use crate::db;
use crate::db::executions::Execution;
use crate::exec::{checkin, run, scripts};
use crate::failure::{Failure, Outcome};
use axum::body::Body;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use std::net::SocketAddr;
use std::sync::Arc;
use wire::{CheckInReply, FinishReply, JobKind, MAX_LOG_BYTES, ProgressReply, Published, Stored};

/// Longest check-in: anybody may send one, and what it says is kept.
const MAX_CHECK_IN_BYTES: usize = 256 << 10;

/// Bytes of an unauthorised request's body that are thrown away, so that the answer is seen.
const DRAINED: usize = 1 << 20;

/// The same of a request with a good token: a whole batch of records.
const DRAINED_OF_REFUSED: usize = 64 << 20;

pub(super) type Shared = State<Arc<App>>;

/// The routes under `/v1`.
pub fn router(app: Arc<App>) -> Router {
    let execution = Router::new()
        .route("/progress", post(progress))
        .route("/disks", post(disks))
        .route("/log", post(log))
        .route("/base", get(base))
        .route("/have", post(have))
        .route("/records", post(records))
        .route("/manifest", put(put_manifest).get(get_manifest))
        .route("/manifests", put(put_manifests))
        .route("/fetch", post(fetch))
        .route("/doubtful", post(super::doubt::doubtful))
        .route("/tables", put(tables))
        .route("/begin-write", post(begin_write))
        .route("/script", post(script))
        .route("/finish", post(finish))
        .merge(super::cast::targets())
        .route_layer(middleware::from_fn_with_state(
            Arc::clone(&app),
            authenticated,
        ));
    Router::new()
        .route("/v1/checkin", post(check_in))
        .nest("/v1/executions/{id}", execution)
        // Each handler has its own limit, smaller or streaming.
        .layer(DefaultBodyLimit::disable())
        .with_state(app)
}

async fn check_in(
    State(app): Shared,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    body: Body,
) -> Outcome<Json<CheckInReply>> {
    let message = body::message_of(body, MAX_CHECK_IN_BYTES).await?;
    let address = peer.ip().to_canonical().to_string();
    checkin::checkin(&app, &message, &address, db::now())
        .await
        .map(Json)
}

/// Looks at the token before any body is kept or parsed: nobody else may make the server
/// do either. Handlers look again, in the transaction that counts.
async fn authenticated(
    State(app): Shared,
    Path(id): Path<String>,
    request: Request,
    next: Next,
) -> Outcome<Response> {
    let refused = match bearer(request.headers()) {
        Ok(token) => match app.db.read().await {
            Ok(mut conn) => run::authenticate(&mut conn, &id, token).await.err(),
            Err(error) => Some(error.into()),
        },
        Err(failure) => Some(failure),
    };
    match refused {
        None => Ok(next.run(request).await),
        Some(failure) => {
            body::drain(request.into_body(), DRAINED).await;
            Err(failure)
        }
    }
}

async fn progress(
    State(app): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Outcome<Json<ProgressReply>> {
    let token = bearer(&headers)?;
    run::progress(&app, &id, token, body::message(body).await?, db::now())
        .await
        .map(Json)
}

async fn disks(
    State(app): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Outcome<()> {
    let token = bearer(&headers)?;
    run::disk_check(&app, &id, token, &body::message(body).await?, db::now()).await
}

async fn log(
    State(app): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Outcome<()> {
    let token = bearer(&headers)?;
    run::log(&app, &id, token, body::whole(body, MAX_LOG_BYTES).await?).await
}

/// The unfinished execution of this request.
async fn execution(app: &App, id: &str, headers: &HeaderMap) -> Outcome<Execution> {
    run::unfinished(&mut *app.db.read().await?, id, bearer(headers)?).await
}

async fn backup(app: &App, id: &str, headers: &HeaderMap) -> Outcome<Execution> {
    let execution = execution(app, id, headers).await?;
    app.live.contact(id, db::now());
    match execution.job {
        JobKind::Backup { .. } => Ok(execution),
        _ => Err(Failure::refused("this execution is no backup")),
    }
}

/// Which disk of a restore of several a request means.
#[derive(serde::Deserialize)]
pub(super) struct Part {
    #[serde(default)]
    pub(super) part: u32,
}

/// The execution of this request and the image that it restores.
pub(super) async fn restored_image(
    app: &App,
    id: &str,
    part: u32,
    headers: &HeaderMap,
) -> Outcome<(Execution, String)> {
    let execution = execution(app, id, headers).await?;
    app.live.contact(id, db::now());
    match &execution.job {
        JobKind::Restore { set, .. } if !set.is_empty() => match set.get(part as usize) {
            Some(wanted) => {
                let image = wanted.image.clone();
                Ok((execution, image))
            }
            None => Err(Failure::usage(format!("the job has no disk {part}"))),
        },
        JobKind::Restore { .. } if part > 0 => Err(Failure::usage("the job has one disk")),
        JobKind::Restore { image, .. } => {
            let image = image.clone();
            Ok((execution, image))
        }
        _ => Err(Failure::refused("this execution is no restore")),
    }
}

/// A request's execution or image, with the body; the body of a refused request is thrown
/// away, so that the sender sees the refusal and not a broken connection.
pub(super) async fn with_body<T>(allowed: Outcome<T>, body: Body) -> Outcome<(T, Body)> {
    match allowed {
        Ok(allowed) => Ok((allowed, body)),
        Err(failure) => {
            body::drain(body, DRAINED_OF_REFUSED).await;
            Err(failure)
        }
    }
}

async fn base(State(app): Shared, Path(id): Path<String>, headers: HeaderMap) -> Outcome<Body> {
    let execution = backup(&app, &id, &headers).await?;
    Ok(body::stream(app.store.base(&execution).await?))
}

async fn have(
    State(app): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Outcome<Vec<u8>> {
    let (execution, body) = with_body(backup(&app, &id, &headers).await, body).await?;
    app.store
        .have(&execution.id, &body::hashes(body).await?)
        .await
}

async fn records(
    State(app): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Outcome<Json<Stored>> {
    let (execution, body) = with_body(backup(&app, &id, &headers).await, body).await?;
    let length = body::length(&headers);
    let body = paced(&app, &execution, body);
    body::feed(body, async |reader| {
        app.store.upload(&execution.id, length, reader).await
    })
    .await
    .map(Json)
}

async fn put_manifest(
    State(app): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Outcome<Json<Published>> {
    let (execution, body) = with_body(backup(&app, &id, &headers).await, body).await?;
    let machine = db::machines::by_id(&mut *app.db.read().await?, &execution.machine).await?;
    let name = machine.map(|machine| machine.name).unwrap_or_default();
    body::feed_whole(body, async |reader| {
        // Of its own, so that it ends in order although the target may hang up.
        let publishing = tokio::spawn(async move {
            let published = app
                .store
                .publish(&execution, &name, reader, db::now())
                .await?;
            // The target need not wait for what goes.
            tokio::spawn(async move { crate::care::apply(&app).await });
            Ok(published)
        });
        publishing.await?
    })
    .await
    .map(Json)
}

async fn put_manifests(
    State(app): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Outcome<Json<Vec<Published>>> {
    let (execution, body) = with_body(backup(&app, &id, &headers).await, body).await?;
    let machine = db::machines::by_id(&mut *app.db.read().await?, &execution.machine).await?;
    let name = machine.map(|machine| machine.name).unwrap_or_default();
    body::feed_whole(body, async |reader| {
        // As for one.
        let publishing = tokio::spawn(async move {
            let published = app
                .store
                .publish_set(&execution, &name, reader, db::now())
                .await?;
            tokio::spawn(async move { crate::care::apply(&app).await });
            Ok(published)
        });
        publishing.await?
    })
    .await
    .map(Json)
}

async fn get_manifest(
    State(app): Shared,
    Path(id): Path<String>,
    Query(Part { part }): Query<Part>,
    headers: HeaderMap,
) -> Outcome<Response> {
    let (_, image) = restored_image(&app, &id, part, &headers).await?;
    let (length, body) = body::file(app.store.manifest_path(&image)).await?;
    Ok(binary(length, body))
}

async fn fetch(
    State(app): Shared,
    Path(id): Path<String>,
    Query(Part { part }): Query<Part>,
    headers: HeaderMap,
    body: Body,
) -> Outcome<Response> {
    let found = restored_image(&app, &id, part, &headers).await;
    let ((execution, image), body) = with_body(found, body).await?;
    let records = app.store.fetch(&image, &body::hashes(body).await?).await?;
    let body = paced(&app, &execution, body::stream(records.frames));
    Ok(binary(records.bytes, body))
}

/// The same body, no quicker than the execution may be.
fn paced(app: &Arc<App>, execution: &Execution, body: Body) -> Body {
    if execution.rate.is_none() {
        return body;
    }
    let (app, id, rate) = (Arc::clone(app), execution.id.clone(), execution.rate);
    body::each_frame(body, move |bytes| {
        let (app, id) = (Arc::clone(&app), id.clone());
        async move { app.rates.pass(&id, rate, bytes).await }
    })
}

/// An answer of known length: one that breaks off is never taken for a whole one.
fn binary(length: u64, body: Body) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    response
}

async fn tables(
    State(app): Shared,
    Path(id): Path<String>,
    Query(Part { part }): Query<Part>,
    headers: HeaderMap,
    body: Body,
) -> Outcome<()> {
    let token = bearer(&headers)?;
    run::old_tables(&app, &id, token, part, &body::message(body).await?).await
}

async fn begin_write(
    State(app): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Outcome<()> {
    let token = bearer(&headers)?;
    run::begin_write(&app, &id, token, body::message(body).await?, db::now()).await
}

async fn script(
    State(app): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Outcome<()> {
    let token = bearer(&headers)?;
    scripts::result(&app, &id, token, body::message(body).await?).await
}

async fn finish(
    State(app): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Outcome<Json<FinishReply>> {
    let token = bearer(&headers)?;
    run::finish(&app, &id, token, body::message(body).await?, db::now())
        .await
        .map(Json)
}
