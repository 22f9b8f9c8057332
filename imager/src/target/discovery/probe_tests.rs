//! Answers of servers, of other programs, and of nobody.

use super::{Answer, complete, parse, reach};
use crate::remote::ServerAddress;
use crate::target::discovery::resolver::Way;
use pinned::Pin;
use proptest::prelude::*;
use std::io::{Read, Write};
use std::net::TcpListener;

/// Something that answers every connection with the same text.
fn answering(text: &'static str) -> ServerAddress {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(text.as_bytes());
        }
    });
    ServerAddress::parse(&format!("http://{address}")).unwrap()
}

fn problem(text: &'static str, pin: Option<&Pin>) -> (String, bool) {
    let problem = reach(&answering(text), pin, &Way::default()).unwrap_err();
    (problem.text, problem.refused)
}

#[test]
fn who_is_no_server_of_ours_is_told() {
    for (answer, word) in [
        ("SSH-2.0-x\r\n\r\n", "does not speak HTTP"),
        ("HTTP/1.1 200 OK\r\n\r\nhello", "no deployment server"),
        (
            "HTTP/1.1 200 OK\r\ndeploy-protocol: 99\r\n\r\n{}",
            "speaks protocol 99",
        ),
        (
            "HTTP/1.1 404 Not Found\r\nDeploy-Protocol: 1\r\n\r\n",
            "does not say where",
        ),
        (
            "HTTP/1.1 200 OK\r\ndeploy-protocol: 1\r\ncontent-length: 27\r\n\r\n{\"data_port\":1,\"pin\":\"00\"}\n",
            "names no key",
        ),
        (
            "HTTP/1.1 200 OK\r\ndeploy-protocol: 1\r\n\r\n{\"data_port\":0,\"pin\":\"00\"}",
            "does not say where",
        ),
    ] {
        let (told, refused) = problem(answer, None);
        assert!(told.contains(word) && refused, "{answer:?}: {told}");
    }
}

#[test]
fn who_hangs_up_may_answer_later() {
    let (told, refused) = problem("", None);
    assert!(told.contains("without a word") && !refused, "{told}");
}

#[test]
fn a_pin_is_compared_before_the_server_is_asked_further() {
    let told = "HTTP/1.1 200 OK\r\ndeploy-protocol: 1\r\n\r\n\
        {\"data_port\":9,\"pin\":\"00000000000000000000000000000000000000000000000000000000000000ff\"}";
    let pin = Pin::from_bytes([7; 32]);
    let (text, refused) = problem(told, Some(&pin));
    assert!(refused && text.contains("another key"), "{text}");
    // Without one it is sent on, where nobody is.
    let (text, refused) = problem(told, None);
    assert!(
        !refused && text.contains("sends on to https://127.0.0.1:9"),
        "{text}"
    );
}

#[test]
fn tls_is_wanted_where_https_stands() {
    let mut server = answering("HTTP/1.1 200 OK\r\ndeploy-protocol: 1\r\n\r\n");
    server.scheme = crate::remote::Scheme::Https;
    let way = Way::default();
    let problem = reach(&server, Some(&Pin::from_bytes([7; 32])), &way).unwrap_err();
    assert!(
        problem.refused && problem.text.contains("TLS"),
        "{}",
        problem.text
    );
    let problem = reach(&server, None, &way).unwrap_err();
    assert!(
        problem.refused && problem.text.contains("no pin"),
        "{}",
        problem.text
    );
}

#[test]
fn answers_end_where_they_say() {
    let short = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab";
    assert!(!complete(short));
    assert!(complete(&[&short[..], b"c"].concat()));
    assert!(!complete(b"HTTP/1.1 200 OK\r\n"));
    let Some(Answer { status, body, .. }) = parse(short) else {
        panic!()
    };
    assert_eq!((status, &body[..]), (200, &b"ab"[..]));
}

proptest! {
    #[test]
    fn any_answer_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
        complete(&[b"HTTP/1.1 200 OK\r\n", &bytes[..], b"\r\n\r\n"].concat());
    }
}
