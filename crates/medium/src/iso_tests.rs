//! Images as isoinfo, xorriso and GRUB see them.

use super::{BLOCK, Image, lay_out};
use crate::bios::tests::bios;
use crate::testing::{run, text, write};
use crate::{Content, Entry};
use proptest::prelude::*;

fn entries() -> Vec<Entry> {
    let mut entries = vec![
        Entry::of_bytes("deploy-os/medium.json", *b"{}\n"),
        Entry::of_bytes("deploy-os/vmlinuz", vec![3; 5000]),
        Entry::of_bytes("deploy-os/empty", Vec::new()),
        Entry::of_file("deploy-os/image.0001", 0, 3, 9000),
        Entry::of_bytes("deep/er/file.x", *b"deep"),
        Entry::of_bytes("top", *b"top"),
    ];
    // A folder of more than one block.
    entries.extend((0..80).map(|n| Entry::of_bytes(&format!("many/file-{n:03}.txt"), vec![n])));
    entries
}

fn efi() -> Vec<Entry> {
    vec![Entry::of_bytes("EFI/BOOT/BOOTX64.EFI", vec![9; 70_000])]
}

#[test]
fn others_read_what_was_put_in() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.iso");
    let large: Vec<u8> = (0..20_000_u32).map(|n| (n % 241) as u8).collect();
    let (entries, efi, bios) = (entries(), efi(), bios());
    let image = Image {
        entries: &entries,
        efi: &efi,
        bios: Some(&bios),
        serial: 0xDEAD_BEEF,
    };
    let (pieces, size) = lay_out(&image).unwrap();
    write(&path, size, &pieces, &[&large]);
    let at = path.to_str().unwrap();

    let list = text("isoinfo", &["-f", "-i", at]);
    for entry in &entries {
        let upper = entry.path.to_ascii_uppercase();
        let dot = if upper.contains('.') { "" } else { "." };
        let name = format!("/{upper}{dot};1");
        assert!(list.lines().any(|line| line == name), "{name} in {list}");
        let expected = match &entry.content {
            Content::Bytes(bytes) => bytes.as_slice(),
            _ => &large[3..9003],
        };
        assert!(
            run("isoinfo", &["-i", at, "-x", &name]) == expected,
            "{name}"
        );
        // By the names that the kernel and we use.
        let read = run("grub-fstest", &[at, "cat", &format!("/{}", entry.path)]);
        assert!(read == expected, "GRUB: {name}");
    }
    let volume = text("isoinfo", &["-d", "-i", at]);
    assert!(volume.contains("Volume id: DEPLOY-OS"), "{volume}");
    assert!(
        volume.contains(&format!("Volume size is: {}", size / BLOCK)),
        "{volume}"
    );

    let boot = text("xorriso", &["-indev", at, "-report_el_torito", "plain"]);
    let images: Vec<_> = boot
        .lines()
        .filter(|l| l.starts_with("El Torito boot img :"))
        .collect();
    assert!(
        images[0].contains("BIOS") && images[1].contains("UEFI"),
        "{boot}"
    );
    // The stick's EFI partition is a FAT volume of its own.
    let bytes = std::fs::read(&path).unwrap();
    // Both ways lead to the same core, which knows where its rest is.
    let catalogue = 19 * 2048;
    let block = u32::from_le_bytes(bytes[catalogue + 40..catalogue + 44].try_into().unwrap());
    let sector = u64::from(block) * 4;
    assert_eq!(bytes[432..440], (sector + 4).to_le_bytes());
    let core = block as usize * 2048;
    assert_eq!(bytes[core + 2548..core + 2556], (sector + 5).to_le_bytes());
    assert_eq!(bytes[core + 8..core + 12], 16_u32.to_le_bytes());
    assert_eq!(bytes[core + 3000..core + 9000], bios.core[3000..9000]);
    let first = u32::from_le_bytes(bytes[470..474].try_into().unwrap());
    assert_eq!(bytes[466], 0xEF);
    let partition = format!("{at}@@{}", u64::from(first) * 512);
    let program = run("mtype", &["-i", &partition, "::EFI/BOOT/BOOTX64.EFI"]);
    assert!(program == [9; 70_000]);
}

#[test]
fn media_for_one_kind_of_firmware() {
    let dir = tempfile::tempdir().unwrap();
    let (entries, efi, bios) = (entries(), efi(), bios());
    for (efi, bios, words) in [(&efi[..], None, "UEFI"), (&[], Some(&bios), "BIOS")] {
        let image = Image {
            entries: &entries[..3],
            efi,
            bios,
            serial: 1,
        };
        let (pieces, size) = lay_out(&image).unwrap();
        let path = dir.path().join("a.iso");
        write(&path, size, &pieces, &[]);
        let at = path.to_str().unwrap();
        let boot = text("xorriso", &["-indev", at, "-report_el_torito", "plain"]);
        let images = boot
            .lines()
            .filter(|l| l.starts_with("El Torito boot img :"));
        let images: Vec<&str> = images.collect();
        assert!(matches!(images[..], [one] if one.contains(words)), "{boot}");
    }
}

#[test]
fn the_same_is_laid_out_the_same() {
    let (entries, efi, bios) = (entries(), efi(), bios());
    let image = Image {
        entries: &entries,
        efi: &efi,
        bios: Some(&bios),
        serial: 5,
    };
    assert_eq!(lay_out(&image), lay_out(&image));
}

proptest! {
    #[test]
    fn every_byte_is_laid_out_once(
        sizes in proptest::collection::vec(0_u64..5 << 30, 0..12), folders in 1_usize..4,
    ) {
        let entries: Vec<Entry> = sizes.iter().enumerate().map(|(n, &size_bytes)| Entry {
            path: format!("d{}/file-{n}", n % folders),
            size_bytes,
            content: Content::File { index: 0, offset: 0 },
        }).collect();
        let image = Image { entries: &entries, efi: &efi(), bios: Some(&bios()), serial: 1 };
        let too_large = sizes.iter().any(|&size| size > crate::MAX_FILE);
        match lay_out(&image) {
            Ok((pieces, size)) => {
                prop_assert!(!too_large);
                let mut end = 0;
                for piece in pieces {
                    prop_assert_eq!(piece.at, end);
                    end += piece.len;
                }
                prop_assert_eq!(end, size);
            }
            Err(_) => prop_assert!(too_large),
        }
    }
}
