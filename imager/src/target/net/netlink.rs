//! Messages of the kernel's routing netlink: link up, addresses, the default route.
//!
//! Owns: encoding of the requests that a target needs and decoding of the kernel's
//! acknowledgement (rtnetlink(7)). Does not own: the socket ([`super::rtnl`]).

use std::net::Ipv4Addr;

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const HEADER_BYTES: usize = 16;

const IFF_UP: u32 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;
const AF_INET: u8 = 2;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_DHCP: u8 = 16;
const RTN_UNICAST: u8 = 1;
const RTNH_F_ONLINK: u32 = 4;

/// A change of the kernel's network configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Brings an interface up.
    LinkUp {
        /// Interface index.
        index: u32,
    },
    /// Makes the interface `vINDEX.ID` ([`vlan_name`]), whose packets are tagged. An error
    /// if there is one.
    AddVlan {
        /// Index of the interface that carries them.
        index: u32,
        /// Number of the VLAN.
        id: u16,
    },
    /// Adds an address (or replaces the same one).
    AddAddress {
        /// Interface index.
        index: u32,
        /// The address.
        address: Ipv4Addr,
        /// Length of the network prefix, 0 to 32.
        prefix: u8,
    },
    /// Removes an address.
    RemoveAddress {
        /// Interface index.
        index: u32,
        /// The address.
        address: Ipv4Addr,
        /// Length of the network prefix, 0 to 32.
        prefix: u8,
    },
    /// Sets the default route of an interface. Its index is the metric, so that each
    /// interface has its own.
    DefaultRoute {
        /// Interface index.
        index: u32,
        /// The router.
        gateway: Ipv4Addr,
        /// The router lies outside of the address's network.
        on_link: bool,
    },
}

impl Request {
    /// The message, ready to be sent.
    pub fn encode(&self, sequence: u32) -> Vec<u8> {
        match *self {
            Request::LinkUp { index } => {
                let mut body = vec![0; 4]; // family, padding, type
                body.extend(index.to_ne_bytes());
                body.extend(IFF_UP.to_ne_bytes());
                body.extend(IFF_UP.to_ne_bytes()); // change this flag only
                message(RTM_NEWLINK, 0, sequence, &body)
            }
            Request::AddVlan { index, id } => {
                let mut name = vlan_name(index, id).into_bytes();
                name.push(0);
                let mut data = Vec::new();
                attribute(&mut data, IFLA_VLAN_ID, &id.to_ne_bytes());
                let mut info = Vec::new();
                attribute(&mut info, IFLA_INFO_KIND, b"vlan");
                attribute(&mut info, IFLA_INFO_DATA, &data);
                // Nothing but a new interface: family, type, index, flags.
                let mut body = vec![0; 16];
                attribute(&mut body, IFLA_IFNAME, &name);
                attribute(&mut body, IFLA_LINK, &index.to_ne_bytes());
                attribute(&mut body, IFLA_LINKINFO, &info);
                message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sequence, &body)
            }
            Request::AddAddress {
                index,
                address,
                prefix,
            } => {
                let mut body = address_body(index, address, prefix);
                if prefix < 31 {
                    attribute(
                        &mut body,
                        IFA_BROADCAST,
                        &broadcast(address, prefix).octets(),
                    );
                }
                message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, sequence, &body)
            }
            Request::RemoveAddress {
                index,
                address,
                prefix,
            } => message(
                RTM_DELADDR,
                0,
                sequence,
                &address_body(index, address, prefix),
            ),
            Request::DefaultRoute {
                index,
                gateway,
                on_link,
            } => {
                // Family, lengths of destination and source, service, table, origin,
                // scope (0: anywhere), type.
                let mut body = vec![AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_DHCP, 0, RTN_UNICAST];
                body.extend(if on_link { RTNH_F_ONLINK } else { 0 }.to_ne_bytes());
                attribute(&mut body, RTA_GATEWAY, &gateway.octets());
                attribute(&mut body, RTA_OIF, &index.to_ne_bytes());
                attribute(&mut body, RTA_PRIORITY, &index.to_ne_bytes());
                message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, sequence, &body)
            }
        }
    }
}

/// What a received datagram says about the request with this sequence number: `None`
/// if nothing, `Some(0)` if it was carried out, else the error number.
pub fn acknowledgement(mut datagram: &[u8], sequence: u32) -> Option<i32> {
    while datagram.len() >= HEADER_BYTES {
        let len = usize::try_from(u32::from_ne_bytes(array(datagram, 0)?)).ok()?;
        if len < HEADER_BYTES {
            return None;
        }
        let kind = u16::from_ne_bytes(array(datagram, 4)?);
        let answers = u32::from_ne_bytes(array(datagram, 8)?);
        if kind == NLMSG_ERROR && answers == sequence {
            // The kernel gives errors as negative numbers.
            return Some(i32::from_ne_bytes(array(datagram, HEADER_BYTES)?).saturating_neg());
        }
        datagram = datagram.get(len.checked_next_multiple_of(4)?..)?;
    }
    None
}

