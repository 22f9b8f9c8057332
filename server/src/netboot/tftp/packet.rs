//! TFTP packets (RFC 1350 section 5, RFC 2347).
//!
//! Owns: bytes to packets and back, total on any input. Does not own: their order.

/// Largest packet that is read: data of the largest block that RFC 2348 allows.
pub const MAX_PACKET: usize = 65_468;
/// Longest request that is read; real ones have below 200 bytes.
pub const MAX_REQUEST: usize = 1_024;

/// Error codes (RFC 1350, RFC 2347).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCode(pub u16);

impl ErrorCode {
    /// See the message.
    pub const OTHER: ErrorCode = ErrorCode(0);
    /// There is no such file.
    pub const NOT_FOUND: ErrorCode = ErrorCode(1);
    /// It is not allowed.
    pub const ACCESS: ErrorCode = ErrorCode(2);
    /// The packet makes no sense.
    pub const ILLEGAL: ErrorCode = ErrorCode(4);
    /// The options are not accepted; clients that only ask for the size say so too.
    pub const OPTIONS: ErrorCode = ErrorCode(8);
}

/// A read or write request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Name of the file as it came.
    pub file: String,
    /// `octet`, `netascii`, ... as it came.
    pub mode: String,
    /// Options in order, as they came.
    pub options: Vec<(String, String)>,
}

/// A packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// The client wants to read.
    Read(Request),
    /// The client wants to write.
    Write(Request),
    /// One block; shorter than the block size = the last.
    Data {
        /// Its number modulo 65536; the first is 1.
        block: u16,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// Everything up to this block has arrived.
    Ack {
        /// The block's number modulo 65536.
        block: u16,
    },
    /// The transfer ends.
    Error {
        /// Why.
        code: ErrorCode,
        /// For people.
        message: String,
    },
    /// The options that the server accepts.
    OptionAck(Vec<(String, String)>),
}

/// Why bytes are no TFTP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Fewer bytes than its kind has.
    #[error("the packet is cut")]
    Cut,
    /// No such kind.
    #[error("there is no kind of packet with number {0}")]
    Kind(u16),
    /// A text without its zero, or not UTF-8.
    #[error("a text in the packet is damaged")]
    Text,
    /// A data packet above the largest block size.
    #[error("the packet is too long")]
    TooLong,
}

impl Packet {
    /// Reads a packet.
    ///
    /// # Errors
    /// [`Malformed`] says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Packet, Malformed> {
        if bytes.len() > MAX_PACKET {
            return Err(Malformed::TooLong);
        }
        let (kind, rest) = number(bytes)?;
        match kind {
            1 => Ok(Packet::Read(request(rest)?)),
            2 => Ok(Packet::Write(request(rest)?)),
            3 => number(rest).map(|(block, bytes)| Packet::Data {
                block,
                bytes: bytes.to_vec(),
            }),
            4 => number(rest).map(|(block, _)| Packet::Ack { block }),
            5 => {
                let (code, rest) = number(rest)?;
                // Some clients leave out the message's zero: it ends the transfer anyway.
                let message = rest.split(|byte| *byte == 0).next().unwrap_or_default();
                let message = String::from_utf8_lossy(message).into_owned();
                Ok(Packet::Error {
                    code: ErrorCode(code),
                    message,
                })
            }
            6 => Ok(Packet::OptionAck(pairs(rest)?)),
            other => Err(Malformed::Kind(other)),
        }
    }

    /// Writes the packet. Texts must not hold a zero byte; what follows one is lost.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Packet::Read(request) => encode_request(1, request),
            Packet::Write(request) => encode_request(2, request),
            Packet::Data { block, bytes } => {
                let mut packet = [3u16.to_be_bytes(), block.to_be_bytes()].concat();
                packet.extend(bytes);
                packet
            }
            Packet::Ack { block } => [4u16.to_be_bytes(), block.to_be_bytes()].concat(),
            Packet::Error { code, message } => {
                let mut packet = [5u16.to_be_bytes(), code.0.to_be_bytes()].concat();
                put_text(message, &mut packet);
                packet
            }
            Packet::OptionAck(options) => {
                let mut packet = 6u16.to_be_bytes().to_vec();
                put_pairs(options, &mut packet);
                packet
            }
        }
    }

    /// An error packet.
    pub fn error(code: ErrorCode, message: &str) -> Packet {
        Packet::Error {
            code,
            message: message.to_owned(),
        }
    }
}

fn number(bytes: &[u8]) -> Result<(u16, &[u8]), Malformed> {
    let (head, rest) = bytes.split_first_chunk::<2>().ok_or(Malformed::Cut)?;
    Ok((u16::from_be_bytes(*head), rest))
}

fn text(bytes: &[u8]) -> Result<(String, &[u8]), Malformed> {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .ok_or(Malformed::Text)?;
    let (text, rest) = bytes.split_at(end);
    let text = std::str::from_utf8(text).map_err(|_| Malformed::Text)?;
    Ok((text.to_owned(), rest.get(1..).unwrap_or_default()))
}

