//! Asking name servers by way of one network card.
//!
//! Owns: sockets that are bound to a card, the time that a question may take. Does not own:
//! messages ([`super::dns`]).

use super::dns::{self, Kind, NoAnswer, Record};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

const PORT: u16 = 53;
/// How long one server is waited for, twice each.
const WAIT: Duration = Duration::from_millis(1500);
const ROUNDS: usize = 2;
/// As the C library: more are not asked.
const MAX_SERVERS: usize = 3;
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 4;

/// A way into the network: one card, and the name servers that are known there.
#[derive(Clone, Debug, Default)]
pub struct Way {
    /// The card's name; without one the kernel's routes decide.
    pub device: Option<String>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
}

/// Why a name has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// Nobody to ask.
    #[error("no name server is known")]
    NoServer,
    /// No host name.
    #[error("{0:?} is no host name")]
    Name(String),
    /// Nobody answers.
    #[error("no answer from the name server {0}")]
    TimedOut(String),
    /// The answer says no.
    #[error("{1} (name server {0})")]
    No(Ipv4Addr, NoAnswer),
    /// The socket's.
    #[error("asking the name server {0}: {1}")]
    Failed(Ipv4Addr, String),
}

impl Unanswered {
    /// Whether the same question may be answered otherwise a little later.
    pub fn may_change(&self) -> bool {
        match self {
            Unanswered::TimedOut(_) | Unanswered::Failed(..) => true,
            Unanswered::No(_, no) => matches!(no, NoAnswer::Refused(_)),
            Unanswered::NoServer | Unanswered::Name(_) => false,
        }
    }
}

impl Way {
    /// Connects by this way.
    ///
    /// # Errors
    /// The kernel's.
    pub fn connect(&self, to: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
        let socket = self.socket(Domain::for_address(to), Type::STREAM, Protocol::TCP)?;
        socket.connect_timeout(&to.into(), limit)?;
        Ok(socket.into())
    }

    fn socket(&self, domain: Domain, kind: Type, protocol: Protocol) -> io::Result<Socket> {
        let socket = Socket::new(domain, kind, Some(protocol))?;
        if let Some(device) = &self.device {
            socket.bind_device(Some(device.as_bytes()))?;
        }
        Ok(socket)
    }

    /// Addresses of a host: of a name, or what is an address already.
    ///
    /// # Errors
    /// Why there is none.
    pub fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Unanswered> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![address]);
        }
        if host.eq_ignore_ascii_case("localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into()]);
        }
        let records = self.ask(host, Kind::A)?;
        let addresses = records.iter().filter_map(|record| match record {
            Record::A(address) => Some(IpAddr::V4(*address)),
            Record::Srv(_) => None,
        });
        Ok(addresses.take(MAX_ADDRESSES).collect())
    }

    /// Asks the name servers in turn; the first that answers is believed.
    ///
    /// # Errors
    /// What the last one said, or did not say.
    pub fn ask(&self, name: &str, kind: Kind) -> Result<Vec<Record>, Unanswered> {
        let mut last = Unanswered::NoServer;
        for _ in 0..ROUNDS {
            for server in self.dns.iter().take(MAX_SERVERS) {
                match self.ask_one(*server, name, kind) {
                    Err(Unanswered::No(server, NoAnswer::Refused(code))) => {
                        last = Unanswered::No(server, NoAnswer::Refused(code));
                    }
                    Err(problem @ (Unanswered::TimedOut(_) | Unanswered::Failed(..))) => {
                        last = problem;
                    }
                    answered => return answered,
                }
            }
        }
        Err(last)
    }

    fn ask_one(&self, server: Ipv4Addr, name: &str, kind: Kind) -> Result<Vec<Record>, Unanswered> {
        let failed = |error: io::Error| Unanswered::Failed(server, error.to_string());
        let random = getrandom::u32().map_err(|error| failed(io::Error::other(error.to_string())));
        // The low half.
        let id = (random? & 0xffff) as u16;
        let question =
            dns::question(id, name, kind).ok_or_else(|| Unanswered::Name(name.to_owned()))?;
        let to = SocketAddr::from((server, PORT));
        let socket: UdpSocket = self
            .socket(Domain::IPV4, Type::DGRAM, Protocol::UDP)
            .map_err(failed)?
            .into();
        // Connected: only this server's answers come in.
        socket.connect(to).map_err(failed)?;
        socket.send(&question).map_err(failed)?;
        let end = Instant::now() + WAIT;
        let mut buffer = [0; dns::MAX_MESSAGE];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Unanswered::TimedOut(server.to_string()));
            }
            socket.set_read_timeout(Some(left)).map_err(failed)?;
            let len = match socket.recv(&mut buffer) {
                Ok(len) => len,
                Err(error) if is_timeout(&error) => continue,
                Err(error) => return Err(failed(error)),
            };
            match dns::answer(buffer.get(..len).unwrap_or_default(), &question) {
                Ok(records) => return Ok(records),
                // Perhaps a late answer to an earlier question, or a forged one.
                Err(NoAnswer::Other | NoAnswer::Malformed) => {}
                Err(no) => return Err(Unanswered::No(server, no)),
            }
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

#[cfg(test)]
mod tests {
    use super::{Unanswered, Way};
    use std::net::IpAddr;

    #[test]
    fn addresses_are_not_asked_for() {
        let way = Way::default();
        for (host, address) in [
            ("10.0.0.1", "10.0.0.1"),
            ("fd00::1", "fd00::1"),
            ("localhost", "127.0.0.1"),
        ] {
            let wanted: IpAddr = address.parse().unwrap();
            assert_eq!(way.addresses(host), Ok(vec![wanted]));
        }
        assert_eq!(way.addresses("deploy"), Err(Unanswered::NoServer));
    }
}
