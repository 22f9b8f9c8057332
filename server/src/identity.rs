//! What identifies a machine.
//!
//! Owns: the normal forms of MAC addresses and UUIDs, placeholders, and the rule which
//! known machine a target is. Does not own: where machines are kept.

/// UUIDs that makers leave in firmware instead of a real one.
const PLACEHOLDERS: &[&str] = &[
    "03000200-0400-0500-0006-000700080009",
    "00020003-0004-0005-0006-000700080009",
    "12345678-1234-5678-90ab-cddeefaabbcc",
    "78563412-3412-7856-90ab-cddeefaabbcc",
    "fefefefe-fefe-fefe-fefe-fefefefefefe",
    "00112233-4455-6677-8899-aabbccddeeff",
    "33221100-5544-7766-8899-aabbccddeeff",
];

/// A MAC address in lower case with colons; `None` for anything that names no single
/// card (zeros, group addresses) or is no MAC address.
pub fn mac(text: &str) -> Option<String> {
    let digits: String = text
        .trim()
        .chars()
        .filter(|c| !matches!(c, ':' | '-' | '.'))
        .collect();
    let mut bytes = [0; 6];
    hex::decode_to_slice(digits, &mut bytes).ok()?;
    if bytes == [0; 6] || bytes[0] & 1 == 1 {
        return None;
    }
    Some(bytes.map(|b| format!("{b:02x}")).join(":"))
}

/// A UUID in lower case with dashes; `None` for placeholders and other texts.
pub fn uuid(text: &str) -> Option<String> {
    let digits: String = text
        .trim()
        .chars()
        .filter(|c| *c != '-')
        .collect::<String>()
        .to_ascii_lowercase();
    let mut bytes = [0; 16];
    hex::decode_to_slice(&digits, &mut bytes).ok()?;
    let first = digits.as_bytes().first()?;
    if digits.bytes().all(|b| b == *first) {
        return None;
    }
    let text = format!(
        "{}-{}-{}-{}-{}",
        &digits[..8],
        &digits[8..12],
        &digits[12..16],
        &digits[16..20],
        &digits[20..]
    );
    (!PLACEHOLDERS.contains(&text.as_str())).then_some(text)
}

/// The UUID with the bytes of its first three fields turned round. Old firmware stores
/// them in network order; boot loaders and kernels do not agree on such machines.
fn swapped(uuid: &str) -> String {
    let turn = |field: &str| -> String {
        let pairs: Vec<&str> = (0..field.len())
            .step_by(2)
            .rev()
            .filter_map(|at| field.get(at..at + 2))
            .collect();
        pairs.concat()
    };
    let fields: Vec<String> = uuid
        .split('-')
        .enumerate()
        .map(|(at, field)| {
            if at < 3 {
                turn(field)
            } else {
                field.to_owned()
            }
        })
        .collect();
    fields.join("-")
}

/// What a target says about itself, in normal form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// MAC addresses, none twice.
    pub macs: Vec<String>,
    /// UUID, if it has a real one.
    pub uuid: Option<String>,
    /// SMBIOS serial number; empty if unknown.
    pub serial: String,
}

impl Identity {
    /// From what a target sent.
    pub fn new<'a>(macs: impl IntoIterator<Item = &'a str>, uuid_text: &str, serial: &str) -> Self {
        let mut list: Vec<String> = Vec::new();
        // More cards than any machine has are no identity but an attack on memory.
        for address in macs.into_iter().filter_map(mac).take(256) {
            if !list.contains(&address) {
                list.push(address);
            }
        }
        Identity {
            macs: list,
            uuid: uuid(uuid_text),
            serial: serial.trim().to_owned(),
        }
    }
}

/// A known machine that shares an address or the UUID with a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Id of the machine.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its UUID, if it has a real one.
    pub uuid: Option<String>,
    /// Its serial number; empty if unknown.
    pub serial: String,
}

/// Which machine a target is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// None that is known.
    New,
    /// This one.
    Known(String),
    /// It cannot be told; the text names the contradiction.
    Ambiguous(String),
}

