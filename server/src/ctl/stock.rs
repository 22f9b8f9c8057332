//! Commands about the store: rules of retention, scrub, images from and for other servers.
//!
//! Owns: what they do and print. Does not own: arguments ([`super::args`]), tables
//! ([`super::show`]).

use super::args::{Retention, RetentionOf, RetentionRule};
use super::client::{Answer, Client, Problem, encode};
use super::{print, said, show};
use crate::http::api::ImageInfo;
use crate::http::stock::{Prune, Rule};
use crate::store::prune::Verdict;
use crate::store::retention::{Policy, Reason};
use crate::store::scrub::ScrubView;
use crate::view::ImageView;
use image::container::{ContainerReader, Event};
use image::record::Decoder;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;
use std::time::Duration;
use wire::Code;
use wire::size::bytes;

/// Between two looks at a scrub that is waited for.
const LOOK: Duration = Duration::from_millis(500);

/// `deployctl retention`
pub(super) fn retention(client: &Client, json: bool, command: &Retention) -> Answer<u8> {
    let rule = |of: &RetentionOf, policy| Rule {
        image: of.image.clone(),
        machine: of.machine.clone(),
        policy,
    };
    match command {
        Retention::Show => {
            let rules: Vec<Rule> = client.get("/retention")?;
            print(json, &rules, |rules| rules_text(rules))
        }
        Retention::Set { of, rule: wanted } => {
            client.put_silent("/retention", &rule(of, Some(policy(wanted))))?;
            said(
                json,
                &format!("{}: {}", of_text(of), policy_text(&policy(wanted))),
            )
        }
        Retention::Clear { of } => {
            client.put_silent("/retention", &rule(of, None))?;
            said(json, &format!("{}: no rule", of_text(of)))
        }
    }
}

fn policy(rule: &RetentionRule) -> Policy {
    Policy {
        last: rule.last,
        daily: rule.daily,
        weekly: rule.weekly,
        monthly: rule.monthly,
        days: rule.days,
    }
}

fn of_text(of: &RetentionOf) -> String {
    match (&of.image, &of.machine) {
        (Some(image), _) => format!("images \"{image}\""),
        (None, Some(machine)) => format!("images of machine {machine}"),
        (None, None) => "all other images".to_owned(),
    }
}

fn policy_text(policy: &Policy) -> String {
    let parts = [
        (policy.last, "the last"),
        (policy.daily, "daily"),
        (policy.weekly, "weekly"),
        (policy.monthly, "monthly"),
    ];
    let mut words: Vec<String> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| match *what {
            "the last" => format!("the last {count}"),
            what => format!("{count} {what}"),
        })
        .collect();
    if policy.days > 0 {
        words.push(format!("all of {} days", policy.days));
    }
    format!("keep {}", words.join(", "))
}

fn rules_text(rules: &[Rule]) -> String {
    if rules.is_empty() {
        return "There are no rules: every image is kept.".to_owned();
    }
    let rows: Vec<Vec<String>> = rules
        .iter()
        .map(|rule| {
            let of = RetentionOf {
                image: rule.image.clone(),
                machine: rule.machine.clone(),
            };
            vec![
                of_text(&of),
                rule.policy.as_ref().map(policy_text).unwrap_or_default(),
            ]
        })
        .collect();
    show::table(&["FOR", "RULE"], &rows)
}

/// `deployctl images prune`
pub(super) fn prune(client: &Client, json: bool, dry_run: bool) -> Answer<u8> {
    let verdicts: Vec<Verdict> = client.post("/prune", &Prune { dry_run })?;
    print(json, &verdicts, |verdicts| {
        let going = verdicts.iter().filter(|v| v.goes()).count();
        let rows: Vec<Vec<String>> = verdicts
            .iter()
            .map(|v| {
                vec![
                    v.name.clone(),
                    v.machine.clone(),
                    show::time(v.created),
                    v.id.clone(),
                    reasons(v),
                ]
            })
            .collect();
        let table = show::table(&["IMAGE", "OF", "MADE", "ID", ""], &rows);
        match (dry_run, rows.is_empty()) {
            (false, true) => "Nothing was deleted.".to_owned(),
            (false, false) => format!("{table}\n{going} images deleted"),
            (true, true) => "There are no images.".to_owned(),
            (true, false) => format!("{table}\n{going} images would be deleted"),
        }
    })
}

fn reasons(verdict: &Verdict) -> String {
    if verdict.goes() {
        return "no rule keeps it".to_owned();
    }
    let words = verdict.keep.iter().map(|reason| match reason {
        Reason::NoRule => "no rule",
        Reason::Pinned => "pinned",
        Reason::Newest => "newest",
        Reason::InUse => "in use",
        Reason::Last => "last",
        Reason::Daily => "daily",
        Reason::Weekly => "weekly",
        Reason::Monthly => "monthly",
        Reason::Days => "days",
    });
    format!("kept: {}", words.collect::<Vec<_>>().join(", "))
}

/// `deployctl scrub`
pub(super) fn scrub(client: &Client, json: bool, wait: bool, status: bool) -> Answer<u8> {
    let mut view: ScrubView = if status {
        client.get("/scrub")?
    } else {
        client.post("/scrub", &())?
    };
    while wait && view.ended.is_none() {
        std::thread::sleep(LOOK);
        view = client.get("/scrub")?;
    }
    print(json, &view, scrub_text)?;
    if view.is_clean() {
        return Ok(0);
    }
    if json {
        return Ok(1);
    }
    let found = format!(
        "{} chunks and {} manifests of the store are damaged",
        view.damaged_chunks,
        view.damaged_manifests.len()
    );
    Err(Problem::new(Code::ImageDamaged, found).with_advice(
        "Back up the machines of the images again: damaged chunks that they still have are sent anew. \
         Look at the server's disk.",
    ))
}

