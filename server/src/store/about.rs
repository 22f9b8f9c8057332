//! What only the database knows of an image, kept beside its manifest.
//!
//! Owns: the files `manifests/ID.about`, from which the index is rebuilt if the database is
//! lost: a manifest says what is on the disk, but not how people call it. Does not own: the
//! truth, which is the database's; a file that is missing is written again at the next
//! start.

use super::Store;
use crate::db::images::{self, Image};
use crate::db::machines;
use crate::failure::{Failure, Outcome};
use crate::secrets;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Longest file that is read, in bytes.
const MAX_BYTES: u64 = 64 << 10;

/// An image and its machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct About {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) series: String,
    pub(super) execution: String,
    /// When it was published.
    pub(super) created: i64,
    /// Its place in the order of publishing.
    pub(super) order: i64,
    #[serde(default)]
    pub(super) pinned: bool,
    /// Its set, position in it, and how many images that has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) set: Option<(String, u32, u32)>,
    #[serde(default)]
    pub(super) machine: AboutMachine,
}

/// A machine, as far as it is needed to know it again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AboutMachine {
    pub(super) id: String,
    pub(super) name: String,
    #[serde(default)]
    pub(super) macs: Vec<String>,
    #[serde(default)]
    pub(super) uuid: String,
    #[serde(default)]
    pub(super) serial: String,
}

/// Reads one; `None` if it is not there or is none.
pub(super) fn read(path: &Path) -> Option<About> {
    let fits = std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() <= MAX_BYTES);
    if !fits {
        return None;
    }
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

impl Store {
    /// Where [`About`] of an image is.
    pub(super) fn about_path(&self, image: &str) -> PathBuf {
        self.manifest_path(image).with_extension("about")
    }

    /// Writes [`About`] of an image.
    pub(super) async fn write_about(&self, image: &Image) -> Outcome<()> {
        let mut conn = self.db.read().await?;
        let machine = machines::by_id(&mut conn, &image.machine).await?;
        let macs = machines::macs(&mut conn, &image.machine).await?;
        drop(conn);
        let machine = AboutMachine {
            id: image.machine.clone(),
            name: image.machine_name.clone(),
            macs,
            uuid: machine
                .as_ref()
                .and_then(|m| m.uuid.clone())
                .unwrap_or_default(),
            serial: machine.map(|m| m.serial).unwrap_or_default(),
        };
        let about = About {
            id: image.id.clone(),
            name: image.name.clone(),
            series: image.series.clone(),
            execution: image.execution.clone(),
            created: image.created,
            order: image.order,
            pinned: image.pinned,
            set: image
                .set
                .as_ref()
                .map(|set| (set.id.clone(), set.part, set.of)),
            machine,
        };
        let (path, json) = (
            self.about_path(&image.id),
            serde_json::to_vec_pretty(&about)?,
        );
        tokio::task::spawn_blocking(move || secrets::replace(&path, &json))
            .await?
            .map_err(|e| Failure::io("writing what is known of an image", &e))
    }

    /// As [`Store::write_about`], for an image that is visible: that it is cannot be taken
    /// back, and the next start writes what is missing.
    pub(super) async fn describe(&self, id: &str) {
        let written = async {
            let image = images::by_id(&mut *self.db.read().await?, id).await?;
            match image {
                Some(image) => self.write_about(&image).await,
                None => Ok(()),
            }
        };
        if let Err(error) = written.await {
            tracing::error!(image = %id, %error, "what is known of an image could not be written beside its manifest");
        }
    }
}
