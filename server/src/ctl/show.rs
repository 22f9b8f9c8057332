//! Text of `deployctl`.
//!
//! Owns: tables and sentences. Does not own: the values.

use super::{disks, hardware, multicast, network};
use crate::cast::shown::Stage;
use crate::exec::state::State;
use crate::http::api::ImageInfo;
use crate::netboot::LocalBoot;
use crate::store::check::Verified;
use crate::view::{ExecutionView, ImageView, MachineView, Overview, VersionView};
use time::OffsetDateTime;
use time::macros::format_description;
use wire::Summary;
use wire::size::{bytes, duration};

/// Text without control characters, except line ends and tabs.
pub fn clean(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && !matches!(c, '\n' | '\t') {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// A time in UTC.
pub fn time(seconds: i64) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]Z");
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|t| t.format(format).ok())
        .unwrap_or_else(|| seconds.to_string())
}

/// Columns, each as wide as its widest cell.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[&str]| {
        let padded: Vec<String> = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(head)];
    lines.extend(
        rows.iter()
            .map(|row| line(&row.iter().map(String::as_str).collect::<Vec<_>>())),
    );
    lines.join("\n")
}

/// List of machines.
pub fn machines(machines: &[MachineView]) -> String {
    if machines.is_empty() {
        return "No machine has booted from the network yet.".to_owned();
    }
    let rows: Vec<Vec<String>> = machines
        .iter()
        .map(|m| {
            let job = m.execution.as_ref().map_or_else(
                || "-".to_owned(),
                |e| format!("{} {}", e.kind, e.state.as_str()),
            );
            let job = match &m.stalled {
                Some(stalled) => format!("{job}, {}", stalled.code),
                None => job,
            };
            vec![
                m.name.clone(),
                m.macs.join(" "),
                m.model.clone(),
                m.address.clone(),
                time(m.last_seen),
                job,
            ]
        })
        .collect();
    table(
        &["MACHINE", "ADDRESSES", "MODEL", "IP", "SEEN", "JOB"],
        &rows,
    )
}

/// One machine.
pub fn machine(m: &MachineView) -> String {
    let mut lines = vec![
        format!("machine   {} ({})", m.name, m.id),
        format!("model     {}", m.model),
        format!(
            "uuid      {}",
            m.uuid.as_deref().unwrap_or("none of its own")
        ),
        format!("cards     {}", m.macs.join(" ")),
        format!("firmware  {} {}", m.firmware, m.architecture),
        format!("memory    {}", bytes(m.memory_bytes)),
        format!("seen      {} from {}", time(m.last_seen), m.address),
        match m.outdated {
            true => format!("deploy-os {}, which is not the server's version", m.version),
            false => format!("deploy-os {}", m.version),
        },
    ];
    if m.local_boot != LocalBoot::Auto {
        lines.push(format!("own disk  by \"{}\"", m.local_boot.as_str()));
    }
    if let Some(execution) = &m.execution {
        lines.push(format!("job       {}", line(execution)));
    }
    if let Some(stalled) = &m.stalled {
        lines.push(format!("stalled   {}: {}", stalled.code, stalled.found));
        lines.push(format!("          {}", stalled.advice));
    }
    lines.extend(m.hardware.iter().flat_map(hardware::lines));
    for disk in &m.disks {
        lines.push(format!("disk      {}", disks::line(disk)));
    }
    if let (Some(check), Some(at)) = (&m.disk_check, m.disk_check_at) {
        lines.push(format!("disk check of {}:", time(at)));
        lines.extend(disks::check(check));
    }
    lines.join("\n")
}