/// The directed broadcast address of a network.
pub fn broadcast(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    let hosts = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
    Ipv4Addr::from_bits(address.to_bits() | hosts)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn address_body(index: u32, address: Ipv4Addr, prefix: u8) -> Vec<u8> {
    let mut body = vec![AF_INET, prefix.min(32), 0, 0]; // flags, scope: universe
    body.extend(index.to_ne_bytes());
    attribute(&mut body, IFA_LOCAL, &address.octets());
    attribute(&mut body, IFA_ADDRESS, &address.octets());
    body
}

/// Appends an attribute, padded to four bytes.
fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    // Ours have at most 100 bytes.
    let len = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    body.extend(len.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// Name of the interface that carries a VLAN; at most 15 bytes.
pub fn vlan_name(index: u32, id: u16) -> String {
    format!("v{}.{id}", index % 1_000_000)
}

fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    // Bodies here have at most 200 bytes.
    let len = u32::try_from(HEADER_BYTES + body.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend(len.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes()); // to the kernel
    bytes.extend(body);
    bytes
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::{Request, acknowledgement, broadcast, vlan_name};
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    fn hex(request: Request) -> String {
        hex::encode(request.encode(7))
    }

    #[test]
    fn requests_have_the_kernels_bytes() {
        let address = Ipv4Addr::new(10, 0, 0, 9);
        assert_eq!(
            hex(Request::LinkUp { index: 2 }),
            concat!(
                "20000000", "1000", "0500", "07000000", "00000000", "00000000", "02000000",
                "01000000", "01000000"
            )
        );
        assert_eq!(
            hex(Request::AddAddress {
                index: 2,
                address,
                prefix: 24
            }),
            concat!(
                "30000000",
                "1400",
                "0505",
                "07000000",
                "00000000",
                "02180000",
                "02000000",
                "080002000a000009",
                "080001000a000009",
                "080004000a0000ff"
            )
        );
        assert_eq!(
            hex(Request::RemoveAddress {
                index: 2,
                address,
                prefix: 32
            }),
            concat!(
                "28000000",
                "1500",
                "0500",
                "07000000",
                "00000000",
                "02200000",
                "02000000",
                "080002000a000009",
                "080001000a000009"
            )
        );
        assert_eq!(
            hex(Request::AddVlan { index: 2, id: 7 }),
            concat!(
                "4c000000",
                "1000",
                "0506",
                "07000000",
                "00000000",
                "00000000000000000000000000000000",
                "0900030076322e3700000000",
                "0800050002000000",
                "18001200",
                "08000100766c616e",
                "0c000200",
                "0600010007000000"
            )
        );
        assert_eq!(vlan_name(u32::MAX, 4094).len(), 12);
        let gateway = Ipv4Addr::new(10, 0, 0, 1);
        assert_eq!(
            hex(Request::DefaultRoute {
                index: 2,
                gateway,
                on_link: false
            }),
            concat!(
                "34000000",
                "1800",
                "0505",
                "07000000",
                "00000000",
                "02000000fe100001",
                "00000000",
                "080005000a000001",
                "0800040002000000",
                "0800060002000000"
            )
        );
    }

    #[test]
    fn acknowledgements_are_found_among_other_messages() {
        let mut datagram = vec![20, 0, 0, 0, 3, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
        assert_eq!(acknowledgement(&datagram, 7), None);
        let error = [
            20, 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0xef, 0xff, 0xff, 0xff,
        ];
        datagram.extend(error);
        assert_eq!(acknowledgement(&datagram, 7), Some(17)); // EEXIST
        assert_eq!(acknowledgement(&datagram, 8), None);
        assert_eq!(acknowledgement(&datagram[..38], 7), None);
    }

    #[test]
    fn broadcast_addresses() {
        let address = Ipv4Addr::new(10, 1, 2, 3);
        assert_eq!(broadcast(address, 0), Ipv4Addr::BROADCAST);
        assert_eq!(broadcast(address, 22), Ipv4Addr::new(10, 1, 3, 255));
        assert_eq!(broadcast(address, 32), address);
    }

    proptest! {
        #[test]
        fn any_datagram_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            acknowledgement(&bytes, 1);
        }

        #[test]
        fn any_chain_of_headers_is_read(lens in proptest::collection::vec(0u32..64, 0..8)) {
            let mut bytes = Vec::new();
            for len in lens {
                bytes.extend(len.to_ne_bytes());
                bytes.extend([2, 0, 0, 0]);
            }
            acknowledgement(&bytes, 1);
        }
    }
}
