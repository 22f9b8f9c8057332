//! Retention applied: images that no rule keeps are deleted.
//!
//! Owns: which rule holds for which series, and that the choice is made again in the
//! transaction that deletes. Does not own: the rule ([`super::retention`]).

use super::Store;
use super::retention::{Candidate, Policy, Reason, choose};
use crate::db::images::Image;
use crate::db::retention::{self, Scope};
use crate::db::{Conn, chunks, executions, images};
use crate::failure::Outcome;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use wire::JobKind;

/// What becomes of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Its name as it was ordered.
    pub series: String,
    /// Machine that was backed up.
    pub machine: String,
    /// When it was published.
    pub created: i64,
    /// The set that it belongs to, which stays or goes as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// Why it stays; it goes if there is no reason.
    pub keep: Vec<Reason>,
}

impl Verdict {
    /// Whether the image goes.
    pub fn goes(&self) -> bool {
        self.keep.is_empty()
    }
}

/// Images that were made together, in the given order; most are alone.
fn backups(images: Vec<Image>) -> Vec<Vec<Image>> {
    let mut backups: Vec<Vec<Image>> = Vec::new();
    for image in images {
        let same = |backup: &&mut Vec<Image>| {
            let of = |image: &Image| image.set.as_ref().map(|set| set.id.clone());
            of(&image).is_some() && backup.first().and_then(of) == of(&image)
        };
        match backups.iter_mut().find(same) {
            Some(backup) => backup.push(image),
            None => backups.push(vec![image]),
        }
    }
    backups
}

impl Store {
    /// What becomes of every image, newest first within a series.
    ///
    /// # Errors
    /// The database fails.
    pub async fn verdicts(&self, conn: &mut Conn, now: i64) -> Outcome<Vec<Verdict>> {
        let rules: HashMap<Scope, Policy> = retention::all(conn).await?.into_iter().collect();
        let hurt = chunks::hurt_images(conn).await?;
        let used = self.in_use(conn).await?;
        let mut series: HashMap<(String, String), Vec<Image>> = HashMap::new();
        for image in images::all(conn).await? {
            let key = (image.machine.clone(), image.series.clone());
            series.entry(key).or_default().push(image);
        }
        let mut all: Vec<_> = series.into_iter().collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        let mut verdicts = Vec::new();
        for ((machine, name), mut images) in all {
            images.sort_by_key(|image| std::cmp::Reverse(image.order));
            let backups = backups(images);
            let scopes = [Scope::Image(name), Scope::Machine(machine), Scope::All];
            let policy = scopes.iter().find_map(|scope| rules.get(scope));
            let candidate = |images: &Vec<Image>| Candidate {
                created: images.first().map_or(0, |image| image.created),
                pinned: images.iter().any(|image| image.pinned),
                whole: images
                    .iter()
                    .all(|image| !image.damaged && !hurt.contains_key(&image.id)),
                used: images.iter().any(|image| used.contains(&image.id)),
            };
            let candidates: Vec<Candidate> = backups.iter().map(candidate).collect();
            let reasons = choose(&policy.copied().unwrap_or_default(), &candidates, now);
            for (images, keep) in backups.into_iter().zip(reasons) {
                verdicts.extend(images.into_iter().map(|image| Verdict {
                    id: image.id,
                    name: image.name,
                    series: image.series,
                    machine: image.machine_name,
                    created: image.created,
                    set: image.set.map(|set| set.id),
                    keep: keep.clone(),
                }));
            }
        }
        Ok(verdicts)
    }

    /// Images that unfinished executions restore, or that are exported now.
    async fn in_use(&self, conn: &mut Conn) -> Outcome<HashSet<String>> {
        let mut used = self.exported();
        for execution in executions::all_open(conn).await? {
            if let JobKind::Restore { image, set, .. } = execution.job
                && !execution.state.is_final()
            {
                used.insert(image);
                used.extend(set.into_iter().map(|part| part.image));
            }
        }
        Ok(used)
    }

    /// Deletes the images that no rule keeps and gives their space back. Returns them.
    ///
    /// # Errors
    /// The database or the folder cannot be used; some may be deleted then.
    pub async fn prune(&self, now: i64) -> Outcome<Vec<Verdict>> {
        let mut gone = Vec::new();
        loop {
            // One at a time: each is chosen where nothing can change any more, and no
            // other writer waits for all of them.
            let mut tx = self.db.write().await?;
            let verdicts = self.verdicts(tx.conn(), now).await?;
            let Some(first) = verdicts.iter().find(|verdict| verdict.goes()).cloned() else {
                break;
            };
            let of_it = |verdict: &Verdict| {
                verdict.id == first.id || (first.set.is_some() && verdict.set == first.set)
            };
            let going: Vec<Verdict> = verdicts.into_iter().filter(of_it).collect();
            for verdict in &going {
                images::delete(tx.conn(), &verdict.id).await?;
            }
            tx.commit().await?;
            for verdict in going {
                self.remove_files(&verdict.id).await;
                tracing::info!(image = %verdict.id, name = %verdict.name, "no rule keeps the image; deleted");
                gone.push(verdict);
            }
        }
        if !gone.is_empty() {
            self.collect().await?;
        }
        Ok(gone)
    }
}
