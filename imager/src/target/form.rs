//! The settings, typed on a console: one question after the other.
//!
//! Owns: which questions, in which order, with which defaults. Does not own: keys and
//! screen ([`super::console::line`]), what a value may be ([`super::settings`]).

use super::console::{Answer, Console, Prompt};
use super::net::nics::{Nic, Sysfs};
use super::settings::{NicChoice, Settings};
use std::time::Duration;

/// A form that nobody fills in is left after this long.
pub const PATIENCE: Duration = Duration::from_secs(600);
/// Unsets a value.
const NOTHING: &str = "-";

/// What is asked, in this order.
const QUESTIONS: [(&str, &str); 11] = [
    (
        "nic",
        "Network card (number, MAC address or name; nothing: all)",
    ),
    ("vlan", "VLAN"),
    ("address", "Address of this machine (nothing: by DHCP)"),
    ("mask", "Network mask"),
    ("gateway", "Gateway"),
    ("dns", "Name servers"),
    ("domain", "Domain"),
    ("server", "Server (nothing: it is looked for)"),
    ("protocol", "Protocol (http or https)"),
    ("port", "Port"),
    ("pin", "Pin of the server's key (64 hex digits)"),
];

/// Who answers the questions.
pub trait Asks {
    /// Has a line typed.
    fn line(&self, prompt: Prompt) -> Answer;
}

impl Asks for Console {
    fn line(&self, prompt: Prompt) -> Answer {
        self.prompt(prompt)
    }
}

/// Asks for all settings; `None` if the form was left.
pub fn edit(
    asks: &dyn Asks,
    title: &str,
    cards: &[(Nic, bool)],
    old: &Settings,
) -> Option<Settings> {
    let mut settings = old.clone();
    let mut lines: Vec<String> = cards
        .iter()
        .zip(1..)
        .map(|((nic, link), number)| {
            let link = if *link { "link" } else { "no link" };
            format!(
                "{number}  {}  {}  {}  {link}",
                nic.name,
                nic.mac_text(),
                nic.driver
            )
        })
        .collect();
    for (key, label) in QUESTIONS {
        if !applies(key, &settings) {
            continue;
        }
        let mut problem = String::new();
        loop {
            let default = match settings.get(key) {
                value if value.is_empty() => suggestion(key, &settings).to_owned(),
                value => value,
            };
            let answer = asks.line(Prompt {
                title: title.to_owned(),
                lines: lines.clone(),
                label: label.to_owned(),
                default: default.clone(),
                problem: std::mem::take(&mut problem),
                patience: Some(PATIENCE),
            });
            let typed = match answer {
                Answer::Line(typed) => typed,
                Answer::Escape | Answer::Idle => return None,
            };
            let value = match typed.trim() {
                "" => default,
                NOTHING => String::new(),
                typed => by_number(key, typed, cards),
            };
            match settings.set(key, &value) {
                Ok(_) if key == "mask" && settings.fixed().is_none() => {
                    problem = "an address needs a mask".to_owned();
                }
                Ok(_) => break,
                Err(wrong) => problem = wrong,
            }
        }
        let value = settings.get(key);
        let value = if value.is_empty() { NOTHING } else { &value };
        lines.push(format!("{label}: {value}"));
    }
    if settings.address.is_none() {
        settings.prefix = None;
        settings.gateway = None;
    }
    Some(settings)
}

/// Whether a question makes sense after what was answered.
fn applies(key: &str, settings: &Settings) -> bool {
    match key {
        // An address may have brought its mask.
        "mask" | "gateway" => settings.address.is_some(),
        "protocol" | "port" => {
            let server = settings.get("server");
            !server.is_empty() && !server.contains("://")
        }
        _ => true,
    }
}

/// What is proposed where nothing is set.
fn suggestion(key: &str, settings: &Settings) -> &'static str {
    match (key, settings.protocol) {
        ("mask", _) => "255.255.255.0",
        ("protocol", _) => "https",
        ("port", Some(crate::remote::Scheme::Http)) => "26500",
        ("port", _) => "26501",
        _ => "",
    }
}

/// A card by its number in the list; what is saved is its address, as numbers change.
fn by_number(key: &str, typed: &str, cards: &[(Nic, bool)]) -> String {
    let number = typed.parse::<usize>().ok().filter(|_| key == "nic");
    let card = number.and_then(|number| cards.get(number.checked_sub(1)?));
    card.map_or_else(|| typed.to_owned(), |(nic, _)| nic.mac_text())
}

