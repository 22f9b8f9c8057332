//! SCSI vital product data: page 0x80 (serial number) and 0x83 (identification).
//!
//! Owns: reading the two pages, total on any bytes (SPC-5, 7.7). Does not own:
//! fetching them.

use crate::text::{clean, hex};

/// Largest page looked at.
const MAX_PAGE: usize = 4096;

/// The unit serial number of page 0x80; empty if the page is not one.
pub(crate) fn unit_serial(page: &[u8]) -> String {
    clean(body(page, 0x80).unwrap_or_default())
}

/// The best name of the logical unit in page 0x83, as `naa.`, `eui.`, `uuid.` or
/// `t10.` and its value; empty if there is none.
pub(crate) fn world_wide_name(page: &[u8]) -> String {
    designators(body(page, 0x83).unwrap_or_default())
        .filter_map(name_of)
        .min_by_key(|(rank, _)| *rank)
        .map(|(_, name)| name)
        .unwrap_or_default()
}

/// One designation descriptor.
struct Designator<'a> {
    code_set: u8,
    kind: u8,
    data: &'a [u8],
}

fn body(page: &[u8], code: u8) -> Option<&[u8]> {
    let page = page.get(..page.len().min(MAX_PAGE))?;
    if *page.get(1)? != code {
        return None;
    }
    let len = usize::from(u16::from_be_bytes([*page.get(2)?, *page.get(3)?]));
    let rest = page.get(4..)?;
    Some(rest.get(..len).unwrap_or(rest))
}

/// The descriptors that name the logical unit itself, not its port or target.
fn designators(mut rest: &[u8]) -> impl Iterator<Item = Designator<'_>> {
    std::iter::from_fn(move || {
        let (&[first, second, _, len], after) = rest.split_first_chunk::<4>()?;
        let data = after.get(..usize::from(len))?;
        rest = after.get(usize::from(len)..)?;
        Some((
            second,
            Designator {
                code_set: first & 0x0f,
                kind: second & 0x0f,
                data,
            },
        ))
    })
    .filter_map(|(second, designator)| (second & 0x30 == 0).then_some(designator))
}

/// Rank (lower is better) and text of a designator.
fn name_of(designator: Designator<'_>) -> Option<(u8, String)> {
    let data = designator.data;
    match (designator.kind, designator.code_set) {
        (3, 1) if matches!(data.len(), 8 | 16) => Some((0, format!("naa.{}", hex(data)))),
        (2, 1) if matches!(data.len(), 8 | 12 | 16) => Some((1, format!("eui.{}", hex(data)))),
        (10, 1) => Some((2, format!("uuid.{}", hex(data.get(2..18)?)))),
        (8, 3) => {
            let name = clean(data);
            let known = ["naa.", "eui.", "uuid."]
                .iter()
                .any(|prefix| name.starts_with(prefix));
            known.then_some((3, name.to_ascii_lowercase()))
        }
        (1, 2 | 3) => {
            let name = clean(data);
            (!name.is_empty()).then(|| (4, format!("t10.{name}")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{unit_serial, world_wide_name};

    fn page(code: u8, body: &[u8]) -> Vec<u8> {
        let mut page = vec![0, code, 0, u8::try_from(body.len()).unwrap()];
        page.extend_from_slice(body);
        page
    }

    #[test]
    fn serial_number() {
        assert_eq!(unit_serial(&page(0x80, b"  S3Z8NB0K \0")), "S3Z8NB0K");
        assert_eq!(unit_serial(&page(0x83, b"S3Z8NB0K")), "", "another page");
        assert_eq!(
            unit_serial(&[0, 0x80, 0xff, 0xff, b'A']),
            "A",
            "a length past the page"
        );
        assert_eq!(unit_serial(&[0, 0x80, 0]), "");
    }

    #[test]
    fn names_in_order_of_trust() {
        let t10: &[u8] = &[0x02, 0x01, 0, 4, b'A', b'T', b'A', b' '];
        let naa: &[u8] = &[0x01, 0x03, 0, 8, 0x50, 0, 0xc5, 0, 1, 2, 3, 4];
        let port: &[u8] = &[0x01, 0x13, 0, 8, 9, 9, 9, 9, 9, 9, 9, 9];
        let eui: &[u8] = &[0x01, 0x02, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(
            world_wide_name(&page(0x83, &[port, t10, naa].concat())),
            "naa.5000c50001020304"
        );
        assert_eq!(
            world_wide_name(&page(0x83, &[t10, eui].concat())),
            "eui.0102030405060708"
        );
        assert_eq!(world_wide_name(&page(0x83, t10)), "t10.ATA");
        assert_eq!(
            world_wide_name(&page(0x83, port)),
            "",
            "a port is not the disk"
        );
    }

    #[test]
    fn any_bytes_are_survived() {
        // Every prefix of a valid page, and every value of every byte in it.
        let full = page(
            0x83,
            &[
                2, 1, 0, 3, b'x', b'y', b'z', 1, 10, 0, 18, 0x10, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1,
                2, 3, 4, 5, 6, 7,
            ],
        );
        for end in 0..=full.len() {
            world_wide_name(&full[..end]);
            for at in 0..end {
                for value in [0, 1, 0x7f, 0x80, 0xff] {
                    let mut bent = full[..end].to_vec();
                    bent[at] = value;
                    world_wide_name(&bent);
                    unit_serial(&bent);
                }
            }
        }
        assert_eq!(
            world_wide_name(&full),
            "uuid.01020304050607080901020304050607"
        );
    }
}
