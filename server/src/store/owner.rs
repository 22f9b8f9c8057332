//! Which database an image folder belongs to.
//!
//! Owns: the folder's id, kept in a file there and in the database, and the refusal to
//! work on a folder with the wrong database: to a new or lost one every pack would look
//! like rubbish, and to an unmounted folder every chunk like lost. Does not own: locks
//! between processes ([`crate::daemon`]).

use crate::db::{Conn, Db, chunks, images};
use crate::failure::{Failure, Outcome};
use crate::secrets;
use std::io;
use std::path::Path;

/// Name of the file with the folder's id.
const ID_FILE: &str = "store-id";

/// Makes sure that the folder and the database belong together, or, if neither has
/// anything to lose, makes them.
///
/// # Errors
/// `usage` if they do not belong together, naming both; nothing is changed then.
pub(super) async fn claim(dir: &Path, db: &Db) -> Outcome<()> {
    let failed = |e: io::Error| Failure::io(&format!("the image folder {}", dir.display()), &e);
    let here = read(dir).map_err(failed)?;
    let full = has_content(dir).map_err(failed)?;
    let mut tx = db.write().await?;
    let there = images::store_id(tx.conn()).await?;
    let knows =
        !chunks::packs(tx.conn()).await?.is_empty() || !images::all(tx.conn()).await?.is_empty();
    let id = match (here.as_deref(), there.as_deref()) {
        (Some(here), Some(there)) if here == there => return Ok(()),
        // Nothing to lose on either side: cut off while it was made, or emptied by hand.
        (Some(id), None) | (None, Some(id)) if !full && !knows => id.to_owned(),
        (None, None) if full == knows => {
            secrets::random_id().map_err(|e| Failure::io("random numbers", &e))?
        }
        // The id was written to the folder and the database did not get it any more.
        (Some(id), None) if full && knows => id.to_owned(),
        _ => {
            let named = |id: &Option<String>| match id {
                Some(id) => format!("store {id}"),
                None => "no store".to_owned(),
            };
            let found = format!(
                "the image folder {} holds {}{}, the database belongs to {}{}",
                dir.display(),
                named(&here),
                if full {
                    " with images"
                } else {
                    " and no images"
                },
                named(&there),
                if knows {
                    " with images"
                } else {
                    " and knows no images"
                },
            );
            return Err(Failure::usage(found).with_advice(
                "Nothing was changed. Mount the image folder of this database, or bring back the database of this folder \
                 (--state, --database, --images). If the database is lost: deployd --rebuild-index makes it anew from \
                 the folder. To begin anew, name an empty image folder and a new database.",
            ));
        }
    };
    // The folder first: an id there alone, with nothing beside it, is taken over.
    if here.is_none() {
        secrets::replace(&dir.join(ID_FILE), format!("{id}\n").as_bytes()).map_err(failed)?;
    }
    if there.is_none() {
        images::set_store_id(tx.conn(), &id).await?;
    }
    Ok(tx.commit().await?)
}

/// As [`claim`], for a database whose index is about to be made anew: it may know nothing,
/// but it may not belong to another folder.
///
/// # Errors
/// `usage` if it does, naming both.
pub(super) async fn reclaim(dir: &Path, conn: &mut Conn) -> Outcome<()> {
    let failed = |e: io::Error| Failure::io(&format!("the image folder {}", dir.display()), &e);
    let (here, there) = (read(dir).map_err(failed)?, images::store_id(conn).await?);
    if let (Some(here), Some(there)) = (&here, &there)
        && here != there
    {
        let found = format!(
            "the image folder {} is store {here}, the database belongs to store {there}",
            dir.display()
        );
        return Err(Failure::usage(found).with_advice(
            "Nothing was changed. Name the database of this folder, or a new one (--state, --database).",
        ));
    }
    // An unmounted folder: every image would be forgotten.
    if !has_content(dir).map_err(failed)? && !images::all(conn).await?.is_empty() {
        let found = format!(
            "the image folder {} is empty, the database knows images",
            dir.display()
        );
        return Err(Failure::usage(found).with_advice(
            "Nothing was changed. Mount the image folder, or name it with --images.",
        ));
    }
    let id = match here.clone().or_else(|| there.clone()) {
        Some(id) => id,
        None => secrets::random_id().map_err(|e| Failure::io("random numbers", &e))?,
    };
    if here.is_none() {
        secrets::replace(&dir.join(ID_FILE), format!("{id}\n").as_bytes()).map_err(failed)?;
    }
    if there.is_none() {
        images::set_store_id(conn, &id).await?;
    }
    Ok(())
}

