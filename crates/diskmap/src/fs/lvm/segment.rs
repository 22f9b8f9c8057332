//! The segments of a logical volume: which extents of a physical volume they occupy, and
//! in which order the bytes lie there.
//!
//! Owns: linear and striped segments, and the areas of mirrors (as a move of extents
//! leaves them). Any other type is made of logical volumes; one that names a physical
//! volume all the same is not understood. Does not own: whether a volume may be looked
//! into (`group`).

use super::config::{Section, Value};
use super::group::{Content, Place};
use crate::extents::Extent;
use crate::fs::{Fault, damaged};

/// Most parts of all striped volumes of a physical volume (16 bytes each).
const MAX_PARTS: usize = 1 << 18;

/// What is left of [`MAX_PARTS`].
pub(super) struct Budget(usize);

impl Budget {
    pub fn new() -> Budget {
        Budget(MAX_PARTS)
    }
}

/// The segments of a logical volume, put together.
pub(super) struct Segments {
    /// What they occupy of the physical volume, in bytes.
    pub occupied: Vec<Extent>,
    pub content: Content,
}

/// Reads all segments of a logical volume.
pub(super) fn read(
    volume: &Section<'_>,
    place: &Place<'_>,
    budget: &mut Budget,
) -> Result<Segments, Fault> {
    let mut segments: Vec<(u64, &Section<'_>)> = Vec::new();
    for (name, segment) in volume.sections() {
        match segment.number("start_extent") {
            Some(start) => segments.push((start, segment)),
            // Something else that is a section, unless it says that it is a segment.
            None if !name.starts_with(b"segment") => {}
            None => return damaged("a segment does not say where it starts"),
        }
    }
    if volume.number("segment_count") != Some(segments.len() as u64) {
        return damaged("a logical volume has another number of segments");
    }
    segments.sort_by_key(|(start, _)| *start);
    let mut found = Segments {
        occupied: Vec::new(),
        content: Content::Parts(Vec::new()),
    };
    let mut next = 0u64;
    for (start, segment) in segments {
        let count = segment.number("extent_count").filter(|&count| count > 0);
        let end = count.and_then(|count| start.checked_add(count));
        let (Some(count), Some(end), true) = (count, end, start == next) else {
            return damaged("the segments of a logical volume do not fit together");
        };
        next = end;
        add(&mut found, segment, count, place, budget)?;
    }
    Ok(found)
}

/// Adds one segment of `count` extents.
fn add(
    found: &mut Segments,
    segment: &Section<'_>,
    count: u64,
    place: &Place<'_>,
    budget: &mut Budget,
) -> Result<(), Fault> {
    let kind = segment.text("type").unwrap_or_default();
    let (list, number) = match kind {
        b"striped" => ("stripes", "stripe_count"),
        b"mirror" => ("mirrors", "mirror_count"),
        _ => ("", ""),
    };
    let others = segment
        .0
        .iter()
        .filter(|(key, _)| *key != list.as_bytes() && *key != b"type");
    if others
        .into_iter()
        .any(|(_, value)| names(value, place.name))
    {
        return Err(Fault::Unsupported(format!(
            "the logical volumes of type {} in its volume group are not understood",
            crate::bytes::text(kind)
        )));
    }
    if list.is_empty() {
        let kind = crate::bytes::text(kind);
        found.content = Content::Opaque(kind);
        return Ok(());
    }
    let areas = segment.list(list).and_then(pairs).unwrap_or_default();
    let expected = segment.number(number);
    if areas.is_empty() || expected != Some(areas.len() as u64) {
        return damaged("a segment has another number of areas");
    }
    // Every copy of a mirror has all extents.
    let stripes = if kind == b"striped" {
        areas.len() as u64
    } else {
        1
    };
    if !count.is_multiple_of(stripes) {
        return damaged("a segment does not fit into its stripes");
    }
    let len = count / stripes;
    let mut own = Vec::new();
    for (_, first) in areas.iter().filter(|(name, _)| *name == place.name) {
        let end = first.checked_add(len);
        if end.is_none_or(|end| end > place.count) {
            return damaged("a segment reaches beyond the physical volume");
        }
        own.push(Extent {
            start: place.start + first * place.extent,
            len: len * place.extent,
        });
    }
    found.occupied.extend_from_slice(&own);
    let Content::Parts(parts) = &mut found.content else {
        return Ok(());
    };
    if kind != b"striped" {
        found.content = Content::Opaque("mirror".into());
    } else if own.len() != areas.len() {
        found.content = Content::Opaque("not on this disk alone".into());
    } else if own.len() == 1 {
        parts.extend(own);
    } else if let Err(why) = interleave(parts, &own, segment.number("stripe_size"), budget) {
        found.content = Content::Opaque(why);
    }
    Ok(())
}

/// Takes a stripe from each area in turn. `Err` says why that cannot be done.
fn interleave(
    parts: &mut Vec<Extent>,
    areas: &[Extent],
    sectors: Option<u64>,
    budget: &mut Budget,
) -> Result<(), String> {
    let len = areas.first().map_or(0, |area| area.len);
    let stripe = sectors.and_then(|sectors| sectors.checked_mul(512));
    let Some(stripe) = stripe.filter(|&stripe| stripe > 0 && len.is_multiple_of(stripe)) else {
        return Err("stripes that do not fit".into());
    };
    let rows = len / stripe;
    let count = rows.saturating_mul(areas.len() as u64);
    match usize::try_from(count)
        .ok()
        .and_then(|count| budget.0.checked_sub(count))
    {
        Some(left) => budget.0 = left,
        None => return Err("too many stripes".into()),
    }
    for row in 0..rows {
        parts.extend(areas.iter().map(|area| Extent {
            start: area.start + row * stripe,
            len: stripe,
        }));
    }
    Ok(())
}

/// A list of names, each with an extent behind it.
fn pairs<'a>(items: &[Value<'a>]) -> Option<Vec<(&'a [u8], u64)>> {
    let pair = |pair: &[Value<'a>]| match pair {
        [Value::Text(name), Value::Number(first)] => Some((*name, u64::try_from(*first).ok()?)),
        _ => None,
    };
    items.chunks(2).map(pair).collect()
}

/// Whether a value has that string anywhere.
fn names(value: &Value<'_>, name: &[u8]) -> bool {
    match value {
        Value::Text(text) => *text == name,
        Value::List(items) => items.iter().any(|item| names(item, name)),
        Value::Section(section) => section.0.iter().any(|(_, value)| names(value, name)),
        Value::Number(_) | Value::Other => false,
    }
}
