//! Chunks that the disk holds at their place already: found by hashing the disk, never by
//! what anybody remembers.
//!
//! Owns: the decision that a chunk need not be fetched and written. Does not own: the
//! read-back, which looks at those chunks again, as at all others.

use super::CellWriter;
use super::on_medium::OnMedium;
use image::{CellMap, Hash};

/// Looks at the disk before chunks are written to it; one for each thread.
pub struct Held<'a> {
    writer: &'a CellWriter<'a>,
    medium: Option<OnMedium<'a>>,
}

impl<'a> Held<'a> {
    /// Of the writer's disk. Without [`CellWriter::reusing`] nothing is ever held.
    pub fn new(writer: &'a CellWriter<'a>) -> Self {
        let cell_size = writer.layout().cell_size;
        Held {
            writer,
            medium: writer.medium().map(|m| OnMedium::new(m, cell_size)),
        }
    }

    /// Whether the medium holds the chunk `name` where the cell goes. It is counted as
    /// done then.
    ///
    /// What cannot be read is not held: writing may mend it. Of a cell that does not fit
    /// whole the disk cannot tell.
    pub fn skips(&mut self, cell: &CellMap, name: Hash) -> bool {
        let Some(medium) = &mut self.medium else {
            return false;
        };
        let place = self.writer.place(cell);
        let Some(place) = place.filter(|place| !super::write::is_clipped(cell, *place)) else {
            return false;
        };
        let key = self.writer.key();
        let held = medium
            .hash(cell, place, key)
            .is_ok_and(|found| found == name);
        if held {
            self.writer.skip(cell);
        }
        held
    }
}
