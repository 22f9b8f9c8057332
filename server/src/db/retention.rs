//! Rows of retention: which rule holds for which images.
//!
//! Owns: their queries. Does not own: what a rule means ([`crate::store::retention`]).

use super::{Conn, from_json, to_json};
use crate::store::retention::Policy;
use sqlx::Row;

/// What a rule is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Everything that has no other rule.
    All,
    /// All images of a machine (its id) that have no rule of their own.
    Machine(String),
    /// Images of this name, as it was ordered.
    Image(String),
}

impl Scope {
    fn columns(&self) -> (&'static str, &str) {
        match self {
            Scope::All => ("all", ""),
            Scope::Machine(id) => ("machine", id),
            Scope::Image(series) => ("image", series),
        }
    }
}

/// All rules.
pub async fn all(conn: &mut Conn) -> Result<Vec<(Scope, Policy)>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM retention ORDER BY scope, subject")
        .fetch_all(conn)
        .await?;
    rows.iter()
        .map(|row| {
            let subject: String = row.try_get("subject")?;
            let scope = match row.try_get::<String, _>("scope")?.as_str() {
                "machine" => Scope::Machine(subject),
                "image" => Scope::Image(subject),
                _ => Scope::All,
            };
            Ok((scope, from_json(&row.try_get::<String, _>("policy")?)?))
        })
        .collect()
}

/// Sets a rule.
pub async fn set(conn: &mut Conn, scope: &Scope, policy: &Policy) -> Result<(), sqlx::Error> {
    let (scope, subject) = scope.columns();
    sqlx::query(
        "INSERT INTO retention (scope, subject, policy) VALUES ($1, $2, $3)
         ON CONFLICT (scope, subject) DO UPDATE SET policy = excluded.policy",
    )
    .bind(scope)
    .bind(subject)
    .bind(to_json(policy)?)
    .execute(conn)
    .await?;
    Ok(())
}

/// Removes a rule; whether there was one.
pub async fn clear(conn: &mut Conn, scope: &Scope) -> Result<bool, sqlx::Error> {
    let (scope, subject) = scope.columns();
    let result = sqlx::query("DELETE FROM retention WHERE scope = $1 AND subject = $2")
        .bind(scope)
        .bind(subject)
        .execute(conn)
        .await?;
    Ok(result.rows_affected() > 0)
}
