//! Where a server of ours is, as DHCP options say it.
//!
//! Owns: the options 186 (address), 190 (secure port), 192 and 187 (plain port), directly or
//! within option 43, and the list of URLs as text within option 43 (docs/how-to/
//! find-the-server.md). Total on any bytes. Does not own: what is done about it.
//!
//! Ports are words in network order. Servers that take the number as text, or that send
//! no more bytes than a number needs, are understood too: nothing else fits those lengths.

use super::packet::{addresses, collect};
use crate::remote::parse_list;
use std::net::Ipv4Addr;

const ADDRESS: u8 = 186;
const PLAIN_OLD: u8 = 187;
const SECURE: u8 = 190;
const PLAIN: u8 = 192;
/// Vendor-specific information.
const VENDOR: u8 = 43;
const VENDOR_CLASS: u8 = 60;
/// Within option 43: a list of URLs.
const URLS: u8 = 1;
/// What announces several servers is a short list.
const MAX_ADDRESSES: usize = 4;

/// What a reply says of servers, as texts for the rules of server addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// By the options 186, 190, 192 and 187, wherever they stand.
    pub options: Vec<String>,
    /// By the text that is sent to our vendor class.
    pub vendor: Vec<String>,
}

impl Announced {
    /// Reads a reply's options.
    pub fn read(get: &impl Fn(u8) -> Option<Vec<u8>>) -> Self {
        let vendor = get(VENDOR).unwrap_or_default();
        // In answers to boot firmware sub-option 1 is something else.
        let to_firmware = get(VENDOR_CLASS).is_some_and(|class| class.starts_with(b"PXEClient"));
        let urls = collect(&vendor, URLS).filter(|_| !to_firmware);
        Announced {
            options: options(&|code| get(code).or_else(|| collect(&vendor, code))),
            vendor: urls.and_then(|urls| list(&urls)).unwrap_or_default(),
        }
    }

    /// Whether nothing is announced.
    pub fn is_empty(&self) -> bool {
        self.options.is_empty() && self.vendor.is_empty()
    }
}

fn options(get: &dyn Fn(u8) -> Option<Vec<u8>>) -> Vec<String> {
    let secure = get(SECURE).and_then(|value| port(&value));
    let plain = get(PLAIN)
        .and_then(|value| port(&value))
        .or_else(|| port(&get(PLAIN_OLD)?));
    let named = addresses(get(ADDRESS));
    let mut list = Vec::new();
    for address in named.into_iter().take(MAX_ADDRESSES) {
        list.extend(urls(address, secure, plain));
    }
    list
}

fn urls(address: Ipv4Addr, secure: Option<u16>, plain: Option<u16>) -> Vec<String> {
    let secure = secure.map(|port| format!("https://{address}:{port}"));
    let plain = plain.map(|port| format!("http://{address}:{port}"));
    let list: Vec<String> = secure.into_iter().chain(plain).collect();
    if list.is_empty() {
        vec![address.to_string()]
    } else {
        list
    }
}

fn port(value: &[u8]) -> Option<u16> {
    let digits = || {
        let text = std::str::from_utf8(value).ok()?.trim_end_matches('\0');
        let plain = text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| plain)
    };
    let number = match *value {
        [low] => Some(u16::from(low)),
        [high, low] | [0, 0, high, low] => Some(u16::from_be_bytes([high, low])),
        _ => digits(),
    };
    number.filter(|port| *port != 0)
}

/// A text with a list of URLs.
fn list(value: &[u8]) -> Option<Vec<String>> {
    let text = std::str::from_utf8(value).ok()?.trim_end_matches('\0');
    let list = parse_list(text).ok()?;
    Some(list.iter().map(ToString::to_string).collect())
}

#[cfg(test)]
mod tests {
    use super::Announced;
    use crate::target::net::dhcp::packet::collect;
    use proptest::prelude::*;

    fn read(options: &[u8]) -> Announced {
        Announced::read(&|code| collect(options, code))
    }

    fn options(more: &[u8]) -> Vec<String> {
        read(&[&[186, 4, 10, 0, 0, 9], more].concat()).options
    }

    #[test]
    fn address_and_ports_make_urls() {
        assert_eq!(options(&[]), ["10.0.0.9"]);
        assert_eq!(options(&[190, 2, 0x67, 0x85]), ["https://10.0.0.9:26501"]);
        assert_eq!(
            options(&[190, 2, 0x67, 0x85, 192, 2, 0x67, 0x84]),
            ["https://10.0.0.9:26501", "http://10.0.0.9:26500"]
        );
        assert!(read(&[190, 2, 0x67, 0x85]).is_empty());
        assert!(read(&[186, 3, 10, 0, 0]).is_empty());
        assert!(read(&[186, 4, 0, 0, 0, 0]).is_empty());
    }

    #[test]
    fn the_old_plain_port_counts_only_where_the_new_one_is_missing() {
        assert_eq!(options(&[187, 2, 0, 80]), ["http://10.0.0.9:80"]);
        let both = [187, 2, 0, 80, 192, 2, 0x67, 0x84];
        assert_eq!(options(&both), ["http://10.0.0.9:26500"]);
    }

    #[test]
    fn ports_come_in_every_form() {
        for (form, port) in [
            (&b"\x67\x85"[..], Some("26501")),
            (b"\x00\x00\x67\x85", Some("26501")),
            (b"26501", Some("26501")),
            (b"26501\0", Some("26501")),
            (b"8080", Some("8080")),
            (b"443", Some("443")),
            (b"\x50", Some("80")),
            (b"", None),
            (b"\0\0", None),
            (b"\x00\x01\x00\x00", None),
            (b"70000", None),
            (b"+443", None),
            (b"4a3", None),
        ] {
            let option = [&[190, form.len() as u8], form].concat();
            let wanted = match port {
                Some(port) => format!("https://10.0.0.9:{port}"),
                None => "10.0.0.9".to_owned(),
            };
            assert_eq!(options(&option), [wanted], "{form:?}");
        }
    }

    #[test]
    fn several_addresses_are_several_servers() {
        let list = read(&[186, 8, 10, 0, 0, 9, 10, 0, 0, 8, 190, 2, 1, 187]).options;
        assert_eq!(list, ["https://10.0.0.9:443", "https://10.0.0.8:443"]);
    }

    #[test]
    fn within_option_43_the_codes_mean_the_same_and_outside_they_count_first() {
        let inner = [43, 10, 186, 4, 10, 0, 0, 7, 190, 2, 0x67, 0x85];
        assert_eq!(read(&inner).options, ["https://10.0.0.7:26501"]);
        assert_eq!(options(&inner), ["https://10.0.0.9:26501"]);
    }

    #[test]
    fn the_text_for_our_vendor_class_is_a_list_and_not_what_firmware_gets() {
        let text = b"https://a.example:26501; b:80";
        let inner = [&[43, text.len() as u8 + 2, 1, text.len() as u8], &text[..]].concat();
        let found = read(&inner);
        assert_eq!(found.vendor, ["https://a.example:26501", "http://b:80"]);
        assert!(found.options.is_empty());
        let class = b"PXEClient";
        let firmware = [&[60, class.len() as u8], &class[..], &inner].concat();
        assert!(read(&firmware).is_empty());
        assert!(read(&[43, 6, 1, 4, 10, 0, 0, 1]).is_empty());
    }

    proptest! {
        #[test]
        fn any_options_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let found = read(&bytes);
            for text in found.options.iter().chain(&found.vendor) {
                prop_assert!(crate::remote::ServerAddress::parse(text).is_ok(), "{}", text);
            }
            prop_assert!(found.options.len() <= 8);
        }
    }
}
