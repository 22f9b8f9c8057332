//! Tests of the scrub.

use super::{Fixture, names, sample};
use crate::db::images;
use std::path::PathBuf;
use tokio::sync::watch;
use wire::{JobKind, Stored};

impl Fixture {
    fn pack(&self, at: usize) -> PathBuf {
        self.dir
            .path()
            .join("images/packs")
            .join(&self.files("packs")[at])
    }

    async fn scrubbed(&self) -> crate::store::scrub::ScrubView {
        self.store.begin_scrub(7).await.unwrap();
        self.store
            .scrub(None, &watch::channel(false).1)
            .await
            .unwrap();
        self.store.scrub_view().await.unwrap()
    }
}

fn flip(path: &PathBuf, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_told_with_its_images_and_healed_by_the_next_backup() {
    let f = Fixture::new().await;
    let s = sample(1, 4);
    let mut ids = Vec::new();
    for (execution, name) in [("e1", "gold"), ("e2", "copy")] {
        let e = f.backup(execution, name).await;
        f.upload(execution, &s.records.concat()).await.unwrap();
        ids.push(f.publish(&e, &s.manifest).await.unwrap().image);
    }
    let clean = f.scrubbed().await;
    assert!(clean.is_clean() && clean.ended.is_some() && !clean.running);
    assert_eq!((clean.chunks, clean.packs_done, clean.packs), (4, 1, 1));
    assert_eq!(clean.bytes, s.records.concat().len() as u64);
    flip(&f.pack(0), 32 + 64 + 1000);
    let found = f.scrubbed().await;
    assert_eq!(found.damaged_chunks, 1);
    assert_eq!(
        found.damaged[0].images,
        [format!("copy ({})", ids[1]), format!("gold ({})", ids[0])]
    );
    assert_eq!((found.damaged[0].pack, found.damaged[0].offset), (1, 32));
    assert_eq!(found.damaged[0].chunk, s.chunks[0].name.to_hex());

    f.backup("e3", "gold").await;
    assert_eq!(f.store.have("e3", &names(&s)).await.unwrap(), [0b1110]);
    let healed = Stored {
        stored: 1,
        duplicate: 0,
    };
    assert_eq!(f.upload("e3", &s.records[0]).await.unwrap(), healed);
    assert!(f.scrubbed().await.is_clean());
    for image in images::all(&mut f.db.read().await.unwrap()).await.unwrap() {
        assert_eq!(f.store.verify(&image).await.unwrap().damaged, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_manifest_is_told_and_its_image_not_restored() {
    let f = Fixture::new().await;
    let e = f.backup("e1", "gold").await;
    let s = sample(1, 2);
    f.upload("e1", &s.records.concat()).await.unwrap();
    let id = f.publish(&e, &s.manifest).await.unwrap().image;
    flip(&f.store.manifest_path(&id), s.manifest.len() / 2);
    assert_eq!(
        f.scrubbed().await.damaged_manifests,
        [format!("gold ({id})")]
    );
    let image = images::by_reference(&mut f.db.read().await.unwrap(), "gold").await;
    assert!(image.unwrap().unwrap().damaged);
    flip(&f.store.manifest_path(&id), s.manifest.len() / 2);
    assert!(f.scrubbed().await.is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrub_that_was_stopped_goes_on_where_it_was() {
    let f = Fixture::new().await;
    for (number, execution) in ["e1", "e2", "e3"].iter().enumerate() {
        let s = sample(number as u8, 3);
        let e = f.backup(execution, "gold").await;
        f.upload(execution, &s.records.concat()).await.unwrap();
        f.publish(&e, &s.manifest).await.unwrap();
        // A pack of its own for each.
        f.store.collect().await.unwrap();
    }
    assert!(matches!(
        f.backup("e4", "x").await.job,
        JobKind::Backup { .. }
    ));
    f.store.begin_scrub(7).await.unwrap();
    let mut half = f.store.last_scrub().await.unwrap().unwrap();
    (half.next_pack, half.chunks) = (2, 3);
    f.store.note_scrub(&half).await.unwrap();
    let (stop, stopped) = watch::channel(true);
    f.store.scrub(None, &stopped).await.unwrap();
    assert_eq!(
        f.store.last_scrub().await.unwrap(),
        Some(half),
        "stopped at once"
    );
    stop.send(false).unwrap();
    let store = f.reopened().await;
    flip(&f.pack(0), 32 + 64 + 1000);
    store.scrub(None, &stopped).await.unwrap();
    let view = store.scrub_view().await.unwrap();
    assert_eq!(
        (view.chunks, view.packs_done, view.ended.is_some()),
        (9, 3, true)
    );
    assert!(view.is_clean(), "the first pack was read before");
}
