//! Sending many packets with one call.
//!
//! Owns: giving the system runs of packets that it cuts apart itself (UDP segmentation, Linux
//! 4.18), and noticing where it does not. Does not own: the sockets ([`crate::Group`]), when
//! packets are sent.
//!
//! A call for each packet is what most of a sender's processor time goes into: the whole way
//! through the system is gone once for a run, and cards that can cut packets are given it
//! whole.

use crate::group::{self, sent};
use multicast::Batch;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
use std::io::{self, IoSlice};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

/// The kernel takes 64 packets at once since the first version that does so.
const MOST: usize = 64;
/// A datagram's greatest length, less the headers of IPv6 and UDP.
const MOST_BYTES: usize = 65_535 - 40 - 8;

/// Puts the packets of a session out.
#[derive(Debug)]
pub struct Outlet {
    to: SocketAddr,
    /// Until the system refuses them.
    runs: bool,
}

impl Outlet {
    /// To that group.
    #[must_use]
    pub fn new(to: SocketAddr) -> Self {
        Outlet { to, runs: true }
    }

    /// Sends all packets, waiting while the card is behind.
    ///
    /// # Errors
    /// The system's; not that packets were lost on the way out.
    pub fn put(&mut self, socket: &UdpSocket, batch: &Batch) -> io::Result<()> {
        let most = if self.runs { MOST } else { 1 };
        for (bytes, len) in batch.runs(most, MOST_BYTES) {
            if self.runs && bytes.len() > len {
                match self.run(socket, bytes, len) {
                    Ok(()) => continue,
                    Err(error) if is_refusal(&error) => self.runs = false,
                    Err(error) => return Err(error),
                }
            }
            bytes
                .chunks(len.max(1))
                .try_for_each(|packet| group::send(socket, packet, self.to))?;
        }
        Ok(())
    }

    fn run(&self, socket: &UdpSocket, bytes: &[u8], len: usize) -> io::Result<()> {
        let too_long = || io::Error::from_raw_os_error(nix::libc::EMSGSIZE);
        let len = u16::try_from(len).map_err(|_| too_long())?;
        let to = SockaddrStorage::from(self.to);
        sent(socket, || {
            let cut = [ControlMessage::UdpGsoSegments(&len)];
            let bytes = [IoSlice::new(bytes)];
            let none = MsgFlags::empty();
            Ok(sendmsg(socket.as_raw_fd(), &bytes, &cut, none, Some(&to))?)
        })
    }
}

/// Whether packets one by one may do where a run did not: no such option, a card that makes
/// no checksums (EIO), packets that do not fit the network (EINVAL, EMSGSIZE).
fn is_refusal(error: &io::Error) -> bool {
    use nix::libc::{EINVAL, EIO, EMSGSIZE, ENOPROTOOPT, EOPNOTSUPP};
    let refusals = [EINVAL, EIO, EMSGSIZE, ENOPROTOOPT, EOPNOTSUPP];
    error.raw_os_error().is_some_and(|n| refusals.contains(&n))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets as they come out of a session, and what a socket at the other end is given.
    fn carried(runs: bool) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let lengths = (0..100).map(|n: usize| if n % 70 == 69 { 90 } else { 400 });
        let packets: Vec<Vec<u8>> = lengths
            .enumerate()
            .map(|(n, len)| vec![n as u8; len])
            .collect();
        let mut batch = Batch::default();
        packets.iter().for_each(|packet| batch.push(packet));
        let there = UdpSocket::bind("127.0.0.1:0").unwrap();
        there
            .set_read_timeout(Some(std::time::Duration::from_secs(10)))
            .unwrap();
        let here = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut outlet = Outlet {
            runs,
            ..Outlet::new(there.local_addr().unwrap())
        };
        outlet.put(&here, &batch).unwrap();
        assert_eq!(outlet.runs, runs);
        let mut buffer = [0; 2048];
        let came = packets.iter().map(|_| {
            let (len, _) = there.recv_from(&mut buffer).unwrap();
            buffer[..len].to_vec()
        });
        let came = came.collect();
        (packets, came)
    }

    #[test]
    fn packets_arrive_as_they_were_however_they_are_sent() {
        for runs in [true, false] {
            let (packets, came) = carried(runs);
            assert!(packets == came, "runs: {runs}");
        }
    }

    #[test]
    fn a_network_with_small_packets_is_sent_single_ones() {
        // A run of packets that the loopback would have to break up is refused.
        let there = UdpSocket::bind("127.0.0.1:0").unwrap();
        let here = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut batch = Batch::default();
        (0..2).for_each(|n| batch.push(&vec![n; 30_000]));
        let mut outlet = Outlet::new(there.local_addr().unwrap());
        // Longer than a run may be: each for itself, and nothing is given up.
        (0..2).for_each(|n| batch.push(&vec![n; 65_000]));
        outlet.put(&here, &batch).unwrap();
        let mut buffer = vec![0; 70_000];
        for len in [30_000, 30_000, 65_000, 65_000] {
            assert_eq!(there.recv(&mut buffer).unwrap(), len);
        }
    }

    #[test]
    fn what_is_no_trouble_of_runs_is_told() {
        let mut batch = Batch::default();
        (0..3).for_each(|_| batch.push(&[0; 1000]));
        let here = UdpSocket::bind("127.0.0.1:0").unwrap();
        // Documentation's addresses are not reached from the loopback's.
        let mut outlet = Outlet::new("192.0.2.1:9".parse().unwrap());
        assert!(outlet.put(&here, &batch).is_err());
    }
}
