//! Numbers of the DHCP options that are used here.
//!
//! Owns: names for numbers. Sources: RFC 2132, RFC 3004 (77), RFC 4578 (93, 97), the
//! PXE specification 2.1 (sub-options of 43), iPXE (175).

/// Fills a byte; has no length.
pub const PAD: u8 = 0;
/// Vendor-specific information; PXE sub-options when option 60 says so.
pub const VENDOR: u8 = 43;
/// The fields `file` (1), `sname` (2) or both (3) hold options.
pub const OVERLOAD: u8 = 52;
/// Kind of message, see [`super::MessageType`].
pub const MESSAGE_TYPE: u8 = 53;
/// Address that identifies the server.
pub const SERVER_ID: u8 = 54;
/// Vendor class: `PXEClient...` or `HTTPClient...`.
pub const VENDOR_CLASS: u8 = 60;
/// Name of the TFTP server.
pub const TFTP_SERVER: u8 = 66;
/// Name of the boot file.
pub const BOOT_FILE: u8 = 67;
/// User class; iPXE sends `iPXE`.
pub const USER_CLASS: u8 = 77;
/// Architecture of the client, 16-bit numbers.
pub const ARCHITECTURE: u8 = 93;
/// GUID of the client, 17 bytes; must come back unchanged.
pub const CLIENT_GUID: u8 = 97;
/// iPXE's own options; their presence says that iPXE asks.
pub const IPXE: u8 = 175;
/// Ends the options; has no length.
pub const END: u8 = 255;

/// PXE sub-option of 43: how boot servers are looked for.
pub const PXE_DISCOVERY_CONTROL: u8 = 6;
/// PXE sub-option of 43: the boot item that the client asks for.
pub const PXE_BOOT_ITEM: u8 = 71;
/// Value of [`PXE_DISCOVERY_CONTROL`]: no search, no menu; the boot file of the offer.
pub const PXE_USE_OFFERED_FILE: u8 = 8;
