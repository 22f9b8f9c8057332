//! The volume of LVM2, or of a mirror, that is looked into.
//!
//! Owns: the choice by its name. Does not own: that of the partition (`inside`), where
//! volumes lie.

use crate::files;
use crate::map::printable;
use diskmap::{InnerVolume, InnerVolumes};
use wire::{Code, DiskState, Report, size};

/// Volumes that are named in a message.
const SHOWN: usize = 32;

/// The volume of that name; without one, the only one that can be looked into. `label` is
/// what the partition is called.
///
/// # Errors
/// `partition-not-found`: there is none, or several could be meant.
pub(super) fn choose(
    found: InnerVolumes,
    wanted: Option<&str>,
    label: &str,
) -> Result<InnerVolume, Report> {
    let refuse = |found: String, advice: &str| {
        let found = format!("{label}{found}");
        Err(Report::new(Code::PartitionNotFound, found, DiskState::NotInvolved).with_advice(advice))
    };
    let listed = list(&found);
    if let Some(wanted) = wanted {
        let mut same = found.volumes.into_iter().filter(|v| v.name == wanted);
        return match (same.next(), same.next()) {
            (Some(only), None) => Ok(only),
            _ => refuse(
                format!("looked for one volume {wanted}; there is {listed}"),
                "Choose one of the volumes that are listed.",
            ),
        };
    }
    let readable = |volume: &InnerVolume| files::is_readable(&volume.file_system);
    let mut candidates = found.volumes.into_iter().filter(readable);
    match (candidates.next(), candidates.next()) {
        (Some(only), None) => Ok(only),
        (Some(_), Some(_)) => refuse(
            format!("several volumes can be looked into: {listed}"),
            "Say which one: --volume NAME.",
        ),
        (None, _) => refuse(
            format!("no volume that can be looked into; there is {listed}"),
            "Serve the image with imager nbd, or export it, and mount it.",
        ),
    }
}

/// Volumes in words.
fn list(found: &InnerVolumes) -> String {
    let named = |name: &str| match name {
        "" => "one without a name".to_owned(),
        name => printable(name, 128),
    };
    let volumes = found.volumes.iter().map(|volume| {
        let bytes = volume.parts.iter().map(|part| part.len).sum();
        let kind = match volume.file_system.as_str() {
            "" => "unknown",
            kind => kind,
        };
        format!("{} ({}, {kind})", named(&volume.name), size::bytes(bytes))
    });
    let others = found.others.iter().map(|(name, why)| {
        let why = printable(why, 200);
        format!("{} (not looked into: {why})", named(name))
    });
    let mut all: Vec<String> = volumes.chain(others).collect();
    let more = all.len().saturating_sub(SHOWN);
    all.truncate(SHOWN);
    match (all.is_empty(), more) {
        (true, _) => "none".to_owned(),
        (_, 0) => all.join("; "),
        _ => format!("{} and {more} more", all.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::choose;
    use diskmap::{Extent, InnerVolume, InnerVolumes};

    #[test]
    fn the_only_readable_one_or_the_one_that_is_named() {
        let volume = |name: &str, file_system: &str| InnerVolume {
            name: name.to_owned(),
            parts: vec![Extent {
                start: 0,
                len: 1 << 20,
            }],
            file_system: file_system.to_owned(),
        };
        let mut found = InnerVolumes {
            volumes: vec![volume("root", "ext4"), volume("swap", "swap")],
            others: vec![("thin".to_owned(), "it is thin".to_owned())],
        };
        assert_eq!(choose(found.clone(), None, "").unwrap().name, "root");
        assert_eq!(
            choose(found.clone(), Some("swap"), "").unwrap().name,
            "swap"
        );
        let report = choose(found.clone(), Some("thin"), "partition 3: ").unwrap_err();
        assert!(
            report
                .found
                .starts_with("partition 3: looked for one volume thin")
        );
        assert!(report.found.contains("thin (not looked into: it is thin)"));
        found.volumes.push(volume("home", "ntfs"));
        let report = choose(found.clone(), None, "").unwrap_err();
        assert!(report.advice.contains("--volume"), "{report:?}");
        found.volumes.clear();
        assert!(choose(found, None, "").is_err());
    }
}
