//! What iPXE says about a machine in the URL of its boot script.
//!
//! Owns: reading the query string, made harmless and limited. Total on any input.
//! Does not own: what the machine is then told.

use super::decide::BootSeen;

/// Longest manufacturer, product or serial number, in characters.
pub const MAX_TEXT: usize = 128;
/// Most MAC addresses of one machine.
pub const MAX_MACS: usize = 16;
/// Longest query string that is read, in bytes.
pub const MAX_QUERY: usize = 8_192;

/// Reads a query string, as `mac=52:54:00:12:34:56&uuid=...`. Unknown names are left
/// out; values that make no sense too.
pub fn read(query: &str) -> BootSeen {
    let mut seen = BootSeen::default();
    if query.len() > MAX_QUERY {
        return seen;
    }
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        let value = percent_decode(value);
        match name {
            "mac" => {
                if let Some(mac) = mac(&value)
                    && seen.macs.len() < MAX_MACS
                    && !seen.macs.contains(&mac)
                {
                    seen.macs.push(mac);
                }
            }
            "uuid" => seen.uuid = uuid(&value),
            "manufacturer" => seen.manufacturer = text(&value),
            "product" => seen.product = text(&value),
            "serial" => seen.serial = text(&value),
            "platform" => seen.platform = text(&value),
            "buildarch" => seen.buildarch = text(&value),
            _ => {}
        }
    }
    seen
}

/// A MAC address in lower case with colons. Zero, broadcast and group addresses belong
/// to no machine.
fn mac(text: &str) -> Option<String> {
    let parts: Vec<u8> = text
        .split([':', '-'])
        .map(|part| {
            if part.len() == 2 {
                u8::from_str_radix(part, 16).ok()
            } else {
                None
            }
        })
        .collect::<Option<_>>()?;
    let sound = parts.len() == 6 && parts.iter().any(|byte| *byte != 0) && parts[0] & 1 == 0;
    sound.then(|| {
        parts
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<Vec<_>>()
            .join(":")
    })
}

/// A UUID in lower case with dashes.
fn uuid(text: &str) -> Option<String> {
    let digits: String = text
        .chars()
        .filter(|c| *c != '-')
        .collect::<String>()
        .to_ascii_lowercase();
    if digits.len() != 32 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let parts = [
        digits.get(..8)?,
        digits.get(8..12)?,
        digits.get(12..16)?,
        digits.get(16..20)?,
        digits.get(20..)?,
    ];
    Some(parts.join("-"))
}

fn text(text: &str) -> String {
    text.trim()
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_TEXT)
        .collect()
}

/// Decodes `%41`; what is damaged stays as it is, and bytes that are not UTF-8 become
/// the replacement character. A plus sign is itself: iPXE escapes spaces as `%20` and
/// leaves it alone ("Q35 + ICH9").
fn percent_decode(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = (first == b'%')
            .then(|| after.split_first_chunk::<2>())
            .flatten();
        let decoded = escaped.and_then(|(digits, after)| Some((hex_byte(*digits)?, after)));
        let (byte, after) = decoded.unwrap_or((first, after));
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex_byte(digits: [u8; 2]) -> Option<u8> {
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
    u8::try_from(high? * 16 + low?).ok()
}

#[cfg(test)]
mod tests {
    use super::{MAX_MACS, MAX_QUERY, MAX_TEXT, read};
    use proptest::prelude::{any, prop_assert, proptest};

    #[test]
    fn what_ipxe_sends_is_read() {
        let seen = read(
            "mac=52:54:00:AB:cd:01&mac=52:54:00:ab:cd:01&mac=52:54:00:ab:cd:02&mac=&mac=\
             &uuid=4C4C4544-0042-3510-8051-B7C04F4A3232&manufacturer=Dell%20Inc.&product=A%26B%20+%20%c3%a9\
             &serial=%31&platform=pcbios&buildarch=i386",
        );
        assert_eq!(seen.macs, ["52:54:00:ab:cd:01", "52:54:00:ab:cd:02"]);
        assert_eq!(
            seen.uuid.as_deref(),
            Some("4c4c4544-0042-3510-8051-b7c04f4a3232")
        );
        assert_eq!(
            (seen.manufacturer.as_str(), seen.product.as_str()),
            ("Dell Inc.", "A&B + é")
        );
        assert_eq!(
            (
                seen.serial.as_str(),
                seen.platform.as_str(),
                seen.buildarch.as_str()
            ),
            ("1", "pcbios", "i386")
        );
    }

    #[test]
    fn nonsense_is_left_out() {
        let seen = read(
            "mac=00:00:00:00:00:00&mac=ff:ff:ff:ff:ff:ff&mac=1:2:3:4:5:6&mac=52:54:00:ab:cd&uuid=xyz&a&=b&c=",
        );
        assert_eq!((seen.macs.len(), seen.uuid), (0, None));
        assert_eq!(read("product=a%0ab%00c").product, "abc");
        assert_eq!(read("product=50%&serial=%zz%4").product, "50%");
        assert_eq!(
            read(&format!("product={}", "x".repeat(500))).product.len(),
            MAX_TEXT
        );
        assert_eq!(
            read(&format!("product={}", "x".repeat(MAX_QUERY))).product,
            ""
        );
        let many: Vec<String> = (0..40)
            .map(|n| format!("mac=52:54:00:00:00:{n:02x}"))
            .collect();
        assert_eq!(read(&many.join("&")).macs.len(), MAX_MACS);
    }

    proptest! {
        #[test]
        fn any_query_is_read(query in any::<String>()) {
            let seen = read(&query);
            prop_assert!(seen.product.chars().all(|c| !c.is_control()));
            let _ = read(&format!("mac={query}&uuid={query}&product={query}"));
        }
    }
}
