//! Linux swap space: only its header page means anything.
//!
//! Owns: the header (`union swap_header` of the kernel's `swap.h`) and the marks
//! of a suspended system, whose memory image must not be lost. Does not own:
//! anything else that swap space may hold, which no system looks at again.

use super::{Fault, Map, Mapped, Volume, damaged};
use crate::bytes::{array, has, le32, text};
use crate::extents::{Extent, Extents};
use crate::guid;
use crate::view::{ReadFailure, View};

/// Page sizes of the machines that may have made it.
const PAGE_SIZES: [u64; 5] = [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10];
/// The mark takes the last bytes of the first page.
const MARK_BYTES: u64 = 10;
/// Marks of a system suspended to this space.
const SUSPENDED: &[&[u8]] = &[
    b"S1SUSPEND\0",
    b"S2SUSPEND\0",
    b"ULSUSPEND\0",
    b"LINHIB0001",
    b"\xed\xc3\x02\xe9\x98\x56\xe5\x0c",
];

/// What the mark says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Version1,
    Old,
    Suspended,
}

/// The header of a swap space.
struct Header {
    page: u64,
    mark: Mark,
    version: u32,
    last_page: u32,
    uuid: String,
    label: String,
}

/// Looks for the header of a swap space.
pub(super) fn look(view: &View<'_>) -> Result<Option<Volume>, ReadFailure> {
    Ok(Header::read(view)?.map(|header| Volume {
        name: "swap",
        label: header.label.clone(),
        uuid: header.uuid.clone(),
        size: header.size_bytes(),
        wraps: false,
        map: Box::new(header),
    }))
}

impl Header {
    /// Reads the header; `None` if there is no swap space.
    fn read(view: &View<'_>) -> Result<Option<Header>, ReadFailure> {
        for page in PAGE_SIZES {
            let bytes = view.bytes_up_to(page - MARK_BYTES, MARK_BYTES as usize)?;
            let mark = if bytes == b"SWAPSPACE2" {
                Mark::Version1
            } else if bytes == b"SWAP-SPACE" {
                Mark::Old
            } else if SUSPENDED.iter().any(|magic| has(&bytes, 0, magic)) {
                Mark::Suspended
            } else {
                continue;
            };
            let info = view.bytes(1024, 44)?;
            return Ok(Some(Header {
                page,
                mark,
                version: le32(&info, 0).unwrap_or(0),
                last_page: le32(&info, 4).unwrap_or(0),
                uuid: array(&info, 12)
                    .map(|raw| guid::plain(&raw))
                    .unwrap_or_default(),
                label: text(info.get(28..44).unwrap_or_default()),
            }));
        }
        Ok(None)
    }

    /// Size in bytes, as the header says.
    fn size_bytes(&self) -> u64 {
        match (self.mark, self.version) {
            (Mark::Version1, 1) => (u64::from(self.last_page) + 1) * self.page,
            _ => self.page,
        }
    }
}

impl Map for Header {
    fn used(&self, _: &View<'_>, _: u32) -> Result<Mapped, Fault> {
        Ok(Mapped {
            reason: Some(
                "swap: only its header is copied, the rest has no lasting content.".into(),
            ),
            ..Mapped::from(used(self)?)
        })
    }
}

/// Bytes to copy: the first page.
fn used(header: &Header) -> Result<Extents, Fault> {
    match header.mark {
        Mark::Suspended => Err(Fault::Suspended(
            "a system is suspended to this swap space".into(),
        )),
        Mark::Old => Err(Fault::Unsupported(
            "it is of the old kind without a version".into(),
        )),
        // The other byte order is another machine's; there may be more than we know.
        Mark::Version1 if header.version.swap_bytes() == 1 => Err(Fault::Unsupported(
            "it was made on a machine of the other byte order".into(),
        )),
        Mark::Version1 if header.version != 1 => {
            damaged(format!("the swap header has version {}", header.version))
        }
        Mark::Version1 if header.last_page == 0 => damaged("the swap header says it has no pages"),
        Mark::Version1 => Ok(Extents::from_iter([Extent {
            start: 0,
            len: header.page,
        }])),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Content, Findings, TroubleKind, probe};
    use crate::view::View;

    fn swap(page: usize, mark: &[u8]) -> Vec<u8> {
        let mut data = vec![0u8; 1 << 20];
        data[1024] = 1;
        data[1028..1032].copy_from_slice(&((1u32 << 20) / page as u32 - 1).to_le_bytes());
        data[1036..1052].fill(0xab);
        data[1052..1056].copy_from_slice(b"spare"[..4].as_ref());
        data[page - 10..page - 10 + mark.len()].copy_from_slice(mark);
        data
    }

    /// What the probe says of data that must be copied whole.
    fn full(data: &[u8]) -> (Findings, Vec<TroubleKind>) {
        let data = data.to_vec();
        let findings = probe(&View::new(&data, 0, data.len() as u64)).unwrap();
        assert!(matches!(findings.content, Content::Full { .. }));
        let troubles = findings.troubles.iter().map(|t| t.kind).collect();
        (findings, troubles)
    }

    #[test]
    fn only_the_header_page_at_every_page_size() {
        for page in [4096, 8192, 16384, 32768, 65536] {
            let data = swap(page, b"SWAPSPACE2");
            let findings = probe(&View::new(&data, 0, data.len() as u64)).unwrap();
            assert_eq!(findings.label, "spar");
            assert_eq!(findings.uuid, "abababab-abab-abab-abab-abababababab");
            let Content::Used { used, .. } = findings.content else {
                panic!("{page}")
            };
            assert_eq!((used.total(), used.end()), (page as u64, page as u64));
        }
    }

    #[test]
    fn a_suspended_system_is_copied_whole_and_told() {
        for mark in super::SUSPENDED {
            let (findings, troubles) = full(&swap(4096, mark));
            assert_eq!(findings.file_system, "swap");
            assert_eq!(troubles, [TroubleKind::Dirty]);
            assert!(findings.suspended);
        }
    }

    #[test]
    fn odd_headers_are_copied_whole() {
        let mut data = swap(4096, b"SWAPSPACE2");
        data[1024..1028].copy_from_slice(&[0, 0, 0, 1]);
        assert_eq!(full(&data).1, []);
        data[1024..1028].copy_from_slice(&[9, 0, 0, 0]);
        assert_eq!(full(&data).1, [TroubleKind::Damaged]);
        let mut data = swap(4096, b"SWAPSPACE2");
        data[1030] = 1;
        assert_eq!(full(&data).1, [TroubleKind::Damaged]);
        assert_eq!(full(&swap(4096, b"SWAP-SPACE")).1, []);
    }
}
