//! Names of partition types, for people.
//!
//! Owns: the two short lists. An unknown type has no name, which changes nothing
//! in how it is copied.

/// Name of an MBR type byte.
pub(crate) fn mbr(kind: u8) -> &'static str {
    match kind {
        0x01 | 0x11 => "FAT12",
        0x04 | 0x06 | 0x0e | 0x14 | 0x16 | 0x1e => "FAT16",
        0x05 | 0x0f | 0x85 => "Extended",
        0x07 | 0x17 => "NTFS or exFAT",
        0x0b | 0x0c | 0x1b | 0x1c => "FAT32",
        0x12 => "Diagnostics",
        0x27 => "Windows recovery",
        0x42 => "Windows dynamic disk",
        0x82 => "Linux swap",
        0x83 => "Linux",
        0x8e => "Linux LVM",
        0xa5 => "FreeBSD",
        0xa6 => "OpenBSD",
        0xa9 => "NetBSD",
        0xaf => "HFS+",
        0xbf => "Solaris",
        0xee => "GPT protective",
        0xef => "EFI system",
        0xfb => "VMFS",
        0xfd => "Linux RAID",
        _ => "",
    }
}

/// Whether an MBR type byte is the hidden form of another.
pub(crate) fn mbr_is_hidden(kind: u8) -> bool {
    matches!(kind, 0x11 | 0x14 | 0x16 | 0x17 | 0x1b | 0x1c | 0x1e)
}

/// Name of a GPT type GUID (upper-case text).
pub(crate) fn gpt(guid: &str) -> &'static str {
    const NAMES: &[(&str, &str)] = &[
        ("C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "EFI system"),
        ("21686148-6449-6E6F-744E-656564454649", "BIOS boot"),
        ("0FC63DAF-8483-4772-8E79-3D69D8477DE4", "Linux file system"),
        ("0657FD6D-A4AB-43C4-84E5-0933C84B4F4F", "Linux swap"),
        ("E6D6D379-F507-44C2-A23C-238F2A3DF928", "Linux LVM"),
        ("A19D880F-05FC-4D3B-A006-743F0F84911E", "Linux RAID"),
        ("CA7D7CCB-63ED-4C53-861C-1742536059CC", "LUKS"),
        ("933AC7E1-2EB4-4F13-B844-0E14E2AEF915", "Linux home"),
        (
            "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
            "Linux root (x86-64)",
        ),
        ("B921B045-1DF0-41C3-AF44-4C6F280D3FAE", "Linux root (ARM64)"),
        (
            "BC13C2FF-59E6-4262-A352-B275FD6F7172",
            "Linux extended boot",
        ),
        (
            "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7",
            "Microsoft basic data",
        ),
        ("E3C9E316-0B5C-4DB8-817D-F92DF00215AE", "Microsoft reserved"),
        ("DE94BBA4-06D1-4D40-A16A-BFD50179D6AC", "Windows recovery"),
        (
            "AF9B60A0-1431-4F62-BC68-3311714A69AD",
            "Windows dynamic data",
        ),
        (
            "5808C8AA-7E8F-42E0-85D2-E1E90434CFB3",
            "Windows dynamic metadata",
        ),
        (
            "E75CAF8F-F680-4CEE-AFA3-B001E56EFC2D",
            "Windows storage spaces",
        ),
        ("7C3457EF-0000-11AA-AA11-00306543ECAC", "Apple APFS"),
        ("48465300-0000-11AA-AA11-00306543ECAC", "Apple HFS+"),
        ("6A898CC3-1DD2-11B2-99A6-080020736631", "ZFS"),
        ("516E7CBA-6ECF-11D6-8FF8-00022D09712B", "FreeBSD ZFS"),
        ("516E7CB6-6ECF-11D6-8FF8-00022D09712B", "FreeBSD UFS"),
        ("AA31E02A-400F-11DB-9590-000C2911D1B8", "VMFS"),
    ];
    NAMES
        .iter()
        .find(|(known, _)| *known == guid)
        .map_or("", |(_, name)| name)
}
