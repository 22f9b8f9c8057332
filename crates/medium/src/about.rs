//! `deploy-os/medium.json`: what a medium is and what it carries.
//!
//! Owns: its fields, their limits, version rules. Does not own: finding the file. The
//! reference is `docs/reference/media.md`.
//!
//! Anybody can write such a file: [`About::parse`] is total, and what it gives keeps all
//! limits. Unknown fields are passed over, so that an older Deploy-OS still finds the
//! settings of a newer medium; [`About::format`] says whether the rest is understood.

use serde::{Deserialize, Serialize};
use std::fmt;
use wire::DiskSelector;

/// Version of the description that this program writes.
pub const FORMAT: u32 = 1;
/// Longest file, in bytes.
pub const MAX_BYTES: usize = 64 << 10;
/// Most media of one image.
pub const MAX_MEDIA: u32 = 999;
/// Most parts on one medium.
pub const MAX_PARTS: usize = 512;
const MAX_TEXT: usize = 200;

/// What a medium is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Version of this description.
    pub format: u32,
    /// Version of the Deploy-OS that it boots.
    pub version: String,
    /// 32 hex digits that tell what is on it: media with the same content have the same; all
    /// media of one image, too.
    pub id: String,
    /// The image that it restores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<Restore>,
}

/// An image on the medium, or the piece of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restore {
    /// What people call the image.
    pub image: String,
    /// Bytes of the whole image.
    pub size_bytes: u64,
    /// Number of this medium, from 1.
    pub medium: u32,
    /// How many media there are.
    pub media: u32,
    /// First byte of the image that is on this medium.
    pub start: u64,
    /// What is on this medium, one after another.
    pub parts: Vec<Part>,
    /// Restored without asking.
    #[serde(default)]
    pub unattended: bool,
    /// The disk that it is meant for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskSelector>,
}

/// A file that holds a piece of the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Name in the folder `deploy-os`.
    pub file: String,
    /// Its bytes.
    pub size_bytes: u64,
}

/// A description that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable(String);

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unusable {}

impl About {
    /// Reads a description.
    ///
    /// # Errors
    /// It is too long, no JSON of this form, or breaks a limit.
    pub fn parse(bytes: &[u8]) -> Result<About, Unusable> {
        if bytes.len() > MAX_BYTES {
            return unusable(format!("longer than {MAX_BYTES} bytes"));
        }
        let about: About = serde_json::from_slice(bytes).map_err(|e| Unusable(e.to_string()))?;
        about.check()?;
        Ok(about)
    }

    /// The file, which ends with a line end.
    pub fn to_json(&self) -> String {
        // Strings and numbers only: nothing in it can fail to be written.
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        text + "\n"
    }

    /// Whether this program understands all of it.
    pub fn is_understood(&self) -> bool {
        (1..=FORMAT).contains(&self.format)
    }

    fn check(&self) -> Result<(), Unusable> {
        if self.format == 0 {
            return unusable("format 0".to_owned());
        }
        if self.id.len() != 32 || !self.id.bytes().all(|b| b.is_ascii_hexdigit()) {
            return unusable("id is not 32 hex digits".to_owned());
        }
        text("version", &self.version)?;
        self.restore.as_ref().map_or(Ok(()), Restore::check)
    }
}

impl Restore {
    /// Byte of the image behind the last one that is on this medium.
    pub fn end(&self) -> u64 {
        let parts = self.parts.iter().map(|part| part.size_bytes);
        parts.fold(self.start, u64::saturating_add)
    }

    fn check(&self) -> Result<(), Unusable> {
        text("image", &self.image)?;
        if !(1..=MAX_MEDIA).contains(&self.media) || !(1..=self.media).contains(&self.medium) {
            return unusable(format!("medium {} of {}", self.medium, self.media));
        }
        if self.parts.is_empty() || self.parts.len() > MAX_PARTS {
            return unusable(format!("{} parts", self.parts.len()));
        }
        let mut end = self.start;
        for part in &self.parts {
            file_name(&part.file)?;
            let next = end.checked_add(part.size_bytes);
            match next.filter(|&next| part.size_bytes > 0 && next <= self.size_bytes) {
                Some(next) => end = next,
                None => return unusable(format!("part {} lies outside the image", part.file)),
            }
        }
        let first = self.medium == 1;
        let last = self.medium == self.media;
        if first != (self.start == 0) || last != (end == self.size_bytes) {
            return unusable(format!(
                "medium {} of {} holds bytes {} to {end} of {}",
                self.medium, self.media, self.start, self.size_bytes
            ));
        }
        Ok(())
    }
}

fn unusable<T>(why: String) -> Result<T, Unusable> {
    Err(Unusable(why))
}

/// Text that is shown to people.
fn text(what: &str, value: &str) -> Result<(), Unusable> {
    if value.is_empty() || value.len() > MAX_TEXT || value.chars().any(char::is_control) {
        return unusable(format!("{what} is empty, too long or not plain text"));
    }
    Ok(())
}

