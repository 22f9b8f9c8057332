//! Numbers of the DHCP options that are used here.
//!
//! Owns: names for numbers. Sources: RFC 2132, RFC 3004 (77), RFC 3046 (82), RFC 3527
//! (link selection), RFC 4578 (93, 97), the PXE specification 2.1 (sub-options of 43),
//! iPXE (175), this project (186, 190, 192).

/// Fills a byte; has no length.
pub const PAD: u8 = 0;
/// Subnet mask.
pub const SUBNET_MASK: u8 = 1;
/// Routers, the preferred one first.
pub const ROUTER: u8 = 3;
/// Name servers, the preferred one first.
pub const NAME_SERVER: u8 = 6;
/// The client's name.
pub const HOST_NAME: u8 = 12;
/// Broadcast address of the subnet.
pub const BROADCAST: u8 = 28;
/// Vendor-specific information; PXE sub-options when option 60 says so.
pub const VENDOR: u8 = 43;
/// Address that the client would like, or was offered.
pub const REQUESTED_ADDRESS: u8 = 50;
/// Seconds of a lease.
pub const LEASE_TIME: u8 = 51;
/// The fields `file` (1), `sname` (2) or both (3) hold options.
pub const OVERLOAD: u8 = 52;
/// Kind of message, see [`super::MessageType`].
pub const MESSAGE_TYPE: u8 = 53;
/// Address that identifies the server.
pub const SERVER_ID: u8 = 54;
/// Codes of the options that the client wants.
pub const PARAMETERS: u8 = 55;
/// Text for people, in a refusal.
pub const MESSAGE: u8 = 56;
/// Seconds until the client asks its server for more time.
pub const RENEWAL_TIME: u8 = 58;
/// Seconds until the client asks any server for more time.
pub const REBINDING_TIME: u8 = 59;
/// Vendor class: `PXEClient...` or `HTTPClient...`.
pub const VENDOR_CLASS: u8 = 60;
/// What the client calls itself; must come back unchanged (RFC 6842).
pub const CLIENT_ID: u8 = 61;
/// Name of the TFTP server.
pub const TFTP_SERVER: u8 = 66;
/// Name of the boot file.
pub const BOOT_FILE: u8 = 67;
/// User class; iPXE sends `iPXE`.
pub const USER_CLASS: u8 = 77;
/// What a relay added; must come back unchanged.
pub const RELAY_AGENT: u8 = 82;
/// Architecture of the client, 16-bit numbers.
pub const ARCHITECTURE: u8 = 93;
/// GUID of the client, 17 bytes; must come back unchanged.
pub const CLIENT_GUID: u8 = 97;
/// iPXE's own options; their presence says that iPXE asks.
pub const IPXE: u8 = 175;
/// Address of the management server, for targets that boot from a medium.
pub const DEPLOY_SERVER: u8 = 186;
/// The management server's port with TLS.
pub const DEPLOY_SECURE_PORT: u8 = 190;
/// The management server's plain port.
pub const DEPLOY_PLAIN_PORT: u8 = 192;
/// Ends the options; has no length.
pub const END: u8 = 255;

/// PXE sub-option of 43: how boot servers are looked for.
pub const PXE_DISCOVERY_CONTROL: u8 = 6;
/// PXE sub-option of 43: the boot item that the client asks for.
pub const PXE_BOOT_ITEM: u8 = 71;
/// Value of [`PXE_DISCOVERY_CONTROL`]: no search, no menu; the boot file of the offer.
pub const PXE_USE_OFFERED_FILE: u8 = 8;

/// Sub-option of [`RELAY_AGENT`]: the subnet that the client is in, if it is not the relay's.
pub const LINK_SELECTION: u8 = 5;
/// Sub-option of [`IPXE`]: no proxyDHCP is to be waited for.
pub const IPXE_NO_PROXY: u8 = 176;
