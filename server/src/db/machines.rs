//! Rows of machines.
//!
//! Owns: their queries. Does not own: the rule which machine a target is
//! ([`crate::identity`]).

use super::{Conn, from_json, signed, to_json, unsigned};
use crate::exec::fabric::SanDisk;
use crate::exec::stall::Boots;
use crate::identity::{Candidate, Identity};
use crate::netboot::LocalBoot;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use std::collections::HashMap;
use wire::{CheckIn, DiskCheck, DiskInfo, Hardware};

/// A machine as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// Id, never changes.
    pub id: String,
    /// Name, unique.
    pub name: String,
    /// UUID, if it has a real one.
    pub uuid: Option<String>,
    /// SMBIOS serial number.
    pub serial: String,
    /// Vendor and product.
    pub model: String,
    /// `bios` or `uefi`; empty before the first check-in.
    pub firmware: String,
    /// `x86_64`; empty before the first check-in.
    pub architecture: String,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Version of the imager that checked in last.
    pub version: String,
    /// Address that it checked in from last.
    pub address: String,
    /// Kernel start to last check-in, in milliseconds.
    pub uptime_ms: u64,
    /// Disks of the last check-in.
    pub disks: Vec<DiskInfo>,
    /// Result of the last disk check.
    pub disk_check: Option<DiskCheck>,
    /// Time of the last disk check.
    pub disk_check_at: Option<i64>,
    /// Disks of storage networks that jobs are held to; none before the first look.
    pub san_disks: Option<Vec<SanDisk>>,
    /// How its own disk is booted.
    pub local_boot: LocalBoot,
    /// What it is made of, if its Deploy-OS told that.
    pub hardware: Option<Hardware>,
    /// Boot scripts that it fetched since its last check-in.
    pub boots: Option<Boots>,
    /// First and last contact.
    pub first_seen: i64,
    /// Last contact.
    pub last_seen: i64,
}

fn machine(row: &SqliteRow) -> Result<Machine, sqlx::Error> {
    let disks: Option<String> = row.try_get("disk_list")?;
    let check: Option<String> = row.try_get("disk_check")?;
    let san: Option<String> = row.try_get("san_disks")?;
    let hardware: Option<String> = row.try_get("hardware")?;
    let (first, last): (Option<i64>, Option<i64>) =
        (row.try_get("boot_first")?, row.try_get("boot_last")?);
    let count = unsigned(row.try_get("boot_count")?);
    Ok(Machine {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        uuid: row.try_get("uuid")?,
        serial: row.try_get("serial")?,
        model: row.try_get("model")?,
        firmware: row.try_get("firmware")?,
        architecture: row.try_get("architecture")?,
        memory_bytes: unsigned(row.try_get("memory_bytes")?),
        version: row.try_get("version")?,
        address: row.try_get("address")?,
        uptime_ms: unsigned(row.try_get("uptime_ms")?),
        disks: disks
            .as_deref()
            .map(from_json)
            .transpose()?
            .unwrap_or_default(),
        disk_check: check.as_deref().map(from_json).transpose()?,
        disk_check_at: row.try_get("disk_check_at")?,
        san_disks: san.as_deref().map(from_json).transpose()?,
        local_boot: LocalBoot::parse(&row.try_get::<String, _>("local_boot")?),
        hardware: hardware.as_deref().map(from_json).transpose()?,
        boots: first
            .zip(last)
            .map(|(first, last)| Boots { first, last, count }),
        first_seen: row.try_get("first_seen")?,
        last_seen: row.try_get("last_seen")?,
    })
}