/// The cards and whether they have a link.
pub fn cards(sysfs: &Sysfs, choice: Option<&NicChoice>) -> Vec<(Nic, bool)> {
    let mut cards = sysfs.nics();
    // One that was named may be no hardware.
    for nic in sysfs.chosen(choice) {
        if !cards.contains(&nic) {
            cards.push(nic);
        }
    }
    cards
        .into_iter()
        .map(|nic| {
            let link = sysfs.carrier(&nic.name);
            (nic, link)
        })
        .collect()
}

/// A question that is answered with a letter; `None` for anything else, and for Esc.
pub fn letter(asks: &dyn Asks, title: &str, label: &str, letters: &str) -> Option<char> {
    let answer = asks.line(Prompt {
        title: title.to_owned(),
        label: label.to_owned(),
        patience: Some(PATIENCE),
        ..Prompt::default()
    });
    let Answer::Line(typed) = answer else {
        return None;
    };
    let first = typed.trim().chars().next()?.to_ascii_lowercase();
    Some(first).filter(|first| letters.contains(*first))
}

#[cfg(test)]
mod tests {
    use super::{Asks, edit, letter};
    use crate::target::console::{Answer, Prompt};
    use crate::target::net::nics::Nic;
    use crate::target::settings::Settings;
    use std::cell::RefCell;

    /// Gives these lines, then leaves.
    struct Script(RefCell<Vec<&'static str>>, RefCell<Vec<Prompt>>);

    impl Asks for Script {
        fn line(&self, prompt: Prompt) -> Answer {
            self.1.borrow_mut().push(prompt);
            let mut lines = self.0.borrow_mut();
            if lines.is_empty() {
                return Answer::Escape;
            }
            Answer::Line(lines.remove(0).to_owned())
        }
    }

    fn script(lines: &[&'static str]) -> Script {
        Script(RefCell::new(lines.to_vec()), RefCell::default())
    }

    fn card() -> (Nic, bool) {
        let nic = Nic {
            name: "eth0".into(),
            index: 2,
            mac: [0x52, 0x54, 0, 0, 0, 1],
            driver: "e1000".into(),
        };
        (nic, true)
    }

    #[test]
    fn a_fixed_address_and_a_server_are_typed() {
        let lines = [
            "1", "", "10.0.0.5", "", "10.0.0.1", "", "", "deploy", "", "", "",
        ];
        let script = script(&lines);
        let settings = edit(&script, "why", &[card()], &Settings::default()).unwrap();
        assert_eq!(
            settings.to_text().lines().skip(1).collect::<Vec<_>>(),
            [
                "server = deploy",
                "protocol = https",
                "port = 26501",
                "address = 10.0.0.5",
                "mask = 255.255.255.0",
                "gateway = 10.0.0.1",
                "nic = 52:54:00:00:00:01"
            ]
        );
        let asked = script.1.borrow();
        assert!(asked[0].lines[0].contains("eth0"), "{:?}", asked[0]);
        assert_eq!(asked.len(), 11);
    }

    #[test]
    fn wrong_answers_are_asked_again_and_nothing_unsets() {
        let (old, _) = Settings::parse("address = 10.0.0.5/24\ngateway = 10.0.0.1\nvlan = 7");
        // Address by DHCP again: no mask, no gateway, and a server without its port.
        let lines = ["", "x", "-", "-", "", "", "https://a", ""];
        let script = script(&lines);
        let settings = edit(&script, "why", &[], &old).unwrap();
        assert_eq!(
            settings.to_text().lines().skip(1).collect::<Vec<_>>(),
            ["server = https://a"]
        );
        let asked = script.1.borrow();
        assert!(asked[2].problem.contains("VLAN"), "{:?}", asked[2]);
        assert_eq!(asked[1].default, "7");
    }

    #[test]
    fn an_address_keeps_its_mask_and_leaving_changes_nothing() {
        let with_mask = ["", "", "10.0.0.5/16", "", "", "", "", "", ""];
        let settings = edit(&script(&with_mask), "", &[], &Settings::default()).unwrap();
        assert_eq!(settings.get("mask"), "255.255.0.0");
        assert_eq!(
            edit(&script(&["", ""]), "", &[], &Settings::default()),
            None
        );
    }

    #[test]
    fn letters_are_answers_and_all_else_is_none() {
        for (line, wanted) in [
            ("y", Some('y')),
            (" Yes", Some('y')),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(letter(&script(&[line]), "", "", "yn"), wanted, "{line}");
        }
        assert_eq!(letter(&script(&[]), "", "", "yn"), None);
    }
}
