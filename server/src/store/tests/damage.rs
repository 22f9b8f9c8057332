//! Tests of records that are damaged, missing, or cannot be read for now.

use super::{Fixture, names, sample};
use crate::db::images;
use std::path::Path;
use wire::{Code, Stored};

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn verification_finds_a_flipped_bit_and_the_next_backup_heals_it() {
    let f = Fixture::new().await;
    let e = f.backup("e1", "a").await;
    let s = sample(1, 4);
    f.upload("e1", &s.records.concat()).await.unwrap();
    f.publish(&e, &s.manifest).await.unwrap();
    let image = images::by_reference(&mut f.db.read().await.unwrap(), "a")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(f.store.verify(&image).await.unwrap().damaged, 0);
    flip(
        &f.dir.path().join("images/packs").join(&f.files("packs")[0]),
        32 + 64 + 1000,
    );
    let result = f.store.verify(&image).await.unwrap();
    assert_eq!(
        (result.chunks, result.damaged, result.places.len()),
        (4, 1, 1),
        "{result:?}"
    );
    assert_eq!(
        f.store
            .have("e1", &names(&s))
            .await
            .unwrap()
            .iter()
            .map(|b| b.count_ones())
            .sum::<u32>(),
        3
    );
    let failure = f.store.fetch(&image.id, &names(&s)).await.err().unwrap();
    assert_eq!(failure.report.code, Code::ImageDamaged);
    assert_eq!(
        f.upload("e1", &s.records.concat()).await.unwrap(),
        Stored {
            stored: 1,
            duplicate: 3
        }
    );
    assert_eq!(f.store.verify(&image).await.unwrap().damaged, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_of_a_damaged_record_breaks_off_and_is_told_the_next_time() {
    let f = Fixture::new().await;
    let e = f.backup("e1", "a").await;
    let s = sample(1, 2);
    f.upload("e1", &s.records.concat()).await.unwrap();
    let image = f.publish(&e, &s.manifest).await.unwrap().image;
    flip(
        &f.dir.path().join("images/packs").join(&f.files("packs")[0]),
        32 + 64 + 1000,
    );
    let mut records = f.store.fetch(&image, &names(&s)).await.unwrap();
    let mut good = 0;
    let error = loop {
        match records
            .frames
            .recv()
            .await
            .expect("an error before the end")
        {
            Ok(frame) => good += frame.len() as u64,
            Err(error) => break error,
        }
    };
    assert!(good < records.bytes, "{error}");
    let failure = f.store.fetch(&image, &names(&s)).await.err().unwrap();
    assert_eq!(failure.report.code, Code::ImageDamaged);
}

/// Something at the pack's path that opens and cannot be read: EISDIR stands for every
/// error that says nothing about the records.
fn unreadable(path: &Path) -> std::path::PathBuf {
    let kept = path.with_extension("kept");
    std::fs::rename(path, &kept).unwrap();
    std::fs::create_dir(path).unwrap();
    kept
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_for_now_is_not_called_damaged() {
    let f = Fixture::new().await;
    let e = f.backup("e1", "a").await;
    let s = sample(1, 2);
    f.upload("e1", &s.records.concat()).await.unwrap();
    let id = f.publish(&e, &s.manifest).await.unwrap().image;
    let image = images::by_reference(&mut f.db.read().await.unwrap(), "a")
        .await
        .unwrap()
        .unwrap();
    let pack = f.dir.path().join("images/packs").join(&f.files("packs")[0]);
    let kept = unreadable(&pack);
    let mut records = f.store.fetch(&id, &names(&s)).await.unwrap();
    assert!(records.frames.recv().await.unwrap().is_err());
    assert!(records.frames.recv().await.is_none());
    let failure = f.store.verify(&image).await.unwrap_err();
    assert_eq!(failure.report.code, Code::Internal);
    std::fs::remove_dir(&pack).unwrap();
    // A missing file is damage, until it is back.
    assert_eq!(f.store.verify(&image).await.unwrap().damaged, 2);
    assert!(f.store.fetch(&id, &names(&s)).await.is_err());
    std::fs::rename(&kept, &pack).unwrap();
    assert_eq!(f.store.verify(&image).await.unwrap().damaged, 0);
    f.store
        .fetch(&id, &names(&s))
        .await
        .expect("a clean verification clears the mark");
}
