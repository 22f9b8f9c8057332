//! Boot entries: what is read is written again as it was, and the plan for a restored disk
//! comes to rest.
#![no_main]

use efi::{Change, DevicePath, Esp, Firmware, HardDrive, LoadOption, Loader, Restored, Signature};
use libfuzzer_sys::fuzz_target;

const FILE: &str = "\\EFI\\debian\\shimx64.efi";

fn place(guid: u8) -> HardDrive {
    HardDrive {
        partition: 1,
        start: 2048,
        sectors: 4096,
        signature: Signature::Gpt([guid; 16]),
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&pieces, rest)) = data.split_first() else {
        return;
    };
    if let Some(path) = DevicePath::decode(rest) {
        assert_eq!(path.encode(), rest);
    }
    if let Some(option) = LoadOption::decode(rest) {
        assert_eq!(option.encode().as_deref(), Some(rest));
        let _ = option.name();
    }
    let len = (rest.len() / (usize::from(pieces % 8) + 1)).max(1);
    let mut firmware = Firmware::default();
    for (number, piece) in (0..16).zip(rest.chunks(len)) {
        firmware.entries.insert(number, piece.to_vec());
    }
    firmware.order = efi::decode_order(rest).into_iter().map(|n| n % 20).take(20).collect();
    firmware.order.sort_unstable();
    firmware.order.dedup();
    let restored = Restored {
        esps: vec![Esp {
            place: place(1),
            loaders: vec![Loader {
                name: "debian".into(),
                file: FILE.into(),
            }],
        }],
        gone: vec![Signature::Gpt([2; 16])],
    };
    let exists = |_: usize, file: &str| Some(file.eq_ignore_ascii_case(FILE));
    for change in efi::plan(&firmware, &restored, &exists) {
        match change {
            Change::Set { number, bytes, .. } => {
                assert!(LoadOption::decode(&bytes).is_some());
                firmware.entries.insert(number, bytes);
            }
            Change::Order { order, .. } => firmware.order = order,
            Change::Delete { number, .. } => {
                assert!(firmware.entries.remove(&number).is_some());
            }
        }
    }
    assert!(efi::plan(&firmware, &restored, &exists).is_empty());
});
