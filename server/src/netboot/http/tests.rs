//! The routes, over real connections on loopback.

use std::future::pending;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Runtime;
use wire::{Code, DiskState, Report};

use super::router_with_timeout;
use crate::netboot::config::tests::sample;
use crate::netboot::decide::{BootDecider, BootDecision, BootSeen, Decision, LocalBoot};

/// Decides by the machine's serial number, and remembers who asked.
#[derive(Default)]
struct BySerial {
    seen: Mutex<Vec<BootSeen>>,
}

impl BootDecider for BySerial {
    fn decide(&self, seen: BootSeen) -> Decision {
        let serial = seen.serial.clone();
        self.seen.lock().unwrap().push(seen);
        Box::pin(async move {
            match serial.as_str() {
                "busy" => pending().await,
                "deploy" => BootDecision::DeployOs {
                    why: "backup".to_owned(),
                },
                "refused" => BootDecision::Refused(Report::new(
                    Code::MachineAmbiguous,
                    "two",
                    DiskState::NotInvolved,
                )),
                _ => BootDecision::LocalDisk {
                    why: "nothing is assigned".to_owned(),
                    how: LocalBoot::Auto,
                },
            }
        })
    }
}

struct Served {
    folder: tempfile::TempDir,
    address: SocketAddr,
    decider: Arc<BySerial>,
    _runtime: Runtime,
}

fn serve() -> Served {
    let folder = tempfile::tempdir().unwrap();
    let config = Arc::new(sample(folder.path()).boot_config());
    let decider = Arc::new(BySerial::default());
    let router = router_with_timeout(config, decider.clone(), Duration::from_millis(20));
    let runtime = Runtime::new().unwrap();
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move { axum::serve(listener, router).await });
    Served {
        folder,
        address,
        decider,
        _runtime: runtime,
    }
}

impl Served {
    /// Status line with headers, and body.
    fn ask(&self, method: &str, path: &str, headers: &str) -> (String, Vec<u8>) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}Connection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .unwrap();
        let body = answer.split_off(end + 4);
        (
            String::from_utf8(answer).unwrap().to_ascii_lowercase(),
            body,
        )
    }

    fn script(&self, path: &str) -> String {
        let (head, body) = self.ask("GET", path, "");
        assert!(
            head.starts_with("http/1.1 200") && head.contains("content-length: "),
            "{head}"
        );
        String::from_utf8(body).unwrap()
    }
}

#[test]
fn scripts_follow_the_decision() {
    let served = serve();
    assert!(
        served
            .script("/boot/boot.ipxe")
            .contains("/boot/machine.ipxe?mac=")
    );
    let of = |serial: &str| {
        served.script(&format!(
            "/boot/machine.ipxe?mac=52:54:00:00:00:01&serial={serial}"
        ))
    };
    assert!(of("deploy").contains("\nkernel http://10.99.0.1:26500/boot/files/vmlinuz "));
    assert!(of("refused").contains("echo machine-ambiguous: "));
    assert!(of("").contains("echo Deploy-OS: nothing is assigned\n"));
    assert!(of("busy").contains("asking again"));
    let macs: Vec<_> = served
        .decider
        .seen
        .lock()
        .unwrap()
        .iter()
        .flat_map(|seen| seen.macs.clone())
        .collect();
    assert_eq!(macs, ["52:54:00:00:00:01"; 4]);
    let grub = served.script("/boot/machine.grub?mac=52:54:00:00:00:01&serial=deploy");
    assert!(grub.contains("\nif linux /boot/files/vmlinuz "), "{grub}");
    let busy = served.script("/boot/machine.grub?mac=52:54:00:00:00:01&serial=busy");
    assert!(busy.contains("asking again"), "{busy}");
}

#[test]
fn a_machine_that_does_not_say_who_it_is_boots_its_disk() {
    let served = serve();
    for query in ["", "?", "?mac=&uuid=", "?mac=00:00:00:00:00:00"] {
        assert!(
            served
                .script(&format!("/boot/machine.ipxe{query}"))
                .contains("sanboot")
        );
    }
    assert_eq!(served.decider.seen.lock().unwrap().len(), 0);
}

#[test]
fn files_come_whole_in_parts_and_by_head() {
    let served = serve();
    let bytes: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(served.folder.path().join("vmlinuz"), &bytes).unwrap();
    std::fs::write(served.folder.path().join("snponly.efi"), b"MZ").unwrap();

    let (head, body) = served.ask("GET", "/boot/files/vmlinuz", "");
    assert!(
        head.starts_with("http/1.1 200") && head.contains("\r\ncontent-length: 300000\r\n"),
        "{head}"
    );
    assert!(head.contains("\r\naccept-ranges: bytes\r\n") && body == bytes);

    let (head, body) = served.ask("HEAD", "/boot/files/vmlinuz", "");
    assert!(
        head.contains("\r\ncontent-length: 300000\r\n") && body.is_empty(),
        "{head}"
    );

    let (head, body) = served.ask(
        "GET",
        "/boot/files/vmlinuz",
        "Range: bytes=100000-200000\r\n",
    );
    assert!(head.starts_with("http/1.1 206"), "{head}");
    assert!(
        head.contains("\r\ncontent-range: bytes 100000-200000/300000\r\n"),
        "{head}"
    );
    assert!(
        head.contains("\r\ncontent-length: 100001\r\n") && body == bytes[100_000..=200_000],
        "{head}"
    );

    let (head, _) = served.ask("GET", "/boot/files/vmlinuz", "Range: bytes=300000-\r\n");
    assert!(
        head.starts_with("http/1.1 416") && head.contains("\r\ncontent-range: bytes */300000\r\n"),
        "{head}"
    );

    let (head, body) = served.ask("GET", "/boot/files/snponly.efi", "");
    assert!(
        head.contains("\r\ncontent-type: application/efi\r\n") && body == b"MZ",
        "{head}"
    );
}

#[test]
fn nothing_outside_the_folder_is_sent() {
    let served = serve();
    std::os::unix::fs::symlink("/etc/passwd", served.folder.path().join("link")).unwrap();
    std::fs::create_dir(served.folder.path().join("folder")).unwrap();
    for name in [
        "nothing",
        "link",
        "folder",
        "..",
        "%2e%2e",
        "..%2fx",
        "%2fetc%2fpasswd",
        "a%00",
        "%ff",
        "..%5cx",
    ] {
        let (head, body) = served.ask("GET", &format!("/boot/files/{name}"), "");
        assert!(head.starts_with("http/1.1 40"), "{name}: {head}");
        assert!(!String::from_utf8_lossy(&body).contains("root:"), "{name}");
    }
    let (head, _) = served.ask("POST", "/boot/files/link", "Content-Length: 0\r\n");
    assert!(head.starts_with("http/1.1 405"), "{head}");
}
