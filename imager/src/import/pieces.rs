//! Files that were split.
//!
//! Owns: reading them one behind the other. Does not own: which files, and whether all are
//! there.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

/// Files as one stream; each is opened when it comes to its turn.
pub struct Pieces {
    paths: VecDeque<PathBuf>,
    file: Option<File>,
}

impl Pieces {
    /// These files, in this order.
    pub fn new(paths: Vec<PathBuf>) -> Pieces {
        Pieces {
            paths: paths.into(),
            file: None,
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(file) = &mut self.file {
                match file.read(buf)? {
                    0 if !buf.is_empty() => self.file = None,
                    count => return Ok(count),
                }
            }
            match self.paths.pop_front() {
                Some(path) => self.file = Some(File::open(path)?),
                None => return Ok(0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Pieces;
    use std::io::Read;

    #[test]
    fn pieces_are_one_stream() {
        let dir = tempfile::tempdir().unwrap();
        let paths: Vec<_> = ["one ", "", "two"]
            .iter()
            .enumerate()
            .map(|(n, text)| {
                let path = dir.path().join(n.to_string());
                std::fs::write(&path, text).unwrap();
                path
            })
            .collect();
        let mut text = String::new();
        Pieces::new(paths.clone())
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "one two");
        std::fs::remove_file(&paths[2]).unwrap();
        assert!(Pieces::new(paths).read_to_string(&mut text).is_err());
    }
}