/// One line about an execution.
pub fn line(e: &ExecutionView) -> String {
    let image = e
        .image
        .as_ref()
        .map(|image| format!(" \"{image}\""))
        .unwrap_or_default();
    let mut text = format!("{}: {}{image}: {}", e.machine, e.kind, e.state.as_str());
    if let Some(p) = e
        .progress
        .as_ref()
        .filter(|p| p.total_bytes > 0 && !e.state.is_final())
    {
        // A target may say anything; a wrong total must not break the line.
        let percent = u128::from(p.done_bytes) * 100 / u128::from(p.total_bytes);
        text += &format!(
            " {}%  {} of {}  {}/s",
            percent.min(100),
            bytes(p.done_bytes),
            bytes(p.total_bytes),
            bytes(p.rate)
        );
        if let Some(left) = p.seconds_left {
            text += &format!("  {} left", duration(left));
        }
    }
    if let Some(limit) = e.rate_limit.filter(|_| !e.state.is_final()) {
        text += &format!("  at most {}/s", bytes(limit));
    }
    if let (State::Done, Some(summary)) = (e.state, &e.summary) {
        text += &figures(summary);
    }
    if let Some(report) = &e.report {
        text += &format!("  {}: {}", report.code, report.found);
    }
    if !e.note.is_empty() {
        text += &format!("  ({})", e.note);
    }
    text
}

/// Figures of an execution that is done.
fn figures(s: &Summary) -> String {
    if let Some(wiped) = &s.wipe {
        return format!("  {}", wiped.sentence());
    }
    let mut text = format!(
        "  {} used, {} over the network, {:.1} s",
        bytes(s.used_bytes),
        bytes(s.wire_bytes),
        s.seconds
    );
    if s.skipped_bytes > 0 {
        text += &format!(", {} were on the disk already", bytes(s.skipped_bytes));
    }
    if !s.bottleneck.is_empty() {
        text += &format!(", bound by {}", s.bottleneck);
    }
    text
}

/// Executions, one a line, with their warnings.
pub fn executions(executions: &[ExecutionView]) -> String {
    if executions.is_empty() {
        return "Nothing was done yet.".to_owned();
    }
    let mut lines = Vec::new();
    for e in executions {
        lines.push(format!("{}  {}", time(e.created), line(e)));
        lines.extend(
            e.warnings
                .iter()
                .map(|w| format!("    warning {}: {}", w.code, w.found)),
        );
        let changed = e.summary.iter().flat_map(|s| &s.boot_entries);
        lines.extend(changed.map(|entry| format!("    {entry}")));
    }
    lines.join("\n")
}

/// Everything.
pub fn overview(o: &Overview) -> String {
    let unfinished = o.executions.iter().filter(|e| e.open).count();
    let head = format!(
        "deployd {}: {} machines, {} images, {unfinished} executions to look after, {} free",
        o.server.version,
        o.machines.len(),
        o.images.len(),
        bytes(o.free_bytes)
    );
    let t = &o.transfers;
    let line = match t.waiting {
        0 => String::new(),
        waiting => format!(", {waiting} wait in line"),
    };
    let transfers = format!("{} of {} transfers are running{line}", t.running, t.most);
    let mut lines = vec![head, transfers];
    lines.extend(o.troubles.iter().flat_map(network::trouble));
    let running = o.sessions.iter().filter(|s| s.stage != Stage::Over);
    lines.extend(running.map(multicast::text::line));
    let stalled = |m: &MachineView| {
        let report = m.stalled.as_ref()?;
        Some(format!("{}: {}: {}", m.name, report.code, report.found))
    };
    lines.extend(o.machines.iter().filter_map(stalled));
    lines.push(executions(&o.executions));
    lines.join("\n")
}

/// The server's public keys.
pub fn keys(server: &VersionView) -> String {
    let signer = server.signing_key.as_deref().unwrap_or("(none)");
    format!(
        "connections  {} (SHA-256 of the TLS key: deploy.pin=)\nsignatures   {signer} (Ed25519: deploy.signer=, --trusted-key)",
        server.pin
    )
}

/// List of images.
pub fn images(images: &[ImageView]) -> String {
    if images.is_empty() {
        return "There are no images yet.".to_owned();
    }
    let rows: Vec<Vec<String>> = images
        .iter()
        .map(|i| {
            let mut name = i.name.clone();
            if i.set.is_some() {
                name += &format!(", disk {}", i.part + 1);
            }
            if !i.newest {
                name += " (earlier)";
            }
            let name = match (i.pinned, i.is_damaged()) {
                (false, false) => name,
                (true, false) => format!("{name} (pinned)"),
                (false, true) => format!("{name} (damaged)"),
                (true, true) => format!("{name} (pinned, damaged)"),
            };
            vec![
                name,
                i.machine.clone(),
                time(i.created),
                bytes(i.disk_bytes),
                bytes(i.used_bytes),
                bytes(i.stored_bytes),
                i.id.clone(),
            ]
        })
        .collect();
    table(
        &["IMAGE", "OF", "MADE", "DISK", "USED", "STORED", "ID"],
        &rows,
    )
}

