//! qcow2 files: any bytes behind a header that is right as often as the first byte says.
#![no_main]

use diskmap::DiskRead;
use foreign::Error;
use foreign::qcow2::{Backing, Qcow2};
use libfuzzer_sys::fuzz_target;

/// Bytes that are read at each place.
const LEN: usize = 70_000;

fuzz_target!(|data: &[u8]| {
    let Some((&knobs, rest)) = data.split_first() else {
        return;
    };
    let mut bytes = rest.to_vec();
    if knobs & 1 == 1
        && let Some(start) = bytes.get_mut(..8)
    {
        start.copy_from_slice(&[b'Q', b'F', b'I', 0xfb, 0, 0, 0, 2 + (knobs >> 1 & 1)]);
    }
    let len = bytes.len() as u64;
    let opened = Qcow2::open(bytes, len, &mut |name| {
        assert!(name.name.len() <= 1023);
        if knobs & 4 == 0 {
            return Err(Error::Damaged { what: "none".into() });
        }
        Ok(Backing { disk: Box::new(vec![7u8; 5000]), size: 5000 })
    });
    let Ok(disk) = opened else {
        return;
    };
    let size = disk.size();
    let mut buf = vec![0xee; LEN];
    for at in [0, 4000, size / 2, size.saturating_sub(LEN as u64), size.saturating_sub(1)] {
        let len = size.saturating_sub(at).min(LEN as u64) as usize;
        let first = disk.read_exact_at(at, &mut buf[..len]).is_ok();
        let again = disk.read_exact_at(at, &mut buf[..len]).is_ok();
        assert_eq!(first, again, "what cannot be read once is not read the second time");
    }
    assert!(disk.read_exact_at(size, &mut buf[..1]).is_err());
});
