//! Who has which address.
//!
//! Owns: leases and offers in memory, and the choice of an address. Does not own: what
//! clients are told ([`super::lease`]), or storing (`netboot::lessor`). Time is passed
//! in, in seconds; every lease counts to its end also over a restart of the server.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;

use super::pool::Pool;

/// How an address is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// By its client, until the lease ends.
    Leased,
    /// By nobody; its former client is given it again if it comes back in time.
    Released,
    /// By something that does not ask: a client found it used. Set aside for a while.
    Declined,
}

impl Held {
    /// The word that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Held::Leased => "leased",
            Held::Released => "released",
            Held::Declined => "declined",
        }
    }

    /// Reads the stored word.
    pub fn parse(word: &str) -> Option<Held> {
        [Held::Leased, Held::Released, Held::Declined]
            .into_iter()
            .find(|held| held.as_str() == word)
    }
}

/// An address and its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// The client, by hardware type and address or its own identifier.
    pub client: String,
    /// Its hardware address as people write it.
    pub mac: String,
    /// The name that it gave itself; may be empty.
    pub host: String,
    /// How it is held.
    pub held: Held,
    /// When its client got it.
    pub since: i64,
    /// When that ends.
    pub until: i64,
}

#[derive(Clone, Debug)]
struct Offer {
    client: String,
    until: i64,
}

/// How many addresses of a pool are what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// All.
    pub size: usize,
    /// Leased.
    pub leased: usize,
    /// Set aside because something else uses them.
    pub declined: usize,
    /// Offered, and not asked for yet.
    pub offered: usize,
}

impl Count {
    /// Those that can be offered now.
    pub fn free(&self) -> usize {
        self.size
            .saturating_sub(self.leased + self.declined + self.offered)
    }
}

/// All leases and offers.
#[derive(Clone, Debug, Default)]
pub struct Table {
    leases: BTreeMap<Ipv4Addr, Lease>,
    of_client: HashMap<String, Ipv4Addr>,
    offers: HashMap<Ipv4Addr, Offer>,
}

impl Table {
    /// A table of stored leases; those of addresses that no pool holds any more are left out.
    pub fn of(stored: Vec<Lease>, pools: &[Pool]) -> Table {
        let mut table = Table::default();
        let mut known: Vec<Lease> = stored
            .into_iter()
            .filter(|lease| pools.iter().any(|pool| pool.holds(lease.address)))
            .collect();
        // The newest of a client last: it is the client's.
        known.sort_by_key(|lease| (lease.since, lease.until));
        for lease in known {
            if lease.held != Held::Declined {
                table.of_client.insert(lease.client.clone(), lease.address);
            }
            table.leases.insert(lease.address, lease);
        }
        table
    }

    /// All leases by address.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }

    /// The newest lease of a client, also one that has ended.
    pub fn of_client(&self, client: &str) -> Option<&Lease> {
        self.leases.get(self.of_client.get(client)?)
    }

    /// Whether an address was offered to a client, and still is.
    pub fn is_offered(&self, address: Ipv4Addr, client: &str, now: i64) -> bool {
        self.offers
            .get(&address)
            .is_some_and(|offer| offer.client == client && offer.until > now)
    }

    /// Whether a client can have an address: nobody else does, or was offered it.
    pub fn is_open(&self, address: Ipv4Addr, client: &str, now: i64) -> bool {
        let lease = self.leases.get(&address).is_none_or(|lease| {
            lease.until <= now
                || match lease.held {
                    Held::Leased => lease.client == client,
                    Held::Released => true,
                    Held::Declined => false,
                }
        });
        let offer = self
            .offers
            .get(&address)
            .is_none_or(|offer| offer.until <= now || offer.client == client);
        lease && offer
    }

    /// An address for a client: what it was offered or had last, what it would like, one
    /// that nobody ever had, or the one that is unused for the longest time.
    pub fn choose(
        &self,
        pool: &Pool,
        client: &str,
        wanted: Option<Ipv4Addr>,
        now: i64,
    ) -> Option<Ipv4Addr> {
        let open = |address: &Ipv4Addr| pool.holds(*address) && self.is_open(*address, client, now);
        let offered = self
            .offers
            .iter()
            .find(|(address, offer)| {
                offer.client == client && offer.until > now && pool.holds(**address)
            })
            .map(|(address, _)| *address);
        let own = self.of_client.get(client).copied();
        let known = [own, offered, wanted];
        if let Some(address) = known.into_iter().flatten().find(|address| open(address)) {
            return Some(address);
        }
        let never = pool
            .addresses()
            .find(|address| !self.leases.contains_key(address) && open(address));
        never.or_else(|| {
            self.leases
                .values()
                .filter(|lease| open(&lease.address))
                .min_by_key(|lease| lease.until)
                .map(|lease| lease.address)
        })
    }