/// Machines that share an address or the UUID with `target`.
pub async fn candidates(conn: &mut Conn, target: &Identity) -> Result<Vec<Candidate>, sqlx::Error> {
    let mut query = sqlx::QueryBuilder::new(
        "SELECT DISTINCT m.id, m.name, m.uuid, m.serial FROM machines m LEFT JOIN macs a ON a.machine = m.id WHERE ",
    );
    query.push("m.uuid = ").push_bind(target.uuid.clone());
    if !target.macs.is_empty() {
        query.push(" OR a.mac IN (");
        let mut list = query.separated(", ");
        for mac in &target.macs {
            list.push_bind(mac);
        }
        query.push(")");
    }
    query.push(" ORDER BY 2");
    let rows = query.build().fetch_all(conn).await?;
    rows.iter()
        .map(|row| {
            Ok(Candidate {
                id: row.try_get("id")?,
                name: row.try_get("name")?,
                uuid: row.try_get("uuid")?,
                serial: row.try_get("serial")?,
            })
        })
        .collect()
}

/// Adds a machine.
pub async fn insert(
    conn: &mut Conn,
    id: &str,
    name: &str,
    target: &Identity,
    now: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO machines (id, name, uuid, serial, first_seen, last_seen) VALUES ($1, $2, $3, $4, $5, $5)")
        .bind(id)
        .bind(name)
        .bind(&target.uuid)
        .bind(&target.serial)
        .bind(now)
        .execute(&mut *conn)
        .await?;
    learn(conn, id, target, now).await
}

/// Adds what is new about a known machine; what is known is not replaced.
pub async fn learn(
    conn: &mut Conn,
    id: &str,
    target: &Identity,
    now: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE machines SET uuid = COALESCE(uuid, $2), serial = CASE WHEN serial = '' THEN $3 ELSE serial END,
         last_seen = $4 WHERE id = $1",
    )
    .bind(id)
    .bind(&target.uuid)
    .bind(&target.serial)
    .bind(now)
    .execute(&mut *conn)
    .await?;
    for mac in &target.macs {
        sqlx::query("INSERT INTO macs (mac, machine) VALUES ($1, $2) ON CONFLICT (mac) DO NOTHING")
            .bind(mac)
            .bind(id)
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}

/// Notes the model, as a boot script's request tells it.
pub async fn set_model(conn: &mut Conn, id: &str, model: &str) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE machines SET model = $2 WHERE id = $1 AND model = ''")
        .bind(id)
        .bind(model)
        .execute(conn)
        .await?;
    Ok(())
}

/// Notes that a machine fetched the Deploy-OS's boot script. After a pause of more than `limit`
/// seconds it is the first one again.
pub async fn boot_fetched(
    conn: &mut Conn,
    id: &str,
    now: i64,
    limit: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE machines SET
         boot_first = CASE WHEN boot_last IS NULL OR $2 - boot_last > $3 THEN $2 ELSE boot_first END,
         boot_count = CASE WHEN boot_last IS NULL OR $2 - boot_last > $3 THEN 1 ELSE boot_count + 1 END,
         boot_last = $2 WHERE id = $1",
    )
    .bind(id)
    .bind(now)
    .bind(limit)
    .execute(conn)
    .await?;
    Ok(())
}

/// Machines that fetched boot scripts since their last check-in, by id.
pub async fn boots(conn: &mut Conn) -> Result<HashMap<String, Boots>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT id, boot_first, boot_last, boot_count FROM machines WHERE boot_first IS NOT NULL",
    )
    .fetch_all(conn)
    .await?;
    let one = |row: &SqliteRow| {
        let boots = Boots {
            first: row.try_get("boot_first")?,
            last: row.try_get("boot_last")?,
            count: unsigned(row.try_get("boot_count")?),
        };
        Ok((row.try_get("id")?, boots))
    };
    rows.iter().map(one).collect()
}

/// Forgets the boot scripts that a machine fetched.
pub async fn forget_boots(conn: &mut Conn, id: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE machines SET boot_first = NULL, boot_last = NULL, boot_count = 0 WHERE id = $1",
    )
    .bind(id)
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes what a check-in says.
pub async fn checked_in(
    conn: &mut Conn,
    id: &str,
    checkin: &CheckIn,
    address: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE machines SET model = CASE WHEN $2 = '' THEN model ELSE $2 END, firmware = $3, architecture = $4, memory_bytes = $5, version = $6,
         address = $7, uptime_ms = $8, disk_list = $9, hardware = COALESCE($10, hardware) WHERE id = $1",
    )
    .bind(id)
    .bind(&checkin.model)
    .bind(&checkin.firmware)
    .bind(&checkin.architecture)
    .bind(signed(checkin.memory_bytes))
    .bind(&checkin.version)
    .bind(address)
    .bind(signed(checkin.uptime_ms))
    .bind(to_json(&checkin.disks)?)
    .bind(checkin.hardware.as_ref().map(to_json).transpose()?)
    .execute(&mut *conn)
    .await?;
    // It got as far as this.
    forget_boots(conn, id).await
}

