//! Shared by the targets of `diskmap`: a disk from fuzz input, and what holds for
//! every map whatever the disk.

use diskmap::{DiskMap, DiskRead, Geometry, ScanOptions, scan};
use std::io;

/// Input bytes, then zeros up to a size that the input cannot reach itself.
#[allow(dead_code)] // not every target has one
pub struct Padded<'a> {
    pub data: &'a [u8],
    pub size: u64,
}

impl DiskRead for Padded<'_> {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buf.fill(0);
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.data.len());
        let len = buf.len().min(self.data.len() - start);
        buf[..len].copy_from_slice(&self.data[start..start + len]);
        Ok(())
    }
}

/// Scans a disk whose sector size, padding and options come from `knobs`.
#[allow(dead_code)] // as above
pub fn run(knobs: u8, data: &[u8]) -> Option<(DiskMap, Geometry)> {
    let sector_size = 512 << (knobs & 3);
    let size_bytes = data.len() as u64 + if knobs & 4 != 0 { 64 << 20 } else { 0 };
    let geometry = Geometry { size_bytes, sector_size };
    let options = ScanOptions { full: knobs & 8 != 0, strict: knobs & 16 != 0 };
    let map = check(&Padded { data, size: size_bytes }, geometry, &options)?;
    Some((map, geometry))
}

/// Scans a disk and checks what holds for every map; none where there is no map.
pub fn check(disk: &impl DiskRead, geometry: Geometry, options: &ScanOptions) -> Option<DiskMap> {
    let map = match scan(disk, geometry, options) {
        Ok(map) => map,
        Err(error) => {
            assert!(!options.full, "full failed: {error}");
            return None;
        }
    };
    let mut spans: Vec<(u64, u64)> = Vec::new();
    spans.extend(map.regions.iter().map(|r| (r.start, r.start + r.size)));
    spans.extend(map.blobs.iter().map(|b| (b.offset, b.end())));
    spans.sort_unstable();
    assert!(spans.windows(2).all(|w| w[0].1 <= w[1].0), "regions or table overlap");
    assert!(spans.last().is_none_or(|s| s.1 <= geometry.size_bytes), "outside the disk");
    for region in &map.regions {
        assert!(region.used.end() <= region.size, "used bytes outside their region");
        assert!(!region.reason.is_empty());
        if matches!(region.file_system.as_str(), "lvm2" | "md") {
            let end = region.start + region.size;
            let found = diskmap::inner_volumes(disk, region.start, region.size);
            for part in found.iter().flat_map(|f| &f.volumes).flat_map(|v| &v.parts) {
                assert!(region.start <= part.start && part.end() <= end, "outside its region");
            }
        }
    }
    Some(map)
}
