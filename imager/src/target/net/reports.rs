//! What is said when there is no way to the server.
//!
//! Owns: codes and words. Does not own: when that is so ([`super::connect`]).

use super::{Card, Search};
use crate::target::discovery;
use wire::{Code, DiskState, Report};

impl Search<'_> {
    pub(super) fn no_device(&self) -> Report {
        let driverless = self.sysfs.driverless();
        let mut found = match &self.network.nic {
            Some(choice) => format!("no network card fits nic = {}", choice.text()),
            None => "no network card is there".to_owned(),
        };
        if !driverless.is_empty() {
            let ids = driverless.join(", ");
            found.push_str(&format!("; PCI network controllers without driver: {ids}"));
        }
        report(Code::NoNetworkDevice, found)
    }

    pub(super) fn no_link(&self) -> Report {
        let cards = self.cards.values().map(|card| {
            let notes: String = card.notes.iter().map(|note| format!("; {note}")).collect();
            card.describe() + &notes
        });
        let cards: Vec<String> = cards.collect();
        report(Code::NoLink, format!("no link at {}", cards.join(", ")))
    }

    pub(super) fn no_address(&self) -> Report {
        let limit = self.plan.patience.address.as_secs();
        let cards = self.cards.values().map(|card| {
            let state = if card.used.is_none() {
                "no link".to_owned()
            } else if card.notes.is_empty() {
                format!("no answer in {}", wire::size::duration(limit))
            } else {
                card.notes.join("; ")
            };
            format!("{}: {state}", card.describe())
        });
        report(Code::NoAddress, cards.collect::<Vec<_>>().join(" | "))
    }

    /// Each source with its outcome, for each card that has an address.
    pub(super) fn no_server(&self) -> Report {
        let mut refused = false;
        let mut cards = Vec::new();
        for card in self.cards.values() {
            let Some(lease) = &card.lease else { continue };
            let said = match &card.tried {
                Some(tried) => {
                    refused |= tried.refused;
                    discovery::sentence(&tried.outcomes)
                }
                None => "the sources have not answered yet".to_owned(),
            };
            cards.push(format!(
                "{} {}/{}: {said}",
                card.nic.name, lease.address, lease.prefix
            ));
        }
        let found = cards.join(" | ");
        if refused {
            // A server that answers and is not the right one is the better clue.
            let advice = "Make sure that this is your server; give its pin, which deployd prints when it starts, \
                on the kernel's command line or in the settings.";
            return report(Code::ServerRefused, found).with_advice(advice);
        }
        report(Code::ServerNotFound, found)
    }
}

impl Card {
    fn describe(&self) -> String {
        format!("{} ({})", self.nic.name, self.nic.mac_text())
    }
}

/// Another server than the one that is meant would do what it likes.
pub(super) fn lost_pin(problem: &str) -> Report {
    report(
        Code::Usage,
        format!("the pin of the settings cannot be used: {problem}"),
    )
    .with_advice("Correct the pin, or remove it if any server may be used.")
}

pub(super) fn report(code: Code, found: String) -> Report {
    Report::new(code, found, DiskState::NotInvolved)
}
