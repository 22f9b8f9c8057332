//! Clients in memory: the corners of the protocol, and clients that do not keep to it.

use super::proto::{self, command};
use super::session::{Disk, Export, MAX_READ, PIECE, serve};
use proptest::prelude::*;
use std::io::{self, Cursor, Read, Write};

/// What a client sends, and what it was answered.
struct Wire {
    input: Cursor<Vec<u8>>,
    output: Vec<u8>,
}

impl Read for Wire {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.input.read(buf)
    }
}

impl Write for Wire {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.output.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const SIZE: u64 = 8 << 20;
/// A read of this place fails.
const BAD: u64 = 5 << 20;

/// Bytes that follow from their place; the first half MiB of every MiB is in use.
struct Pattern;

fn byte(at: u64) -> u8 {
    if at >> 19 & 1 == 0 {
        (at >> 9) as u8 | 1
    } else {
        0
    }
}

impl Disk for Pattern {
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<(), String> {
        assert!(offset + buf.len() as u64 <= SIZE && buf.len() <= PIECE);
        for (byte_there, at) in buf.iter_mut().zip(offset..) {
            if at == BAD {
                return Err("image-damaged: here".into());
            }
            *byte_there = byte(at);
        }
        Ok(())
    }

    fn extent(&self, offset: u64, limit: u64) -> Result<(bool, u64), String> {
        assert!(offset + limit <= SIZE && limit > 0);
        let end = (offset | ((1 << 19) - 1)) + 1;
        Ok((offset >> 19 & 1 == 0, (end - offset).min(limit)))
    }
}

fn exports() -> Vec<Export> {
    let export = |name: &str, start, size| Export {
        name: name.into(),
        description: String::new(),
        start,
        size,
    };
    vec![export("", 0, SIZE), export("2", 1 << 20, 3 << 20)]
}

fn talk(input: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
    let mut wire = Wire {
        input: Cursor::new(input),
        output: Vec::new(),
    };
    let end = serve(&mut wire, &exports(), &Pattern, || {});
    (end, wire.output)
}

fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let mut out = b"IHAVEOPT".to_vec();
    out.extend_from_slice(&number.to_be_bytes());
    out.extend_from_slice(&(data.len() as u32).to_be_bytes());
    out.extend_from_slice(data);
    out
}

fn go(name: &str) -> Vec<u8> {
    let mut data = (name.len() as u32).to_be_bytes().to_vec();
    data.extend_from_slice(name.as_bytes());
    data.extend_from_slice(&[0, 0]);
    option(proto::option::GO, &data)
}

