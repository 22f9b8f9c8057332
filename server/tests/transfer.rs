//! Images as single files: from `imager`'s backup to a server, to a file, to another
//! server; and how much a second they may take.

mod support;

use image::container::{ContainerReader, Event};
use imager::backup::{Options, Plan, container};
use imager::keyring::Keyring;
use imager::progress::Silent;
use serde_json::{Value, json};
use server::ctl;
use server::daemon::Server;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use support::{Http, Image, Target, blocking, start};
use testkit::build::{DiskBuilder, Tree};
use wire::{Code, DiskInfo};

/// Runs `deployctl` in this process and returns its exit code.
fn ctl(server: &Server, state: &Path, arguments: &[&str]) -> u8 {
    use clap::Parser;
    let base = support::base(server);
    let head = [
        "deployctl",
        "--state",
        state.to_str().unwrap(),
        "--server",
        &base,
    ];
    ctl::run(&ctl::args::Cli::parse_from([&head[..], arguments].concat()))
}

/// What `imager backup` makes of a disk with an ext4 and unused space; its root.
fn backed_up(file: &Path) -> String {
    let raw = file.with_extension("raw");
    DiskBuilder::gpt(48 << 20, 512)
        .ext4(40 << 20, &Tree::new(5, 60, 200_000))
        .build(&raw);
    let device = imager::source::open(&raw, None).unwrap();
    let info = DiskInfo {
        size_bytes: 48 << 20,
        sector_size: 512,
        ..DiskInfo::default()
    };
    // Small cells, so that chunks occur again.
    let options = Options {
        cell_size: 64 << 10,
        ..Options::default()
    };
    let plan = Plan::make(
        &device,
        &info,
        image::layout::Machine::default(),
        &options,
        &imager::progress::Silent,
    )
    .unwrap();
    let out = File::create(file).unwrap();
    let (_, written) = container::write(&device, &plan, &options, out, &Silent).unwrap();
    written.root.root.to_hex()
}

fn verified(file: &Path) -> String {
    let input = File::open(file).unwrap();
    let found = imager::verify_image::verify(input, &Keyring::default(), &Silent).unwrap();
    found.root.root.to_hex()
}

