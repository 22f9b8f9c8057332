//! Index and footer: where the pages of a container stand, for opening it at random.
//!
//! Owns: their stored form. Does not own: reading pages at those places.
//!
//! Index section: count of pages (u64), then for each page the byte offsets of its map
//! section and its list section (u64 each).
//!
//! Footer, the last 32 bytes of a container: `DEPLOYEN`, offset of the index section
//! (u64), length of the whole container (u64), reserved (u32, zero), CRC-32 of the 28
//! bytes before.

use crate::Error;
use crate::cells::Cursor;

/// Length of the footer.
pub const FOOTER_LEN: usize = 32;
const MAGIC: &[u8; 8] = b"DEPLOYEN";

/// Where one page stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PagePlace {
    /// Offset of the map section; the page's records follow it.
    pub map: u64,
    /// Offset of the list section.
    pub list: u64,
}

/// Body of the index section.
pub fn encode(pages: &[PagePlace]) -> Vec<u8> {
    let mut body = (pages.len() as u64).to_le_bytes().to_vec();
    for page in pages {
        body.extend_from_slice(&page.map.to_le_bytes());
        body.extend_from_slice(&page.list.to_le_bytes());
    }
    body
}

/// Decodes the body of the index section, which stands at `offset`.
pub fn decode(body: &[u8], offset: u64) -> Result<Vec<PagePlace>, Error> {
    let mut cursor = Cursor::new(body, offset);
    let count = cursor.u64()?;
    if count != (cursor.left() / 16) as u64 || !cursor.left().is_multiple_of(16) {
        return Err(cursor.damaged("the index has the wrong length"));
    }
    let mut pages = Vec::with_capacity(cursor.left() / 16);
    let mut last = 0;
    while cursor.left() > 0 {
        let page = PagePlace {
            map: cursor.u64()?,
            list: cursor.u64()?,
        };
        if page.map <= last || page.list <= page.map || page.list >= offset {
            return Err(cursor.damaged("the index is not ascending"));
        }
        last = page.list;
        pages.push(page);
    }
    Ok(pages)
}

/// The footer of a container of `length` bytes whose index section stands at `index`.
pub fn encode_footer(index: u64, length: u64) -> [u8; FOOTER_LEN] {
    let mut footer = [0; FOOTER_LEN];
    footer[..8].copy_from_slice(MAGIC);
    footer[8..16].copy_from_slice(&index.to_le_bytes());
    footer[16..24].copy_from_slice(&length.to_le_bytes());
    let crc = crc32fast::hash(&footer[..28]);
    footer[28..].copy_from_slice(&crc.to_le_bytes());
    footer
}

/// Checks a footer and returns the offset of the index section and the container's length.
pub fn decode_footer(footer: &[u8; FOOTER_LEN], offset: u64) -> Result<(u64, u64), Error> {
    let crc = crc32fast::hash(&footer[..28]).to_le_bytes();
    if footer[..8] != *MAGIC || footer[28..] != crc || footer[24..28] != [0; 4] {
        return Err(Error::damaged("the footer is damaged", offset));
    }
    let mut cursor = Cursor::new(&footer[8..24], offset);
    Ok((cursor.u64()?, cursor.u64()?))
}
