//! Routes of multicast sessions, of targets and of operators.
//!
//! Owns: paths and limits. Does not own: tokens ([`super::target`], [`super::api`]), what is
//! done ([`crate::cast`]).

use super::body;
use super::target::{Shared, restored_image, with_body};
use crate::app::App;
use crate::cast;
use crate::cast::shown::{NewSession, Ordered, SessionView};
use crate::db;
use crate::failure::Outcome;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::routing::{get, post};
use axum::{Json, Router};
use std::sync::Arc;
use wire::{JoinReply, SessionReply};

/// Those of targets, without `/v1/executions/{id}`.
pub(super) fn targets() -> Router<Arc<App>> {
    Router::new()
        .route("/session", post(ready))
        .route("/session/plan", get(plan))
        .route("/session/join", post(join))
}

/// Those of operators, without `/api`.
pub(super) fn operators() -> Router<Arc<App>> {
    Router::new()
        .route("/sessions", get(list).post(order))
        .route("/sessions/{session}/start", post(start))
}

async fn ready(
    State(app): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Outcome<Json<SessionReply>> {
    let (execution, _) = restored_image(&app, &id, 0, &headers).await?;
    // Of its own: a session that is being made is not given up because one target hangs up.
    let ready = tokio::spawn(async move { cast::ready(&app, &execution).await });
    ready.await?.map(Json)
}

async fn plan(State(app): Shared, Path(id): Path<String>, headers: HeaderMap) -> Outcome<Bytes> {
    let (execution, _) = restored_image(&app, &id, 0, &headers).await?;
    cast::list(&app, &execution)
}

async fn join(
    State(app): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Outcome<Json<JoinReply>> {
    let found = restored_image(&app, &id, 0, &headers).await;
    let ((execution, _), body) = with_body(found, body).await?;
    let wanted = body::whole(body, cast::longest_join(&app, &execution)).await?;
    cast::join(&app, &execution, wanted).await.map(Json)
}

async fn list(State(app): Shared) -> Outcome<Json<Vec<SessionView>>> {
    cast::views(&app).await.map(Json)
}

async fn order(State(app): Shared, body: Body) -> Outcome<Json<Ordered>> {
    let request: NewSession = body::message(body).await?;
    cast::order::order(&app, request, db::now()).await.map(Json)
}

async fn start(State(app): Shared, Path(session): Path<String>) -> Outcome<Json<SessionView>> {
    cast::start(&app, &session).await.map(Json)
}