fn read(dir: &Path) -> io::Result<Option<String>> {
    match std::fs::read_to_string(dir.join(ID_FILE)) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn has_content(dir: &Path) -> io::Result<bool> {
    for (folder, extension) in [("packs", "pack"), ("manifests", "manifest")] {
        for entry in std::fs::read_dir(dir.join(folder))? {
            if entry?.path().extension().is_some_and(|e| e == extension) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Moves a file that the database does not know to `lost/`, where people can look at it.
pub(super) fn set_aside(dir: &Path, path: &Path) -> io::Result<()> {
    let lost = dir.join("lost");
    std::fs::create_dir_all(&lost)?;
    let name = path.file_name().unwrap_or_default();
    let mut to = lost.join(name);
    // Never over an older one of the same name.
    for number in 1u32.. {
        if !to.try_exists()? {
            break;
        }
        let mut other = name.to_owned();
        other.push(format!(".{number}"));
        to = lost.join(other);
    }
    std::fs::rename(path, &to)?;
    tracing::warn!(file = %path.display(), to = %to.display(), "a file that the database does not know was set aside");
    secrets::sync_dir(&to)
}

#[cfg(test)]
mod tests {
    use super::{ID_FILE, claim, set_aside};
    use crate::db;
    use std::fs;
    use std::path::Path;
    use wire::Code;

    fn folder(dir: &Path, name: &str) -> std::path::PathBuf {
        let path = dir.join(name);
        for sub in ["packs", "manifests"] {
            fs::create_dir_all(path.join(sub)).unwrap();
        }
        path
    }

    async fn database(dir: &Path, name: &str) -> db::Db {
        let dir = dir.join(name);
        fs::create_dir_all(&dir).unwrap();
        db::tests::open(&dir).await
    }

    async fn add_pack(images: &Path, db: &db::Db) {
        let mut tx = db.write().await.unwrap();
        let id = db::chunks::new_pack(tx.conn(), 1).await.unwrap();
        tx.commit().await.unwrap();
        fs::write(images.join(format!("packs/{id:08}.pack")), b"x").unwrap();
    }

    async fn refused(images: &Path, db: &db::Db) -> String {
        let failure = claim(images, db).await.unwrap_err();
        assert_eq!(failure.report.code, Code::Usage);
        failure.report.found.clone()
    }

    #[tokio::test]
    async fn a_folder_and_another_database_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (folder(dir.path(), "a"), folder(dir.path(), "b"));
        let (one, two) = (
            database(dir.path(), "1").await,
            database(dir.path(), "2").await,
        );
        claim(&a, &one).await.unwrap();
        claim(&b, &two).await.unwrap();
        claim(&a, &one).await.unwrap();
        let (here, there) = (
            fs::read_to_string(a.join(ID_FILE)).unwrap(),
            fs::read_to_string(b.join(ID_FILE)).unwrap(),
        );
        let found = refused(&a, &two).await;
        assert!(
            found.contains(here.trim()) && found.contains(there.trim()),
            "{found}"
        );
    }

    #[tokio::test]
    async fn a_lost_database_and_a_lost_folder_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let images = folder(dir.path(), "a");
        let db = database(dir.path(), "1").await;
        claim(&images, &db).await.unwrap();
        add_pack(&images, &db).await;
        claim(&images, &db).await.unwrap();
        let new = database(dir.path(), "2").await;
        refused(&images, &new).await;
        refused(&folder(dir.path(), "unmounted"), &db).await;
        fs::remove_file(images.join(ID_FILE)).unwrap();
        refused(&images, &new).await;
        refused(&images, &db).await;
    }

    #[tokio::test]
    async fn what_was_cut_off_and_what_is_older_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let images = folder(dir.path(), "a");
        fs::write(images.join(ID_FILE), "0123\n").unwrap();
        let db = database(dir.path(), "1").await;
        claim(&images, &db).await.unwrap();
        assert_eq!(fs::read_to_string(images.join(ID_FILE)).unwrap(), "0123\n");
        // Both have packs and neither has an id: made before there were ids.
        let images = folder(dir.path(), "b");
        let db = database(dir.path(), "2").await;
        add_pack(&images, &db).await;
        claim(&images, &db).await.unwrap();
        claim(&images, &db).await.unwrap();
        assert!(images.join(ID_FILE).exists());
    }

    #[test]
    fn nothing_in_lost_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["one", "two", "three"] {
            let path = dir.path().join("1.pack");
            fs::write(&path, text).unwrap();
            set_aside(dir.path(), &path).unwrap();
        }
        let read = |name: &str| fs::read_to_string(dir.path().join("lost").join(name)).unwrap();
        assert_eq!(
            (read("1.pack"), read("1.pack.1"), read("1.pack.2")),
            ("one".into(), "two".into(), "three".into())
        );
    }
}
