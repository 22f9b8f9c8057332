//! The text of a key file: armor, stanzas, the header's bytes.
//!
//! Owns: parsing and writing them. Does not own: what stanzas mean (`wrap`).

use crate::Error;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

const BEGIN: &str = "-----BEGIN AGE ENCRYPTED FILE-----";
const END: &str = "-----END AGE ENCRYPTED FILE-----";
const VERSION: &str = "age-encryption.org/v1";
/// Longest file: a secret for many recipients fits.
const MAX_TEXT: usize = 64 << 10;
/// Columns of a base64 line.
const COLUMNS: usize = 64;

/// One way to open the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stanza {
    pub kind: String,
    pub arguments: Vec<String>,
    pub body: Vec<u8>,
}

/// A file that was taken apart.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub stanzas: Vec<Stanza>,
    /// The bytes that the header's code is over.
    pub header: Vec<u8>,
    pub mac: Vec<u8>,
    /// Nonce and sealed secret.
    pub payload: Vec<u8>,
}

fn no(why: &'static str) -> Error {
    Error::NotAKeyFile(why)
}

/// Header up to and with the three dashes.
pub(crate) fn header(stanzas: &[Stanza]) -> String {
    let mut text = format!("{VERSION}\n");
    for stanza in stanzas {
        text.push_str("-> ");
        text.push_str(&stanza.kind);
        for argument in &stanza.arguments {
            text.push(' ');
            text.push_str(argument);
        }
        text.push('\n');
        text.push_str(&lines(&STANDARD_NO_PAD.encode(&stanza.body)));
        // A last line is always shorter than the others.
        if stanza.body.len() % (COLUMNS / 4 * 3) == 0 {
            text.push('\n');
        }
    }
    text.push_str("---");
    text
}

/// The whole file, armored.
pub(crate) fn armored(header: &str, mac: &[u8], payload: &[u8]) -> String {
    let mut bytes = format!("{header} {}\n", STANDARD_NO_PAD.encode(mac)).into_bytes();
    bytes.extend_from_slice(payload);
    format!("{BEGIN}\n{}{END}\n", lines(&STANDARD.encode(bytes)))
}

fn lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / COLUMNS + 1);
    for (at, c) in text.chars().enumerate() {
        if at > 0 && at % COLUMNS == 0 {
            out.push('\n');
        }
        out.push(c);
    }
    if !text.is_empty() {
        out.push('\n');
    }
    out
}

/// Takes an armored file apart.
pub(crate) fn parse(text: &str) -> Result<Parsed, Error> {
    let text = text.trim();
    if text.len() > MAX_TEXT {
        return Err(no("it is too long"));
    }
    let inner = text
        .strip_prefix(BEGIN)
        .and_then(|rest| rest.strip_suffix(END))
        .ok_or_else(|| no("it is no armored age file"))?;
    let joined: String = inner.lines().map(str::trim).collect();
    let bytes = STANDARD
        .decode(joined)
        .map_err(|_| no("its armor is damaged"))?;

    let mut rest = &bytes[..];
    if line(&mut rest)? != VERSION {
        return Err(no("it is of another version"));
    }
    let mut stanzas: Vec<Stanza> = Vec::new();
    loop {
        let first = line(&mut rest)?;
        if let Some(mac) = first.strip_prefix("--- ") {
            let mac = STANDARD_NO_PAD
                .decode(mac)
                .map_err(|_| no("its header is damaged"))?;
            if stanzas.is_empty() {
                return Err(no("nobody can open it"));
            }
            let length = bytes.len() - rest.len() - (first.len() + 1) + 3;
            return Ok(Parsed {
                stanzas,
                header: bytes.get(..length).unwrap_or_default().to_vec(),
                mac,
                payload: rest.to_vec(),
            });
        }
        let words = first
            .strip_prefix("-> ")
            .ok_or_else(|| no("its header is damaged"))?;
        let mut words = words.split(' ').map(str::to_owned);
        let kind = words.next().unwrap_or_default();
        let arguments = words.collect();
        let mut body = String::new();
        loop {
            let next = line(&mut rest)?;
            body.push_str(next);
            if next.len() < COLUMNS {
                break;
            }
        }
        let body = STANDARD_NO_PAD
            .decode(body)
            .map_err(|_| no("its header is damaged"))?;
        stanzas.push(Stanza {
            kind,
            arguments,
            body,
        });
    }
}

fn line<'a>(rest: &mut &'a [u8]) -> Result<&'a str, Error> {
    let damaged = || no("its header is damaged");
    let end = rest.iter().position(|&b| b == b'\n').ok_or_else(damaged)?;
    let (line, tail) = rest.split_at(end);
    *rest = tail.get(1..).unwrap_or_default();
    std::str::from_utf8(line).map_err(|_| damaged())
}
