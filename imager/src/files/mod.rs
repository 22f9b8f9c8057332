//! Files inside an image: the file systems of its partitions, read without mounting.
//!
//! Owns: what a file system offers to those who look into it, why something cannot be
//! read, and the choice of the reader. Does not own: the formats (one module each), or
//! what is done with files (`crate::cli`).
//!
//! A reader gives the bytes that the file system says are the file's, or fails. It never
//! gives zeros for what the image does not hold, and never guesses in a state that it does
//! not understand completely.

mod alike;
mod bytes;
pub mod compare;
pub mod ext;
mod fail;
pub mod fat;
pub mod ntfs;
pub mod part;
pub mod path;
pub mod volume;
pub mod walk;

pub use alike::Alike;
pub use fail::Fail;
pub use part::Part;

/// Most entries of one directory: bounds the memory of a list.
pub const MAX_ENTRIES: usize = 4 << 20;
/// Longest target of a symbolic link, in bytes.
pub const MAX_TARGET: u64 = 65_536;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes.
    File,
    /// Names of others.
    Directory,
    /// The name of another.
    Symlink,
    /// A device, pipe or socket: it has no content in the file system.
    Special(&'static str),
}

impl Kind {
    /// As scripts see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::File => "file",
            Kind::Directory => "directory",
            Kind::Symlink => "symlink",
            Kind::Special(name) => name,
        }
    }
}

/// A time since 1970, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// Whole seconds, below zero before 1970.
    pub seconds: i64,
    /// Nanoseconds of the second, below 1,000,000,000.
    pub nanos: u32,
}

/// What a file has beside its content, and what is not read of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Besides {
    /// Streams of other names.
    pub streams: u32,
    /// There are extended attributes: access control lists, capabilities, anything.
    pub attributes: bool,
}

/// What is known of a file without reading it.
#[derive(Clone, Debug)]
pub struct Node {
    /// What tells files of one file system apart.
    pub id: u64,
    /// What it is.
    pub kind: Kind,
    /// Bytes of a file's content; of a link's target, as far as that is known.
    pub size: u64,
    /// Permission bits (07777), where the file system has them.
    pub mode: Option<u16>,
    /// User and group, where the file system has them.
    pub owner: Option<(u32, u32)>,
    /// Last change of the content.
    pub modified: Option<Time>,
    /// Last access.
    pub accessed: Option<Time>,
    /// Names that it has.
    pub links: u32,
    /// What it has beside its content.
    pub besides: Besides,
    /// Where its reader finds it again.
    pub at: u64,
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Item {
    /// As the file system has it: any bytes but NUL and `/`, unless it is damaged.
    pub name: Vec<u8>,
    /// What [`Tree::node`] takes.
    pub at: u64,
}

/// Content, in the order of the file.
pub enum Piece<'a> {
    /// These bytes.
    Data(&'a [u8]),
    /// So many zeros that take no space.
    Hole(u64),
}

/// Takes content as it comes.
pub type Sink<'a> = dyn FnMut(Piece<'_>) -> Result<(), Fail> + 'a;

/// A file system that can be looked into.
pub trait Tree {
    /// Its root.
    fn root(&self) -> Result<Node, Fail>;

    /// The names in a directory in no order, without `.` and `..`.
    fn list(&self, directory: &Node) -> Result<Vec<Item>, Fail>;

    /// What a name stands for.
    fn node(&self, at: u64) -> Result<Node, Fail>;

    /// The target of a symbolic link.
    fn target(&self, link: &Node) -> Result<Vec<u8>, Fail>;

    /// Gives a regular file's content to `sink`; pieces may be of any length. What was
    /// given is the whole file only if it ends without an error.
    fn content(&self, file: &Node, sink: &mut Sink<'_>) -> Result<(), Fail>;

    /// Whether a name is found in other letter cases, too.
    fn ignores_case(&self) -> bool {
        false
    }
}

/// Names of file systems that can be looked into, as layouts have them.
pub fn is_readable(file_system: &str) -> bool {
    matches!(
        file_system,
        "ext2" | "ext3" | "ext4" | "ntfs" | "fat12" | "fat16" | "fat32"
    )
}

/// Opens the file system of a partition.
///
/// # Errors
/// Why it cannot be looked into.
pub fn open<'a>(part: &'a Part<'a>) -> Result<Box<dyn Tree + 'a>, Fail> {
    match part.file_system() {
        "ext2" | "ext3" | "ext4" => Ok(Box::new(ext::Ext::open(part)?)),
        "ntfs" => Ok(Box::new(ntfs::Ntfs::open(part)?)),
        "fat12" | "fat16" | "fat32" => Ok(Box::new(fat::Fat::open(part)?)),
        "" => Err(Fail::Unsupported("its content is not known".to_owned())),
        other => {
            let name = crate::map::printable(other, 20);
            Err(Fail::Unsupported(format!("{name} is not read")))
        }
    }
}

/// Reads a file's content, and holds it against its size.
pub fn read(tree: &dyn Tree, file: &Node, sink: &mut Sink<'_>) -> Result<(), Fail> {
    let mut left = file.size;
    tree.content(file, &mut |piece| {
        let len = match &piece {
            Piece::Data(bytes) => bytes.len() as u64,
            Piece::Hole(len) => *len,
        };
        left = left
            .checked_sub(len)
            .ok_or_else(|| Fail::damaged("it has more content than its size"))?;
        sink(piece)
    })?;
    if left > 0 {
        return Err(Fail::damaged(format!(
            "{left} bytes of it are missing at its end"
        )));
    }
    Ok(())
}
