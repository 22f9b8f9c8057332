//! Two images of a disk, compared by what they list: layouts and names of chunks.
//!
//! Owns: which parts belong together, and what differs in each. Does not own: what is said
//! of it (`crate::cli`). No record is read: equal names are equal bytes.

use crate::files::Alike;
use crate::report;
use image::layout::Region;
use image::open::{OpenImage, ReadAt};
use image::{Hash, Layout};
use std::collections::HashMap;
use wire::{Code, DiskState, Report};

/// One part of the disk in both images.
pub struct Part<'a> {
    /// In the first image.
    pub before: Option<&'a Region>,
    /// In the second image.
    pub after: Option<&'a Region>,
    /// What the layouts say differently of it: `start`, `size`, `type`, `name`, `guid`,
    /// `file-system`, `label`, `uuid`.
    pub fields: Vec<&'static str>,
    /// What its content is.
    pub content: Content,
    /// Its position in the layouts of both images, if both hold it.
    pub places: Option<(usize, usize)>,
}

/// How contents compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// The same used bytes.
    Same,
    /// They differ.
    Differs {
        /// Used bytes of the cells whose content or used map is not the same: where they
        /// differ at all, whole cells count.
        bytes: u64,
        /// How many such cells.
        cells: u64,
    },
    /// One of the images does not hold it.
    NotHeld,
    /// It is in one layout only.
    OneOnly,
}

impl Part<'_> {
    /// Whether there is any difference.
    pub fn differs(&self) -> bool {
        !self.fields.is_empty()
            || matches!(self.content, Content::Differs { .. } | Content::OneOnly)
    }
}

/// What differs.
pub struct Difference<'a> {
    /// What the layouts say differently of the disk: `size`, `sector-size`, `table`.
    pub disk: Vec<&'static str>,
    /// All parts, in the order of the disk.
    pub parts: Vec<Part<'a>>,
}

impl Difference<'_> {
    /// Whether there is any difference.
    pub fn any(&self) -> bool {
        !self.disk.is_empty() || self.parts.iter().any(Part::differs)
    }

    /// Whether something could not be compared.
    pub fn is_partial(&self) -> bool {
        self.parts
            .iter()
            .any(|part| part.content == Content::NotHeld)
    }
}

/// What stands for a part in both images: partitions by number, gaps by their start.
type Key<'a> = (&'a str, u64);

fn key(region: &Region) -> Key<'_> {
    let place = match (region.kind.as_str(), region.number) {
        ("partition", Some(number)) => u64::from(number),
        ("whole", _) => 0,
        _ => region.start,
    };
    (&region.kind, place)
}

/// Compares two images.
///
/// # Errors
/// If one cannot be read, or they are cut on different grids or have different keys: then
/// equal bytes have different names.
pub fn compare<'a, S: ReadAt>(
    before: &'a OpenImage<S>,
    after: &'a OpenImage<S>,
) -> Result<Difference<'a>, Report> {
    let (a, b) = (before.layout(), after.layout());
    if a.cell_size != b.cell_size {
        let found = format!(
            "the images are cut on grids of {} and {} bytes: equal bytes have other names",
            a.cell_size, b.cell_size
        );
        return Err(Report::new(Code::Usage, found, DiskState::NotInvolved)
            .with_advice("Export both and compare the disks."));
    }
    let key = |layout: &'a Layout| layout.encryption.as_ref().map(|how| &how.key_id);
    if key(a) != key(b) {
        let found = "the images are not encrypted with one key: equal bytes have other names";
        return Err(Report::new(Code::Usage, found, DiskState::NotInvolved)
            .with_advice("Export both and compare the disks."));
    }
    let pairs = pairs(a, b);
    let counted = cells(before, after, &pairs)?;
    let parts = pairs
        .into_iter()
        .enumerate()
        .map(|(number, (x, y))| {
            let places = x.zip(y);
            let (x, y) = (x.map(|n| &a.regions[n]), y.map(|n| &b.regions[n]));
            let content = match (x, y) {
                (Some(x), Some(y)) if x.is_absent() || y.is_absent() => Content::NotHeld,
                (Some(_), Some(_)) => match counted[number] {
                    (_, 0) => Content::Same,
                    (bytes, cells) => Content::Differs { bytes, cells },
                },
                _ => Content::OneOnly,
            };
            let fields = match (x, y) {
                (Some(x), Some(y)) => fields(x, y),
                _ => Vec::new(),
            };
            let places =
                places.filter(|_| matches!(content, Content::Same | Content::Differs { .. }));
            Part {
                before: x,
                after: y,
                fields,
                content,
                places,
            }
        })
        .collect();
    let disk = [
        ("size", a.disk.size_bytes != b.disk.size_bytes),
        ("sector-size", a.disk.sector_size != b.disk.sector_size),
        ("table", a.table != b.table),
    ];
    Ok(Difference {
        disk: named(&disk),
        parts,
    })
}

