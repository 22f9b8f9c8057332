//! `NAME-pt.sf`: a partition table as `sfdisk --dump` writes it.
//!
//! Owns: parsing the dump, and the chain of sectors that holds logical partitions, which
//! Clonezilla does not keep and sfdisk makes anew from the dump. Does not own: the MBR and a
//! GPT, which are in the folder byte by byte.

/// A partition of the dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number, from 1.
    pub number: u32,
    /// First sector.
    pub start: u64,
    /// Size in sectors.
    pub size: u64,
    /// Type: two hexadecimal digits, or a GUID.
    pub kind: String,
    /// Whether it is marked as the one to boot from.
    pub bootable: bool,
}

impl Entry {
    /// The first sector behind it.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.size)
    }

    /// Whether it holds the logical partitions.
    pub fn is_extended(&self) -> bool {
        matches!(self.kind.as_str(), "5" | "f" | "85")
    }

    /// Whether it is a member of a software RAID of Linux, by its type.
    pub fn is_raid(&self) -> bool {
        matches!(
            self.kind.as_str(),
            "fd" | "a19d880f-05fc-4d3b-a006-743f0f84911e"
        )
    }
}

/// A dump.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// `dos` or `gpt`; empty if it does not say.
    pub label: String,
    /// The partitions that are not empty, as they come.
    pub entries: Vec<Entry>,
}

/// Sectors in front of a logical partition among which one is looked for that is free.
const SEARCHED: u64 = 2048;
/// Partitions that are taken at most.
const MAX_ENTRIES: usize = 1024;

impl Table {
    /// Reads a dump; `None` if a line makes no sense.
    pub fn parse(text: &str) -> Option<Table> {
        let mut table = Table::default();
        for line in text.lines().map(str::trim) {
            if let Some(label) = line.strip_prefix("label:") {
                table.label = label.trim().to_owned();
            } else if let Some((name, fields)) = line.split_once(':')
                && name.trim_end().starts_with("/dev/")
            {
                let entry = entry(name.trim(), fields)?;
                if entry.size > 0 {
                    table.entries.push(entry);
                }
                if table.entries.len() > MAX_ENTRIES {
                    return None;
                }
            }
        }
        // Dumps of old versions have no header; they know only this kind.
        if table.label.is_empty() && !table.entries.is_empty() {
            table.label = "dos".to_owned();
        }
        Some(table)
    }

    /// The sectors of the chain of logical partitions: number of a sector, its 512 bytes.
    /// The first stands at the start of the extended partition, each other one right behind
    /// the logical partition before; if that lies further back on the disk, in front of its own.
    ///
    /// `None` if the dump leaves no room for them, or numbers do not fit.
    pub fn chain(&self) -> Option<Vec<(u64, [u8; 512])>> {
        let mut logical: Vec<&Entry> = self.entries.iter().filter(|e| e.number >= 5).collect();
        let Some(first) = logical.first() else {
            // An empty extended partition has an empty first sector.
            let extended = self.entries.iter().find(|e| e.is_extended());
            return Some(extended.map(|e| (e.start, sector())).into_iter().collect());
        };
        let extended = self.entries.iter().find(|e| {
            e.number < 5 && e.is_extended() && e.start < first.start && first.end() <= e.end()
        })?;
        logical.sort_by_key(|e| e.number);
        let in_use = |at: u64| logical.iter().any(|e| e.start <= at && at < e.end());
        let wrong = |e: &&Entry| e.start <= extended.start || e.end() > extended.end();
        if logical.iter().any(wrong) || in_use(extended.start) {
            return None;
        }
        let mut places = vec![extended.start];
        for pair in logical.windows(2) {
            let (before, entry) = (pair[0], pair[1]);
            // Numbers follow the chain, which need not follow the disk.
            let behind = Some(before.end()).filter(|&at| at < entry.start);
            let in_front = (1..=SEARCHED).map_while(|n| entry.start.checked_sub(n));
            let free = |at: &u64| *at > extended.start && !in_use(*at) && !places.contains(at);
            let at = behind.into_iter().chain(in_front).find(free)?;
            places.push(at);
        }
        let mut chain = Vec::new();
        for (n, entry) in logical.iter().enumerate() {
            let at = places[n];
            let mut bytes = sector();
            let kind = u8::from_str_radix(&entry.kind, 16).ok()?;
            let start = u32::try_from(entry.start.checked_sub(at)?).ok()?;
            let size = u32::try_from(entry.size).ok()?;
            put(&mut bytes, 0, (entry.bootable, kind), start, size);
            if let Some(next) = logical.get(n + 1) {
                let next_at = places[n + 1];
                let start = u32::try_from(next_at.checked_sub(extended.start)?).ok()?;
                let size = u32::try_from(next.end().checked_sub(next_at)?).ok()?;
                put(&mut bytes, 1, (false, 5), start, size);
            }
            chain.push((at, bytes));
        }
        Some(chain)
    }
}

