//! An image as a network block device, so that it can be mounted without unpacking it.
//!
//! Owns: the listening socket, the clients' threads and their end. Does not own: the
//! protocol (`session`, `proto`), or reading images.

pub mod proto;
pub mod session;
#[cfg(test)]
mod tests;

use crate::progress::ProgressSink;
use crate::report;
use image::open::{OpenImage, ReadAt};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use session::{Disk, Export};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use wire::{Code, DiskState, Report};

/// Clients at a time; more are turned away.
const MAX_CLIENTS: usize = 32;
/// How long a client may take for each step of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// How often it is looked whether the job is to stop, in milliseconds.
const LOOK: u16 = 100;
/// Reads that fail are told up to this number.
const MAX_NOTES: u32 = 16;

/// Where clients come to.
pub enum Listener {
    /// A TCP port.
    Tcp(TcpListener),
    /// A socket in the file system, which goes away with the value.
    Unix(UnixListener, PathBuf),
}

impl Listener {
    /// Opens a TCP port.
    pub fn tcp(address: SocketAddr) -> Result<Self, Report> {
        let listener = TcpListener::bind(address);
        let listener = listener.map_err(|e| taken(&address.to_string(), &e))?;
        Ok(Listener::Tcp(listener))
    }

    /// Makes a socket that only this user may use.
    pub fn unix(path: &std::path::Path) -> Result<Self, Report> {
        use nix::sys::stat::{Mode, umask};
        // The socket is never open to others, not even at first. No other thread makes
        // files meanwhile: the job begins with this.
        let before = umask(Mode::from_bits_truncate(0o177));
        let bound = UnixListener::bind(path);
        umask(before);
        let listener = bound.map_err(|e| taken(&path.display().to_string(), &e))?;
        Ok(Listener::Unix(listener, path.to_owned()))
    }

    /// The address as clients write it.
    pub fn uri(&self) -> String {
        match self {
            Listener::Tcp(listener) => match listener.local_addr() {
                Ok(address) => format!("nbd://{address}"),
                Err(_) => "nbd://".to_owned(),
            },
            Listener::Unix(_, path) => format!("nbd+unix:///?socket={}", path.display()),
        }
    }

