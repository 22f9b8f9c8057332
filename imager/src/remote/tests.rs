//! Tests of the client against a small HTTP server on the loopback interface that
//! answers from a script, drops connections and restarts.

use super::{Body, Failure, Observer, Options, Remote, Retrying, ServerAddress};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use wire::{Action, CheckIn, Code, DiskState, Finish, JobOutcome, Report, Summary};

/// What the scripted server got.
struct Request {
    line: String,
    headers: Vec<String>,
    body: Vec<u8>,
}

/// A server that hands request number n of all connections to the script, which writes
/// the raw answer; `false` closes the connection after it.
struct Scripted {
    address: ServerAddress,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Scripted {
    fn start(script: impl Fn(usize, &mut TcpStream) -> bool + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let script = Arc::new(script);
        let count = Arc::new(AtomicUsize::new(0));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, script, count) = (seen.clone(), script.clone(), count.clone());
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    let mut stream = stream;
                    while let Some(request) = read_request(&mut reader) {
                        seen.lock().unwrap().push(request);
                        if !script(count.fetch_add(1, Ordering::SeqCst), &mut stream) {
                            let _ = stream.shutdown(std::net::Shutdown::Both);
                            return;
                        }
                    }
                });
            }
        });
        Scripted {
            address: ServerAddress::parse(&format!("http://127.0.0.1:{port}")).unwrap(),
            requests,
        }
    }

    fn remote(&self) -> Remote {
        Remote::new(&self.address, None, &Options::default()).unwrap()
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let len = head
        .iter()
        .find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("content-length: ")
                .map(str::to_owned)
        })
        .map_or(0, |len| len.parse().unwrap());
    let mut body = vec![0; len];
    reader.read_exact(&mut body).ok()?;
    let line = head.remove(0);
    Some(Request {
        line,
        headers: head,
        body,
    })
}

fn answer(stream: &mut TcpStream, status: &str, body: &[u8]) -> bool {
    let head = format!(
        "HTTP/1.1 {status}\r\ndeploy-protocol: 1\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).is_ok() && stream.write_all(body).is_ok()
}

#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Observer for Notes {
    fn retrying(&self, retrying: &Retrying<'_>) {
        self.0
            .lock()
            .unwrap()
            .push(format!("{}: {}", retrying.what, retrying.last.code));
    }
    fn recovered(&self, what: &'static str) {
        self.0.lock().unwrap().push(format!("{what}: recovered"));
    }
    fn cancelled(&self) -> bool {
        false
    }
}

#[test]
fn a_checkin_carries_the_protocol_and_gets_its_answer() {
    let server = Scripted::start(|_, stream| {
        answer(
            stream,
            "200 OK",
            br#"{"machine":"pc-7","action":{"do":"boot-local"}}"#,
        )
    });
    let reply = server.remote().checkin(&CheckIn {
        uuid: "u-1".into(),
        ..CheckIn::default()
    });
    let reply = reply.unwrap();
    assert_eq!(
        (reply.machine.as_str(), reply.action),
        ("pc-7", Action::BootLocal)
    );
    let requests = server.requests.lock().unwrap();
    assert_eq!(requests[0].line, "POST /v1/checkin HTTP/1.1");
    assert!(
        requests[0]
            .headers
            .iter()
            .any(|h| h.eq_ignore_ascii_case("deploy-protocol: 1"))
    );
    assert!(
        !requests[0]
            .headers
            .iter()
            .any(|h| h.starts_with("Authorization"))
    );
    assert!(
        std::str::from_utf8(&requests[0].body)
            .unwrap()
            .contains("\"uuid\":\"u-1\"")
    );
}

