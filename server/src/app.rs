//! What all requests share.
//!
//! Owns: the parts and their limits. Does not own: behaviour ([`crate::exec`],
//! [`crate::store`], [`crate::http`]).

use crate::cast::Casts;
use crate::db::Db;
use crate::exec::live::LiveTable;
use crate::exec::rate::Rates;
use crate::netboot::Board;
use crate::store::Store;
use std::path::PathBuf;
use std::sync::Arc;

/// Limits that an administrator may set. Running executions keep what they started with
/// where it is part of their job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most unicast transfers at a time.
    pub max_transfers: usize,
    /// Seconds without contact after which a target is called silent.
    pub silent_after: i64,
    /// Seconds from boot script to check-in, and from check-in to the first data
    /// (facts.md "Time limits").
    pub start_within: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_transfers: 5,
            silent_after: 120,
            start_within: 900,
        }
    }
}

/// The server's parts.
pub struct App {
    /// What is remembered.
    pub db: Arc<Db>,
    /// Images.
    pub store: Arc<Store>,
    /// What is known while the server runs.
    pub live: LiveTable,
    /// Hash of the server's key.
    pub pin: pinned::Pin,
    /// Limits.
    pub limits: Limits,
    /// Token of the administrator.
    pub admin_token: String,
    /// Folder of database, logs and old tables.
    pub state_dir: PathBuf,
    /// When the server started (seconds since 1970).
    pub started: i64,
    /// An operator wants a scrub now.
    pub scrub_wanted: tokio::sync::Notify,
    /// Transfers of limited rate.
    pub rates: Rates,
    /// Multicast sessions.
    pub casts: Casts,
    /// What network boot has to tell, and the addresses that it leased.
    pub board: Arc<Board>,
}