/// Stores a disk check.
pub async fn set_disk_check(
    conn: &mut Conn,
    id: &str,
    check: &DiskCheck,
    now: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE machines SET disk_check = $2, disk_check_at = $3 WHERE id = $1")
        .bind(id)
        .bind(to_json(check)?)
        .bind(now)
        .execute(conn)
        .await?;
    Ok(())
}

/// Notes the disks of storage networks that jobs are held to from now on.
pub async fn set_san_disks(
    conn: &mut Conn,
    id: &str,
    disks: &[SanDisk],
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE machines SET san_disks = $2 WHERE id = $1")
        .bind(id)
        .bind(to_json(&disks)?)
        .execute(conn)
        .await?;
    Ok(())
}

/// All machines by name.
pub async fn all(conn: &mut Conn) -> Result<Vec<Machine>, sqlx::Error> {
    sqlx::query("SELECT * FROM machines ORDER BY name")
        .fetch_all(conn)
        .await?
        .iter()
        .map(machine)
        .collect()
}

/// The machine of this id.
pub async fn by_id(conn: &mut Conn, id: &str) -> Result<Option<Machine>, sqlx::Error> {
    sqlx::query("SELECT * FROM machines WHERE id = $1")
        .bind(id)
        .fetch_optional(conn)
        .await?
        .as_ref()
        .map(machine)
        .transpose()
}

/// The machine that people mean: by name, else by id, else by address.
pub async fn by_reference(conn: &mut Conn, text: &str) -> Result<Option<Machine>, sqlx::Error> {
    let mac = crate::identity::mac(text).unwrap_or_default();
    sqlx::query(
        "SELECT * FROM machines WHERE name = $1 OR id = $1 OR id IN (SELECT machine FROM macs WHERE mac = $2)
         ORDER BY CASE WHEN name = $1 THEN 0 WHEN id = $1 THEN 1 ELSE 2 END LIMIT 1",
    )
    .bind(text)
    .bind(mac)
    .fetch_optional(conn)
    .await?
    .as_ref()
    .map(machine)
    .transpose()
}

/// Addresses of a machine.
pub async fn macs(conn: &mut Conn, id: &str) -> Result<Vec<String>, sqlx::Error> {
    let rows = sqlx::query("SELECT mac FROM macs WHERE machine = $1 ORDER BY mac")
        .bind(id)
        .fetch_all(conn)
        .await?;
    rows.iter().map(|row| row.try_get("mac")).collect()
}

/// Renames; `false` if the name is taken.
pub async fn rename(conn: &mut Conn, id: &str, name: &str) -> Result<bool, sqlx::Error> {
    let taken = sqlx::query("SELECT id FROM machines WHERE name = $1 AND id <> $2")
        .bind(name)
        .bind(id)
        .fetch_optional(&mut *conn)
        .await?
        .is_some();
    if taken {
        return Ok(false);
    }
    sqlx::query("UPDATE machines SET name = $2 WHERE id = $1")
        .bind(id)
        .bind(name)
        .execute(conn)
        .await?;
    Ok(true)
}

/// Sets how a machine's own disk is booted.
pub async fn set_local_boot(conn: &mut Conn, id: &str, way: LocalBoot) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE machines SET local_boot = $2 WHERE id = $1")
        .bind(id)
        .bind(way.as_str())
        .execute(conn)
        .await?;
    Ok(())
}

/// Forgets a machine and its executions.
pub async fn delete(conn: &mut Conn, id: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM machines WHERE id = $1")
        .bind(id)
        .execute(conn)
        .await?;
    Ok(())
}
