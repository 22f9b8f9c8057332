//! The network of a target: every card that has a cable gets an address at the same
//! time; the first from which the server can be reached is used.
//!
//! Owns: that choice, and the reports when there is nothing to choose. Does not own: DHCP
//! ([`dhcp`]), the kernel's interface ([`netlink`], [`rtnl`]), where the server is
//! ([`super::discovery`]).

pub mod card;
pub mod configure;
pub mod dhcp;
pub mod netlink;
pub mod nics;
mod reports;
pub mod rtnl;

use crate::remote::ServerAddress;
use crate::target::discovery::resolver::Way;
use crate::target::discovery::{self, Found, Known, Source, Tried};
use crate::target::settings::Settings;
use card::{Shared, Task, Word};
use configure::Configured;
use dhcp::{Announced, Lease, Proxy};
use nics::{Nic, Sysfs};
use pinned::Pin;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use wire::Report;

const PROBE_PAUSE: Duration = Duration::from_secs(2);
/// A server beside the DHCP server answers as quickly as that one.
const PROXY_WAIT: Duration = Duration::from_millis(1500);
const TICK: Duration = Duration::from_millis(250);
const MAX_PROXIES: usize = 4;
const MAX_NOTES: usize = 8;

/// What is looked for, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The kernel's command line.
    pub line: Settings,
    /// What a medium says, or what was typed.
    pub settings: Settings,
    /// Where that is from, in words.
    pub settings_from: String,
    /// The machine's UUID.
    pub uuid: Option<[u8; 16]>,
    /// Where name servers are written.
    pub etc: PathBuf,
    /// Nothing of this machine is changed: DHCP is only asked what it would give.
    pub only_asks: bool,
    /// How long things are waited for.
    pub patience: Patience,
}

/// How long things are waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// A card. USB cards appear late.
    pub card: Duration,
    /// A link. The slowest negotiations take some 10 s.
    pub link: Duration,
    /// An address, from the first cable on. Spanning tree delays a link by up to 50 s;
    /// 90 s is the least (spec facts, "Time limits").
    pub address: Duration,
    /// A server, from the first address on: one that is being restarted is waited for.
    pub server: Duration,
    /// The same where all who were asked have said no.
    pub refused: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            card: Duration::from_secs(20),
            link: Duration::from_secs(40),
            address: Duration::from_secs(120),
            server: Duration::from_secs(180),
            refused: Duration::from_secs(30),
        }
    }
}

/// The way to the server.
#[derive(Debug)]
pub struct Connected {
    /// The card in use.
    pub nic: Nic,
    /// Its lease.
    pub lease: Lease,
    /// The server that answered.
    pub server: ServerAddress,
    /// The key that it has.
    pub pin: Pin,
    /// Which source named it.
    pub source: Source,
    /// What was said on the way to it, by source.
    pub outcomes: Vec<(Source, String)>,
    /// Holds the thread that renews the lease.
    _keeper: Arc<Shared>,
}

/// Why there is no way to the server.
#[derive(Debug)]
pub enum NoWay {
    /// As `no-network-device`, `no-link`, `no-address`, `server-not-found` or `server-refused`, with
    /// all that was seen and tried.
    Report(Report),
    /// It was told to stop.
    Stopped,
}

/// Who wants to know what is going on: a line for the console and the log.
pub type Tell<'a> = &'a dyn Fn(&str);

struct Card {
    nic: Nic,
    shared: Arc<Shared>,
    /// The interface in use, once there is a link.
    used: Option<Nic>,
    lease: Option<Lease>,
    since: Instant,
    configured: Option<Configured>,
    proxies: Vec<Proxy>,
    notes: Vec<String>,
    /// A search is under way.
    searching: bool,
    next_search: Instant,
    /// How the last search went.
    tried: Option<Tried>,
}

enum News {
    Word(Word),
    Tried(Box<Tried>),
}

impl From<Word> for News {
    fn from(word: Word) -> Self {
        News::Word(word)
    }
}

struct Search<'a> {
    plan: &'a Plan,
    /// Command line and settings together, but for the servers.
    network: Settings,
    tell: Tell<'a>,
    sysfs: Sysfs,
    cards: BTreeMap<u32, Card>,
    sender: Sender<(u32, News)>,
    news: Receiver<(u32, News)>,
    /// Problems that were told.
    told: BTreeSet<String>,
}

/// Brings the network up and finds the server, until `stop` says so.
///
/// # Errors
/// See [`NoWay`]. No card has an address then.
pub fn connect(plan: &Plan, tell: Tell<'_>, stop: &dyn Fn() -> bool) -> Result<Connected, NoWay> {
    let (sender, news) = mpsc::channel();
    let mut search = Search {
        plan,
        network: plan.line.clone().or(&plan.settings),
        tell,
        sysfs: Sysfs::default(),
        cards: BTreeMap::new(),
        sender,
        news,
        told: BTreeSet::new(),
    };
    if let Some(problem) = &search.network.lost_pin {
        return Err(NoWay::Report(reports::lost_pin(problem)));
    }
    let outcome = search.run(stop);
    if outcome.is_err() {
        search.release(None);
    }
    outcome
}

