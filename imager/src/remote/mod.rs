//! The client side of the conversation with the server: HTTP over TLS with a pinned key.
//!
//! Owns: one method for each route of the data port, what failures of the connection
//! mean, and how long is tried again. Does not own: the messages (`wire`), the order in
//! which they are sent, or what happens to the disk.
//!
//! A [`Remote`] is cheap to clone and used from many threads at once; each request in
//! flight has a connection of its own. Every route is idempotent, so every request is
//! tried again until it is answered, the time for it is used up, or the job is
//! interrupted. Streams that break half-way cannot be continued here: the caller asks
//! for what it still lacks and paces itself with [`Remote::retry`].

mod address;
mod body;
mod cast;
mod failure;
mod http;
mod retry;
#[cfg(test)]
mod tests;
mod text;

pub use address::{AddressError, Scheme, ServerAddress, parse_list, parse_list_with};
pub use body::Body;
pub use failure::Failure;
pub use retry::{Observer, Retry, Retrying, Unobserved};

use pinned::{Pin, Stop, Timeouts};
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use text::{escape_segment, newest_part};
use wire::{
    BeginWrite, CheckIn, CheckInReply, Code, DiskCheck, DiskState, Finish, FinishReply, OldTables,
    Progress, ProgressReply, Published, Report, Reread, ScriptResult, Stored,
};

/// How long data and final states are tried again: a restart or an update of the server
/// must not cost a job.
pub const RETRY_FOR: Duration = Duration::from_secs(600);

/// Settings of a [`Remote`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Limits of a single request.
    pub timeouts: Timeouts,
    /// How long a request is tried again.
    pub retry_for: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            timeouts: Timeouts::default(),
            retry_for: RETRY_FOR,
        }
    }
}

/// A conversation with one server.
#[derive(Clone)]
pub struct Remote {
    way: Arc<Way>,
    link: Arc<http::Link>,
    job: Option<Arc<JobPath>>,
    observer: Arc<dyn Observer>,
    retry_for: Duration,
}

/// How the server is reached.
struct Way {
    address: ServerAddress,
    pin: Option<Pin>,
    timeouts: Timeouts,
    /// It has answered at least once.
    reached: Arc<AtomicBool>,
}

impl Way {
    /// Connections of their own. What waits on one gives up when `observer` says that the
    /// job is to stop (without TLS only between bytes).
    fn link(&self, timeouts: Timeouts, observer: &Arc<dyn Observer>) -> Arc<http::Link> {
        let observer = Arc::clone(observer);
        let stop: Stop = Arc::new(move || observer.cancelled());
        let agent = match (self.address.scheme, &self.pin) {
            (Scheme::Https, Some(pin)) => pinned::agent_until(pin, timeouts, Arc::clone(&stop)),
            _ => http::plain_agent(timeouts),
        };
        Arc::new(http::Link {
            agent,
            base: self.address.to_string(),
            reached: Arc::clone(&self.reached),
            stop,
        })
    }
}

/// What the routes of one execution have in common.
#[derive(Clone)]
struct JobPath {
    prefix: String,
    token: String,
    /// Which disk of several is meant.
    part: u32,
}

impl Remote {
    /// A conversation with the server at `address`. HTTPS wants the pin of its key.
    ///
    /// # Errors
    /// `usage` if the address is HTTPS and there is no pin: there is nothing else by
    /// which a target could know its server.
    pub fn new(
        address: &ServerAddress,
        pin: Option<&Pin>,
        options: &Options,
    ) -> Result<Self, Report> {
        if address.scheme == Scheme::Https && pin.is_none() {
            let found = format!("{address} is an HTTPS address, but no deploy.pin= was given");
            return Err(Report::new(Code::Usage, found, DiskState::NotInvolved)
                .with_advice("Give the server's pin, which deployd prints when it starts."));
        }
        let way = Arc::new(Way {
            address: address.clone(),
            pin: pin.copied(),
            timeouts: options.timeouts,
            reached: Arc::new(AtomicBool::new(false)),
        });
        let observer: Arc<dyn Observer> = Arc::new(Unobserved);
        Ok(Remote {
            link: way.link(options.timeouts, &observer),
            way,
            job: None,
            observer,
            retry_for: options.retry_for,
        })
    }