fn request(kind: u16, flags: u16, offset: u64, len: u32) -> Vec<u8> {
    let mut out = 0x2560_9513u32.to_be_bytes().to_vec();
    out.extend_from_slice(&flags.to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(b"a cookie");
    out.extend_from_slice(&offset.to_be_bytes());
    out.extend_from_slice(&len.to_be_bytes());
    out
}

/// The client's flags, then what is given, one behind the other.
fn client(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut out = vec![0, 0, 0, 3];
    out.extend(parts.iter().flatten());
    out
}

/// What comes behind the answers of the handshake.
fn answers(parts: &[Vec<u8>], requests: &[Vec<u8>]) -> (io::Result<()>, Vec<u8>) {
    let handshake = talk(client(parts)).1.len();
    let (end, output) = talk(client(&[parts.concat(), requests.concat()]));
    (end, output[handshake..].to_vec())
}

fn structured() -> Vec<u8> {
    option(proto::option::STRUCTURED_REPLY, &[])
}

fn errno(reply: &[u8]) -> u32 {
    u32::from_be_bytes(reply[4..8].try_into().unwrap())
}

#[test]
fn what_cannot_be_read_is_an_error_and_the_next_request_is_answered() {
    let refused = [
        request(command::READ, 0, SIZE - 10, 11),
        request(command::READ, 0, u64::MAX - 3, 8),
        request(command::READ, 0, 0, 0),
        request(command::READ, 0, 0, MAX_READ + 1),
        request(command::READ, 64, 0, 512),
        request(77, 0, 0, 512),
        request(command::BLOCK_STATUS, 0, 0, 512),
    ];
    for bad in refused {
        let good = request(command::READ, 0, 512, 4);
        let (end, reply) = answers(
            &[go("")],
            &[bad, good, request(command::DISCONNECT, 0, 0, 0)],
        );
        assert!(end.is_ok());
        assert_eq!(errno(&reply), 22);
        assert_eq!(reply[8..16], *b"a cookie");
        assert_eq!((errno(&reply[16..]), &reply[32..]), (0, &[1u8; 4][..]));
    }
}

#[test]
fn writes_are_refused_and_their_data_is_passed_over() {
    let mut write = request(command::WRITE, 0, 0, 5000);
    write.extend_from_slice(&[0x25; 5000]);
    let trim = request(command::TRIM, 0, 0, 4096);
    let good = request(command::READ, 0, 0, 1);
    let (_, reply) = answers(&[go("")], &[write, trim, good]);
    assert_eq!(
        (errno(&reply), errno(&reply[16..]), errno(&reply[32..])),
        (1, 1, 0)
    );
    let (end, reply) = answers(&[go("")], &[request(command::WRITE, 0, 0, u32::MAX)]);
    assert!(end.is_err() && reply.is_empty());
}

#[test]
fn long_reads_come_in_pieces_and_holes_as_holes() {
    const FROM: u64 = 600_000; // in a hole
    let read = request(command::READ, 0, FROM, (3 << 20) + 5);
    let (_, reply) = answers(&[go("")], std::slice::from_ref(&read));
    let plain: Vec<u8> = (FROM..FROM + (3 << 20) + 5).map(byte).collect();
    assert!(reply[16..] == plain);

    let (_, mut reply) = answers(&[structured(), go("")], &[read]);
    let (mut there, mut holes) = (vec![0xee; plain.len()], 0);
    let mut done = false;
    while !reply.is_empty() {
        assert!(!done);
        done = reply[5] == 1;
        let len = u32::from_be_bytes(reply[16..20].try_into().unwrap()) as usize;
        let at = u64::from_be_bytes(reply[20..28].try_into().unwrap()) as usize - FROM as usize;
        if reply[7] == 1 {
            assert!(len <= PIECE + 8);
            there[at..at + len - 8].copy_from_slice(&reply[28..20 + len]);
        } else {
            let hole = u32::from_be_bytes(reply[28..32].try_into().unwrap()) as usize;
            there[at..at + hole].fill(0);
            holes += 1;
        }
        reply.drain(..20 + len);
    }
    assert!(done && holes > 0 && there == plain);
}

#[test]
fn an_error_in_the_middle_is_told_or_ends_the_connection() {
    let read = request(command::READ, 0, BAD - 100, 200);
    let (end, reply) = answers(&[go("")], &[read, request(command::DISCONNECT, 0, 0, 0)]);
    assert!(end.is_ok());
    assert_eq!((errno(&reply), reply.len()), (5, 16));
    let read = request(command::READ, 0, BAD, 200);
    let (_, reply) = answers(&[structured(), go("")], &[read]);
    assert_eq!(reply[4..8], [0, 1, 0x80, 1]);
    assert!(reply.ends_with(b"image-damaged: here"));
    // Behind a first piece that was sent as good there is no way to say no.
    let (end, reply) = answers(
        &[go("")],
        &[request(command::READ, 0, BAD - (2 << 20), 3 << 20)],
    );
    assert!(end.is_err());
    assert!(reply.len() < 16 + (3 << 20));
}

#[test]
fn a_partition_begins_at_its_start() {
    let (_, reply) = answers(&[go("2")], &[request(command::READ, 0, 512, 1)]);
    assert_eq!(reply[16], byte((1 << 20) + 512));
    let (_, reply) = answers(&[go("2")], &[request(command::READ, 0, 3 << 20, 1)]);
    assert_eq!(errno(&reply), 22);
    let (end, output) = talk(client(&[go("3"), go("2")]));
    assert!(end.is_err(), "the client left without saying so");
    let unknown = [0x80, 0, 0, 6];
    assert_eq!(output[18 + 12..][..4], unknown);
}

#[test]
fn block_status_is_of_the_export_that_was_asked_for() {
    let context = |name: &str| {
        let mut data = (name.len() as u32).to_be_bytes().to_vec();
        data.extend_from_slice(name.as_bytes());
        data.extend_from_slice(&1u32.to_be_bytes());
        data.extend_from_slice(&15u32.to_be_bytes());
        data.extend_from_slice(b"base:allocation");
        option(proto::option::SET_META_CONTEXT, &data)
    };
    let status = |flags, len| request(command::BLOCK_STATUS, flags, 100, len);
    let asked = [structured(), context("2"), go("2")];
    let (_, reply) = answers(&asked, &[status(0, 1 << 20)]);
    let numbers: Vec<u32> = reply[24..]
        .chunks(4)
        .map(|bytes| u32::from_be_bytes(bytes.try_into().unwrap()))
        .collect();
    let half = 1u32 << 19;
    assert_eq!(numbers, [half - 100, 0, half, 3, 100, 0]);
    let (_, reply) = answers(&asked, &[status(command::ONE_EXTENT, 1 << 20)]);
    assert_eq!(reply.len(), 24 + 8);
    // Chosen for another export, or without structured replies.
    for asked in [
        vec![structured(), context("2"), go("")],
        vec![context("2"), go("2")],
    ] {
        let (_, reply) = answers(&asked, &[status(0, 512)]);
        assert!(reply.windows(4).any(|w| w == 22u32.to_be_bytes()));
    }
}

#[test]
fn handshakes_that_are_none_end_the_connection() {
    let long = [
        option(3, &[])[..12].to_vec(),
        u32::MAX.to_be_bytes().to_vec(),
    ]
    .concat();
    for parts in [
        vec![long],
        vec![b"GET / HTTP/1.1\r\n\r\n".to_vec()],
        vec![option(9999, b""); 300],
    ] {
        let (end, output) = talk(client(&parts));
        assert!(end.is_err());
        assert!(output.len() < 64 << 10);
    }
    assert!(talk(vec![0, 0, 0, 4]).0.is_err());
    assert!(talk(client(&[option(proto::option::ABORT, &[])])).0.is_ok());
    // The oldest way to begin.
    let (_, output) = talk([vec![0, 0, 0, 1], option(proto::option::EXPORT_NAME, b"2")].concat());
    assert_eq!(output.len(), 18 + 10 + 124);
}

proptest! {
    #[test]
    fn any_client_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..600), shake in any::<bool>()) {
        let input = if shake {
            client(&[structured(), go(""), bytes])
        } else {
            client(&[bytes])
        };
        let _ = talk(input);
    }

    #[test]
    fn any_request_is_answered_right(
        list in prop::collection::vec((0u16..9, 0u16..16, 0..SIZE + 1000, 0u32..70_000), 1..6),
        with_structure in any::<bool>(),
    ) {
        let requests: Vec<_> = list
            .iter()
            .filter(|&&(kind, ..)| kind != command::WRITE && kind != command::DISCONNECT)
            .map(|&(kind, flags, offset, len)| request(kind, flags, offset, len))
            .collect();
        let begin = if with_structure { vec![structured(), go("")] } else { vec![go("")] };
        let (_, reply) = answers(&begin, &requests);
        // Every request has at least one reply with its cookie.
        let cookies = reply.windows(8).filter(|w| w == b"a cookie").count();
        prop_assert!(cookies >= requests.len());
    }
}