    /// Keeps an address for a client until it asks for it.
    pub fn offer(&mut self, address: Ipv4Addr, client: &str, until: i64) {
        self.forget_offers(client);
        let client = client.to_owned();
        self.offers.insert(address, Offer { client, until });
    }

    /// Forgets what a client was offered.
    pub fn forget_offers(&mut self, client: &str) {
        self.offers.retain(|_, offer| offer.client != client);
    }

    /// Enters a lease. Returns what is to be stored: this, and the client's former lease of
    /// another address, which ends.
    pub fn grant(&mut self, lease: Lease) -> Vec<Lease> {
        self.forget_offers(&lease.client);
        let mut changed = Vec::new();
        let former = self.of_client.insert(lease.client.clone(), lease.address);
        if let Some(old) = former
            .filter(|address| *address != lease.address)
            .and_then(|address| self.leases.get_mut(&address))
            .filter(|old| old.client == lease.client && old.held == Held::Leased)
        {
            old.held = Held::Released;
            old.until = old.until.min(lease.since);
            changed.push(old.clone());
        }
        if let Some(ousted) = self.leases.insert(lease.address, lease.clone())
            && ousted.client != lease.client
            && self.of_client.get(&ousted.client) == Some(&lease.address)
        {
            self.of_client.remove(&ousted.client);
        }
        changed.push(lease);
        changed
    }

    /// Ends a client's lease of an address, if it has it. Returns what is to be stored.
    pub fn release(&mut self, address: Ipv4Addr, client: &str, now: i64) -> Option<Lease> {
        let lease = self
            .leases
            .get_mut(&address)
            .filter(|lease| lease.client == client && lease.held == Held::Leased)?;
        lease.held = Held::Released;
        lease.until = lease.until.min(now);
        Some(lease.clone())
    }

    /// Sets an address aside that a client found used. Returns what is to be stored.
    pub fn decline(&mut self, lease: Lease) -> Lease {
        self.forget_offers(&lease.client);
        if self.of_client.get(&lease.client) == Some(&lease.address) {
            self.of_client.remove(&lease.client);
        }
        self.leases.insert(lease.address, lease.clone());
        lease
    }

    /// Counts the addresses of a pool.
    pub fn count(&self, pool: &Pool, now: i64) -> Count {
        let held = |which: Held| {
            self.leases
                .values()
                .filter(|lease| lease.held == which && lease.until > now)
                .filter(|lease| pool.holds(lease.address))
                .count()
        };
        let offers = self.offers.iter().filter(|(address, offer)| {
            let leased = self
                .leases
                .get(*address)
                .is_some_and(|lease| lease.held == Held::Leased && lease.until > now);
            offer.until > now && pool.holds(**address) && !leased
        });
        Count {
            size: pool.size(),
            leased: held(Held::Leased),
            declined: held(Held::Declined),
            offered: offers.count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Held, Lease, Table};
    use crate::netboot::dhcp::pool::Pool;
    use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
    use std::collections::HashMap;
    use std::net::Ipv4Addr;

    fn pool() -> Pool {
        let range = "10.0.0.10-10.0.0.12".parse().unwrap();
        Pool::new(range, 24, &[], &[]).unwrap()
    }

    fn ip(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, last)
    }

    fn lease(last: u8, client: &str, since: i64, until: i64) -> Lease {
        Lease {
            address: ip(last),
            client: client.to_owned(),
            mac: client.to_owned(),
            host: String::new(),
            held: Held::Leased,
            since,
            until,
        }
    }

    #[test]
    fn an_address_is_chosen_by_who_had_it_last() {
        let mut table = Table::default();
        let choose =
            |table: &Table, client: &str, wanted, now| table.choose(&pool(), client, wanted, now);
        assert_eq!(choose(&table, "a", None, 0), Some(ip(10)));
        assert_eq!(
            choose(&table, "a", Some(ip(12)), 0),
            Some(ip(12)),
            "its wish"
        );
        assert_eq!(
            choose(&table, "a", Some(ip(99)), 0),
            Some(ip(10)),
            "no wish that lies outside"
        );
        table.offer(ip(10), "a", 60);
        assert_eq!(
            choose(&table, "b", Some(ip(10)), 0),
            Some(ip(11)),
            "it was offered"
        );
        assert_eq!(
            choose(&table, "b", Some(ip(10)), 60),
            Some(ip(10)),
            "the offer has ended"
        );
        table.grant(lease(11, "b", 0, 100));
        assert_eq!(
            choose(&table, "b", Some(ip(12)), 500),
            Some(ip(11)),
            "what it had"
        );
        table.grant(lease(10, "a", 0, 200));
        table.grant(lease(12, "c", 0, 300));
        assert_eq!(choose(&table, "d", None, 99), None, "all are leased");
        assert_eq!(
            choose(&table, "d", None, 250),
            Some(ip(11)),
            "unused for the longest time"
        );
    }

