//! The proof that a record is the chunk that it names.
//!
//! Owns: the one place where the server looks into a record. Uploads, verifications,
//! scrubs, imports and rebuilds of the index all ask here, so that what counts as whole is
//! said once. Does not own: the codecs and the hash (`image::record`), or what follows
//! from damage.

use image::record::{Decoder, RecordHeader};

/// Decodes and rehashes records. One for each thread: it keeps its buffers.
#[derive(Default)]
pub(super) struct Proof {
    decoder: Decoder,
    plain: Vec<u8>,
}

impl Proof {
    /// Whether `payload` is the chunk that `header` names; `offset` is its place, for
    /// messages.
    ///
    /// # Errors
    /// It is not, or the decoder cannot be set up.
    pub(super) fn check(
        &mut self,
        header: &RecordHeader,
        payload: &[u8],
        offset: u64,
    ) -> Result<(), image::Error> {
        self.decoder.check(header, payload, offset, &mut self.plain)
    }
}
