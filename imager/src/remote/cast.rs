//! Routes of a multicast session.
//!
//! Owns: their requests. Does not own: what is done with the answers (`crate::cast`).

use super::{Body, Remote};
use wire::{JoinReply, Report, SessionReply};

impl Remote {
    /// `POST .../session`: this target is ready, and has written nothing.
    ///
    /// # Errors
    /// See [`Remote::checkin`]; why there can be no session.
    pub fn session(&self) -> Result<SessionReply, Report> {
        self.retried("waiting for the multicast session", || {
            self.post("session", &[])?.json()
        })
    }

    /// `GET .../session/plan`: bytes of a symbol, then the length of each record. The opening
    /// is tried again, a break of the stream is not.
    ///
    /// # Errors
    /// See [`Remote::checkin`].
    pub fn session_plan(&self) -> Result<Body, Report> {
        self.retried("asking for the session's list of records", || {
            let (path, token) = self.path("session/plan")?;
            self.link.get(token, &path)?.stream()
        })
    }

    /// `POST .../session/join`: takes part, wanting these records.
    ///
    /// # Errors
    /// See [`Remote::checkin`].
    pub fn session_join(&self, wanted: &[u8]) -> Result<JoinReply, Report> {
        self.retried("joining the multicast session", || {
            self.post("session/join", wanted)?.json()
        })
    }
}
