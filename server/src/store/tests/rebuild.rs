//! Tests of an index that is made anew.

use super::{Fixture, Sample, names, sample};
use crate::db::{self, Db, images, machines};
use crate::store::Store;
use crate::store::rebuild::{Rebuilt, rebuild};
use std::path::PathBuf;
use std::sync::Arc;
use wire::Code;

/// Two images that share a chunk, one of them pinned, and what is not theirs.
async fn two_images() -> (Fixture, [Sample; 2], [String; 2]) {
    let f = Fixture::new().await;
    let (one, two) = (sample(1, 3), sample(2, 4));
    let mut ids = Vec::new();
    for (execution, name, sample) in [("e1", "gold", &one), ("e2", "gold", &two)] {
        let e = f.backup(execution, name).await;
        f.upload(execution, &sample.records.concat()).await.unwrap();
        // A pack of its own for each.
        f.store.collect().await.unwrap();
        ids.push(f.publish(&e, &sample.manifest).await.unwrap().image);
    }
    let [first, second] = ids.try_into().unwrap();
    f.store.pin(&first, true).await.unwrap();
    (f, [one, two], [first, second])
}

impl Fixture {
    fn images_dir(&self) -> PathBuf {
        self.dir.path().join("images")
    }

    /// A database that knows nothing.
    async fn forgetful(&self, name: &str) -> Arc<Db> {
        let dir = self.dir.path().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        Arc::new(db::tests::open(&dir).await)
    }

    async fn rebuilt(&self, db: &Arc<Db>) -> (Rebuilt, Arc<Store>) {
        let result = rebuild(&self.images_dir(), db).await.unwrap();
        let store = Store::open(&self.images_dir(), Arc::clone(db)).await;
        (result, Arc::new(store.unwrap()))
    }
}

