//! Backups, deletions, garbage collection and moves between packs at once: what a backup
//! was told is there stays there.

use super::{CELL, Fixture, body};
use crate::db::{chunks, images};
use crate::exec::state::State;
use crate::store::retention::Policy;
use image::cells::cut;
use image::layout::{Disk, Region, Table};
use image::manifest::ManifestWriter;
use image::record::{Compression, Encoder};
use image::{ChunkRef, Hash, Layout};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Chunks that all backups choose from.
const POOL: u64 = 24;
/// Backups at a time, and how many each makes.
const WORKERS: u64 = 6;
const ROUNDS: u64 = 12;
/// Most shifts of all workers until all that races was seen.
const SHIFTS: u64 = 20;

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % below
    }
}

fn chunk(number: u64) -> (ChunkRef, Vec<u8>) {
    let mut plain = vec![7; CELL as usize];
    plain[..8].copy_from_slice(&number.to_le_bytes());
    let mut record = Vec::new();
    let header = Encoder::new(Compression::Zstd(1))
        .unwrap()
        .encode(&plain, &mut record)
        .unwrap();
    let chunk = ChunkRef {
        name: header.name,
        plain_len: header.plain_len,
    };
    (chunk, record)
}

fn manifest(chunks: &[ChunkRef]) -> Vec<u8> {
    let size = chunks.len() as u64 * u64::from(CELL);
    let layout = Layout {
        created: "2026-01-02T03:04:05Z".into(),
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
    let cells: Vec<_> = cut(0, CELL, [(0, size)]).collect();
    let mut writer = ManifestWriter::new(Vec::new(), &layout).unwrap();
    writer.page(&cells, chunks).unwrap();
    writer.finish().unwrap().0
}

/// What a backup is told of the machine's newest image, without asking.
async fn told_beforehand(f: &Fixture, e: &crate::db::executions::Execution) -> HashSet<Hash> {
    let mut frames = f.store.base(e).await.unwrap();
    let mut told = HashSet::new();
    while let Some(frame) = frames.recv().await {
        let frame = frame.unwrap();
        let (names, rest) = frame.as_chunks::<32>();
        assert!(rest.is_empty());
        told.extend(names.iter().map(|name| Hash(*name)));
    }
    told
}

/// One machine that backs up again and again and believes what it is told.
async fn worker(
    f: Arc<Fixture>,
    pool: Arc<Vec<(ChunkRef, Vec<u8>)>>,
    number: u64,
    said: Arc<AtomicU64>,
    based: Arc<AtomicU64>,
) {
    let mut dice = Dice(number + 1);
    for round in 0..ROUNDS {
        let id = format!("w{number}-{round}");
        let e = f.backup(&id, &format!("name-{}", dice.roll(4))).await;
        let wanted: Vec<usize> = (0..4 + dice.roll(8))
            .map(|_| dice.roll(POOL) as usize)
            .collect();
        let names: Vec<Hash> = wanted.iter().map(|&at| pool[at].0.name).collect();
        let told = match dice.roll(3) {
            0 => HashSet::new(),
            _ => told_beforehand(&f, &e).await,
        };
        based.fetch_add(
            names.iter().filter(|name| told.contains(name)).count() as u64,
            Ordering::Relaxed,
        );
        let asked: Vec<Hash> = names
            .iter()
            .filter(|n| !told.contains(n))
            .copied()
            .collect();
        let have = f.store.have(&id, &asked).await.unwrap();
        let lacks = |name: &Hash| match asked.iter().position(|asked| asked == name) {
            Some(at) => have[at / 8] >> (at % 8) & 1 == 0,
            None => false,
        };
        let missing = |at: &usize| lacks(&names[*at]);
        said.fetch_add(
            (0..wanted.len()).filter(|at| !missing(at)).count() as u64,
            Ordering::Relaxed,
        );
        let send: Vec<u8> = (0..wanted.len())
            .filter(missing)
            .flat_map(|at| pool[wanted[at]].1.clone())
            .collect();
        if dice.roll(8) == 0 {
            // This machine vanishes in the middle.
            let half = &send[..send.len() / 2];
            let _ = f.store.upload(&id, None, body(half)).await;
            f.end_lease(&id).await;
            continue;
        }
        if !send.is_empty() {
            f.store.upload(&id, None, body(&send)).await.unwrap();
        }
        tokio::task::yield_now().await;
        let chunks: Vec<ChunkRef> = wanted.iter().map(|&at| pool[at].0).collect();
        f.publish(&e, &manifest(&chunks))
            .await
            .expect("everything was there");
        f.end_lease(&id).await;
    }
}

fn counter() -> Arc<AtomicU64> {
    Arc::new(AtomicU64::new(0))
}

/// Backups of all machines at once, other ones in each shift.
async fn work(
    f: &Arc<Fixture>,
    pool: &Arc<Vec<(ChunkRef, Vec<u8>)>>,
    said: &Arc<AtomicU64>,
    based: &Arc<AtomicU64>,
    shift: u64,
) {
    let mut workers = tokio::task::JoinSet::new();
    for number in 0..WORKERS {
        workers.spawn(worker(
            Arc::clone(f),
            Arc::clone(pool),
            shift * WORKERS + number,
            Arc::clone(said),
            Arc::clone(based),
        ));
    }
    while let Some(result) = workers.join_next().await {
        result.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_backup_counts_on_survives_deletion_and_collection() {
    let f = Arc::new(Fixture::new().await);
    let pool: Arc<Vec<_>> = Arc::new((0..POOL).map(chunk).collect());
    let ended = Arc::new(AtomicBool::new(false));
    let (said, based) = (counter(), counter());
    let (packs, moved, deleted) = (counter(), counter(), counter());
    let collector = {
        let (f, ended) = (Arc::clone(&f), Arc::clone(&ended));
        let (packs, moved) = (Arc::clone(&packs), Arc::clone(&moved));
        tokio::spawn(async move {
            while !ended.load(Ordering::Relaxed) {
                let gone = f.store.collect().await.unwrap();
                packs.fetch_add(gone as u64, Ordering::Relaxed);
                moved.fetch_add(f.store.compact().await.unwrap(), Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        })
    };
    let deleter = {
        let (f, ended, deleted) = (Arc::clone(&f), Arc::clone(&ended), Arc::clone(&deleted));
        tokio::spawn(async move {
            let mut dice = Dice(99);
            while !ended.load(Ordering::Relaxed) {
                let all = images::all(&mut f.db.read().await.unwrap()).await.unwrap();
                if all.len() > 3 {
                    let image = &all[dice.roll(all.len() as u64) as usize];
                    f.store.delete(&image.id).await.unwrap();
                    deleted.fetch_add(1, Ordering::Relaxed);
                }
                tokio::task::yield_now().await;
            }
        })
    };
    let seen = |count: &AtomicU64| count.load(Ordering::Relaxed);
    // Until everything that races was seen to do something: a pack that was moved is gone.
    let raced = || seen(&moved) > 0 && seen(&deleted) > 5 && seen(&said) > 20 && seen(&based) > 20;
    let mut shift = 0;
    while shift == 0 || (shift < SHIFTS && !raced()) {
        work(&f, &pool, &said, &based, shift).await;
        shift += 1;
    }
    ended.store(true, Ordering::Relaxed);
    collector.await.unwrap();
    deleter.await.unwrap();
    let all = images::all(&mut f.db.read().await.unwrap()).await.unwrap();
    for image in &all {
        let result = f.store.verify(image).await.unwrap();
        assert_eq!(result.damaged, 0, "{result:?}");
    }
    println!(
        "{shift} shifts: {} packs gone, {} bytes of packs moved, {} images deleted",
        seen(&packs),
        seen(&moved),
        seen(&deleted)
    );
    assert!(raced(), "nothing was raced");
    for image in all {
        f.store.delete(&image.id).await.unwrap();
    }
    assert!(f.files("packs").is_empty(), "all space came back");
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_deletes_what_no_rule_keeps_and_nothing_else() {
    let f = Fixture::new().await;
    let mut ids = Vec::new();
    for number in 0..5u64 {
        let (chunk, record) = chunk(number);
        let execution = format!("e{number}");
        let e = f.backup(&execution, "gold").await;
        f.upload(&execution, &record).await.unwrap();
        ids.push(f.publish(&e, &manifest(&[chunk])).await.unwrap().image);
        f.end_lease(&execution).await;
        f.store.collect().await.unwrap();
    }
    let left = || async {
        let all = images::all(&mut f.db.read().await.unwrap()).await.unwrap();
        all.into_iter().map(|image| image.id).collect::<Vec<_>>()
    };
    assert!(
        f.store.prune(1).await.unwrap().is_empty(),
        "there is no rule"
    );
    f.store.pin(&ids[0], true).await.unwrap();
    let mut restore =
        crate::exec::state::tests::execution(crate::exec::state::tests::restore(), State::Running);
    restore.id = "r".into();
    let wire::JobKind::Restore { image, .. } = &mut restore.job else {
        panic!("no restore")
    };
    image.clone_from(&ids[1]);
    let mut tx = f.db.write().await.unwrap();
    crate::db::executions::insert(tx.conn(), &restore)
        .await
        .unwrap();
    let last = |last| Policy {
        last,
        ..Policy::default()
    };
    use crate::db::retention::{Scope, set};
    set(tx.conn(), &Scope::All, &last(1)).await.unwrap();
    set(tx.conn(), &Scope::Machine("m".into()), &last(4))
        .await
        .unwrap();
    set(tx.conn(), &Scope::Image("gold".into()), &last(2))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let gone = f.store.prune(1).await.unwrap();
    assert_eq!(
        gone.iter().map(|v| v.id.as_str()).collect::<Vec<_>>(),
        [ids[2].as_str()]
    );
    assert_eq!(left().await, [&ids[4][..], &ids[3], &ids[1], &ids[0]]);
    assert_eq!(f.files("packs").len(), 4);
    assert!(f.store.delete(&ids[0]).await.is_err(), "pinned");
    f.store.pin(&ids[0], false).await.unwrap();
    assert_eq!(f.store.prune(1).await.unwrap().len(), 1);
    assert_eq!(left().await, [&ids[4][..], &ids[3], &ids[1]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_backup_was_told_beforehand_outlives_its_image() {
    let f = Fixture::new().await;
    let made: Vec<_> = (0..4).map(chunk).collect();
    let chunks: Vec<ChunkRef> = made.iter().map(|(chunk, _)| *chunk).collect();
    let e = f.backup("e1", "gold").await;
    assert!(told_beforehand(&f, &e).await.is_empty(), "nothing is there");
    let records: Vec<u8> = made.iter().flat_map(|(_, record)| record.clone()).collect();
    f.upload("e1", &records).await.unwrap();
    let image = f.publish(&e, &manifest(&chunks)).await.unwrap().image;
    f.end_lease("e1").await;
    let mut tx = f.db.write().await.unwrap();
    let found = chunks::find(tx.conn(), &[chunks[3].name]).await.unwrap();
    chunks::set_damaged(tx.conn(), &found[&chunks[3].name], true)
        .await
        .unwrap();
    tx.commit().await.unwrap();

    let e = f.backup("e2", "gold").await;
    let told = told_beforehand(&f, &e).await;
    let whole: HashSet<Hash> = chunks[..3].iter().map(|chunk| chunk.name).collect();
    assert_eq!(told, whole, "a damaged chunk is not there");
    f.store.delete(&image).await.unwrap();
    f.store.collect().await.unwrap();
    f.publish(&e, &manifest(&chunks[..3])).await.unwrap();
    f.end_lease("e2").await;
    let all = images::all(&mut f.db.read().await.unwrap()).await.unwrap();
    assert_eq!(f.store.verify(&all[0]).await.unwrap().damaged, 0);
    f.store.delete(&all[0].id).await.unwrap();
    assert!(f.files("packs").is_empty(), "nothing is held any more");
}
