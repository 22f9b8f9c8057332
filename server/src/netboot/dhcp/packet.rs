//! The DHCP packet (RFC 2131 section 2, RFC 2132, RFC 3396).
//!
//! Owns: bytes to fields and back. Total on any input: memory is bounded by the
//! packet's length. Does not own: what the fields mean for booting.
//!
//! Options keep their order and are kept as they came, also when one code comes in
//! several parts, so that decoding what was encoded gives the same packet.

use std::net::Ipv4Addr;

use super::option;

/// Length of the fixed fields before the magic cookie.
const FIXED: usize = 236;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Shortest packet that old relays and clients take (RFC 1542 section 2.1).
const SHORTEST: usize = 300;
const MAX_OPTION: usize = 255;

/// Kind of a DHCP message (option 53).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum MessageType {
    /// A client looks for servers.
    Discover = 1,
    /// A server answers a discover.
    Offer = 2,
    /// A client asks for what was offered.
    Request = 3,
    /// A client found its address used by another.
    Decline = 4,
    /// A server grants.
    Ack = 5,
    /// A server refuses.
    Nak = 6,
    /// A client gives its address back.
    Release = 7,
    /// A client that has an address asks for options.
    Inform = 8,
}

impl MessageType {
    fn from_byte(byte: u8) -> Option<MessageType> {
        use MessageType::{Ack, Decline, Discover, Inform, Nak, Offer, Release, Request};
        let all = [Discover, Offer, Request, Decline, Ack, Nak, Release, Inform];
        all.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Why bytes are no DHCP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Shorter than the fixed fields.
    #[error("{0} bytes are too few for a DHCP packet")]
    TooShort(usize),
    /// A BOOTP packet without options, or something else.
    #[error("the magic cookie is missing")]
    NoCookie,
    /// The length of a hardware address is above 16.
    #[error("a hardware address of {0} bytes")]
    HardwareAddress(u8),
    /// An option reaches past the end.
    #[error("option {0} reaches past the end")]
    Option(u8),
}

/// A DHCP packet. Numbers are in host order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// 1 from clients, 2 from servers.
    pub op: u8,
    /// Kind of hardware address: 1 is Ethernet.
    pub htype: u8,
    /// Length of the hardware address in bytes, at most 16.
    pub hlen: u8,
    /// Relays that it passed.
    pub hops: u8,
    /// The client's number for the exchange.
    pub xid: u32,
    /// Seconds since the client began.
    pub secs: u16,
    /// Bit 15: the client wants broadcasts.
    pub flags: u16,
    /// The client's address, if it has one.
    pub ciaddr: Ipv4Addr,
    /// Address given to the client.
    pub yiaddr: Ipv4Addr,
    /// Address of the boot server.
    pub siaddr: Ipv4Addr,
    /// Address of the relay.
    pub giaddr: Ipv4Addr,
    /// Hardware address, `hlen` bytes of it.
    pub chaddr: [u8; 16],
    /// Name of the boot server, ended by a zero.
    pub sname: [u8; 64],
    /// Name of the boot file, ended by a zero.
    pub file: [u8; 128],
    /// Options in order, without padding and end; each at most 255 bytes.
    pub options: Vec<(u8, Vec<u8>)>,
}

impl Packet {
    /// Reads a packet.
    ///
    /// # Errors
    /// [`Malformed`] says what is wrong; nothing is skipped silently. A missing end
    /// option is let pass, as some firmware leaves it out.
    pub fn decode(bytes: &[u8]) -> Result<Packet, Malformed> {
        let short = Malformed::TooShort(bytes.len());
        let (fixed, rest) = bytes.split_at_checked(FIXED).ok_or(short)?;
        let options = rest.strip_prefix(&COOKIE).ok_or(Malformed::NoCookie)?;
        let mut reader = Reader { bytes: fixed };
        let [op, htype, hlen, hops] = reader.array().ok_or(short)?;
        if hlen > 16 {
            return Err(Malformed::HardwareAddress(hlen));
        }
        let mut packet = Packet {
            op,
            htype,
            hlen,
            hops,
            xid: u32::from_be_bytes(reader.array().ok_or(short)?),
            secs: u16::from_be_bytes(reader.array().ok_or(short)?),
            flags: u16::from_be_bytes(reader.array().ok_or(short)?),
            ciaddr: reader.array::<4>().ok_or(short)?.into(),
            yiaddr: reader.array::<4>().ok_or(short)?.into(),
            siaddr: reader.array::<4>().ok_or(short)?.into(),
            giaddr: reader.array::<4>().ok_or(short)?.into(),
            chaddr: reader.array().ok_or(short)?,
            sname: reader.array().ok_or(short)?,
            file: reader.array().ok_or(short)?,
            options: decode_options(options)?,
        };
        packet.unfold_overload()?;
        Ok(packet)
    }

