//! What network boot has to tell operators, and the leases that it gave.
//!
//! Owns: troubles with their first and last time, the state of services, the table of
//! leases while the server runs. Does not own: finding troubles, storing leases, or how
//! all this is shown (`deployctl network`, the page).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use wire::Report;

use super::dhcp::pool::Pool;
use super::dhcp::table::Table;

/// Troubles that are kept; more are only logged.
const MOST_TROUBLES: usize = 64;
/// Seconds after which a trouble that did not come again is no longer shown.
const FORGET_AFTER: i64 = 86_400;

/// Something that stands in the way of network boots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// What, and what to do.
    pub report: Report,
    /// When it was seen first (seconds since 1970).
    pub first: i64,
    /// When it was seen last.
    pub last: i64,
    /// How often.
    pub count: u64,
}

/// A service of network boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceView {
    /// Its name.
    pub name: String,
    /// What it does, or waits for.
    pub state: String,
}

/// A range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeView {
    /// As `10.0.0.100-10.0.0.199/24`.
    pub range: String,
    /// Addresses that can be given at all.
    pub addresses: usize,
    /// Leased now.
    pub leased: usize,
    /// Set aside because something else uses them.
    pub declined: usize,
    /// Not leased, not set aside, not offered.
    pub free: usize,
}

/// A lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseView {
    /// The address.
    pub address: String,
    /// Hardware address of the client.
    pub mac: String,
    /// The name that the client gave itself.
    pub host: String,
    /// `leased`, `ended`, `released` or `declined`.
    pub state: String,
    /// When it was given or made longer last.
    pub since: i64,
    /// When it ends or ended.
    pub until: i64,
}

/// Everything about network boot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkView {
    /// Services in order of their names.
    pub services: Vec<ServiceView>,
    /// Ranges that are leased; none if another server gives out addresses.
    pub ranges: Vec<RangeView>,
    /// Leases by address.
    pub leases: Vec<LeaseView>,
    /// Troubles of the last day, the newest first.
    pub troubles: Vec<Trouble>,
}

/// Shared by network boot and the API.
#[derive(Debug, Default)]
pub struct Board {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    troubles: BTreeMap<String, Trouble>,
    services: BTreeMap<&'static str, String>,
    pools: Vec<Pool>,
    table: Table,
}

impl Board {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a trouble; `key` is the same for the same trouble. Returns whether it is news.
    pub fn trouble(&self, key: &str, report: Report, now: i64) -> bool {
        let mut inner = self.inner();
        inner
            .troubles
            .retain(|_, trouble| now - trouble.last < FORGET_AFTER);
        if let Some(known) = inner.troubles.get_mut(key) {
            known.last = now;
            known.count = known.count.saturating_add(1);
            let news = known.report != report;
            known.report = report;
            return news;
        }
        if inner.troubles.len() >= MOST_TROUBLES {
            return false;
        }
        let trouble = Trouble {
            report,
            first: now,
            last: now,
            count: 1,
        };
        inner.troubles.insert(key.to_owned(), trouble);
        true
    }

    /// A trouble is over. Returns whether there was one.
    pub fn over(&self, key: &str) -> bool {
        self.inner().troubles.remove(key).is_some()
    }

    /// What a service does.
    pub fn service(&self, name: &'static str, state: &str) {
        self.inner().services.insert(name, state.to_owned());
    }

    /// The ranges that are leased, and what is known of them.
    pub fn set_leases(&self, pools: Vec<Pool>, table: Table) {
        let mut inner = self.inner();
        inner.pools = pools;
        inner.table = table;
    }

    /// Works with the leases.
    pub fn with_table<T>(&self, work: impl FnOnce(&mut Table) -> T) -> T {
        work(&mut self.inner().table)
    }

    /// Troubles of the last day, the newest first.
    pub fn troubles(&self, now: i64) -> Vec<Trouble> {
        let inner = self.inner();
        let fresh = inner
            .troubles
            .values()
            .filter(|trouble| now - trouble.last < FORGET_AFTER);
        let mut troubles: Vec<Trouble> = fresh.cloned().collect();
        troubles.sort_by_key(|trouble| std::cmp::Reverse(trouble.last));
        troubles
    }

    /// Everything, for the API.
    pub fn view(&self, now: i64) -> NetworkView {
        let troubles = self.troubles(now);
        let inner = self.inner();
        let ranges = inner.pools.iter().map(|pool| {
            let count = inner.table.count(pool, now);
            RangeView {
                range: pool.to_string(),
                addresses: count.size,
                leased: count.leased,
                declined: count.declined,
                free: count.free(),
            }
        });
        let leases = inner.table.leases().map(|lease| LeaseView {
            address: lease.address.to_string(),
            mac: lease.mac.clone(),
            host: lease.host.clone(),
            state: match lease.held {
                super::dhcp::table::Held::Leased if lease.until <= now => "ended".to_owned(),
                held => held.as_str().to_owned(),
            },
            since: lease.since,
            until: lease.until,
        });
        let services = inner.services.iter().map(|(name, state)| ServiceView {
            name: (*name).to_owned(),
            state: state.clone(),
        });
        NetworkView {
            services: services.collect(),
            ranges: ranges.collect(),
            leases: leases.collect(),
            troubles,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Board, FORGET_AFTER, MOST_TROUBLES};
    use wire::{Code, DiskState, Report};

    fn report(found: &str) -> Report {
        Report::new(Code::DhcpConflict, found, DiskState::NotInvolved)
    }

    #[test]
    fn a_trouble_is_news_once_and_is_forgotten_after_a_day() {
        let board = Board::default();
        assert!(board.trouble("a", report("x"), 10));
        assert!(!board.trouble("a", report("x"), 20));
        assert!(
            board.trouble("a", report("y"), 30),
            "it says something else"
        );
        assert!(board.trouble("b", report("z"), 25));
        let all = board.troubles(40);
        assert_eq!(
            (all.len(), all[0].first, all[0].last, all[0].count),
            (2, 10, 30, 3)
        );
        assert!(board.over("b") && !board.over("b"));
        assert_eq!(board.troubles(30 + FORGET_AFTER).len(), 0);
        assert!(
            board.trouble("a", report("y"), 30 + FORGET_AFTER),
            "as if it were new"
        );
    }

    #[test]
    fn troubles_are_limited() {
        let board = Board::default();
        for number in 0..2 * MOST_TROUBLES {
            board.trouble(&number.to_string(), report("x"), 0);
        }
        assert_eq!(board.troubles(0).len(), MOST_TROUBLES);
    }
}
