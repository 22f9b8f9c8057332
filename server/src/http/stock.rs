//! Routes of operators about the store: what is kept, whether it is whole, images from and
//! for other servers.
//!
//! Owns: paths and shapes. Does not own: what is done ([`crate::store`]), the token
//! ([`super::api`]).

use super::api::{images_of, shown};
use super::body;
use crate::app::App;
use crate::db;
use crate::db::retention::{self, Scope};
use crate::exec::control;
use crate::failure::{Failure, Outcome};
use crate::store::prune::Verdict;
use crate::store::retention::Policy;
use crate::store::scrub::ScrubView;
use crate::view::ImageView;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

type Shared = State<Arc<App>>;

/// A rule of retention: for images of a name, for a machine, or (neither) for all others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Name of images, as it is ordered: `{machine}-{date}` for all that come of it.
    #[serde(default)]
    pub image: Option<String>,
    /// Machine.
    #[serde(default)]
    pub machine: Option<String>,
    /// What is kept; null removes the rule.
    #[serde(default)]
    pub policy: Option<Policy>,
}

/// What retention is asked to do.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Prune {
    /// Only tell.
    #[serde(default)]
    pub dry_run: bool,
}

/// The routes, without `/api`.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/retention", get(rules).put(set_rule))
        .route("/prune", post(prune))
        .route("/scrub", get(scrub).post(begin_scrub))
        .route("/images/{image}/pin", post(pin).delete(unpin))
        .route("/images/{image}/export", get(export))
        .route("/import", post(import))
}

async fn rules(State(app): Shared) -> Outcome<Json<Vec<Rule>>> {
    let mut conn = app.db.read().await?;
    let mut rules = Vec::new();
    for (scope, policy) in retention::all(&mut conn).await? {
        let mut rule = Rule {
            policy: Some(policy),
            ..Rule::default()
        };
        match scope {
            Scope::All => {}
            Scope::Image(series) => rule.image = Some(series),
            Scope::Machine(id) => {
                let machine = db::machines::by_id(&mut conn, &id).await?;
                rule.machine = Some(machine.map_or(id, |machine| machine.name));
            }
        }
        rules.push(rule);
    }
    Ok(Json(rules))
}

async fn set_rule(State(app): Shared, body: Body) -> Outcome<()> {
    let rule: Rule = body::message(body).await?;
    let mut tx = app.db.write().await?;
    let scope = match (rule.image, rule.machine) {
        (None, None) => Scope::All,
        (Some(series), None) => Scope::Image(series),
        (None, Some(machine)) => match control::machine(tx.conn(), &machine).await {
            Ok(machine) => Scope::Machine(machine.id),
            // Its rule may outlive a machine.
            Err(failure) if rule.policy.is_some() => return Err(failure),
            Err(_) => Scope::Machine(machine),
        },
        (Some(_), Some(_)) => {
            return Err(Failure::usage(
                "a rule is for a name or for a machine, not for both",
            ));
        }
    };
    match rule.policy {
        Some(policy) if policy.keeps_all() => {
            return Err(Failure::usage("the rule says nothing")
                .with_advice("Say what is kept: --last, --daily, --weekly, --monthly or --days."));
        }
        Some(policy) => retention::set(tx.conn(), &scope, &policy).await?,
        None if retention::clear(tx.conn(), &scope).await? => {}
        None => return Err(Failure::not_found("there is no such rule")),
    }
    tx.commit().await?;
    tracing::info!(?scope, policy = ?rule.policy, "retention set");
    Ok(())
}

async fn prune(State(app): Shared, body: Body) -> Outcome<Json<Vec<Verdict>>> {
    let Prune { dry_run } = body::message(body).await?;
    if dry_run {
        let mut conn = app.db.read().await?;
        return app.store.verdicts(&mut conn, db::now()).await.map(Json);
    }
    let gone = app.store.prune(db::now()).await?;
    app.store.compact().await?;
    Ok(Json(gone))
}

async fn scrub(State(app): Shared) -> Outcome<Json<ScrubView>> {
    app.store.scrub_view().await.map(Json)
}

/// Begins a scrub; one that runs goes on.
async fn begin_scrub(State(app): Shared) -> Outcome<Json<ScrubView>> {
    let last = app.store.last_scrub().await?;
    if last.is_none_or(|last| last.ended.is_some()) {
        app.store.begin_scrub(db::now()).await?;
    }
    app.scrub_wanted.notify_one();
    app.store.scrub_view().await.map(Json)
}

async fn pin(State(app): Shared, Path(image): Path<String>) -> Outcome<()> {
    for image in images_of(&app, &image).await? {
        app.store.pin(&image.id, true).await?;
    }
    Ok(())
}

async fn unpin(State(app): Shared, Path(image): Path<String>) -> Outcome<()> {
    for image in images_of(&app, &image).await? {
        app.store.pin(&image.id, false).await?;
    }
    Ok(())
}

/// The image as a container. Its length is not told: the container itself has an end.
async fn export(State(app): Shared, Path(image): Path<String>) -> Outcome<Body> {
    match &images_of(&app, &image).await?[..] {
        [image] => Ok(body::stream(app.store.export(image).await?)),
        several => {
            let ids: Vec<&str> = several.iter().map(|image| image.id.as_str()).collect();
            let found = format!("\"{image}\" is of {} disks: {}", ids.len(), ids.join(", "));
            Err(Failure::usage(found).with_advice("A file has one image; name each by its id."))
        }
    }
}

/// What an imported image is called.
#[derive(Debug, Deserialize)]
struct Named {
    name: String,
}

async fn import(
    State(app): Shared,
    Query(Named { name }): Query<Named>,
    headers: HeaderMap,
    body: Body,
) -> Outcome<Json<ImageView>> {
    control::check_name("image", &name)?;
    let length = body::length(&headers);
    let keeper = Arc::clone(&app);
    let image = body::feed(body, async |reader| {
        // Of its own, so that it ends in order although the other side may hang up.
        let importing =
            tokio::spawn(
                async move { keeper.store.import(&name, length, reader, db::now()).await },
            );
        importing.await?
    })
    .await?;
    shown(&app, image, true).await.map(Json)
}
