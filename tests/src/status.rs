//! What `deployctl status --json` says, as far as tests and the demo look at it.
//!
//! Owns: finding machines, executions and images in it. Does not own: asking (`site`).
//! The JSON is taken as a user's script would take it, not by the server's own types.

use std::fmt;
use std::io;

use serde_json::Value;

/// One answer of the server.
#[derive(Clone)]
pub struct Status {
    value: Value,
}

impl Status {
    /// Takes the printed JSON.
    ///
    /// # Errors
    /// It is none, or one of the three lists is missing.
    pub fn parse(text: &str) -> io::Result<Status> {
        let value: Value = serde_json::from_str(text).map_err(io::Error::other)?;
        for list in ["machines", "executions", "images"] {
            if !value.get(list).is_some_and(Value::is_array) {
                return Err(io::Error::other(format!("no list of {list} in {text}")));
            }
        }
        Ok(Status { value })
    }

    /// Name of the machine with this MAC address, once it has checked in.
    pub fn machine(&self, mac: &str) -> Option<String> {
        self.list("machines")
            .find(|machine| {
                let checked_in = !text(machine, "firmware").is_empty();
                let macs = machine.get("macs").and_then(Value::as_array);
                checked_in && macs.is_some_and(|macs| macs.iter().any(|m| m.as_str() == Some(mac)))
            })
            .map(|machine| text(machine, "name").to_owned())
    }

    /// The newest execution of a kind (`backup`, `restore`) for a machine.
    pub fn execution(&self, machine: &str, kind: &str) -> Option<Execution> {
        self.list("executions")
            .filter(|one| text(one, "machine") == machine && text(one, "kind") == kind)
            .max_by_key(|one| one.get("created").and_then(Value::as_i64))
            .map(|one| Execution { value: one.clone() })
    }

    /// How many executions of a kind there are for a machine.
    pub fn count(&self, machine: &str, kind: &str) -> usize {
        self.list("executions")
            .filter(|one| text(one, "machine") == machine && text(one, "kind") == kind)
            .count()
    }

    /// Names of the visible images.
    pub fn images(&self) -> Vec<String> {
        self.list("images")
            .map(|image| text(image, "name").to_owned())
            .collect()
    }

    /// Ids of the visible images of a name, those of a set in its order.
    pub fn image_ids(&self, name: &str) -> Vec<String> {
        self.list("images")
            .filter(|image| text(image, "name") == name)
            .map(|image| text(image, "id").to_owned())
            .collect()
    }

    /// A number of an image, as `used_bytes` or `stored_bytes`.
    pub fn image_number(&self, name: &str, field: &str) -> Option<u64> {
        self.list("images")
            .find(|image| text(image, "name") == name)?
            .get(field)?
            .as_u64()
    }

    fn list(&self, name: &str) -> impl Iterator<Item = &Value> {
        self.value
            .get(name)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
    }
}

/// Short: what a failing test needs to show.
impl fmt::Debug for Status {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for one in self.list("executions") {
            write!(out, "{:?}; ", Execution { value: one.clone() })?;
        }
        write!(out, "images: {:?}", self.images())
    }
}

/// One execution.
#[derive(Clone)]
pub struct Execution {
    value: Value,
}

impl Execution {
    /// Its id.
    pub fn id(&self) -> &str {
        text(&self.value, "id")
    }

    /// Its state, as `running`.
    pub fn state(&self) -> &str {
        text(&self.value, "state")
    }

    /// Done and proved.
    pub fn is_done(&self) -> bool {
        self.state() == "done"
    }

    /// Nothing about it will change any more.
    pub fn is_final(&self) -> bool {
        matches!(self.state(), "done" | "failed" | "interrupted")
    }

    /// Bytes done and to be done in this step, and bytes per second.
    pub fn progress(&self) -> Option<(u64, u64, u64)> {
        let progress = self.value.get("progress")?;
        let number = |name| progress.get(name).and_then(Value::as_u64);
        Some((
            number("done_bytes")?,
            number("total_bytes")?,
            number("rate")?,
        ))
    }

    /// Percent of this step that are done.
    pub fn percent(&self) -> u64 {
        match self.progress() {
            Some((done, total, _)) if total > 0 => done.saturating_mul(100) / total,
            _ => 0,
        }
    }

    /// What the server says about it in words: note and report.
    pub fn words(&self) -> String {
        let report = self.value.get("report").filter(|report| !report.is_null());
        let report = report.map(Value::to_string).unwrap_or_default();
        format!("{} {report}", text(&self.value, "note"))
    }

    /// Codes of its warnings.
    pub fn warnings(&self) -> Vec<&str> {
        let all = self.value.get("warnings").and_then(Value::as_array);
        let codes = all.into_iter().flatten().map(|one| text(one, "code"));
        codes.collect()
    }

    /// Why it failed; null if it did not.
    pub fn report(&self) -> &Value {
        self.value.get("report").unwrap_or(&Value::Null)
    }

    /// A figure of the end, as `wire_bytes` or `seconds`.
    pub fn summary(&self, field: &str) -> Option<f64> {
        self.value.get("summary")?.get(field)?.as_f64()
    }
}

impl fmt::Debug for Execution {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} of {}: {} {} % ({})",
            text(&self.value, "kind"),
            text(&self.value, "machine"),
            self.state(),
            self.percent(),
            self.words()
        )
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::Status;

    const SAMPLE: &str = r#"{
        "machines": [
            {"name": "new", "firmware": "", "macs": ["52:54:00:00:00:02"]},
            {"name": "pc1", "firmware": "bios", "macs": ["52:54:00:00:00:01"]}],
        "executions": [
            {"id": "a", "machine": "pc1", "kind": "backup", "state": "failed", "created": 1},
            {"id": "b", "machine": "pc1", "kind": "backup", "state": "running", "created": 2,
             "progress": {"done_bytes": 30, "total_bytes": 120, "rate": 7}, "note": "since 3 s"}],
        "images": [{"name": "gold", "used_bytes": 5}]
    }"#;

    #[test]
    fn machines_count_once_they_checked_in() {
        let status = Status::parse(SAMPLE).unwrap();
        assert_eq!(status.machine("52:54:00:00:00:01").as_deref(), Some("pc1"));
        assert_eq!(status.machine("52:54:00:00:00:02"), None);
    }

    #[test]
    fn the_newest_execution_is_meant() {
        let status = Status::parse(SAMPLE).unwrap();
        let backup = status.execution("pc1", "backup").unwrap();
        assert_eq!((backup.id(), backup.percent()), ("b", 25));
        assert!(!backup.is_done() && !backup.is_final());
        assert_eq!(status.count("pc1", "backup"), 2);
        assert!(status.execution("pc1", "restore").is_none());
        assert_eq!(status.image_number("gold", "used_bytes"), Some(5));
    }

    #[test]
    fn something_else_is_refused() {
        assert!(Status::parse("no").is_err());
        assert!(Status::parse(r#"{"machines": []}"#).is_err());
    }
}
