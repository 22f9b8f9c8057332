//! The file $LogFile: was the volume closed?
//!
//! Owns: its restart pages. Does not own: its records; a log that must be replayed
//! forbids a map.
//!
//! Two restart pages stand at the start of the log. They tell which clients have the log
//! open (NTFS is the only one) and, since Windows XP, whether the volume was closed with
//! the log left open, which is the usual way. Windows 8 and later write version 2.0 while
//! the volume is mounted and go back to 1.1 when they close it.

use super::super::Fault;
use super::mft::Mft;
use super::record::{DATA, unprotect};
use crate::bytes::{has, le16, le32, le64};
use crate::view::{ReadFailure, View};

/// Number of its record.
const RECORD: u64 = 2;

/// Pages of the log, in bytes.
const PAGE_SIZES: std::ops::RangeInclusive<u64> = 512..=(64 << 10);

/// So much is looked at to call a log empty: two pages of the largest size.
const HEAD: u64 = 128 << 10;

/// No client has the log open.
const NO_CLIENT: u16 = 0xffff;

/// The volume was closed.
const CLEAN: u16 = 0x0002;

/// Why the log forbids a map; `None` if the volume was closed.
pub(super) fn unclean(mft: &Mft<'_, '_>) -> Result<Option<String>, Fault> {
    let record = mft.system(RECORD)?;
    let Some(value) = mft.value(&record, DATA, "")? else {
        return super::super::damaged("its log has no place");
    };
    let (space, value) = mft.open_value(value, "log")?;
    let size = value.size.min(value.valid);
    Ok(closed(&space, size)?.err())
}

/// Whether the log of `size` bytes belongs to a closed volume; else why not.
fn closed(log: &View<'_>, size: u64) -> Result<Result<(), String>, ReadFailure> {
    let head = log.bytes_up_to(0, size.min(HEAD) as usize)?;
    if !head.is_empty() && head.iter().all(|&byte| byte == 0xff) {
        // Tools that close a volume fill its log.
        return Ok(Ok(()));
    }
    if !has(&head, 0, b"RSTR") {
        return Ok(Err("its log does not say that the volume was closed".into()));
    }
    let page = u64::from(le32(&head, 16).unwrap_or(0));
    if !page.is_power_of_two() || !PAGE_SIZES.contains(&page) || 2 * page > size {
        return Ok(Err(format!("its log has pages of {page} bytes")));
    }
    let mut restarts = Vec::new();
    for number in 0..2 {
        match Restart::decode(log.bytes(number * page, page as usize)?) {
            Ok(restart) => restarts.push(restart),
            // It may have been the newer one.
            Err(what) => {
                return Ok(Err(format!("restart page {number} of its log {what}")));
            }
        }
    }
    // The newest counts; of two that are as new, both do.
    let newest = restarts.iter().map(|r| r.sequence).max();
    let mut counting = restarts.iter().filter(|r| Some(r.sequence) == newest);
    Ok(counting.try_for_each(Restart::closed))
}

/// A restart page.
struct Restart {
    sequence: u64,
    version: (u16, u16),
    client: u16,
    flags: u16,
}

impl Restart {
    fn decode(mut page: Vec<u8>) -> Result<Restart, String> {
        unprotect(&mut page, b"RSTR")?;
        let fields = || {
            let area = usize::from(le16(&page, 24)?);
            Some(Restart {
                sequence: le64(&page, area)?,
                version: (le16(&page, 28)?, le16(&page, 26)?),
                client: le16(&page, area + 12)?,
                flags: le16(&page, area + 14)?,
            })
        };
        fields().ok_or_else(|| "is cut off".to_string())
    }

    fn closed(&self) -> Result<(), String> {
        if self.version != (1, 0) && self.version != (1, 1) {
            return Err(format!(
                "its log has version {}.{}, as on a volume that is in use",
                self.version.0, self.version.1
            ));
        }
        if self.client != NO_CLIENT && self.flags & CLEAN == 0 {
            return Err("its log says that the volume was not closed".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::closed;
    use crate::bytes::put;
    use crate::view::View;

    /// A log whose two pages have these sequence numbers, versions, clients and flags.
    fn log(pages: [(u64, (u16, u16), u16, u16); 2]) -> Vec<u8> {
        let mut log = vec![0xffu8; 1 << 20];
        for (i, (sequence, (major, minor), client, flags)) in pages.into_iter().enumerate() {
            let page = &mut log[i * 4096..(i + 1) * 4096];
            page.fill(0);
            put(page, 0, b"RSTR");
            put(page, 4, &30u16.to_le_bytes());
            put(page, 6, &9u16.to_le_bytes());
            put(page, 16, &4096u32.to_le_bytes());
            put(page, 24, &48u16.to_le_bytes());
            put(page, 26, &minor.to_le_bytes());
            put(page, 28, &major.to_le_bytes());
            put(page, 48, &sequence.to_le_bytes());
            put(page, 60, &client.to_le_bytes());
            put(page, 62, &flags.to_le_bytes());
            put(page, 30, &7u16.to_le_bytes());
            for stride in 1..=8 {
                put(page, stride * 512 - 2, &7u16.to_le_bytes());
            }
        }
        log
    }

    fn state(log: &[u8]) -> Result<(), String> {
        let log = log.to_vec();
        let view = View::new(&log, 0, log.len() as u64);
        closed(&view, view.size()).unwrap()
    }

    const OPEN: (u64, (u16, u16), u16, u16) = (5, (1, 1), 0, 0);
    const CLOSED: (u64, (u16, u16), u16, u16) = (9, (1, 1), 0, 2);
    const NO_CLIENT: (u64, (u16, u16), u16, u16) = (9, (1, 1), 0xffff, 0);

    #[test]
    fn closed_and_empty_logs() {
        assert_eq!(state(&vec![0xff; 1 << 20]), Ok(()));
        assert_eq!(state(&log([CLOSED, CLOSED])), Ok(()));
        assert_eq!(state(&log([NO_CLIENT, NO_CLIENT])), Ok(()));
        assert_eq!(state(&log([OPEN, CLOSED])), Ok(()), "the newer one counts");
        assert_eq!(state(&log([CLOSED, OPEN])), Ok(()));
    }

    #[test]
    fn open_and_odd_logs() {
        let later = (10, (1, 1), 0, 0);
        let same = (9, (1, 1), 0, 0);
        let says = |log: &[u8], words: &str| {
            let error = state(log).unwrap_err();
            assert!(error.contains(words), "{error}");
        };
        says(&log([OPEN, OPEN]), "not closed");
        says(&log([CLOSED, later]), "not closed");
        says(&log([later, CLOSED]), "not closed");
        says(&log([CLOSED, same]), "not closed");
        says(&log([(9, (2, 0), 0, 2); 2]), "version 2.0");
        let mut torn = log([CLOSED, CLOSED]);
        torn[4096 + 1022] = 0;
        says(&torn, "page 1 of its log was not written whole");
        let mut one = log([CLOSED, CLOSED]);
        one[4096..8192].fill(0xff);
        says(&one, "page 1 of its log begins with");
        let mut odd = log([CLOSED, CLOSED]);
        odd[17] = 0x11;
        says(&odd, "pages of");
        odd[..4096].fill(0xff);
        says(&odd, "does not say");
        says(&vec![0; 1 << 20], "does not say");
        says(&[], "does not say");
    }
}