fn request(bytes: &[u8]) -> Result<Request, Malformed> {
    let (file, rest) = text(bytes)?;
    let (mode, rest) = text(rest)?;
    Ok(Request {
        file,
        mode,
        options: pairs(rest)?,
    })
}

fn pairs(bytes: &[u8]) -> Result<Vec<(String, String)>, Malformed> {
    let mut options = Vec::new();
    let mut rest = bytes;
    // Zeros at the end are padding of some firmware, no options.
    while rest.iter().any(|byte| *byte != 0) {
        let (name, after) = text(rest)?;
        let (value, after) = text(after)?;
        options.push((name, value));
        rest = after;
    }
    Ok(options)
}

fn encode_request(kind: u16, request: &Request) -> Vec<u8> {
    let mut packet = kind.to_be_bytes().to_vec();
    put_text(&request.file, &mut packet);
    put_text(&request.mode, &mut packet);
    put_pairs(&request.options, &mut packet);
    packet
}

fn put_pairs(options: &[(String, String)], packet: &mut Vec<u8>) {
    for (name, value) in options {
        put_text(name, packet);
        put_text(value, packet);
    }
}

fn put_text(text: &str, packet: &mut Vec<u8>) {
    packet.extend(text.bytes().take_while(|byte| *byte != 0));
    packet.push(0);
}

#[cfg(test)]
mod tests {
    use super::{ErrorCode, Malformed, Packet, Request};
    use proptest::collection::vec;
    use proptest::prelude::{Strategy, any, prop_assert_eq, prop_oneof, proptest};

    #[test]
    fn packets_look_as_in_the_rfcs() {
        let request = Packet::Read(Request {
            file: "undionly.kpxe".to_owned(),
            mode: "octet".to_owned(),
            options: vec![("tsize".to_owned(), "0".to_owned())],
        });
        assert_eq!(
            request.encode(),
            b"\0\x01undionly.kpxe\0octet\0tsize\x000\0"
        );
        assert_eq!(
            Packet::Data {
                block: 258,
                bytes: b"ab".to_vec()
            }
            .encode(),
            b"\0\x03\x01\x02ab"
        );
        assert_eq!(Packet::Ack { block: 0xfffe }.encode(), b"\0\x04\xff\xfe");
        assert_eq!(
            Packet::error(ErrorCode::NOT_FOUND, "no").encode(),
            b"\0\x05\0\x01no\0"
        );
        let options = vec![("blksize".to_owned(), "1468".to_owned())];
        assert_eq!(
            Packet::OptionAck(options).encode(),
            b"\0\x06blksize\x001468\0"
        );
    }

    #[test]
    fn damaged_packets_are_told() {
        for (bytes, why) in [
            (&b""[..], Malformed::Cut),
            (b"\0", Malformed::Cut),
            (b"\0\x04\0", Malformed::Cut),
            (b"\0\x07abc", Malformed::Kind(7)),
            (b"\0\x01file", Malformed::Text),
            (b"\0\x01file\0octet", Malformed::Text),
            (b"\0\x01file\0octet\0tsize\0", Malformed::Text),
            (b"\0\x01\xff\xfe\0octet\0", Malformed::Text),
            (&[0; 70_000], Malformed::TooLong),
        ] {
            assert_eq!(
                Packet::decode(bytes),
                Err(why),
                "{:?}",
                &bytes[..bytes.len().min(20)]
            );
        }
    }

    #[test]
    fn padding_and_missing_zeros_of_real_clients_pass() {
        let padded = Packet::decode(b"\0\x01f\0octet\0\0\0\0").unwrap();
        assert!(matches!(padded, Packet::Read(Request { options, .. }) if options.is_empty()));
        let error = Packet::decode(b"\0\x05\0\x08aborted").unwrap();
        assert_eq!(error, Packet::error(ErrorCode::OPTIONS, "aborted"));
    }

    fn texts() -> impl Strategy<Value = String> {
        "[^\0]{1,12}"
    }

    fn packets() -> impl Strategy<Value = Packet> {
        let request = || {
            (texts(), texts(), vec((texts(), texts()), 0..4)).prop_map(|(file, mode, options)| {
                Request {
                    file,
                    mode,
                    options,
                }
            })
        };
        prop_oneof![
            request().prop_map(Packet::Read),
            request().prop_map(Packet::Write),
            (any::<u16>(), vec(any::<u8>(), 0..100))
                .prop_map(|(block, bytes)| Packet::Data { block, bytes }),
            any::<u16>().prop_map(|block| Packet::Ack { block }),
            (any::<u16>(), texts()).prop_map(|(code, message)| Packet::Error {
                code: ErrorCode(code),
                message
            }),
            vec((texts(), texts()), 0..4).prop_map(Packet::OptionAck),
        ]
    }

    proptest! {
        #[test]
        fn decoding_what_was_encoded_gives_the_same(packet in packets()) {
            prop_assert_eq!(Packet::decode(&packet.encode()), Ok(packet));
        }

        #[test]
        fn any_bytes_are_read_or_refused(kind in 0..8u8, bytes in vec(any::<u8>(), 0..200)) {
            let _ = Packet::decode(&bytes);
            let _ = Packet::decode(&[&[0, kind], bytes.as_slice()].concat());
        }
    }
}
