//! Sockets of a multicast group.
//!
//! Owns: joining, interface, TTL, buffers, the sender's port. Does not own: what the packets
//! say, sending many of them at once ([`crate::outlet`]).

use multicast::packet;
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{SockaddrStorage, setsockopt, sockopt};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Bytes that the kernel keeps for us while we are busy.
const RECEIVE_BUFFER: usize = 16 << 20;
const SEND_BUFFER: usize = 1 << 20;
/// Room for any packet of a session.
pub const BUFFER: usize = 2048;

/// A group, and by which interface it is reached.
#[derive(Clone, Debug)]
pub struct Group {
    /// Address and port; of IPv6 with the interface as scope.
    pub address: SocketAddr,
    interface: Option<(String, u32)>,
}

impl Group {
    /// A group at an interface, or at the one that the system's routes name.
    ///
    /// # Errors
    /// It is no group, or there is no such interface.
    pub fn new(address: SocketAddr, interface: Option<&str>) -> io::Result<Self> {
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidInput, text);
        if !address.ip().is_multicast() {
            return Err(invalid(format!(
                "{} is no multicast address (224.0.0.0 to 239.255.255.255, or ff00::/8)",
                address.ip()
            )));
        }
        if let IpAddr::V4(ip) = address.ip()
            && ip.octets().starts_with(&[224, 0, 0])
        {
            return Err(invalid(format!(
                "{ip} is one of the groups by which routers talk (224.0.0.0 to 224.0.0.255), which \
                 switches send to every port; take one of 239.0.0.0 to 239.255.255.255"
            )));
        }
        let interface = match interface {
            None => None,
            Some(name) => {
                let index = if_nametoindex(name)
                    .map_err(|_| invalid(format!("there is no interface {name}")))?;
                Some((name.to_owned(), index))
            }
        };
        let address = match (address, &interface) {
            (SocketAddr::V6(v6), Some((_, index))) => {
                SocketAddr::V6(SocketAddrV6::new(*v6.ip(), v6.port(), 0, *index))
            }
            (other, _) => other,
        };
        Ok(Group { address, interface })
    }

    /// The same group, by the interface whose address a packet to `peer` would come from:
    /// without a route for groups the system would not know where to join.
    ///
    /// # Errors
    /// The system's; there is no way to the peer.
    pub fn towards(&self, peer: SocketAddr) -> io::Result<Self> {
        let any: SocketAddr = match peer {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let probe = UdpSocket::bind(any)?;
        probe.connect(peer)?;
        let of_here = interface_of(probe.local_addr()?.ip())?;
        Group::new(self.address, of_here.as_deref())
    }

    /// A socket that sends to the group, and takes what is sent to itself: at the group's own
    /// port, so that a firewall has one to open.
    ///
    /// # Errors
    /// The system's.
    pub fn sender(&self, ttl: u32) -> io::Result<UdpSocket> {
        self.sender_at(ttl, self.address.port())
    }

    /// As [`Group::sender`], at the first of these ports that nobody has: what receivers
    /// report to a port reaches one socket only.
    ///
    /// # Errors
    /// The system's; all of them are taken.
    pub fn sender_at_one_of(&self, ttl: u32, ports: RangeInclusive<u16>) -> io::Result<UdpSocket> {
        let mut taken = io::Error::from(io::ErrorKind::AddrInUse);
        for port in ports {
            let probe = self.socket()?;
            let bound = probe.bind(&self.any(port).into());
            drop(probe);
            match bound {
                Ok(()) => return self.sender_at(ttl, port),
                Err(error) => taken = error,
            }
        }
        Err(taken)
    }

    fn any(&self, port: u16) -> SocketAddr {
        match self.address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, port).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, port).into(),
        }
    }

    fn sender_at(&self, ttl: u32, port: u16) -> io::Result<UdpSocket> {
        let socket = self.socket()?;
        // A receiver on this machine may have it, too.
        socket.set_reuse_address(true)?;
        match self.address {
            SocketAddr::V4(_) => {
                socket.set_multicast_ttl_v4(ttl)?;
                // Nothing of groups that others on this machine joined.
                socket.set_multicast_all_v4(false)?;
                if let Some((name, _)) = &self.interface {
                    socket.set_multicast_if_v4(&address_of(name)?)?;
                }
            }
            SocketAddr::V6(_) => {
                socket.set_multicast_hops_v6(ttl)?;
                socket.set_multicast_all_v6(false)?;
                if let Some((_, index)) = &self.interface {
                    socket.set_multicast_if_v6(*index)?;
                }
            }
        }
        // Refused only where it is a little less.
        let _ = socket.set_send_buffer_size(SEND_BUFFER);
        socket.bind(&self.any(port).into())?;
        unblocking(socket)
    }

    /// A socket that takes what is sent to the group.
    ///
    /// # Errors
    /// The system's.
    pub fn listener(&self) -> io::Result<Listener> {
        let socket = self.socket()?;
        // Several receivers of one machine.
        socket.set_reuse_address(true)?;
        socket.bind(&self.address.into())?;
        match self.address.ip() {
            IpAddr::V4(group) => {
                let index = self.interface.as_ref().map_or(0, |(_, index)| *index);
                socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(index))?;
            }
            IpAddr::V6(group) => {
                let index = self.interface.as_ref().map_or(0, |(_, index)| *index);
                socket.join_multicast_v6(&group, index)?;
            }
        }
        // Root may go past the system's limit; others get what there is.
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
        }
        Ok(Listener {
            socket: unblocking(socket)?,
            buffer: Box::new([0; BUFFER]),
        })
    }

    /// A socket for what a receiver tells the sender.
    ///
    /// # Errors
    /// The system's.
    pub fn reporter(&self) -> io::Result<UdpSocket> {
        unblocking(self.socket()?)
    }

    fn socket(&self) -> io::Result<Socket> {
        let domain = Domain::for_address(self.address);
        Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))
    }

    /// Who sends to the group: waits for a packet of a session of which `wanted` is true,
    /// and gives its number and where it comes from.
    ///
    /// # Errors
    /// The system's.
    pub fn hear(
        &self,
        patience: Duration,
        wanted: impl Fn(u32) -> bool,
        stop: &dyn Fn() -> bool,
    ) -> io::Result<Option<(u32, SocketAddr)>> {
        let mut listener = self.listener()?;
        let until = Instant::now() + patience;
        while Instant::now() < until && !stop() {
            if let Some((bytes, from)) = listener.receive(Duration::from_millis(50))?
                && let Some((packet::Kind::Data | packet::Kind::Announce, session, _)) =
                    packet::peek(bytes)
                && wanted(session)
            {
                return Ok(Some((session, from)));
            }
        }
        Ok(None)
    }
}

