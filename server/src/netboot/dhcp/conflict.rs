//! Other servers that answer network boots.
//!
//! Owns: recognising them by their broadcast offers. Does not own: listening.

use std::net::Ipv4Addr;

use super::option;
use super::packet::{MessageType, Packet};

/// The server that names a boot file in an offer seen on port 68, if it is not us.
/// An address server that only marks its offers with option 60, without a boot file,
/// leads clients to port 4011 and is no rival.
pub fn rival(bytes: &[u8], server_ip: Ipv4Addr) -> Option<Ipv4Addr> {
    let packet = Packet::decode(bytes).ok()?;
    let is_offer = matches!(
        packet.message_type(),
        Some(MessageType::Offer | MessageType::Ack)
    );
    let field = packet.file.iter().any(|byte| *byte != 0);
    let named = field
        || packet
            .option(option::BOOT_FILE)
            .is_some_and(|file| !file.is_empty());
    let server = packet
        .address_option(option::SERVER_ID)
        .unwrap_or(packet.siaddr);
    (packet.op == 2 && is_offer && named && server != server_ip).then_some(server)
}

#[cfg(test)]
mod tests {
    use super::rival;
    use crate::netboot::dhcp::testing::{bytes, discover, head};
    use std::net::Ipv4Addr;

    const OURS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);

    fn offer(server: &str, file: &[u8], more: &str) -> Vec<u8> {
        let mut packet = head(2, "8000", "00000000 0a630064 00000000 00000000", b"", file);
        packet.extend(bytes(&format!("35 01 02 36 04 {server} {more} ff")));
        packet
    }

    #[test]
    fn only_others_that_name_a_boot_file_are_rivals() {
        let other = Some(Ipv4Addr::new(10, 99, 0, 1));
        assert_eq!(rival(&offer("0a630001", b"pxelinux.0", ""), OURS), other);
        assert_eq!(rival(&offer("0a630001", b"", "43 01 61"), OURS), other);
        assert_eq!(
            rival(&offer("0a630001", b"", ""), OURS),
            None,
            "an address server"
        );
        assert_eq!(
            rival(&offer("0a630002", b"pxelinux.0", ""), OURS),
            None,
            "our own"
        );
        assert_eq!(rival(&discover(), OURS), None);
        assert_eq!(rival(b"junk", OURS), None);
    }
}
