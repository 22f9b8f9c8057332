//! `docs/reference/errors.md` is what the catalogue says.
//!
//! Owns: how the catalogue is written down. Does not own: the catalogue
//! (`wire::codes`). `UPDATE=1 cargo test -p wire` writes the document anew.

use std::fmt::Write;
use std::path::Path;
use wire::codes::Outcome;
use wire::{Code, DiskState};

const HEAD: &str = "# Error codes

Generated from `crates/wire/src/codes.rs` by `UPDATE=1 cargo test -p wire`; a test
compares the two.

Every failure that people meet has one of these codes. The same report is shown on the
target's screen, in its log, by `imager`, by `deployctl` and on the web page: code and
headline, what was found, what to do, and whether the disk was changed. The advice below
is the general one; a report may have one that is more to the point.

";

fn table(out: &mut String, outcome: Outcome) {
    let (title, text) = match outcome {
        Outcome::Refused => (
            "Refused",
            "A check stopped the job before anything was written. `imager` ends with 3 \
             (with 2 for `usage`).",
        ),
        Outcome::Failed => (
            "Failed",
            "The job failed while it was working. `imager` ends with 1, or with 3 if the \
             report says that nothing was written to the disk of a restore (but not for \
             `interrupted`, `internal`, `output-failed` and `no-space`, which are always 1).",
        ),
        Outcome::Warning => (
            "Warnings",
            "The job goes on and its result carries the warning. With `--strict` those about \
             file systems are refusals.",
        ),
        Outcome::Waiting => (
            "Waiting",
            "The job waits, and says what for, or there is no job at all.",
        ),
    };
    // Writing to a string cannot fail.
    let _ = write!(out, "## {title}\n\n{text}\n\n");
    out.push_str("| code | what is wrong | what to do |\n|---|---|---|\n");
    for code in Code::ALL.iter().filter(|code| code.outcome() == outcome) {
        let (headline, advice) = (code.headline(), code.advice());
        let _ = writeln!(out, "| `{code}` | {headline} | {advice} |");
    }
    out.push('\n');
}

fn document() -> String {
    let mut out = HEAD.to_owned();
    for outcome in [
        Outcome::Refused,
        Outcome::Failed,
        Outcome::Warning,
        Outcome::Waiting,
    ] {
        table(&mut out, outcome);
    }
    out.push_str(
        "## What happened to the disk\n\nThe field `disk` of a report in JSON, and the sentence for it:\n\n\
         | `disk` | sentence |\n|---|---|\n",
    );
    let states = std::iter::successors(Some(DiskState::NotInvolved), |state| after(*state));
    for state in states {
        let name = serde_json::to_string(&state).unwrap();
        let sentence = match state.sentence() {
            "" => "(none: no disk is involved)",
            sentence => sentence,
        };
        let _ = writeln!(out, "| `{}` | {sentence} |", name.trim_matches('"'));
    }
    out
}

/// The next state; a new one does not compile until it has its place here.
fn after(state: DiskState) -> Option<DiskState> {
    match state {
        DiskState::NotInvolved => Some(DiskState::Untouched),
        DiskState::Untouched => Some(DiskState::Incomplete),
        DiskState::Incomplete => Some(DiskState::PartitionsIncomplete),
        DiskState::PartitionsIncomplete => Some(DiskState::Complete),
        DiskState::Complete => Some(DiskState::Unknown),
        DiskState::Unknown => None,
    }
}

#[test]
fn the_document_is_that_of_the_catalogue() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/errors.md");
    let wanted = document();
    for code in Code::ALL {
        assert_eq!(
            wanted.matches(&format!("| `{code}` |")).count(),
            1,
            "{code} has to stand in the document once"
        );
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap();
    assert!(
        found == wanted,
        "docs/reference/errors.md is not that of the catalogue: UPDATE=1 cargo test -p wire"
    );
}
