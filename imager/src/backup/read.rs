//! Reading the used bytes of a cell.
//!
//! Owns: joining near extents into one read, retries, and naming the sectors that
//! cannot be read. Does not own: which cells there are.

use blockdev::Device;
use image::CellMap;
use image::layout::Layout;
use wire::{Code, DiskState, Report};

/// A hole up to this long is read over: one call costs more than copying it.
const READ_OVER: u32 = 32 << 10;
/// How far the kernel is asked to read ahead, in bytes.
const READ_AHEAD: u64 = 8 << 20;
/// How often an unreadable range is tried again.
const RETRIES: usize = 3;
/// How many bad sectors are named.
const NAMED_SECTORS: usize = 16;

/// Reads cells of a disk in order.
pub struct CellReader<'a> {
    device: &'a Device,
    starts: Vec<u64>,
    cell_size: u32,
    scratch: Vec<u8>,
    asked_until: u64,
}

impl<'a> CellReader<'a> {
    /// A reader for the regions of `layout`.
    pub fn new(device: &'a Device, layout: &Layout) -> Self {
        device.advise_sequential();
        CellReader {
            device,
            starts: layout.regions.iter().map(|region| region.start).collect(),
            cell_size: layout.cell_size,
            scratch: Vec::new(),
            asked_until: 0,
        }
    }

    /// Puts the cell's used bytes into `plain`.
    pub fn read(&mut self, cell: &CellMap, plain: &mut Vec<u8>) -> Result<(), Report> {
        let base = self.starts.get(cell.region as usize).copied().unwrap_or(0)
            + cell.cell * u64::from(self.cell_size);
        self.read_ahead(base);
        let total = cell.used.len() as usize;
        // Old contents are overwritten below; only growth is zeroed.
        plain.resize(total, 0);
        let mut filled = 0;
        let extents = cell.used.extents();
        let mut at = 0;
        while let Some(&(start, len)) = extents.get(at) {
            let mut end = start + len;
            let mut next = at + 1;
            while let Some(&(s, l)) = extents.get(next).filter(|&&(s, _)| s - end <= READ_OVER) {
                end = s + l;
                next += 1;
            }
            let from = base + u64::from(start);
            if next == at + 1 {
                let part = &mut plain[filled..filled + len as usize];
                read_or_name(self.device, from, part)?;
                filled += len as usize;
            } else {
                self.scratch.resize((end - start) as usize, 0);
                read_or_name(self.device, from, &mut self.scratch)?;
                for &(s, l) in &extents[at..next] {
                    let part = &self.scratch[(s - start) as usize..(s - start + l) as usize];
                    plain[filled..filled + part.len()].copy_from_slice(part);
                    filled += part.len();
                }
            }
            at = next;
        }
        Ok(())
    }

    /// Keeps the kernel reading ahead, so that the disk works while the CPU does.
    fn read_ahead(&mut self, base: u64) {
        if base + READ_AHEAD / 2 >= self.asked_until || base + READ_AHEAD < self.asked_until {
            let from = base.max(self.asked_until.min(base + READ_AHEAD));
            let until = base + READ_AHEAD;
            self.device
                .advise_willneed(from, until.saturating_sub(from));
            self.asked_until = until;
        }
    }
}

/// Reads a range; if it cannot be read, tries again, then sector by sector.
fn read_or_name(device: &Device, offset: u64, buf: &mut [u8]) -> Result<(), Report> {
    let mut last = match device.read_exact_at(offset, buf) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    for _ in 0..RETRIES {
        match device.read_exact_at(offset, buf) {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    let sector = device.sector_size().max(512) as usize;
    let mut bad = Vec::new();
    let mut more = false;
    for (number, part) in buf.chunks_mut(sector).enumerate() {
        let at = offset + (number * sector) as u64;
        if device.read_exact_at(at, part).is_err() {
            more = bad.len() == NAMED_SECTORS;
            if more {
                break;
            }
            bad.push(at / sector as u64);
        }
    }
    if bad.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = bad.iter().map(u64::to_string).collect();
    let found = format!(
        "sectors {}{} of {} bytes cannot be read: {last}",
        list.join(", "),
        if more { " and more" } else { "" },
        sector
    );
    Err(Report::new(Code::ReadError, found, DiskState::NotInvolved))
}
