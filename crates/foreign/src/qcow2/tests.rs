//! qcow2 files made by hand: what QEMU's own tools do not write on demand.

use super::{Backing, Qcow2};
use crate::Error;
use diskmap::DiskRead;
use proptest::prelude::{ProptestConfig, any, prop, proptest};

const CLUSTER: usize = 512;

/// Clusters of 512 bytes: header, first table at 512, second table at 1024, data from 1536.
/// The disk has four clusters, whose entries are given.
fn file(version: u8, entries: [u64; 4], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 1536];
    bytes[..8].copy_from_slice(&[b'Q', b'F', b'I', 0xfb, 0, 0, 0, version]);
    bytes[23] = 9;
    bytes[24..32].copy_from_slice(&(4 * CLUSTER as u64).to_be_bytes());
    bytes[39] = 1;
    bytes[40..48].copy_from_slice(&512u64.to_be_bytes());
    bytes[103] = 104;
    bytes[512..520].copy_from_slice(&(1024u64 | 1 << 63).to_be_bytes());
    for (n, entry) in entries.iter().enumerate() {
        bytes[1024 + n * 8..][..8].copy_from_slice(&entry.to_be_bytes());
    }
    bytes.extend_from_slice(data);
    bytes
}

fn open(bytes: Vec<u8>) -> Result<Qcow2<Vec<u8>>, Error> {
    let len = bytes.len() as u64;
    Qcow2::open(bytes, len, &mut |_| Error::damaged("no backing file here"))
}

#[test]
fn each_kind_of_cluster_is_read() {
    let data = [[1u8; CLUSTER], [2; CLUSTER]].concat();
    let marked = [1536 | 1 << 63, 2048, 2048 | 1, 0];
    let plain = [1536 | 1 << 63, 2048, 2048, 0];
    for (version, entries, third) in [(3, marked, 0), (3, plain, 2), (2, plain, 2)] {
        let disk = open(file(version, entries, &data)).unwrap();
        let mut all = vec![9; 4 * CLUSTER];
        disk.read_exact_at(0, &mut all).unwrap();
        let wanted = [1, 2, third, 0].map(|b| [b; CLUSTER]).concat();
        assert!(all == wanted, "version {version}");
        let mut some = [9; 4];
        disk.read_exact_at(510, &mut some).unwrap();
        assert_eq!(some, [1, 1, 2, 2]);
        assert!(disk.read_exact_at(2045, &mut some).is_err());
        assert!(disk.read_exact_at(u64::MAX, &mut some).is_err());
    }
}

#[test]
fn a_mark_that_version_2_has_not_is_damage() {
    for entry in [1536 | 1, 1] {
        let disk = open(file(2, [entry, 0, 0, 0], &[1; CLUSTER])).unwrap();
        let error = disk.read_exact_at(0, &mut [0]).unwrap_err();
        assert!(
            matches!(Error::of(&error), Some(Error::Damaged { .. })),
            "{error}"
        );
    }
}

#[test]
fn what_is_behind_the_end_of_the_file_is_damage() {
    let data = [7; CLUSTER];
    let mut buf = [0; CLUSTER];
    for entry in [2048, 2048 << 20, 1536 + 8, 1 << 62 | 5000] {
        // The second of two is never cut off by accident.
        let disk = open(file(3, [1536, entry & !7, 0, 0], &data)).unwrap();
        disk.read_exact_at(0, &mut buf).unwrap();
        let wrong = entry & !511 != entry && entry < 1 << 62;
        let result = disk.read_exact_at(512, &mut buf);
        // Bits below the offset are no part of it.
        assert_eq!(result.is_ok(), wrong, "{entry}: {result:?}");
    }
    let torn = file(3, [1536, 0, 0, 0], &data[..511]);
    let error = open(torn).unwrap().read_exact_at(0, &mut buf).unwrap_err();
    assert!(
        matches!(Error::of(&error), Some(Error::Damaged { .. })),
        "{error}"
    );
}

#[test]
fn a_compressed_cluster_that_is_damaged_is_noticed() {
    let data = vec![0xff; CLUSTER];
    let disk = open(file(3, [1 << 62 | 1536, 0, 0, 0], &data)).unwrap();
    let mut buf = [0; CLUSTER];
    for _ in 0..2 {
        let error = disk.read_exact_at(0, &mut buf).unwrap_err();
        assert!(error.to_string().contains("damaged"), "{error}");
    }
}

#[test]
fn behind_a_shorter_backing_disk_there_are_zeros() {
    let mut bytes = file(2, [0, 1536, 0, 0], &[5; CLUSTER]);
    bytes[8..16].copy_from_slice(&200u64.to_be_bytes());
    bytes[19] = 4;
    bytes[200..204].copy_from_slice(b"base");
    let len = bytes.len() as u64;
    let disk = Qcow2::open(bytes.clone(), len, &mut |name| {
        assert_eq!((name.name.as_str(), name.format.as_deref()), ("base", None));
        Ok(Backing {
            disk: Box::new(vec![8u8; 1100]),
            size: 1100,
        })
    });
    let mut all = vec![9; 4 * CLUSTER];
    disk.unwrap().read_exact_at(0, &mut all).unwrap();
    let wanted = [vec![8; 512], vec![5; 512], vec![8; 76], vec![0; 948]].concat();
    assert!(all == wanted);
    // Without it, nothing is read.
    assert!(open(bytes).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn no_input_makes_it_panic(
        changes in prop::collection::vec((0usize..1600, any::<u8>()), 0..12),
        cut in 0usize..2560, offset in 0u64..2100, len in 0usize..1100,
    ) {
        let mut bytes = file(3, [1536, 1 << 62 | 1536, 2048, 0], &[3; 1024]);
        for (at, value) in changes {
            bytes[at] = value;
        }
        bytes.truncate(cut);
        if let Ok(disk) = open(bytes) {
            let mut buf = vec![0; len];
            let _ = disk.read_exact_at(offset, &mut buf);
        }
    }
}
