//! Whether a server of ours answers at an address, and with which key.
//!
//! Owns: the connection by way of one card, TLS with the pin, the introduction of a server
//! that is named without TLS, the limits on all of that. Does not own: where the address
//! is from ([`super`]), the check-in ([`crate::remote`]).
//!
//! Jobs go over TLS only. An address with `http` is asked where the TLS port is and which key
//! the server has; that key counts only where no pin is known (docs/explanation/trust.md).

use super::resolver::Way;
use crate::remote::{Scheme, ServerAddress};
use pinned::Pin;
use rustls::pki_types::ServerName;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use wire::Introduction;

const CONNECT: Duration = Duration::from_secs(3);
/// From the connection to the end of the answer.
const ANSWER: Duration = Duration::from_secs(10);
const MAX_ANSWER: usize = 16 << 10;
const OTHER_KEY: &str = "it has another key than the pin names";

/// A server of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Its TLS address.
    pub server: ServerAddress,
    /// The key that it has proved to have.
    pub pin: Pin,
    /// The key is known from the server itself, over HTTP.
    pub told: bool,
}

/// Why an address is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// In words.
    pub text: String,
    /// Somebody answered who is not to be used.
    pub refused: bool,
    /// Another try may end otherwise.
    pub again: bool,
}

impl Problem {
    fn refused(text: impl Into<String>) -> Self {
        Problem {
            text: text.into(),
            refused: true,
            again: false,
        }
    }

    fn silent(text: impl Into<String>) -> Self {
        Problem {
            text: text.into(),
            refused: false,
            again: true,
        }
    }
}

/// Finds out whether a server of ours answers there. With a pin it has to have that key.
///
/// # Errors
/// Why it is not to be used.
pub fn reach(server: &ServerAddress, pin: Option<&Pin>, way: &Way) -> Result<Reached, Problem> {
    if server.scheme == Scheme::Https {
        let Some(pin) = pin else {
            let text = "its key cannot be checked: no pin is known";
            return Err(Problem::refused(text));
        };
        with_pin(server, pin, way)?;
        return Ok(Reached {
            server: server.clone(),
            pin: *pin,
            told: false,
        });
    }
    let (stream, end) = connect(server, way)?;
    let answer = ask(stream, server, end)?;
    let introduction = introduction(&answer)?;
    let told = Pin::from_hex(&introduction.pin).map_err(|_| Problem::refused("it names no key"))?;
    if pin.is_some_and(|pin| *pin != told) {
        return Err(Problem::refused(OTHER_KEY));
    }
    let server = ServerAddress {
        scheme: Scheme::Https,
        host: server.host.clone(),
        port: introduction.data_port,
    };
    with_pin(&server, &told, way).map_err(|problem| Problem {
        text: format!("it sends on to {server}: {}", problem.text),
        ..problem
    })?;
    Ok(Reached {
        server,
        pin: told,
        told: pin.is_none(),
    })
}

/// TLS with this key, and an answer of our protocol.
fn with_pin(server: &ServerAddress, pin: &Pin, way: &Way) -> Result<(), Problem> {
    let (stream, end) = connect(server, way)?;
    // The name is not checked, only the key; it must not be sent for addresses.
    let name = ServerName::try_from(server.host.clone())
        .map_err(|_| Problem::refused("its name cannot be used with TLS"))?;
    let client = rustls::ClientConnection::new(pinned::client_config(pin), name)
        .map_err(|error| Problem::refused(error.to_string()))?;
    let answer = ask(rustls::StreamOwned::new(client, stream), server, end)?;
    // An older server does not introduce itself; that it speaks our protocol is enough.
    answer.speaks()
}

fn connect(server: &ServerAddress, way: &Way) -> Result<(TcpStream, Instant), Problem> {
    let addresses = way.addresses(&server.host).map_err(|why| Problem {
        again: why.may_change(),
        ..Problem::silent(why.to_string())
    })?;
    let mut problem = Problem::silent("the name has no address");
    for address in addresses {
        let to = SocketAddr::from((address, server.port));
        match way.connect(to, CONNECT) {
            Ok(stream) => return Ok((stream, Instant::now() + ANSWER)),
            Err(error) => problem = Problem::silent(told(&error, to, server)),
        }
    }
    Err(problem)
}

fn told(error: &io::Error, to: SocketAddr, server: &ServerAddress) -> String {
    let words = match error.kind() {
        io::ErrorKind::TimedOut => "no answer".to_owned(),
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "host unreachable".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        _ => error.to_string(),
    };
    // A name's address is worth telling.
    if server.host.parse() == Ok(to.ip()) {
        words
    } else {
        format!("{words} ({to})")
    }
}

