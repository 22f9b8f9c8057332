//! Encrypted images on a server that has no key.
//!
//! Owns: what the server stores, shares and checks of them. Does not own: what the key's
//! owner proves (`image`).

mod support;

use image::manifest::{ManifestReader, ManifestWriter};
use image::record::{Compression, Decoder, Encoder, RecordReader};
use image::{ChunkRef, Hash, ImageKey, seal};
use serde_json::{Value, json};
use std::sync::Arc;
use support::*;

/// The image of these bytes as a target with the key makes it.
fn sealed(key: &Arc<ImageKey>, plain: Vec<u8>) -> Image {
    let open = Image::of(plain);
    let mut reader = ManifestReader::open(&open.manifest[..]).unwrap();
    let layout = reader.layout().sealed(key, "a key file").unwrap();
    let (mut chunks, mut records) = (Vec::new(), Vec::new());
    let encoder = Encoder::new(Compression::Zstd(1)).unwrap();
    let mut encoder = encoder.sealed_with(Some(Arc::clone(key)));
    for cell in open.plain.chunks(CELL as usize) {
        let mut record = Vec::new();
        let header = encoder.encode(cell, &mut record).unwrap();
        chunks.push(ChunkRef {
            name: header.name,
            plain_len: header.plain_len,
        });
        records.push(record);
    }
    let writer = ManifestWriter::new(Vec::new(), &layout).unwrap();
    let mut writer = writer.sealed_with(Some(Arc::clone(key)));
    let mut left = &chunks[..];
    while let Some(page) = reader.next_page().unwrap() {
        let (now, later) = left.split_at(page.cells.len());
        writer.page(&page.cells, now).unwrap();
        left = later;
    }
    Image {
        manifest: writer.finish().unwrap().0,
        plain: open.plain,
        chunks,
        records,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_the_key_keeps_shares_and_checks_encrypted_chunks() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await;
    let admin = Http::new(&server, &server.app.admin_token);
    let target = Target::new(&server, 1);
    blocking(move || {
        target.check_in();
        let order = |job: Value| -> Value {
            let path = "/api/machines/pc-525400000001/executions";
            admin.json("POST", path, &json!({ "job": job })).unwrap()
        };
        let (own, other) = (
            Arc::new(ImageKey::new(&[1; 32])),
            Arc::new(ImageKey::new(&[2; 32])),
        );
        let image = sealed(&own, Image::new(7, 5).plain);
        order(json!({ "kind": "backup", "image": "secret" }));
        let session = target.job();

        // A payload that changed on its way is refused, key or not.
        let mut torn = image.records[0].clone();
        *torn.last_mut().unwrap() ^= 1;
        assert!(session.upload(&torn).is_err());
        assert!(torn.len() > 100 && !session.have(&[image.chunks[0].name]).unwrap()[0]);

        session.back_up(&image).unwrap();
        let names: Vec<Hash> = image.chunks.iter().map(|c| c.name).collect();
        assert_eq!(
            session.have(&names).unwrap(),
            [true; 5],
            "shared within the key"
        );
        // Neither the same bytes in the clear nor those of another key are there now.
        let cells = || image.plain.chunks(CELL as usize);
        let clear: Vec<Hash> = cells().map(Hash::of).collect();
        let foreign: Vec<Hash> = cells().map(|cell| seal::name(Some(&other), cell)).collect();
        assert_eq!(session.have(&clear).unwrap(), [false; 5]);
        assert_eq!(session.have(&foreign).unwrap(), [false; 5]);
        session.done().unwrap();

        let info: Value = admin.json("GET", "/api/images/secret", &()).unwrap();
        assert_eq!(info["signed_by"].as_array().map(Vec::len), Some(1));
        let key_id = info["layout"]["encryption"]["key_id"].as_str();
        assert_eq!(key_id, Some(own.id().to_string().as_str()));
        let verified: Value = admin
            .json("POST", "/api/images/secret/verify", &())
            .unwrap();
        assert_eq!(
            (&verified["chunks"], &verified["damaged"]),
            (&json!(5), &json!(0))
        );

        // What comes back is what the key's owner made.
        order(json!({ "kind": "restore", "image": "secret" }));
        let session = target.job();
        let manifest = session
            .http
            .bytes("GET", &session.path("manifest"), &[])
            .unwrap();
        let mut reader = ManifestReader::open(&manifest[..]).unwrap();
        reader.unlock(Arc::clone(&own)).unwrap();
        let page = reader.next_page().unwrap().unwrap();
        assert!(reader.next_page().unwrap().is_none() && reader.signatures().len() == 1);
        let body: Vec<u8> = page.chunks.iter().flat_map(|chunk| chunk.name.0).collect();
        let answer = session
            .http
            .bytes("POST", &session.path("fetch"), &body)
            .unwrap();
        let mut records = RecordReader::new(&answer[..], 0);
        let mut decoder = Decoder::new().opened_with(Some(own));
        let (mut payload, mut plain, mut all) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(header) = records.next_record(&mut payload).unwrap() {
            decoder.decode(&header, &payload, 0, &mut plain).unwrap();
            all.extend_from_slice(&plain);
        }
        assert!(all == image.plain);
    })
    .await;
    server.stop().await;
}
