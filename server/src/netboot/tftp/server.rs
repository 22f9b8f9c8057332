//! The TFTP server: one socket for requests, and one for each transfer.
//!
//! Owns: sockets, waiting, limits on transfers at a time. Does not own: the course of
//! a transfer ([`super::transfer`]) or which files there are (`netboot::files`).

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info, warn};

use super::packet::{ErrorCode, MAX_REQUEST, Packet, Request};
use super::transfer::{Step, Transfer};
use crate::netboot::files::{BootFile, BootFiles, FileError};
use crate::netboot::service::stopped;

/// Transfers at a time; more are told that the server is busy, never that a file is
/// missing.
pub const MAX_TRANSFERS: usize = 256;
/// Transfers at a time for one address.
pub const MAX_TRANSFERS_PER_CLIENT: usize = 8;

/// A TFTP server that has its port.
#[derive(Debug)]
pub struct TftpServer {
    socket: UdpSocket,
    files: BootFiles,
    running: Arc<Mutex<HashSet<SocketAddr>>>,
}

impl TftpServer {
    /// Takes the port. `address` should be the one that clients send to, so that
    /// transfers come from it too.
    ///
    /// # Errors
    /// The port cannot be had.
    pub async fn bind(address: SocketAddrV4, files: BootFiles) -> io::Result<TftpServer> {
        let socket = UdpSocket::bind(address).await?;
        Ok(TftpServer {
            socket,
            files,
            running: Arc::default(),
        })
    }

    /// Where requests are taken.
    ///
    /// # Errors
    /// The system cannot tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until `shutdown` becomes true. Running transfers go on for themselves.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>) {
        let mut buffer = [0; MAX_REQUEST];
        loop {
            let received = tokio::select! {
                received = self.socket.recv_from(&mut buffer) => received,
                () = stopped(&mut shutdown) => return,
            };
            match received {
                Ok((length, peer)) => {
                    self.on_datagram(buffer.get(..length).unwrap_or_default(), peer)
                        .await
                }
                // ICMP errors of earlier sends come back here and concern nobody else.
                Err(error) => debug!(%error, "TFTP socket"),
            }
        }
    }

    async fn on_datagram(&self, bytes: &[u8], peer: SocketAddr) {
        let request = match Packet::decode(bytes) {
            Ok(Packet::Read(request)) => request,
            Ok(Packet::Write(_)) => {
                return self
                    .refuse(peer, ErrorCode::ACCESS, "this server is read-only")
                    .await;
            }
            // Neither errors nor strays are answered, so two servers cannot play tennis.
            Ok(_) | Err(_) => return debug!(%peer, "no TFTP request"),
        };
        if !request.mode.eq_ignore_ascii_case("octet") {
            return self
                .refuse(
                    peer,
                    ErrorCode::ILLEGAL,
                    "only octet (binary) mode is supported",
                )
                .await;
        }
        let slot = match Slot::take(&self.running, peer) {
            Ok(slot) => slot,
            Err(Full::Repeated) => return debug!(%peer, "request repeated, its transfer runs"),
            Err(Full::Busy) => {
                warn!(%peer, file = %request.file.escape_default(), "TFTP refused: too many transfers");
                return self
                    .refuse(peer, ErrorCode::OTHER, "the server is busy, try again")
                    .await;
            }
        };
        // Firmware often puts a slash before the name that it was given.
        let name = request.file.strip_prefix('/').unwrap_or(&request.file);
        match self.files.open(name) {
            Ok(file) => self.start(request, file, peer, slot),
            Err(FileError::NotFound) => {
                info!(%peer, file = %request.file.escape_default(), "TFTP: no such file");
                self.refuse(peer, ErrorCode::NOT_FOUND, "there is no such boot file")
                    .await;
            }
            Err(FileError::Unreadable(error)) => {
                warn!(%peer, file = %request.file.escape_default(), %error, "TFTP: file cannot be opened");
                self.refuse(peer, ErrorCode::OTHER, "the server cannot read the file")
                    .await;
            }
        }
    }

    fn start(&self, request: Request, file: BootFile, peer: SocketAddr, slot: Slot) {
        let local = self
            .socket
            .local_addr()
            .map_or(Ipv4Addr::UNSPECIFIED.into(), |address| address.ip());
        tokio::spawn(async move {
            let _slot = slot;
            let name = request.file.escape_default().to_string();
            match serve(&request, &file, SocketAddr::new(local, 0), peer).await {
                Ok(Step::Done) => info!(%peer, file = %name, bytes = file.size, "TFTP: sent"),
                Ok(Step::Aborted(why)) => {
                    debug!(%peer, file = %name, %why, "TFTP: ended by the client")
                }
                Ok(_) => warn!(%peer, file = %name, "TFTP: the client fell silent"),
                Err(error) => warn!(%peer, file = %name, %error, "TFTP: broken off"),
            }
        });
    }

    async fn refuse(&self, peer: SocketAddr, code: ErrorCode, message: &str) {
        if let Err(error) = self
            .socket
            .send_to(&Packet::error(code, message).encode(), peer)
            .await
        {
            debug!(%peer, %error, "TFTP: error cannot be sent");
        }
    }
}