/// Finds the machine among all `candidates` that share an address or the UUID.
///
/// One that has another UUID or serial number than the target is never it, even if an
/// address fits: docks and adapters wander, and a restore on the wrong machine cannot
/// be taken back.
pub fn find(target: &Identity, candidates: &[Candidate]) -> Match {
    match candidates {
        [] => Match::New,
        [one] => {
            if let (Some(ours), Some(theirs)) = (&target.uuid, &one.uuid)
                && ours != theirs
                && swapped(ours) != *theirs
            {
                return Match::Ambiguous(format!(
                    "a network address of machine \"{}\" (UUID {theirs}) is used by a machine with UUID {ours}",
                    one.name
                ));
            }
            if !target.serial.is_empty() && !one.serial.is_empty() && target.serial != one.serial {
                return Match::Ambiguous(format!(
                    "address or UUID are those of machine \"{}\" (serial number \"{}\"), the serial number is \"{}\"",
                    one.name, one.serial, target.serial
                ));
            }
            Match::Known(one.id.clone())
        }
        several => {
            let names: Vec<_> = several.iter().map(|c| format!("\"{}\"", c.name)).collect();
            Match::Ambiguous(format!(
                "addresses {} and UUID {} belong to {}",
                target.macs.join(", "),
                target.uuid.as_deref().unwrap_or("(none)"),
                names.join(" and ")
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const U1: &str = "4c4c4544-0042-3510-8051-b4c04f4a3232";
    const U2: &str = "4c4c4544-0042-3510-8051-b4c04f4a3233";

    fn known(name: &str, uuid: Option<&str>, serial: &str) -> Candidate {
        Candidate {
            id: name.into(),
            name: name.into(),
            uuid: uuid.map(Into::into),
            serial: serial.into(),
        }
    }

    #[test]
    fn addresses_have_one_form() {
        assert_eq!(
            mac("52-54-00-AB-cd-01").as_deref(),
            Some("52:54:00:ab:cd:01")
        );
        for text in [
            "",
            "00:00:00:00:00:00",
            "ff:ff:ff:ff:ff:ff",
            "01:00:5e:00:00:01",
            "52:54:00",
            "zz:54:00:ab:cd:01",
        ] {
            assert_eq!(mac(text), None, "{text}");
        }
    }

    #[test]
    fn placeholders_are_no_identity() {
        assert_eq!(uuid(&U1.to_uppercase()).as_deref(), Some(U1));
        for text in [
            "00000000-0000-0000-0000-000000000000",
            "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
            "03000200-0400-0500-0006-000700080009",
            "not a uuid",
            "",
        ] {
            assert_eq!(uuid(text), None, "{text}");
        }
    }

    #[test]
    fn another_uuid_under_a_known_address_is_ambiguous() {
        let target = Identity::new(["52:54:00:00:00:01"], U2, "");
        assert!(matches!(
            find(&target, &[known("a", Some(U1), "")]),
            Match::Ambiguous(_)
        ));
        assert_eq!(
            find(&target, &[known("a", Some(U2), "")]),
            Match::Known("a".into())
        );
        assert_eq!(
            find(&target, &[known("a", None, "")]),
            Match::Known("a".into())
        );
        assert_eq!(find(&target, &[]), Match::New);
    }

    #[test]
    fn byte_order_of_a_uuid_makes_no_other_machine() {
        assert_eq!(swapped(U1), "44454c4c-4200-1035-8051-b4c04f4a3232");
        let target = Identity::new(["52:54:00:00:00:01"], &swapped(U1), "");
        assert_eq!(
            find(&target, &[known("a", Some(U1), "")]),
            Match::Known("a".into())
        );
    }

    #[test]
    fn address_and_uuid_of_two_machines_are_ambiguous_and_both_are_named() {
        let target = Identity::new(["52:54:00:00:00:01"], U2, "");
        let Match::Ambiguous(text) = find(
            &target,
            &[known("pc-1", None, ""), known("pc-2", Some(U2), "")],
        ) else {
            panic!("not ambiguous");
        };
        assert!(text.contains("pc-1") && text.contains("pc-2"));
    }

    #[test]
    fn another_serial_number_is_ambiguous() {
        let target = Identity::new(["52:54:00:00:00:01"], U1, "S2");
        assert!(matches!(
            find(&target, &[known("a", Some(U1), "S1")]),
            Match::Ambiguous(_)
        ));
        assert_eq!(
            find(&target, &[known("a", Some(U1), "S2")]),
            Match::Known("a".into())
        );
    }
}
