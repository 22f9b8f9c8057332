//! Leasing addresses in a closed network.
//!
//! Owns: when requests are answered, storing leases before clients hear of them, probes
//! for other servers, and what operators are told. Does not own: the answers
//! ([`super::dhcp::lease`]), sockets ([`super::proxy`]), the database ([`LeaseStore`]).

use std::future::Future;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use tracing::{debug, error, info, warn};
use wire::{Code, DiskState, Report};

use super::board::Board;
use super::config::LeaseConfig;
use super::dhcp::conflict::{address_server, is_probe, probe};
use super::dhcp::lease::{Event, Given, Leasing, answer, pool_of};
use super::dhcp::pool::Pool;
use super::dhcp::standing::{Stand, Standing};
use super::dhcp::table::{Lease, Table};
use super::dhcp::{Destination, MessageType, Packet};
use super::error::NetbootError;

/// Longest wait for the database; the client asks again by itself.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);
/// Name of the service.
pub(super) const SERVICE: &str = "addresses (DHCP)";
/// Keys of troubles.
const OTHER_SERVER: &str = "another address server";

/// The answer of a [`LeaseStore`] on its way.
pub type Stored<'a, T> = Pin<Box<dyn Future<Output = Result<T, String>> + Send + 'a>>;

/// Where leases survive a restart.
pub trait LeaseStore: Send + Sync {
    /// All leases that were saved.
    fn load(&self) -> Stored<'_, Vec<Lease>>;
    /// Saves leases by their addresses; durable when it returns.
    fn save(&self, leases: Vec<Lease>) -> Stored<'_, ()>;
}

/// What is done with a packet.
pub(super) enum Handled {
    /// It is not an address server's, or addresses are another server's business: the boot
    /// server beside it answers.
    Leave,
    /// This is sent, or nothing.
    Done(Option<(Vec<u8>, Destination)>),
}

/// The address server.
pub(super) struct Lessor {
    leasing: Leasing,
    standing: Standing,
    started: Instant,
    board: Arc<Board>,
    store: Arc<dyn LeaseStore>,
    xid: u32,
}

impl std::fmt::Debug for Lessor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lessor")
            .field("leasing", &self.leasing)
            .field("standing", &self.standing)
            .finish_non_exhaustive()
    }
}

impl Lessor {
    pub(super) fn new(
        leasing: Leasing,
        settle: Duration,
        board: Arc<Board>,
        store: Arc<dyn LeaseStore>,
    ) -> Lessor {
        let settle = i64::try_from(settle.as_secs()).unwrap_or(i64::MAX);
        board.service(SERVICE, "looks for other DHCP servers before it begins");
        Lessor {
            standing: Standing::new(0, settle, leasing.server_ip),
            leasing,
            started: Instant::now(),
            board,
            store,
            xid: std::process::id() ^ 0x6465_7000,
        }
    }

    /// Reads what was leased before. Without it nothing may be given.
    ///
    /// # Errors
    /// The database's words.
    pub(super) async fn load(&self) -> Result<(), String> {
        let stored = self.store.load().await?;
        let table = Table::of(stored, &self.leasing.pools);
        self.board.set_leases(self.leasing.pools.clone(), table);
        Ok(())
    }