/// Runs one transfer on a socket of its own. The socket is connected, so packets of
/// others never reach it. Returns the last step.
async fn serve(
    request: &Request,
    file: &BootFile,
    local: SocketAddr,
    peer: SocketAddr,
) -> io::Result<Step> {
    let socket = UdpSocket::bind(local).await?;
    socket.connect(peer).await?;
    let (mut transfer, mut step) = Transfer::begin(request, file.size);
    let mut deadline = Instant::now() + transfer.wait();
    let mut buffer = [0; MAX_REQUEST];
    loop {
        match step {
            Step::SendOptions => send(&socket, &transfer.option_ack().encode()).await?,
            Step::SendBlocks(ref blocks) => {
                for block in blocks.clone() {
                    let packet = read_block(file, &transfer, block);
                    let packet = match packet {
                        Ok(packet) => packet,
                        Err(error) => {
                            let told =
                                Packet::error(ErrorCode::OTHER, "the server cannot read the file");
                            send(&socket, &told.encode()).await?;
                            return Err(error);
                        }
                    };
                    send(&socket, &packet).await?;
                }
            }
            Step::Wait => {}
            Step::Done | Step::Aborted(_) | Step::GivenUp => return Ok(step),
        }
        // Only what was sent sets the clock: a chatty client cannot hold the slot.
        if step != Step::Wait {
            deadline = Instant::now() + transfer.wait();
        }
        step = match timeout_at(deadline, socket.recv(&mut buffer)).await {
            Err(_) => transfer.on_timeout(),
            Ok(received) => match Packet::decode(buffer.get(..received?).unwrap_or_default()) {
                Ok(packet) => transfer.on_packet(&packet),
                Err(_) => Step::Wait,
            },
        };
    }
}

async fn send(socket: &UdpSocket, packet: &[u8]) -> io::Result<()> {
    socket.send(packet).await.map(|_| ())
}

/// A data packet. The read is a short one from the page cache as a rule, which costs
/// less than handing it to another thread.
fn read_block(file: &BootFile, transfer: &Transfer, block: u64) -> io::Result<Vec<u8>> {
    let (offset, length) = transfer.place(block);
    let mut bytes = vec![0; length];
    file.file.read_exact_at(&mut bytes, offset)?;
    Ok(Packet::Data {
        block: Transfer::wire_number(block),
        bytes,
    }
    .encode())
}

/// Why a transfer is not begun.
enum Full {
    /// One for the same port of the client runs: its request was repeated.
    Repeated,
    /// There are too many.
    Busy,
}

/// A place among the running transfers, given back on drop.
struct Slot {
    running: Arc<Mutex<HashSet<SocketAddr>>>,
    peer: SocketAddr,
}

impl Slot {
    fn take(running: &Arc<Mutex<HashSet<SocketAddr>>>, peer: SocketAddr) -> Result<Slot, Full> {
        let mut peers = running.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.contains(&peer) {
            return Err(Full::Repeated);
        }
        let of_client = peers.iter().filter(|other| other.ip() == peer.ip()).count();
        if peers.len() >= MAX_TRANSFERS || of_client >= MAX_TRANSFERS_PER_CLIENT {
            return Err(Full::Busy);
        }
        peers.insert(peer);
        drop(peers);
        Ok(Slot {
            running: Arc::clone(running),
            peer,
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.peer);
    }
}
