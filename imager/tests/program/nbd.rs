//! `imager nbd`: an image read over the network block protocol by QEMU's and libnbd's own
//! clients.
//!
//! Owns: what clients of others see, how the server ends. Does not own: the protocol's
//! corners (unit tests of `imager::nbd`).

use crate::disks::{self, MIB, folder};
use crate::run::{REFUSED, command};
use crate::{export, imager};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};

/// A server that runs; it is stopped with the value.
struct Server {
    child: Child,
    uri: String,
    said: Value,
}

impl Server {
    /// Starts it and waits until it says where it is.
    fn start(image: &Path, options: &[&str]) -> Server {
        let mut run = command(["nbd".as_ref(), "--json".as_ref(), image.as_os_str()]);
        let mut child = run.args(options).spawn().expect("imager starts");
        let mut out = BufReader::new(child.stdout.take().expect("its output"));
        let mut text = String::new();
        while !text.ends_with("}\n") || serde_json::from_str::<Value>(&text).is_err() {
            if out.read_line(&mut text).expect("its output") == 0 {
                let mut error = String::new();
                let _ = child
                    .stderr
                    .take()
                    .map(|mut e| e.read_to_string(&mut error));
                panic!("no server: {text}{error}");
            }
        }
        let said: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(said["result"], "serving");
        let uri = said["uri"].as_str().expect("a URI").to_owned();
        Server { child, uri, said }
    }

    fn tcp(image: &Path) -> Server {
        Server::start(image, &["--listen", "127.0.0.1:0"])
    }

    fn address(&self) -> &str {
        self.uri.strip_prefix("nbd://").expect("a TCP server")
    }

    /// Sends a signal and waits for the end.
    fn end(mut self, signal: Signal) -> ExitStatus {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("it runs");
        self.child.wait().expect("its end")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a client to its end.
#[track_caller]
fn client(name: &str, args: &[&str]) -> String {
    let output = Command::new(name).args(args).output();
    let output =
        output.unwrap_or_else(|e| panic!("{name} (package qemu-utils or libnbd-bin): {e}"));
    export::good(&output)
}

#[test]
fn clients_of_others_read_the_disk() {
    for imaged in [disks::gpt(), disks::gpt_4k()] {
        let dir = folder();
        let disk = export::restored(&imaged.image, dir.path());
        let disk = disk.to_str().unwrap();
        let server = Server::tcp(&imaged.image);
        let compared = client(
            "qemu-img",
            &["compare", "-f", "raw", "-F", "raw", disk, &server.uri],
        );
        assert!(compared.contains("identical"), "{compared}");
        // Four connections at a time, and pieces of several lengths.
        for size in ["4096", "262144", "16777216"] {
            let copy = dir.path().join("copy");
            let request = format!("--request-size={size}");
            client(
                "nbdcopy",
                &[
                    "--connections=4",
                    &request,
                    &server.uri,
                    copy.to_str().unwrap(),
                ],
            );
            assert!(
                fs::read(&copy).unwrap() == fs::read(disk).unwrap(),
                "{size}"
            );
            fs::remove_file(copy).unwrap();
        }
        assert!(server.end(Signal::SIGTERM).success());
    }
}

#[test]
fn it_says_what_it_serves_and_what_is_used() {
    let imaged = disks::gpt();
    let server = Server::tcp(&imaged.image);
    let info: Value = serde_json::from_str(&client("nbdinfo", &["--json", &server.uri])).unwrap();
    assert_eq!(info["structured"], true);
    let export = &info["exports"][0];
    assert_eq!(export["export-size"], 72 * MIB);
    assert_eq!(export["is_read_only"], true);
    assert_eq!(export["can_multi_conn"], true);
    assert_eq!(export["contexts"][0], "base:allocation");
    let names = client("nbdinfo", &["--list", "--json", &server.uri]);
    let names: Value = serde_json::from_str(&names).unwrap();
    assert_eq!(names["exports"].as_array().unwrap().len(), 5);
    assert_eq!(server.said["exports"][2]["name"], "2");

    // The used ranges are those of the exported raw file, to the block.
    let map = client("nbdinfo", &["--map", "--json", &server.uri]);
    let map: Value = serde_json::from_str(&map).unwrap();
    let ranges = map.as_array().unwrap();
    let sum = |kind: u64| -> u64 {
        let of_kind = ranges.iter().filter(|range| range["type"] == kind);
        of_kind.map(|range| range["length"].as_u64().unwrap()).sum()
    };
    let used = imager!["info", "--json", imaged.image].ok().json();
    let tables = 2 * 17 * 1024;
    let used = used["used_bytes"].as_u64().unwrap();
    assert!(
        (used..=used + tables).contains(&sum(0)),
        "{} of {used}",
        sum(0)
    );
    assert_eq!(sum(0) + sum(3), 72 * MIB);

    // A partition is an export of its own.
    let dir = folder();
    let part = dir.path().join("part");
    let uri = format!("{}/2", server.uri);
    client("nbdcopy", &[&uri, part.to_str().unwrap()]);
    let disk = fs::read(export::restored(&imaged.image, dir.path())).unwrap();
    let place = &imaged.disk.partitions[1];
    let (start, len) = (place.start as usize, place.size as usize);
    assert!(fs::read(&part).unwrap() == disk[start..start + len]);
}

#[test]
fn a_socket_is_the_users_own_and_goes_away() {
    let dir = folder();
    let socket = dir.path().join("socket");
    let image = &disks::bare().image;
    let path = socket.to_str().unwrap();
    let server = Server::start(image, &["--socket", path]);
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&socket).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert!(client("nbdinfo", &["--size", &server.uri]).contains(&(24 * MIB).to_string()));
    let second = imager!["nbd", "--json", "--socket", socket, image];
    assert!(second.stderr.contains("port-in-use"), "{}", second.stderr);
    assert!(server.end(Signal::SIGINT).success());
    assert!(!socket.exists());

    // With --once the last client takes it along.
    let mut server = Server::start(image, &["--once", "--socket", path]);
    client("nbdinfo", &["--size", &server.uri]);
    assert!(server.child.wait().unwrap().success());
    assert!(!socket.exists());
}

#[test]
fn damage_is_an_error_of_that_read_only() {
    let dir = folder();
    let imaged = disks::noise();
    let damaged = disks::copy(&imaged.image, dir.path().join("damaged"));
    disks::flip(&damaged, fs::metadata(&damaged).unwrap().len() / 2);
    let server = Server::tcp(&damaged);
    let copy = dir.path().join("copy");
    let copied = Command::new("nbdcopy").arg(&server.uri).arg(&copy).output();
    let copied = copied.expect("nbdcopy (package libnbd-bin)");
    assert!(!copied.status.success());
    // The server is there for others, and the start of the disk is good.
    let mut head = vec![0; 512];
    let first = format!(
        "json:{{\"driver\":\"raw\",\"size\":512,\"file\":{{\"driver\":\"nbd\",\"server\":{{\"type\":\"inet\",\"host\":\"127.0.0.1\",\"port\":\"{}\"}}}}}}",
        server.address().rsplit(':').next().unwrap()
    );
    let out = dir.path().join("head");
    client(
        "qemu-img",
        &["convert", "-O", "raw", &first, out.to_str().unwrap()],
    );
    fs::File::open(&out).unwrap().read_exact(&mut head).unwrap();
    assert!(head == fs::read(&imaged.disk.path).unwrap()[..512]);

    disks::flip(&damaged, 40);
    imager!["nbd", "--json", "--listen", "127.0.0.1:0", damaged].fails("image-damaged", 1);
}

#[test]
fn clients_that_misbehave_hurt_nobody() {
    let server = Server::tcp(&disks::bare().image);
    let connect = || TcpStream::connect(server.address()).unwrap();
    // Some say nothing, some nonsense, some leave in the middle; more than there is room for.
    let silent: Vec<_> = (0..20).map(|_| connect()).collect();
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 4096],
        &[0, 0, 0, 3],
        b"\0\0\0\x03IHAVEOPT\0\0\0\x07\xff\xff\xff\xff",
    ] {
        let mut stream = connect();
        // It may be closed before all is sent.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.starts_with(b"NBDMAGICIHAVEOPT") || answer.is_empty());
    }
    assert!(client("nbdinfo", &["--size", &server.uri]).contains(&(24 * MIB).to_string()));
    // It ends although clients are connected.
    assert!(server.end(Signal::SIGTERM).success());
    drop(silent);
}

