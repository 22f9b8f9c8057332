//! Tests of the store without HTTP.

mod compact;
mod damage;
mod doubt;
mod full;
mod race;
mod rebuild;
mod scrub;
mod set;
mod trials;

use super::{BodyReader, Store};
use crate::db::executions::{self, Execution};
use crate::db::{self, Db, chunks, images, machines};
use crate::exec::state::State;
use crate::exec::state::tests::{backup, execution};
use crate::failure::Outcome;
use crate::identity::Identity;
use axum::body::Bytes;
use image::cells::cut;
use image::layout::{Disk, Region, Table};
use image::manifest::ManifestWriter;
use image::record::{Compression, Encoder};
use image::{ChunkRef, Hash, Layout};
use std::sync::Arc;
use tokio::sync::mpsc;
use wire::{Code, Published, Stored};

const CELL: u32 = 64 << 10;

struct Fixture {
    store: Arc<Store>,
    db: Arc<Db>,
    dir: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let db = Arc::new(db::tests::open(dir.path()).await);
        let store = Arc::new(
            Store::open(&dir.path().join("images"), Arc::clone(&db))
                .await
                .unwrap(),
        );
        let fixture = Fixture { store, db, dir };
        let mut tx = fixture.db.write().await.unwrap();
        machines::insert(
            tx.conn(),
            "m",
            "pc",
            &Identity::new(["52:54:00:00:00:01"], "", ""),
            0,
        )
        .await
        .unwrap();
        tx.commit().await.unwrap();
        fixture
    }

    /// The store as a server finds it at its next start.
    async fn reopened(&self) -> Arc<Store> {
        Arc::new(
            Store::open(&self.dir.path().join("images"), Arc::clone(&self.db))
                .await
                .unwrap(),
        )
    }

    async fn backup(&self, id: &str, name: &str) -> Execution {
        let mut new = execution(backup(), State::Running);
        new.id = id.to_owned();
        new.job = wire::JobKind::Backup {
            disk: None,
            image: name.to_owned(),
            full: false,
            codec: wire::Codec::default(),
            level: 1,
            partitions: Vec::new(),
            full_partitions: Vec::new(),
            skip_bad: false,
            disks: Vec::new(),
        };
        new.open = false;
        let mut tx = self.db.write().await.unwrap();
        executions::insert(tx.conn(), &new).await.unwrap();
        chunks::open_lease(tx.conn(), id).await.unwrap();
        tx.commit().await.unwrap();
        new
    }

    async fn upload(&self, id: &str, bytes: &[u8]) -> Outcome<Stored> {
        self.store
            .upload(id, Some(bytes.len() as u64), body(bytes))
            .await
    }

    async fn publish(&self, execution: &Execution, manifest: &[u8]) -> Outcome<Published> {
        self.store.publish(execution, "pc", body(manifest), 1).await
    }

    async fn end_lease(&self, id: &str) {
        let mut tx = self.db.write().await.unwrap();
        chunks::end_lease(tx.conn(), id, 0).await.unwrap();
        tx.commit().await.unwrap();
        self.store.release(1).await.unwrap();
    }

    async fn visible(&self) -> usize {
        images::all(&mut self.db.read().await.unwrap())
            .await
            .unwrap()
            .len()
    }

    fn files(&self, folder: &str) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.dir.path().join("images").join(folder))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|name| folder == "lost" || !name.ends_with(".about"))
            .collect();
        names.sort();
        names
    }
}

/// The row of an image of execution "e1" that is being published.
fn half_made(id: &str) -> images::Image {
    images::Image {
        id: id.into(),
        name: "a".into(),
        series: "a".into(),
        machine: "m".into(),
        machine_name: "pc".into(),
        execution: "e1".into(),
        created: 0,
        root: String::new(),
        disk_bytes: 0,
        used_bytes: 0,
        chunks: 0,
        stored_bytes: 0,
        order: 0,
        pinned: false,
        damaged: false,
        set: None,
    }
}

fn body(bytes: &[u8]) -> BodyReader {
    let (sender, receiver) = mpsc::channel(1024);
    for part in bytes.chunks(50_000) {
        sender.try_send(Ok(Bytes::copy_from_slice(part))).unwrap();
    }
    BodyReader::new(receiver)
}