fn unblocking(socket: Socket) -> io::Result<UdpSocket> {
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A socket that joined a group.
pub struct Listener {
    socket: UdpSocket,
    buffer: Box<[u8; BUFFER]>,
}

impl Listener {
    /// The next packet; `None` if none comes within that time, or at once for zero.
    ///
    /// # Errors
    /// The system's.
    pub fn receive(&mut self, wait: Duration) -> io::Result<Option<(&[u8], SocketAddr)>> {
        if !wait.is_zero() {
            wait_for(&self.socket, PollFlags::POLLIN, wait)?;
        }
        receive(&self.socket, &mut self.buffer)
    }
}

/// The next packet of a socket, if one is there.
///
/// # Errors
/// The system's.
pub fn receive<'a>(
    socket: &UdpSocket,
    buffer: &'a mut [u8; BUFFER],
) -> io::Result<Option<(&'a [u8], SocketAddr)>> {
    match socket.recv_from(buffer) {
        Ok((len, from)) => Ok(buffer.get(..len).map(|bytes| (bytes, from))),
        Err(error) if is_nothing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sends a packet, waiting while the card is behind.
///
/// # Errors
/// The system's; not that the packet was lost on the way out.
pub fn send(socket: &UdpSocket, packet: &[u8], to: SocketAddr) -> io::Result<()> {
    sent(socket, || socket.send_to(packet, to))
}

/// Repeats what puts a packet out until it is out, or lost.
pub(crate) fn sent(socket: &UdpSocket, put: impl Fn() -> io::Result<usize>) -> io::Result<()> {
    loop {
        match put() {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait_for(socket, PollFlags::POLLOUT, Duration::from_millis(20))?;
            }
            // A full queue is a lost packet, which parity answers.
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => return Ok(()),
            Err(error) if is_nothing(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

fn wait_for(socket: &UdpSocket, what: PollFlags, wait: Duration) -> io::Result<()> {
    let wait = PollTimeout::try_from(wait.as_millis()).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(socket.as_fd(), what)], wait) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Nothing is there; or an answer to an earlier packet says that nobody listened.
fn is_nothing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock
            | io::ErrorKind::TimedOut
            | io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionRefused
    )
}

/// The interface that has this address, if one does.
///
/// # Errors
/// The system's.
pub fn interface_of(address: IpAddr) -> io::Result<Option<String>> {
    Ok(getifaddrs()?
        .find(|entry| entry.address.as_ref().and_then(ip_of) == Some(address))
        .map(|entry| entry.interface_name))
}

fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
}

fn address_of(name: &str) -> io::Result<Ipv4Addr> {
    getifaddrs()?
        .filter(|entry| entry.interface_name == name)
        .filter_map(|entry| entry.address?.as_sockaddr_in().map(|a| a.ip()))
        .next()
        .ok_or_else(|| {
            let text = format!("interface {name} has no IPv4 address");
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_has_a_port_of_its_own() {
        // Four ports of which one is taken.
        let other = UdpSocket::bind("0.0.0.0:0").unwrap();
        let first = other.local_addr().unwrap().port().min(65_000);
        let group = Group::new("239.255.26.77:26530".parse().unwrap(), None).unwrap();
        let ports = first..=first + 3;
        let one = group.sender_at_one_of(1, ports.clone()).unwrap();
        let two = group.sender_at_one_of(1, ports.clone()).unwrap();
        let [one, two] = [one, two].map(|socket| socket.local_addr().unwrap().port());
        assert!(one != two && ports.contains(&one) && ports.contains(&two));
        assert_ne!(one, other.local_addr().unwrap().port());
    }

    #[test]
    fn what_is_no_group_of_ours_is_refused() {
        let refused = |address: &str| Group::new(address.parse().unwrap(), None).is_err();
        assert!(refused("10.0.0.1:1") && refused("224.0.0.251:26530") && refused("[fd00::1]:1"));
        assert!(!refused("224.0.1.0:26530") && !refused("[ff02::7]:26530"));
    }

    #[test]
    fn the_way_to_a_peer_names_the_interface() {
        let group = Group::new("239.255.26.77:26530".parse().unwrap(), None).unwrap();
        let here = group.towards("127.0.0.1:9".parse().unwrap()).unwrap();
        assert_eq!(here.interface.map(|(name, _)| name).as_deref(), Some("lo"));
    }
}
