//! Tests of images that are published together.

use super::{Fixture, Sample, body, broken_body, sample};
use crate::db::executions::Execution;
use crate::db::images;
use wire::{Code, DiskSelector, JobKind};

/// A backup of so many disks whose chunks are all there.
async fn of_disks(f: &Fixture, id: &str, samples: &[&Sample]) -> Execution {
    let mut e = f.backup(id, "gold").await;
    if let JobKind::Backup { disks, .. } = &mut e.job {
        *disks = vec![DiskSelector::default(); samples.len()];
    }
    for sample in samples {
        f.upload(id, &sample.records.concat()).await.unwrap();
    }
    e
}

fn framed(manifests: &[&[u8]]) -> Vec<u8> {
    let one = |manifest: &&[u8]| {
        let length = (manifest.len() as u64).to_le_bytes();
        [&length[..], manifest].concat()
    };
    manifests.iter().flat_map(one).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_become_visible_at_once_and_go_at_once() {
    let f = Fixture::new().await;
    let (a, b) = (sample(1, 4), sample(2, 9));
    let e = of_disks(&f, "e1", &[&a, &b]).await;
    let bytes = framed(&[&a.manifest, &b.manifest]);
    let published = f
        .store
        .publish_set(&e, "pc", body(&bytes), 1)
        .await
        .unwrap();
    assert_eq!(published.len(), 2);
    assert_eq!(f.visible().await, 2);
    let again = f
        .store
        .publish_set(&e, "pc", body(&bytes), 2)
        .await
        .unwrap();
    assert_eq!(again, published, "said twice");
    let mut conn = f.db.read().await.unwrap();
    let named = images::by_reference(&mut conn, "gold")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(named.id, published[0].image, "the first of the newest set");
    let set = images::of_set(&mut conn, &named.set.unwrap().id)
        .await
        .unwrap();
    let ids: Vec<_> = set.iter().map(|image| &image.id).collect();
    assert_eq!(ids, [&published[0].image, &published[1].image]);
    assert!(set.iter().all(|image| image.execution == "e1"));
    drop(conn);
    f.store.delete(&published[1].image).await.unwrap();
    assert_eq!(f.visible().await, 0);
    assert!(f.files("manifests").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_wrong_keeps_all_from_appearing() {
    let f = Fixture::new().await;
    let (a, b, lost) = (sample(1, 4), sample(2, 9), sample(3, 5));
    let e = of_disks(&f, "e1", &[&a, &b]).await;
    let mut flipped = b.manifest.clone();
    flipped[40] ^= 1;
    let whole = framed(&[&a.manifest, &b.manifest]);
    let wrong = [
        framed(&[&a.manifest, &flipped]),
        framed(&[&a.manifest, &lost.manifest]),
        framed(&[&a.manifest]),
        framed(&[&a.manifest, &b.manifest, &b.manifest]),
        whole[..whole.len() - 1].to_vec(),
        a.manifest.clone(),
    ];
    for bytes in &wrong {
        let failure = f
            .store
            .publish_set(&e, "pc", body(bytes), 1)
            .await
            .unwrap_err();
        assert_ne!(
            failure.report.code,
            Code::Internal,
            "{}",
            failure.report.found
        );
        assert_eq!(f.visible().await, 0);
        assert!(f.files("manifests").is_empty());
    }
    // Wherever the connection breaks, the images have no part in it.
    for end in [0, 5, 8, 40, framed(&[&a.manifest]).len() + 3, whole.len()] {
        let broken = broken_body(&whole[..end]);
        let failure = f.store.publish_set(&e, "pc", broken, 1).await.unwrap_err();
        assert_eq!(failure.report.code, Code::ConnectionLost, "{end}");
    }
    // Nor as the manifest of one disk, as an older target would send it.
    assert!(f.publish(&e, &a.manifest).await.is_err());
    f.store
        .publish_set(&e, "pc", body(&whole), 1)
        .await
        .unwrap();
    assert_eq!(f.visible().await, 2);
}