    fn accept(&self) -> io::Result<Client> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(false)?;
                stream.set_nodelay(true)?;
                Ok(Client::Tcp(stream))
            }
            Listener::Unix(listener, _) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(false)?;
                Ok(Client::Unix(stream))
            }
        }
    }

    /// Waits a moment for a client.
    fn wait(&self) -> io::Result<bool> {
        let fd = match self {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(listener, _) => listener.as_fd(),
        };
        match poll(
            &mut [PollFd::new(fd, PollFlags::POLLIN)],
            PollTimeout::from(LOOK),
        ) {
            Ok(count) => Ok(count > 0),
            Err(nix::errno::Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Listener::Tcp(listener) => listener.set_nonblocking(true),
            Listener::Unix(listener, _) => listener.set_nonblocking(true),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix(_, path) = self {
            // If it cannot be removed, a next run says that the name is taken.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn taken(address: &str, error: &io::Error) -> Report {
    let found = format!("{address}: {error}");
    Report::new(Code::PortInUse, found, DiskState::NotInvolved)
        .with_advice("Choose another address with --listen or --socket, or stop what has it.")
}

enum Client {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Client {
    fn try_clone(&self) -> io::Result<Client> {
        Ok(match self {
            Client::Tcp(stream) => Client::Tcp(stream.try_clone()?),
            Client::Unix(stream) => Client::Unix(stream.try_clone()?),
        })
    }

    fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Client::Tcp(stream) => stream.set_read_timeout(timeout),
            Client::Unix(stream) => stream.set_read_timeout(timeout),
        }
    }

    fn shutdown(&self) {
        // A client that is gone needs none.
        let _ = match self {
            Client::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Client::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

impl Read for &Client {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Client::Tcp(stream) => (&mut &*stream).read(buf),
            Client::Unix(stream) => (&mut &*stream).read(buf),
        }
    }
}

impl Write for &Client {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Client::Tcp(stream) => (&mut &*stream).write(buf),
            Client::Unix(stream) => (&mut &*stream).write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The default export, which is the disk, and one for each partition that is in the image,
/// under its number.
pub fn exports<S: ReadAt>(image: &OpenImage<S>) -> Vec<Export> {
    let mut exports = vec![Export {
        name: String::new(),
        description: "the whole disk".into(),
        start: 0,
        size: image.disk_size(),
    }];
    for region in &image.layout().regions {
        let number = region.number.filter(|_| region.kind == "partition");
        if let Some(number) = number
            && !region.is_absent()
        {
            let content = match region.file_system.as_str() {
                "" => "unknown content".to_owned(),
                name => crate::map::printable(name, 16),
            };
            exports.push(Export {
                name: number.to_string(),
                description: format!("partition {number}, {content}"),
                start: region.start,
                size: region.size,
            });
        }
    }
    exports
}

struct ImageDisk<'a, S> {
    image: &'a OpenImage<S>,
    progress: &'a dyn ProgressSink,
    notes: AtomicU32,
}

impl<S> ImageDisk<'_, S> {
    /// The sentence for the client, who cannot be trusted to ask only a few times.
    fn told(&self, error: &image::Error) -> String {
        let report = report::image(error, DiskState::NotInvolved);
        if self.notes.fetch_add(1, Ordering::Relaxed) < MAX_NOTES {
            self.progress
                .note(&format!("a read failed: {}: {}", report.code, report.found));
        }
        format!("{}: {}", report.code, report.found)
    }
}

impl<S: ReadAt> Disk for ImageDisk<'_, S> {
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<(), String> {
        let read = self.image.read_exact_at(buf, offset);
        read.map_err(|e| self.told(&e))
    }

    fn extent(&self, offset: u64, limit: u64) -> Result<(bool, u64), String> {
        let end = offset.saturating_add(limit);
        match self.image.used_within(offset, end).next().transpose() {
            Err(e) => Err(self.told(&e)),
            Ok(Some(range)) if range.start == offset => Ok((true, range.len.min(limit))),
            Ok(Some(range)) => Ok((false, (range.start - offset).min(limit))),
            Ok(None) => Ok((false, limit)),
        }
    }
}

/// What the clients' threads share.
struct Shared {
    clients: Mutex<BTreeMap<u64, Client>>,
    served: AtomicBool,
}

impl Shared {
    fn clients(&self) -> MutexGuard<'_, BTreeMap<u64, Client>> {
        // A map that is changed by one call is never half-made.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves `image` until `progress` is interrupted; with `once` also until the last client
/// has left. A proof of the image that fails ends it too.
pub fn serve<S: ReadAt>(
    image: &OpenImage<S>,
    listener: &Listener,
    once: bool,
    progress: &dyn ProgressSink,
) -> Result<(), Report> {
    let failed = |e: io::Error| taken(&listener.uri(), &e);
    listener.set_nonblocking().map_err(failed)?;
    let exports = exports(image);
    let disk = ImageDisk {
        image,
        progress,
        notes: AtomicU32::new(0),
    };
    let shared = Shared {
        clients: Mutex::new(BTreeMap::new()),
        served: AtomicBool::new(false),
    };
    let proof: Mutex<Option<Report>> = Mutex::new(None);
    std::thread::scope(|scope| {
        if !image.is_proved() {
            scope.spawn(|| {
                if let Err(error) = image.prove() {
                    let report = report::image(&error, DiskState::NotInvolved);
                    *proof.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
                }
            });
        }
        let mut next = 0u64;
        let end = loop {
            if let Some(report) = proof.lock().unwrap_or_else(PoisonError::into_inner).take() {
                break Err(report);
            }
            let idle = shared.clients().is_empty();
            if progress.interrupted() || once && idle && shared.served.load(Ordering::Relaxed) {
                break Ok(());
            }
            match listener.wait() {
                Ok(false) => continue,
                Ok(true) => {}
                Err(e) => break Err(failed(e)),
            }
            // A client that left meanwhile, or no more handles: neither ends the others.
            let Ok(client) = listener.accept() else {
                std::thread::sleep(Duration::from_millis(10));
                continue;
            };
            let mut clients = shared.clients();
            let Ok(handle) = client.try_clone() else {
                continue;
            };
            if clients.len() >= MAX_CLIENTS {
                continue;
            }
            next += 1;
            clients.insert(next, handle);
            drop(clients);
            let (number, shared, exports, disk) = (next, &shared, &exports[..], &disk);
            scope.spawn(move || {
                let _gone = Gone { shared, number };
                // How a client ends is its own affair.
                let _ = talk(&client, exports, disk, shared);
            });
        };
        for client in shared.clients().values() {
            client.shutdown();
        }
        end
    })
}

/// Takes a client off the list, also when its thread panics.
struct Gone<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.shared.clients().remove(&self.number);
    }
}

fn talk<S: ReadAt>(
    client: &Client,
    exports: &[Export],
    disk: &ImageDisk<'_, S>,
    shared: &Shared,
) -> io::Result<()> {
    client.set_timeout(Some(HANDSHAKE))?;
    let mut stream = client;
    session::serve(&mut stream, exports, disk, || {
        // A client may be idle as long as it likes, as a mounted disk is.
        let _ = client.set_timeout(None);
        shared.served.store(true, Ordering::Relaxed);
    })
}