    #[test]
    fn a_client_has_one_lease_and_the_former_ends() {
        let mut table = Table::default();
        table.grant(lease(10, "a", 0, 100));
        let changed = table.grant(lease(11, "a", 50, 150));
        let all: Vec<_> = changed
            .iter()
            .map(|l| (l.address, l.held, l.until))
            .collect();
        assert_eq!(
            all,
            [(ip(10), Held::Released, 50), (ip(11), Held::Leased, 150)]
        );
        assert_eq!(table.of_client("a").unwrap().address, ip(11));
        assert!(table.is_open(ip(10), "b", 50));
    }

    #[test]
    fn what_was_stored_holds_after_a_restart() {
        let mut declined = lease(12, "c", 0, 100);
        declined.held = Held::Declined;
        let outside = lease(99, "z", 0, 100);
        let stored = vec![
            lease(11, "a", 50, 150),
            lease(10, "a", 0, 50),
            declined,
            outside,
        ];
        let table = Table::of(stored, &[pool()]);
        assert_eq!(table.of_client("a").unwrap().address, ip(11));
        assert!(table.of_client("z").is_none() && table.of_client("c").is_none());
        assert!(!table.is_open(ip(11), "b", 60) && table.is_open(ip(10), "b", 60));
        assert!(!table.is_open(ip(12), "c", 60) && table.is_open(ip(12), "c", 100));
        let count = table.count(&pool(), 60);
        assert_eq!(
            (count.size, count.leased, count.declined, count.free()),
            (3, 1, 1, 1)
        );
    }

    #[derive(Clone, Debug)]
    enum Deed {
        Ask(u8, Option<u8>),
        Take(u8),
        Release(u8),
        Wait(u8),
    }

    fn deeds() -> impl Strategy<Value = Vec<Deed>> {
        let deed = prop_oneof![
            (0..6u8, proptest::option::of(8..14u8)).prop_map(|(c, w)| Deed::Ask(c, w)),
            (0..6u8).prop_map(Deed::Take),
            (0..6u8).prop_map(Deed::Release),
            any::<u8>().prop_map(Deed::Wait),
        ];
        proptest::collection::vec(deed, 0..80)
    }

    proptest! {
        /// Whatever clients do, an address belongs to one of them, and lies in the pool.
        #[test]
        fn no_address_has_two_clients(deeds in deeds()) {
            let (pool, mut table, mut now) = (pool(), Table::default(), 0i64);
            let mut has: HashMap<u8, (Ipv4Addr, i64)> = HashMap::new();
            let mut offered: HashMap<u8, Ipv4Addr> = HashMap::new();
            for deed in deeds {
                match deed {
                    Deed::Wait(seconds) => now += i64::from(seconds),
                    Deed::Ask(client, wanted) => {
                        let name = client.to_string();
                        if let Some(address) = table.choose(&pool, &name, wanted.map(ip), now) {
                            prop_assert!(pool.holds(address));
                            let other = has.iter().find(|(c, (a, until))| **c != client && *a == address && *until > now);
                            prop_assert!(other.is_none(), "{address} is {other:?}'s");
                            table.offer(address, &name, now + 60);
                            offered.insert(client, address);
                        }
                    }
                    Deed::Take(client) => {
                        let name = client.to_string();
                        let Some(address) = offered.remove(&client).filter(|a| table.is_offered(*a, &name, now)) else { continue };
                        let mut new = lease(0, &name, now, now + 100);
                        new.address = address;
                        table.grant(new);
                        has.insert(client, (address, now + 100));
                    }
                    Deed::Release(client) => {
                        if let Some((address, _)) = has.remove(&client) {
                            table.release(address, &client.to_string(), now);
                        }
                    }
                }
                let count = table.count(&pool, now);
                prop_assert_eq!(count.leased, has.values().filter(|(_, until)| *until > now).count());
                prop_assert!(count.leased + count.offered <= count.size);
            }
        }
    }
}
