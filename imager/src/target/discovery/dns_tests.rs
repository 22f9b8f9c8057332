//! Messages as name servers send them, and as nobody should.

use super::{Kind, NoAnswer, Record, Srv, answer, question};
use proptest::prelude::*;
use std::net::Ipv4Addr;

const SERVICE: &str = "_deploy._tcp.lab.example";

/// An answer to `question` with a response code and records as hex.
fn reply(question: &[u8], code: u8, records: u8, hex: &str) -> Vec<u8> {
    let mut bytes = question.to_vec();
    bytes[2] = 0x81;
    bytes[3] = 0x80 | code;
    bytes[7] = records;
    bytes.extend(hex::decode(hex.replace(' ', "")).unwrap());
    bytes
}

fn service() -> Vec<u8> {
    question(0x1234, SERVICE, Kind::Srv).unwrap()
}

fn host() -> Vec<u8> {
    question(7, "deploy.lab.example", Kind::A).unwrap()
}

#[test]
fn a_question_has_these_bytes() {
    assert_eq!(
        hex::encode(service()),
        concat!(
            "123401000001000000000000",
            "075f6465706c6f79",
            "045f746370",
            "036c6162",
            "076578616d706c65",
            "00",
            "00210001"
        )
    );
    for bad in ["", "a..b", &"x".repeat(64), &"a.".repeat(140)] {
        assert_eq!(question(1, bad, Kind::A), None, "{bad}");
    }
    assert_eq!(question(1, "a.b.", Kind::A), question(1, "a.b", Kind::A));
}

#[test]
fn services_are_read_with_compressed_names() {
    // Name: pointer to the question; 0, 5, 26501, "srv" + pointer to "lab.example".
    let one = "c00c 0021 0001 0000003c 000c 0000 0005 6785 03737276 c019";
    let two = "c00c 0021 0001 0000003c 000b 000a 0000 0050 01 61 01 62 00";
    let found = answer(&reply(&service(), 0, 2, &format!("{one}{two}")), &service());
    let srv = |priority, weight, port, target: &str| {
        Record::Srv(Srv {
            priority,
            weight,
            port,
            target: target.to_owned(),
        })
    };
    assert_eq!(
        found,
        Ok(vec![
            srv(0, 5, 26501, "srv.lab.example"),
            srv(10, 0, 80, "a.b")
        ])
    );
}

#[test]
fn addresses_are_found_behind_an_alias() {
    let alias = "c00c 0005 0001 0000003c 0006 03737276 c013";
    let address = "c030 0001 0001 0000003c 0004 0a000009";
    let other = "c030 001c 0001 0000003c 0010 fd000000000000000000000000000001";
    let message = reply(&host(), 0, 3, &format!("{alias}{address}{other}"));
    assert_eq!(
        answer(&message, &host()),
        Ok(vec![Record::A(Ipv4Addr::new(10, 0, 0, 9))])
    );
}

#[test]
fn there_is_a_word_for_every_way_of_not_answering() {
    let said = |code, records, hex| answer(&reply(&service(), code, records, hex), &service());
    assert_eq!(said(3, 0, ""), Err(NoAnswer::NoName));
    assert_eq!(said(5, 0, ""), Err(NoAnswer::Refused(5)));
    assert_eq!(said(0, 0, ""), Err(NoAnswer::NoRecord));
    assert_eq!(answer(&[], &service()), Err(NoAnswer::Malformed));
    assert_eq!(answer(&service(), &service()), Err(NoAnswer::Malformed));
    let other = reply(&question(0x1235, SERVICE, Kind::Srv).unwrap(), 0, 0, "");
    assert_eq!(answer(&other, &service()), Err(NoAnswer::Other));
    let other = question(0x1234, "_deploy._tcp.lab.examplf", Kind::Srv).unwrap();
    assert_eq!(
        answer(&reply(&other, 0, 0, ""), &service()),
        Err(NoAnswer::Other)
    );
    // Letters are alike in both cases: some servers mix them.
    let mut loud = reply(&service(), 3, 0, "");
    loud[12..36].make_ascii_uppercase();
    assert_eq!(answer(&loud, &service()), Err(NoAnswer::NoName));
}

#[test]
fn names_that_run_in_circles_or_have_no_end_are_no_names() {
    let target = |name: &str| {
        let len = format!("{:04x}", 6 + name.len() / 2);
        let hex = format!("c00c 0021 0001 0000003c {len} 0000 0000 0050 {name}");
        answer(&reply(&service(), 0, 1, &hex), &service())
    };
    // To itself, forwards, into the middle of nowhere, reserved label types, no end.
    for name in ["c03c", "c0ff", "ffff", "80", "40", "0161", "0120", "3f61"] {
        assert_eq!(target(name), Err(NoAnswer::NoRecord), "{name}");
    }
    assert!(
        target("00")
            .is_ok_and(|list| matches!(&list[..], [Record::Srv(srv)] if srv.target.is_empty()))
    );
    // A name that reaches beyond its record is not the record's.
    let hex = "c00c 0021 0001 0000003c 0007 0000 0000 0050 0161 00";
    assert_eq!(
        answer(&reply(&service(), 0, 1, hex), &service()),
        Err(NoAnswer::NoRecord)
    );
}

proptest! {
    #[test]
    fn any_message_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = answer(&bytes, &service());
    }

    #[test]
    fn any_records_are_read(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        count in any::<u8>(),
        is_srv in any::<bool>(),
    ) {
        let asked = if is_srv { service() } else { host() };
        let mut message = reply(&asked, 0, count, "");
        message.extend(bytes);
        for record in answer(&message, &asked).unwrap_or_default() {
            if let Record::Srv(srv) = record {
                prop_assert!(srv.target.len() < 255);
            }
        }
    }

    #[test]
    fn any_change_of_a_good_answer_is_read(at in 0usize..80, value in any::<u8>()) {
        let hex = "c00c 0021 0001 0000003c 000c 0000 0005 6785 03737276 c019";
        let mut message = reply(&service(), 0, 1, hex);
        let at = at % message.len();
        message[at] = value;
        let _ = answer(&message, &service());
    }

    #[test]
    fn any_name_is_asked_for_or_refused(name in "\\PC{0,300}") {
        if let Some(bytes) = question(1, &name, Kind::A) {
            prop_assert!(bytes.len() <= 12 + 255 + 4);
        }
    }
}