fn sector() -> [u8; 512] {
    let mut bytes = [0; 512];
    bytes[510..].copy_from_slice(&[0x55, 0xaa]);
    bytes
}

/// Writes an entry of a sector of the chain; cylinders and heads say "too large".
fn put(bytes: &mut [u8; 512], slot: usize, (bootable, kind): (bool, u8), start: u32, size: u32) {
    let entry = &mut bytes[446 + 16 * slot..][..16];
    entry[0] = if bootable { 0x80 } else { 0 };
    entry[1..8].copy_from_slice(&[0xfe, 0xff, 0xff, kind, 0xfe, 0xff, 0xff]);
    entry[8..12].copy_from_slice(&start.to_le_bytes());
    entry[12..].copy_from_slice(&size.to_le_bytes());
}

fn entry(name: &str, fields: &str) -> Option<Entry> {
    let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let mut entry = Entry {
        number: name.get(name.len() - digits..)?.parse().ok()?,
        start: 0,
        size: 0,
        kind: String::new(),
        bootable: false,
    };
    let mut sized = (false, false);
    // A name in quotes comes last and may hold anything.
    let fields = fields.split("name=").next().unwrap_or_default();
    for field in fields.split(',').map(str::trim) {
        match field
            .split_once('=')
            .map(|(key, value)| (key.trim(), value.trim()))
        {
            Some(("start", value)) => (entry.start, sized.0) = (value.parse().ok()?, true),
            Some(("size", value)) => (entry.size, sized.1) = (value.parse().ok()?, true),
            Some(("type" | "Id", value)) => entry.kind = value.to_lowercase(),
            None if field == "bootable" => entry.bootable = true,
            _ => {}
        }
    }
    (sized == (true, true) && entry.number > 0).then_some(entry)
}

#[cfg(test)]
mod tests {
    use super::Table;
    use proptest::prelude::{ProptestConfig, any, prop, prop_assert, prop_assert_eq, proptest};

    const DOS: &str = "label: dos\nlabel-id: 0x12345678\ndevice: /dev/sda\nunit: sectors\n\n\
        /dev/sda1 : start=        2048, size=       20480, type=83, bootable\n\
        /dev/sda2 : start=       24576, size=       60000, type=f\n\
        /dev/sda5 : start=       26624, size=        4096, type=82\n\
        /dev/sda6 : start=       32768, size=       10000, type=83\n";

