//! Media of a kit of rubbish, and what others read of them.

use super::kit::{Kit, complete};
use super::{Image, Kind, Laid, Order, write};
use crate::progress::{ProgressSink, Silent};
use blockdev::Device;
use medium::{About, MAX_FILE};
use std::path::{Path, PathBuf};
use std::process::Command;
use wire::{Code, DiskState, Step};

/// A kit of the right form, of which nothing starts.
fn kit(folder: &Path) -> PathBuf {
    let kit = folder.join("kit");
    for dir in ["bios", "efi/BOOT"] {
        std::fs::create_dir_all(kit.join(dir)).unwrap();
    }
    let mut mbr = vec![0x90; 512];
    mbr[432..440].copy_from_slice(&1_u64.to_le_bytes());
    mbr[510..].copy_from_slice(&[0x55, 0xAA]);
    let mut core = vec![7; 40_000];
    core[2548..2556].copy_from_slice(&2_u64.to_le_bytes());
    let config = "linux {{arguments}} deploy.medium={{id}} # {{version}}\ninitrd {{initrds}}\n";
    for (name, bytes) in [
        ("VERSION", b"0.1.0\n".to_vec()),
        ("vmlinuz", vec![1; 100_000]),
        ("initramfs.img", vec![2; 300_000]),
        ("medium.cfg", config.into()),
        ("efi.cfg", b"search {{marker}}\n".to_vec()),
        ("bios/mbr.img", mbr),
        ("bios/core.img", core),
        ("efi/BOOT/BOOTX64.EFI", vec![3; 70_000]),
    ] {
        std::fs::write(kit.join(name), bytes).unwrap();
    }
    kit
}

fn image(folder: &Path, size: usize) -> Image {
    let path = folder.join("image");
    let bytes: Vec<u8> = (0..size).map(|n| (n / 999 % 251) as u8).collect();
    std::fs::write(&path, bytes).unwrap();
    Image {
        path,
        size_bytes: size as u64,
        root: [9; 32],
        name: "office".into(),
        unattended: true,
        force: false,
        disk: None,
    }
}

fn order<'a>(kit: &'a Kit, kind: Kind, image: Option<&'a Image>) -> Order<'a> {
    Order {
        kit,
        kind,
        volume_bytes: None,
        image,
        settings: None,
        append: &[],
    }
}

/// Writes a medium to a file; reads files of it.
fn written(folder: &Path, laid: &Laid, kind: Kind) -> impl Fn(&str) -> Vec<u8> {
    let path = folder.join("medium");
    let _ = std::fs::remove_file(&path);
    let device = Device::create_file(&path, laid.size_bytes).unwrap();
    write::write(laid, &device, &path, &Silent).unwrap();
    move |name: &str| {
        let path = path.to_str().unwrap();
        let (program, args) = match kind {
            Kind::Usb => (
                "mtype",
                vec!["-i".to_owned(), format!("{path}@@1M"), format!("::{name}")],
            ),
            Kind::Iso => {
                let upper = name.to_uppercase();
                let dot = if upper.contains('.') { "" } else { "." };
                let name = format!("/{upper}{dot};1");
                (
                    "isoinfo",
                    vec!["-i".to_owned(), path.to_owned(), "-x".to_owned(), name],
                )
            }
        };
        let output = Command::new(program)
            .args(&args)
            .env("MTOOLS_SKIP_CHECK", "1")
            .output()
            .expect("mtools and genisoimage are installed");
        assert!(output.status.success(), "{program} {args:?}");
        output.stdout
    }
}

#[test]
fn a_medium_carries_the_kit_and_says_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let kit = Kit::read(&kit(dir.path())).unwrap();
    let append = ["deploy.server=a;b".to_owned()];
    for kind in [Kind::Iso, Kind::Usb] {
        let order = Order {
            settings: Some(b"server=x\n"),
            append: &append,
            ..order(&kit, kind, None)
        };
        let laid = order.lay_out().unwrap();
        let [laid] = &laid[..] else { panic!("several") };
        let file = written(dir.path(), laid, kind);
        assert!(file("deploy-os/vmlinuz") == [1; 100_000]);
        assert!(file("deploy-os/initramfs.img") == [2; 300_000]);
        assert_eq!(file("deploy-os/settings"), b"server=x\n");
        let about = About::parse(&file("deploy-os/medium.json")).unwrap();
        assert_eq!(about, laid.about);
        assert_eq!(about.version, "0.1.0");
        let id = &about.id;
        let config = String::from_utf8(file("deploy-os/grub.cfg")).unwrap();
        assert_eq!(
            config,
            format!(
                "linux 'deploy.server=a;b' deploy.medium={id} # 0.1.0\ninitrd /deploy-os/initramfs.img\n"
            )
        );
        assert_eq!(
            file(&format!("deploy-os/id-{}", &id[..16])),
            format!("{id}\n").into_bytes()
        );
        if kind == Kind::Usb {
            assert!(file("EFI/BOOT/BOOTX64.EFI") == [3; 70_000]);
        }
        // The same again is the same; other words are another medium.
        let again = order.lay_out().unwrap();
        assert_eq!(again[0].pieces, laid.pieces);
        let other = Order {
            append: &[],
            ..order
        };
        assert_ne!(other.lay_out().unwrap()[0].about.id, *id);
    }
}

