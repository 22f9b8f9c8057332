//! Files that differ between two images, as they are found.
//!
//! Owns: which partitions are looked into, and how a difference is shown. Does not own:
//! finding it (`crate::files::compare`).

use super::name;
use crate::cli::inside::{self, label};
use crate::cli::ls::text_of;
use crate::diff::{Content, Difference, Part, alike, bad};
use crate::extract::shown;
use crate::files::compare::{Difference as Change, Side, compare};
use crate::files::{self, Fail, Node};
use crate::map::printable;
use crate::progress::Silent;
use image::OpenImage;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufWriter, Stdout, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use wire::Report;

/// Prints as it goes: a list may be longer than memory.
struct List {
    json: bool,
    out: BufWriter<Stdout>,
    printed: u64,
    complete: bool,
}

/// Prints `head`, which says what else differs, and then the files that differ.
///
/// # Errors
/// An image cannot be read, or standard output takes no more.
pub(super) fn print(
    images: (&OpenImage<File>, &OpenImage<File>),
    found: &Difference<'_>,
    head: (&str, &Value),
    json: bool,
) -> Result<(), Report> {
    let mut list = List {
        json,
        out: BufWriter::new(std::io::stdout()),
        printed: 0,
        complete: true,
    };
    match list.all(images, found, head) {
        // A reader that has enough (`| head`) is no failure.
        Err(Fail::Output(report)) if report.found.is_empty() => Ok(()),
        Err(fail) => Err(fail.report("the comparison")),
        Ok(()) => Ok(()),
    }
}

impl List {
    fn all(
        &mut self,
        images: (&OpenImage<File>, &OpenImage<File>),
        found: &Difference<'_>,
        (text, value): (&str, &Value),
    ) -> Result<(), Fail> {
        let head = value.to_string();
        match head.strip_suffix('}').filter(|_| self.json) {
            Some(open) => self.put(&format!("{open},\"files\":["))?,
            None => self.put(text)?,
        }
        let mut parts = Vec::new();
        for part in &found.parts {
            let is_gap = part.after.or(part.before).is_none_or(|r| r.kind == "gap");
            // Where sectors could not be read, the same bytes say nothing.
            let lost = part.places.is_some_and(|(before, after)| {
                !bad(images.0, before).is_empty() || !bad(images.1, after).is_empty()
            });
            if is_gap || part.content == Content::Same && !lost {
                continue;
            }
            let done = match self.part(images, part) {
                Err(fail) if fail.is_final() => return Err(fail),
                done => done,
            };
            self.complete &= done.is_ok();
            parts.push(self.end_of_part(part, done)?);
        }
        if self.json {
            let (parts, complete) = (json!(parts), self.complete);
            self.put(&format!(
                "\n],\"files_of\":{parts},\"files_complete\":{complete}}}\n"
            ))?;
        }
        self.out.flush().map_err(|e| crate::cli::ls::closed(&e))
    }

