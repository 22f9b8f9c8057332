//! Databases of dynamic disks, written record by record.
//!
//! Owns: their bytes, and the volumes of an example. Does not own: the disk around them
//! (the fuzz target has another one), or what has to follow from it.

pub const DISK: &str = "11111111-2222-3333-4444-555555555555";
pub const OTHER_DISK: &str = "99999999-2222-3333-4444-555555555555";
pub const GROUP: &str = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee";
/// Sectors of the disk, and where data and database are.
pub const SECTORS: u64 = 64 * 2048;
pub const CONFIG: u64 = SECTORS - 2048;
/// Of both tables the partition for data begins here.
pub const DATA_START: u64 = 2048;

#[derive(Clone)]
pub struct Volume {
    pub name: &'static str,
    pub size: u64,
    pub components: Vec<Component>,
}

#[derive(Clone)]
pub struct Component {
    pub kind: u8,
    pub stripe: u64,
    pub parts: Vec<Part>,
}

#[derive(Clone)]
pub struct Part {
    pub own: bool,
    pub start: u64,
    pub size: u64,
    pub offset: u64,
}

pub fn part(start: u64, size: u64, offset: u64) -> Part {
    Part {
        own: true,
        start,
        size,
        offset,
    }
}

pub fn simple(name: &'static str, parts: Vec<Part>) -> Volume {
    Volume {
        name,
        size: parts.iter().map(|p| p.size).sum(),
        components: vec![Component {
            kind: 2,
            stripe: 0,
            parts,
        }],
    }
}

pub fn number(value: u64) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let skip = bytes.iter().take_while(|&&b| b == 0).count().min(7);
    [&[(8 - skip) as u8], &bytes[skip..]].concat()
}

pub fn text(value: &str) -> Vec<u8> {
    [&[value.len() as u8], value.as_bytes()].concat()
}

/// A record: flags, type and body.
pub type Raw = (u8, u8, Vec<u8>);

/// The records of a disk group with two disks.
pub fn records(volumes: &[Volume]) -> Vec<Raw> {
    let mut list: Vec<Raw> = Vec::new();
    let mut next = 10u64;
    let mut id = || {
        next += 1;
        next
    };
    let group = [number(1), text("group0"), text(GROUP), vec![0; 12]].concat();
    list.push((0, 0x35, group));
    for (number_, name, guid) in [(2, "Disk1", DISK), (3, "Disk2", OTHER_DISK)] {
        let body = [
            number(number_),
            text(name),
            text(guid),
            text(""),
            vec![0; 12],
        ]
        .concat();
        list.push((0, 0x34, body));
    }
    for volume in volumes {
        let volume_id = id();
        let mut state = b"ACTIVE\0".to_vec();
        state.resize(14, 0);
        let body = [
            number(volume_id),
            text(volume.name),
            text("gen"),
            text(""),
            state,
            vec![3, 0, 1, 0, 0, 0, 0],
            number(volume.components.len() as u64),
            vec![0; 16],
            number(volume.size),
            vec![0; 4],
            vec![7],
            vec![0x5a; 16],
        ]
        .concat();
        list.push((0, 0x51, body));
        for component in &volume.components {
            let component_id = id();
            let mut body = [
                number(component_id),
                text(&format!("{}-01", volume.name)),
                text("ACTIVE"),
                vec![component.kind, 0, 0, 0, 0],
                number(component.parts.len() as u64),
                vec![0; 16],
                number(volume_id),
                vec![0],
            ]
            .concat();
            if component.stripe > 0 {
                body.extend(number(component.stripe));
                body.extend(number(component.parts.len() as u64));
            }
            list.push((if component.stripe > 0 { 0x10 } else { 0 }, 0x32, body));
            for (index, part) in component.parts.iter().enumerate() {
                let own = if part.own { 2 } else { 3 };
                let body = [
                    number(id()),
                    text(&format!("Disk{}-{component_id}-{index}", own - 1)),
                    vec![0; 12],
                    part.start.to_be_bytes().to_vec(),
                    part.offset.to_be_bytes().to_vec(),
                    number(part.size),
                    number(component_id),
                    number(own),
                    number(index as u64),
                ]
                .concat();
                list.push((0x08, 0x33, body));
            }
        }
    }
    list
}