    /// Options in `file` and `sname` (RFC 2132 section 9.3) move to the others, in the
    /// order that RFC 3396 section 7 sets, and the option that says so goes.
    fn unfold_overload(&mut self) -> Result<(), Malformed> {
        let Some(which) = self
            .option(option::OVERLOAD)
            .and_then(|value| value.first().copied())
        else {
            return Ok(());
        };
        if which & 1 != 0 {
            self.options.extend(decode_options(&self.file)?);
            self.file = [0; 128];
        }
        if which & 2 != 0 {
            self.options.extend(decode_options(&self.sname)?);
            self.sname = [0; 64];
        }
        self.options.retain(|(code, _)| *code != option::OVERLOAD);
        Ok(())
    }

    /// Writes the packet, padded to the shortest length that everybody takes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SHORTEST);
        bytes.extend([self.op, self.htype, self.hlen, self.hops]);
        bytes.extend(self.xid.to_be_bytes());
        bytes.extend(self.secs.to_be_bytes());
        bytes.extend(self.flags.to_be_bytes());
        for address in [self.ciaddr, self.yiaddr, self.siaddr, self.giaddr] {
            bytes.extend(address.octets());
        }
        bytes.extend(self.chaddr);
        bytes.extend(self.sname);
        bytes.extend(self.file);
        bytes.extend(COOKIE);
        encode_options(&self.options, &mut bytes);
        bytes.resize(bytes.len().max(SHORTEST), option::PAD);
        bytes
    }

    /// Value of an option; of one in several parts, all parts joined (RFC 3396).
    pub fn option(&self, code: u8) -> Option<Vec<u8>> {
        let mut parts = self
            .options
            .iter()
            .filter(|(known, _)| *known == code)
            .map(|(_, value)| value);
        let mut value = parts.next()?.clone();
        parts.for_each(|part| value.extend(part));
        Some(value)
    }

    /// Kind of message, if it is one that is known here.
    pub fn message_type(&self) -> Option<MessageType> {
        MessageType::from_byte(*self.option(option::MESSAGE_TYPE)?.first()?)
    }

    /// An option that holds one address.
    pub fn address_option(&self, code: u8) -> Option<Ipv4Addr> {
        <[u8; 4]>::try_from(self.option(code)?)
            .ok()
            .map(Ipv4Addr::from)
    }

    /// The client's hardware address as people write it.
    pub fn mac(&self) -> String {
        let used = self
            .chaddr
            .get(..usize::from(self.hlen))
            .unwrap_or_default();
        used.iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<Vec<_>>()
            .join(":")
    }
}

/// Reads options (or PXE sub-options, which have the same form) up to the end option.
///
/// # Errors
/// [`Malformed::Option`] for an option that reaches past the end.
pub fn decode_options(bytes: &[u8]) -> Result<Vec<(u8, Vec<u8>)>, Malformed> {
    let mut options = Vec::new();
    let mut rest = bytes;
    while let Some((&code, after)) = rest.split_first() {
        match code {
            option::PAD => rest = after,
            option::END => break,
            _ => {
                let past_end = Malformed::Option(code);
                let (&length, after) = after.split_first().ok_or(past_end)?;
                let (value, after) = after
                    .split_at_checked(usize::from(length))
                    .ok_or(past_end)?;
                options.push((code, value.to_vec()));
                rest = after;
            }
        }
    }
    Ok(options)
}

/// Writes options and the end option. A value over 255 bytes goes out in parts.
pub fn encode_options(options: &[(u8, Vec<u8>)], bytes: &mut Vec<u8>) {
    for (code, value) in options {
        let parts = value.len().div_ceil(MAX_OPTION).max(1);
        for part in 0..parts {
            let from = part * MAX_OPTION;
            let part = &value[from..value.len().min(from + MAX_OPTION)];
            // Not above 255 by construction.
            bytes.extend([*code, part.len() as u8]);
            bytes.extend(part);
        }
    }
    bytes.push(option::END);
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.bytes.split_first_chunk::<N>()?;
        self.bytes = tail;
        Some(*head)
    }
}

