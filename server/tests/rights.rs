//! Who may ask for what: tokens of administrators and executions, the plain port.

mod support;

use serde_json::{Value, json};
use support::{Http, Image, Target, blocking, start};
use wire::{CheckIn, Code, PROTOCOL_HEADER};

#[tokio::test(flavor = "multi_thread")]
async fn the_api_wants_the_administrators_token_on_every_path() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await;
    blocking(move || {
        for token in ["", "wrong"] {
            let http = Http::new(&server, token);
            for (method, path) in [
                ("GET", "/api/version"),
                ("GET", "/api/overview"),
                ("GET", "/api/machines"),
                ("GET", "/api/machines/x"),
                ("DELETE", "/api/machines/x"),
                ("POST", "/api/machines/x/rename"),
                ("POST", "/api/machines/x/executions"),
                ("GET", "/api/machines/x/executions"),
                ("POST", "/api/machines/x/interrupt"),
                ("POST", "/api/machines/x/clear"),
                ("GET", "/api/machines/x/log"),
                ("GET", "/api/executions/x"),
                ("GET", "/api/images"),
                ("GET", "/api/images/x"),
                ("POST", "/api/images/x/verify"),
                ("DELETE", "/api/images/x"),
            ] {
                let (status, report) = http.bytes(method, path, b"{}").unwrap_err();
                assert_eq!(
                    (status, report.code),
                    (401, Code::ServerRefused),
                    "{method} {path}"
                );
            }
        }
        let admin = Http::new(&server, &server.app.admin_token);
        assert_eq!(
            admin.json::<Value>("GET", "/api/version", &()).unwrap()["protocol"],
            json!(1)
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_reaches_its_own_execution_and_image_only() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await;
    let admin = Http::new(&server, &server.app.admin_token);
    let (first, second) = (Target::new(&server, 1), Target::new(&server, 2));
    blocking(move || {
        let order = |machine: &str, job: Value| {
            admin
                .json::<Value>(
                    "POST",
                    &format!("/api/machines/{machine}/executions"),
                    &json!({ "job": job }),
                )
                .unwrap();
        };
        first.check_in();
        second.check_in();
        let (mine, theirs) = (Image::new(1, 2), Image::new(2, 2));
        for (target, machine, image) in [
            (&first, "pc-525400000001", &mine),
            (&second, "pc-525400000002", &theirs),
        ] {
            order(machine, json!({ "kind": "backup", "image": machine }));
            let session = target.job();
            session.back_up(image).unwrap();
            session.done().unwrap();
        }
        order(
            "pc-525400000001",
            json!({ "kind": "restore", "image": "pc-525400000001" }),
        );
        order(
            "pc-525400000002",
            json!({ "kind": "backup", "image": "pc-525400000002" }),
        );
        let (restore, backup) = (first.job(), second.job());

        // Another execution's token, and none.
        for token in [backup.job.token.as_str(), "", "x"] {
            let http = Http {
                token: token.to_owned(),
                ..restore.http.clone()
            };
            for (method, path) in [
                ("POST", "progress"),
                ("POST", "disks"),
                ("POST", "log"),
                ("POST", "have"),
                ("POST", "records"),
                ("PUT", "manifest"),
                ("GET", "manifest"),
                ("POST", "fetch"),
                ("PUT", "tables"),
                ("POST", "begin-write"),
                ("POST", "finish"),
            ] {
                // No valid message: the token is looked at first.
                let error = http.bytes(method, &restore.path(path), b"{").unwrap_err();
                assert_eq!(
                    (error.0, error.1.code),
                    (401, Code::ServerRefused),
                    "{method} {path}"
                );
            }
        }
        // Knowing a name gives no right to read the chunk.
        let foreign: Vec<u8> = theirs.chunks[0].name.0.to_vec();
        let (status, report) = restore
            .http
            .bytes("POST", &restore.path("fetch"), &foreign)
            .unwrap_err();
        assert_eq!((status, report.code), (403, Code::ServerRefused));
        let own: Vec<u8> = mine.chunks[0].name.0.to_vec();
        restore
            .http
            .bytes("POST", &restore.path("fetch"), &own)
            .unwrap();
        // A backup reads nothing, a restore stores nothing.
        assert_eq!(
            backup
                .http
                .bytes("GET", &backup.path("manifest"), &[])
                .unwrap_err()
                .0,
            403
        );
        assert_eq!(
            backup
                .http
                .bytes("POST", &backup.path("fetch"), &own)
                .unwrap_err()
                .0,
            403
        );
        assert_eq!(restore.upload(&mine.records[0]).unwrap_err().0, 403);
        // Also when the sockets cannot hold what is still on its way.
        assert_eq!(restore.upload(&vec![0; 32 << 20]).unwrap_err().0, 403);
        assert_eq!(backup.begin_write(second.disk()).unwrap_err().0, 403);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_protocol_is_refused_by_both_ways_of_saying_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await;
    blocking(move || {
        let http = Http::new(&server, "");
        let old = CheckIn {
            protocol: 99,
            boot_id: "b".into(),
            ..CheckIn::default()
        };
        let (status, report) = http.json::<Value>("POST", "/v1/checkin", &old).unwrap_err();
        assert_eq!((status, report.code), (403, Code::ServerRefused));
        assert!(report.found.contains("99"));
        let result = http
            .agent
            .get(&format!("{}/api/version", http.base))
            .set(PROTOCOL_HEADER, "99")
            .call();
        let Err(ureq::Error::Status(403, response)) = result else {
            panic!("{result:?}")
        };
        assert_eq!(response.header(PROTOCOL_HEADER), Some("1"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plain_port_has_page_and_api_for_this_host_but_no_image_data() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await;
    blocking(move || {
        let base = format!("http://127.0.0.1:{}", server.plain.port());
        let page = ureq::get(&format!("{base}/")).call().unwrap();
        assert!(
            page.header("content-security-policy")
                .unwrap()
                .contains("default-src 'none'")
        );
        let token = format!("Bearer {}", server.app.admin_token);
        ureq::get(&format!("{base}/api/version"))
            .set("authorization", &token)
            .call()
            .unwrap();
        for (method, path) in [
            ("POST", "/v1/checkin"),
            ("POST", "/v1/executions/x/progress"),
        ] {
            let result = ureq::request(method, &format!("{base}{path}")).call();
            assert!(
                matches!(result, Err(ureq::Error::Status(404, _))),
                "{path}: {result:?}"
            );
        }
        assert!(
            ureq::get(&format!("{base}/boot/boot.ipxe"))
                .call()
                .unwrap()
                .into_string()
                .unwrap()
                .starts_with("#!ipxe")
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boot_script_and_the_check_in_mean_the_same_machine() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await;
    let admin = Http::new(&server, &server.app.admin_token);
    let (target, plain) = (Target::new(&server, 1), server.plain.port());
    blocking(move || {
        let script = |mac: &str, uuid: &str| {
            let url = format!("http://127.0.0.1:{plain}/boot/machine.ipxe?mac={mac}&uuid={uuid}");
            ureq::get(&url).call().unwrap().into_string().unwrap()
        };
        assert!(
            script(&target.mac, &target.uuid).contains("deploy.server="),
            "unknown: one inventory"
        );
        target.check_in();
        assert!(
            !script(&target.mac, &target.uuid).contains("deploy.server="),
            "known, nothing to do"
        );
        let job = json!({ "job": { "kind": "disk-check" } });
        admin
            .json::<Value>("POST", "/api/machines/pc-525400000001/executions", &job)
            .unwrap();
        assert!(
            script(&target.mac, &target.uuid).contains("deploy.server="),
            "a job"
        );
        let shown: Value = admin
            .json("GET", "/api/machines/pc-525400000001", &())
            .unwrap();
        assert_eq!(shown["execution"]["state"], json!("booting"));
        // Its address with another UUID: no job.
        let other = Target::new(&server, 9);
        assert!(script(&target.mac, &other.uuid).contains("machine-ambiguous"));
    })
    .await;
}