pub fn private_header(disk: &str) -> Vec<u8> {
    let mut raw = vec![0u8; 512];
    raw[..8].copy_from_slice(b"PRIVHEAD");
    raw[12..16].copy_from_slice(&[0, 2, 0, 12]);
    for (at, guid) in [
        (0x30, disk),
        (0x70, "77777777-0000-0000-0000-000000000000"),
        (0xb0, GROUP),
    ] {
        raw[at..at + 36].copy_from_slice(guid.as_bytes());
    }
    raw[0xf0..0xf6].copy_from_slice(b"group0");
    let numbers = [
        DATA_START,
        CONFIG - DATA_START - 2048,
        CONFIG,
        2048,
        2, // tables of contents
        2045,
    ];
    for (index, value) in numbers.iter().enumerate() {
        raw[0x11b + 8 * index..][..8].copy_from_slice(&value.to_be_bytes());
    }
    raw[0x14b..0x14f].copy_from_slice(&1u32.to_be_bytes());
    raw[0x14f..0x153].copy_from_slice(&1u32.to_be_bytes());
    raw[0x153..0x15b].copy_from_slice(&1481u64.to_be_bytes());
    raw[0x15b..0x163].copy_from_slice(&224u64.to_be_bytes());
    raw
}

pub fn contents() -> Vec<u8> {
    let mut raw = vec![0u8; 512];
    raw[..8].copy_from_slice(b"TOCBLOCK");
    raw[0x24..0x2a].copy_from_slice(b"config");
    raw[0x2e..0x36].copy_from_slice(&17u64.to_be_bytes());
    raw[0x36..0x3e].copy_from_slice(&1481u64.to_be_bytes());
    raw[0x46..0x49].copy_from_slice(b"log");
    raw[0x50..0x58].copy_from_slice(&1498u64.to_be_bytes());
    raw[0x58..0x60].copy_from_slice(&224u64.to_be_bytes());
    raw
}

/// The list of volumes, in entries of 128 bytes.
pub fn vmdb(records: &[Raw]) -> Vec<u8> {
    let mut entries = Vec::new();
    for (group, (flags, kind, body)) in records.iter().enumerate() {
        let mut whole = vec![0, 0, *flags, *kind];
        whole.extend((body.len() as u32).to_be_bytes());
        whole.extend(body);
        let pieces: Vec<&[u8]> = whole.chunks(112).collect();
        for (index, piece) in pieces.iter().enumerate() {
            let mut entry = b"VBLK".to_vec();
            entry.extend((entries.len() as u32 + 4).to_be_bytes());
            entry.extend((group as u32 + 1).to_be_bytes());
            entry.extend((index as u16).to_be_bytes());
            entry.extend((pieces.len() as u16).to_be_bytes());
            entry.extend(*piece);
            entry.resize(128, 0);
            entries.push(entry);
        }
    }
    // Unused entries at the end, as real ones have them.
    for _ in 0..8 {
        let mut entry = b"VBLK".to_vec();
        entry.extend((entries.len() as u32 + 4).to_be_bytes());
        entry.resize(128, 0);
        entries.push(entry);
    }
    let count = |kind: u8| records.iter().filter(|r| r.1 == kind).count() as u32;
    let mut raw = vec![0u8; 512];
    raw[..4].copy_from_slice(b"VMDB");
    raw[4..8].copy_from_slice(&(entries.len() as u32 + 4).to_be_bytes());
    raw[8..12].copy_from_slice(&128u32.to_be_bytes());
    raw[12..16].copy_from_slice(&512u32.to_be_bytes());
    raw[16..22].copy_from_slice(&[0, 1, 0, 4, 0, 10]);
    raw[22..28].copy_from_slice(b"group0");
    raw[0x35..0x35 + 36].copy_from_slice(GROUP.as_bytes());
    raw[0x75..0x7d].copy_from_slice(&5u64.to_be_bytes());
    raw[0x7d..0x85].copy_from_slice(&5u64.to_be_bytes());
    for (at, kind) in [(0x85, 0x51), (0x89, 0x32), (0x8d, 0x33), (0x91, 0x34)] {
        raw[at..at + 4].copy_from_slice(&count(kind).to_be_bytes());
    }
    raw.extend(entries.concat());
    raw
}

pub const TWO: u64 = 2048;

pub fn everything() -> Vec<Volume> {
    vec![
        simple("Volume1", vec![part(0, 16 * TWO, 0)]),
        // Grown on the same disk: the second part lies before the first one, and is
        // listed before it.
        simple(
            "Volume2",
            vec![part(20 * TWO, 8 * TWO, 8 * TWO), part(30 * TWO, 8 * TWO, 0)],
        ),
        Volume {
            name: "Span1",
            size: 6 * TWO,
            components: vec![Component {
                kind: 2,
                stripe: 0,
                parts: vec![
                    part(50 * TWO, 4 * TWO, 0),
                    Part {
                        own: false,
                        ..part(9 * TWO, 2 * TWO, 4 * TWO)
                    },
                ],
            }],
        },
        Volume {
            name: "Stripe1",
            size: 8 * TWO,
            components: vec![Component {
                kind: 1,
                stripe: 128,
                parts: vec![
                    part(40 * TWO, 4 * TWO, 0),
                    Part {
                        own: false,
                        ..part(0, 4 * TWO, 0)
                    },
                ],
            }],
        },
    ]
}