/// Every image of the store, whole.
async fn verified(store: &Arc<Store>, db: &Db) -> Vec<images::Image> {
    let all = images::all(&mut db.read().await.unwrap()).await.unwrap();
    for image in &all {
        let result = store.verify(image).await.unwrap();
        assert_eq!((result.damaged, result.chunks > 0), (0, true), "{result:?}");
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_database_comes_back_from_the_folder() {
    let (f, samples, ids) = two_images().await;
    let before = verified(&f.store, &f.db).await;
    let new = f.forgetful("new").await;
    let refused = Store::open(&f.images_dir(), Arc::clone(&new)).await.err();
    let refused = refused.expect("a folder of another database");
    assert!(refused.report.advice.contains("--rebuild-index"));
    let (result, store) = f.rebuilt(&new).await;
    assert!(
        result.is_whole() && result.set_aside.is_empty(),
        "{result:?}"
    );
    assert_eq!((result.packs, result.records), (2, 7));
    let after = verified(&store, &new).await;
    assert_eq!(after, before, "names, order, pins, times, figures");
    assert_eq!(
        (after[0].id.as_str(), after[1].pinned),
        (ids[1].as_str(), true)
    );
    let machine = machines::by_reference(&mut new.read().await.unwrap(), "52:54:00:00:00:01")
        .await
        .unwrap()
        .expect("the machine is known again");
    assert_eq!((machine.id.as_str(), machine.name.as_str()), ("m", "pc"));
    let records = store.fetch(&ids[0], &names(&samples[0])).await.unwrap();
    assert_eq!(records.bytes, samples[0].records.concat().len() as u64);
    // Once more, over an index that is there.
    let (again, store) = f.rebuilt(&new).await;
    assert_eq!(again, result);
    assert_eq!(verified(&store, &new).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_deleted_and_strangers_are_set_aside() {
    let (f, _, _) = two_images().await;
    f.backup("e3", "other").await;
    f.store.collect().await.unwrap();
    f.upload("e3", &sample(9, 2).records.concat())
        .await
        .unwrap();
    let (packs, manifests) = (
        f.images_dir().join("packs"),
        f.images_dir().join("manifests"),
    );
    let unfinished = f.files("packs").pop().unwrap();
    std::fs::write(packs.join("00000077.pack"), b"no pack at all").unwrap();
    std::fs::write(packs.join("notes.txt"), b"mine").unwrap();
    std::fs::write(manifests.join("77.manifest"), b"no manifest").unwrap();
    let (result, store) = f.rebuilt(&f.forgetful("new").await).await;
    assert!(result.is_whole() && result.images.len() == 2);
    assert_eq!(
        f.files("lost"),
        [unfinished.as_str(), "00000077.pack", "77.manifest"]
    );
    assert_eq!(f.files("packs").len(), 3, "two packs and the notes");
    store.collect().await.unwrap();
    assert_eq!(f.files("packs").len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_found_and_the_next_backup_heals_it() {
    let (f, samples, ids) = two_images().await;
    let packs = f.images_dir().join("packs");
    let pack = packs.join(&f.files("packs")[0]);
    let mut bytes = std::fs::read(&pack).unwrap();
    bytes[32 + 64 + 1000] ^= 1;
    std::fs::write(&pack, &bytes).unwrap();
    // The other one is gone.
    std::fs::remove_file(packs.join(&f.files("packs")[1])).unwrap();
    let new = f.forgetful("new").await;
    let (result, store) = f.rebuilt(&new).await;
    let hurt: Vec<_> = result
        .images
        .iter()
        .map(|i| (i.id.as_str(), i.damaged))
        .collect();
    assert_eq!(hurt, [(ids[0].as_str(), 1), (ids[1].as_str(), 4)]);
    assert_eq!(result.damaged_records, 1);
    let healed = Fixture {
        store,
        db: new,
        dir: f.dir,
    };
    healed.backup("e9", "gold").await;
    for (sample, missing) in samples.iter().zip([1, 4]) {
        let have = healed.store.have("e9", &names(sample)).await.unwrap();
        let known: u32 = have.iter().map(|byte| byte.count_ones()).sum();
        assert_eq!(sample.chunks.len() as u32 - known, missing);
        let stored = healed.upload("e9", &sample.records.concat()).await.unwrap();
        assert_eq!(stored.stored, u64::from(missing));
    }
    assert_eq!(verified(&healed.store, &healed.db).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_database_set_aside_is_taken_back() {
    let f = Fixture::new().await;
    let one = sample(1, 3);
    let e = f.backup("e1", "gold").await;
    f.upload("e1", &one.records.concat()).await.unwrap();
    f.publish(&e, &one.manifest).await.unwrap();
    let old = f.dir.path().join("old");
    std::fs::create_dir_all(&old).unwrap();
    sqlx::query("VACUUM INTO $1")
        .bind(old.join("db.sqlite").to_str().unwrap())
        .execute(&mut *f.db.read().await.unwrap())
        .await
        .unwrap();
    f.store.collect().await.unwrap();
    let two = sample(2, 4);
    let e = f.backup("e2", "silver").await;
    f.upload("e2", &two.records.concat()).await.unwrap();
    f.publish(&e, &two.manifest).await.unwrap();
    let before = verified(&f.store, &f.db).await;
    let old = f.forgetful("old").await;
    Store::open(&f.images_dir(), Arc::clone(&old))
        .await
        .unwrap();
    assert_eq!(f.files("lost").len(), 3, "a pack, a manifest, a name");
    let (result, store) = f.rebuilt(&old).await;
    assert!(result.is_whole(), "{result:?}");
    assert_eq!(verified(&store, &old).await, before);
    assert!(f.files("lost").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_folders_database_is_not_touched() {
    let (f, _, _) = two_images().await;
    let other = tempfile::tempdir().unwrap();
    let failure = rebuild(other.path(), &f.db).await.map(drop);
    // An empty folder without an id would become this database's, and every image lost.
    assert_eq!(failure.unwrap_err().report.code, Code::Usage);
    assert_eq!(verified(&f.store, &f.db).await.len(), 2);
    std::fs::write(f.images_dir().join("store-id"), "another\n").unwrap();
    let failure = rebuild(&f.images_dir(), &f.db).await.unwrap_err();
    assert_eq!(failure.report.code, Code::Usage);
    assert_eq!(verified(&f.store, &f.db).await.len(), 2);
}