    fn clock(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_secs()).unwrap_or(i64::MAX)
    }

    /// Called about once a second; a probe to broadcast, if one is due.
    pub(super) fn tick(&mut self) -> Option<Vec<u8>> {
        let due = self.standing.tick(self.clock());
        if due.changed {
            self.board.over(OTHER_SERVER);
            self.begin();
        }
        due.probe.then(|| {
            self.xid = self.xid.wrapping_add(1);
            probe(self.leasing.server_ip, self.xid)
        })
    }

    fn begin(&self) {
        let ranges: Vec<String> = self.leasing.pools.iter().map(Pool::to_string).collect();
        let ranges = ranges.join(", ");
        info!(%ranges, "no other DHCP server answers: addresses are leased");
        self.board.service(SERVICE, &format!("leases {ranges}"));
    }

    /// A packet that servers send to clients was seen on port 68.
    pub(super) fn on_offer(&mut self, bytes: &[u8]) {
        if let Some(server) = address_server(bytes, self.leasing.server_ip) {
            self.stand_aside(server);
        }
    }

    fn stand_aside(&mut self, server: Ipv4Addr) {
        let news = self.standing.heard(server, self.clock());
        let Stand::Aside { server } = self.standing.stand() else {
            return;
        };
        let found = format!(
            "the DHCP server {server} gives out addresses in this network; \
             this server leases no new ones as long as it does"
        );
        let report = Report::new(Code::DhcpConflict, found, DiskState::NotInvolved).with_advice(
            "Turn that DHCP server off if this network is to be served from here, or leave --dhcp-range out: \
             then this server only adds the boot file.",
        );
        if news {
            warn!(code = report.code.as_str(), %server, advice = %report.advice, "{}", report.found);
            let state = format!("stands aside for {server}; boot files are offered beside it");
            self.board.service(SERVICE, &state);
        }
        self.board.trouble(OTHER_SERVER, report, now());
    }

    /// A request came in on port 67.
    pub(super) async fn on_request(&mut self, bytes: &[u8]) -> Handled {
        let Ok(request) = Packet::decode(bytes) else {
            return Handled::Leave;
        };
        if request.op != 1 {
            return Handled::Leave;
        }
        if is_probe(&request, self.leasing.server_ip) {
            return Handled::Done(None);
        }
        let Some(pool) = pool_of(&request, &self.leasing) else {
            self.no_range(&request);
            return Handled::Leave;
        };
        let open = self.standing.leases();
        let kind = request.message_type();
        if !open
            && matches!(
                kind,
                None | Some(MessageType::Discover | MessageType::Inform)
            )
        {
            return Handled::Leave;
        }
        let given = self
            .board
            .with_table(|table| answer(&request, pool, &self.leasing, table, open, now()));
        self.tell(&request, &given, pool);
        // What is not our client may be the boot server's.
        if !open && matches!(given.event, Event::Silent(_)) {
            return Handled::Leave;
        }
        if !given.store.is_empty() && !self.stored(given.store).await {
            return Handled::Done(None);
        }
        Handled::Done(given.reply)
    }

    /// Stores leases; without that, their clients hear nothing and ask again.
    async fn stored(&self, leases: Vec<Lease>) -> bool {
        let saved = timeout(STORE_TIMEOUT, self.store.save(leases)).await;
        let failure = match saved {
            Ok(Ok(())) => {
                self.board.over("store of leases");
                return true;
            }
            Ok(Err(failure)) => failure,
            Err(_) => "the database does not answer".to_owned(),
        };
        let found = format!("a lease could not be stored, and was not given: {failure}");
        let report = Report::new(Code::DhcpConflict, found, DiskState::NotInvolved)
            .with_advice("Look at the server's state folder: space, rights, other programs.");
        if self.board.trouble("store of leases", report, now()) {
            error!(%failure, "a lease could not be stored, and was not given");
        }
        false
    }

    fn tell(&mut self, request: &Packet, given: &Given, pool: usize) {
        let mac = request.mac();
        match &given.event {
            Event::Offered(address) => debug!(%mac, %address, "address offered"),
            Event::Granted(address) => {
                info!(%mac, %address, "address leased");
                self.board.over(&empty_key(pool));
            }
            Event::Refused(address, why) => info!(%mac, %address, %why, "address refused"),
            Event::Informed(address) => debug!(%mac, %address, "options told"),
            Event::Released(address) => info!(%mac, %address, "address given back"),
            Event::Declined(address) => self.declined(&mac, *address),
            Event::Empty(pool) => self.empty(*pool),
            Event::Other(server) => {
                debug!(%mac, %server, "the client takes its address from another server");
                self.standing.suspect(self.clock());
            }
            Event::Silent(why) => debug!(%mac, %why, "DHCP packet ignored"),
        }
    }

    fn declined(&self, mac: &str, address: Ipv4Addr) {
        let found = format!(
            "machine {mac} found the address {address} used by something else; it is set aside for an hour"
        );
        let report = Report::new(Code::DhcpConflict, found, DiskState::NotInvolved)
            .with_advice("Find what has that address set by hand, or name a range without it.");
        if self
            .board
            .trouble(&format!("declined {address}"), report, now())
        {
            warn!(code = Code::DhcpConflict.as_str(), %mac, %address, "an address is used by something else");
        }
    }

    fn empty(&self, index: usize) {
        let Some(pool) = self.leasing.pools.get(index) else {
            return;
        };
        let count = self.board.with_table(|table| table.count(pool, now()));
        let found = format!(
            "the range {pool} has no free address: of {} addresses {} are leased, {} offered, {} used by something else",
            count.size, count.leased, count.offered, count.declined
        );
        // Numbers change all the time; the log says it once.
        let known = self.board.over(&empty_key(index));
        let report = Report::new(Code::DhcpConflict, found, DiskState::NotInvolved)
            .with_advice("Name a larger range with --dhcp-range, or a shorter --dhcp-lease.");
        if !known {
            warn!(code = report.code.as_str(), advice = %report.advice, "{}", report.found);
        }
        self.board.trouble(&empty_key(index), report, now());
    }

    /// A relay asks for a subnet of which no range is leased: another server's business.
    fn no_range(&self, request: &Packet) {
        if !request.giaddr.is_unspecified() {
            debug!(relay = %request.giaddr, "no range for the subnet of this relay");
        }
    }
}

