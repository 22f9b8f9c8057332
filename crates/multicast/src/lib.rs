//! Multicast: one sender, many receivers, one run of records.
//!
//! Owns: packets, keys, parity, pace, repair, and who is slow or gone. Does not own:
//! sockets, clocks, disks, the records' form, or the control connection over which
//! receivers get keys and the list of records, and over which they fetch what multicast
//! could not deliver. Nothing here reads a clock or sends a byte: time and packets are
//! passed in and out, so that every run can be simulated.
//!
//! # How to use it
//!
//! 1. Both sides make the same [`Plan`] of the lengths of the session's records.
//! 2. The sender makes a [`Sender`] with a fresh [`SessionSecret`]. For each receiver it
//!    calls [`Sender::join`] and gives the [`Membership`] to it over a connection that is
//!    encrypted and authenticated.
//! 3. The receiver makes a [`Receiver`] of plan, membership and the set of records that it
//!    wants ([`Bits`]), and proves every record that it gives out.
//! 4. When [`Receiver::standing`] is anything but waiting or receiving, multicast is over
//!    for it: what [`Receiver::lacking`] names comes another way.
//!
//! The bytes on the wire are in `docs/reference/multicast.md`.

mod bits;
mod fec;
mod key;
pub mod packet;
mod plan;
mod rate;
mod receiver;
mod sender;

pub use bits::Bits;
pub use key::{PacketKey, SessionSecret, TAG_LEN};
pub use packet::{Reason, SessionState};
pub use plan::{
    BlockPlace, MAX_RECORD_LEN, MAX_SYMBOL_LEN, MIN_SYMBOL_LEN, PARITY_SYMBOLS, Plan, PlanError,
    SOURCE_SYMBOLS,
};
pub use rate::{HEADERS, HEADERS_V4, Rate};
pub use receiver::{Progress, Receiver, ReceiverConfig, ReceiverStatus, Record};
pub use sender::{
    Batch, MemberStatus, Membership, Run, Sender, SenderConfig, SenderEvent, SenderStatus, Standing,
};