#[test]
fn with_a_trusted_key_only_signed_images_are_opened() {
    let dir = folder();
    let image = disks::copy(&disks::bare().image, dir.path().join("image"));
    let key = dir.path().join("key");
    let public = imager!["key", "new", "--signing", "--json", key]
        .ok()
        .json();
    let public = public["public_key"].as_str().unwrap();
    let out = dir.path().join("disk.qcow2");
    let listen = ["--listen", "127.0.0.1:0", "--trusted-key", public];
    let nbd = ["nbd".as_ref(), "--json".as_ref(), image.as_os_str()];
    let mut command = command(nbd);
    command.args(listen);
    crate::run::finish(command).refused("image-untrusted");
    imager![
        "export",
        "-q",
        "--json",
        "--trusted-key",
        public,
        image,
        out
    ]
    .refused("image-untrusted");
    assert!(!out.exists());

    imager!["sign", "-q", "--key", key, image].ok();
    let server = Server::start(&image, &listen);
    assert_eq!(server.said["signed_by"][0], public);
    client("nbdinfo", &["--size", &server.uri]);
    imager!["export", "-q", "--trusted-key", public, image, out].ok();
}

#[test]
fn a_partial_image_and_a_missing_one_are_said() {
    let dir = folder();
    let image = dir.path().join("image");
    imager![
        "backup",
        "-q",
        "--partition",
        "2",
        disks::gpt().disk.path,
        image
    ]
    .ok();
    let server = Server::tcp(&image);
    assert_eq!(server.said["partial"], true);
    assert_eq!(server.said["exports"].as_array().unwrap().len(), 2);
    assert_eq!(server.said["warnings"][0]["code"], "image-partial");
    imager![
        "nbd",
        "--json",
        "--listen",
        "127.0.0.1:0",
        dir.path().join("none")
    ]
    .fails("image-not-found", REFUSED);
}