#[test]
fn job_routes_carry_the_token_and_an_escaped_id() {
    let server =
        Scripted::start(|_, stream| answer(stream, "200 OK", br#"{"stored":2,"duplicate":1}"#));
    let stored = server
        .remote()
        .for_job("7/..?", "secret")
        .send_records(b"abc")
        .unwrap();
    assert_eq!((stored.stored, stored.duplicate), (2, 1));
    let requests = server.requests.lock().unwrap();
    assert_eq!(
        requests[0].line,
        "POST /v1/executions/7%2F..%3F/records HTTP/1.1"
    );
    assert!(
        requests[0]
            .headers
            .contains(&"Authorization: Bearer secret".to_owned())
    );
    assert_eq!(requests[0].body, b"abc");
}

#[test]
fn the_servers_own_report_passes_through_and_is_not_retried() {
    let told = Report::new(
        Code::ImageExists,
        "image pc-7 is there already",
        DiskState::Untouched,
    );
    let body = serde_json::to_vec(&told).unwrap();
    let server = Scripted::start(move |_, stream| answer(stream, "409 Conflict", &body));
    let error = server
        .remote()
        .for_job("1", "t")
        .send_records(b"x")
        .unwrap_err();
    assert_eq!(error, told);
    assert_eq!(server.requests.lock().unwrap().len(), 1);
}

#[test]
fn statuses_without_a_report_are_named() {
    let server = Scripted::start(|_, stream| answer(stream, "403 Forbidden", b"<html>"));
    let error = server
        .remote()
        .for_job("1", "t")
        .get_manifest()
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.code, Code::ServerRefused);
    assert!(error.found.contains("403"), "{}", error.found);
}

#[test]
fn a_restarting_server_is_survived_and_the_notes_tell_it() {
    let server = Scripted::start(|n, stream| match n {
        0 => false, // closed without an answer
        1 => answer(stream, "503 Service Unavailable", b""),
        _ => answer(stream, "200 OK", br#"{"after":"power-off"}"#),
    });
    let notes = Arc::new(Notes::default());
    let remote = server.remote().observed_by(notes.clone()).for_job("1", "t");
    let finish = Finish {
        outcome: JobOutcome::Done {
            warnings: Vec::new(),
        },
        summary: Summary::default(),
    };
    assert_eq!(remote.finish(&finish).unwrap().after, wire::After::PowerOff);
    assert_eq!(
        *notes.0.lock().unwrap(),
        [
            "reporting the result: connection-lost",
            "reporting the result: busy",
            "reporting the result: recovered"
        ]
    );
}

#[test]
fn a_manifest_is_sent_again_from_its_beginning() {
    let server = Scripted::start(|n, stream| {
        n > 0 && answer(stream, "200 OK", br#"{"image":"i-1","root":"00"}"#)
    });
    let remote = server.remote().for_job("1", "t");
    let published = remote.put_manifest(5, || Ok(&b"hello"[..])).unwrap();
    assert_eq!(published.image, "i-1");
    let requests = server.requests.lock().unwrap();
    let bodies: Vec<&[u8]> = requests.iter().map(|r| r.body.as_slice()).collect();
    assert_eq!(bodies, [b"hello", b"hello"]);
    assert!(
        requests[1]
            .line
            .starts_with("PUT /v1/executions/1/manifest ")
    );
}

#[test]
fn a_stream_that_breaks_is_an_error_and_can_be_asked_for_again() {
    let server = Scripted::start(|n, stream| {
        if n == 0 {
            let head = b"HTTP/1.1 200 OK\r\ndeploy-protocol: 1\r\ncontent-length: 10\r\n\r\nhalf";
            let _ = stream.write_all(head);
            return false;
        }
        answer(stream, "200 OK", b"0123456789")
    });
    let remote = server.remote().for_job("1", "t");
    let mut retry = remote.retry("fetching");
    let mut breaks = 0;
    let text = loop {
        let mut text = String::new();
        let mut body = remote.fetch(&[[7; 32]]).unwrap();
        assert_eq!(body.len(), Some(10));
        match body.read_to_string(&mut text) {
            Ok(_) => break text,
            Err(error) => {
                breaks += 1;
                let failure = Body::failure(&error).expect("a break is the connection's");
                assert!(
                    matches!(&failure, Failure::Transient(r) if r.code == Code::ConnectionLost)
                );
                retry.wait(failure).unwrap();
            }
        }
    };
    assert_eq!((text.as_str(), breaks), ("0123456789", 1));
    assert_eq!(server.requests.lock().unwrap()[1].body, [7; 32]);
}

#[test]
fn a_chunked_stream_that_breaks_is_an_error_too() {
    let server = Scripted::start(|_, stream| {
        let head = b"HTTP/1.1 200 OK\r\ndeploy-protocol: 1\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n";
        let _ = stream.write_all(head);
        false
    });
    let mut body = server.remote().for_job("1", "t").fetch(&[[7; 32]]).unwrap();
    let mut bytes = Vec::new();
    let error = body.read_to_end(&mut bytes).unwrap_err();
    assert!(Body::failure(&error).is_some());
}

#[test]
fn a_stream_without_a_length_is_refused() {
    let server = Scripted::start(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ndeploy-protocol: 1\r\n\r\nwho knows");
        false
    });
    let error = server
        .remote()
        .for_job("1", "t")
        .get_manifest()
        .map(|_| ())
        .unwrap_err();
    assert!(error.found.contains("without a length"), "{}", error.found);
}

#[test]
fn bits_are_read_lowest_first_and_many_hashes_are_portioned() {
    let server = Scripted::start(|n, stream| match n {
        0 => answer(stream, "200 OK", &[0xff; 512]),
        _ => answer(stream, "200 OK", &[0b0000_0101]),
    });
    let known = server
        .remote()
        .for_job("1", "t")
        .have(&vec![[0; 32]; 4096 + 3])
        .unwrap();
    assert_eq!(known.len(), 4099);
    assert!(known[..4096].iter().all(|known| *known));
    assert_eq!(known[4096..], [true, false, true]);
    let requests = server.requests.lock().unwrap();
    let sizes: Vec<usize> = requests.iter().map(|r| r.body.len()).collect();
    assert_eq!(sizes, [4096 * 32, 96]);
}

#[test]
fn a_bitmap_of_the_wrong_length_proves_nothing() {
    for wrong in [&b""[..], &[0xff, 0xff]] {
        let server = Scripted::start(move |_, stream| answer(stream, "200 OK", wrong));
        let error = server
            .remote()
            .for_job("1", "t")
            .have(&[[0; 32]])
            .unwrap_err();
        assert_eq!(error.code, Code::ServerRefused);
    }
}

#[test]
fn another_web_server_or_version_is_told_apart() {
    let foreign = Scripted::start(|_, stream| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .is_ok()
    });
    let error = foreign.remote().for_job("1", "t").log("text").unwrap_err();
    assert_eq!(error.code, Code::ServerRefused);
    assert!(
        error.found.contains("not a deployment server"),
        "{}",
        error.found
    );
    let newer = Scripted::start(|_, stream| {
        let head = b"HTTP/1.1 200 OK\r\ndeploy-protocol: 2\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(head).is_ok()
    });
    let error = newer.remote().for_job("1", "t").log("text").unwrap_err();
    assert!(
        error.found.contains("protocol version 2"),
        "{}",
        error.found
    );
}

#[test]
fn a_server_that_was_never_there_is_not_found() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let address = ServerAddress::parse(&format!("http://{closed}")).unwrap();
    let options = Options {
        retry_for: Duration::ZERO,
        ..Options::default()
    };
    let remote = Remote::new(&address, None, &options).unwrap();
    let error = remote.checkin(&CheckIn::default()).unwrap_err();
    assert_eq!(error.code, Code::ServerNotFound);
    assert!(error.found.contains("refused"), "{}", error.found);
}

#[test]
fn https_without_a_pin_is_refused_before_any_connection() {
    let address = ServerAddress::parse("https://127.0.0.1:1").unwrap();
    let error = Remote::new(&address, None, &Options::default())
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.code, Code::Usage);
}

#[test]
fn the_newest_part_of_a_log_starts_at_a_line() {
    assert_eq!(super::newest_part("one\ntwo\n", 100), "one\ntwo\n");
    assert_eq!(super::newest_part("one\ntwo\nthree", 9), "three");
    assert_eq!(super::newest_part("ääää", 3), "ä");
}
