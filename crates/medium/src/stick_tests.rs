//! Sticks as sfdisk and mtools see them.

use super::{MIN_BYTES, Stick, lay_out};
use crate::bios::tests::bios;
use crate::testing::{run, text, write};
use crate::{Content, Entry, Error};

fn entries() -> Vec<Entry> {
    vec![
        Entry::of_bytes("deploy-os/settings", *b"server=x\n"),
        Entry::of_bytes("EFI/BOOT/BOOTX64.EFI", vec![9; 70_000]),
        Entry::of_file("deploy-os/image.0001", 0, 0, 100_000),
    ]
}

#[test]
fn a_stick_has_one_partition_that_others_read() {
    let dir = tempfile::tempdir().unwrap();
    let (entries, bios, large) = (entries(), bios(), vec![5; 100_000]);
    for size_bytes in [MIN_BYTES, (9 << 30) + 12_345] {
        let stick = Stick {
            entries: &entries,
            bios: Some(&bios),
            serial: 0xDEAD_BEEF,
            size_bytes,
        };
        let pieces = lay_out(&stick).unwrap();
        // Most of a stick is not written.
        let written: u64 = pieces.iter().map(|piece| piece.len).sum();
        assert!(written < 24 << 20, "{written}");
        let path = dir.path().join("stick");
        write(&path, size_bytes, &pieces, &[&large]);
        let at = path.to_str().unwrap();
        let table = text("sfdisk", &["--dump", at]);
        assert!(table.contains("label-id: 0xdeadbeef"), "{table}");
        let partition = table.lines().last().unwrap();
        assert!(
            partition.contains("start=        2048") && partition.contains("type=c, bootable"),
            "{table}"
        );
        let inside = format!("{at}@@1M");
        for entry in &entries {
            let content = run("mtype", &["-i", &inside, &format!("::{}", entry.path)]);
            match &entry.content {
                Content::Bytes(bytes) => assert_eq!(&content, bytes),
                _ => assert!(content == large),
            }
        }
        let read = run(
            "grub-fstest",
            &[at, "cat", "(loop0,msdos1)/deploy-os/settings"],
        );
        assert_eq!(read, b"server=x\n");
        let mut first = vec![0; 1 << 20];
        let mut file = std::fs::File::open(&path).unwrap();
        std::io::Read::read_exact(&mut file, &mut first).unwrap();
        assert_eq!(first[432..440], 1_u64.to_le_bytes());
        assert_eq!(first[512 + 500..512 + 508], 2_u64.to_le_bytes());
        assert!(
            first[16 << 10..].iter().all(|&b| b == 0),
            "what was there before"
        );
        if size_bytes == MIN_BYTES {
            let partition = dir.path().join("partition");
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(&partition, &bytes[1 << 20..(63 << 20)]).unwrap();
            text("fsck.fat", &["-n", partition.to_str().unwrap()]);
            assert!(bytes[63 << 20..].iter().all(|&b| b == 0));
        }
    }
}

#[test]
fn a_stick_can_be_filled() {
    let mut entries = entries();
    let stick = |entries: &[Entry]| {
        let stick = Stick {
            entries,
            bios: None,
            serial: 1,
            size_bytes: MIN_BYTES,
        };
        (stick.free_bytes(), lay_out(&stick).map(|_| ()))
    };
    let (free, laid) = stick(&entries);
    assert_eq!(laid, Ok(()));
    entries.push(Entry {
        path: "rest".into(),
        size_bytes: free.unwrap(),
        content: Content::Zeros,
    });
    assert_eq!(stick(&entries).0, Ok(0));
    entries.push(Entry::of_bytes("more", *b"x"));
    assert!(matches!(stick(&entries).1, Err(Error::Full { .. })));
}

#[test]
fn small_ones_are_refused() {
    let stick = Stick {
        entries: &[],
        bios: None,
        serial: 1,
        size_bytes: MIN_BYTES - 1,
    };
    assert!(matches!(lay_out(&stick), Err(Error::Size { .. })));
}
