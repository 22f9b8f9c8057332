//! The network of a target: every card that has a cable asks for an address at the same
//! time; the first from which the server can be reached is used.
//!
//! Owns: that choice, and the reports when there is nothing to choose. Does not own: DHCP
//! ([`dhcp`]), the kernel's interface ([`netlink`], [`rtnl`]), HTTP ([`crate::remote`]).

pub mod card;
pub mod configure;
pub mod dhcp;
pub mod netlink;
pub mod nics;
pub mod probe;
pub mod rtnl;

use crate::remote::{ServerAddress, parse_list};
use crate::target::cmdline::{CommandLine, NicChoice};
use card::{Shared, Word};
use configure::Configured;
use dhcp::Lease;
use nics::{Nic, Sysfs};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use wire::{Code, DiskState, Report};

/// Where name servers are written.
pub(crate) const ETC: &str = "/etc";
/// USB cards appear late.
const NIC_LIMIT: Duration = Duration::from_secs(20);
/// The slowest negotiations take some 10 s.
const LINK_LIMIT: Duration = Duration::from_secs(40);
/// From the first cable on. Spanning tree delays a link by up to 50 s; 90 s is the
/// least (spec facts, "Time limits").
const ADDRESS_LIMIT: Duration = Duration::from_secs(120);
/// From the first address on: a server that is being restarted is waited for.
const SERVER_LIMIT: Duration = Duration::from_secs(180);
const PROBE_PAUSE: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(250);

/// The way to the server.
#[derive(Debug)]
pub struct Connected {
    /// The card in use.
    pub nic: Nic,
    /// Its lease.
    pub lease: Lease,
    /// The server that answered.
    pub server: ServerAddress,
    /// Holds the thread that renews the lease.
    _keeper: Arc<Shared>,
}

/// Who wants to know what is going on: a line for the console and the log.
pub type Tell<'a> = &'a dyn Fn(&str);

struct Card {
    nic: Nic,
    shared: Arc<Shared>,
    link: bool,
    lease: Option<Lease>,
    notes: Vec<String>,
}

struct Search<'a> {
    line: &'a CommandLine,
    uuid: Option<[u8; 16]>,
    tell: Tell<'a>,
    sysfs: Sysfs,
    cards: BTreeMap<u32, Card>,
    sender: Sender<(u32, Word)>,
    words: Receiver<(u32, Word)>,
    /// Outcome of the last try of each server by way of each card.
    tried: BTreeMap<String, String>,
    in_force: Option<(u32, Configured)>,
}

/// Brings the network up and finds the server.
///
/// # Errors
/// `no-network-device`, `no-link`, `no-address` or `server-not-found`, with all that was
/// seen and tried.
pub fn connect(
    line: &CommandLine,
    uuid: Option<[u8; 16]>,
    tell: Tell<'_>,
) -> Result<Connected, Report> {
    let (sender, words) = mpsc::channel();
    let mut search = Search {
        line,
        uuid,
        tell,
        sysfs: Sysfs::default(),
        cards: BTreeMap::new(),
        sender,
        words,
        tried: BTreeMap::new(),
        in_force: None,
    };
    search.run()
}

