//! Whether a superblock allows a map.
//!
//! Owns: what its features, checksum and state mean, on the disk and in the journal.
//! Does not own: its fields (`superblock`).

use super::super::{Fault, damaged};
use super::Superblock;
use super::features::{compat, incompat, ro_compat};
use crate::bytes::{le16, le32};
use crate::checksum::crc32c;

/// What has to happen before the bitmaps are the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing.
    Clean,
    /// Nothing; deleted files wait for clean-up, and their blocks are still in use.
    Orphans,
    /// The journal is to be replayed.
    Replay,
}

impl Superblock {
    /// Whether a map can be made: known features, right checksum, sane sizes, and a
    /// state from which the truth can be had.
    pub fn check(&self) -> Result<State, Fault> {
        if self.incompat & incompat::JOURNAL_DEV != 0 {
            return Err(Fault::Unsupported(
                "it is the journal of another file system".into(),
            ));
        }
        let odd = [
            self.compat & !compat::KNOWN,
            self.incompat & !incompat::KNOWN,
            self.ro_compat & !ro_compat::KNOWN,
        ];
        if odd != [0; 3] {
            let [odd, incompat_odd, ro_odd] = odd;
            return Err(Fault::Dirty(format!(
                "it uses unknown features ({odd:#x}, {incompat_odd:#x}, {ro_odd:#x}), so that its map cannot be trusted"
            )));
        }
        if self.metadata_checksums() {
            if self.raw.get(0x175) != Some(&1) {
                return damaged("its checksums are of an unknown kind");
            }
            if le32(&self.raw, 0x3fc) != Some(crc32c(!0, &self.raw[..0x3fc])) {
                return damaged("wrong checksum of the superblock");
            }
        }
        let state = self.state()?;
        self.check_sizes()?;
        Ok(state)
    }

    fn state(&self) -> Result<State, Fault> {
        let recover = self.incompat & incompat::RECOVER != 0;
        let dirty = |why: &str| Err(Fault::Dirty(why.into()));
        match le16(&self.raw, 0x3a).unwrap_or(0) {
            1 if recover && self.has_journal() => Ok(State::Replay),
            1 if recover => damaged("it needs recovery and has no journal"),
            1 if self.has_orphans() => Ok(State::Orphans),
            1 => Ok(State::Clean),
            state if state & 2 != 0 => dirty("it recorded errors that were not repaired"),
            // Without a journal, blocks that files refer to may be marked as free.
            state if state & 1 == 0 => dirty("it was not cleanly unmounted"),
            _ => dirty("its last repair or clean-up did not come to its end"),
        }
    }

    fn has_orphans(&self) -> bool {
        le32(&self.raw, 0xe8) != Some(0) || self.ro_compat & ro_compat::ORPHAN_PRESENT != 0
    }

