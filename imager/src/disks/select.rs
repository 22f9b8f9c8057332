//! The one disk that a job, or a person, means.
//!
//! Owns: matching a description against the disks that are there. Does not own:
//! whether the disk may be used (holders, size, write protection).

use std::path::{Path, PathBuf};
use wire::{Code, DiskInfo, DiskSelector, DiskState, Report, size};

/// The path of the disk that a person means by `text`: a path that exists, else the number,
/// serial number or world wide name of a disk; `number=`, `serial=`, `wwn=` and `path=` in
/// front say which. What is none of these is a path again, of something that is not there.
///
/// Several paths to one disk lead to the device that stands for all of them.
///
/// # Errors
/// `disk-not-found` for what says what it is and is not there; `target-ambiguous`.
pub fn find(
    text: &Path,
    list: impl Fn() -> Result<Vec<DiskInfo>, Report>,
) -> Result<PathBuf, Report> {
    let Some(word) = text.to_str() else {
        return Ok(text.to_owned());
    };
    if let Some((kind, value)) = word.split_once('=').filter(|_| !text.exists()) {
        let value = Some(value.to_owned());
        let none = DiskSelector::default();
        let selector = match kind {
            "serial" => DiskSelector {
                serial: value,
                ..none
            },
            "wwn" => DiskSelector { wwn: value, ..none },
            "path" => DiskSelector {
                path: value,
                ..none
            },
            "number" => {
                let number = value.and_then(|value| value.parse().ok());
                let number = number.ok_or_else(|| {
                    Report::new(
                        Code::Usage,
                        format!("{word:?} has no number"),
                        DiskState::NotInvolved,
                    )
                })?;
                DiskSelector {
                    number: Some(number),
                    ..none
                }
            }
            _ => return Ok(text.to_owned()),
        };
        return select(&list()?, Some(&selector)).map(|disk| PathBuf::from(&disk.path));
    }
    if word.contains('/') || text.exists() {
        return Ok(text.to_owned());
    }
    let disks = list()?;
    let number: Option<u32> = word.parse().ok();
    let fitting: Vec<&DiskInfo> = disks
        .iter()
        .filter(|disk| {
            number == Some(disk.number)
                || disk.serial == word
                || (!disk.wwn.is_empty() && disk.wwn.eq_ignore_ascii_case(word))
        })
        .collect();
    match fitting[..] {
        [] => Ok(text.to_owned()),
        [disk] => Ok(PathBuf::from(&disk.path)),
        _ => Err(ambiguous(&format!("a disk called {word:?}"), fitting)),
    }
}

/// The disk that fits: every given field must match, and exactly one disk. Without a
/// description (or with an empty one) the only disk that is built in: not removable,
/// no USB drive, no loop device.
///
/// # Errors
/// `disk-not-found` with a list of the disks that are there; `target-ambiguous` with
/// a list of those that fit.
pub fn select<'a>(
    disks: &'a [DiskInfo],
    selector: Option<&DiskSelector>,
) -> Result<&'a DiskInfo, Report> {
    let given = selector.filter(|s| **s != DiskSelector::default());
    let fitting: Vec<&DiskInfo> = match given {
        Some(selector) => disks.iter().filter(|disk| fits(disk, selector)).collect(),
        None => disks.iter().filter(|disk| is_built_in(disk)).collect(),
    };
    let wanted = given.map_or_else(|| "the only built-in disk".to_owned(), describe_selector);
    match fitting[..] {
        [disk] => Ok(disk),
        [] => {
            let there = if disks.is_empty() {
                "none".to_owned()
            } else {
                describe(disks)
            };
            let found = format!("looked for {wanted}; the disks that are there: {there}");
            Err(Report::new(Code::DiskNotFound, found, DiskState::Untouched))
        }
        _ => Err(ambiguous(&wanted, fitting)),
    }
}

fn ambiguous(wanted: &str, fitting: Vec<&DiskInfo>) -> Report {
    let found = format!("looked for {wanted}; these fit: {}", describe(fitting));
    Report::new(Code::TargetAmbiguous, found, DiskState::Untouched)
}

fn is_built_in(disk: &DiskInfo) -> bool {
    !disk.removable && !matches!(disk.bus.as_str(), "usb" | "loop")
}