#[test]
fn an_image_goes_on_as_many_media_as_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    let kit = Kit::read(&kit(dir.path())).unwrap();
    let image = image(dir.path(), 20_000_001);
    let bytes = std::fs::read(&image.path).unwrap();
    for (kind, volume, count) in [
        (Kind::Iso, None, 1),
        (Kind::Iso, Some(15 << 20), 4),
        (Kind::Usb, None, 1),
        (Kind::Usb, Some(68 << 20), 1),
    ] {
        let order = Order {
            volume_bytes: volume,
            ..order(&kit, kind, Some(&image))
        };
        let laid = order.lay_out().unwrap();
        assert_eq!(laid.len(), count, "{kind:?} {volume:?}");
        let mut together = Vec::new();
        for (at, laid) in laid.iter().enumerate() {
            assert!(volume.is_none_or(|volume| laid.size_bytes <= volume));
            let file = written(dir.path(), laid, kind);
            let about = About::parse(&file("deploy-os/medium.json")).unwrap();
            let restore = about.restore.unwrap();
            assert_eq!(
                (restore.medium as usize, restore.media as usize),
                (at + 1, count)
            );
            assert_eq!(restore.start, together.len() as u64);
            assert!(restore.unattended);
            for part in &restore.parts {
                together.extend(file(&format!("deploy-os/{}", part.file)));
            }
            assert_eq!(laid.about.id, order.lay_out().unwrap()[0].about.id);
            let config = String::from_utf8(file("deploy-os/grub.cfg")).unwrap();
            assert!(
                config.starts_with("linux deploy.restore deploy.medium="),
                "{config}"
            );
        }
        assert!(together == bytes);
    }
}

#[test]
fn long_images_are_cut_where_fat_ends() {
    let dir = tempfile::tempdir().unwrap();
    let kit = Kit::read(&kit(dir.path())).unwrap();
    let mut image = image(dir.path(), 1);
    image.size_bytes = 10 << 30; // nothing is read for the layout
    for kind in [Kind::Iso, Kind::Usb] {
        let laid = order(&kit, kind, Some(&image)).lay_out().unwrap();
        let restore = laid[0].about.restore.as_ref().unwrap();
        let sizes: Vec<u64> = restore.parts.iter().map(|part| part.size_bytes).collect();
        assert_eq!(sizes[..2], [MAX_FILE, MAX_FILE]);
        assert_eq!(sizes.iter().sum::<u64>(), 10 << 30);
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let folder = kit(dir.path());
    let kit = Kit::read(&folder).unwrap();
    let image = image(dir.path(), 1000);
    let code = |order: Order<'_>| order.lay_out().unwrap_err().code;
    for word in ["", "a b", "it's", "\"", "\u{e4}"] {
        let append = [word.to_owned()];
        let order = Order {
            append: &append,
            ..order(&kit, Kind::Iso, None)
        };
        assert_eq!(code(order), Code::Usage, "{word:?}");
    }
    for (kind, volume) in [(Kind::Iso, 5 << 20), (Kind::Usb, 10 << 20)] {
        for image in [None, Some(&image)] {
            let order = Order {
                volume_bytes: Some(volume),
                ..order(&kit, kind, image)
            };
            // Without an image there is room enough on a small CD.
            match (kind, image) {
                (Kind::Iso, None) => assert_eq!(order.lay_out().unwrap().len(), 1),
                _ => assert_eq!(code(order), Code::NoSpace),
            }
        }
    }
    let unreadable = Image {
        name: "\u{1b}".into(),
        ..image.clone()
    };
    assert_eq!(code(order(&kit, Kind::Iso, Some(&unreadable))), Code::Usage);
    for name in [
        "VERSION",
        "vmlinuz",
        "medium.cfg",
        "efi.cfg",
        "bios/core.img",
    ] {
        let hidden = folder.join("hidden");
        std::fs::rename(folder.join(name), &hidden).unwrap();
        let report = Kit::read(&folder).unwrap_err();
        assert!(
            report.code == Code::Usage && report.found.contains(name),
            "{}",
            report.found
        );
        std::fs::rename(&hidden, folder.join(name)).unwrap();
    }
    assert!(complete("{{what}}", &[("id", "x")]).is_err());
    assert_eq!(
        complete("a{{id}}b{{id}}", &[("id", "{{x}}")]).unwrap(),
        "a{{x}}b{{x}}"
    );
}

/// Spoils the medium between writing and reading back.
struct Spoils<'a>(&'a Path);

impl ProgressSink for Spoils<'_> {
    fn step(&self, step: Step, _total_bytes: u64) {
        if step == Step::Verifying {
            use std::os::unix::fs::FileExt;
            let file = std::fs::File::options().write(true).open(self.0).unwrap();
            file.write_all_at(b"!", 40 << 10).unwrap();
        }
    }
    fn advance(&self, _plain_bytes: u64, _wire_bytes: u64) {}
    fn note(&self, _text: &str) {}
    fn interrupted(&self) -> bool {
        false
    }
}

#[test]
fn a_medium_that_gives_back_something_else_is_not_done() {
    let dir = tempfile::tempdir().unwrap();
    let kit = Kit::read(&kit(dir.path())).unwrap();
    let laid = order(&kit, Kind::Iso, None).lay_out().unwrap();
    let path = dir.path().join("medium");
    let device = Device::create_file(&path, laid[0].size_bytes).unwrap();
    let report = write::write(&laid[0], &device, &path, &Spoils(&path)).unwrap_err();
    assert_eq!(
        (report.code, report.disk),
        (Code::VerifyMismatch, DiskState::Incomplete)
    );
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes[..512], [0; 512], "it must not start");
}
