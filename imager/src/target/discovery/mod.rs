//! Where the server is: six sources, asked in one order by way of one network card.
//!
//! Owns: the order, what each source says, the list of outcomes. Does not own: the cards
//! ([`super::net`]), connections ([`probe`]), messages of name servers ([`dns`]).
//!
//! 1. the kernel's command line
//! 2. DHCP options
//! 3. settings of a medium, or typed
//! 4. what is offered to our vendor class, by the DHCP server or one beside it
//! 5. the DNS service `_deploy._tcp` of the domain
//! 6. the DNS host `deploy` of the domain, by HTTP
//!
//! A source's servers are tried in its own order; where none answers, the next source is
//! asked. A pin that is known counts for all of them.

pub mod dns;
pub mod probe;
pub mod resolver;
pub mod srv;

use super::net::dhcp::{Lease, Proxy};
use crate::remote::{Scheme, ServerAddress, parse_list};
use dns::{Kind, Record};
use pinned::Pin;
use probe::Reached;
use resolver::Way;
use std::fmt;

/// Servers of one source that are tried.
const MAX_SERVERS: usize = 16;

/// Where an address of the server can come from, in the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// `deploy.server=`
    CommandLine,
    /// Options 186, 190, 192, 187.
    DhcpOptions,
    /// A file on a medium, or what was typed.
    Settings,
    /// What is offered to our vendor class.
    VendorClass,
    /// `_deploy._tcp.DOMAIN`
    DnsService,
    /// `deploy.DOMAIN`
    DnsHost,
}

impl Source {
    /// All of them, in order.
    pub const ALL: [Source; 6] = [
        Source::CommandLine,
        Source::DhcpOptions,
        Source::Settings,
        Source::VendorClass,
        Source::DnsService,
        Source::DnsHost,
    ];
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Source::CommandLine => "command line",
            Source::DhcpOptions => "DHCP options",
            Source::Settings => "settings",
            Source::VendorClass => "vendor class",
            Source::DnsService => "DNS service",
            Source::DnsHost => "DNS host",
        })
    }
}

/// What is known where a search begins.
#[derive(Clone, Debug)]
pub struct Known {
    /// Servers of the kernel's command line.
    pub command_line: Vec<ServerAddress>,
    /// Servers of the settings.
    pub settings: Vec<ServerAddress>,
    /// Where the settings are from, in words.
    pub settings_from: String,
    /// The card's address and what came with it.
    pub lease: Lease,
    /// Nobody was asked for the address.
    pub fixed: bool,
    /// What servers beside the address server offer.
    pub proxies: Vec<Proxy>,
    /// The key that the server has to have.
    pub pin: Option<Pin>,
    /// The card.
    pub way: Way,
}

/// A server that answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which source named it.
    pub source: Source,
    /// The server.
    pub reached: Reached,
}

/// How a search went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// The server, if one answered.
    pub found: Option<Found>,
    /// What each source that was asked said, and what became of it.
    pub outcomes: Vec<(Source, String)>,
    /// Servers that are not used, and why.
    pub problems: Vec<(ServerAddress, String)>,
    /// A server answered that is not to be used.
    pub refused: bool,
    /// Somebody did not answer; perhaps later.
    pub silent: bool,
}

/// What a source says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Nothing(String),
    /// Nothing yet; another try may bring more.
    Silence(String),
    Servers(Vec<ServerAddress>),
}

/// Asks all sources, in order, until a server answers.
pub fn search(known: &Known) -> Tried {
    let mut tried = Tried::default();
    for source in Source::ALL {
        let servers = match ask(source, known) {
            Said::Nothing(why) => {
                tried.outcomes.push((source, why));
                continue;
            }
            Said::Silence(why) => {
                tried.silent = true;
                tried.outcomes.push((source, why));
                continue;
            }
            Said::Servers(servers) => servers,
        };
        let mut became = Vec::new();
        for server in servers.into_iter().take(MAX_SERVERS) {
            match probe::reach(&server, known.pin.as_ref(), &known.way) {
                Ok(reached) => {
                    became.push(format!("{server} answers"));
                    tried.outcomes.push((source, became.join(", ")));
                    tried.found = Some(Found { source, reached });
                    return tried;
                }
                Err(problem) => {
                    tried.refused |= problem.refused;
                    tried.silent |= problem.again;
                    became.push(format!("{server}: {}", problem.text));
                    tried.problems.push((server, problem.text));
                }
            }
        }
        tried.outcomes.push((source, became.join(", ")));
    }
    tried
}

