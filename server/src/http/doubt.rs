//! The route by which targets tell of chunks that came spoiled.
//!
//! Owns: what is logged of it. Does not own: reading the records again
//! ([`crate::store`]), who may ask ([`super::target`]).

use super::body;
use super::target::{Part, Shared, restored_image, with_body};
use crate::failure::Outcome;
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use wire::{Code, Reread};

/// Reads the records of these chunks again.
pub(super) async fn doubtful(
    State(app): Shared,
    Path(id): Path<String>,
    Query(Part { part }): Query<Part>,
    headers: HeaderMap,
    body: Body,
) -> Outcome<Json<Reread>> {
    let found = restored_image(&app, &id, part, &headers).await;
    let ((execution, image), body) = with_body(found, body).await?;
    let names = body::hashes(body).await?;
    let reread = app.store.reread(&image, &names).await?;
    let (code, first) = (Code::ImageDamaged, names[0]);
    tracing::warn!(%code, execution = %execution.id, image, chunk = %first, chunks = names.len(),
        whole = reread.whole, damaged = reread.damaged,
        "a target tells of chunks that came spoiled; their records were read again");
    Ok(Json(reread))
}
