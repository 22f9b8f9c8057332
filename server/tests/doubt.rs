//! A chunk that is spoiled on the server in a way that only its reader sees.
//!
//! Owns: that the restore fails, and that the server knows of it afterwards. Does not own:
//! reading again (the store's own tests).

mod support;

use image::record::{HEADER_LEN, RecordHeader};
use imager::keyring::Keyring;
use imager::progress::Silent;
use imager::remote::{Options, Remote, ServerAddress};
use serde_json::{Value, json};
use std::path::Path;
use support::*;

/// Changes a byte of the first record's payload, and all its checks with it.
fn spoil(state: &Path) {
    let folder = state.join("images/packs");
    let mut packs: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    packs.sort();
    let mut bytes = std::fs::read(&packs[0]).unwrap();
    let (head, rest) = bytes[32..].split_first_chunk_mut::<HEADER_LEN>().unwrap();
    let mut header = RecordHeader::decode(head, 0).unwrap();
    let payload = &mut rest[..header.stored_len as usize];
    payload[payload.len() / 2] ^= 1;
    header.payload_crc = crc32fast::hash(payload);
    *head = header.encode();
    std::fs::write(&packs[0], bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_hears_of_it_and_looks_itself() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().to_owned();
    let server = start(&state).await;
    let admin = Http::new(&server, &server.app.admin_token);
    let target = Target::new(&server, 1);
    let (address, pin) = (base(&server), server.pin);
    blocking(move || {
        target.check_in();
        let order = |job: Value| -> Value {
            let path = "/api/machines/pc-525400000001/executions";
            admin.json("POST", path, &json!({ "job": job })).unwrap()
        };
        order(json!({ "kind": "backup", "image": "gold" }));
        let session = target.job();
        session.back_up(&Image::new(7, 5)).unwrap();
        session.done().unwrap();
        spoil(&state);
        let damaged = |admin: &Http| -> Value {
            let all: Value = admin.json("GET", "/api/images", &()).unwrap();
            all[0]["damaged_chunks"].clone()
        };
        assert_eq!(damaged(&admin), json!(0));

        order(json!({ "kind": "restore", "image": "gold" }));
        let job = target.job().job;
        let disk = state.join("disk.img");
        std::fs::write(&disk, vec![9; 1 << 20]).unwrap();
        let info = wire::DiskInfo {
            path: disk.to_str().unwrap().to_owned(),
            size_bytes: 1 << 20,
            sector_size: 512,
            bus: "file".to_owned(),
            ..target.disk()
        };
        let address = ServerAddress::parse(&address).unwrap();
        let remote = Remote::new(&address, Some(&pin), &Options::default()).unwrap();
        let remote = remote.for_job(&job.execution, &job.token);
        let keyring = Keyring::default();
        let report = imager::job::run(&job, &remote, &[info], &keyring, &Silent).unwrap_err();
        assert_eq!(report.code, wire::Code::ImageDamaged, "{report:?}");
        assert!(
            report
                .found
                .ends_with("the server read its record again and found it damaged"),
            "{report:?}"
        );
        assert_eq!(damaged(&admin), json!(1));
    })
    .await;
    server.stop().await;
}