/// A head and a body, as far as they are needed.
struct Answer {
    status: u16,
    protocol: Option<String>,
    body: Vec<u8>,
}

impl Answer {
    fn speaks(&self) -> Result<(), Problem> {
        let ours = wire::PROTOCOL_VERSION;
        match self.protocol.as_deref() {
            Some(theirs) if theirs.parse() == Ok(ours) => Ok(()),
            Some(theirs) => Err(Problem::refused(format!(
                "it speaks protocol {theirs}, this target {ours}"
            ))),
            None => Err(Problem::refused("what answers is no deployment server")),
        }
    }
}

fn introduction(answer: &Answer) -> Result<Introduction, Problem> {
    answer.speaks()?;
    let message = serde_json::from_slice::<Introduction>(&answer.body).ok();
    message
        .filter(|message| answer.status == 200 && message.data_port != 0)
        .ok_or_else(|| Problem::refused("the server does not say where its TLS port is"))
}

/// Sends the request and reads the answer, until `end`.
fn ask(mut stream: impl Timed, server: &ServerAddress, end: Instant) -> Result<Answer, Problem> {
    let request = format!(
        "GET {} HTTP/1.0\r\nHost: {}\r\n{}: {}\r\nConnection: close\r\n\r\n",
        wire::INTRODUCTION_PATH,
        server.host,
        wire::PROTOCOL_HEADER,
        wire::PROTOCOL_VERSION
    );
    let broken = |error: io::Error| match tls_error(&error) {
        Some(rustls::Error::InvalidCertificate(
            rustls::CertificateError::ApplicationVerificationFailure,
        )) => Problem::refused(OTHER_KEY),
        Some(error) => Problem::refused(format!("it does not speak TLS: {error}")),
        None => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                Problem::silent("it does not answer in time")
            }
            _ => Problem::silent(format!("the connection broke: {error}")),
        },
    };
    stream.limit(end).map_err(broken)?;
    stream.write_all(request.as_bytes()).map_err(broken)?;
    stream.flush().map_err(broken)?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 2048];
    while bytes.len() < MAX_ANSWER {
        stream.limit(end).map_err(broken)?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => bytes.extend(buffer.get(..len).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Many end TLS without saying so.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(broken(error)),
        }
        if complete(&bytes) {
            break;
        }
    }
    if bytes.is_empty() {
        return Err(Problem::silent("it closed the connection without a word"));
    }
    parse(&bytes).ok_or_else(|| Problem::refused("what answers does not speak HTTP"))
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref::<rustls::Error>()
}

fn complete(bytes: &[u8]) -> bool {
    let len = |headers: &[(String, String)]| -> Option<usize> {
        header(headers, "content-length")?.parse().ok()
    };
    head(bytes).is_some_and(|(_, headers, body)| len(&headers).is_some_and(|len| body.len() >= len))
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let (status, headers, body) = head(bytes)?;
    Some(Answer {
        status,
        protocol: header(&headers, wire::PROTOCOL_HEADER).map(str::to_owned),
        body: body.to_vec(),
    })
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let of_name = |(key, _): &&(String, String)| key.eq_ignore_ascii_case(name);
    headers
        .iter()
        .find(of_name)
        .map(|(_, value)| value.as_str())
}

type Headers = Vec<(String, String)>;

/// Status, headers and what of the body is there, once the head is complete.
fn head(bytes: &[u8]) -> Option<(u16, Headers, &[u8])> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (head, body) = bytes.split_at_checked(end.checked_add(4)?)?;
    let head = std::str::from_utf8(head).ok()?;
    let mut lines = head.split("\r\n");
    let (version, rest) = lines.next()?.split_once(' ')?;
    if !version.starts_with("HTTP/1.") {
        return None;
    }
    let status = rest.get(..3)?.parse().ok()?;
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .collect();
    Some((status, headers, body))
}

/// A stream that can be told until when its next step may last.
trait Timed: Read + Write {
    fn limit(&self, end: Instant) -> io::Result<()>;
}

impl Timed for TcpStream {
    fn limit(&self, end: Instant) -> io::Result<()> {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.set_read_timeout(Some(left))?;
        self.set_write_timeout(Some(left))
    }
}

impl Timed for rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
    fn limit(&self, end: Instant) -> io::Result<()> {
        self.sock.limit(end)
    }
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;