    /// Refuses a journaled copy of the superblock (its 1024 bytes) under which a map
    /// would be made in another way, as after growing. The fields that a running system
    /// changes all the time are not looked at.
    pub fn check_copy(&self, raw: &[u8]) -> Result<(), Fault> {
        let same = |range: std::ops::Range<usize>| raw.get(range.clone()) == self.raw.get(range);
        let bits = |at: usize, mask: u32| {
            le32(raw, at).map(|bits| bits & mask) == le32(&self.raw, at).map(|bits| bits & mask)
        };
        let known = |at, known: u32| le32(raw, at).is_some_and(|bits| bits & !known == 0);
        let features = bits(0x5c, compat::LAYOUT)
            && bits(0x60, incompat::LAYOUT)
            && bits(0x64, ro_compat::LAYOUT)
            && known(0x5c, compat::KNOWN)
            && known(0x60, incompat::KNOWN)
            && known(0x64, ro_compat::KNOWN);
        // Inodes and blocks; first block to inodes in a group; magic; revision; inode
        // size; UUID; reserved descriptor blocks; journal; descriptor size; first meta_bg;
        // block count, upper half; backup groups; checksum seed.
        let places = [
            0x00..0x08,
            0x14..0x2c,
            0x38..0x3a,
            0x4c..0x50,
            0x58..0x5a,
            0x68..0x78,
            0xce..0xd0,
            0xe0..0xe8,
            0xfe..0x100,
            0x104..0x108,
            0x150..0x154,
            0x24c..0x254,
            0x270..0x274,
        ];
        if !features || !places.into_iter().all(same) {
            return Err(Fault::Dirty(
                "its journal holds a superblock of another layout (it was being changed)".into(),
            ));
        }
        if le16(raw, 0x3a) != Some(1) {
            return Err(Fault::Dirty("its journal recorded errors".into()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::superblock::tests::{raw, superblock};
    use super::{Fault, State, Superblock};
    use crate::checksum::crc32c;

    #[test]
    fn a_wrong_checksum_an_unknown_feature_and_a_dirty_state() {
        assert!(superblock(0, 0, 1).check().is_ok());
        let mut bytes = raw(0, 0, 0x401);
        bytes[0x175] = 1;
        assert!(matches!(
            Superblock::decode(bytes.clone()).unwrap().check(),
            Err(Fault::Damaged(_))
        ));
        let crc = crc32c(!0, &bytes[..0x3fc]);
        bytes[0x3fc..].copy_from_slice(&crc.to_le_bytes());
        assert!(Superblock::decode(bytes).unwrap().check().is_ok());
        for (compat, incompat, ro_compat) in
            [(1 << 30, 0, 1), (0, 1 << 30, 1), (0, 0, 1 << 30), (0, 1, 1)]
        {
            let verdict = superblock(compat, incompat, ro_compat).check();
            assert!(
                matches!(verdict, Err(Fault::Dirty(_))),
                "{compat:#x} {incompat:#x} {ro_compat:#x}"
            );
        }
        assert!(matches!(
            superblock(0, 8, 1).check(),
            Err(Fault::Unsupported(_))
        ));
    }

    #[test]
    fn states() {
        let state = |compat, incompat, ro_compat, at: usize, value: u8| {
            let mut bytes = raw(compat, incompat, ro_compat);
            bytes[at] = value;
            Superblock::decode(bytes).unwrap().check()
        };
        assert!(matches!(state(0, 0, 1, 0x3a, 1), Ok(State::Clean)));
        assert!(matches!(state(0, 0, 1, 0xe8, 12), Ok(State::Orphans)));
        assert!(matches!(state(0, 0, 0x1_0001, 0, 0xc0), Ok(State::Orphans)));
        assert!(matches!(state(4, 4, 1, 0xe8, 12), Ok(State::Replay)));
        assert!(matches!(state(0, 4, 1, 0x3a, 1), Err(Fault::Damaged(_))));
        for value in [0, 2, 3, 5, 0x21] {
            assert!(matches!(state(4, 4, 1, 0x3a, value), Err(Fault::Dirty(_))));
            assert!(matches!(state(0, 0, 1, 0x3a, value), Err(Fault::Dirty(_))));
        }
    }

    #[test]
    fn journaled_copies_may_differ_in_what_does_not_matter() {
        let own = superblock(4, 4, 1);
        let with = |at: usize, value: u8| {
            let mut bytes = raw(4, 4, 1);
            bytes[at] = value;
            own.check_copy(&bytes)
        };
        // Mount time, free blocks, no need for recovery, large files, a label, orphans.
        for (at, value) in [
            (0x2c, 9),
            (0x0c, 9),
            (0x60, 0),
            (0x64, 3),
            (0x78, 65),
            (0xe8, 12),
        ] {
            assert!(with(at, value).is_ok(), "{at:#x}");
        }
        for (at, value) in [
            (0x04, 9),
            (0x150, 1),
            (0x68, 1),
            (0x3a, 3),
            (0x60, 0x14),
            (0x5c, 0),
            (0x67, 0x80),
            (0xce, 9),
        ] {
            assert!(matches!(with(at, value), Err(Fault::Dirty(_))), "{at:#x}");
        }
        assert!(own.check_copy(&[]).is_err());
    }
}
