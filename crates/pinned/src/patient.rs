//! Waiting on a connection, for as long as it is wanted and no longer.
//!
//! Owns: the limit of a read or write without a byte, giving up at once when the caller
//! wants to stop, and joining what is sent. Does not own: what becomes of the request.
//!
//! The HTTP client forgets its time limits on a connection that it uses again, so they are
//! kept here, below TLS.

use crate::client::Timeouts;
use rustls::ClientConfig;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};
use ureq::{ReadWrite, TlsConnector};

/// Asked again and again while a connection waits; `true` ends the wait.
pub type Stop = Arc<dyn Fn() -> bool + Send + Sync>;

/// How soon a stop is seen.
const PIECE: Duration = Duration::from_millis(250);

/// Connects with TLS over connections that keep the limits.
pub(crate) struct Connector {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) timeouts: Timeouts,
    pub(crate) stop: Stop,
}

impl TlsConnector for Connector {
    fn connect(
        &self,
        dns_name: &str,
        io: Box<dyn ReadWrite>,
    ) -> Result<Box<dyn ReadWrite>, ureq::Error> {
        let patient = Patient {
            io,
            timeouts: self.timeouts,
            stop: Arc::clone(&self.stop),
        };
        let tls = self.config.connect(dns_name, Box::new(patient))?;
        Ok(Box::new(Joined::new(tls)))
    }
}

/// Bytes that are joined before they are encrypted and sent.
const JOINED: usize = 64 << 10;

/// Joins small writes: the client copies a body in pieces of 8 KiB, and each would become a
/// TLS record and a system call of its own. What waits is sent before anything is read.
struct Joined {
    io: Box<dyn ReadWrite>,
    waiting: Vec<u8>,
    /// Something was not sent, and nobody can tell how much of it.
    broken: bool,
}

impl Joined {
    fn new(io: Box<dyn ReadWrite>) -> Joined {
        Joined {
            io,
            waiting: Vec::new(),
            broken: false,
        }
    }

    fn send(&mut self) -> io::Result<()> {
        if self.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if self.waiting.is_empty() {
            return Ok(());
        }
        let sent = self.io.write_all(&self.waiting);
        self.broken = sent.is_err();
        self.waiting.clear();
        sent
    }
}

impl Read for Joined {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.flush()?;
        self.io.read(buf)
    }
}

impl Write for Joined {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.waiting.len() + buf.len() > JOINED {
            self.send()?;
        }
        if buf.len() >= JOINED {
            return self.io.write(buf);
        }
        self.waiting.extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()?;
        self.io.flush()
    }
}

impl fmt::Debug for Joined {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?} (joined)", self.io)
    }
}

impl ReadWrite for Joined {
    fn socket(&self) -> Option<&TcpStream> {
        self.io.socket()
    }
}

struct Patient {
    io: Box<dyn ReadWrite>,
    timeouts: Timeouts,
    stop: Stop,
}

impl Patient {
    /// Repeats what timed out until it is done, the limit is over or nobody wants it.
    fn wait<T>(
        &mut self,
        limit: Duration,
        mut attempt: impl FnMut(&mut dyn ReadWrite) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut since: Option<Instant> = None;
        loop {
            // Also where bytes come, but slowly.
            if (self.stop)() {
                let kind = io::ErrorKind::ConnectionAborted;
                return Err(io::Error::new(kind, "given up: the job is to stop"));
            }
            if let Some(socket) = self.io.socket() {
                let piece = Some(PIECE.min(limit));
                socket.set_read_timeout(piece)?;
                socket.set_write_timeout(piece)?;
            }
            let error = match attempt(&mut *self.io) {
                Err(error) if is_timeout(&error) => error,
                done => return done,
            };
            let started = *since.get_or_insert_with(|| Instant::now() - PIECE.min(limit));
            if started.elapsed() >= limit {
                return Err(io::Error::new(io::ErrorKind::TimedOut, error));
            }
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

impl Read for Patient {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.wait(self.timeouts.read, |io| io.read(buf))
    }
}

impl Write for Patient {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.wait(self.timeouts.write, |io| io.write(buf))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.io.flush()
    }
}

impl fmt::Debug for Patient {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?} (patient)", self.io)
    }
}

impl ReadWrite for Patient {
    fn socket(&self) -> Option<&TcpStream> {
        self.io.socket()
    }
}

#[cfg(test)]
mod tests {
    use super::{JOINED, Joined, Patient, Stop};
    use crate::client::Timeouts;
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    /// A connection to somebody who says nothing and reads nothing.
    fn silent(read: Duration, stop: Stop) -> (Patient, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        let timeouts = Timeouts {
            read,
            write: read,
            ..Timeouts::default()
        };
        let patient = Patient {
            io: Box::new(near),
            timeouts,
            stop,
        };
        (patient, far)
    }

    /// Says "stop" when it is asked for the third time.
    fn at_the_third() -> Stop {
        let asked = AtomicU32::new(0);
        Arc::new(move || asked.fetch_add(1, Ordering::SeqCst) >= 2)
    }

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn a_stop_ends_waiting_reads_and_writes() {
        let (mut patient, _far) = silent(LONG, at_the_third());
        let error = patient.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
        let (mut patient, _far) = silent(LONG, at_the_third());
        let error = loop {
            // Until no buffer on the way takes any more.
            if let Err(error) = patient.write(&[0; 1 << 16]) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
    }

    #[test]
    fn a_stop_is_heard_while_bytes_come() {
        let (mut patient, mut far) = silent(LONG, at_the_third());
        far.write_all(&[7; 8]).unwrap();
        let mut byte = [0];
        patient.read_exact(&mut byte).unwrap();
        patient.read_exact(&mut byte).unwrap();
        let error = patient.read_exact(&mut byte).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
    }

    #[test]
    fn the_limit_holds_although_the_sockets_own_was_taken_away() {
        let (mut patient, _far) = silent(Duration::from_millis(10), Arc::new(|| false));
        let socket = patient.io.socket().unwrap();
        socket.set_read_timeout(None).unwrap();
        let error = patient.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn joined_writes_arrive_whole_and_in_order_before_an_answer_is_awaited() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        let mut joined = Joined::new(Box::new(near));
        let sent: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
        let wanted = sent.clone();
        let other = std::thread::spawn(move || {
            let mut got = vec![0; wanted.len()];
            far.read_exact(&mut got).unwrap();
            far.write_all(b"yes").unwrap();
            got == wanted
        });
        let mut rest = &sent[..];
        for size in [1, 8192, JOINED - 1, JOINED, JOINED + 1, 5].iter().cycle() {
            let (now, later) = rest.split_at((*size).min(rest.len()));
            joined.write_all(now).unwrap();
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        assert!(joined.waiting.len() <= JOINED);
        let mut answer = [0; 3];
        joined.read_exact(&mut answer).unwrap();
        assert_eq!(answer, *b"yes");
        assert!(other.join().unwrap());
    }

    #[test]
    fn what_comes_late_is_read() {
        let (mut patient, mut far) = silent(LONG, Arc::new(|| false));
        let late = std::thread::spawn(move || {
            std::thread::sleep(super::PIECE * 2);
            far.write_all(b"x").unwrap();
        });
        let mut byte = [0];
        assert_eq!(patient.read(&mut byte).unwrap(), 1);
        assert_eq!(byte, *b"x");
        late.join().unwrap();
    }
}
