//! `imager ls`.
//!
//! Owns: its options, and how files are listed. Does not own: reading the file system.

use super::inside::{Inside, Opened};
use super::{Output, warnings_json};
use crate::extract::shown;
use crate::files::path::find;
use crate::files::walk::{Visitor, sorted, walk};
use crate::files::{Fail, Kind, Node, Time, Tree};
use crate::map::printable;
use crate::progress::Silent;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::{BufWriter, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use wire::{Code, DiskState, Report};

/// Options of `imager ls`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    inside: Inside,
    /// File or folder in the image
    #[arg(default_value = "/")]
    path: OsString,
    /// One line for each with kind, mode, owner, size and time (UTC)
    #[arg(long, short)]
    long: bool,
    /// List what is in folders, too, all the way down
    #[arg(long, short = 'R')]
    recursive: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Lists files of an image.
pub fn run(args: &Args) -> Result<Output, Report> {
    args.inside.with(&Silent, |opened| {
        let path = args.path.as_bytes();
        let found = find(opened.tree, path, false)
            .map_err(|fail| fail.report(&shown(&opened.label, path)))?;
        let mut list = List::new(args, opened, &found.path);
        let walked = list.begin().and_then(|()| {
            if found.node.kind == Kind::Directory {
                list.directory(&found.node)
            } else {
                // People are shown where it was found, scripts its name.
                let path = list.base.clone();
                let last = path.rsplit(|&byte| byte == b'/').next();
                let name = last.filter(|_| args.json).unwrap_or(&path);
                list.entry(&path, name, Ok(found.node.clone())).map(drop)
            }
        });
        match walked.and_then(|()| list.finish()) {
            // A reader that has enough (`| head`) is no failure.
            Err(Fail::Output(report)) if report.found.is_empty() => {}
            Err(fail) => return Err(fail.report(&shown(&opened.label, path))),
            Ok(()) => {}
        }
        if let Some(first) = list.first_failure {
            return Err(first);
        }
        Ok(Output {
            text: String::new(),
            json: Value::Null,
            aside: false,
        })
    })
}

/// Prints as it goes: a list may be longer than memory.
struct List<'a> {
    args: &'a Args,
    opened: &'a Opened<'a>,
    tree: &'a dyn Tree,
    /// Path of what is listed.
    base: Vec<u8>,
    out: BufWriter<std::io::Stdout>,
    printed: u64,
    first_failure: Option<Report>,
}

impl Visitor for List<'_> {
    fn entry(&mut self, path: &[u8], name: &[u8], node: Result<Node, Fail>) -> Result<bool, Fail> {
        let (target, lost) = match node.as_ref().ok().and_then(|node| self.target(node)) {
            None => (None, None),
            Some(Ok(target)) => (Some(String::from_utf8_lossy(&target).into_owned()), None),
            Some(Err(fail)) => (None, Some(fail)),
        };
        let line = if self.args.json {
            let comma = if self.printed > 0 { "," } else { "" };
            let mut value = self.value(path, name, &node);
            if let Some(target) = &target {
                value["target"] = json!(target);
            }
            if let Some(fail) = &lost {
                self.put_failure(&mut value, path, fail);
            }
            format!("{comma}\n{value}")
        } else {
            self.line(path, name, &node, target.as_deref())
        };
        self.printed += 1;
        self.print(&line)?;
        match (node, lost) {
            (Ok(_), Some(fail)) => self.failed(path, fail).map(|()| false),
            (Ok(_), None) => Ok(self.args.recursive),
            (Err(fail), _) => self.failed(path, fail).map(|()| false),
        }
    }

    fn leave(&mut self, path: &[u8], _: &Node, failed: Option<Fail>) -> Result<(), Fail> {
        failed.map_or(Ok(()), |fail| self.failed(path, fail))
    }
}

impl<'a> List<'a> {
    fn new(args: &'a Args, opened: &'a Opened<'a>, base: &[u8]) -> Self {
        List {
            args,
            opened,
            tree: opened.tree,
            base: base.to_vec(),
            out: BufWriter::new(std::io::stdout()),
            printed: 0,
            first_failure: None,
        }
    }

    fn begin(&mut self) -> Result<(), Fail> {
        if !self.args.json {
            return Ok(());
        }
        let head = format!(
            "{{\"partition\": {}, \"volume\": {}, \"file_system\": {}, \"path\": {}, \"warnings\": {}, \"entries\": [",
            json!(self.opened.number),
            json!(self.opened.volume),
            json!(self.opened.file_system),
            json!(format!("/{}", String::from_utf8_lossy(&self.base))),
            warnings_json(self.opened.warnings),
        );
        self.print(&head)
    }

    fn finish(&mut self) -> Result<(), Fail> {
        if self.args.json {
            let complete = self.first_failure.is_none();
            self.print(&format!("\n], \"complete\": {complete}}}\n"))?;
        }
        self.out.flush().map_err(|e| closed(&e))
    }

