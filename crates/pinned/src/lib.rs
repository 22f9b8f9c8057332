//! TLS client that trusts exactly one public key.
//!
//! Owns: the pin (SHA-256 of the certificate's SubjectPublicKeyInfo) and the check of
//! a server against it. Does not own: where a pin comes from or what is said over the
//! connection. Names and dates of certificates are not looked at: a target's clock is
//! wrong more often than not, and its server is known by address (facts.md, design.md
//! "Wire").

mod client;
mod patient;
mod pin;

pub use client::{Timeouts, agent, agent_until, client_config, is_pin_mismatch};
pub use patient::Stop;
pub use pin::{Pin, PinError, spki_sha256};