    #[test]
    fn dumps_of_all_ages() {
        let table = Table::parse(DOS).unwrap();
        assert_eq!((table.label.as_str(), table.entries.len()), ("dos", 4));
        assert!(table.entries[0].bootable && table.entries[1].is_extended());
        assert_eq!(table.entries[3].end(), 42768);
        let old = "# partition table of /dev/sda\nunit: sectors\n\n\
            /dev/sda1 : start=       63, size=  1000, Id=83, bootable\n\
            /dev/sda2 : start=        0, size=        0, Id= 0\n";
        let old = Table::parse(old).unwrap();
        assert_eq!((old.label.as_str(), old.entries.len()), ("dos", 1));
        let gpt = "label: gpt\nlabel-id: AA\nfirst-lba: 34\nsector-size: 512\n\n/dev/nvme0n1p12 : \
            start=2048, size=8, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, uuid=X, name=\"a, size=9\"\n";
        let gpt = Table::parse(gpt).unwrap();
        assert_eq!((gpt.entries[0].number, gpt.entries[0].size), (12, 8));
        assert_eq!(Table::parse("/dev/sda1 : start=x, size=2"), None);
        assert_eq!(Table::parse("/dev/sda : start=1, size=2"), None);
    }

    #[test]
    fn the_chain_leads_through_all_logical_partitions() {
        let chain = Table::parse(DOS).unwrap().chain().unwrap();
        let numbers = |n: usize, slot: usize| {
            let at = 446 + 16 * slot + 8;
            let le = |at: usize| u32::from_le_bytes(chain[n].1[at..at + 4].try_into().unwrap());
            (le(at), le(at + 4))
        };
        assert_eq!((chain[0].0, chain[1].0, chain.len()), (24576, 30720, 2));
        assert_eq!(
            (numbers(0, 0), numbers(0, 1)),
            ((2048, 4096), (6144, 12048))
        );
        assert_eq!((numbers(1, 0), numbers(1, 1)), ((2048, 10000), (0, 0)));
        // No room for a sector before the second one; outside of the extended one.
        for (from, to) in [("       32768", "       30720"), ("24576", "30000")] {
            let text = DOS.replace(from, to);
            assert_eq!(Table::parse(&text).unwrap().chain(), None, "{from}");
        }
    }

    #[test]
    fn the_chain_goes_back_on_the_disk_where_the_numbers_do() {
        let text = "label: dos\n/dev/sda2 : start=1000, size=9000, type=5\n\
            /dev/sda5 : start=5000, size=1000, type=83\n/dev/sda6 : start=1100, size=900, type=83\n\
            /dev/sda7 : start=2002, size=98, type=83\n/dev/sda8 : start=2101, size=99, type=83\n";
        let places = |text: &str| {
            let chain = Table::parse(text).unwrap().chain()?;
            Some(chain.iter().map(|(at, _)| *at).collect::<Vec<_>>())
        };
        assert_eq!(places(text), Some(vec![1000, 1099, 2000, 2100]));
        // No sector is free in front of 6.
        let tight = text.replace("start=1100, size=900", "start=1001, size=999");
        assert_eq!(places(&tight), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn sectors_of_the_chain_are_in_no_partition_whatever_the_dump_says(
            numbers in prop::collection::vec((0u64..40, 0u64..12), 0..6),
            start in 0u64..30, size in 0u64..60, huge in any::<bool>(), noise in "\\PC{0,40}",
        ) {
            let far = if huge { u64::MAX - 20 } else { 0 };
            let mut text = format!("{noise}\nlabel: dos\n/dev/sda2 : start={start}, size={size}, type=5\n");
            for (n, (start, size)) in numbers.iter().enumerate() {
                let (n, start) = (n + 5, start.saturating_add(far));
                text += &format!("/dev/sda{n} : start={start}, size={size}, type=83\n");
            }
            let Some(table) = Table::parse(&text) else { return Ok(()) };
            let Some(chain) = table.chain() else { return Ok(()) };
            let mut places: Vec<u64> = chain.iter().map(|(at, _)| *at).collect();
            places.sort_unstable();
            places.dedup();
            prop_assert_eq!(places.len(), chain.len(), "two sectors at one place: {}", text);
            for (at, _) in chain {
                let mut logical = table.entries.iter().filter(|e| e.number >= 5);
                prop_assert!(start <= at && at < start + size.max(1));
                prop_assert!(!logical.any(|e| e.start <= at && at < e.end()), "{text}");
            }
        }
    }
}
