//! The folder of files that media are made of, which `build.sh` makes.
//!
//! Owns: its form, and completing its templates. Does not own: making it.
//!
//! | in the folder | |
//! |---|---|
//! | `VERSION` | version of the Deploy-OS |
//! | `vmlinuz`, `initramfs.img` | what is started |
//! | `firmware.img` | more of the initramfs, if it is there |
//! | `medium.cfg`, `efi.cfg` | GRUB's configuration: of a medium, of an ISO's EFI partition |
//! | `bios/mbr.img`, `bios/core.img` | GRUB for BIOS, if it is there |
//! | `efi/` | what stands in `EFI/` of a medium, as `BOOT/BOOTX64.EFI` |

use medium::{Bios, FOLDER};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use wire::{Code, DiskState, Report};

/// Longest text file of a kit.
const MAX_TEXT: u64 = 64 << 10;
/// Longest part of GRUB for BIOS.
const MAX_BOOT: u64 = 4 << 20;
const MAX_FILES: usize = 64;

/// A kit.
#[derive(Clone, Debug)]
pub struct Kit {
    /// Version of the Deploy-OS.
    pub version: String,
    /// GRUB's configuration.
    pub config: String,
    /// That of an ISO image's EFI partition.
    pub efi_config: String,
    /// GRUB for BIOS.
    pub bios: Option<Bios>,
    /// Files that are copied.
    pub files: Vec<KitFile>,
}

/// A file that is copied.
#[derive(Clone, Debug)]
pub struct KitFile {
    /// Path on the medium.
    pub path: String,
    /// Where it is.
    pub source: PathBuf,
    /// Bytes.
    pub size_bytes: u64,
    /// Hash of its content.
    pub hash: [u8; 32],
}

impl Kit {
    /// Reads a kit: its small files, and the hashes of the large ones.
    ///
    /// # Errors
    /// `usage`: there is no kit, or it lacks something.
    pub fn read(folder: &Path) -> Result<Kit, Report> {
        let version = text(folder, "VERSION")?.trim().to_owned();
        let plain = |b: u8| b.is_ascii_alphanumeric() || b".+-~".contains(&b);
        if version.is_empty() || version.len() > 40 || !version.bytes().all(plain) {
            return Err(no_kit(folder, format!("VERSION is {version:?}")));
        }
        let mut files = Vec::new();
        for (name, needed) in [
            ("vmlinuz", true),
            ("initramfs.img", true),
            ("firmware.img", false),
        ] {
            let source = folder.join(name);
            if needed || source.exists() {
                files.push(KitFile::read(folder, format!("{FOLDER}/{name}"), source)?);
            }
        }
        let efi = folder.join("efi");
        if efi.exists() {
            tree(folder, &efi, "EFI", &mut files)?;
        }
        let bios = folder.join("bios");
        let bios = bios.exists().then(|| {
            Ok::<Bios, Report>(Bios {
                mbr: bytes(folder, "bios/mbr.img", MAX_BOOT)?,
                core: bytes(folder, "bios/core.img", MAX_BOOT)?,
            })
        });
        Ok(Kit {
            version,
            config: text(folder, "medium.cfg")?,
            efi_config: text(folder, "efi.cfg")?,
            bios: bios.transpose()?,
            files,
        })
    }

    /// Names of the initramfs's segments on a medium.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        let paths = self.files.iter().map(|file| file.path.as_str());
        paths.filter(|path| path.starts_with(FOLDER) && path.ends_with(".img"))
    }

    /// Everything that tells this kit from another one.
    pub fn each_byte_string(&self, add: &mut dyn FnMut(&[u8])) {
        add(self.version.as_bytes());
        add(self.config.as_bytes());
        add(self.efi_config.as_bytes());
        if let Some(boot) = &self.bios {
            add(&boot.mbr);
            add(&boot.core);
        }
        for file in &self.files {
            add(file.path.as_bytes());
            add(&file.hash);
        }
    }
}

impl KitFile {
    fn read(folder: &Path, path: String, source: PathBuf) -> Result<KitFile, Report> {
        let failed = |e: std::io::Error| no_kit(folder, format!("{}: {e}", source.display()));
        let mut hasher = blake3::Hasher::new();
        let mut file = File::open(&source).map_err(failed)?;
        let size_bytes = std::io::copy(&mut file, &mut hasher).map_err(failed)?;
        Ok(KitFile {
            path,
            size_bytes,
            hash: *hasher.finalize().as_bytes(),
            source,
        })
    }
}

/// All files below `dir`, in the order of their names.
fn tree(folder: &Path, dir: &Path, path: &str, files: &mut Vec<KitFile>) -> Result<(), Report> {
    let failed = |e: std::io::Error| no_kit(folder, format!("{}: {e}", dir.display()));
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name());
    }
    names.sort_unstable();
    for name in names {
        let source = dir.join(&name);
        let path = format!("{path}/{}", name.to_string_lossy());
        if path.matches('/').count() > 4 || files.len() >= MAX_FILES {
            return Err(no_kit(folder, "there is too much in efi".to_owned()));
        }
        if source.is_dir() {
            tree(folder, &source, &path, files)?;
        } else {
            files.push(KitFile::read(folder, path, source)?);
        }
    }
    Ok(())
}

fn bytes(folder: &Path, name: &str, limit: u64) -> Result<Vec<u8>, Report> {
    let mut bytes = Vec::new();
    let read =
        File::open(folder.join(name)).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes));
    read.map_err(|e| no_kit(folder, format!("{name}: {e}")))?;
    if bytes.len() as u64 > limit {
        return Err(no_kit(
            folder,
            format!("{name} has more than {limit} bytes"),
        ));
    }
    Ok(bytes)
}

fn text(folder: &Path, name: &str) -> Result<String, Report> {
    let bytes = bytes(folder, name, MAX_TEXT)?;
    String::from_utf8(bytes).map_err(|_| no_kit(folder, format!("{name} is no text")))
}

fn no_kit(folder: &Path, why: String) -> Report {
    let found = format!("{} is no kit for media: {why}", folder.display());
    Report::new(Code::Usage, found, DiskState::NotInvolved)
        .with_advice("Name the folder with --kit: ./build.sh media makes it as out/media.")
}

/// Replaces every `{{name}}` of a template. Values are not looked at again.
///
/// # Errors
/// `usage`: the template wants something that is not known.
pub fn complete(template: &str, values: &[(&str, &str)]) -> Result<String, Report> {
    let mut text = String::with_capacity(template.len() + 256);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, tail) = after.split_once("}}").unwrap_or((after, ""));
        let value = values.iter().find(|(known, _)| *known == name);
        let Some((_, value)) = value else {
            let found = format!("the kit's template wants {name:?}, which is not known");
            return Err(Report::new(Code::Usage, found, DiskState::NotInvolved)
                .with_advice("Take the kit of this program's version."));
        };
        text.push_str(before);
        text.push_str(value);
        rest = tail;
    }
    text.push_str(rest);
    Ok(text)
}
