//! Tests of packs that are dead in part.

use super::{Fixture, Sample, names, sample};
use crate::db::images;
use wire::Code;

/// A small and a large image in one pack; the large one is deleted.
async fn half_dead() -> (Fixture, Sample, String) {
    let f = Fixture::new().await;
    let (small, large) = (sample(1, 3), sample(2, 9));
    let e = f.backup("e1", "keep").await;
    f.upload("e1", &small.records.concat()).await.unwrap();
    let kept = f.publish(&e, &small.manifest).await.unwrap().image;
    let e = f.backup("e2", "go").await;
    f.upload("e2", &large.records.concat()).await.unwrap();
    let gone = f.publish(&e, &large.manifest).await.unwrap().image;
    f.end_lease("e1").await;
    f.end_lease("e2").await;
    f.store.delete(&gone).await.unwrap();
    assert_eq!(f.files("packs"), ["00000001.pack"]);
    (f, small, kept)
}

async fn image(f: &Fixture, id: &str) -> images::Image {
    let found = images::by_id(&mut f.db.read().await.unwrap(), id).await;
    found.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_alive_moves_and_the_space_comes_back() {
    let (f, small, kept) = half_dead().await;
    // Places that were looked up before lead there all the same.
    let mut records = f.store.fetch(&kept, &names(&small)).await.unwrap();
    let moved = f.store.compact().await.unwrap();
    let length = |bytes: &[Vec<u8>]| bytes.concat().len() as u64;
    assert_eq!(moved, 32 + 4 * length(&small.records), "the pack of both");
    assert_eq!(f.files("packs"), ["00000002.pack"]);
    let pack = f.dir.path().join("images/packs/00000002.pack");
    assert_eq!(
        std::fs::metadata(pack).unwrap().len(),
        32 + length(&small.records)
    );
    let mut bytes = Vec::new();
    while let Some(frame) = records.frames.recv().await {
        bytes.extend_from_slice(&frame.unwrap());
    }
    assert!(bytes == small.records.concat());
    let result = f.store.verify(&image(&f, &kept).await).await.unwrap();
    assert_eq!((result.chunks, result.damaged), (3, 0));
    assert_eq!(f.store.compact().await.unwrap(), 0, "nothing is half dead");
    // After a restart everything is where the index says.
    let store = f.reopened().await;
    assert_eq!(
        store.verify(&image(&f, &kept).await).await.unwrap().damaged,
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_with_a_damaged_record_stays() {
    let (f, small, kept) = half_dead().await;
    let pack = f.dir.path().join("images/packs/00000001.pack");
    let mut bytes = std::fs::read(&pack).unwrap();
    bytes[32 + 64 + 1000] ^= 1;
    std::fs::write(&pack, &bytes).unwrap();
    assert_eq!(f.store.compact().await.unwrap(), 0);
    assert!(pack.exists());
    assert_eq!(
        f.store
            .verify(&image(&f, &kept).await)
            .await
            .unwrap()
            .damaged,
        1
    );
    assert_eq!(f.store.compact().await.unwrap(), 0, "known to be damaged");
    let failure = f.store.fetch(&kept, &names(&small)).await.err().unwrap();
    assert_eq!(failure.report.code, Code::ImageDamaged);
    // Healed, it can go.
    f.backup("e3", "keep").await;
    f.upload("e3", &small.records.concat()).await.unwrap();
    f.end_lease("e3").await;
    assert_eq!(
        f.store
            .verify(&image(&f, &kept).await)
            .await
            .unwrap()
            .damaged,
        0
    );
    assert!(!pack.exists(), "nothing in it is needed any more");
}
