//! Rows of leased addresses.
//!
//! Owns: their queries, and being network boot's [`LeaseStore`]. Does not own: who is
//! given which address ([`crate::netboot::dhcp`]).

use super::{Conn, Db};
use crate::netboot::LeaseStore;
use crate::netboot::dhcp::table::{Held, Lease};
use crate::netboot::lessor::Stored;
use sqlx::Row;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Leases in the server's database.
pub struct Leases(pub Arc<Db>);

impl LeaseStore for Leases {
    fn load(&self) -> Stored<'_, Vec<Lease>> {
        Box::pin(async {
            let mut conn = self.0.read().await.map_err(|e| e.to_string())?;
            all(&mut conn).await.map_err(|e| e.to_string())
        })
    }

    fn save(&self, leases: Vec<Lease>) -> Stored<'_, ()> {
        // In a task: who waits may give up, and a transaction must not be cut in two.
        let db = Arc::clone(&self.0);
        Box::pin(async move {
            let saved = tokio::spawn(async move {
                let mut tx = db.write().await?;
                for lease in &leases {
                    put(tx.conn(), lease).await?;
                }
                tx.commit().await
            });
            match saved.await {
                Ok(saved) => saved.map_err(|e: sqlx::Error| e.to_string()),
                Err(_) => Err("the task that stores leases ended".to_owned()),
            }
        })
    }
}

/// All leases. A row that makes no sense is left out.
pub async fn all(conn: &mut Conn) -> Result<Vec<Lease>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM addresses ORDER BY address")
        .fetch_all(conn)
        .await?;
    let mut leases = Vec::with_capacity(rows.len());
    for row in rows {
        let (address, held): (String, String) = (row.try_get("address")?, row.try_get("held")?);
        let Some((address, held)) = address.parse::<Ipv4Addr>().ok().zip(Held::parse(&held)) else {
            continue;
        };
        leases.push(Lease {
            address,
            client: row.try_get("client")?,
            mac: row.try_get("mac")?,
            host: row.try_get("host")?,
            held,
            since: row.try_get("since")?,
            until: row.try_get("until")?,
        });
    }
    Ok(leases)
}

/// Enters a lease in place of what was known of its address.
pub async fn put(conn: &mut Conn, lease: &Lease) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO addresses (address, client, mac, host, held, since, until)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (address) DO UPDATE SET client = excluded.client, mac = excluded.mac,
         host = excluded.host, held = excluded.held, since = excluded.since, until = excluded.until",
    )
    .bind(lease.address.to_string())
    .bind(&lease.client)
    .bind(&lease.mac)
    .bind(&lease.host)
    .bind(lease.held.as_str())
    .bind(lease.since)
    .bind(lease.until)
    .execute(conn)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Leases;
    use crate::db::tests::open;
    use crate::netboot::LeaseStore;
    use crate::netboot::dhcp::table::{Held, Lease};
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    #[tokio::test]
    async fn what_is_saved_comes_back_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let lease = |last, held| Lease {
            address: Ipv4Addr::new(10, 0, 0, last),
            client: format!("01-{last}"),
            mac: "52:54:00:00:00:01".to_owned(),
            host: "pc".to_owned(),
            held,
            since: 5,
            until: 6,
        };
        let (first, second) = (lease(1, Held::Leased), lease(2, Held::Declined));
        let store = Leases(Arc::new(open(dir.path()).await));
        store
            .save(vec![lease(1, Held::Released), second.clone()])
            .await
            .unwrap();
        store.save(vec![first.clone()]).await.unwrap();
        store.0.close().await;
        let store = Leases(Arc::new(open(dir.path()).await));
        assert_eq!(store.load().await.unwrap(), [first, second]);
        store.0.close().await;
        assert!(store.save(vec![lease(1, Held::Leased)]).await.is_err());
    }
}