    /// The same conversation, for the routes of one execution.
    #[must_use]
    pub fn for_job(&self, execution: &str, token: &str) -> Self {
        let prefix = format!("/v1/executions/{}", escape_segment(execution));
        Remote {
            job: Some(Arc::new(JobPath {
                prefix,
                token: token.to_owned(),
                part: 0,
            })),
            ..self.clone()
        }
    }

    /// Which disk of a job of several it is about.
    pub fn part(&self) -> u32 {
        self.job.as_ref().map_or(0, |job| job.part)
    }

    /// The same conversation about disk `part` of a job of several.
    #[must_use]
    pub fn for_part(&self, part: u32) -> Self {
        let path = self.job.as_ref().map(|job| JobPath {
            part,
            ..job.as_ref().clone()
        });
        Remote {
            job: path.map(Arc::new),
            ..self.clone()
        }
    }

    /// The same conversation over connections of its own, whose retries are told to
    /// `observer`, and which ends when that says so.
    #[must_use]
    pub fn observed_by(&self, observer: Arc<dyn Observer>) -> Self {
        Remote {
            link: self.way.link(self.way.timeouts, &observer),
            observer,
            ..self.clone()
        }
    }

    /// The same conversation over connections of its own, which ends when `stop` is set, too.
    #[must_use]
    pub fn until(&self, stop: Arc<AtomicBool>) -> Self {
        let inner = Arc::clone(&self.observer);
        self.observed_by(Arc::new(retry::Until { inner, stop }))
    }

    /// The same conversation over connections of its own, on which nothing is waited for
    /// longer than `limit`. For what is sent again and again anyway.
    #[must_use]
    pub fn impatient(&self, limit: Duration) -> Self {
        let timeouts = Timeouts {
            connect: limit,
            read: limit,
            write: limit,
        };
        let observer: Arc<dyn Observer> = Arc::new(Unobserved);
        Remote {
            link: self.way.link(timeouts, &observer),
            observer,
            ..self.clone()
        }
    }

    /// The same conversation with another limit for retries.
    #[must_use]
    pub fn retrying_for(&self, retry_for: Duration) -> Self {
        Remote {
            retry_for,
            ..self.clone()
        }
    }

    /// The server's address, as `https://host:port`.
    pub fn base(&self) -> &str {
        &self.link.base
    }

    /// A pace-maker for work that the caller repeats itself; `what` completes the
    /// sentence "while ...".
    pub fn retry(&self, what: &'static str) -> Retry {
        Retry::new(what, self.retry_for, Arc::clone(&self.observer))
    }

    /// `POST /v1/checkin`
    ///
    /// # Errors
    /// The server's own report, or what became of the connection; so for all routes.
    pub fn checkin(&self, message: &CheckIn) -> Result<CheckInReply, Report> {
        let body = encode(message)?;
        self.retried("checking in", || {
            self.link
                .post(None, "/v1/checkin", &body)?
                .json::<CheckInReply>()
        })
    }

    /// `POST .../progress`. Tried once: the next one replaces it.
    ///
    /// # Errors
    /// See [`Remote::checkin`].
    pub fn progress(&self, message: &Progress) -> Result<ProgressReply, Report> {
        let body = encode(message)?;
        let reply = self.post("progress", &body).and_then(|reply| reply.json());
        reply.map_err(Failure::into_report)
    }

    /// `POST .../disks`
    ///
    /// # Errors
    /// See [`Remote::checkin`].
    pub fn disks(&self, message: &DiskCheck) -> Result<(), Report> {
        let body = encode(message)?;
        self.retried("sending the disk check", || {
            self.post("disks", &body)?.empty()
        })
    }

    /// `POST .../log`; the newest [`wire::MAX_LOG_BYTES`] are sent.
    ///
    /// # Errors
    /// See [`Remote::checkin`].
    pub fn log(&self, text: &str) -> Result<(), Report> {
        let newest = newest_part(text, wire::MAX_LOG_BYTES).as_bytes();
        self.retried("sending the log", || self.post("log", newest)?.empty())
    }

