//! Boot entries of UEFI firmware: the bytes of their variables, and what a restored disk
//! changes of them.
//!
//! Owns: `Boot####`, `BootOrder` and the device paths in them, total on any bytes, and the
//! plan of a change. Does not own: where variables are kept, file systems, disks.
//!
//! After the UEFI specification 2.10: 3.1.3 (load options), 3.3 (the variables), 10.3
//! (device paths). What is not understood stays byte for byte as it is.

mod guid;
mod load_option;
mod names;
mod path;
mod plan;
#[cfg(test)]
mod samples;

pub use guid::{guid_of, guid_text};
pub use load_option::{ACTIVE, CATEGORY, LoadOption};
pub use names::{boot_name, boot_number, decode_order, encode_order};
pub use path::{DevicePath, HardDrive, Node, Signature};
pub use plan::{Change, Esp, Firmware, Loader, Restored, plan};

/// The longest variable that is looked at, in bytes; firmware keeps them far smaller.
pub const MAX_VARIABLE: usize = 64 << 10;
