//! The codec that an order names is the one that travels, and what it sends can be restored.
//!
//! Owns: the way from `deployctl backup --codec` to the records. Does not own: the codecs
//! (the image format's tests), what they cost (the benchmark).

use std::fs;
use std::os::unix::fs::FileExt;

use e2e::fleet::{Fleet, Machine};
use testkit::build::DiskBuilder;

const MIB: u64 = 1 << 20;
const TEXT: u64 = 8 * MIB;

#[test]
fn an_order_s_codec_is_what_is_sent() {
    let fleet = Fleet::new(&[]).unwrap();
    let disk = fleet.dir().join("disk.img");
    let disk = DiskBuilder::gpt(TEXT + 4 * MIB, 512)
        .raw(TEXT, 7)
        .build(&disk)
        .path;
    let machine = Machine::new(1, &[&disk]);
    let name = fleet.register(&machine).unwrap();
    let order = |words: &[&str]| fleet.ctl(words);
    let job = || {
        let end = fleet.boot(&machine, &fleet.url()).unwrap().finish();
        let end = end.unwrap();
        assert_eq!(end.json["result"], "done", "{end:?}");
        end.json["wire_bytes"].as_u64().unwrap()
    };
    let mut sent = Vec::new();
    for (number, options) in [
        &["--codec", "none"][..],
        &["--codec", "deflate", "--level", "9"],
        &["--codec", "zstd", "--level", "3"],
        &[],
    ]
    .into_iter()
    .enumerate()
    {
        // Text that the server has not seen: numbers from another start.
        let lines = (0..).map(|line: u64| format!("{number} {line:07} of many\n"));
        let text: Vec<u8> = lines
            .flat_map(String::into_bytes)
            .take(TEXT as usize)
            .collect();
        let file = fs::OpenOptions::new().write(true).open(&disk).unwrap();
        file.write_all_at(&text, MIB).unwrap();
        let before = fs::read(&disk).unwrap();
        let image = format!("image-{number}");
        let mut words = vec!["backup", &name, "--image", &image];
        words.extend(options);
        order(&words).unwrap();
        sent.push(job());
        file.write_all_at(&vec![0xA5; before.len()], 0).unwrap();
        order(&["restore", &name, "--image", &image, "--yes"]).unwrap();
        job();
        assert!(fs::read(&disk).unwrap() == before, "{options:?}");
    }
    println!("sent by none, deflate 9, zstd 3, default: {sent:?}");
    let [none, deflate, zstd, default] = sent[..] else {
        panic!("four runs: {sent:?}")
    };
    assert!((TEXT..TEXT + MIB).contains(&none), "{sent:?}");
    assert!(deflate < TEXT / 2 && zstd < TEXT / 2 && default < TEXT / 2);
    assert!(deflate != default && zstd != default, "{sent:?}");

    let refused = order(&[
        "backup", &name, "--image", "x", "--codec", "deflate", "--level", "12",
    ]);
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("level 12; levels are 1 to 9"), "{refused}");
}