impl Search<'_> {
    fn run(&mut self) -> Result<Connected, Report> {
        let began = Instant::now();
        let mut first_link = None;
        let mut first_lease = None;
        let mut next_probe = Instant::now();
        loop {
            self.find_cards();
            self.hear();
            let now = Instant::now();
            if self.cards.values().any(|card| card.link) {
                first_link.get_or_insert(now);
            }
            if self.cards.values().any(|card| card.lease.is_some()) {
                first_lease.get_or_insert(now);
            }
            if first_lease.is_some() && now >= next_probe {
                if let Some(connected) = self.try_servers() {
                    return Ok(connected);
                }
                next_probe = Instant::now() + PROBE_PAUSE;
            }
            let passed =
                |since: Option<Instant>, limit| since.is_some_and(|at| at.elapsed() > limit);
            if self.cards.is_empty() && began.elapsed() > NIC_LIMIT {
                return Err(self.no_device());
            }
            if first_link.is_none() && began.elapsed() > LINK_LIMIT {
                return Err(self.no_link());
            }
            if first_lease.is_none() && passed(first_link, ADDRESS_LIMIT) {
                return Err(self.no_address());
            }
            if passed(first_lease, SERVER_LIMIT) {
                return Err(self.no_server());
            }
        }
    }

    /// Starts on cards that have appeared.
    fn find_cards(&mut self) {
        for nic in self.sysfs.nics() {
            let wanted = self.line.nic.as_ref();
            if self.cards.contains_key(&nic.index)
                || wanted.is_some_and(|choice| !choice.fits(&nic.name, &nic.mac_text()))
            {
                continue;
            }
            (self.tell)(&format!(
                "network card {} {} {}",
                nic.name,
                nic.mac_text(),
                nic.driver
            ));
            let shared = card::spawn(nic.clone(), self.uuid, self.sender.clone());
            let card = Card {
                nic,
                shared,
                link: false,
                lease: None,
                notes: Vec::new(),
            };
            self.cards.insert(card.nic.index, card);
        }
    }

    /// Takes what the cards have told, waiting at most one tick.
    fn hear(&mut self) {
        let mut wait = TICK;
        loop {
            match self.words.recv_timeout(wait) {
                Ok((index, word)) => {
                    let Some(card) = self.cards.get_mut(&index) else {
                        continue;
                    };
                    match word {
                        Word::Link => {
                            card.link = true;
                            (self.tell)(&format!("network link {}", card.nic.name));
                        }
                        Word::Lease(lease) => {
                            let Lease {
                                address,
                                prefix,
                                server,
                                ..
                            } = &lease;
                            (self.tell)(&format!(
                                "network address {} {address}/{prefix} from {server}",
                                card.nic.name
                            ));
                            card.lease = Some(lease);
                        }
                        Word::Note(text) => {
                            (self.tell)(&text);
                            if card.notes.len() < 8 {
                                card.notes.push(text);
                            }
                        }
                    }
                    wait = Duration::ZERO;
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Tries every server from every card that has an address, oldest card first.
    fn try_servers(&mut self) -> Option<Connected> {
        let leases: Vec<(u32, Lease)> = self
            .cards
            .iter()
            .filter_map(|(index, card)| Some((*index, card.lease.clone()?)))
            .collect();
        for (index, lease) in leases {
            let name = self.cards.get(&index)?.nic.name.clone();
            let servers = self.servers(&lease);
            if servers.is_empty() {
                let found = "neither deploy.server= nor DHCP option 186 names a server";
                self.tried.insert(name.clone(), found.to_owned());
            }
            let configured = match self.put_in_force(index, &lease) {
                Ok(configured) => configured,
                Err(error) => {
                    self.tried
                        .insert(name, format!("configuring {}: {error}", lease.address));
                    continue;
                }
            };
            for server in servers {
                match probe::reach(&server) {
                    Ok(()) => return self.choose(index, lease, server, configured),
                    Err(problem) => {
                        let key = format!("{name} {server}");
                        if self.tried.insert(key.clone(), problem.clone()).is_none() {
                            (self.tell)(&format!("server {server} by way of {name}: {problem}"));
                        }
                    }
                }
            }
        }
        None
    }

    fn servers(&self, lease: &Lease) -> Vec<ServerAddress> {
        let announced = || parse_list(&lease.announced.join(";")).unwrap_or_default();
        let list = match self.line.servers.as_slice() {
            [] => announced(),
            given => given.to_vec(),
        };
        list.into_iter()
            .map(|server| server.in_domain(lease.domain.as_deref()))
            .collect()
    }

    /// Only one card has an address in force at a time, so that packets go its way.
    fn put_in_force(&mut self, index: u32, lease: &Lease) -> std::io::Result<Configured> {
        if let Some((current, configured)) = self.in_force {
            if current == index {
                return Ok(configured);
            }
            configure::undo(configured)?;
            self.in_force = None;
        }
        let configured = configure::apply(index, lease, Path::new(ETC))?;
        self.in_force = Some((index, configured));
        Ok(configured)
    }

    fn choose(
        &mut self,
        index: u32,
        lease: Lease,
        server: ServerAddress,
        configured: Configured,
    ) -> Option<Connected> {
        for (other, card) in &self.cards {
            card.shared.stop.store(*other != index, Ordering::Relaxed);
        }
        let card = self.cards.get(&index)?;
        *card
            .shared
            .configured
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(configured);
        (self.tell)(&format!(
            "server {server} answers by way of {}",
            card.nic.name
        ));
        Some(Connected {
            nic: card.nic.clone(),
            lease,
            server,
            _keeper: Arc::clone(&card.shared),
        })
    }

    fn no_device(&self) -> Report {
        let driverless = self.sysfs.driverless();
        let mut found = match &self.line.nic {
            Some(NicChoice::Mac(choice) | NicChoice::Name(choice)) => {
                format!("no network card fits deploy.nic={choice}")
            }
            None => "no network card is there".to_owned(),
        };
        if !driverless.is_empty() {
            let ids = driverless.join(", ");
            found.push_str(&format!("; PCI network controllers without driver: {ids}"));
        }
        report(Code::NoNetworkDevice, found)
    }

    fn no_link(&self) -> Report {
        let cards: Vec<String> = self.cards.values().map(Card::describe).collect();
        report(Code::NoLink, format!("no link at {}", cards.join(", ")))
    }

    fn no_address(&self) -> Report {
        let cards = self.cards.values().map(|card| {
            let state = if !card.link {
                "no link".to_owned()
            } else if card.notes.is_empty() {
                format!(
                    "no answer in {}",
                    wire::size::duration(ADDRESS_LIMIT.as_secs())
                )
            } else {
                card.notes.join("; ")
            };
            format!("{}: {state}", card.describe())
        });
        report(Code::NoAddress, cards.collect::<Vec<_>>().join(" | "))
    }

    fn no_server(&self) -> Report {
        let tried: Vec<String> = self
            .tried
            .iter()
            .map(|(what, how)| format!("{what}: {how}"))
            .collect();
        report(Code::ServerNotFound, tried.join(" | "))
    }
}

impl Card {
    fn describe(&self) -> String {
        format!("{} ({})", self.nic.name, self.nic.mac_text())
    }
}

fn report(code: Code, found: String) -> Report {
    Report::new(code, found, DiskState::NotInvolved)
}
