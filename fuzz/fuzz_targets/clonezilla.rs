//! The texts and names of a Clonezilla folder.
#![no_main]

use foreign::clonezilla::{DiskSize, Swap, Table, contents, names, partition_number, partition_of};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    if let Some(table) = Table::parse(&text)
        && let Some(chain) = table.chain()
    {
        let places: Vec<u64> = chain.iter().map(|(at, _)| *at).collect();
        for (at, bytes) in chain {
            assert_eq!(bytes[510..], [0x55, 0xaa]);
            let mut logical = table.entries.iter().filter(|e| e.number >= 5);
            assert!(!logical.any(|e| e.start <= at && at < e.end()), "a sector inside a partition");
            assert_eq!(places.iter().filter(|&&p| p == at).count(), 1, "two sectors at one place");
        }
    }
    let _ = DiskSize::parse(&text).map(|size| size.bytes());
    if let Some(swap) = Swap::parse(&text) {
        for size in [0, 40_960, 1 << 44, u64::MAX] {
            assert!(swap.header(size).is_none_or(|page| page.ends_with(b"SWAPSPACE2")));
        }
    }
    let all = names(&text);
    for name in &all {
        let _ = partition_number("sda", name);
        assert!(partition_of(name).is_none_or(|part| name.contains(part)));
    }
    if let Ok(parts) = contents("sda1", &all) {
        assert!(!parts.files.is_empty() && parts.files.len() <= all.len());
    }
});
