//! A small TFTP client that can lose packets, for the tests of network boot.
//!
//! Owns: the client's side of RFC 1350, 2347 and 7440, written apart from the server.
//! Does not own: the codec, which has golden tests of its own.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use server::netboot::tftp::packet::{Packet, Request};

/// A client's wait before it repeats its last packet. Shorter than the server's first
/// wait, so both sides' repetitions happen in tests.
const REPEAT: Duration = Duration::from_millis(300);
/// Repetitions in a row before a test fails.
const PATIENCE: u32 = 40;

/// What was fetched.
#[derive(Debug)]
pub struct Fetched {
    pub bytes: Vec<u8>,
    /// Options that the server acknowledged.
    pub options: Vec<(String, String)>,
}

/// Fetches a file. `lose(n)` says whether the n-th packet from the server is lost.
/// An error of the server comes as its code and text.
pub fn fetch(
    server: SocketAddr,
    file: &str,
    options: &[(&str, &str)],
    mut lose: impl FnMut(u64) -> bool,
) -> Result<Fetched, (u16, String)> {
    let socket = UdpSocket::bind(if server.ip().is_loopback() {
        "127.0.0.1:0"
    } else {
        "0.0.0.0:0"
    })
    .unwrap();
    socket.set_read_timeout(Some(REPEAT)).unwrap();
    let options: Vec<_> = options
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect();
    let request = Request {
        file: file.to_owned(),
        mode: "octet".to_owned(),
        options,
    };
    let mut last_sent = (Packet::Read(request).encode(), server);
    socket.send_to(&last_sent.0, last_sent.1).unwrap();

    let (mut block_size, mut window) = (512, 1);
    let mut fetched = Fetched {
        bytes: Vec::new(),
        options: Vec::new(),
    };
    let (mut arrived, mut unacknowledged, mut number, mut silent) = (0u64, 0u64, 0u64, 0);
    let mut peer = None;
    let mut buffer = vec![0; 70_000];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else {
            silent += 1;
            assert!(silent < PATIENCE, "the server does not answer");
            socket.send_to(&last_sent.0, last_sent.1).unwrap();
            continue;
        };
        silent = 0;
        number += 1;
        let packet = Packet::decode(&buffer[..length]).unwrap();
        let lost = lose(number);
        if lost {
            continue;
        }
        if *peer.get_or_insert(from) != from {
            continue;
        }
        let mut acknowledge = None;
        match packet {
            Packet::OptionAck(accepted) => {
                for (name, value) in &accepted {
                    match name.as_str() {
                        "blksize" => block_size = value.parse().unwrap(),
                        "windowsize" => window = value.parse().unwrap(),
                        _ => {}
                    }
                }
                fetched.options = accepted;
                acknowledge = Some(0);
            }
            Packet::Data { block, bytes } if block == ((arrived + 1) % 65_536) as u16 => {
                arrived += 1;
                unacknowledged += 1;
                let last = bytes.len() < block_size;
                fetched.bytes.extend(bytes);
                if last || unacknowledged == window {
                    acknowledge = Some(arrived);
                }
                if last {
                    socket
                        .send_to(
                            &Packet::Ack {
                                block: (arrived % 65_536) as u16,
                            }
                            .encode(),
                            from,
                        )
                        .unwrap();
                    return Ok(fetched);
                }
            }
            // A gap or a repetition: say where we are, as real clients do.
            Packet::Data { .. } => acknowledge = Some(arrived),
            Packet::Error { code, message } => return Err((code.0, message)),
            other => panic!("a server does not send {other:?}"),
        }
        if let Some(block) = acknowledge {
            unacknowledged = 0;
            last_sent = (
                Packet::Ack {
                    block: (block % 65_536) as u16,
                }
                .encode(),
                from,
            );
            socket.send_to(&last_sent.0, last_sent.1).unwrap();
        }
    }
}
