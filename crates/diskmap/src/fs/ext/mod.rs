//! ext2, ext3 and ext4: used blocks from the block bitmaps.
//!
//! Owns: whether a map can be made, and what else is to be told. Does not own:
//! directories and files.
//!
//! A map is made only from a file system whose features are all known, and whose
//! checksums, counters and metadata places agree once its journal is replayed. Metadata
//! is copied whatever the bitmaps say.
//!
//! Inode tables that were never initialised are left out where that is safe: the
//! group's descriptor is checksummed, says how many inodes at the table's end were
//! never used, and lacks INODE_ZEROED. The last means that nobody has cleared that
//! part yet: it holds whatever was on the disk before the file system was made,
//! every reader skips it, and the kernel clears it some time after mounting. Where
//! INODE_ZEROED is set the blocks are known to be zero, the repair tools may rely
//! on it, and they are copied like any others.
//!
//! A journal that is to be replayed holds later versions of bitmaps and descriptors. A
//! replay takes some number of whole transactions from the oldest on, and what it finds
//! on the disk may already be as new as the last of them. So whatever a bitmap is after
//! a replay, it is one of: the version on the disk, a version in the journal. The map is
//! the union of all of these, with the journal and every block that it writes to. The
//! versions that a complete replay ends with have to pass all checks of a clean file
//! system, so that a damaged one is not taken for an unclean one.

mod bitmaps;
mod features;
mod group;
mod inode;
mod journal;
mod later;
mod layout;
mod log;
mod replay;
mod sums;
mod superblock;
mod verdict;

use super::{Fault, Map, Mapped, Trouble, TroubleKind, Volume, damaged};
use crate::bytes::le32;
use crate::checksum::crc32c;
use crate::view::{ReadFailure, View};
pub use later::ExtJournal;
use replay::Replay;
pub use sums::{ExtChecksums, ExtInodeChecksums, WrongSum};
use superblock::Superblock;
use verdict::State;

/// Looks for a superblock.
pub(super) fn look(view: &View<'_>) -> Result<Option<Volume>, ReadFailure> {
    Ok(Superblock::read(view)?.map(|sb| Volume {
        name: sb.flavour(),
        label: sb.label.clone(),
        uuid: sb.uuid_text(),
        size: sb.size_bytes(),
        wraps: false,
        map: Box::new(sb),
    }))
}

impl Map for Superblock {
    fn used(&self, view: &View<'_>, _: u32) -> Result<Mapped, Fault> {
        let state = self.check()?;
        check_multi_mount(view, self)?;
        let replay = match journal::open(view, self, state)? {
            Some(journal) => Replay::read(view, self, journal)?,
            None => Replay::default(),
        };
        let mut mapped = Mapped::from(bitmaps::used(view, self, &replay)?);
        tell(self, state, &mut mapped);
        Ok(mapped)
    }
}

/// Says what was found and what was done about it.
fn tell(sb: &Superblock, state: State, mapped: &mut Mapped) {
    let detail = match state {
        State::Clean => return,
        State::Orphans => "it has deleted files that wait for clean-up; what they take is copied",
        State::Replay => {
            mapped.reason = Some(format!(
                "{}: the space in use before or after any part of its journal is replayed, \
                 and the journal.",
                sb.flavour()
            ));
            "it was not cleanly unmounted and its journal is to be replayed; its journal and \
             all that is in use before or after that are copied"
        }
    };
    mapped.troubles.push(Trouble {
        kind: TroubleKind::Dirty,
        detail: detail.into(),
    });
}

/// With multi-mount protection the file system may be in use on another machine.
fn check_multi_mount(view: &View<'_>, sb: &Superblock) -> Result<(), Fault> {
    const MAGIC: u32 = 0x004d_4d50;
    const CLEAN: u32 = 0xff4d_4d50;
    let Some(block) = sb.multi_mount_block() else {
        return Ok(());
    };
    if block == 0 || block >= sb.blocks {
        return damaged(format!("its multi-mount block {block} is outside"));
    }
    let info = view.bytes(block * sb.block_size, 1024)?;
    if le32(&info, 0) != Some(MAGIC) {
        return damaged("its multi-mount block is not one");
    }
    if sb.metadata_checksums() && le32(&info, 1020) != Some(crc32c(sb.seed, &info[..1020])) {
        return damaged("wrong checksum of its multi-mount block");
    }
    if le32(&info, 4) != Some(CLEAN) {
        return Err(Fault::Dirty("it is marked as in use".into()));
    }
    Ok(())
}
