//! Text of `deployctl network`.
//!
//! Owns: tables and sentences about network boot. Does not own: the values.

use super::show::{table, time};
use crate::netboot::board::{NetworkView, Trouble};

/// Everything about network boot.
pub(super) fn text(view: &NetworkView) -> String {
    let mut lines = Vec::new();
    if view.services.is_empty() {
        lines.push("Network boot is off.".to_owned());
    }
    lines.extend(
        view.services
            .iter()
            .map(|service| format!("{}: {}", service.name, service.state)),
    );
    lines.extend(view.ranges.iter().map(|range| {
        let mut line = format!(
            "{}: {} addresses, {} leased, {} free",
            range.range, range.addresses, range.leased, range.free
        );
        if range.declined > 0 {
            line += &format!(", {} used by something else", range.declined);
        }
        line
    }));
    lines.extend(view.troubles.iter().flat_map(trouble));
    if !view.leases.is_empty() {
        let rows: Vec<Vec<String>> = view
            .leases
            .iter()
            .map(|lease| {
                vec![
                    lease.address.clone(),
                    lease.mac.clone(),
                    lease.host.clone(),
                    lease.state.clone(),
                    time(lease.until),
                ]
            })
            .collect();
        let head = ["ADDRESS", "CARD", "NAME", "STATE", "UNTIL"];
        lines.push(String::new());
        lines.push(table(&head, &rows));
    }
    lines.join("\n")
}

/// A trouble and what to do about it.
pub(super) fn trouble(trouble: &Trouble) -> [String; 2] {
    let report = &trouble.report;
    let often = match trouble.count {
        1 => String::new(),
        count => format!(", {count} times since {}", time(trouble.first)),
    };
    [
        format!(
            "{} ({}{often}): {}",
            report.code,
            time(trouble.last),
            report.found
        ),
        format!("  to do: {}", report.advice),
    ]
}

#[cfg(test)]
mod tests {
    use super::text;
    use crate::netboot::board::{LeaseView, NetworkView, RangeView, ServiceView, Trouble};
    use wire::{Code, DiskState, Report};

    #[test]
    fn services_ranges_troubles_and_leases_are_shown() {
        let report = Report::new(
            Code::DhcpConflict,
            "10.0.0.1 answers too",
            DiskState::NotInvolved,
        )
        .with_advice("Turn it off.");
        let view = NetworkView {
            services: vec![ServiceView {
                name: "TFTP".to_owned(),
                state: "runs".to_owned(),
            }],
            ranges: vec![RangeView {
                range: "10.0.0.10-10.0.0.12/24".to_owned(),
                addresses: 3,
                leased: 1,
                declined: 1,
                free: 1,
            }],
            leases: vec![LeaseView {
                address: "10.0.0.10".to_owned(),
                mac: "52:54:00:00:00:01".to_owned(),
                host: "pc".to_owned(),
                state: "leased".to_owned(),
                since: 0,
                until: 60,
            }],
            troubles: vec![Trouble {
                report,
                first: 0,
                last: 1,
                count: 2,
            }],
        };
        assert_eq!(
            text(&view),
            "TFTP: runs\n\
             10.0.0.10-10.0.0.12/24: 3 addresses, 1 leased, 1 free, 1 used by something else\n\
             dhcp-conflict (1970-01-01 00:00:01Z, 2 times since 1970-01-01 00:00:00Z): 10.0.0.1 answers too\n  \
             to do: Turn it off.\n\n\
             ADDRESS    CARD               NAME  STATE   UNTIL\n\
             10.0.0.10  52:54:00:00:00:01  pc    leased  1970-01-01 00:01:00Z"
        );
        assert_eq!(text(&NetworkView::default()), "Network boot is off.");
    }
}
