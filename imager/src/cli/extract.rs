//! `imager extract`.
//!
//! Owns: its options, what is refused before anything is made, and what it says. Does not
//! own: making files (`crate::extract`).

use super::inside::{Inside, Opened};
use super::shown::Shown;
use super::{Output, warnings_json};
use crate::extract::{self, Account, Options, folder::Folder, shown};
use crate::files::path::{Found, find};
use crate::files::{Fail, Kind};
use crate::progress::ProgressSink;
use serde_json::json;
use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use wire::{Code, DiskState, Report, Step, size};

/// Options of `imager extract`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    inside: Inside,
    /// Files and folders in the image, then the folder that they go into; it is made if it
    /// is not there. A path of / stands for all that is in the partition
    #[arg(required = true, num_args = 2.., value_names = ["PATH", "DEST"])]
    paths: Vec<OsString>,
    /// Replace files that are there, and fill folders that are there
    #[arg(long)]
    overwrite: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
}

/// Makes files and folders of an image anew.
pub fn run(args: &Args) -> Result<Output, Report> {
    let Some((destination, paths)) = args.paths.split_last() else {
        let found = "paths in the image and a destination are needed";
        return Err(Report::new(Code::Usage, found, DiskState::NotInvolved));
    };
    let shown = Shown::start("extract", args.quiet);
    let (account, mut warnings) = args.inside.with(shown.sink(), |opened| {
        let account = files(args, opened, paths, Path::new(destination), shown.sink())?;
        Ok((account, opened.warnings.to_vec()))
    })?;
    drop(shown);
    let left_out = left_out(&account);
    super::print_warnings(&left_out);
    warnings.extend(left_out);
    if let Some(report) = extract::incomplete(&account) {
        return Err(report);
    }
    let Account {
        files,
        folders,
        symlinks,
        hard_links,
        bytes,
        specials: passed,
        streams,
        bare,
        ..
    } = account;
    let counted = |count, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    let links = match symlinks + hard_links {
        0 => String::new(),
        count => format!(", {}", counted(count, "link")),
    };
    Ok(Output {
        text: format!(
            "Extracted {} ({}), {}{links}.\n",
            counted(files, "file"),
            size::bytes(bytes),
            counted(folders, "folder"),
        ),
        json: json!({
            "result": "done",
            "files": files,
            "folders": folders,
            "symlinks": symlinks,
            "hard_links": hard_links,
            "bytes": bytes,
            "passed_over": passed,
            "streams_left_out": streams,
            "without_attributes": bare,
            "warnings": warnings_json(&warnings),
        }),
        aside: false,
    })
}

/// What was not made of what is complete otherwise.
fn left_out(account: &Account) -> Vec<Report> {
    let passed = account.specials;
    let specials = format!("{passed} devices, pipes and sockets were passed over");
    let streams = account.streams;
    let others = format!("{streams} streams beside the contents of files were left out");
    let bare = account.bare;
    let attributes = format!(
        "{bare} files and folders were made without their extended attributes (access control \
         lists, capabilities and others)"
    );
    [(passed, specials), (streams, others), (bare, attributes)]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(_, found)| Report::new(Code::FilesIncomplete, found, DiskState::NotInvolved))
        .collect()
}

fn files(
    args: &Args,
    opened: &Opened<'_>,
    paths: &[OsString],
    destination: &Path,
    progress: &dyn ProgressSink,
) -> Result<Account, Report> {
    progress.step(Step::Preparing, 0);
    // All are looked up before anything is made.
    let mut all: Vec<Found> = Vec::new();
    for path in paths {
        let path = path.as_bytes();
        let found = find(opened.tree, path, false);
        all.push(found.map_err(|fail| fail.report(&shown(&opened.label, path)))?);
    }
    refuse_twins(opened, &all)?;
    let plain = |fail: Fail| fail.report(&destination.display().to_string());
    let into = Folder::destination(destination).map_err(plain)?;
    if !args.overwrite {
        refuse_taken(&into, &all, destination)?;
    }
    progress.step(Step::Running, 0);
    let options = Options {
        label: &opened.label,
        overwrite: args.overwrite,
    };
    let mut account = Account::default();
    for found in &all {
        let made = extract::extract(opened.tree, found, &into, &options, progress, &mut account);
        made.map_err(|fail| stopped(fail, &account, &shown(&opened.label, &found.path)))?;
    }
    progress.step(Step::Finishing, 0);
    into.sync().map_err(plain)?;
    Ok(account)
}

/// Refuses paths that would be made under one name; with `/`, all names in it count.
fn refuse_twins(opened: &Opened<'_>, all: &[Found]) -> Result<(), Report> {
    if all.len() < 2 {
        return Ok(());
    }
    let mut names = HashSet::new();
    for found in all {
        let name = last_name(found);
        let new: Vec<Vec<u8>> = if name.is_empty() && found.node.kind == Kind::Directory {
            let items = opened.tree.list(&found.node);
            let items = items.map_err(|fail| fail.report(&shown(&opened.label, b"")))?;
            items.into_iter().map(|item| item.name).collect()
        } else {
            vec![name.to_vec()]
        };
        let twin = new.into_iter().find(|name| !names.insert(name.clone()));
        if let Some(name) = twin {
            let name = crate::map::printable(&String::from_utf8_lossy(&name), 255);
            let found = format!("two of the paths would both be made as {name}");
            return Err(Report::new(Code::FileExists, found, DiskState::NotInvolved)
                .with_advice("Extract them into different folders."));
        }
    }
    Ok(())
}

fn last_name(found: &Found) -> &[u8] {
    let mut parts = found.path.rsplit(|&byte| byte == b'/');
    parts.next().unwrap_or_default()
}

fn refuse_taken(into: &Folder, all: &[Found], destination: &Path) -> Result<(), Report> {
    let place = destination.display().to_string();
    let plain = |fail: Fail| fail.report(&place);
    for found in all {
        let name = last_name(found);
        let there = if name.is_empty() && found.node.kind == Kind::Directory {
            let empty = into.is_empty().map_err(plain)?;
            (!empty).then(|| format!("{place} is not empty"))
        } else {
            let has = into.has(name).map_err(plain)?;
            has.then(|| format!("{} is there already", shown(&place, name)))
        };
        if let Some(found) = there {
            return Err(Report::new(Code::FileExists, found, DiskState::NotInvolved));
        }
    }
    Ok(())
}

/// What ended the work, with what there is of it.
fn stopped(fail: Fail, account: &Account, what: &str) -> Report {
    let mut report = fail.report(what);
    report.found += &format!(
        "; {} files are complete at the destination, the others are not there",
        account.files + account.hard_links
    );
    report
}