    /// `GET .../base`: names of chunks that the server has, in order of the names: those of
    /// this machine's newest image. Whatever becomes of the connection on the way, the names
    /// that came are good, and a backup can do without them.
    ///
    /// # Errors
    /// Only that the job is to stop.
    pub fn names_of_base(&self) -> Result<Vec<[u8; 32]>, Report> {
        let opened = self.retried("asking what the server has", || {
            let (path, token) = self.path("base")?;
            self.link.get(token, &path)?.stream()
        });
        let mut body = match opened {
            Ok(body) => body,
            Err(report) if report.code == Code::Interrupted => return Err(report),
            Err(_) => return Ok(Vec::new()),
        };
        let mut names = Vec::new();
        let mut name = [0; 32];
        while names.len() < wire::MAX_BASE_HASHES && body.read_exact(&mut name).is_ok() {
            names.push(name);
        }
        names.sort_unstable();
        Ok(names)
    }

    /// `POST .../have`: for each hash whether the server has its chunk. Any number of
    /// hashes; they are asked in portions.
    ///
    /// # Errors
    /// See [`Remote::checkin`].
    pub fn have(&self, hashes: &[[u8; 32]]) -> Result<Vec<bool>, Report> {
        let mut known = Vec::with_capacity(hashes.len());
        for portion in hashes.chunks(wire::MAX_HASHES) {
            let wanted = portion.len().div_ceil(8);
            let bitmap = self.retried("asking what the server has", || {
                self.post("have", portion.as_flattened())?.exactly(wanted)
            })?;
            let bit = |i: usize| {
                bitmap
                    .get(i / 8)
                    .is_some_and(|byte| byte >> (i % 8) & 1 == 1)
            };
            known.extend((0..portion.len()).map(bit));
        }
        Ok(known)
    }

    /// `POST .../records`: records, one after the other.
    ///
    /// # Errors
    /// See [`Remote::checkin`].
    pub fn send_records(&self, records: &[u8]) -> Result<Stored, Report> {
        self.retried("sending data", || self.post("records", records)?.json())
    }

    /// `PUT .../manifest`: `open` gives the manifest from its beginning, and is called
    /// again for every try; `len` is its length in bytes.
    ///
    /// # Errors
    /// See [`Remote::checkin`]; `internal` if the manifest cannot be read.
    pub fn put_manifest<R: Read>(
        &self,
        len: u64,
        mut open: impl FnMut() -> std::io::Result<R>,
    ) -> Result<Published, Report> {
        self.retried("publishing the image", || {
            let manifest =
                open().map_err(|error| Failure::local("reading the manifest", &error))?;
            let (path, token) = self.path("manifest")?;
            self.link.send("PUT", token, &path, len, manifest)?.json()
        })
    }

    /// `PUT .../manifests`: those of several disks, each with its length before it, from the
    /// beginning for every try.
    ///
    /// # Errors
    /// See [`Remote::checkin`].
    pub fn put_manifests(&self, manifests: &[Vec<u8>]) -> Result<Vec<Published>, Report> {
        let lengths: Vec<[u8; 8]> = manifests
            .iter()
            .map(|manifest| (manifest.len() as u64).to_le_bytes())
            .collect();
        let total = manifests.iter().map(|manifest| manifest.len() as u64 + 8);
        let total: u64 = total.sum();
        self.retried("publishing the images", || {
            let mut body: Box<dyn Read + '_> = Box::new(std::io::empty());
            for (length, manifest) in lengths.iter().zip(manifests) {
                body = Box::new(body.chain(&length[..]).chain(&manifest[..]));
            }
            let (path, token) = self.path("manifests")?;
            self.link.send("PUT", token, &path, total, body)?.json()
        })
    }

    /// `GET .../manifest`. The opening is tried again, a break of the stream is not.
    ///
    /// # Errors
    /// See [`Remote::checkin`].
    pub fn get_manifest(&self) -> Result<Body, Report> {
        self.retried("asking for the image's manifest", || {
            let (path, token) = self.path("manifest")?;
            self.link.get(token, &path)?.stream()
        })
    }