    /// Compares the files of one partition: how many have more than was compared.
    fn part(
        &mut self,
        (before, after): (&OpenImage<File>, &OpenImage<File>),
        part: &Part<'_>,
    ) -> Result<u64, Fail> {
        let (Some(places), Some(region)) = (part.places, part.after) else {
            let why = "it is not in both images";
            return Err(Fail::Unsupported(why.to_owned()));
        };
        if !self.json {
            self.put(&format!("Files of {}:\n", name(region)))?;
        }
        let of_image = |report: Report| Fail::Image(Box::new(report));
        let alike = Rc::new(alike(before, after, places).map_err(of_image)?);
        let missing = || Fail::Unsupported("it is only listed in an image".to_owned());
        let one = files::Part::new(before, places.0, &Silent).ok_or_else(missing)?;
        let other = files::Part::new(after, places.1, &Silent).ok_or_else(missing)?;
        let label = label(region);
        // A library that reads a file system may trip over a damaged one.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let (a, b) = (files::open(&one)?, files::open(&other)?);
            let before = Side {
                part: &one,
                tree: &*a,
            };
            let after = Side {
                part: &other,
                tree: &*b,
            };
            compare(&before, &after, &alike, &mut |path, change| {
                self.change(inside::number(region), &label, path, change)
            })
        }));
        outcome.unwrap_or_else(|_| Err(Fail::damaged("its reader gave up on it")))
    }

    /// What is told of a partition behind its files.
    fn end_of_part(&mut self, part: &Part<'_>, done: Result<u64, Fail>) -> Result<Value, Fail> {
        let Some(region) = part.after.or(part.before) else {
            return Ok(Value::Null);
        };
        let what = name(region);
        let (unlooked, why) = match done {
            Ok(count) => (count, None),
            Err(fail) => (0, Some(fail.report(&what).found)),
        };
        if unlooked > 0 && !self.json {
            self.put(&format!(
                "Not compared: what streams, extended attributes and device numbers of {unlooked} files hold\n"
            ))?;
        }
        if let Some(why) = why.as_ref().filter(|_| !self.json) {
            let why = printable(why, 400);
            self.put(&format!("Files are not compared: {why}\n"))?;
        }
        Ok(json!({
            "partition": inside::number(region),
            "file_system": region.file_system,
            "compared": why.is_none(),
            "found": why,
            "besides_not_compared": unlooked,
        }))
    }

    fn change(
        &mut self,
        partition: Option<u32>,
        label: &str,
        path: &[u8],
        change: Change,
    ) -> Result<(), Fail> {
        if let Change::Unreadable(fail) = &change
            && fail.is_final()
        {
            return Err(fail.clone());
        }
        self.complete &= !matches!(change, Change::Unreadable(_));
        let line = match self.json {
            true => {
                let comma = if self.printed > 0 { "," } else { "" };
                let value = value(partition, label, path, change);
                format!("{comma}\n{value}")
            }
            false => line(label, path, change),
        };
        self.printed += 1;
        self.put(&line)
    }

    fn put(&mut self, text: &str) -> Result<(), Fail> {
        let put = self.out.write_all(text.as_bytes());
        put.map_err(|e| crate::cli::ls::closed(&e))
    }
}

fn line(label: &str, path: &[u8], change: Change) -> String {
    let told = printable(&format!("/{}", String::from_utf8_lossy(path)), usize::MAX);
    match change {
        Change::Added(_) => format!("+ {told}\n"),
        Change::Removed(_) => format!("- {told}\n"),
        Change::Changed {
            before,
            after,
            what,
        } => {
            let sizes = match what.contains(&"size") {
                true => format!("; {} -> {} bytes", before.size, after.size),
                false => String::new(),
            };
            format!("* {told} ({}{sizes})\n", what.join(", "))
        }
        Change::Unreadable(fail) => {
            let found = fail.report(&shown(label, path)).found;
            format!("? {told}: {}\n", printable(&found, 400))
        }
    }
}

fn value(partition: Option<u32>, label: &str, path: &[u8], change: Change) -> Value {
    let mut value = json!({
        "partition": partition,
        "path": format!("/{}", String::from_utf8_lossy(path)),
    });
    if std::str::from_utf8(path).is_err() {
        value["path_hex"] = json!(hex::encode([b"/", path].concat()));
    }
    match change {
        Change::Added(node) => {
            value["change"] = json!("added");
            value["after"] = side(&node);
        }
        Change::Removed(node) => {
            value["change"] = json!("removed");
            value["before"] = side(&node);
        }
        Change::Changed {
            before,
            after,
            what,
        } => {
            value["change"] = json!("changed");
            value["changed"] = json!(what);
            value["before"] = side(&before);
            value["after"] = side(&after);
        }
        Change::Unreadable(fail) => {
            let report = fail.report(&shown(label, path));
            value["change"] = json!("unreadable");
            value["code"] = json!(report.code);
            value["found"] = json!(report.found);
        }
    }
    value
}

/// A file as one image has it.
fn side(node: &Node) -> Value {
    json!({
        "kind": node.kind.as_str(),
        "size_bytes": node.size,
        "mode": node.mode.map(|mode| format!("{mode:04o}")),
        "uid": node.owner.map(|owner| owner.0),
        "gid": node.owner.map(|owner| owner.1),
        "modified": node.modified.and_then(text_of),
    })
}