/// The list of outcomes as one sentence.
pub fn sentence(outcomes: &[(Source, String)]) -> String {
    let list: Vec<String> = outcomes
        .iter()
        .map(|(source, said)| format!("{source}: {said}"))
        .collect();
    list.join("; ")
}

/// Whether the first three sources, which need not be waited for, name a server.
pub fn is_named(known: &Known) -> bool {
    let first = [Source::CommandLine, Source::DhcpOptions, Source::Settings];
    let named = |source: &Source| matches!(ask(*source, known), Said::Servers(_));
    first.iter().any(named)
}

fn ask(source: Source, known: &Known) -> Said {
    let lease = &known.lease;
    match source {
        Source::CommandLine => given(known, &known.command_line, || "not given".to_owned()),
        Source::DhcpOptions => announced(known, &lease.announced.options),
        Source::Settings => given(known, &known.settings, || known.settings_from.clone()),
        Source::VendorClass => {
            let own = lease.announced.vendor.iter();
            let beside = known.proxies.iter().map(|proxy| &proxy.announced);
            let beside = beside.flat_map(|what| what.options.iter().chain(&what.vendor));
            let list: Vec<String> = own.chain(beside).cloned().collect();
            announced(known, &list)
        }
        Source::DnsService => match &lease.domain {
            Some(domain) => service(known, &format!("_deploy._tcp.{domain}")),
            None => Said::Nothing("no domain is known".to_owned()),
        },
        Source::DnsHost => match &lease.domain {
            Some(domain) => Said::Servers(vec![ServerAddress {
                scheme: Scheme::Http,
                host: format!("deploy.{domain}").to_ascii_lowercase(),
                port: 80,
            }]),
            None => Said::Nothing("no domain is known".to_owned()),
        },
    }
}

fn given(known: &Known, list: &[ServerAddress], nothing: impl Fn() -> String) -> Said {
    if list.is_empty() {
        return Said::Nothing(nothing());
    }
    let domain = known.lease.domain.as_deref();
    let list = list.iter().map(|server| server.clone().in_domain(domain));
    Said::Servers(list.collect())
}

fn announced(known: &Known, texts: &[String]) -> Said {
    let nothing = || match known.fixed {
        true => "not asked (the address is fixed)".to_owned(),
        false => "not offered".to_owned(),
    };
    // Each was read by these rules before, so none is refused.
    let list = parse_list(&texts.join(";")).unwrap_or_default();
    given(known, &list, nothing)
}

fn service(known: &Known, name: &str) -> Said {
    let records = match known.way.ask(name, Kind::Srv) {
        Ok(records) => records,
        Err(why) if why.may_change() => return Said::Silence(format!("{name}: {why}")),
        Err(why) => return Said::Nothing(format!("{name}: {why}")),
    };
    let services = records.into_iter().filter_map(|record| match record {
        Record::Srv(srv) => Some(srv),
        Record::A(_) => None,
    });
    // Without random numbers the order is still one of those that are allowed.
    let random = |most: u32| {
        let number = u64::from(getrandom::u32().unwrap_or(0));
        u32::try_from(number % (u64::from(most) + 1)).unwrap_or(most)
    };
    let ordered = srv::order(services.collect(), random);
    let list: Vec<ServerAddress> = ordered
        .into_iter()
        .map(|srv| ServerAddress {
            scheme: match srv.port {
                80 => Scheme::Http,
                _ => Scheme::Https,
            },
            host: srv.target,
            port: srv.port,
        })
        .collect();
    if list.is_empty() {
        Said::Nothing(format!("{name}: the domain says that it has none"))
    } else {
        Said::Servers(list)
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
