//! The packets: their bytes, made and read.
//!
//! Owns: the form of every packet (`docs/reference/multicast.md`). Does not own: what is
//! done about them.
//!
//! All numbers are little endian. Every packet begins with `DM`, the version, the kind and
//! the session's number, and ends with a tag of 16 bytes over all bytes before it
//! ([`crate::key`]). What has another length than its kind asks for is no packet.

use crate::key::{PacketKey, TAG_LEN};
use crate::plan::{MAX_SYMBOL_LEN, MIN_SYMBOL_LEN, PARITY_SYMBOLS, SOURCE_SYMBOLS};

/// Version of the packets.
pub const VERSION: u8 = 1;
/// Longest packet in bytes: 1500 without the headers of IPv6 and UDP.
pub const MAX_PACKET_LEN: usize = 1452;
/// Bytes that DATA has besides its symbol.
pub const DATA_OVERHEAD: usize = DATA_HEADER + TAG_LEN;
/// Most entries of one REPORT.
pub const MAX_NEEDS: usize = 128;
/// Most receivers that one ANNOUNCE tells to leave.
pub const MAX_DISMISSED: usize = 64;

const MAGIC: &[u8; 2] = b"DM";
const COMMON: usize = 8;
const DATA_HEADER: usize = 28;
const ANNOUNCE_LEN: usize = 52;
const REPORT_LEN: usize = 52;
const LEAVE_LEN: usize = 16;

/// Kinds of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A symbol of a block, from the sender.
    Data = 1,
    /// The state of the session, from the sender.
    Announce = 2,
    /// What a receiver has and needs.
    Report = 3,
    /// A receiver takes no more.
    Leave = 4,
}

/// A symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data<'a> {
    /// Number of its block.
    pub block: u32,
    /// The record of which the block's first byte is.
    pub record: u32,
    /// The place of that byte in the record.
    pub offset: u32,
    /// Bytes of the block, without those that fill up its last symbol.
    pub len: u32,
    /// 0 to `source` - 1: that source symbol; from `source` on: parity.
    pub symbol: u16,
    /// Source symbols of the block.
    pub source: u16,
    /// The symbol's bytes.
    pub payload: &'a [u8],
}

/// What a session is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// For receivers to come.
    Waiting = 0,
    /// Blocks go out.
    Sending = 1,
    /// Everything was sent; reports decide what is sent again.
    Settling = 2,
    /// Over: nothing more comes.
    Ended = 3,
}

/// State of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    /// Counts announcements, so that an old one is known as such.
    pub number: u32,
    /// What the session is doing.
    pub state: SessionState,
    /// DATA packets sent so far.
    pub sent: u64,
    /// Blocks below this number were sent at least once.
    pub frontier: u32,
    /// Blocks of the session.
    pub blocks: u32,
    /// The rate at present, in 1000 bytes of packets a second.
    pub rate: u32,
    /// How often the session goes through its blocks: 1 the first time.
    pub pass: u16,
    /// Number of the round of reports.
    pub poll: u32,
    /// Time since that round began, in microseconds.
    pub elapsed: u32,
    /// Time over which the reports of the round are spread, in microseconds.
    pub period: u32,
    /// Slots of the round; a receiver's is its number.
    pub slots: u16,
    /// Receivers that are to leave, and why.
    pub dismissed: Vec<(u16, Reason)>,
}

/// Why a receiver leaves, or is told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It has everything that it wants.
    Done = 0,
    /// Its disk takes less than the others', and it would hold them.
    Slow = 1,
    /// Its network loses far more than the others'.
    Lossy = 2,
    /// Nothing arrived although the sender sends.
    Silent = 3,
    /// Nothing was heard of it.
    Vanished = 4,
    /// It was stopped, or it failed.
    Stopped = 5,
}

/// What a receiver is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiverState {
    /// It takes what comes.
    Receiving = 0,
    /// What it has in memory waits for the disk; it throws away what comes.
    Slow = 1,
    /// It has everything that it wants.
    Done = 2,
}

/// Blocks of which a receiver needs symbols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// The first of them.
    pub block: u32,
    /// How many, one after another; at least 1.
    pub count: u16,
    /// Symbols that each lacks; at least 1.
    pub symbols: u16,
}

/// What a receiver tells the sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its number.
    pub receiver: u16,
    /// What it is doing.
    pub state: ReceiverState,
    /// Counts its reports, so that an old one is known as such.
    pub sequence: u32,
    /// The round that it answers.
    pub poll: u32,
    /// `sent` of the newest announcement that it knows.
    pub announced: u64,
    /// DATA packets that came until then.
    pub seen: u64,
    /// Those of them that were thrown away because the disk is behind, a total of 32 bits
    /// that wraps around.
    pub refused: u32,
    /// Wanted blocks that it has.
    pub done: u32,
    /// Blocks that it wants.
    pub wanted: u32,
    /// What it lacks of what was sent until then; the most urgent first, perhaps not all.
    pub needs: Vec<Need>,
}

