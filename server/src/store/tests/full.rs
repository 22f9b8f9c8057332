//! A store whose file system fills up in the middle of a backup. Needs root: it mounts a
//! file system of a few MiB.

use super::{Fixture, names, sample};
use crate::db::images;
use crate::store::Store;
use std::process::Command;
use std::sync::Arc;
use testkit::loopdev::Mounted;
use wire::Code;

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_does_not_fit_ends_and_leaves_nothing_half_made() {
    let mut f = Fixture::new().await;
    let disk = f.dir.path().join("disk");
    std::fs::File::create(&disk)
        .unwrap()
        .set_len(12 << 20)
        .unwrap();
    let made = Command::new("mkfs.ext4")
        .args(["-q", "-m", "0", "-O", "^has_journal"])
        .arg(&disk)
        .status();
    assert!(made.expect("mkfs.ext4 of e2fsprogs").success());
    let mounted = Mounted::new(&disk, "loop");
    let folder = mounted.path().join("images");
    f.store = Arc::new(
        Store::open(&folder, Arc::clone(&f.db))
            .await
            .unwrap()
            .with_reserve(0),
    );
    let (small, large) = (sample(1, 30), sample(2, 250));
    let e = f.backup("e1", "gold").await;
    f.upload("e1", &small.records.concat()).await.unwrap();
    f.publish(&e, &small.manifest).await.unwrap();
    // The next one gets a pack of its own: space comes back pack by pack.
    f.store.collect().await.unwrap();
    let before = f.store.free_bytes().unwrap();
    let packs = || std::fs::read_dir(folder.join("packs")).unwrap().count();
    assert!(before < large.records.concat().len() as u64);

    f.backup("e2", "gold").await;
    let bytes = large.records.concat();
    // Told beforehand, and found out on the way.
    for length in [Some(bytes.len() as u64), None] {
        let failure = f
            .store
            .upload("e2", length, super::body(&bytes))
            .await
            .unwrap_err();
        assert_eq!(
            (failure.status.as_u16(), failure.report.code),
            (507, Code::NoSpace)
        );
    }
    let failure = f.store.room_for(1 << 40).unwrap_err();
    assert!(
        failure.report.found.contains(&(1u64 << 40).to_string()),
        "{failure}"
    );
    // What came before is held, as long as the execution lives; then the space is back.
    assert!(f.store.free_bytes().unwrap() < before / 4);
    f.end_lease("e2").await;
    f.end_lease("e1").await;
    assert!(
        f.store.free_bytes().unwrap() >= before - (64 << 10),
        "{before}"
    );
    assert_eq!(packs(), 1);
    let all = images::all(&mut f.db.read().await.unwrap()).await.unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(f.store.verify(&all[0]).await.unwrap().damaged, 0);
    // The next one that fits does fit.
    let next = sample(3, 20);
    let e = f.backup("e3", "gold").await;
    assert_eq!(f.store.have("e3", &names(&next)).await.unwrap(), [0, 0, 0]);
    f.upload("e3", &next.records.concat()).await.unwrap();
    f.publish(&e, &next.manifest).await.unwrap();
    // Its packs are open until then.
    drop(f);
}
