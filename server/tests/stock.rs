//! What operators say about the store: rules of retention, pins, the scrub.

mod support;

use serde_json::{Value, json};
use server::daemon::Server;
use std::time::{Duration, Instant};
use support::{Http, Image, Target, blocking, start};
use wire::Code;

const MACHINE: &str = "pc-525400000001";

fn back_up(admin: &Http, target: &Target, seed: u64) -> String {
    let job = json!({ "job": { "kind": "backup", "image": "{machine} gold" } });
    let path = format!("/api/machines/{MACHINE}/executions");
    admin.json::<Value>("POST", &path, &job).unwrap();
    let session = target.job();
    let image = session.back_up(&Image::new(seed, 4)).unwrap().image;
    session.done().unwrap();
    image
}

fn images(admin: &Http) -> Vec<String> {
    let all: Vec<Value> = admin.json("GET", "/api/images", &()).unwrap();
    all.iter()
        .map(|image| image["id"].as_str().unwrap().to_owned())
        .collect()
}

fn start_with_images(server: &Server) -> (Http, Target) {
    let admin = Http::new(server, &server.app.admin_token);
    let target = Target::new(server, 1);
    target.check_in();
    (admin, target)
}

/// Waits for what the server does by itself.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_shown_told_and_applied_after_the_next_backup() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await;
    let server = blocking(move || {
        let (admin, target) = start_with_images(&server);
        let (one, two) = (back_up(&admin, &target, 1), back_up(&admin, &target, 2));
        let rule = |rule: Value| {
            admin
                .json::<Value>("PUT", "/api/retention", &rule)
                .map(drop)
        };
        for (wrong, status) in [
            (json!({ "policy": {} }), 400),
            (json!({ "policy": { "last": 1, "hourly": 2 } }), 400),
            (
                json!({ "image": "a", "machine": MACHINE, "policy": { "last": 1 } }),
                400,
            ),
            (json!({ "machine": "nobody", "policy": { "last": 1 } }), 404),
            (json!({ "image": "no rule", "policy": null }), 404),
        ] {
            assert_eq!(rule(wrong.clone()).unwrap_err().0, status, "{wrong}");
        }
        rule(json!({ "policy": { "last": 9 } })).unwrap();
        rule(json!({ "machine": MACHINE, "policy": { "last": 1 } })).unwrap();
        let rules: Value = admin.json("GET", "/api/retention", &()).unwrap();
        assert_eq!(rules[1]["machine"], MACHINE);
        assert_eq!(
            (&rules[0]["policy"]["last"], &rules[1]["policy"]["last"]),
            (&json!(9), &json!(1))
        );

        let told = || -> Value {
            admin
                .json("POST", "/api/prune", &json!({ "dry_run": true }))
                .unwrap()
        };
        assert_eq!(told()[0]["keep"], json!(["newest", "last"]));
        assert_eq!(
            (&told()[1]["id"], &told()[1]["keep"]),
            (&json!(one), &json!([]))
        );
        let pin = format!("/api/images/{one}/pin");
        admin.json::<Value>("POST", &pin, &()).unwrap();
        assert_eq!(told()[1]["keep"], json!(["pinned"]));
        let deleted = admin.bytes("DELETE", &format!("/api/images/{one}"), &[]);
        assert_eq!(deleted.unwrap_err().0, 409);
        let three = back_up(&admin, &target, 3);
        until("the second image goes", || {
            images(&admin) == [three.as_str(), &one]
        });
        assert_ne!(one, two);
        admin.bytes("DELETE", &pin, &[]).unwrap();
        let gone: Value = admin.json("POST", "/api/prune", &json!({})).unwrap();
        assert_eq!(gone[0]["id"], json!(one));
        assert_eq!(images(&admin), [three.as_str()]);
        rule(json!({ "machine": MACHINE, "policy": null })).unwrap();
        server
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrub_finds_damage_and_a_backup_of_the_machine_heals_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await;
    let packs = dir.path().join("images/packs");
    let server = blocking(move || {
        let (admin, target) = start_with_images(&server);
        let id = back_up(&admin, &target, 1);
        let scrub = || -> Value {
            admin.json::<Value>("POST", "/api/scrub", &()).unwrap();
            let look = || -> Value { admin.json("GET", "/api/scrub", &()).unwrap() };
            until("the scrub ends", || !look()["ended"].is_null());
            look()
        };
        let clean = scrub();
        assert_eq!(
            (&clean["chunks"], &clean["damaged_chunks"]),
            (&json!(4), &json!(0))
        );
        let pack = std::fs::read_dir(packs)
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        let mut bytes = std::fs::read(&pack).unwrap();
        bytes[32 + 64 + 100] ^= 1;
        std::fs::write(&pack, bytes).unwrap();
        let found = scrub();
        assert_eq!(found["damaged_chunks"], json!(1));
        assert_eq!(
            found["damaged"][0]["images"],
            json!([format!("{MACHINE} gold ({id})")])
        );
        let path = format!("/api/machines/{MACHINE}/executions");
        let restore = json!({ "job": { "kind": "restore", "image": id } });
        let refused = admin.json::<Value>("POST", &path, &restore).unwrap_err();
        assert_eq!(refused.1.code, Code::ImageDamaged);
        // The machine's disk is what it was: one record travels.
        back_up(&admin, &target, 1);
        let healed = scrub();
        assert_eq!(healed["damaged_chunks"], json!(0));
        admin.json::<Value>("POST", &path, &restore).unwrap();
        let session = target.job();
        session.begin_write(target.disk()).unwrap();
        assert!(session.restore().unwrap() == Image::new(1, 4).plain);
        server
    })
    .await;
    server.stop().await;
}
