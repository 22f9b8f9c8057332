//! Making media that the Deploy-OS starts from: ISO images and sticks, with or without an
//! image to restore.
//!
//! Owns: what is on a medium, over how many media an image goes, their id. Does not own: where
//! the bytes of a medium stand (`medium`), the files that it is made of ([`kit`]), writing
//! ([`write`]), options ([`crate::cli`]).

pub mod kit;
pub mod write;

use kit::{Kit, complete};
use medium::about::{FORMAT, MAX_MEDIA};
use medium::stick::Stick;
use medium::{
    ABOUT_FILE, About, Entry, Error, FOLDER, MAX_FILE, Part, Piece, Restore, SETTINGS_FILE, iso,
    stick,
};
use std::path::PathBuf;
use wire::{Code, DiskSelector, DiskState, Report, size};

/// Room on a medium that an image does not take: its description, settings, old tables.
const RESERVE: u64 = 4 << 20;
/// An image is cut at multiples of this, which every medium's blocks divide.
const CUT: u64 = 64 << 10;
/// A stick in a file has this much room for settings and logs.
const STICK_ROOM: u64 = 64 << 20;
const MIB: u64 = 1 << 20;
/// The kernel takes 2048 bytes; the template has some.
const MAX_ARGUMENTS: usize = 1500;

/// A kind of medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Starts from a CD and, copied with dd, from a stick; cannot be written to
    Iso,
    /// A stick with a partition that can be written to
    Usb,
}

impl Kind {
    /// As users write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Iso => "iso",
            Kind::Usb => "usb",
        }
    }
}

/// An image that goes on media.
#[derive(Clone, Debug)]
pub struct Image {
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub size_bytes: u64,
    /// Its root: names it.
    pub root: [u8; 32],
    /// What people call it.
    pub name: String,
    /// Restored without asking.
    pub unattended: bool,
    /// And to another kind of machine, too.
    pub force: bool,
    /// The disk that it is for.
    pub disk: Option<DiskSelector>,
}

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Order<'a> {
    /// What a medium is made of.
    pub kit: &'a Kit,
    /// Which kind.
    pub kind: Kind,
    /// Bytes of a medium; none: as many as it takes.
    pub volume_bytes: Option<u64>,
    /// The image to restore.
    pub image: Option<&'a Image>,
    /// Settings to put on it.
    pub settings: Option<&'a [u8]>,
    /// Words for the kernel's command line.
    pub append: &'a [String],
}

/// A medium, ready to be written.
#[derive(Debug)]
pub struct Laid {
    /// What it says of itself.
    pub about: About,
    /// Its bytes.
    pub pieces: Vec<Piece>,
    /// How many.
    pub size_bytes: u64,
    /// The files that pieces speak of.
    pub sources: Vec<PathBuf>,
}