/// A packet of the sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Down<'a> {
    /// A symbol.
    Data(Data<'a>),
    /// The state of the session.
    Announce(Announce),
}

/// A packet of a receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Up {
    /// What it has and needs.
    Report(Report),
    /// It takes no more.
    Leave {
        /// Its number.
        receiver: u16,
        /// Why.
        reason: Reason,
        /// Counts its packets together with its reports.
        sequence: u32,
    },
}

/// Kind, session and, of a packet to the sender, receiver: what can be told without a key.
#[must_use]
pub fn peek(packet: &[u8]) -> Option<(Kind, u32, u16)> {
    let mut at = Reader(packet);
    if at.take(2)? != MAGIC || at.u8()? != VERSION || packet.len() > MAX_PACKET_LEN {
        return None;
    }
    let kind = match at.u8()? {
        1 => Kind::Data,
        2 => Kind::Announce,
        3 => Kind::Report,
        4 => Kind::Leave,
        _ => return None,
    };
    Some((kind, at.u32()?, at.u16()?))
}

impl Data<'_> {
    /// Appends the packet.
    pub fn encode(&self, session: u32, key: &PacketKey, out: &mut Vec<u8>) {
        let start = common(Kind::Data, session, out);
        for number in [self.block, self.record, self.offset, self.len] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.symbol.to_le_bytes());
        out.extend_from_slice(&self.source.to_le_bytes());
        out.extend_from_slice(self.payload);
        key.seal(out, start);
    }
}

impl Announce {
    /// Appends the packet; of those to leave, the first [`MAX_DISMISSED`].
    pub fn encode(&self, session: u32, key: &PacketKey, out: &mut Vec<u8>) {
        let start = common(Kind::Announce, session, out);
        out.extend_from_slice(&self.sent.to_le_bytes());
        for number in [
            self.number,
            self.frontier,
            self.blocks,
            self.rate,
            self.poll,
            self.elapsed,
            self.period,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.pass.to_le_bytes());
        out.extend_from_slice(&self.slots.to_le_bytes());
        out.extend_from_slice(&[self.state as u8, 0, 0]);
        let dismissed = self
            .dismissed
            .get(..MAX_DISMISSED)
            .unwrap_or(&self.dismissed);
        out.push(dismissed.len() as u8);
        for (receiver, reason) in dismissed {
            out.extend_from_slice(&receiver.to_le_bytes());
            out.extend_from_slice(&[*reason as u8, 0]);
        }
        key.seal(out, start);
    }
}

impl Report {
    /// Appends the packet; of the needs, the first [`MAX_NEEDS`].
    pub fn encode(&self, session: u32, key: &PacketKey, out: &mut Vec<u8>) {
        let start = common(Kind::Report, session, out);
        let needs = self.needs.get(..MAX_NEEDS).unwrap_or(&self.needs);
        out.extend_from_slice(&self.receiver.to_le_bytes());
        out.extend_from_slice(&[self.state as u8, needs.len() as u8]);
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&self.poll.to_le_bytes());
        out.extend_from_slice(&self.refused.to_le_bytes());
        out.extend_from_slice(&self.announced.to_le_bytes());
        out.extend_from_slice(&self.seen.to_le_bytes());
        out.extend_from_slice(&self.done.to_le_bytes());
        out.extend_from_slice(&self.wanted.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        for need in needs {
            out.extend_from_slice(&need.block.to_le_bytes());
            out.extend_from_slice(&need.count.to_le_bytes());
            out.extend_from_slice(&need.symbols.to_le_bytes());
        }
        key.seal(out, start);
    }
}

/// Appends a LEAVE packet.
pub fn encode_leave(
    receiver: u16,
    reason: Reason,
    sequence: u32,
    session: u32,
    key: &PacketKey,
    out: &mut Vec<u8>,
) {
    let start = common(Kind::Leave, session, out);
    out.extend_from_slice(&receiver.to_le_bytes());
    out.extend_from_slice(&[reason as u8, 0]);
    out.extend_from_slice(&sequence.to_le_bytes());
    key.seal(out, start);
}

/// Reads a packet of the sender; `None` for everything else, the packets of other sessions
/// and those with a wrong tag among it.
#[must_use]
pub fn decode_down<'a>(packet: &'a [u8], session: u32, key: &PacketKey) -> Option<Down<'a>> {
    let (kind, of, _) = peek(packet)?;
    if of != session {
        return None;
    }
    match kind {
        Kind::Data => {
            let len = packet.len().checked_sub(DATA_OVERHEAD)?;
            let known = usize::from(MIN_SYMBOL_LEN)..=usize::from(MAX_SYMBOL_LEN);
            if !known.contains(&len) {
                return None;
            }
            data(key.open(packet)?).map(Down::Data)
        }
        Kind::Announce => announce(key.open(packet)?).map(Down::Announce),
        Kind::Report | Kind::Leave => None,
    }
}

