//! The connection of `deployctl` to its server.
//!
//! Owns: address, pin, token, versions, and errors in words. Does not own: commands.

use crate::http::VERSION_HEADER;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;
use std::time::Duration;
use wire::{Code, DiskState, PROTOCOL_HEADER, PROTOCOL_VERSION, Report, SOFTWARE_VERSION};

/// Talks to one server.
pub struct Client {
    agent: ureq::Agent,
    base: String,
    token: String,
}

/// Why a command failed, with its exit code.
#[derive(Debug)]
pub struct Problem {
    /// What people read.
    pub report: Box<Report>,
    /// 1 failed while working, 2 wrong usage, 3 refused.
    pub exit: u8,
}

impl Problem {
    /// A problem of the command line itself.
    pub fn usage(found: impl Into<String>) -> Self {
        Problem {
            report: Box::new(Report::new(Code::Usage, found, DiskState::NotInvolved)),
            exit: 2,
        }
    }

    /// A problem with the exit code that fits its code.
    pub fn new(code: Code, found: impl Into<String>) -> Self {
        Problem::from_report(Report::new(code, found, DiskState::NotInvolved))
    }

    fn from_report(report: Report) -> Self {
        let exit = match report.code.outcome() {
            wire::codes::Outcome::Refused | wire::codes::Outcome::Waiting => 3,
            wire::codes::Outcome::Failed | wire::codes::Outcome::Warning => 1,
        };
        Problem {
            report: Box::new(report),
            exit,
        }
    }

    /// Replaces the catalogue's advice.
    pub fn with_advice(mut self, advice: impl Into<String>) -> Self {
        self.report.advice = advice.into();
        self
    }
}

/// Result of a command.
pub type Answer<T> = Result<T, Problem>;

impl Client {
    /// A client for `server` (`https://host:port`, or `http://` on this host). The pin is
    /// needed for https.
    ///
    /// # Errors
    /// The address is none, or secrets would go over a network in the clear.
    pub fn new(server: &str, pin: Option<pinned::Pin>, token: String) -> Answer<Self> {
        let base = server.trim_end_matches('/').to_owned();
        // A verification or deletion may take long without a byte; the server's own limits hold.
        let timeouts = pinned::Timeouts {
            read: Duration::from_secs(24 * 3600),
            ..pinned::Timeouts::default()
        };
        let agent = if base.starts_with("https://") {
            let pin = pin.ok_or_else(|| {
                Problem::usage("the server's pin is not known")
                    .with_advice("Give --pin, or --state on the server's own host; deployd prints its pin at the start.")
            })?;
            pinned::agent(&pin, timeouts)
        } else if let Some(rest) = base.strip_prefix("http://") {
            let host = rest.rsplit_once(':').map_or(rest, |(host, _)| host);
            let local = host
                .trim_matches(['[', ']'])
                .parse()
                .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
            if !local {
                return Err(Problem::usage(format!(
                    "{base}: without TLS the token would go over the network in the clear"
                ))
                .with_advice("Use https, or http with 127.0.0.1 on the server's own host."));
            }
            ureq::AgentBuilder::new()
                .try_proxy_from_env(false)
                .redirects(0)
                .timeout_connect(timeouts.connect)
                .timeout_read(timeouts.read)
                .build()
        } else {
            return Err(
                Problem::usage(format!("{server:?} is no address of a server"))
                    .with_advice("An address is https://host:26501."),
            );
        };
        Ok(Client { agent, base, token })
    }

