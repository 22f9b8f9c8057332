//! A stick: a partition table with one FAT32 partition, which can be written to.
//!
//! Owns: the table, GRUB before the partition, and which bytes of the stick are written.
//! Does not own: the file system ([`crate::fat`]).
//!
//! | bytes | |
//! |---|---|
//! | 0-511 | first sector: GRUB's, with a partition table |
//! | 512 to 1 MiB | GRUB's core |
//! | 1 MiB to 1 MiB before the end | FAT32, type 0x0C, from which UEFI starts too |
//! | the last MiB | zeros: the copy of an old GPT would stand here |

use crate::bios::{self, Bios, Partition};
use crate::fat::{self, Volume};
use crate::piece::Pieces;
use crate::{Content, Entry, Error, Piece};

/// Smallest stick, in bytes.
pub const MIN_BYTES: u64 = 64 << 20;
const MIB: u64 = 1 << 20;
/// FAT32, addressed by sectors.
const FAT32_TYPE: u8 = 0x0C;

/// What a stick is made of.
#[derive(Clone, Debug)]
pub struct Stick<'a> {
    /// Files, those that UEFI starts included.
    pub entries: &'a [Entry],
    /// GRUB for BIOS; none: it does not start on BIOS.
    pub bios: Option<&'a Bios>,
    /// Number of the volume and of the disk.
    pub serial: u32,
    /// Bytes of the stick.
    pub size_bytes: u64,
}

impl Stick<'_> {
    /// Bytes that files can still have.
    ///
    /// # Errors
    /// As [`lay_out`].
    pub fn free_bytes(&self) -> Result<u64, Error> {
        fat::free_bytes(&self.volume()?, self.entries)
    }

    fn volume(&self) -> Result<Volume, Error> {
        if self.size_bytes < MIN_BYTES {
            return Err(Error::Size {
                size_bytes: self.size_bytes,
                what: "too small: 64 MiB are needed",
            });
        }
        Ok(Volume {
            start: MIB,
            size_bytes: self.size_bytes / MIB * MIB - 2 * MIB,
            serial: self.serial,
        })
    }
}

/// Lays out a stick: the bytes that have to be written. What is between them stays as it is.
///
/// # Errors
/// Names and sizes of files, a boot loader of another form, or a stick that is too small.
pub fn lay_out(stick: &Stick<'_>) -> Result<Vec<Piece>, Error> {
    let volume = stick.volume()?;
    let mut pieces = Pieces::default();
    let sectors = |bytes: u64| u32::try_from(bytes / 512).unwrap_or(u32::MAX);
    let partition = Partition {
        active: true,
        kind: FAT32_TYPE,
        first: sectors(volume.start),
        sectors: sectors(volume.size_bytes),
    };
    let mut code = None;
    if let Some(bios) = stick.bios {
        bios.check()?;
        pieces.bytes(512, bios.disk_core(1));
        code = Some((bios, 1));
    }
    pieces.bytes(0, bios::first_sector(code, stick.serial, &[partition]));
    let used = fat::lay_out(&volume, stick.entries, &mut pieces)?;
    let mut all = pieces.finish(used);
    let at = volume.start + volume.size_bytes;
    all.push(Piece {
        at,
        len: stick.size_bytes - at,
        content: Content::Zeros,
    });
    Ok(all)
}

#[cfg(test)]
#[path = "stick_tests.rs"]
mod tests;