fn signers(file: &Path) -> Vec<image::PublicKey> {
    let mut reader = ContainerReader::open(File::open(file).unwrap()).unwrap();
    let mut payload = Vec::new();
    while !matches!(reader.next_event(&mut payload).unwrap(), Event::End(_)) {}
    reader.signatures().iter().map(|s| s.key).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_goes_from_imager_through_two_servers_and_stays_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (one, two) = (start(&path("one")).await, start(&path("two")).await);
    let (first, second) = (path("gold.img"), path("copy.img"));
    let paths: [PathBuf; 4] = [first, second, path("one"), path("two")];
    let (one, two) = blocking(move || {
        let [first, second, state_one, state_two] = &paths;
        let text = |path: &PathBuf| path.to_str().unwrap().to_owned();
        let root = backed_up(first);
        assert_eq!(ctl(&one, state_one, &["images", "import", &text(first)]), 0);
        assert_eq!(ctl(&one, state_one, &["images", "verify", "gold"]), 0);
        assert_eq!(
            ctl(
                &one,
                state_one,
                &["images", "export", "gold", &text(second)]
            ),
            0
        );
        assert_eq!(verified(second), root);
        assert_eq!(signers(first), []);
        assert_eq!(signers(second), [one.app.store.signer().unwrap()]);
        assert_eq!(
            ctl(
                &one,
                state_one,
                &["images", "export", "gold", &text(second)]
            ),
            2
        );
        let import = ["images", "import", &text(second), "--name", "from one"];
        assert_eq!(ctl(&two, state_two, &import), 0);
        let shown: Value = Http::new(&two, &two.app.admin_token)
            .json("GET", "/api/images/from%20one", &())
            .unwrap();
        assert_eq!(shown["root"].as_str(), Some(root.as_str()));
        assert_eq!(ctl(&two, state_two, &["scrub", "--wait"]), 0);
        let again = second.with_extension("again");
        assert_eq!(
            ctl(
                &two,
                state_two,
                &["images", "export", "from one", &text(&again)]
            ),
            0
        );
        assert_eq!(verified(&again), root);
        assert_eq!(signers(&again).len(), 2, "the first server's and its own");
        (one, two)
    })
    .await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_no_image_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(&dir.path().join("state")).await;
    let file = dir.path().join("gold.img");
    let server = blocking(move || {
        backed_up(&file);
        let whole = std::fs::read(&file).unwrap();
        let admin = Http::new(&server, &server.app.admin_token);
        let import = |bytes: &[u8]| admin.bytes("POST", "/api/import?name=gold", bytes);
        for at in (40..whole.len()).step_by(whole.len() / 23) {
            let mut changed = whole.clone();
            changed[at] ^= 4;
            for broken in [&changed[..], &whole[..at]] {
                let (status, report) = import(broken).unwrap_err();
                assert_eq!(
                    (status, report.code),
                    (422, Code::ImageDamaged),
                    "{at}: {report}"
                );
            }
        }
        let images: Vec<Value> = admin.json("GET", "/api/images", &()).unwrap();
        assert!(images.is_empty());
        let state = file.with_file_name("state");
        let left = |folder: &str| {
            std::fs::read_dir(state.join("images").join(folder))
                .unwrap()
                .count()
        };
        assert_eq!((left("manifests"), left("packs")), (0, 0));
        import(&whole).unwrap();
        server
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_of_a_damaged_image_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let server = start(&state).await;
    let (file, out) = (dir.path().join("gold.img"), dir.path().join("out.img"));
    let server = blocking(move || {
        backed_up(&file);
        assert_eq!(
            ctl(
                &server,
                &state,
                &["images", "import", file.to_str().unwrap()]
            ),
            0
        );
        let packs = state.join("images/packs");
        let pack = std::fs::read_dir(packs)
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        let mut bytes = std::fs::read(&pack).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&pack, bytes).unwrap();
        let export = ["images", "export", "gold", out.to_str().unwrap()];
        assert_eq!(ctl(&server, &state, &export), 1);
        assert!(!out.exists() && !out.with_file_name("out.img.part").exists());
        // The file it came from heals it.
        assert_eq!(ctl(&server, &state, &["scrub", "--wait"]), 1);
        let again = [
            "images",
            "import",
            file.to_str().unwrap(),
            "--name",
            "again",
        ];
        assert_eq!(ctl(&server, &state, &again), 0);
        assert_eq!(ctl(&server, &state, &["scrub", "--wait"]), 0);
        assert_eq!(ctl(&server, &state, &export), 0);
        assert_eq!(verified(&out), verified(&file));
        server
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limited_transfer_takes_its_time_in_both_directions_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await;
    let (admin, target) = (
        Http::new(&server, &server.app.admin_token),
        Target::new(&server, 1),
    );
    let machine = "/api/machines/pc-525400000001/executions";
    blocking(move || {
        target.check_in();
        let order = |job: Value, rate: u64| -> Result<Value, u16> {
            let body = json!({ "job": job, "rate": rate });
            admin.json("POST", machine, &body).map_err(|e| e.0)
        };
        let backup = json!({ "kind": "backup", "image": "gold {mac}" });
        assert_eq!(
            order(backup.clone(), 1000).unwrap_err(),
            400,
            "too slow for any target"
        );
        let made = order(backup, 4 << 20).unwrap();
        assert_eq!(made["rate_limit"].as_u64(), Some(4 << 20));
        assert_eq!(made["image"].as_str(), Some("gold 525400000001"));
        // 6 MiB at 4 MiB a second, whatever the connection could do.
        let image = Image::new(7, 96);
        let least = Duration::from_millis(1300);
        let session = target.job();
        let began = Instant::now();
        session.back_up(&image).unwrap();
        assert!(began.elapsed() >= least, "{:?}", began.elapsed());
        session.done().unwrap();
        order(
            json!({ "kind": "restore", "image": "gold 525400000001" }),
            4 << 20,
        )
        .unwrap();
        let session = target.job();
        session.begin_write(target.disk()).unwrap();
        let began = Instant::now();
        assert!(session.restore().unwrap() == image.plain);
        assert!(began.elapsed() >= least, "{:?}", began.elapsed());
        session.done().unwrap();
    })
    .await;
    server.stop().await;
}
