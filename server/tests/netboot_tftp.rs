//! TFTP over loopback with real sockets: transfers, losses, refusals.

mod netboot_support;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use netboot_support::fetch;
use server::netboot::files::BootFiles;
use server::netboot::tftp::packet::{ErrorCode, Packet, Request};
use server::netboot::tftp::server::{MAX_TRANSFERS_PER_CLIENT, TftpServer};
use tokio::runtime::Runtime;
use tokio::sync::watch;

struct Served {
    folder: tempfile::TempDir,
    address: SocketAddr,
    _stop: watch::Sender<bool>,
    _runtime: Runtime,
}

fn serve() -> Served {
    let folder = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    let (stop, shutdown) = watch::channel(false);
    let files = BootFiles::new(folder.path());
    let any_port = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
    let server = runtime.block_on(TftpServer::bind(any_port, files)).unwrap();
    let address = server.address().unwrap();
    runtime.spawn(server.run(shutdown));
    Served {
        folder,
        address,
        _stop: stop,
        _runtime: runtime,
    }
}

/// Bytes in which no two blocks are alike.
fn content(length: usize) -> Vec<u8> {
    (0..length)
        .map(|n| ((n / 4 * 0x9e37_79b1) >> (8 * (n % 4))) as u8)
        .collect()
}

impl Served {
    fn with(&self, name: &str, length: usize) -> Vec<u8> {
        let bytes = content(length);
        std::fs::write(self.folder.path().join(name), &bytes).unwrap();
        bytes
    }
}

#[test]
fn files_of_every_length_arrive_whole() {
    let served = serve();
    for length in [0, 1, 511, 512, 513, 1024, 5000] {
        let bytes = served.with("file", length);
        let fetched = fetch(served.address, "file", &[], |_| false).unwrap();
        assert_eq!(fetched.bytes, bytes, "{length}");
    }
}

#[test]
fn options_are_negotiated() {
    let served = serve();
    let bytes = served.with("snponly.efi", 100_000);
    let wishes = [
        ("tsize", "0"),
        ("blksize", "1468"),
        ("windowsize", "8"),
        ("timeout", "2"),
    ];
    let fetched = fetch(served.address, "/snponly.efi", &wishes, |_| false).unwrap();
    assert_eq!(fetched.bytes, bytes);
    let text: Vec<String> = fetched
        .options
        .iter()
        .map(|(n, v)| format!("{n}={v}"))
        .collect();
    assert_eq!(
        text,
        ["tsize=100000", "blksize=1468", "windowsize=8", "timeout=2"]
    );
}

#[test]
fn lost_packets_are_sent_again() {
    let served = serve();
    let bytes = served.with("file", 40_000);
    for window in ["1", "4", "16"] {
        let wishes = [("blksize", "1024"), ("windowsize", window)];
        let fetched = fetch(served.address, "file", &wishes, |n| n % 17 == 3).unwrap();
        assert_eq!(fetched.bytes, bytes, "window {window}");
    }
}

#[test]
fn a_lost_option_acknowledgement_is_sent_again() {
    let served = serve();
    let bytes = served.with("file", 3000);
    let fetched = fetch(served.address, "file", &[("blksize", "1024")], |n| n == 1).unwrap();
    assert_eq!(fetched.bytes, bytes);
}

#[test]
fn more_than_65535_blocks_work() {
    let served = serve();
    let bytes = served.with("large", 8 * 70_000 + 3);
    let wishes = [("blksize", "8"), ("windowsize", "32")];
    let fetched = fetch(served.address, "large", &wishes, |_| false).unwrap();
    assert!(fetched.bytes == bytes);
}

