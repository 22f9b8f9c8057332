//! The socket to the kernel's routing netlink.
//!
//! Owns: sending one request and waiting for its acknowledgement. Does not own: the
//! bytes ([`super::netlink`]).

use super::netlink::{self, Request};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// Datagrams of other messages that are passed over while waiting.
const MAX_UNRELATED: usize = 64;

/// A connection to the kernel.
pub struct Rtnl {
    socket: OwnedFd,
    sequence: u32,
}

impl Rtnl {
    /// Opens it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        // The kernel answers at once; the limit only keeps a surprise from hanging us.
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(5, 0))?;
        Ok(Rtnl {
            socket,
            sequence: 0,
        })
    }

    /// Has a request carried out.
    ///
    /// # Errors
    /// The kernel's.
    pub fn request(&mut self, request: Request) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = request.encode(self.sequence);
        sendto(
            self.socket.as_raw_fd(),
            &bytes,
            &NetlinkAddr::new(0, 0),
            MsgFlags::empty(),
        )?;
        let mut buffer = [0; 8192];
        for _ in 0..MAX_UNRELATED {
            let len = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            match netlink::acknowledgement(buffer.get(..len).unwrap_or(&buffer), self.sequence) {
                Some(0) => return Ok(()),
                Some(error) => return Err(Errno::from_raw(error).into()),
                None => {}
            }
        }
        Err(io::Error::other(
            "the kernel does not acknowledge a network request",
        ))
    }

    /// Like [`Rtnl::request`], where the thing being gone already is no error.
    ///
    /// # Errors
    /// The kernel's.
    pub fn request_unless_gone(&mut self, request: Request) -> io::Result<()> {
        match self.request(request) {
            Err(error) if error.raw_os_error() == Some(Errno::EADDRNOTAVAIL as i32) => Ok(()),
            other => other,
        }
    }
}
