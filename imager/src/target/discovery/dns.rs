//! DNS messages, as far as a target asks (RFC 1035; SRV: RFC 2782).
//!
//! Owns: one question, and the addresses and services in what is answered. Total on any
//! bytes: pointers only go back and are counted, names end at 255 bytes. Does not own:
//! sockets ([`super::resolver`]), the order of services ([`super::srv`]).

use std::net::Ipv4Addr;

/// Longest message without extensions; a longer one is not looked at.
pub const MAX_MESSAGE: usize = 4096;
const HEADER_BYTES: usize = 12;
const MAX_NAME: usize = 255;
/// Names have at most 127 labels; each pointer that is followed is one more step.
const MAX_STEPS: usize = 160;
const MAX_RECORDS: usize = 64;
const CLASS_IN: u16 = 1;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Addresses of a host.
    A = 1,
    /// Where a service is.
    Srv = 33,
}

/// Where a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Srv {
    /// Lower ones first.
    pub priority: u16,
    /// Share of the clients among those of one priority.
    pub weight: u16,
    /// TCP port.
    pub port: u16,
    /// Host name without a dot at the end; empty where the service is not offered.
    pub target: String,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// An address.
    A(Ipv4Addr),
    /// A service.
    Srv(Srv),
}

/// Why there is no answer to go on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// Not a message, or not the answer to our question.
    #[error("what was answered is no DNS message")]
    Malformed,
    /// It answers another question; the right one may come yet.
    #[error("something else was answered")]
    Other,
    /// Response code 3.
    #[error("there is no such name")]
    NoName,
    /// The name is there, and has no such record.
    #[error("the name has no such record")]
    NoRecord,
    /// Any other response code.
    #[error("the name server refuses (response code {0})")]
    Refused(u8),
}

/// A question, ready to be sent; `None` if the name is no host name.
pub fn question(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    let mut bytes = id.to_be_bytes().to_vec();
    // Recursion desired; one question.
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.trim_end_matches('.').split('.') {
        let len = u8::try_from(label.len())
            .ok()
            .filter(|len| (1..=63).contains(len))?;
        bytes.push(len);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    if bytes.len() > HEADER_BYTES + MAX_NAME {
        return None;
    }
    bytes.extend((kind as u16).to_be_bytes());
    bytes.extend(CLASS_IN.to_be_bytes());
    Some(bytes)
}

/// The records that answer `question`.
///
/// # Errors
/// Why there are none.
pub fn answer(message: &[u8], question: &[u8]) -> Result<Vec<Record>, NoAnswer> {
    let message = message.get(..message.len().min(MAX_MESSAGE));
    let message = message.ok_or(NoAnswer::Malformed)?;
    let header: &[u8; HEADER_BYTES] = message.first_chunk().ok_or(NoAnswer::Malformed)?;
    let [id0, id1, flags, code, ..] = *header;
    if question.get(..2) != Some(&[id0, id1][..]) {
        return Err(NoAnswer::Other);
    }
    if flags & 0x80 == 0 {
        return Err(NoAnswer::Malformed);
    }
    match code & 15 {
        0 => {}
        3 => return Err(NoAnswer::NoName),
        code => return Err(NoAnswer::Refused(code)),
    }
    let count = |at: usize| usize::from(u16_at(message, at).unwrap_or(0));
    if count(4) != 1 {
        return Err(NoAnswer::Malformed);
    }
    let asked = question.get(HEADER_BYTES..).ok_or(NoAnswer::Malformed)?;
    let repeated = message
        .get(HEADER_BYTES..)
        .and_then(|rest| rest.get(..asked.len()));
    // Type and class are digits of no letter, so the comparison holds for them, too.
    if !repeated.is_some_and(|repeated| repeated.eq_ignore_ascii_case(asked)) {
        return Err(NoAnswer::Other);
    }
    let mut at = HEADER_BYTES + asked.len();
    let mut records = Vec::new();
    for _ in 0..count(6).min(MAX_RECORDS) {
        // A record that cannot be read ends the list: what stood before it is good.
        let Some((record, next)) = record(message, at) else {
            break;
        };
        records.extend(record);
        at = next;
    }
    let wanted = u16_at(asked, asked.len().saturating_sub(4));
    records.retain(|record| wanted == Some(record.kind() as u16));
    if records.is_empty() {
        Err(NoAnswer::NoRecord)
    } else {
        Ok(records)
    }
}

impl Record {
    fn kind(&self) -> Kind {
        match self {
            Record::A(_) => Kind::A,
            Record::Srv(_) => Kind::Srv,
        }
    }
}

/// The record at a place, if it is of a kind that we know, and where the next one stands.
/// Whose it is does not matter: an alias's name stands before the address.
fn record(message: &[u8], at: usize) -> Option<(Option<Record>, usize)> {
    let (_, at) = name(message, at)?;
    let kind = u16_at(message, at)?;
    let class = u16_at(message, at.checked_add(2)?)?;
    let len = usize::from(u16_at(message, at.checked_add(8)?)?);
    let data = at.checked_add(10)?;
    let next = data.checked_add(len)?;
    let bytes = message.get(data..next)?;
    let record = match (kind, class) {
        (1, CLASS_IN) => <[u8; 4]>::try_from(bytes)
            .ok()
            .map(|octets| Record::A(Ipv4Addr::from(octets))),
        (33, CLASS_IN) => srv(message, data, next),
        _ => None,
    };
    Some((record, next))
}

fn srv(message: &[u8], data: usize, end: usize) -> Option<Record> {
    let (target, after) = name(message, data.checked_add(6)?)?;
    (after <= end).then_some(())?;
    Some(Record::Srv(Srv {
        priority: u16_at(message, data)?,
        weight: u16_at(message, data.checked_add(2)?)?,
        port: u16_at(message, data.checked_add(4)?)?,
        target,
    }))
}

/// A name, possibly compressed (RFC 1035, 4.1.4), and what stands after it. `None` for one
/// that runs on or has letters that no host name has.
fn name(message: &[u8], start: usize) -> Option<(String, usize)> {
    let mut at = start;
    let mut end = None;
    let mut text = String::new();
    for _ in 0..MAX_STEPS {
        let len = *message.get(at)?;
        match len {
            0 => return Some((text, end.unwrap_or(at.checked_add(1)?))),
            1..=63 => {
                let from = at.checked_add(1)?;
                let label = message.get(from..from.checked_add(usize::from(len))?)?;
                let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_".contains(b);
                if !label.iter().all(plain) || text.len() + label.len() >= MAX_NAME {
                    return None;
                }
                if !text.is_empty() {
                    text.push('.');
                }
                text.extend(label.iter().map(|b| char::from(*b).to_ascii_lowercase()));
                at = from.checked_add(usize::from(len))?;
            }
            0xc0.. => {
                let to = usize::from(u16_at(message, at)? & 0x3fff);
                end = end.or(at.checked_add(2));
                // Only backwards: then no chain of pointers is endless.
                at = Some(to).filter(|to| *to < at)?;
            }
            _ => return None,
        }
    }
    None
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at.checked_add(2)?)?;
    pair.try_into().ok().map(u16::from_be_bytes)
}

#[cfg(test)]
#[path = "dns_tests.rs"]
mod tests;