/// One acknowledgement sent twice must not double all that follows.
#[test]
fn doubled_acknowledgements_do_not_double_data() {
    let served = serve();
    served.with("file", 512 * 20);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    // So long that no repetition of the server's own can come in between.
    let options = vec![("timeout".to_owned(), "255".to_owned())];
    let request = Request {
        file: "file".to_owned(),
        mode: "octet".to_owned(),
        options,
    };
    client
        .send_to(&Packet::Read(request).encode(), served.address)
        .unwrap();
    let mut buffer = [0; 600];
    for expected in 0..=21u16 {
        let (length, from) = client.recv_from(&mut buffer).unwrap();
        let block = match Packet::decode(&buffer[..length]).unwrap() {
            Packet::Data { block, .. } => block,
            Packet::OptionAck(_) => 0,
            other => panic!("{other:?}"),
        };
        // A block that came twice would stand here instead of the next one.
        assert_eq!(block, expected);
        for _ in 0..3 {
            client
                .send_to(&Packet::Ack { block }.encode(), from)
                .unwrap();
        }
    }
}

#[test]
fn nothing_outside_the_folder_is_sent() {
    let served = serve();
    served.with("file", 10);
    std::os::unix::fs::symlink("/etc/passwd", served.folder.path().join("link")).unwrap();
    let names = [
        "/etc/passwd",
        "../file",
        "//etc/passwd",
        "..\\file",
        "link",
        "./file",
        "FILE",
        "",
        "/",
        "file/",
    ];
    for name in names {
        let (code, _) = fetch(served.address, name, &[], |_| false).unwrap_err();
        assert_eq!(ErrorCode(code), ErrorCode::NOT_FOUND, "{name:?}");
    }
}

fn answer_to(client: &UdpSocket, packet: &[u8], server: SocketAddr) -> Packet {
    client
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    client.send_to(packet, server).unwrap();
    let mut buffer = [0; 600];
    let (length, _) = client.recv_from(&mut buffer).unwrap();
    Packet::decode(&buffer[..length]).unwrap()
}

#[test]
fn writing_and_text_mode_are_refused_and_junk_is_not_answered() {
    let served = serve();
    served.with("file", 10);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let request = |mode: &str| Request {
        file: "file".to_owned(),
        mode: mode.to_owned(),
        options: Vec::new(),
    };
    // The answer to the junk would come first.
    client.send_to(b"\0\x09junk", served.address).unwrap();
    client
        .send_to(&Packet::Ack { block: 1 }.encode(), served.address)
        .unwrap();
    client
        .send_to(
            &Packet::error(ErrorCode::OTHER, "tennis").encode(),
            served.address,
        )
        .unwrap();
    let refusal = answer_to(
        &client,
        &Packet::Write(request("octet")).encode(),
        served.address,
    );
    assert!(
        matches!(
            refusal,
            Packet::Error {
                code: ErrorCode::ACCESS,
                ..
            }
        ),
        "{refusal:?}"
    );
    let refusal = answer_to(
        &client,
        &Packet::Read(request("netascii")).encode(),
        served.address,
    );
    assert!(
        matches!(
            refusal,
            Packet::Error {
                code: ErrorCode::ILLEGAL,
                ..
            }
        ),
        "{refusal:?}"
    );
}

#[test]
fn a_client_with_too_many_transfers_is_told_that_the_server_is_busy() {
    let served = serve();
    served.with("file", 5000);
    let request = Request {
        file: "file".to_owned(),
        mode: "octet".to_owned(),
        options: Vec::new(),
    };
    let request = Packet::Read(request).encode();
    let clients: Vec<UdpSocket> = (0..=MAX_TRANSFERS_PER_CLIENT)
        .map(|_| UdpSocket::bind("127.0.0.1:0").unwrap())
        .collect();
    for (number, client) in clients.iter().enumerate() {
        match answer_to(client, &request, served.address) {
            Packet::Data { block: 1, .. } => assert!(number < MAX_TRANSFERS_PER_CLIENT),
            Packet::Error {
                code: ErrorCode::OTHER,
                message,
            } => {
                assert_eq!(number, MAX_TRANSFERS_PER_CLIENT);
                assert!(message.contains("busy"), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }
}