fn fits(disk: &DiskInfo, selector: &DiskSelector) -> bool {
    // A field that is given but empty fits nothing: many disks have no serial number.
    let same = |wanted: &Option<String>, has: &str| {
        wanted
            .as_ref()
            .is_none_or(|w| !has.is_empty() && w.trim().eq_ignore_ascii_case(has))
    };
    let same_serial = selector
        .serial
        .as_ref()
        .is_none_or(|w| !w.is_empty() && w == &disk.serial);
    let same_path = selector.path.as_ref().is_none_or(|wanted| {
        let is_at = |path: &Path| path.to_str().is_some_and(|path| disk.is_at(path));
        disk.is_at(wanted) || real(wanted).is_some_and(|real| is_at(&real))
    });
    let same_number = selector.number.is_none_or(|number| number == disk.number);
    same_number && same_serial && same(&selector.wwn, &disk.wwn) && same_path
}

/// Links such as those of /dev/disk/by-id lead to the disk.
fn real(path: &str) -> Option<PathBuf> {
    std::fs::canonicalize(path).ok()
}

fn describe_selector(selector: &DiskSelector) -> String {
    let fields = [
        ("serial", &selector.serial),
        ("wwn", &selector.wwn),
        ("path", &selector.path),
    ];
    let given = fields.iter().filter_map(|(name, value)| {
        value
            .as_ref()
            .map(|value| format!("{name} {}", value.escape_debug()))
    });
    let number = selector.number.map(|number| format!("number {number}"));
    let given: Vec<String> = given.chain(number).collect();
    format!("a disk with {}", given.join(" and "))
}

