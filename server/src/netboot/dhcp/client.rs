//! What kind of boot client sent a DHCP packet.
//!
//! Owns: reading vendor class, architecture and user class. Does not own: what the
//! client is answered.

use super::option;
use super::packet::Packet;

/// The program that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// iPXE, whatever loaded it.
    Ipxe,
    /// A firmware's PXE client: wants a boot loader by TFTP.
    Pxe,
    /// A UEFI firmware's HTTP client: wants the URL of a boot loader.
    Http,
}

/// A boot client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The program that asks.
    pub program: Program,
    /// Whether the vendor class is `HTTPClient`, which the answer must repeat.
    pub http_class: bool,
    /// Number of its architecture in IANA's list (option 93): 0 BIOS, 7 x86-64 UEFI.
    pub architecture: u16,
}

const BIOS: u16 = 0;

/// An architecture as people call it (IANA's list, option 93), and what to do with a
/// machine of it for which there is no boot file.
pub fn architecture_name(architecture: u16) -> (&'static str, &'static str) {
    const FILES: &str =
        "Build the boot files (./build.sh), and look whether the server's PXE folder has them.";
    const OLD: &str = "32-bit UEFI firmware is not supported over the network. Boot the machine in BIOS mode if \
                       its firmware can do that.";
    const ARM: &str = "Machines of this kind are not supported over the network.";
    match architecture {
        0 => ("BIOS", FILES),
        6 | 15 => ("32-bit UEFI", OLD),
        7 | 9 | 16 => ("x86-64 UEFI", FILES),
        10 | 11 | 18 | 19 => ("Arm UEFI", ARM),
        _ => ("another kind of machine", ARM),
    }
}

impl Client {
    /// Recognises a boot client; `None` for every other DHCP client.
    pub fn of(packet: &Packet) -> Option<Client> {
        let class = packet.option(option::VENDOR_CLASS)?;
        let http_class = class.starts_with(b"HTTPClient");
        if !http_class && !class.starts_with(b"PXEClient") {
            return None;
        }
        let program = match (is_ipxe(packet), http_class) {
            (true, _) => Program::Ipxe,
            (false, true) => Program::Http,
            (false, false) => Program::Pxe,
        };
        let from_option = packet
            .option(option::ARCHITECTURE)
            .and_then(|list| list.first_chunk().copied());
        let architecture = from_option
            .map(u16::from_be_bytes)
            .or_else(|| in_class(&class))
            .unwrap_or(BIOS);
        Some(Client {
            program,
            http_class,
            architecture,
        })
    }
}

fn is_ipxe(packet: &Packet) -> bool {
    // RFC 3004 wants a length before each class; iPXE sends the bare word.
    let named = packet
        .option(option::USER_CLASS)
        .is_some_and(|class| class == b"iPXE" || class == b"\x04iPXE");
    named || packet.option(option::IPXE).is_some()
}

/// Architecture in the vendor class itself, as `PXEClient:Arch:00007:UNDI:003016`.
fn in_class(class: &[u8]) -> Option<u16> {
    std::str::from_utf8(class)
        .ok()?
        .split(":Arch:")
        .nth(1)?
        .split(':')
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::{Client, Program};
    use crate::netboot::dhcp::packet::Packet;
    use crate::netboot::dhcp::testing::discover;

    fn client(options: &[(u8, &[u8])]) -> Option<Client> {
        let mut packet = Packet::decode(&discover()).unwrap();
        packet.options = options
            .iter()
            .map(|(code, value)| (*code, value.to_vec()))
            .collect();
        Client::of(&packet)
    }

    #[test]
    fn clients_are_told_apart() {
        let of = |program, http_class, architecture| {
            Some(Client {
                program,
                http_class,
                architecture,
            })
        };
        assert_eq!(
            client(&[(60, b"PXEClient:Arch:00000:UNDI:002001")]),
            of(Program::Pxe, false, 0)
        );
        assert_eq!(
            client(&[(60, b"PXEClient:Arch:00007:UNDI:003016")]),
            of(Program::Pxe, false, 7)
        );
        assert_eq!(
            client(&[(60, b"PXEClient"), (93, &[0, 9, 0, 7])]),
            of(Program::Pxe, false, 9)
        );
        assert_eq!(
            client(&[(60, b"HTTPClient:Arch:00016"), (93, &[0, 16])]),
            of(Program::Http, true, 16)
        );
        assert_eq!(
            client(&[(60, b"PXEClient"), (77, b"iPXE")]),
            of(Program::Ipxe, false, 0)
        );
        assert_eq!(
            client(&[(60, b"PXEClient"), (77, b"\x04iPXE")]),
            of(Program::Ipxe, false, 0)
        );
        assert_eq!(
            client(&[(60, b"HTTPClient"), (175, b"")]),
            of(Program::Ipxe, true, 0)
        );
    }

    #[test]
    fn other_clients_are_none_of_ours() {
        assert_eq!(client(&[]), None);
        assert_eq!(client(&[(60, b"MSFT 5.0")]), None);
        assert_eq!(client(&[(60, b"xPXEClient"), (93, &[0, 7])]), None);
    }

    #[test]
    fn odd_architectures_count_as_bios() {
        for class in [
            &b"PXEClient:Arch:99999"[..],
            b"PXEClient:Arch:",
            b"PXEClient\xff",
        ] {
            assert_eq!(client(&[(60, class), (93, &[7])]).unwrap().architecture, 0);
        }
    }
}
