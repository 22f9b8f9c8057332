//! The body of an answer as a stream that cannot end early unnoticed.
//!
//! Owns: classifying breaks. Does not own: what the bytes mean.

use super::failure::{self, Failure};
use pinned::Stop;
use std::io::{self, Read};

/// A body being received. A break is an [`io::Error`] whose inner error is the
/// [`wire::Report`]; [`Body::failure`] gives it back for [`super::Retry::wait`].
pub struct Body {
    reader: Box<dyn Read + Send + Sync>,
    url: String,
    len: Option<u64>,
    stop: Stop,
}

impl Body {
    pub(super) fn new(
        reader: Box<dyn Read + Send + Sync>,
        url: String,
        len: Option<u64>,
        stop: Stop,
    ) -> Self {
        Body {
            reader,
            url,
            len,
            stop,
        }
    }

    /// Length in bytes, if the server told it.
    pub fn len(&self) -> Option<u64> {
        self.len
    }

    /// Whether the server told a length of zero.
    pub fn is_empty(&self) -> bool {
        self.len == Some(0)
    }

    /// The failure within an error that came from reading a body (possibly through
    /// decoders that pass errors on); `None` if the error is not the connection's.
    pub fn failure(error: &io::Error) -> Option<Failure> {
        let report = error.get_ref()?.downcast_ref::<wire::Report>()?;
        Some(Failure::Transient(report.clone()))
    }
}

impl Read for Body {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = if (self.stop)() {
            let kind = io::ErrorKind::ConnectionAborted;
            Err(io::Error::new(kind, "given up: the job is to stop"))
        } else {
            self.reader.read(buf)
        };
        read.map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            kind => io::Error::new(kind, failure::from_body(&self.url, &error).into_report()),
        })
    }
}