    /// `POST .../fetch`: the records of at most [`wire::MAX_HASHES`] chunks, in the
    /// order asked. The opening is tried again, a break of the stream is not.
    ///
    /// # Errors
    /// See [`Remote::checkin`].
    pub fn fetch(&self, hashes: &[[u8; 32]]) -> Result<Body, Report> {
        self.retried("asking for data", || {
            self.post("fetch", hashes.as_flattened())?.stream()
        })
    }

    /// `POST .../doubtful`: chunks that came spoiled, at most [`wire::MAX_HASHES`]. Tried
    /// once: the job has failed already.
    ///
    /// # Errors
    /// See [`Remote::checkin`].
    pub fn doubtful(&self, hashes: &[[u8; 32]]) -> Result<Reread, Report> {
        let body = hashes.as_flattened();
        let reply = self.post("doubtful", body).and_then(|reply| reply.json());
        reply.map_err(Failure::into_report)
    }

    /// `PUT .../tables`
    ///
    /// # Errors
    /// See [`Remote::checkin`].
    pub fn put_tables(&self, message: &OldTables) -> Result<(), Report> {
        let body = encode(message)?;
        self.retried("saving the old partition tables", || {
            let (path, token) = self.path("tables")?;
            self.link
                .send("PUT", token, &path, body.len() as u64, body.as_slice())?
                .empty()
        })
    }

    /// `POST .../begin-write`: returns only after the server has stored it.
    ///
    /// # Errors
    /// See [`Remote::checkin`].
    pub fn begin_write(&self, message: &BeginWrite) -> Result<(), Report> {
        let body = encode(message)?;
        self.retried("announcing the writing", || {
            self.post("begin-write", &body)?.empty()
        })
    }

    /// `POST .../script`: how a script ended.
    ///
    /// # Errors
    /// See [`Remote::checkin`].
    pub fn script_result(&self, message: &ScriptResult) -> Result<(), Report> {
        let body = encode(message)?;
        self.retried("sending what a script said", || {
            self.post("script", &body)?.empty()
        })
    }

    /// `POST .../finish`: returns only after the server has stored the final state.
    ///
    /// # Errors
    /// See [`Remote::checkin`].
    pub fn finish(&self, message: &Finish) -> Result<FinishReply, Report> {
        let body = encode(message)?;
        // A server in trouble (a full disk, say) may recover; the result must not be lost.
        self.retried("reporting the result", || {
            let reply = self.post("finish", &body).and_then(|reply| reply.json());
            reply.map_err(|failure| match failure {
                Failure::Final(report) if matches!(report.code, Code::Internal | Code::NoSpace) => {
                    Failure::Transient(report)
                }
                other => other,
            })
        })
    }

    fn retried<T>(
        &self,
        what: &'static str,
        mut request: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T, Report> {
        let mut retry = self.retry(what);
        loop {
            match request() {
                Ok(value) => {
                    retry.succeeded();
                    return Ok(value);
                }
                Err(failure) => retry.wait(failure)?,
            }
        }
    }

    fn post(&self, route: &str, body: &[u8]) -> Result<http::Reply<'_>, Failure> {
        let (path, token) = self.path(route)?;
        self.link.post(token, &path, body)
    }

    fn path(&self, route: &str) -> Result<(String, Option<&str>), Failure> {
        match &self.job {
            Some(job) => {
                let part = match job.part {
                    0 => String::new(),
                    part => format!("?part={part}"),
                };
                Ok((format!("{}/{route}{part}", job.prefix), Some(&job.token)))
            }
            None => Err(Failure::Final(Report::new(
                Code::Internal,
                format!("{route} was asked for without a job"),
                DiskState::NotInvolved,
            ))),
        }
    }
}

fn encode<T: serde::Serialize>(message: &T) -> Result<Vec<u8>, Report> {
    serde_json::to_vec(message).map_err(|error| {
        Report::new(
            Code::Internal,
            format!("encoding a message: {error}"),
            DiskState::NotInvolved,
        )
    })
}
