//! The time of day, for people.
//!
//! Owns: its text form. Does not own: any decision; nothing depends on the clock.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Now, UTC, whole seconds: `2026-01-02T03:04:05Z`.
pub fn now_rfc3339() -> String {
    let now = OffsetDateTime::now_utc();
    let whole = now.replace_nanosecond(0).unwrap_or(now);
    whole.format(&Rfc3339).unwrap_or_default()
}