#[cfg(test)]
mod tests {
    use super::{Malformed, Packet, decode_options, encode_options};
    use crate::netboot::dhcp::testing::{discover, packets};
    use proptest::prelude::{any, prop_assert_eq, proptest};

    #[test]
    fn fields_stand_where_rfc_2131_puts_them() {
        let bytes = discover();
        let packet = Packet::decode(&bytes).unwrap();
        assert_eq!(
            (packet.op, packet.htype, packet.hlen, packet.hops),
            (1, 1, 6, 0)
        );
        assert_eq!(
            (packet.xid, packet.secs, packet.flags),
            (0x3903_f326, 4, 0x8000)
        );
        assert_eq!(packet.mac(), "52:54:00:12:34:56");
        assert_eq!(
            packet.option(60).unwrap(),
            b"PXEClient:Arch:00007:UNDI:003016"
        );
        assert_eq!(packet.option(93).unwrap(), [0, 7]);
        assert_eq!(packet.option(1), None);
    }

    #[test]
    fn short_and_foreign_packets_are_told() {
        let bytes = discover();
        assert_eq!(Packet::decode(&bytes[..235]), Err(Malformed::TooShort(235)));
        assert_eq!(Packet::decode(&bytes[..236]), Err(Malformed::NoCookie));
        let mut wide = bytes.clone();
        wide[2] = 17;
        assert_eq!(Packet::decode(&wide), Err(Malformed::HardwareAddress(17)));
        let mut cut = bytes[..240].to_vec();
        cut.extend([60, 9, b'P']);
        assert_eq!(Packet::decode(&cut), Err(Malformed::Option(60)));
        cut.truncate(241);
        assert_eq!(Packet::decode(&cut), Err(Malformed::Option(60)));
        cut.truncate(240);
        assert_eq!(Packet::decode(&cut).unwrap().options, []);
    }

    #[test]
    fn options_in_file_and_sname_are_found() {
        let mut bytes = discover();
        bytes.truncate(240);
        bytes.extend([52, 1, 3, 53, 1, 1, 255]);
        bytes[108..112].copy_from_slice(&[77, 2, b'i', b'P']);
        bytes[112] = 255;
        bytes[44..48].copy_from_slice(&[77, 2, b'X', b'E']);
        bytes[48] = 255;
        let packet = Packet::decode(&bytes).unwrap();
        assert_eq!(packet.option(77).unwrap(), b"iPXE");
        assert_eq!(packet.option(52), None);
        assert_eq!(packet.sname, [0; 64]);
        assert_eq!(packet.file, [0; 128]);
    }

    #[test]
    fn long_options_go_out_in_parts_and_come_back_whole() {
        let mut packet = Packet::decode(&discover()).unwrap();
        packet.options = vec![(43, vec![7; 600]), (60, Vec::new())];
        let again = Packet::decode(&packet.encode()).unwrap();
        assert_eq!(again.options.len(), 4);
        assert_eq!(again.option(43).unwrap(), vec![7; 600]);
        assert_eq!(again.option(60).unwrap(), Vec::<u8>::new());
    }

    proptest! {
        #[test]
        fn decoding_what_was_encoded_gives_the_same(packet in packets()) {
            prop_assert_eq!(Packet::decode(&packet.encode()), Ok(packet));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
            let _ = Packet::decode(&bytes);
            if let Ok(options) = decode_options(&bytes) {
                let mut written = Vec::new();
                encode_options(&options, &mut written);
                prop_assert_eq!(decode_options(&written), Ok(options));
            }
        }

        #[test]
        fn a_damaged_packet_is_read_or_refused(
            damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
            end in any::<proptest::sample::Index>(),
        ) {
            let mut bytes = discover();
            for (place, value) in damage {
                let place = place.index(bytes.len());
                bytes[place] = value;
            }
            bytes.truncate(end.index(bytes.len()) + 1);
            if let Ok(packet) = Packet::decode(&bytes) {
                prop_assert_eq!(Packet::decode(&packet.encode()), Ok(packet));
            }
        }
    }
}