fn scrub_text(view: &ScrubView) -> String {
    let how = match (view.started, view.ended) {
        (None, _) => "never".to_owned(),
        (Some(at), Some(end)) => format!("{} to {}", show::time(at), show::time(end)),
        (Some(at), None) if view.running => format!("since {}", show::time(at)),
        (Some(at), None) => format!("since {}, goes on soon", show::time(at)),
    };
    let mut lines = vec![format!(
        "scrub     {how}: {} of {} packs, {} records, {}",
        view.packs_done,
        view.packs,
        view.chunks,
        bytes(view.bytes)
    )];
    lines.push(format!("damaged   {} chunks", view.damaged_chunks));
    for damage in &view.damaged {
        let images = match damage.images.is_empty() {
            true => "no image".to_owned(),
            false => damage.images.join(", "),
        };
        lines.push(format!(
            "  chunk {} in pack {} at byte {}: hurts {images}",
            damage.chunk, damage.pack, damage.offset
        ));
    }
    lines.extend(
        view.damaged_manifests
            .iter()
            .map(|i| format!("  manifest of {i}")),
    );
    lines.join("\n")
}

/// `deployctl images pin` and `unpin`
pub(super) fn pin(client: &Client, json: bool, image: &str, pinned: bool) -> Answer<u8> {
    let path = format!("/images/{}/pin", encode(image));
    if pinned {
        client.post_silent(&path, &())?;
        said(json, &format!("{image} stays until it is unpinned"))
    } else {
        client.delete(&path)?;
        said(json, &format!("{image} is not pinned"))
    }
}

fn on_file(path: &Path, error: &io::Error) -> Problem {
    Problem::new(Code::OutputFailed, format!("{}: {error}", path.display()))
}

/// `deployctl images export`: the container is read as it comes, every record decoded and
/// hashed, and has its name only when all of it was right.
pub(super) fn export(client: &Client, json: bool, image: &str, path: &Path) -> Answer<u8> {
    if path.exists() {
        return Err(Problem::usage(format!("{} exists already", path.display()))
            .with_advice("Name another file; nothing was overwritten."));
    }
    let info: ImageInfo = client.get(&format!("/images/{}", encode(image)))?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    let result = (|| {
        let file = File::create(&part).map_err(|e| on_file(&part, &e))?;
        let body = client.download(&format!("/images/{}/export", info.image.id))?;
        let length = receive(body, &file, &info.image, &part)?;
        file.sync_all()
            .and_then(|()| std::fs::rename(&part, path))
            .map_err(|e| on_file(path, &e))?;
        Ok(length)
    })();
    if result.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    let length = result?;
    let done =
        serde_json::json!({ "image": info.image.id, "root": info.image.root, "bytes": length });
    print(json, &done, |_| {
        format!(
            "{} ({}) is in {}: {}, every chunk checked\nroot {}",
            info.image.name,
            info.image.id,
            path.display(),
            bytes(length),
            info.image.root
        )
    })
}

/// Passes on what is read.
struct Tee<'a, R> {
    input: R,
    out: BufWriter<&'a File>,
    failed: Option<io::Error>,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        if let Err(error) = self.out.write_all(&buffer[..count]) {
            let told = io::Error::new(error.kind(), error.to_string());
            self.failed = Some(error);
            return Err(told);
        }
        Ok(count)
    }
}

fn receive(body: impl Read, file: &File, image: &ImageView, path: &Path) -> Answer<u64> {
    let mut tee = Tee {
        input: body,
        out: BufWriter::with_capacity(1 << 20, file),
        failed: None,
    };
    let read = read_container(&mut tee);
    if let Some(error) = tee.failed.take() {
        return Err(on_file(path, &error));
    }
    tee.out.flush().map_err(|e| on_file(path, &e))?;
    let (root, length) = read.map_err(|error| match error {
        image::Error::Io { .. } => Problem::new(Code::ConnectionLost, error.to_string()),
        _ => Problem::new(Code::ImageDamaged, error.to_string()).with_advice(
            "The server's log names what it cannot read; deployctl scrub finds all of it.",
        ),
    })?;
    if root == image.root {
        return Ok(length);
    }
    Err(Problem::new(
        Code::ImageDamaged,
        format!(
            "the container has the root {root}, the image {}",
            image.root
        ),
    ))
}

fn read_container(input: impl Read) -> Result<(String, u64), image::Error> {
    let mut reader = ContainerReader::open(io::BufReader::with_capacity(1 << 20, input))?;
    let (mut decoder, mut payload, mut plain) = (Decoder::new(), Vec::new(), Vec::new());
    loop {
        match reader.next_event(&mut payload)? {
            Event::Page(_) => {}
            Event::Record { header, offset } => {
                // Nobody has a key here: what is encrypted is what the server has.
                decoder.check(&header, &payload, offset, &mut plain)?;
            }
            Event::End(root) => return Ok((root.root.to_hex(), reader.position())),
        }
    }
}

/// `deployctl images import`
pub(super) fn import(client: &Client, json: bool, path: &Path, name: Option<&str>) -> Answer<u8> {
    let unreadable = |e: io::Error| Problem::usage(format!("{}: {e}", path.display()));
    let file = File::open(path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name = name.map_or(stem.as_ref(), |name| name);
    let image: ImageView =
        client.upload(&format!("/import?name={}", encode(name)), length, file)?;
    print(json, &image, |image| {
        format!(
            "{} ({}) of machine {}: {} in {} chunks, every one checked\nroot {}",
            image.name,
            image.id,
            image.machine,
            bytes(image.used_bytes),
            image.chunks,
            image.root
        )
    })
}
