//! Requests and answers over ureq.
//!
//! Owns: headers, statuses, limits on what is read. Does not own: routes, retries.

use super::body::Body;
use super::failure::{self, Failure};
use pinned::{Stop, Timeouts};
use std::io::{Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Longest explanation that is read with an error status.
const MAX_EXPLANATION: u64 = 64 << 10;

/// An agent for plain HTTP: no redirects, no proxy, as for TLS.
pub(super) fn plain_agent(timeouts: Timeouts) -> ureq::Agent {
    ureq::AgentBuilder::new()
        .redirects(0)
        .try_proxy_from_env(false)
        .timeout_connect(timeouts.connect)
        .timeout_read(timeouts.read)
        .timeout_write(timeouts.write)
        // The client forgets its limits on a connection that it uses again.
        .max_idle_connections(0)
        .build()
}

/// The way to one server.
pub(super) struct Link {
    pub agent: ureq::Agent,
    /// `https://host:port`
    pub base: String,
    /// It has answered at least once.
    pub reached: Arc<AtomicBool>,
    /// Whether the job is to stop.
    pub stop: Stop,
}

/// A good answer whose body has not been read yet.
pub(super) struct Reply<'a> {
    response: ureq::Response,
    url: String,
    link: &'a Link,
}

impl Link {
    pub fn get(&self, token: Option<&str>, path: &str) -> Result<Reply<'_>, Failure> {
        let (request, url) = self.request("GET", token, path);
        self.answer(request.call(), url)
    }

    pub fn post(&self, token: Option<&str>, path: &str, body: &[u8]) -> Result<Reply<'_>, Failure> {
        self.send("POST", token, path, body.len() as u64, Cursor::new(body))
    }

    pub fn send(
        &self,
        method: &str,
        token: Option<&str>,
        path: &str,
        len: u64,
        body: impl Read,
    ) -> Result<Reply<'_>, Failure> {
        let (request, url) = self.request(method, token, path);
        let request = request
            .set("Content-Type", "application/octet-stream")
            .set("Content-Length", &len.to_string());
        self.answer(request.send(body.take(len)), url)
    }

    fn request(&self, method: &str, token: Option<&str>, path: &str) -> (ureq::Request, String) {
        let url = format!("{}{path}", self.base);
        let mut request = self
            .agent
            .request(method, &url)
            .set(wire::PROTOCOL_HEADER, &wire::PROTOCOL_VERSION.to_string());
        if let Some(token) = token {
            request = request.set("Authorization", &format!("Bearer {token}"));
        }
        (request, url)
    }

    fn answer(
        &self,
        result: Result<ureq::Response, ureq::Error>,
        url: String,
    ) -> Result<Reply<'_>, Failure> {
        // A server that refuses was reached, too.
        crate::alive::sign();
        match result {
            Ok(response) => {
                let version = response.header(wire::PROTOCOL_HEADER);
                if version.and_then(|v| v.trim().parse().ok()) != Some(wire::PROTOCOL_VERSION) {
                    return Err(failure::not_our_server(&self.base, version));
                }
                self.reached.store(true, Ordering::Relaxed);
                // Redirects are not followed, and a 3xx is no success.
                if !(200..300).contains(&response.status()) {
                    return Err(failure::from_status(&url, response.status(), &[]));
                }
                Ok(Reply {
                    response,
                    url,
                    link: self,
                })
            }
            Err(ureq::Error::Status(status, response)) => {
                let mut explanation = Vec::new();
                // What arrives before a break is as good an explanation as there is.
                let _ = response
                    .into_reader()
                    .take(MAX_EXPLANATION)
                    .read_to_end(&mut explanation);
                Err(failure::from_status(&url, status, &explanation))
            }
            Err(error) => {
                let reached = self.reached.load(Ordering::Relaxed);
                Err(failure::from_transport(&self.base, &error, reached))
            }
        }
    }
}

impl Reply<'_> {
    /// A control message.
    pub fn json<T: serde::de::DeserializeOwned>(self) -> Result<T, Failure> {
        let base = self.link.base.clone();
        let bytes = self.bytes(wire::MAX_MESSAGE_BYTES)?;
        serde_json::from_slice(&bytes).map_err(|error| {
            let found = format!("{base} sent a message that cannot be understood: {error}");
            Failure::Final(failure::report(wire::Code::ServerRefused, found))
        })
    }

    /// An answer without content; what there is is read, so that the connection can be
    /// used again.
    pub fn empty(self) -> Result<(), Failure> {
        self.bytes(wire::MAX_MESSAGE_BYTES).map(|_| ())
    }

    /// An answer of a known length.
    pub fn exactly(self, len: usize) -> Result<Vec<u8>, Failure> {
        let url = self.url.clone();
        let bytes = self.bytes(len)?;
        if bytes.len() == len {
            Ok(bytes)
        } else {
            let found = format!("{url} answered with {} bytes instead of {len}", bytes.len());
            Err(Failure::Final(failure::report(
                wire::Code::ServerRefused,
                found,
            )))
        }
    }

    /// An answer that the caller reads.
    pub fn stream(self) -> Result<Body, Failure> {
        let len = self
            .response
            .header("content-length")
            .and_then(|v| v.trim().parse().ok());
        let chunked = self.response.header("transfer-encoding").is_some();
        if len.is_none() && !chunked {
            // Its end could not be told from a broken connection.
            let found = format!("{} answered without a length", self.url);
            return Err(Failure::Final(failure::report(
                wire::Code::ServerRefused,
                found,
            )));
        }
        let stop = Arc::clone(&self.link.stop);
        Ok(Body::new(self.response.into_reader(), self.url, len, stop))
    }

    fn bytes(self, limit: usize) -> Result<Vec<u8>, Failure> {
        let url = self.url;
        let mut bytes = Vec::new();
        let mut reader = self.response.into_reader().take(limit as u64 + 1);
        reader
            .read_to_end(&mut bytes)
            .map_err(|error| failure::from_body(&url, &error))?;
        if bytes.len() > limit {
            let found = format!("{url} answered with more than {limit} bytes");
            return Err(Failure::Final(failure::report(
                wire::Code::ServerRefused,
                found,
            )));
        }
        Ok(bytes)
    }
}
