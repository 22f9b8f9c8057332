//! Tables and a cluster that were read last.
//!
//! Owns: keeping a few, so that reading in order reads each once. Does not own: how they
//! are read.

use crate::Error;

/// Tables that are kept. Reading in order needs one; looking around in a file system some.
const TABLES: usize = 8;

/// What was read last, most recent at the end.
pub(super) struct Cache {
    /// Size of a cluster, which is that of a table, in bytes.
    cluster: usize,
    tables: Vec<(u64, Vec<u8>)>,
    /// The last compressed cluster, unpacked.
    unpacked: Option<(u64, Vec<u8>)>,
}

impl Cache {
    pub fn new(cluster: usize) -> Self {
        Cache {
            cluster,
            tables: Vec::new(),
            unpacked: None,
        }
    }

    /// The table at a place of the file, which `load` reads.
    pub fn table(
        &mut self,
        at: u64,
        load: impl FnOnce(&mut [u8]) -> Result<(), Error>,
    ) -> Result<&[u8], Error> {
        let entry = match self.tables.iter().position(|(place, _)| *place == at) {
            Some(index) if index + 1 == self.tables.len() => None,
            Some(index) => Some(self.tables.remove(index)),
            None => {
                let mut table = if self.tables.len() == TABLES {
                    self.tables.remove(0).1
                } else {
                    vec![0; self.cluster]
                };
                load(&mut table)?;
                Some((at, table))
            }
        };
        self.tables.extend(entry);
        Ok(self.tables.last().map_or(&[], |(_, table)| table))
    }

    /// The unpacked bytes of the compressed cluster at a place of the file.
    pub fn unpacked(
        &mut self,
        at: u64,
        load: impl FnOnce(&mut [u8]) -> Result<(), Error>,
    ) -> Result<&[u8], Error> {
        let kept = self.unpacked.take();
        let (place, mut bytes) = kept.unwrap_or_else(|| (at, Vec::new()));
        if place != at || bytes.is_empty() {
            bytes.resize(self.cluster, 0);
            // A cluster that cannot be unpacked is not kept.
            load(&mut bytes)?;
        }
        Ok(&self.unpacked.insert((at, bytes)).1)
    }
}