    /// Reads something.
    ///
    /// # Errors
    /// As the server says, or it is not reached.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Answer<T> {
        self.receive(self.request("GET", path).call())
    }

    /// Changes something.
    ///
    /// # Errors
    /// As the server says, or it is not reached.
    pub fn post<T: DeserializeOwned>(&self, path: &str, message: &impl Serialize) -> Answer<T> {
        self.receive(self.request("POST", path).send_json(message))
    }

    /// Changes something that has no answer.
    ///
    /// # Errors
    /// As the server says, or it is not reached.
    pub fn post_silent(&self, path: &str, message: &impl Serialize) -> Answer<()> {
        self.checked(self.request("POST", path).send_json(message))
            .map(drop)
    }

    /// Sets something that has no answer.
    ///
    /// # Errors
    /// As the server says, or it is not reached.
    pub fn put_silent(&self, path: &str, message: &impl Serialize) -> Answer<()> {
        self.checked(self.request("PUT", path).send_json(message))
            .map(drop)
    }

    /// Reads something long as a stream; one that breaks off ends with an error.
    ///
    /// # Errors
    /// As the server says, or it is not reached.
    pub fn download(&self, path: &str) -> Answer<impl std::io::Read + use<>> {
        let response = self.checked(self.request("GET", path).call())?;
        Ok(response.into_reader())
    }

    /// Sends something long of a known length in bytes.
    ///
    /// # Errors
    /// As the server says, or it is not reached.
    pub fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        length: u64,
        body: impl std::io::Read,
    ) -> Answer<T> {
        let request = self
            .request("POST", path)
            .set("content-type", "application/octet-stream")
            .set("content-length", &length.to_string());
        self.receive(request.send(std::io::Read::take(body, length)))
    }

    /// Deletes something.
    ///
    /// # Errors
    /// As the server says, or it is not reached.
    pub fn delete(&self, path: &str) -> Answer<()> {
        self.checked(self.request("DELETE", path).call()).map(drop)
    }

    fn request(&self, method: &str, path: &str) -> ureq::Request {
        self.agent
            .request(method, &format!("{}/api{path}", self.base))
            .set("authorization", &format!("Bearer {}", self.token))
            .set(PROTOCOL_HEADER, &PROTOCOL_VERSION.to_string())
    }

    fn receive<T: DeserializeOwned>(
        &self,
        result: Result<ureq::Response, ureq::Error>,
    ) -> Answer<T> {
        let response = self.checked(result)?;
        response.into_json().map_err(|e| {
            Problem::new(
                Code::ConnectionLost,
                format!("the answer of {} cannot be read: {e}", self.base),
            )
        })
    }

    fn checked(&self, result: Result<ureq::Response, ureq::Error>) -> Answer<ureq::Response> {
        match result {
            Ok(response) => {
                self.fits(&response)?;
                Ok(response)
            }
            Err(ureq::Error::Status(status, response)) => {
                self.fits(&response)?;
                match response.into_json::<Report>() {
                    Ok(report) => {
                        let mut problem = Problem::from_report(report);
                        if problem.report.code == Code::Usage && matches!(status, 400 | 404) {
                            problem.exit = 2;
                        }
                        Err(problem)
                    }
                    Err(_) => Err(Problem::new(
                        Code::ServerRefused,
                        format!("{} answers with status {status}", self.base),
                    )),
                }
            }
            Err(error) if pinned::is_pin_mismatch(&error) => Err(Problem::new(
                Code::ServerRefused,
                format!(
                    "the server at {} has another key than the pin says",
                    self.base
                ),
            )
            .with_advice("Check the address and the pin; somebody may pretend to be the server.")),
            Err(error) => Err(Problem::new(
                Code::ServerNotFound,
                format!("{}: {error}", self.base),
            )),
        }
    }

    /// A server of another version is an error, never silence (features E9).
    fn fits(&self, response: &ureq::Response) -> Answer<()> {
        let protocol = response.header(PROTOCOL_HEADER);
        let version = response.header(VERSION_HEADER);
        let (Some(protocol), Some(version)) = (protocol, version) else {
            return Err(
                Problem::new(Code::ServerRefused, format!("{} is no deployd", self.base))
                    .with_advice("Check address and port."),
            );
        };
        if protocol == PROTOCOL_VERSION.to_string() && series(version) == series(SOFTWARE_VERSION) {
            return Ok(());
        }
        Err(Problem::new(
            Code::ServerRefused,
            format!("the server has version {version} (protocol {protocol}), this deployctl {SOFTWARE_VERSION} (protocol {PROTOCOL_VERSION})"),
        )
        .with_advice("Use the deployctl of the server's version."))
    }
}

/// The part of a version that must be equal: major and minor number.
fn series(version: &str) -> (Option<&str>, Option<&str>) {
    let mut parts = version.split('.');
    (parts.next(), parts.next())
}

/// Percent-encodes a name for a path.
pub fn encode(name: &str) -> String {
    name.bytes()
        .map(|b| match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(b).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// The pin and the token from their files or options.
///
/// # Errors
/// A file that was named cannot be read, or the token is nowhere.
pub fn secrets(
    state: &Path,
    pin: Option<&str>,
    token_file: Option<&Path>,
) -> Answer<(Option<pinned::Pin>, String)> {
    let bad_pin = |e: pinned::PinError| Problem::usage(e.to_string());
    let pin = match pin {
        Some(text) => Some(pinned::Pin::from_hex(text).map_err(bad_pin)?),
        None => match std::fs::read_to_string(state.join(crate::secrets::PIN_FILE)) {
            Ok(text) => Some(pinned::Pin::from_hex(&text).map_err(bad_pin)?),
            Err(_) => None,
        },
    };
    let path = token_file.map_or_else(
        || state.join(crate::secrets::ADMIN_TOKEN_FILE),
        Path::to_owned,
    );
    let token = std::fs::read_to_string(&path).map_err(|e| {
        Problem::usage(format!("the token {}: {e}", path.display()))
            .with_advice("Give --token-file, or run this as the server's user.")
    })?;
    Ok((pin, token.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::{Client, encode, series};

    #[test]
    fn names_are_encoded_for_paths() {
        assert_eq!(encode("pc-1"), "pc-1");
        assert_eq!(encode("a b/ü?"), "a%20b%2F%C3%BC%3F");
    }

    #[test]
    fn a_token_never_goes_over_a_network_in_the_clear() {
        for server in [
            "http://192.168.1.1:26500",
            "http://server",
            "ftp://127.0.0.1",
            "nonsense",
            "https://127.0.0.1:26501",
        ] {
            assert!(Client::new(server, None, "t".into()).is_err(), "{server}");
        }
        for server in ["http://127.0.0.1:26500", "http://[::1]:26500/"] {
            assert!(Client::new(server, None, "t".into()).is_ok(), "{server}");
        }
    }

    #[test]
    fn patches_fit_and_other_series_do_not() {
        assert_eq!(series("0.1.7"), series("0.1.0"));
        assert_ne!(series("0.2.0"), series("0.1.0"));
    }
}