impl Order<'_> {
    /// All media that are needed, in order.
    ///
    /// # Errors
    /// `usage`: words or settings that cannot be. `no-space`: no room for the image, or too
    /// many media.
    pub fn lay_out(&self) -> Result<Vec<Laid>, Report> {
        self.check()?;
        let id = self.id();
        let mut about = About {
            format: FORMAT,
            version: self.kit.version.clone(),
            id,
            restore: None,
        };
        let Some(image) = self.image else {
            return Ok(vec![self.medium(about)?]);
        };
        let room = self
            .room(&about)?
            .min(image.size_bytes.next_multiple_of(CUT));
        let media = image.size_bytes.div_ceil(room.max(1)).max(1);
        let media = u32::try_from(media).ok().filter(|&n| n <= MAX_MEDIA);
        let media = media.ok_or_else(|| {
            let found = format!(
                "an image of {} needs more than {MAX_MEDIA} media",
                size::bytes(image.size_bytes)
            );
            no_space(found)
        })?;
        let mut laid = Vec::new();
        for number in 1..=media {
            let start = u64::from(number - 1) * room;
            let len = room.min(image.size_bytes - start);
            about.restore = Some(Restore {
                image: image.name.clone(),
                size_bytes: image.size_bytes,
                medium: number,
                media,
                start,
                parts: parts(len),
                unattended: image.unattended,
                force: image.force,
                disk: image.disk.clone(),
            });
            laid.push(self.medium(about.clone())?);
        }
        Ok(laid)
    }

    fn check(&self) -> Result<(), Report> {
        let usage = |found: String| Err(Report::new(Code::Usage, found, DiskState::NotInvolved));
        for word in self.append {
            let plain = |b: u8| b.is_ascii_graphic() && b != b'\'' && b != b'"';
            if word.is_empty() || !word.bytes().all(plain) {
                return usage(format!("{word:?} is no word for the kernel's command line"));
            }
        }
        let length: usize = self.append.iter().map(|word| word.len() + 1).sum();
        if length > MAX_ARGUMENTS {
            return usage(format!(
                "{length} bytes are too many for the kernel's command line"
            ));
        }
        if self.image.is_some_and(|image| image.size_bytes == 0) {
            return usage("the image is empty".to_owned());
        }
        Ok(())
    }

    /// Bytes of the image that go on each medium.
    fn room(&self, about: &About) -> Result<u64, Report> {
        let Some(volume) = self.volume_bytes else {
            return Ok(u64::MAX / CUT * CUT);
        };
        let bare = self.entries(about)?;
        let free = match self.kind {
            Kind::Iso => {
                let (_, used) = self.iso(about, &bare)?;
                volume.checked_sub(used + MIB)
            }
            Kind::Usb => Some(self.stick(&bare, volume).free_bytes().map_err(refused)?),
        };
        let room = free.and_then(|free| free.checked_sub(RESERVE)).unwrap_or(0) / CUT * CUT;
        if room == 0 {
            let found = format!("a medium of {volume} bytes has no room for an image");
            return Err(no_space(found));
        }
        Ok(room)
    }

    fn medium(&self, about: About) -> Result<Laid, Report> {
        // What is written has to be what can be read.
        About::parse(about.to_json().as_bytes()).map_err(|e| {
            Report::new(Code::Usage, e.to_string(), DiskState::NotInvolved)
                .with_advice("Give the image another name with --name.")
        })?;
        let entries = self.entries(&about)?;
        let (pieces, size_bytes) = match self.kind {
            Kind::Iso => self.iso(&about, &entries)?,
            Kind::Usb => {
                let files: u64 = entries
                    .iter()
                    .map(|e| e.size_bytes.next_multiple_of(CUT / 2))
                    .sum();
                let enough = (files + files / 50 + STICK_ROOM).next_multiple_of(MIB);
                let size_bytes = self.volume_bytes.unwrap_or(enough);
                let stick = self.stick(&entries, size_bytes);
                (stick::lay_out(&stick).map_err(refused)?, size_bytes)
            }
        };
        if let Some(volume) = self.volume_bytes.filter(|&volume| size_bytes > volume) {
            let found = format!("the medium has {size_bytes} bytes, more than {volume}");
            return Err(no_space(found));
        }
        let image = self.image.map(|image| image.path.clone());
        let kit = self.kit.files.iter().map(|file| file.source.clone());
        Ok(Laid {
            about,
            pieces,
            size_bytes,
            sources: kit.chain(image).collect(),
        })
    }

    fn stick<'a>(&'a self, entries: &'a [Entry], size_bytes: u64) -> Stick<'a> {
        Stick {
            entries,
            bios: self.kit.bios.as_ref(),
            serial: self.serial(),
            size_bytes,
        }
    }

    /// An ISO image: what UEFI starts is in a partition of its own there, with a stub that
    /// finds the rest.
    fn iso(&self, about: &About, entries: &[Entry]) -> Result<(Vec<Piece>, u64), Report> {
        let is_efi = |entry: &&Entry| entry.path.starts_with("EFI/");
        let (efi, rest): (Vec<&Entry>, Vec<&Entry>) = entries.iter().partition(is_efi);
        let mut efi: Vec<Entry> = efi.into_iter().cloned().collect();
        let rest: Vec<Entry> = rest.into_iter().cloned().collect();
        if !efi.is_empty() {
            let stub = complete(&self.kit.efi_config, &[("marker", marker(about).as_str())])?;
            efi.push(Entry::of_bytes(&format!("{FOLDER}/grub.cfg"), stub));
        }
        let image = iso::Image {
            entries: &rest,
            efi: &efi,
            bios: self.kit.bios.as_ref(),
            serial: self.serial(),
        };
        iso::lay_out(&image).map_err(refused)
    }

    /// All files of a medium; those below `EFI/` are what UEFI starts.
    fn entries(&self, about: &About) -> Result<Vec<Entry>, Report> {
        let own = |name: &str| format!("{FOLDER}/{name}");
        let mut entries = vec![
            Entry::of_bytes(ABOUT_FILE, about.to_json()),
            Entry::of_bytes(&own("grub.cfg"), self.config(about)?),
            Entry::of_bytes(&own(&marker(about)), format!("{}\n", about.id)),
        ];
        if let Some(settings) = self.settings {
            entries.push(Entry::of_bytes(SETTINGS_FILE, settings));
        }
        let kit = self.kit.files.iter().enumerate();
        entries.extend(kit.map(|(at, file)| Entry::of_file(&file.path, at, 0, file.size_bytes)));
        if let Some(restore) = &about.restore {
            let mut offset = restore.start;
            for part in &restore.parts {
                let index = self.kit.files.len();
                entries.push(Entry::of_file(
                    &own(&part.file),
                    index,
                    offset,
                    part.size_bytes,
                ));
                offset += part.size_bytes;
            }
        }
        Ok(entries)
    }

    fn config(&self, about: &About) -> Result<String, Report> {
        // Quotes keep GRUB from reading anything into a word.
        let mut words: Vec<String> = self.append.iter().map(|word| format!("'{word}'")).collect();
        if about.restore.is_some() {
            words.insert(0, "deploy.restore".to_owned());
        }
        let segments: Vec<String> = self.kit.segments().map(|name| format!("/{name}")).collect();
        let segments = segments.join(" ");
        let words = words.join(" ");
        let values = [
            ("version", about.version.as_str()),
            ("id", about.id.as_str()),
            ("arguments", words.as_str()),
            ("initrds", segments.as_str()),
        ];
        complete(&self.kit.config, &values)
    }

    /// The same for the same content, and for all media of an image.
    fn id(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let mut add = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        add(self.kind.as_str().as_bytes());
        self.kit.each_byte_string(&mut add);
        add(self.settings.unwrap_or_default());
        self.append.iter().for_each(|word| add(word.as_bytes()));
        add(&self.volume_bytes.unwrap_or(0).to_le_bytes());
        if let Some(image) = self.image {
            add(&image.root);
            add(image.name.as_bytes());
            add(&image.size_bytes.to_le_bytes());
            add(&[u8::from(image.unattended), u8::from(image.force)]);
            add(format!("{:?}", image.disk).as_bytes());
        }
        hasher.finalize().to_hex()[..32].to_owned()
    }

    fn serial(&self) -> u32 {
        u32::from_str_radix(&self.id()[..8], 16).unwrap_or(1)
    }
}

/// A file by which boot loaders tell one medium from another.
fn marker(about: &About) -> String {
    format!("id-{}", about.id.get(..16).unwrap_or(&about.id))
}

fn parts(len: u64) -> Vec<Part> {
    let count = len.div_ceil(MAX_FILE);
    let part = |at: u64| Part {
        file: format!("image.{:04}", at + 1),
        size_bytes: MAX_FILE.min(len - at * MAX_FILE),
    };
    (0..count).map(part).collect()
}

fn refused(error: Error) -> Report {
    match error {
        Error::Full { .. } | Error::Size { .. } => no_space(error.to_string()),
        _ => Report::new(Code::Usage, error.to_string(), DiskState::NotInvolved)
            .with_advice("Make the kit again: ./build.sh media."),
    }
}

fn no_space(found: String) -> Report {
    Report::new(Code::NoSpace, found, DiskState::NotInvolved)
        .with_advice("Take larger media, or let the image go on several: --volume-size.")
}

#[cfg(test)]
#[path = "media_tests.rs"]
mod tests;