fn broken_body(bytes: &[u8]) -> BodyReader {
    let (sender, receiver) = mpsc::channel(1024);
    sender.try_send(Ok(Bytes::copy_from_slice(bytes))).unwrap();
    sender.try_send(Err(std::io::Error::other("cut"))).unwrap();
    BodyReader::new(receiver)
}

struct Sample {
    chunks: Vec<ChunkRef>,
    records: Vec<Vec<u8>>,
    manifest: Vec<u8>,
}

fn sample(seed: u8, count: u64) -> Sample {
    sample_of(u64::from(seed), count)
}

fn sample_of(seed: u64, count: u64) -> Sample {
    let size = count * u64::from(CELL);
    let layout = Layout {
        created: "2026-01-02T03:04:05Z".into(),
        tool: "test".into(),
        disk: Disk {
            size_bytes: size,
            sector_size: 512,
            ..Disk::default()
        },
        cell_size: CELL,
        table: Table {
            kind: "none".into(),
            blobs: vec![],
        },
        regions: vec![Region {
            kind: "whole".into(),
            size,
            used_bytes: size,
            method: "full".into(),
            ..Region::default()
        }],
        ..Layout::default()
    };
    let mut encoder = Encoder::new(Compression::None).unwrap();
    let (mut chunks, mut records) = (Vec::new(), Vec::new());
    for number in 0..count {
        let mut plain = vec![seed as u8; CELL as usize];
        plain[..8].copy_from_slice(&number.to_le_bytes());
        plain[8..16].copy_from_slice(&seed.to_le_bytes());
        let mut record = Vec::new();
        let header = encoder.encode(&plain, &mut record).unwrap();
        chunks.push(ChunkRef {
            name: header.name,
            plain_len: header.plain_len,
        });
        records.push(record);
    }
    let cells: Vec<_> = cut(0, CELL, [(0, size)]).collect();
    let mut writer = ManifestWriter::new(Vec::new(), &layout).unwrap();
    writer.page(&cells, &chunks).unwrap();
    let (manifest, _) = writer.finish().unwrap();
    Sample {
        chunks,
        records,
        manifest,
    }
}

