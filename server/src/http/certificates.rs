//! Routes of operators about certificates of wiped disks.
//!
//! Owns: paths. Does not own: what certificates are ([`crate::exec::certificates`]), the
//! token ([`super::api`]).

use crate::app::App;
use crate::exec::certificates::{self, CertificateView};
use crate::failure::Outcome;
use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use std::sync::Arc;

/// The routes, without `/api`.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/certificates", get(list))
        .route("/certificates/{execution}", get(one))
}

async fn list(State(app): State<Arc<App>>) -> Outcome<Json<Vec<CertificateView>>> {
    certificates::all(&app).await.map(Json)
}

async fn one(
    State(app): State<Arc<App>>,
    Path(execution): Path<String>,
) -> Outcome<Json<CertificateView>> {
    certificates::one(&app, &execution).await.map(Json)
}
