//! The UDP socket of a DHCP client, bound to one interface.
//!
//! Owns: socket options, sending, receiving. Does not own: what is sent.
//!
//! While another interface already has an address the kernel may put that one into our
//! packets as their source instead of 0.0.0.0; servers go by what the packet says.

use super::machine::Transmit;
use socket2::{Domain, Protocol, Socket as RawSocket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;
/// Shortest wait that the kernel takes as a limit and not as "for ever".
const SHORTEST: Duration = Duration::from_millis(1);

/// A socket on one interface.
#[derive(Debug)]
pub struct Socket(UdpSocket);

impl Socket {
    /// Opens it; the interface needs no address yet.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(interface: &str) -> io::Result<Self> {
        let socket = RawSocket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_address(true)?;
        socket.set_broadcast(true)?;
        socket.bind_device(Some(interface.as_bytes()))?;
        let any = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT_PORT));
        socket.bind(&any.into())?;
        Ok(Socket(socket.into()))
    }

    /// Sends a packet.
    ///
    /// # Errors
    /// The kernel's, as when the cable was just pulled; the machine sends again.
    pub fn send(&self, packet: &Transmit) -> io::Result<()> {
        self.0
            .send_to(&packet.bytes, SocketAddrV4::new(packet.to, SERVER_PORT))
            .map(|_| ())
    }

    /// Waits for a packet; `None` if none came in this time.
    ///
    /// # Errors
    /// The kernel's.
    pub fn receive<'a>(
        &self,
        buffer: &'a mut [u8],
        limit: Duration,
    ) -> io::Result<Option<&'a [u8]>> {
        self.0.set_read_timeout(Some(limit.max(SHORTEST)))?;
        match self.0.recv(buffer) {
            Ok(len) => Ok(buffer.get(..len)),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock
                | io::ErrorKind::TimedOut
                | io::ErrorKind::Interrupted => Ok(None),
                _ => Err(error),
            },
        }
    }
}
