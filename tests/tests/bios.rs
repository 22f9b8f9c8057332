//! The main job on BIOS, with everything pulled out once: the target in mid-backup, the
//! server in mid-restore, both when only the final "done" is missing.
//!
//! Firmware: SeaBIOS with iPXE in the card's ROM. MBR with a logical partition. One
//! story, because each chapter stands on the disk or image of the one before.

use e2e::built::Built;
use e2e::machines::{LIMIT, Pc};
use e2e::proof;
use e2e::site::{Site, TAPS};
use e2e::status::Execution;
use e2e::story::Story;
use std::path::Path;
use testkit::qemu::Firmware;
use testkit::{debian, files};

const OLD: Pc = Pc {
    name: "old",
    mac: "52:54:00:00:20:01",
    uuid: "4c4c4544-0001-4010-8010-b1c04f000002",
    tap: TAPS[0],
    firmware: Firmware::Bios,
};

/// The machine that becomes the old one's equal.
const NEW: Pc = Pc {
    name: "new",
    mac: "52:54:00:00:20:02",
    uuid: "4c4c4544-0001-4010-8010-b1c04f000003",
    tap: TAPS[1],
    firmware: Firmware::Bios,
};

/// What the target's console says when only the server's word is missing.
const WAITS_TO_REPORT: &str = "waiting for the server to confirm";

#[test]
fn bios_machine_survives_every_interruption() {
    let built = Built::find().unwrap();
    let story = Story::begin(
        "BIOS: backup, restore to another machine, each interrupted",
        built.accelerator().unwrap(),
    );
    let mut site = Site::new(&built, "bios").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source.img");
    debian::copy(
        &debian::disk(Firmware::Bios, built.cache()).unwrap(),
        &source,
    )
    .unwrap();
    let before = files::digest(&source).unwrap();

    backup_killed_in_the_middle(&story, &site, &source);
    assert_eq!(
        files::digest(&source).unwrap(),
        before,
        "a backup changed its disk"
    );

    let target = folder.path().join("target.img");
    proof::blank(&target, 3 << 30).unwrap();
    let new = restore_with_the_server_killed(&story, &mut site, &source, &target);
    story.boots_through(&site, &NEW, &target).unwrap();

    let second = folder.path().join("second.img");
    proof::blank(&second, 3 << 30).unwrap();
    lost_done(&story, &mut site, &new, &source, &second);
    story.boots_through(&site, &NEW, &second).unwrap();
}

/// A target that vanishes leaves no image; the same job, run again, makes one.
fn backup_killed_in_the_middle(story: &Story, site: &Site, source: &Path) {
    let old = story.register_by_undionly(site, &OLD, source).unwrap();
    site.ctl(&["backup", &old, "--image", "gold"]).unwrap();
    let mut guest = OLD
        .boot_slow(site, story.accelerator, "killed-backup", source)
        .unwrap();
    let moved = |one: &Execution| one.state() == "running" && one.percent() >= 20;
    let seen = story
        .wait_execution(site, &mut guest, (&old, "backup"), "a fifth is sent", moved)
        .unwrap();
    guest.kill().unwrap();
    story.step(&format!(
        "old: switched off at {} % of its backup",
        seen.percent()
    ));
    let status = site.status().unwrap();
    assert!(status.images().is_empty(), "half an image: {status:?}");
    assert!(!status.execution(&old, "backup").unwrap().is_done());

    story.run_job(site, &OLD, &old, "backup", source).unwrap();
    let status = site.status().unwrap();
    assert_eq!(status.images(), ["gold"]);
    assert_eq!(
        status.count(&old, "backup"),
        1,
        "the same execution went on"
    );
    site.ctl(&["images", "verify", "gold"]).unwrap();
}

/// A server that is killed and started again goes on where it was.
fn restore_with_the_server_killed(
    story: &Story,
    site: &mut Site,
    source: &Path,
    target: &Path,
) -> String {
    let new = story.register(site, &NEW, target).unwrap();
    site.ctl(&["restore", &new, "--image", "gold", "--yes"])
        .unwrap();
    let mut guest = NEW
        .boot_slow(site, story.accelerator, "restore", target)
        .unwrap();
    let moved = |one: &Execution| one.state() == "running" && one.percent() >= 20;
    let seen = story
        .wait_execution(
            site,
            &mut guest,
            (&new, "restore"),
            "a fifth is written",
            moved,
        )
        .unwrap();
    site.kill_server().unwrap();
    story.step(&format!(
        "server: killed at {} % of the restore",
        seen.percent()
    ));
    site.start_server().unwrap();
    let early = site.status().unwrap().execution(&new, "restore").unwrap();
    assert!(!early.is_final(), "said too early: {early:?}");
    story
        .wait_execution(
            site,
            &mut guest,
            (&new, "restore"),
            "done",
            Execution::is_done,
        )
        .unwrap();
    guest.wait_exit(LIMIT).unwrap();
    story.step("new: restored all the same; comparing every file");
    let differences = proof::differences(Firmware::Bios, source, target).unwrap();
    assert!(differences.is_empty(), "{differences:#?}");
    new
}

/// The target did everything, but the server never heard so: what is on the disk now may
/// be somebody's work, and only an operator can say.
fn lost_done(story: &Story, site: &mut Site, new: &str, source: &Path, target: &Path) {
    site.ctl(&["restore", new, "--image", "gold", "--yes"])
        .unwrap();
    let mut guest = NEW
        .boot_slow(site, story.accelerator, "lost-done", target)
        .unwrap();
    let writing = |one: &Execution| one.state() == "running";
    story
        .wait_execution(site, &mut guest, (new, "restore"), "it is written", writing)
        .unwrap();
    // From here on the server can give chunks away, but store nothing.
    let held = site.hold_database().unwrap();
    guest.wait_for(WAITS_TO_REPORT, LIMIT).unwrap();
    let early = site.status().unwrap().execution(new, "restore").unwrap();
    assert!(!early.is_final(), "said before it was stored: {early:?}");
    site.kill_server().unwrap();
    guest.kill().unwrap();
    drop(held);
    story.step("new: finished, could not say so; server and machine are switched off");

    site.start_server().unwrap();
    let status = site.status().unwrap();
    let lost = status.execution(new, "restore").unwrap();
    assert!(!lost.is_done(), "nobody said so: {lost:?}");
    let mut guest = NEW
        .boot(site, story.accelerator, "after-lost-done", target)
        .unwrap();
    let stopped = |one: &Execution| one.state() == "failed";
    let failed = {
        let status = site
            .wait_status(
                "the execution waits for an operator",
                LIMIT,
                &mut guest,
                |status| {
                    status
                        .execution(new, "restore")
                        .is_some_and(|one| stopped(&one))
                },
            )
            .unwrap();
        assert_eq!(status.count(new, "restore"), 2, "one for each order");
        status.execution(new, "restore").unwrap()
    };
    assert!(failed.words().contains("target-silent"), "{failed:?}");
    guest.kill().unwrap();
    story.step(&format!("server: {}", failed.words().trim()));
    let differences = proof::differences(Firmware::Bios, source, target).unwrap();
    assert!(differences.is_empty(), "{differences:#?}");
}
