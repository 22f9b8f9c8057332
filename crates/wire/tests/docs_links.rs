//! The documents refer to files and headings that are there.
//!
//! Owns: relative links of the repository's Markdown. Does not own: addresses on the
//! web, which no test should need.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Markdown files of the root and of `docs/`.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("docs")];
    let entries = |folder: &Path| -> Vec<PathBuf> {
        let list = std::fs::read_dir(folder).unwrap();
        list.map(|entry| entry.unwrap().path()).collect()
    };
    let is_document = |path: &PathBuf| path.extension().is_some_and(|end| end == "md");
    found.extend(entries(&root()).into_iter().filter(is_document));
    while let Some(folder) = folders.pop() {
        for path in entries(&folder) {
            if path.is_dir() {
                folders.push(path);
            } else if is_document(&path) {
                found.push(path);
            }
        }
    }
    found
}

/// Targets of `[text](target)` outside of code.
fn links(text: &str) -> Vec<String> {
    let prose = text.split("```").step_by(2);
    prose
        .flat_map(|part| part.split("](").skip(1))
        .filter_map(|rest| rest.split(')').next())
        .map(str::to_owned)
        .collect()
}

/// A heading's name in links: lower case, words joined by dashes, no punctuation.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter_map(|line| line.strip_prefix('#'));
    headings
        .map(|heading| {
            let heading = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = heading
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// Why a link of a document leads nowhere.
fn problem(document: &Path, link: &str) -> Option<String> {
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = match file {
        "" => document.to_owned(),
        file => document.parent()?.join(file),
    };
    if !target.exists() {
        return Some(format!("{}: no file {link}", document.display()));
    }
    let there = anchor.is_empty()
        || anchors(&std::fs::read_to_string(&target).unwrap_or_default()).contains(anchor);
    (!there).then(|| format!("{}: no heading {link}", document.display()))
}

#[test]
fn every_link_leads_somewhere() {
    let documents = documents();
    let mut count = 0;
    let mut problems = Vec::new();
    for document in &documents {
        let text = std::fs::read_to_string(document).unwrap();
        for link in links(&text) {
            if !link.contains("://") {
                count += 1;
                problems.extend(problem(document, &link));
            }
        }
    }
    assert!(
        count > 40 && documents.len() > 15,
        "only {count} links found"
    );
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn a_dead_link_is_found() {
    let here = root().join("README.md");
    assert_eq!(problem(&here, "ARCHITECTURE.md#crates"), None);
    assert!(problem(&here, "ARCHITECTURE.md#nowhere").is_some());
    assert!(problem(&here, "docs/nowhere.md").is_some());
    assert_eq!(
        links("a [b](c.md) and\n```\n[x](y)\n```\n[d](e#f)"),
        ["c.md", "e#f"]
    );
}