    fn directory(&mut self, node: &Node) -> Result<(), Fail> {
        let base = self.base.clone();
        if self.args.recursive {
            return walk(self.tree, node, &base, self);
        }
        for item in sorted(self.tree, node)? {
            let parts = [&base[..], &item.name];
            let parts = if base.is_empty() { &parts[1..] } else { &parts };
            let path = parts.join(&b'/');
            let node = self.tree.node(item.at);
            if let Err(fail) = &node
                && fail.is_final()
            {
                return Err(fail.clone());
            }
            self.entry(&path, &item.name, node)?;
        }
        Ok(())
    }

    fn print(&mut self, text: &str) -> Result<(), Fail> {
        self.out.write_all(text.as_bytes()).map_err(|e| closed(&e))
    }

    fn failed(&mut self, path: &[u8], fail: Fail) -> Result<(), Fail> {
        if fail.is_final() {
            return Err(fail);
        }
        let what = shown(&self.opened.label, path);
        let is_of_image = matches!(fail, Fail::Image(_));
        let mut report = fail.report(&what);
        if is_of_image {
            report.found = format!("{what}: {}", report.found);
        }
        eprintln!("{}: {}", report.code, report.found);
        self.first_failure.get_or_insert(report);
        Ok(())
    }

    fn line(
        &self,
        path: &[u8],
        name: &[u8],
        node: &Result<Node, Fail>,
        target: Option<&str>,
    ) -> String {
        let told = if self.args.recursive { path } else { name };
        let told = printable(&String::from_utf8_lossy(told), usize::MAX);
        if !self.args.long {
            return told + "\n";
        }
        let Ok(node) = node else {
            return format!("?????????? {told}\n");
        };
        let owner = match node.owner {
            Some((user, group)) => format!("{user:>5} {group:>5}"),
            None => format!("{:>5} {:>5}", "-", "-"),
        };
        let time = node
            .modified
            .and_then(text_of)
            .unwrap_or_else(|| "-".to_owned());
        let target = match target {
            Some(target) => format!(" -> {}", printable(target, usize::MAX)),
            None if node.kind == Kind::Symlink => " -> ?".to_owned(),
            None => String::new(),
        };
        format!(
            "{} {owner} {:>12} {time:<20} {told}{target}\n",
            mode(node),
            node.size
        )
    }

    /// The target of a link, where it is told.
    fn target(&self, node: &Node) -> Option<Result<Vec<u8>, Fail>> {
        let is_told = node.kind == Kind::Symlink && (self.args.long || self.args.json);
        is_told.then(|| self.tree.target(node))
    }

    fn put_failure(&self, value: &mut Value, path: &[u8], fail: &Fail) {
        let report = fail.clone().report(&shown(&self.opened.label, path));
        value["code"] = json!(report.code);
        value["found"] = json!(report.found);
    }

    fn value(&self, path: &[u8], name: &[u8], node: &Result<Node, Fail>) -> Value {
        let mut value = json!({
            "name": String::from_utf8_lossy(name),
            "path": format!("/{}", String::from_utf8_lossy(path)),
        });
        if std::str::from_utf8(path).is_err() {
            value["path_hex"] = json!(hex::encode([b"/", path].concat()));
        }
        match node {
            Ok(node) => {
                value["kind"] = json!(node.kind.as_str());
                value["size_bytes"] = json!(node.size);
                value["mode"] = json!(node.mode.map(|mode| format!("{mode:04o}")));
                value["uid"] = json!(node.owner.map(|owner| owner.0));
                value["gid"] = json!(node.owner.map(|owner| owner.1));
                value["modified"] = json!(node.modified.and_then(text_of));
            }
            Err(fail) => self.put_failure(&mut value, path, fail),
        }
        value
    }
}

/// Standard output takes no more; an empty report if its reader has enough.
pub(super) fn closed(error: &std::io::Error) -> Fail {
    let found = match error.kind() {
        ErrorKind::BrokenPipe => String::new(),
        _ => format!("standard output: {error}"),
    };
    Fail::Output(Box::new(Report::new(
        Code::OutputFailed,
        found,
        DiskState::NotInvolved,
    )))
}

/// To the second, in UTC.
pub(super) fn text_of(time: Time) -> Option<String> {
    OffsetDateTime::from_unix_timestamp(time.seconds)
        .ok()?
        .format(&Rfc3339)
        .ok()
}

/// Kind and permissions as `ls` shows them.
fn mode(node: &Node) -> String {
    let kind = match node.kind {
        Kind::File => '-',
        Kind::Directory => 'd',
        Kind::Symlink => 'l',
        Kind::Special("pipe") => 'p',
        Kind::Special("socket") => 's',
        Kind::Special("block-device") => 'b',
        Kind::Special(_) => 'c',
    };
    let Some(mode) = node.mode else {
        return format!("{kind}---------");
    };
    let mut text = String::from(kind);
    for (shift, special, set) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, true) => set,
            (false, true) => set.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}
