//! The error of this crate.
//!
//! Owns: kinds, operations and how an operating system error becomes a kind. Does
//! not own: what a user reads (the programs turn kinds into codes).

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// What went wrong, for decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is nothing at that path.
    NotFound,
    /// The caller lacks the right.
    PermissionDenied,
    /// Something else holds the device.
    Busy,
    /// The device or file system is write-protected.
    ReadOnly,
    /// The path is neither a block device nor a regular file.
    NotADisk,
    /// The range lies outside the device.
    OutOfRange,
    /// The device ended before the range did, although its size said otherwise.
    UnexpectedEnd,
    /// The file system (of a raw file) or the device has no space left.
    NoSpace,
    /// The medium cannot be read or written there.
    Medium,
    /// The device went away.
    Gone,
    /// The device or file system cannot do this.
    Unsupported,
    /// Anything else; see the source.
    Other,
}

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum Operation {
    Open,
    Create,
    Inspect,
    Resize,
    Read,
    Write,
    Flush,
    Zero,
    Discard,
    InvalidateCache,
    RereadTable,
    Command,
}

impl Operation {
    /// The operation as a participle, to begin a sentence with.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Open => "opening",
            Operation::Create => "creating",
            Operation::Inspect => "inspecting",
            Operation::Resize => "resizing",
            Operation::Read => "reading",
            Operation::Write => "writing",
            Operation::Flush => "flushing",
            Operation::Zero => "zeroing",
            Operation::Discard => "discarding",
            Operation::InvalidateCache => "dropping cached data of",
            Operation::RereadTable => "re-reading the partition table of",
            Operation::Command => "sending a command to",
        }
    }
}

/// A failure with its place.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    path: PathBuf,
    operation: Operation,
    offset: Option<u64>,
    source: io::Error,
}

impl Error {
    /// Wraps an operating system error; the kind follows from it.
    pub(crate) fn new(operation: Operation, path: &Path, source: io::Error) -> Self {
        Error {
            kind: kind_of(&source),
            path: path.to_owned(),
            operation,
            offset: None,
            source,
        }
    }

    /// Wraps an `errno` of the nix crate.
    pub(crate) fn errno(operation: Operation, path: &Path, errno: nix::errno::Errno) -> Self {
        Error::new(operation, path, io::Error::from(errno))
    }

    pub(crate) fn at(mut self, offset: u64) -> Self {
        self.offset = Some(offset);
        self
    }

    pub(crate) fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The device or file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was being done.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// First byte of the range that failed, where the operation has one.
    pub fn offset(&self) -> Option<u64> {
        self.offset
    }

    /// The operating system's error number, if it was its error.
    pub fn raw_os_error(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    /// Finds the error of this crate inside an [`io::Error`].
    pub fn of(error: &io::Error) -> Option<&Error> {
        error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Error>())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.operation.as_str(), self.path.display())?;
        if let Some(offset) = self.offset {
            write!(f, " at byte {offset}")?;
        }
        write!(f, ": {}", self.source)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind {
            ErrorKind::NotFound => io::ErrorKind::NotFound,
            ErrorKind::PermissionDenied => io::ErrorKind::PermissionDenied,
            ErrorKind::Busy => io::ErrorKind::ResourceBusy,
            ErrorKind::ReadOnly => io::ErrorKind::ReadOnlyFilesystem,
            ErrorKind::NotADisk | ErrorKind::OutOfRange => io::ErrorKind::InvalidInput,
            ErrorKind::UnexpectedEnd => io::ErrorKind::UnexpectedEof,
            ErrorKind::NoSpace => io::ErrorKind::StorageFull,
            ErrorKind::Unsupported => io::ErrorKind::Unsupported,
            ErrorKind::Medium | ErrorKind::Gone | ErrorKind::Other => error.source.kind(),
        };
        io::Error::new(kind, error)
    }
}

fn kind_of(source: &io::Error) -> ErrorKind {
    match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => ErrorKind::NotFound,
        Some(libc::EACCES | libc::EPERM) => ErrorKind::PermissionDenied,
        Some(libc::EBUSY | libc::ETXTBSY) => ErrorKind::Busy,
        Some(libc::EROFS) => ErrorKind::ReadOnly,
        Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => ErrorKind::NoSpace,
        // What the block layer makes of medium errors, protection errors, timeouts
        // and failed paths (see the kernel's blk_errors table).
        Some(
            libc::EIO
            | libc::EREMOTEIO
            | libc::ENODATA
            | libc::EILSEQ
            | libc::ETIMEDOUT
            | libc::ENOLINK
            | libc::EBADE,
        ) => ErrorKind::Medium,
        Some(libc::ENXIO | libc::ENODEV | libc::ENOMEDIUM) => ErrorKind::Gone,
        Some(libc::EOPNOTSUPP | libc::ENOTTY | libc::ENOSYS) => ErrorKind::Unsupported,
        Some(_) => ErrorKind::Other,
        None => match source.kind() {
            io::ErrorKind::UnexpectedEof => ErrorKind::UnexpectedEnd,
            _ => ErrorKind::Other,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{Error, ErrorKind, Operation};
    use std::io;
    use std::path::Path;

    #[test]
    fn text_names_operation_path_and_offset() {
        let error = Error::new(
            Operation::Read,
            Path::new("/dev/sda"),
            io::Error::from_raw_os_error(libc::EIO),
        )
        .at(512);
        assert_eq!(
            error.to_string(),
            "reading /dev/sda at byte 512: Input/output error (os error 5)"
        );
        assert_eq!(error.kind(), ErrorKind::Medium);
    }

    #[test]
    fn survives_the_way_through_io_error() {
        let error = Error::new(
            Operation::Open,
            Path::new("/dev/sda"),
            io::Error::from_raw_os_error(libc::EBUSY),
        );
        let wrapped = io::Error::from(error);
        assert_eq!(wrapped.kind(), io::ErrorKind::ResourceBusy);
        let inner = Error::of(&wrapped).unwrap();
        assert_eq!(
            (inner.kind(), inner.raw_os_error()),
            (ErrorKind::Busy, Some(libc::EBUSY))
        );
    }
}
