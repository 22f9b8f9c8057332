//! What the server does for its store by itself.
//!
//! Owns: when rules of retention are applied, half dead packs made smaller, and a scrub
//! begins. Does not own: any of these ([`crate::store`]).

use crate::app::App;
use crate::db;
use crate::failure::Outcome;
use crate::options::Options;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

const DAY: u64 = 24 * 3600;
/// After a failure, and between two looks at whether a scrub is due.
const AGAIN: Duration = Duration::from_secs(600);

/// Applies the rules now and then once a day, until the server stops.
pub(crate) async fn keep_rules(app: Arc<App>, mut stopped: watch::Receiver<bool>) {
    loop {
        apply(&app).await;
        if let Err(error) = app.store.compact().await {
            tracing::error!(%error, "half dead packs could not be made smaller");
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(DAY)) => {}
            _ = stopped.wait_for(|stop| *stop) => return,
        }
    }
}

/// Applies the rules; what fails is tried again the next time.
pub(crate) async fn apply(app: &App) {
    let applied = async {
        if !app.store.prune(db::now()).await?.is_empty() {
            app.store.compact().await?;
        }
        Outcome::Ok(())
    };
    if let Err(error) = applied.await {
        tracing::error!(%error, "rules of retention could not be applied");
    }
}

/// Settings of the scrub.
#[derive(Clone, Copy)]
pub(crate) struct Scrub {
    every_days: u32,
    rate: Option<u64>,
}

impl Scrub {
    /// As the options say.
    pub(crate) fn of(options: &Options) -> Self {
        Scrub {
            every_days: options.scrub_days,
            rate: Some(options.scrub_rate).filter(|&rate| rate > 0),
        }
    }

    /// Whether a new one is due.
    async fn is_due(&self, app: &App, now: i64) -> Outcome<bool> {
        let last = app.store.last_scrub_or(now).await?;
        let every = i64::from(self.every_days) * DAY as i64;
        Ok(every > 0 && last.ended.is_some_and(|ended| now - ended >= every))
    }
}

/// Scrubs when it is due or asked for, until the server stops. One that was cut off goes on.
pub(crate) async fn scrub(app: Arc<App>, settings: Scrub, mut stopped: watch::Receiver<bool>) {
    loop {
        let round = async {
            if settings.is_due(&app, db::now()).await? {
                app.store.begin_scrub(db::now()).await?;
            }
            app.store.scrub(settings.rate, &stopped.clone()).await
        };
        if let Err(error) = round.await {
            tracing::error!(%error, "the scrub cannot go on; it is tried again");
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = app.scrub_wanted.notified() => {}
            _ = stopped.wait_for(|stop| *stop) => return,
        }
    }
}