fn empty_key(pool: usize) -> String {
    format!("range {pool} is empty")
}

/// Seconds since 1970: leases outlive the process.
pub(super) fn now() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}

/// Bits of the subnet of this host's address, if an interface has it.
pub(super) fn own_prefix(address: Ipv4Addr) -> Option<u8> {
    let all = nix::ifaddrs::getifaddrs().ok()?;
    let mask = all
        .filter(|entry| {
            let own = entry.address.as_ref().and_then(|a| a.as_sockaddr_in());
            own.is_some_and(|own| own.ip() == address)
        })
        .find_map(|entry| Some(entry.netmask?.as_sockaddr_in()?.ip()))?;
    u8::try_from(u32::from(mask).leading_ones()).ok()
}

/// The ranges in their subnets. A range without a named subnet is in one
/// of `own` bits, as the server's own.
///
/// # Errors
/// A range that cannot be leased; the text says why.
pub(super) fn pools(
    config: &LeaseConfig,
    server_ip: Ipv4Addr,
    own: Option<u8>,
) -> Result<Vec<Pool>, NetbootError> {
    let refuse = |why| NetbootError::Config {
        setting: "--dhcp-range",
        why,
    };
    let mut pools: Vec<Pool> = Vec::new();
    for range in &config.ranges {
        let prefix = range.prefix.or(own).ok_or_else(|| {
            refuse(format!(
                "the subnet of {range} is not known; name its bits, as {range}/24"
            ))
        })?;
        let pool = Pool::new(*range, prefix, &config.routers, &[server_ip]).map_err(refuse)?;
        let same = |other: &Pool| other.reaches(range.first) || pool.reaches(other.broadcast());
        if let Some(other) = pools.iter().find(|other| same(other)) {
            return Err(refuse(format!("{other} and {pool} are of one subnet")));
        }
        if !pool.reaches(server_ip) && pool.routers().is_empty() {
            return Err(refuse(format!(
                "{pool} is another subnet than the server's {server_ip}: its machines need a router \
                 to reach the server; name it with --dhcp-router"
            )));
        }
        pools.push(pool);
    }
    let stray = |router: &&Ipv4Addr| !pools.iter().any(|pool| pool.reaches(**router));
    if let Some(router) = config.routers.iter().find(stray) {
        return Err(NetbootError::Config {
            setting: "--dhcp-router",
            why: format!("{router} is in the subnet of no range"),
        });
    }
    Ok(pools)
}

#[cfg(test)]
mod tests {
    use super::pools;
    use crate::netboot::config::LeaseConfig;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    fn of(ranges: &[&str], routers: &[&str], own: Option<u8>) -> Result<Vec<String>, String> {
        let config = LeaseConfig {
            ranges: ranges.iter().map(|text| text.parse().unwrap()).collect(),
            routers: routers.iter().map(|text| text.parse().unwrap()).collect(),
            name_servers: Vec::new(),
            seconds: 3600,
            settle: Duration::from_secs(6),
            grub: false,
        };
        let made = pools(&config, Ipv4Addr::new(10, 0, 0, 5), own);
        made.map(|pools| pools.iter().map(ToString::to_string).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn ranges_find_their_subnets() {
        let here = "10.0.0.100-10.0.0.199";
        assert_eq!(
            of(&[here], &[], Some(24)).unwrap(),
            ["10.0.0.100-10.0.0.199/24"]
        );
        assert_eq!(
            of(&["10.0.0.9-10.0.3.9/16"], &[], None).unwrap(),
            ["10.0.0.9-10.0.3.9/16"]
        );
        let two = of(
            &[here, "10.0.9.1-10.0.9.9/24"],
            &["10.0.9.254", "10.0.0.1"],
            Some(24),
        );
        assert_eq!(two.unwrap().len(), 2);
    }

    #[test]
    fn ranges_that_cannot_work_are_told() {
        let here = "10.0.0.100-10.0.0.199";
        for (ranges, routers, own, why) in [
            (vec![here], vec![], None, "name its bits"),
            (vec!["10.0.9.1-10.0.9.9"], vec![], Some(24), "--dhcp-router"),
            (
                vec![here, "10.0.0.1-10.0.0.9"],
                vec![],
                Some(24),
                "one subnet",
            ),
            (vec![here], vec!["10.0.1.1"], Some(24), "no range"),
            (
                vec!["10.0.0.5-10.0.0.5"],
                vec![],
                Some(24),
                "no address to give",
            ),
        ] {
            let error = of(&ranges, &routers, own).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