/// A name that stays in its folder and that every file system takes.
fn file_name(name: &str) -> Result<(), Unusable> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    let ok = (1..=64).contains(&name.len())
        && !name.starts_with('.')
        && !name.ends_with('.')
        && name.bytes().all(plain);
    if ok {
        Ok(())
    } else {
        unusable(format!("{name:?} is no name of a part"))
    }
}

#[cfg(test)]
mod tests {
    use super::{About, FORMAT, MAX_BYTES, Part, Restore};
    use proptest::prelude::*;
    use wire::DiskSelector;

    const ID: &str = "00112233445566778899aabbccddeeff";

    fn about() -> About {
        About {
            format: FORMAT,
            version: "0.1.0".into(),
            id: ID.into(),
            restore: Some(Restore {
                image: "office pc".into(),
                size_bytes: 10,
                medium: 2,
                media: 3,
                start: 4,
                parts: vec![
                    Part {
                        file: "image.0001".into(),
                        size_bytes: 3,
                    },
                    Part {
                        file: "image.0002".into(),
                        size_bytes: 1,
                    },
                ],
                unattended: true,
                disk: Some(DiskSelector {
                    serial: Some("S1".into()),
                    ..DiskSelector::default()
                }),
            }),
        }
    }

    #[test]
    fn a_description_is_read_as_it_was_written() {
        let mut about = about();
        assert_eq!(About::parse(about.to_json().as_bytes()), Ok(about.clone()));
        assert_eq!(about.restore.as_ref().map(Restore::end), Some(8));
        about.restore = None;
        let text = about.to_json();
        assert_eq!(About::parse(text.as_bytes()), Ok(about));
        assert_eq!(
            text,
            format!("{{\n  \"format\": 1,\n  \"version\": \"0.1.0\",\n  \"id\": \"{ID}\"\n}}\n")
        );
    }

    #[test]
    fn a_newer_one_is_read_as_far_as_it_goes() {
        let text = format!(r#"{{"format": 7, "version": "9", "id": "{ID}", "colour": "red"}}"#);
        let newer = About::parse(text.as_bytes()).unwrap();
        assert!(!newer.is_understood() && newer.restore.is_none());
        assert!(about().is_understood());
    }

    fn refused(change: impl FnOnce(&mut About, &mut Restore)) {
        let mut about = about();
        let mut restore = about.restore.take().unwrap();
        change(&mut about, &mut restore);
        about.restore = Some(restore);
        let text = about.to_json();
        assert!(About::parse(text.as_bytes()).is_err(), "{text}");
    }

    #[test]
    fn what_breaks_a_limit_is_refused() {
        refused(|about, _| about.format = 0);
        refused(|about, _| about.id = "0011".into());
        refused(|about, _| about.id = "x".repeat(32));
        refused(|about, _| about.version = String::new());
        refused(|_, restore| restore.image = "\u{1b}[2J".into());
        refused(|_, restore| restore.image = "x".repeat(201));
        for (medium, media) in [(0, 3), (4, 3), (1, 0), (2, 1000)] {
            refused(|_, restore| (restore.medium, restore.media) = (medium, media));
        }
        refused(|_, restore| restore.parts.clear());
        refused(|_, restore| restore.parts[0].size_bytes = 0);
        refused(|_, restore| restore.parts[0].size_bytes = u64::MAX);
        for name in ["", "../x", "a/b", ".", "..", ".x", "a.", "A", "a b", "ä"] {
            refused(|_, restore| restore.parts[0].file = name.into());
        }
        // A middle one neither begins nor ends the image.
        refused(|_, restore| restore.start = 0);
        refused(|_, restore| restore.size_bytes = 8);
        refused(|_, restore| restore.medium = 3);
        assert!(About::parse(&vec![b' '; MAX_BYTES + 1]).is_err());
        assert!(About::parse(b"").is_err());
        assert!(About::parse(b"[]").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = About::parse(&bytes);
        }

        #[test]
        fn what_is_read_keeps_the_limits(
            medium in 0_u32..5, media in 0_u32..5, start in 0_u64..9,
            sizes in proptest::collection::vec(0_u64..9, 0..4), size_bytes in 0_u64..12,
        ) {
            let mut about = about();
            let parts = sizes.iter().map(|&size_bytes| Part { file: "a".into(), size_bytes });
            let parts = parts.collect();
            about.restore = Some(Restore {
                medium, media, start, parts, size_bytes, ..about.restore.unwrap()
            });
            if let Ok(read) = About::parse(about.to_json().as_bytes()) {
                let restore = read.restore.unwrap();
                prop_assert!(restore.end() <= restore.size_bytes && restore.start < restore.end());
                prop_assert!((1..=restore.media).contains(&restore.medium));
            }
        }
    }
}
