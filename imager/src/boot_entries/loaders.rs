//! What an EFI system partition has to start.
//!
//! Owns: the names by which loaders are known, and their order. Does not own: reading the
//! partition ([`crate::files`]).

use crate::files::{Fail, Kind, Tree, path};
use efi::Loader;

/// Folders of vendors that are looked into: nobody has more.
const MOST_FOLDERS: usize = 64;
/// Shown in the firmware's menu for what has no name of its own.
const NAMELESS: &str = "UEFI OS";

/// How loaders of an architecture are called (UEFI 2.10, 3.5.1.1, and by custom).
pub struct Names {
    /// In names of vendors: `x64`.
    suffix: &'static str,
    /// The file that is started where nothing else is known.
    fallback: &'static str,
}

impl Names {
    /// Of firmware for this architecture with addresses of so many bits.
    pub fn of(architecture: &str, bits: u32) -> Names {
        let (suffix, fallback) = match (architecture, bits) {
            ("aarch64", _) => ("aa64", "BOOTAA64.EFI"),
            (_, 32) => ("ia32", "BOOTIA32.EFI"),
            _ => ("x64", "BOOTX64.EFI"),
        };
        Names { suffix, fallback }
    }

    /// Of this machine's firmware.
    pub fn of_this_machine() -> Names {
        let size = std::fs::read_to_string("/sys/firmware/efi/fw_platform_size");
        let bits = size.ok().and_then(|text| text.trim().parse().ok());
        Names::of(std::env::consts::ARCH, bits.unwrap_or(64))
    }
}

/// What there is to start, the best first: systems that know of others before Windows, and
/// the fallback file only where nothing has a name.
///
/// # Errors
/// The file system cannot be read.
pub fn find(tree: &dyn Tree, names: &Names) -> Result<Vec<Loader>, Fail> {
    let Some(folder) = seen(path::find(tree, b"EFI", true))? else {
        return Ok(Vec::new());
    };
    if folder.node.kind != Kind::Directory {
        return Ok(Vec::new());
    }
    let mut items = tree.list(&folder.node)?;
    items.sort_unstable();
    let (mut found, mut windows) = (Vec::new(), Vec::new());
    for item in items.into_iter().take(MOST_FOLDERS) {
        // A name that firmware cannot be told is no vendor's.
        let Ok(vendor) = String::from_utf8(item.name) else {
            continue;
        };
        if vendor.eq_ignore_ascii_case("boot") || vendor.chars().any(char::is_control) {
            continue;
        }
        if vendor.eq_ignore_ascii_case("microsoft") {
            let file = first(tree, &vendor, &["Boot/bootmgfw.efi".to_owned()])?;
            windows.extend(file.map(|file| loader("Windows Boot Manager", file)));
            continue;
        }
        let suffix = names.suffix;
        let known = [
            format!("shim{suffix}.efi"),
            format!("grub{suffix}.efi"),
            format!("systemd-boot{suffix}.efi"),
            format!("refind_{suffix}.efi"),
        ];
        if let Some(file) = first(tree, &vendor, &known)? {
            let name = match vendor.eq_ignore_ascii_case("systemd") {
                true => "Linux Boot Manager",
                false => vendor.as_str(),
            };
            found.push(loader(name, file));
        }
    }
    found.append(&mut windows);
    if found.is_empty() {
        let fallback = first(tree, "BOOT", &[names.fallback.to_owned()])?;
        found.extend(fallback.map(|file| loader(NAMELESS, file)));
    }
    Ok(found)
}

/// Whether a file that an entry names is there.
///
/// # Errors
/// The file system cannot be read.
pub fn has(tree: &dyn Tree, file: &str) -> Result<bool, Fail> {
    let found = seen(path::find(tree, file.replace('\\', "/").as_bytes(), true))?;
    Ok(found.is_some_and(|found| found.node.kind == Kind::File))
}

fn loader(name: &str, file: String) -> Loader {
    Loader {
        name: name.to_owned(),
        file,
    }
}

/// The first of these files in a vendor's folder, as the firmware writes its path.
fn first(tree: &dyn Tree, vendor: &str, files: &[String]) -> Result<Option<String>, Fail> {
    for file in files {
        let wanted = format!("EFI/{vendor}/{file}");
        let found = seen(path::find(tree, wanted.as_bytes(), true))?;
        let Some(found) = found.filter(|found| found.node.kind == Kind::File) else {
            continue;
        };
        // As it is written on the disk.
        if let Ok(path) = String::from_utf8(found.path) {
            return Ok(Some(format!("\\{}", path.replace('/', "\\"))));
        }
    }
    Ok(None)
}

/// That something is not there is an answer.
fn seen<T>(found: Result<T, Fail>) -> Result<Option<T>, Fail> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Fail::NotFound) => Ok(None),
        Err(fail) => Err(fail),
    }
}