fn names(sample: &Sample) -> Vec<Hash> {
    sample.chunks.iter().map(|c| c.name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_stored_once_and_said_to_be_there() {
    let f = Fixture::new().await;
    f.backup("e1", "a").await;
    let s = sample(1, 9);
    assert_eq!(f.store.have("e1", &names(&s)).await.unwrap(), [0, 0]);
    let stored = f.upload("e1", &s.records.concat()).await.unwrap();
    assert_eq!(
        stored,
        Stored {
            stored: 9,
            duplicate: 0
        }
    );
    assert_eq!(f.store.have("e1", &names(&s)).await.unwrap(), [0xff, 1]);
    let stored = f.upload("e1", &s.records.concat()).await.unwrap();
    assert_eq!(
        stored,
        Stored {
            stored: 0,
            duplicate: 9
        }
    );
    assert_eq!(f.files("packs").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_is_refused_and_what_came_before_it_kept() {
    let f = Fixture::new().await;
    f.backup("e1", "a").await;
    let s = sample(1, 3);
    for at in [5, 70, CELL as usize] {
        let mut records = s.records.clone();
        records[2][at] ^= 1;
        let failure = f.upload("e1", &records.concat()).await.unwrap_err();
        assert_eq!(failure.report.code, Code::ImageDamaged, "flip at {at}");
    }
    // A right checksum under a wrong name.
    let mut forged = s.records[2].clone();
    forged[16..48].copy_from_slice(&[9; 32]);
    let crc = crc32fast::hash(&forged[..60]);
    forged[60..64].copy_from_slice(&crc.to_le_bytes());
    let failure = f.upload("e1", &forged).await.unwrap_err();
    assert_eq!(failure.report.code, Code::ImageDamaged);
    assert_eq!(f.store.have("e1", &names(&s)).await.unwrap(), [0b011]);
    assert_eq!(f.store.have("e1", &[Hash([9; 32])]).await.unwrap(), [0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_breaks_off_is_no_success() {
    let f = Fixture::new().await;
    f.backup("e1", "a").await;
    let s = sample(1, 2);
    // Exactly between two records, and within one.
    for cut in [s.records[0].len(), s.records[0].len() + 100] {
        let bytes = &s.records.concat()[..cut];
        let failure = f
            .store
            .upload("e1", None, broken_body(bytes))
            .await
            .unwrap_err();
        assert_eq!(failure.report.code, Code::ConnectionLost);
    }
    assert_eq!(f.store.have("e1", &names(&s)).await.unwrap(), [0b01]);
    let e = f.backup("e2", "a").await;
    let failure = f
        .store
        .publish(&e, "pc", broken_body(&s.manifest), 1)
        .await
        .unwrap_err();
    assert_eq!(failure.report.code, Code::ConnectionLost);
    assert_eq!((f.visible().await, f.files("manifests").len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_with_a_missing_chunk_or_damage_is_refused_without_a_trace() {
    let f = Fixture::new().await;
    let e = f.backup("e1", "a").await;
    let s = sample(1, 3);
    f.upload("e1", &s.records[..2].concat()).await.unwrap();
    let failure = f.publish(&e, &s.manifest).await.unwrap_err();
    assert_eq!(failure.report.code, Code::ImageDamaged);
    assert!(failure.report.found.contains("not stored"), "{failure}");
    f.upload("e1", &s.records[2]).await.unwrap();
    let middle = s.manifest.len() / 2;
    let mut flipped = s.manifest.clone();
    flipped[middle] ^= 1;
    for broken in [&flipped[..], &s.manifest[..middle], &[], b"nonsense"] {
        assert_eq!(
            f.publish(&e, broken).await.unwrap_err().report.code,
            Code::ImageDamaged
        );
    }
    assert_eq!((f.visible().await, f.files("manifests").len()), (0, 0));
    let published = f.publish(&e, &s.manifest).await.unwrap();
    assert_eq!(f.publish(&e, &s.manifest).await.unwrap(), published);
    assert_eq!((f.visible().await, f.files("manifests").len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_machines_name_is_refused_at_publishing_too() {
    let f = Fixture::new().await;
    let mut tx = f.db.write().await.unwrap();
    machines::insert(
        tx.conn(),
        "m2",
        "pc2",
        &Identity::new(["52:54:00:00:00:02"], "", ""),
        0,
    )
    .await
    .unwrap();
    tx.commit().await.unwrap();
    let first = f.backup("e1", "gold").await;
    let second = f.backup("e2", "gold").await;
    let s = sample(1, 2);
    f.upload("e1", &s.records.concat()).await.unwrap();
    f.publish(&first, &s.manifest).await.unwrap();
    let second = Execution {
        machine: "m2".into(),
        ..second
    };
    let failure = f.publish(&second, &s.manifest).await.unwrap_err();
    assert_eq!(failure.report.code, Code::ImageExists);
    assert_eq!((f.visible().await, f.files("manifests").len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_live_as_long_as_something_holds_them() {
    let f = Fixture::new().await;
    let e = f.backup("e1", "a").await;
    let s = sample(1, 3);
    f.upload("e1", &s.records.concat()).await.unwrap();
    assert_eq!(f.store.collect().await.unwrap(), 0, "held by the execution");
    let image = f.publish(&e, &s.manifest).await.unwrap().image;
    f.end_lease("e1").await;
    assert_eq!(f.store.collect().await.unwrap(), 0, "held by the image");
    f.backup("e2", "b").await;
    f.store.have("e2", &names(&s)).await.unwrap();
    f.store.delete(&image).await.unwrap();
    assert_eq!(f.files("packs").len(), 1, "\"have\" holds it");
    assert_eq!(f.files("manifests").len(), 0);
    f.end_lease("e2").await;
    assert_eq!(f.files("packs").len(), 0);
    assert_eq!(f.store.have("e2", &names(&s)).await.unwrap(), [0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_being_restored_is_not_deleted() {
    let f = Fixture::new().await;
    let e = f.backup("e1", "a").await;
    let s = sample(1, 1);
    f.upload("e1", &s.records.concat()).await.unwrap();
    let image = f.publish(&e, &s.manifest).await.unwrap();
    let mut restore = execution(crate::exec::state::tests::restore(), State::Running);
    restore.id = "r".into();
    let wire::JobKind::Restore { image: source, .. } = &mut restore.job else {
        panic!("no restore")
    };
    source.clone_from(&image.image);
    let mut tx = f.db.write().await.unwrap();
    executions::insert(tx.conn(), &restore).await.unwrap();
    tx.commit().await.unwrap();
    assert!(f.store.delete(&image.image).await.is_err());
    assert_eq!(f.visible().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_after_a_crash_drops_what_was_half_made() {
    let f = Fixture::new().await;
    let e = f.backup("e1", "a").await;
    let s = sample(1, 3);
    f.upload("e1", &s.records.concat()).await.unwrap();
    let packs = f.dir.path().join("images/packs");
    std::fs::write(packs.join("00000077.pack"), b"known to an older database").unwrap();
    std::fs::write(f.dir.path().join("images/manifests/dead.new"), b"half").unwrap();
    let mut tx = f.db.write().await.unwrap();
    let half = half_made("dead");
    images::insert_unpublished(tx.conn(), &half).await.unwrap();
    tx.commit().await.unwrap();
    std::fs::write(f.dir.path().join("images/manifests/dead.manifest"), b"half").unwrap();
    std::fs::write(f.dir.path().join("images/manifests/77.manifest"), b"old").unwrap();
    let store = f.reopened().await;
    assert_eq!((f.files("packs").len(), f.files("manifests").len()), (1, 0));
    assert_eq!(f.files("lost"), ["00000077.pack", "77.manifest"]);
    assert_eq!(f.visible().await, 0);
    assert_eq!(
        store.have("e1", &names(&s)).await.unwrap(),
        [0b111],
        "what was durable still is"
    );
    // A pack that lost its end: only what is there counts.
    let pack = packs.join(&f.files("packs")[0]);
    let file = std::fs::File::options().write(true).open(&pack).unwrap();
    file.set_len(file.metadata().unwrap().len() - 10).unwrap();
    let store = f.reopened().await;
    let have = store.have("e1", &names(&s)).await.unwrap();
    assert_eq!(have.iter().map(|b| b.count_ones()).sum::<u32>(), 2);
    drop(e);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_is_told_before_anything_is_written() {
    let f = Fixture::new().await;
    f.backup("e1", "a").await;
    let store = Store::open(&f.dir.path().join("images"), Arc::clone(&f.db))
        .await
        .unwrap();
    let store = Arc::new(store.with_reserve(u64::MAX));
    let s = sample(1, 1);
    for length in [Some(s.records[0].len() as u64), None] {
        let failure = store
            .upload("e1", length, body(&s.records[0]))
            .await
            .unwrap_err();
        assert_eq!(
            (failure.status.as_u16(), failure.report.code),
            (507, Code::NoSpace)
        );
    }
    assert!(f.files("packs").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_is_sent_twice_at_once_gives_one_image() {
    let f = Fixture::new().await;
    let e = f.backup("e1", "a").await;
    let s = sample(1, 3);
    f.upload("e1", &s.records.concat()).await.unwrap();
    let (first, second) = tokio::join!(f.publish(&e, &s.manifest), f.publish(&e, &s.manifest));
    assert_eq!(first.unwrap(), second.unwrap());
    // A wrong one beside a good one takes nothing away from it.
    let e = f.backup("e2", "b").await;
    let (first, second) =
        tokio::join!(f.publish(&e, &s.manifest[..50]), f.publish(&e, &s.manifest));
    assert!(first.is_err() && second.is_ok());
    assert_eq!((f.visible().await, f.files("manifests").len()), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_execution_that_has_ended_gets_no_hold_and_keeps_no_half_made_image() {
    let f = Fixture::new().await;
    let mut e = f.backup("e1", "a").await;
    let s = sample(1, 1);
    f.upload("e1", &s.records[0]).await.unwrap();
    let mut tx = f.db.write().await.unwrap();
    images::insert_unpublished(tx.conn(), &half_made("dead"))
        .await
        .unwrap();
    let outcome = crate::exec::failed(&e, Code::Interrupted, "x");
    crate::exec::conclude(tx.conn(), &mut e, State::Interrupted, outcome, None, 1)
        .await
        .unwrap();
    assert!(
        images::unpublished(tx.conn(), None)
            .await
            .unwrap()
            .is_empty()
    );
    tx.commit().await.unwrap();
    for failure in [
        f.upload("e1", &s.records[0]).await.map(drop).unwrap_err(),
        f.store.have("e1", &names(&s)).await.map(drop).unwrap_err(),
        f.publish(&e, &s.manifest).await.map(drop).unwrap_err(),
    ] {
        assert_eq!(failure.report.code, Code::ServerRefused);
    }
    assert!(f.files("manifests").is_empty());
}
