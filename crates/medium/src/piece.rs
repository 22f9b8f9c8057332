//! Bytes of a medium and where they stand.
//!
//! Owns: pieces, in order and without overlap. Does not own: which ones a medium has.

/// What a stretch of bytes is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Zeros.
    Zeros,
    /// These.
    Bytes(Vec<u8>),
    /// Those of one of the caller's files.
    File {
        /// Which one.
        index: usize,
        /// Its first byte that is meant.
        offset: u64,
    },
}

/// A stretch of a medium.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// First byte on the medium.
    pub at: u64,
    /// Bytes.
    pub len: u64,
    /// What they are.
    pub content: Content,
}

/// A file that is put on a medium.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Path from the root, with `/` between names.
    pub path: String,
    /// Bytes.
    pub size_bytes: u64,
    /// What is in it.
    pub content: Content,
}

impl Entry {
    /// A file with these bytes.
    pub fn of_bytes(path: &str, bytes: impl Into<Vec<u8>>) -> Entry {
        let bytes = bytes.into();
        Entry {
            path: path.to_owned(),
            size_bytes: bytes.len() as u64,
            content: Content::Bytes(bytes),
        }
    }

    /// The caller's file `index`, or a stretch of it.
    pub fn of_file(path: &str, index: usize, offset: u64, size_bytes: u64) -> Entry {
        Entry {
            path: path.to_owned(),
            size_bytes,
            content: Content::File { index, offset },
        }
    }
}

/// Pieces as they are found.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    list: Vec<Piece>,
}

impl Pieces {
    /// Bytes at a place.
    pub fn bytes(&mut self, at: u64, bytes: Vec<u8>) {
        let len = bytes.len() as u64;
        self.add(at, len, Content::Bytes(bytes));
    }

    /// Anything at a place.
    pub fn add(&mut self, at: u64, len: u64, content: Content) {
        if len > 0 {
            self.list.push(Piece { at, len, content });
        }
    }

    /// All pieces in order; zeros where nothing was put below `filled`. What reaches behind
    /// another piece's start is left out: it cannot be, and must not become two truths.
    pub fn finish(mut self, filled: u64) -> Vec<Piece> {
        self.list.sort_unstable_by_key(|piece| piece.at);
        let mut all: Vec<Piece> = Vec::with_capacity(self.list.len() * 2);
        let mut end = 0;
        for piece in self.list {
            debug_assert!(piece.at >= end, "{piece:?} overlaps what ends at {end}");
            if piece.at < end {
                continue;
            }
            let gap = piece.at.min(filled.max(end)) - end;
            if gap > 0 {
                all.push(Piece {
                    at: end,
                    len: gap,
                    content: Content::Zeros,
                });
            }
            end = piece.at + piece.len;
            all.push(piece);
        }
        if filled > end {
            all.push(Piece {
                at: end,
                len: filled - end,
                content: Content::Zeros,
            });
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::{Content, Pieces};

    #[test]
    fn gaps_are_zeros_up_to_where_it_is_filled() {
        let mut pieces = Pieces::default();
        pieces.bytes(20, vec![1; 5]);
        pieces.bytes(4, vec![2; 4]);
        pieces.bytes(9, Vec::new());
        pieces.add(
            40,
            2,
            Content::File {
                index: 0,
                offset: 7,
            },
        );
        let places = |pieces: Pieces, filled| -> Vec<(u64, u64, bool)> {
            let list = pieces.finish(filled).into_iter();
            list.map(|p| (p.at, p.len, p.content == Content::Zeros))
                .collect()
        };
        assert_eq!(
            places(pieces, 30),
            [
                (0, 4, true),
                (4, 4, false),
                (8, 12, true),
                (20, 5, false),
                (25, 5, true),
                (40, 2, false)
            ]
        );
        assert_eq!(places(Pieces::default(), 3), [(0, 3, true)]);
        assert_eq!(places(Pieces::default(), 0), []);
    }
}