fn describe<'a>(disks: impl IntoIterator<Item = &'a DiskInfo>) -> String {
    let one = |disk: &DiskInfo| {
        let mut text = format!(
            "{}: {} ({}",
            disk.number,
            disk.path,
            size::bytes(disk.size_bytes)
        );
        let names = [
            ("", &disk.model),
            ("serial ", &disk.serial),
            ("wwn ", &disk.wwn),
        ];
        for (name, value) in names.iter().filter(|(_, value)| !value.is_empty()) {
            text += &format!(", {name}{value}");
        }
        text + ")"
    };
    disks.into_iter().map(one).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::select;
    use std::path::Path;
    use wire::{Code, DiskInfo, DiskSelector, DiskState};

    fn disk(path: &str, bus: &str, serial: &str) -> DiskInfo {
        let wwn = if serial.is_empty() {
            String::new()
        } else {
            format!("naa.{serial}")
        };
        DiskInfo {
            path: path.into(),
            bus: bus.into(),
            serial: serial.into(),
            wwn,
            size_bytes: 1 << 30,
            ..DiskInfo::default()
        }
    }

    fn serial(serial: &str) -> DiskSelector {
        DiskSelector {
            serial: Some(serial.into()),
            ..DiskSelector::default()
        }
    }

    #[test]
    fn every_given_field_must_match() {
        let disks = [
            disk("/dev/sda", "sata", "A1"),
            disk("/dev/sdb", "sata", "B2"),
        ];
        let path = |s: DiskSelector| select(&disks, Some(&s)).map(|d| d.path.clone());
        assert_eq!(path(serial("B2")).unwrap(), "/dev/sdb");
        let by_wwn = DiskSelector {
            wwn: Some("NAA.a1".into()),
            ..DiskSelector::default()
        };
        assert_eq!(path(by_wwn).unwrap(), "/dev/sda");
        let by_path = DiskSelector {
            path: Some("/dev/sda".into()),
            ..DiskSelector::default()
        };
        assert_eq!(path(by_path).unwrap(), "/dev/sda");
        let both = DiskSelector {
            path: Some("/dev/sda".into()),
            ..serial("B2")
        };
        assert_eq!(path(both).unwrap_err().code, Code::DiskNotFound);
    }

    #[test]
    fn links_lead_to_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let (file, link) = (dir.join("disk"), dir.join("by-id"));
        std::fs::write(&file, []).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let disks = [disk(file.to_str().unwrap(), "file", "")];
        let path = Some(link.to_str().unwrap().to_owned());
        let selector = DiskSelector {
            path,
            ..DiskSelector::default()
        };
        assert_eq!(select(&disks, Some(&selector)).unwrap().path, disks[0].path);
    }

    #[test]
    fn a_missing_disk_lists_those_that_are_there() {
        let disks = [disk("/dev/sda", "sata", "A1"), disk("/dev/sdb", "sata", "")];
        let report = select(&disks, Some(&serial("ZZ"))).unwrap_err();
        assert_eq!(
            (report.code, report.disk),
            (Code::DiskNotFound, DiskState::Untouched)
        );
        assert_eq!(
            report.found,
            "looked for a disk with serial ZZ; the disks that are there: \
             0: /dev/sda (1.00 GiB, serial A1, wwn naa.A1); 0: /dev/sdb (1.00 GiB)"
        );
        let report = select(&disks, Some(&serial(""))).unwrap_err();
        assert_eq!(
            report.code,
            Code::DiskNotFound,
            "no serial number is no name"
        );
        assert!(
            select(&[], None)
                .unwrap_err()
                .found
                .ends_with("that are there: none")
        );
    }

    #[test]
    fn two_that_fit_are_none() {
        let disks = [
            disk("/dev/sda", "sata", "00"),
            disk("/dev/sdb", "sata", "00"),
        ];
        let report = select(&disks, Some(&serial("00"))).unwrap_err();
        assert_eq!(report.code, Code::TargetAmbiguous);
        assert!(report.found.contains("/dev/sda") && report.found.contains("/dev/sdb"));
    }

    #[test]
    fn without_a_description_the_only_built_in_disk() {
        let stick = DiskInfo {
            removable: true,
            ..disk("/dev/sdc", "usb", "S")
        };
        let mut disks = vec![
            stick,
            disk("/dev/sdd", "usb", "U"),
            disk("/dev/nvme0n1", "nvme", "N"),
            disk("/dev/loop0", "loop", ""),
        ];
        assert_eq!(select(&disks, None).unwrap().path, "/dev/nvme0n1");
        let empty = DiskSelector::default();
        assert_eq!(select(&disks, Some(&empty)).unwrap().path, "/dev/nvme0n1");
        disks.push(disk("/dev/sda", "sata", "A"));
        assert_eq!(
            select(&disks, None).unwrap_err().code,
            Code::TargetAmbiguous
        );
        assert_eq!(
            select(&disks[..2], None).unwrap_err().code,
            Code::DiskNotFound
        );
    }

    fn lun() -> DiskInfo {
        let way = |path: &str| wire::DiskPath {
            path: path.into(),
            ..wire::DiskPath::default()
        };
        DiskInfo {
            number: 1,
            paths: vec![way("/dev/sdb"), way("/dev/sdc")],
            ..disk("/dev/dm-0", "fc", "L7")
        }
    }

    #[test]
    fn every_path_leads_to_the_disk_that_stands_for_all() {
        let disks = [disk("/dev/sda", "sata", "A1"), lun()];
        for path in ["/dev/sdb", "/dev/sdc", "/dev/dm-0"] {
            let selector = DiskSelector {
                path: Some(path.into()),
                ..DiskSelector::default()
            };
            assert_eq!(select(&disks, Some(&selector)).unwrap().path, "/dev/dm-0");
        }
        assert_eq!(
            select(&disks, Some(&serial("L7"))).unwrap().path,
            "/dev/dm-0"
        );
    }

    #[test]
    fn people_name_disks_by_number_serial_number_or_wwn() {
        let list = || Ok(vec![disk("/dev/sda", "sata", "A1"), lun()]);
        let find = |text: &str| super::find(Path::new(text), list);
        for text in [
            "1",
            "L7",
            "naa.l7",
            "number=1",
            "serial=L7",
            "wwn=naa.L7",
            "path=/dev/sdc",
        ] {
            assert_eq!(find(text).unwrap(), Path::new("/dev/dm-0"), "{text}");
        }
        // What is no disk is what it was: a file that is to be made.
        for text in ["new.img", "2", "./1", "/dev/nowhere", "a=b"] {
            assert_eq!(find(text).unwrap(), Path::new(text));
        }
        for (text, code) in [
            ("number=2", Code::DiskNotFound),
            ("serial=ZZ", Code::DiskNotFound),
            ("number=x", Code::Usage),
        ] {
            assert_eq!(find(text).unwrap_err().code, code, "{text}");
        }
        let same = || {
            let mut other = disk("/dev/sdq", "sata", "1");
            other.number = 5;
            Ok(vec![other, lun()])
        };
        let report = super::find(Path::new("1"), same).unwrap_err();
        assert_eq!(report.code, Code::TargetAmbiguous);
        assert!(
            report.found.contains("5: /dev/sdq") && report.found.contains("1: /dev/dm-0"),
            "{}",
            report.found
        );
    }
}
