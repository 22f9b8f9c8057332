//! Names of images with placeholders, so that one order serves many machines.
//!
//! Owns: what each placeholder becomes. Does not own: which names are allowed
//! ([`super::control::check_name`]).

use crate::failure::{Failure, Outcome};
use time::OffsetDateTime;

/// What is known of a machine.
pub(super) struct Known<'a> {
    pub(super) name: &'a str,
    pub(super) uuid: Option<&'a str>,
    pub(super) mac: Option<&'a str>,
}

/// Fills the placeholders of `template`: `{machine}` its name, `{mac}` its first address
/// without colons, `{uuid}`, `{date}` the day of the order (UTC) as 2026-01-31.
///
/// # Errors
/// An unknown placeholder, a brace without its other one, or the machine has none of what
/// is asked for.
pub(super) fn fill(template: &str, machine: &Known<'_>, now: i64) -> Outcome<String> {
    let wrong = |what: String| {
        Err(Failure::usage(format!("the name {template:?}: {what}"))
            .with_advice("Placeholders are {machine}, {mac}, {uuid} and {date}."))
    };
    let mut name = String::new();
    let mut rest = template;
    while let Some(open) = rest.find(['{', '}']) {
        name.push_str(&rest[..open]);
        let inside = match rest[open..]
            .strip_prefix('{')
            .and_then(|r| r.split_once('}'))
        {
            Some((inside, after)) => {
                rest = after;
                inside
            }
            None => return wrong("a brace without its other one".into()),
        };
        match inside {
            "machine" => name.push_str(machine.name),
            "mac" => match machine.mac {
                Some(mac) => name.push_str(&mac.replace(':', "")),
                None => return wrong(format!("machine \"{}\" has no address", machine.name)),
            },
            "uuid" => match machine.uuid {
                Some(uuid) => name.push_str(uuid),
                None => {
                    return wrong(format!(
                        "machine \"{}\" has no UUID of its own",
                        machine.name
                    ));
                }
            },
            "date" => name.push_str(&date(now)),
            other => return wrong(format!("{{{other}}} is no placeholder")),
        }
    }
    name.push_str(rest);
    Ok(name)
}

fn date(now: i64) -> String {
    let day = OffsetDateTime::from_unix_timestamp(now)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
        .date();
    format!(
        "{:04}-{:02}-{:02}",
        day.year(),
        u8::from(day.month()),
        day.day()
    )
}

#[cfg(test)]
mod tests {
    use super::{Known, fill};

    const PC: Known<'_> = Known {
        name: "office 1",
        uuid: Some("4c4c4544-0042-3510-8051-b4c04f4a3201"),
        mac: Some("52:54:00:00:00:01"),
    };

    #[test]
    fn placeholders_become_what_the_machine_is() {
        let name = |template| fill(template, &PC, 1_767_323_045).unwrap();
        assert_eq!(name("gold"), "gold");
        assert_eq!(name("{machine}-{date}"), "office 1-2026-01-02");
        assert_eq!(name("a{mac}b"), "a525400000001b");
        assert_eq!(
            name("{uuid}{date}"),
            "4c4c4544-0042-3510-8051-b4c04f4a32012026-01-02"
        );
    }

    #[test]
    fn what_cannot_be_filled_is_refused() {
        for template in [
            "{name}",
            "{",
            "}",
            "a}b{machine}",
            "{machine",
            "{}",
            "{{machine}}",
            "{MAC}",
        ] {
            assert!(fill(template, &PC, 0).is_err(), "{template}");
        }
        let nobody = Known {
            uuid: None,
            mac: None,
            ..PC
        };
        assert!(fill("{uuid}", &nobody, 0).is_err() && fill("{mac}", &nobody, 0).is_err());
        // What a machine is called is no template.
        let odd = Known {
            name: "{date}",
            ..PC
        };
        assert_eq!(fill("{machine}", &odd, 0).unwrap(), "{date}");
    }
}
