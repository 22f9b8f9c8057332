//! Media in folders, in drives that somebody changes.

use super::{Drives, MediaReader, Shelf};
use crate::target::medium::Medium;
use ::medium::{About, Part, Restore};
use std::io::Read;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use wire::{Code, Report};

pub(crate) const ID: &str = "00112233445566778899aabbccddeeff";

/// Drives whose content changes with every look; the last one stays.
pub(crate) struct Changed {
    pub states: Vec<Vec<Medium>>,
    pub looks: AtomicUsize,
    pub released: AtomicUsize,
}

impl Changed {
    pub(crate) fn new(states: Vec<Vec<Medium>>) -> Self {
        Changed {
            states,
            looks: AtomicUsize::new(0),
            released: AtomicUsize::new(0),
        }
    }
}

impl Drives for Changed {
    fn look(&self) -> Vec<Medium> {
        let look = self.looks.fetch_add(1, Ordering::SeqCst);
        self.states[look.min(self.states.len() - 1)].clone()
    }

    fn list(&self) -> Vec<String> {
        vec!["/dev/sr0 (empty)".to_owned()]
    }

    fn release(&self, _medium: Medium) {
        self.released.fetch_add(1, Ordering::SeqCst);
    }

    fn pause(&self) {}
}

/// A medium in a folder, with a piece of an image of `size_bytes` in parts.
pub(crate) fn medium(
    folder: &Path,
    (number, media): (u32, u32),
    (start, size_bytes): (u64, u64),
    parts: &[&[u8]],
) -> Medium {
    let mount = folder.join(number.to_string());
    std::fs::create_dir_all(mount.join("deploy-os")).unwrap();
    let part = |(at, bytes): (usize, &&[u8])| {
        let file = format!("image.{at:04}");
        std::fs::write(mount.join("deploy-os").join(&file), bytes).unwrap();
        Part {
            file,
            size_bytes: bytes.len() as u64,
        }
    };
    let parts = parts.iter().enumerate().map(part).collect();
    Medium {
        device: format!("/dev/sr{number}").into(),
        writable: false,
        about: About {
            format: 1,
            version: "0.1.0".into(),
            id: ID.into(),
            restore: Some(Restore {
                image: "office".into(),
                size_bytes,
                medium: number,
                media,
                start,
                parts,
                unattended: true,
                force: false,
                disk: None,
            }),
        },
        mount,
    }
}

fn codes(told: &Mutex<Vec<Option<Report>>>) -> Vec<Option<Code>> {
    let told = told.lock().unwrap();
    told.iter().map(|r| r.as_ref().map(|r| r.code)).collect()
}

#[test]
fn an_image_is_read_over_files_and_media() {
    let dir = tempfile::tempdir().unwrap();
    let first = medium(dir.path(), (1, 2), (0, 9), &[b"abc", b"d"]);
    let second = medium(dir.path(), (2, 2), (4, 9), &[b"efghi"]);
    // Both at once; then one drive, in which somebody is slow.
    let both = Changed::new(vec![vec![first.clone(), second.clone()]]);
    let one = Changed::new(vec![
        vec![first.clone()],
        vec![first],
        vec![],
        vec![],
        vec![second],
    ]);
    for (drives, expected) in [
        (&both, vec![]),
        (
            &one,
            vec![Some(Code::MediumWrong), Some(Code::MediumNotFound), None],
        ),
    ] {
        let told = Mutex::new(Vec::new());
        let tell = |report: Option<&Report>| told.lock().unwrap().push(report.cloned());
        let shelf = Shelf::new(drives, Some(ID.into()), &tell);
        let mut text = String::new();
        MediaReader::open(&shelf).read_to_string(&mut text).unwrap();
        assert_eq!(text, "abcdefghi");
        assert_eq!(codes(&told), expected);
        assert!(
            drives.released.load(Ordering::SeqCst) > 0,
            "a medium that is read can be taken out"
        );
    }
}

#[test]
fn what_is_wrong_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let right = medium(dir.path(), (1, 1), (0, 1), &[b"x"]);
    let change = |change: &dyn Fn(&mut About)| {
        let mut other = right.clone();
        change(&mut other.about);
        vec![other]
    };
    let drives = Changed::new(vec![
        change(&|about| about.id = "f".repeat(32)),
        change(&|about| about.restore = None),
        change(&|about| about.format = 2),
        vec![],
        vec![right.clone()],
    ]);
    let told = Mutex::new(Vec::new());
    let tell = |report: Option<&Report>| told.lock().unwrap().push(report.cloned());
    let (found, _) = Shelf::new(&drives, Some(ID.into()), &tell).get(1);
    assert_eq!(found, right);
    let wrong = Some(Code::MediumWrong);
    let expected = [wrong, wrong, wrong, Some(Code::MediumNotFound), None];
    assert_eq!(codes(&told), expected);
    let told = told.lock().unwrap();
    let text = |at: usize| told[at].as_ref().map(|r| r.found.clone()).unwrap();
    assert_eq!(
        text(0),
        format!(
            "medium 1 of the image with id {ID} is needed; there is: /dev/sr1: medium 1 of 1 \
             with image office, id {}",
            "f".repeat(32)
        )
    );
    assert!(text(1).contains("a medium without an image"));
    assert!(text(2).contains("a medium of format 2"));
    assert!(text(3).ends_with("is in no drive; drives: /dev/sr0 (empty)"));
}

#[test]
fn a_short_part_and_a_gap_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let mut short = medium(dir.path(), (1, 1), (0, 4), &[b"abcd"]);
    if let Some(restore) = &mut short.about.restore {
        restore.size_bytes = 5;
        restore.parts[0].size_bytes = 5;
    }
    let first = medium(&dir.path().join("gap"), (1, 2), (0, 9), &[b"abc"]);
    let second = medium(&dir.path().join("gap"), (2, 2), (4, 9), &[b"efghi"]);
    for media in [vec![short], vec![first, second]] {
        let drives = Changed::new(vec![media]);
        let shelf = Shelf::new(&drives, None, &|_| {});
        let read = MediaReader::open(&shelf).read_to_end(&mut Vec::new());
        assert!(read.is_err());
    }
}