fn named(all: &[(&'static str, bool)]) -> Vec<&'static str> {
    all.iter()
        .filter(|(_, differs)| *differs)
        .map(|(name, _)| *name)
        .collect()
}

fn fields(x: &Region, y: &Region) -> Vec<&'static str> {
    named(&[
        ("start", x.start != y.start),
        ("size", x.size != y.size),
        ("type", x.part_type != y.part_type),
        ("name", x.name != y.name),
        ("guid", x.guid != y.guid),
        ("file-system", x.file_system != y.file_system),
        ("label", x.label != y.label),
        ("uuid", x.uuid != y.uuid),
    ])
}

/// Positions of the regions that belong together, in the order of the second disk, then
/// those that are in the first one only.
fn pairs(a: &Layout, b: &Layout) -> Vec<(Option<usize>, Option<usize>)> {
    let mut left: HashMap<Key<'_>, usize> = HashMap::new();
    for (position, region) in a.regions.iter().enumerate() {
        left.entry(key(region)).or_insert(position);
    }
    let mut pairs: Vec<_> = b
        .regions
        .iter()
        .enumerate()
        .map(|(position, region)| (left.remove(&key(region)), Some(position)))
        .collect();
    let paired: std::collections::HashSet<usize> = pairs.iter().filter_map(|pair| pair.0).collect();
    let lone = (0..a.regions.len()).filter(|position| !paired.contains(position));
    pairs.extend(lone.map(|position| (Some(position), None)));
    pairs
}

/// A cell as it is compared: its number, its chunk's name, its used map's extents.
type Cell = (u64, Hash, Vec<(u32, u32)>);

fn side<S: ReadAt>(
    image: &OpenImage<S>,
    region: usize,
) -> impl Iterator<Item = Result<Cell, Report>> + '_ {
    image.cells(region).map(|cell| {
        let (map, chunk) = cell.map_err(|e| report::image(&e, DiskState::NotInvolved))?;
        Ok((map.cell, chunk.name, map.used.extents().to_vec()))
    })
}

/// Used bytes and number of the cells that differ, for each pair. Cells of regions come in
/// the order of the regions in each image, which need not be the same: each image is read
/// region by region.
fn cells<S: ReadAt>(
    before: &OpenImage<S>,
    after: &OpenImage<S>,
    pairs: &[(Option<usize>, Option<usize>)],
) -> Result<Vec<(u64, u64)>, Report> {
    let mut counted = vec![(0, 0); pairs.len()];
    for (counts, pair) in counted.iter_mut().zip(pairs) {
        let (Some(x), Some(y)) = pair else { continue };
        let absent = |image: &OpenImage<S>, n: usize| image.layout().regions[n].is_absent();
        if absent(before, *x) || absent(after, *y) {
            continue;
        }
        beside(before, after, (*x, *y), |here, there| {
            if here != there {
                let len = |cell: &Option<Cell>| {
                    let extents = cell.iter().flat_map(|cell| &cell.2);
                    extents.map(|extent| u64::from(extent.1)).sum::<u64>()
                };
                counts.0 += len(here).max(len(there));
                counts.1 += 1;
            }
        })?;
    }
    Ok(counted)
}

/// Tells the cells of two regions side by side, each cell number once.
fn beside<S: ReadAt>(
    before: &OpenImage<S>,
    after: &OpenImage<S>,
    (x, y): (usize, usize),
    mut tell: impl FnMut(&Option<Cell>, &Option<Cell>),
) -> Result<(), Report> {
    let (mut left, mut right) = (side(before, x), side(after, y));
    let (mut l, mut r) = (left.next().transpose()?, right.next().transpose()?);
    loop {
        let first = match (&l, &r) {
            (None, None) => return Ok(()),
            (Some(l), Some(r)) => l.0.min(r.0),
            (Some(one), None) | (None, Some(one)) => one.0,
        };
        let here = l.take_if(|cell| cell.0 == first);
        let there = r.take_if(|cell| cell.0 == first);
        tell(&here, &there);
        if here.is_some() {
            l = left.next().transpose()?;
        }
        if there.is_some() {
            r = right.next().transpose()?;
        }
    }
}

/// What two regions hold alike, byte for byte at the same places. Bytes that one image does
/// not hold, or could not read, are not alike, whatever stands for them. The images are such
/// as [`compare`] takes.
///
/// # Errors
/// An image cannot be read.
pub fn alike<S: ReadAt>(
    before: &OpenImage<S>,
    after: &OpenImage<S>,
    places: (usize, usize),
) -> Result<Alike, Report> {
    let size = u64::from(before.layout().cell_size);
    let bad = (bad(before, places.0), bad(after, places.1));
    let mut alike = Alike::default();
    beside(before, after, places, |here, there| {
        if let (Some(here), Some(there)) = (here, there)
            && here == there
        {
            let at = here.0.saturating_mul(size);
            let end = at.saturating_add(size);
            let is_bad = [&bad.0, &bad.1].into_iter().any(|bad| {
                let next = bad.partition_point(|range| range.1 <= at);
                bad.get(next).is_some_and(|range| range.0 < end)
            });
            for &(start, len) in here.2.iter().filter(|_| !is_bad) {
                let start = at.saturating_add(u64::from(start));
                alike.push(start, start.saturating_add(u64::from(len)));
            }
        }
    })?;
    Ok(alike)
}

/// Ranges of a region that could not be read when the image was made: first byte and end,
/// ascending.
pub fn bad<S: ReadAt>(image: &OpenImage<S>, region: usize) -> Vec<(u64, u64)> {
    let all = image.bad().iter();
    let here = all.filter(|range| range.region as usize == region);
    here.map(|range| (range.start, range.end())).collect()
}