/// Reads a packet of a receiver; `None` for everything else, the packets of other sessions
/// and those with a wrong tag among it.
#[must_use]
pub fn decode_up(packet: &[u8], session: u32, key: &PacketKey) -> Option<Up> {
    let (kind, of, receiver) = peek(packet)?;
    let length = packet.len().checked_sub(TAG_LEN)?;
    if of != session {
        return None;
    }
    match kind {
        Kind::Report if length >= REPORT_LEN => report(key.open(packet)?).map(Up::Report),
        Kind::Leave if length == LEAVE_LEN => {
            let mut at = Reader(key.open(packet)?.get(COMMON + 2..)?);
            let reason = reason(at.u8()?)?;
            let spare = at.u8()?;
            let sequence = at.u32()?;
            (spare == 0).then_some(Up::Leave {
                receiver,
                reason,
                sequence,
            })
        }
        _ => None,
    }
}

fn common(kind: Kind, session: u32, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[VERSION, kind as u8]);
    out.extend_from_slice(&session.to_le_bytes());
    start
}

fn data(body: &[u8]) -> Option<Data<'_>> {
    let mut at = Reader(body.get(COMMON..)?);
    let data = Data {
        block: at.u32()?,
        record: at.u32()?,
        offset: at.u32()?,
        len: at.u32()?,
        symbol: at.u16()?,
        source: at.u16()?,
        payload: at.0,
    };
    let symbols = u32::from(data.symbol);
    let possible = (1..=SOURCE_SYMBOLS).contains(&data.source)
        && symbols < u32::from(data.source) + u32::from(PARITY_SYMBOLS)
        && data.len > 0
        && (data.len as usize).div_ceil(data.payload.len()) == usize::from(data.source);
    possible.then_some(data)
}

fn announce(body: &[u8]) -> Option<Announce> {
    let mut at = Reader(body.get(COMMON..)?);
    let mut announce = Announce {
        sent: at.u64()?,
        number: at.u32()?,
        frontier: at.u32()?,
        blocks: at.u32()?,
        rate: at.u32()?,
        poll: at.u32()?,
        elapsed: at.u32()?,
        period: at.u32()?,
        pass: at.u16()?,
        slots: at.u16()?,
        state: match at.u8()? {
            0 => SessionState::Waiting,
            1 => SessionState::Sending,
            2 => SessionState::Settling,
            3 => SessionState::Ended,
            _ => return None,
        },
        dismissed: Vec::new(),
    };
    let spare = at.u16()?;
    let count = usize::from(at.u8()?);
    if spare != 0
        || count > MAX_DISMISSED
        || at.0.len() != count * 4
        || announce.frontier > announce.blocks
    {
        return None;
    }
    for _ in 0..count {
        announce.dismissed.push((at.u16()?, reason(at.u8()?)?));
        if at.u8()? != 0 {
            return None;
        }
    }
    Some(announce)
}

fn report(body: &[u8]) -> Option<Report> {
    let mut at = Reader(body.get(COMMON..)?);
    let receiver = at.u16()?;
    let state = match at.u8()? {
        0 => ReceiverState::Receiving,
        1 => ReceiverState::Slow,
        2 => ReceiverState::Done,
        _ => return None,
    };
    let count = usize::from(at.u8()?);
    let mut report = Report {
        receiver,
        state,
        sequence: at.u32()?,
        poll: at.u32()?,
        refused: at.u32()?,
        announced: at.u64()?,
        seen: at.u64()?,
        done: at.u32()?,
        wanted: at.u32()?,
        needs: Vec::new(),
    };
    if at.u32()? != 0 || count > MAX_NEEDS || at.0.len() != count * 8 {
        return None;
    }
    for _ in 0..count {
        let need = Need {
            block: at.u32()?,
            count: at.u16()?,
            symbols: at.u16()?,
        };
        if need.count == 0 || !(1..=SOURCE_SYMBOLS).contains(&need.symbols) {
            return None;
        }
        report.needs.push(need);
    }
    Some(report)
}

fn reason(byte: u8) -> Option<Reason> {
    Some(match byte {
        0 => Reason::Done,
        1 => Reason::Slow,
        2 => Reason::Lossy,
        3 => Reason::Silent,
        4 => Reason::Vanished,
        5 => Reason::Stopped,
        _ => return None,
    })
}

/// Takes numbers from the front of bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }
}

// ANNOUNCE and REPORT with the most entries are packets, too.
const _: () = assert!(ANNOUNCE_LEN + MAX_DISMISSED * 4 + TAG_LEN <= MAX_PACKET_LEN);
const _: () = assert!(REPORT_LEN + MAX_NEEDS * 8 + TAG_LEN <= MAX_PACKET_LEN);
const _: () = assert!(MAX_SYMBOL_LEN as usize + DATA_OVERHEAD <= MAX_PACKET_LEN);

#[cfg(test)]
#[path = "packet_tests.rs"]
mod tests;