/// One image.
pub fn image(info: &ImageInfo) -> String {
    let (i, l) = (&info.image, &info.layout);
    let mut lines = vec![
        format!(
            "image     {} ({}){}",
            i.name,
            i.id,
            if i.newest { "" } else { ", an earlier one" }
        ),
        format!("made      {} of machine {}", time(i.created), i.machine),
        format!(
            "disk      {}, sectors of {} bytes, table {}",
            bytes(i.disk_bytes),
            l.disk.sector_size,
            l.table.kind
        ),
        format!(
            "used      {} in {} chunks, {} stored (shared ones included)",
            bytes(i.used_bytes),
            i.chunks,
            bytes(i.stored_bytes)
        ),
        format!("root      {}", i.root),
    ];
    lines.extend(info.signed_by.iter().map(|key| format!("signed by {key}")));
    if i.pinned {
        lines.push("pinned    it stays whatever the rules of retention say".to_owned());
    }
    if i.damaged_manifest {
        lines.push("damaged   its manifest: it cannot be restored".to_owned());
    }
    if i.damaged_chunks > 0 {
        lines.push(format!(
            "damaged   {} chunks; a backup of a machine that has them brings them back",
            i.damaged_chunks
        ));
    }
    for region in &l.regions {
        let number = region
            .number
            .map_or_else(|| "-".to_owned(), |n| n.to_string());
        lines.push(format!(
            "  {number:>3}  {:>10}  {:8}  {:10}  used {} ({})",
            bytes(region.size),
            region.kind,
            region.file_system,
            bytes(region.used_bytes),
            region.method
        ));
    }
    lines.extend(l.warnings.iter().map(|w| format!("warning   {w}")));
    lines.extend(lost(info));
    lines.join("\n")
}

/// Bad ranges that are listed; more are only counted.
const BAD_LISTED: usize = 20;

/// What is not in an image although it belongs there.
pub(super) fn lost(info: &ImageInfo) -> Vec<String> {
    let mut lines = Vec::new();
    if info.layout.is_partial() {
        lines.push("partial   only the partitions with a method other than none".to_owned());
    }
    if info.bad_ranges.is_empty() {
        return lines;
    }
    let total: u64 = info.bad_ranges.iter().map(|bad| bad.size_bytes).sum();
    lines.push(format!(
        "lost      {} could not be read at backup; zeros stand for it:",
        bytes(total)
    ));
    lines.extend(info.bad_ranges.iter().take(BAD_LISTED).map(|bad| {
        let owner = match bad.partition {
            Some(number) => format!("partition {number} {}", bad.file_system),
            None => "outside of partitions".to_owned(),
        };
        format!(
            "  {} bytes at byte {}: {owner}",
            bad.size_bytes, bad.start_bytes
        )
    }));
    if info.bad_ranges.len() > BAD_LISTED {
        lines.push(format!("  and {} more", info.bad_ranges.len() - BAD_LISTED));
    }
    lines
}

/// Result of a verification.
pub fn verified(image: &str, result: &Verified) -> String {
    let mut lines = vec![format!(
        "{image}: {} chunks, {} read and hashed, {} damaged",
        result.chunks,
        bytes(result.bytes),
        result.damaged
    )];
    lines.extend(result.places.iter().map(|place| format!("  {place}")));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::{clean, table, time};

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(
            clean("a\x1b[31mb\r\nc\td\u{9b}"),
            "a\u{fffd}[31mb\u{fffd}\nc\td\u{fffd}"
        );
    }

    #[test]
    fn columns_line_up() {
        let rows = vec![
            vec!["long name".to_owned(), "x".to_owned()],
            vec!["ü".to_owned(), "y".to_owned()],
        ];
        assert_eq!(
            table(&["A", "B"], &rows),
            "A          B\nlong name  x\nü          y"
        );
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(time(0), "1970-01-01 00:00:00Z");
        assert_eq!(time(i64::MAX), i64::MAX.to_string());
    }
}
