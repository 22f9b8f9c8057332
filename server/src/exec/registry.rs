//! Machines register themselves.
//!
//! Owns: storing what a target says about itself, and names of new machines. Does not
//! own: the rule which machine a target is ([`crate::identity`]).

use crate::db::{Conn, machines};
use crate::failure::{Failure, Outcome};
use crate::identity::{self, Identity, Match};
use crate::secrets;
use wire::{Code, DiskState, Report};

/// Finds or adds the machine; the inner error is why no job may be given.
///
/// # Errors
/// The database fails.
pub async fn register(
    conn: &mut Conn,
    target: &Identity,
    now: i64,
) -> Outcome<Result<machines::Machine, Report>> {
    let refuse = |found: String| {
        Ok(Err(Report::new(
            Code::MachineAmbiguous,
            found,
            DiskState::Untouched,
        )))
    };
    if target.macs.is_empty() && target.uuid.is_none() {
        return refuse("the machine tells neither a network address nor a UUID of its own".into());
    }
    let candidates = machines::candidates(conn, target).await?;
    let id = match identity::find(target, &candidates) {
        Match::Known(id) => {
            machines::learn(conn, &id, target, now).await?;
            id
        }
        Match::New => {
            let id = secrets::random_id().map_err(|e| Failure::io("random numbers", &e))?;
            let name = free_name(conn, &default_name(target)).await?;
            machines::insert(conn, &id, &name, target, now).await?;
            tracing::info!(machine = %name, macs = %target.macs.join(" "), "machine registered itself");
            id
        }
        Match::Ambiguous(found) => {
            tracing::warn!(%found, "machine-ambiguous");
            return refuse(found);
        }
    };
    machines::by_id(conn, &id)
        .await?
        .map(Ok)
        .ok_or_else(|| Failure::internal("a machine vanished while it was registered"))
}

fn default_name(target: &Identity) -> String {
    match (target.macs.first(), &target.uuid) {
        (Some(mac), _) => format!("pc-{}", mac.replace(':', "")),
        (None, Some(uuid)) => format!("pc-{uuid}"),
        (None, None) => "pc".to_owned(),
    }
}

/// `wanted`, or something like it that no machine is called.
pub(crate) async fn free_name(conn: &mut Conn, wanted: &str) -> Outcome<String> {
    let mut name = wanted.to_owned();
    // Somebody may have given the name to another machine by hand.
    for number in 2..1000 {
        if machines::by_reference(conn, &name).await?.is_none() {
            return Ok(name);
        }
        name = format!("{wanted}-{number}");
    }
    Err(Failure::internal(format!("no free name like {wanted}")))
}

#[cfg(test)]
mod tests {
    use super::register;
    use crate::db;
    use crate::identity::Identity;
    use wire::Code;

    const A: &str = "52:54:00:00:00:0a";
    const B: &str = "52:54:00:00:00:0b";
    const U1: &str = "4c4c4544-0042-3510-8051-b4c04f4a3232";
    const U2: &str = "4c4c4544-0042-3510-8051-b4c04f4a3233";

    #[tokio::test]
    async fn all_cards_and_the_uuid_are_one_machine() {
        let dir = tempfile::tempdir().unwrap();
        let db = db::tests::open(dir.path()).await;
        let mut tx = db.write().await.unwrap();
        let first = register(tx.conn(), &Identity::new([A], U1, ""), 1)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(first.name, "pc-52540000000a");
        let second = register(tx.conn(), &Identity::new([B], U1, ""), 2)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(first.id, second.id, "another card of the same machine");
        let third = register(tx.conn(), &Identity::new([B], "", ""), 3)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(first.id, third.id, "the second card was learned");
        assert_eq!(db::machines::all(tx.conn()).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn contradictions_give_no_machine_and_change_none() {
        let dir = tempfile::tempdir().unwrap();
        let db = db::tests::open(dir.path()).await;
        let mut tx = db.write().await.unwrap();
        register(tx.conn(), &Identity::new([A], U1, ""), 1)
            .await
            .unwrap()
            .unwrap();
        register(tx.conn(), &Identity::new([B], U2, ""), 1)
            .await
            .unwrap()
            .unwrap();
        let before = db::machines::all(tx.conn()).await.unwrap();
        for (mac, uuid) in [(A, U2), (B, U1)] {
            let report = register(tx.conn(), &Identity::new([mac], uuid, ""), 2)
                .await
                .unwrap()
                .unwrap_err();
            assert_eq!(report.code, Code::MachineAmbiguous);
        }
        let report = register(tx.conn(), &Identity::new([A, B], "", ""), 2)
            .await
            .unwrap()
            .unwrap_err();
        assert!(
            report.found.contains("pc-52540000000a") && report.found.contains("pc-52540000000b"),
            "{}",
            report.found
        );
        let report = register(tx.conn(), &Identity::new([], "", ""), 2)
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!(report.code, Code::MachineAmbiguous);
        assert_eq!(db::machines::all(tx.conn()).await.unwrap(), before);
    }

    #[tokio::test]
    async fn placeholder_uuids_make_no_machine_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let db = db::tests::open(dir.path()).await;
        let mut tx = db.write().await.unwrap();
        let zero = "03000200-0400-0500-0006-000700080009";
        let one = register(tx.conn(), &Identity::new([A], zero, ""), 1)
            .await
            .unwrap()
            .unwrap();
        let two = register(tx.conn(), &Identity::new([B], zero, ""), 1)
            .await
            .unwrap()
            .unwrap();
        assert_ne!(one.id, two.id);
    }
}