impl Search<'_> {
    fn run(&mut self, stop: &dyn Fn() -> bool) -> Result<Connected, NoWay> {
        let began = Instant::now();
        let patience = self.plan.patience;
        let mut first_link = None;
        let mut first_lease = None;
        while !stop() {
            self.find_cards();
            if let Some((index, found)) = self.hear() {
                return self.choose(index, found).map_err(NoWay::Report);
            }
            let now = Instant::now();
            if self.cards.values().any(|card| card.used.is_some()) {
                first_link.get_or_insert(now);
            }
            if self.cards.values().any(|card| card.lease.is_some()) {
                first_lease.get_or_insert(now);
            }
            self.start_searches(now);
            let passed =
                |since: Option<Instant>, limit| since.is_some_and(|at| at.elapsed() > limit);
            let report = if self.cards.is_empty() && began.elapsed() > patience.card {
                self.no_device()
            } else if first_link.is_none() && began.elapsed() > patience.link {
                self.no_link()
            } else if first_lease.is_none() && passed(first_link, patience.address) {
                self.no_address()
            } else if passed(first_lease, patience.server)
                || passed(first_lease, patience.refused) && self.all_said_no()
            {
                self.no_server()
            } else {
                continue;
            };
            return Err(NoWay::Report(report));
        }
        Err(NoWay::Stopped)
    }

    /// Starts on cards that have appeared.
    fn find_cards(&mut self) {
        for nic in self.sysfs.chosen(self.network.nic.as_ref()) {
            if self.cards.contains_key(&nic.index) {
                continue;
            }
            (self.tell)(&format!(
                "network card {} {} {}",
                nic.name,
                nic.mac_text(),
                nic.driver
            ));
            let task = Task {
                uuid: self.plan.uuid,
                fixed: fixed_lease(&self.network),
                vlan: self.network.vlan,
                only_asks: self.plan.only_asks,
                etc: self.plan.etc.clone(),
            };
            let now = Instant::now();
            let card = Card {
                shared: card::spawn(nic.clone(), task, self.sender.clone()),
                nic,
                used: None,
                lease: None,
                since: now,
                configured: None,
                proxies: Vec::new(),
                notes: Vec::new(),
                searching: false,
                next_search: now,
                tried: None,
            };
            self.cards.insert(card.nic.index, card);
        }
    }

    /// Takes what the cards have told, waiting at most one tick. Gives the first server
    /// that answered.
    fn hear(&mut self) -> Option<(u32, Found)> {
        let mut wait = TICK;
        loop {
            let (index, news) = match self.news.recv_timeout(wait) {
                Ok(news) => news,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            };
            match news {
                News::Word(word) => self.take_word(index, word),
                News::Tried(tried) => {
                    if let Some(found) = self.take_tried(index, *tried) {
                        return Some((index, found));
                    }
                }
            }
            wait = Duration::ZERO;
        }
    }

    fn take_word(&mut self, index: u32, word: Word) {
        let Some(card) = self.cards.get_mut(&index) else {
            return;
        };
        match word {
            Word::Link(used) => {
                (self.tell)(&format!("network link {}", used.name));
                card.used = Some(used);
            }
            Word::Lease(lease) => self.take_lease(index, lease),
            Word::Proxy(proxy) => {
                if card.proxies.len() < MAX_PROXIES && !card.proxies.contains(&proxy) {
                    let said = [&proxy.announced.options[..], &proxy.announced.vendor].concat();
                    let said = said.join(", ");
                    (self.tell)(&format!("note {} offers the server {said}", proxy.server));
                    card.proxies.push(proxy);
                }
            }
            Word::Note(text) => {
                (self.tell)(&text);
                if card.notes.len() < MAX_NOTES {
                    card.notes.push(text);
                }
            }
        }
    }

    fn take_lease(&mut self, index: u32, mut lease: Lease) {
        let Some(card) = self.cards.get_mut(&index) else {
            return;
        };
        let name = card.used.as_ref().unwrap_or(&card.nic).name.clone();
        let Lease {
            address,
            prefix,
            server,
            ..
        } = &lease;
        let from = match self.network.fixed() {
            Some(_) => "the settings".to_owned(),
            None => server.to_string(),
        };
        (self.tell)(&format!(
            "network address {name} {address}/{prefix} from {from}"
        ));
        if self.network.domain.is_some() {
            lease.domain.clone_from(&self.network.domain);
        }
        if !self.network.dns.is_empty() {
            lease.dns.clone_from(&self.network.dns);
        }
        if !self.plan.only_asks {
            let used = card.used.as_ref().unwrap_or(&card.nic).index;
            let undone = card.configured.take().map_or(Ok(()), configure::undo);
            match undone.and_then(|()| configure::apply(used, &lease)) {
                Ok(configured) => card.configured = Some(configured),
                Err(error) => {
                    let text = format!("{name}: configuring {}: {error}", lease.address);
                    return self.take_word(index, Word::Note(text));
                }
            }
        }
        card.lease = Some(lease);
        card.since = Instant::now();
        card.next_search = card.since;
    }

    fn take_tried(&mut self, index: u32, tried: Tried) -> Option<Found> {
        let card = self.cards.get_mut(&index)?;
        card.searching = false;
        card.next_search = Instant::now() + PROBE_PAUSE;
        for (server, problem) in &tried.problems {
            let text = format!("server {server} by way of {}: {problem}", card.nic.name);
            if self.told.len() < 64 && !self.told.contains(&text) {
                (self.tell)(&text);
                self.told.insert(text);
            }
        }
        let found = tried.found.clone();
        card.tried = Some(tried);
        found
    }

    /// Looks for the server from every card that has an address, all at once.
    fn start_searches(&mut self, now: Instant) {
        let (line, settings) = (&self.plan.line, &self.plan.settings);
        for (index, card) in &mut self.cards {
            let (Some(lease), Some(used)) = (&card.lease, &card.used) else {
                continue;
            };
            if card.searching || now < card.next_search {
                continue;
            }
            let known = Known {
                command_line: line.servers(),
                settings: settings.servers(),
                settings_from: self.plan.settings_from.clone(),
                lease: lease.clone(),
                fixed: self.network.fixed().is_some(),
                proxies: card.proxies.clone(),
                pin: self.network.pin,
                way: Way {
                    device: Some(used.name.clone()),
                    dns: lease.dns.clone(),
                },
            };
            let proxies_may_come = !known.fixed && card.since.elapsed() < PROXY_WAIT;
            if proxies_may_come && card.proxies.is_empty() && !discovery::is_named(&known) {
                continue;
            }
            card.searching = true;
            let (sender, index) = (self.sender.clone(), *index);
            std::thread::spawn(move || {
                let tried = Box::new(discovery::search(&known));
                // Nobody listens any more once a card has been chosen.
                let _ = sender.send((index, News::Tried(tried)));
            });
        }
    }

    /// Every card that could find a server has asked everybody, and another try would
    /// be answered the same.
    fn all_said_no(&self) -> bool {
        self.cards.values().all(|card| match &card.tried {
            Some(tried) => !tried.silent,
            None => card.used.is_none(),
        })
    }

    fn choose(&mut self, index: u32, found: Found) -> Result<Connected, Report> {
        self.release(Some(index));
        let gone = || reports::report(wire::Code::Internal, "the card is gone".to_owned());
        let card = self.cards.get_mut(&index).ok_or_else(gone)?;
        let lease = card.lease.clone().ok_or_else(gone)?;
        if let Some(configured) = card.configured.take() {
            if let Err(error) = configure::name_servers(&lease, &self.plan.etc) {
                (self.tell)(&format!("note writing the name servers: {error}"));
            }
            let kept = card.shared.configured.lock();
            *kept.unwrap_or_else(PoisonError::into_inner) = Some(configured);
        }
        let server = found.reached.server;
        (self.tell)(&format!(
            "server {server} answers by way of {}",
            card.nic.name
        ));
        (self.tell)(&format!("server found by {}", found.source));
        if found.reached.told {
            let pin = found.reached.pin;
            (self.tell)(&format!(
                "note no pin was known; the server's key, as it says itself, is {pin}"
            ));
        }
        Ok(Connected {
            nic: card.nic.clone(),
            lease,
            server,
            pin: found.reached.pin,
            source: found.source,
            outcomes: card.tried.take().unwrap_or_default().outcomes,
            _keeper: Arc::clone(&card.shared),
        })
    }

    /// Ends the threads of all cards but one, and takes their addresses away.
    fn release(&mut self, but: Option<u32>) {
        for (index, card) in &mut self.cards {
            if Some(*index) == but {
                continue;
            }
            card.shared.stop.store(true, Ordering::Relaxed);
            if let Some(configured) = card.configured.take()
                && let Err(error) = configure::undo(configured)
            {
                (self.tell)(&format!(
                    "note {}: taking its address: {error}",
                    card.nic.name
                ));
            }
        }
    }
}

/// An address of the settings in the form of a lease.
fn fixed_lease(settings: &Settings) -> Option<Lease> {
    let (address, prefix) = settings.fixed()?;
    Some(Lease {
        address,
        prefix,
        routers: settings.gateway.into_iter().collect(),
        dns: settings.dns.clone(),
        domain: settings.domain.clone(),
        server: Ipv4Addr::UNSPECIFIED,
        valid: None,
        renew: Duration::MAX,
        rebind: Duration::MAX,
        announced: Announced::default(),
    })
}
