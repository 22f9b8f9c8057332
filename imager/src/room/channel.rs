//! The control connection of a room: frames that only the two ends can read or make.
//!
//! Owns: the handshake by the room's code, and frames. Does not own: what they say.
//!
//! The receiver begins: `DMCR`, version, its message of the exchange; the sender answers
//! with its own; then come the receiver's proof and the sender's. From then on each frame is
//! its length (u32, little endian), and so many bytes: ChaCha20-Poly1305 with the key of the
//! direction and the frame's number as nonce.

use super::code::{End, Exchange, Keys, MESSAGE_LEN, PROOF_LEN, RoomCode};
use chacha20poly1305::aead::Aead;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use socket2::{SockRef, TcpKeepalive};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const MAGIC: &[u8; 4] = b"DMCR";
const VERSION: u8 = 1;
const TAG: usize = 16;
/// Longest frame: a record with what belongs to it.
pub const MAX_FRAME: usize = (4 << 20) + 65_536;
/// Time in which the other end has to answer during the handshake.
const HANDSHAKE: Duration = Duration::from_secs(20);
/// How long a read waits before it looks whether it should stop.
const TICK: Duration = Duration::from_millis(200);
/// Time that the other end may take nothing of what is sent.
const STALLED: Duration = Duration::from_secs(60);

/// Why a connection did not come about.
#[derive(Debug)]
pub enum Refused {
    /// The other end has another code.
    Code,
    /// It is not one of ours, or of another version.
    Foreign,
    /// The connection broke.
    Io(io::Error),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Refused::Io(error)
    }
}

/// A connection after the handshake.
pub struct Channel {
    stream: TcpStream,
    seal: ChaCha20Poly1305,
    open: ChaCha20Poly1305,
    sent: u64,
    received: u64,
}

impl Channel {
    /// The receiver's side of the handshake.
    pub fn connect(stream: TcpStream, code: &RoomCode) -> Result<Self, Refused> {
        prepare(&stream)?;
        let (exchange, message) = Exchange::begin(code, End::Receiver);
        let mut hello = MAGIC.to_vec();
        hello.push(VERSION);
        hello.extend_from_slice(&message);
        (&stream).write_all(&hello)?;
        let mut answer = [0; MESSAGE_LEN];
        read(&stream, &mut answer, HANDSHAKE, &|| false)?;
        let keys = exchange.finish(&answer).ok_or(Refused::Foreign)?;
        (&stream).write_all(&keys.proof)?;
        let mut proof = [0; PROOF_LEN];
        match read(&stream, &mut proof, HANDSHAKE, &|| false) {
            Ok(()) if keys.accepts(&proof) => Ok(Channel::new(stream, &keys)),
            // A sender hangs up on a wrong proof.
            Ok(()) => Err(Refused::Code),
            Err(error) if is_end(&error) => Err(Refused::Code),
            Err(error) => Err(Refused::Io(error)),
        }
    }

    /// The sender's side of the handshake.
    pub fn accept(stream: TcpStream, code: &RoomCode) -> Result<Self, Refused> {
        prepare(&stream)?;
        let mut hello = [0; MAGIC.len() + 1 + MESSAGE_LEN];
        read(&stream, &mut hello, HANDSHAKE, &|| false)?;
        let Some(message) = hello
            .strip_prefix(MAGIC)
            .and_then(|h| h.strip_prefix(&[VERSION]))
        else {
            return Err(Refused::Foreign);
        };
        let (exchange, answer) = Exchange::begin(code, End::Sender);
        let keys = exchange.finish(message).ok_or(Refused::Foreign)?;
        (&stream).write_all(&answer)?;
        let mut proof = [0; PROOF_LEN];
        read(&stream, &mut proof, HANDSHAKE, &|| false)?;
        if !keys.accepts(&proof) {
            return Err(Refused::Code);
        }
        (&stream).write_all(&keys.proof)?;
        Ok(Channel::new(stream, &keys))
    }

    fn new(stream: TcpStream, keys: &Keys) -> Self {
        Channel {
            stream,
            seal: ChaCha20Poly1305::new(&keys.ours.into()),
            open: ChaCha20Poly1305::new(&keys.theirs.into()),
            sent: 0,
            received: 0,
        }
    }

    /// Sends a frame.
    pub fn send(&mut self, plain: &[u8]) -> io::Result<()> {
        let sealed = self
            .seal
            .encrypt(&nonce(self.sent), plain)
            .map_err(|_| io::Error::other("a frame that is too long"))?;
        self.sent += 1;
        let length = u32::try_from(sealed.len()).map_err(io::Error::other)?;
        let mut stream = &self.stream;
        stream.write_all(&length.to_le_bytes())?;
        stream.write_all(&sealed)
    }

    /// The next frame, for which is waited for so long, or until `stop`.
    ///
    /// # Errors
    /// `TimedOut`, `Interrupted`, `UnexpectedEof`; `InvalidData` for what the other end did
    /// not make.
    pub fn receive(&mut self, patience: Duration, stop: &dyn Fn() -> bool) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        read(&self.stream, &mut length, patience, stop)?;
        let length = u32::from_le_bytes(length) as usize;
        if !(TAG..=MAX_FRAME + TAG).contains(&length) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a frame's length",
            ));
        }
        let mut sealed = vec![0; length];
        read(&self.stream, &mut sealed, STALLED, stop)?;
        let plain = self.open.decrypt(&nonce(self.received), &sealed[..]);
        self.received += 1;
        plain.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a frame was changed"))
    }

    /// Whether the other end has hung up, as far as is known.
    pub fn is_closed(&self) -> bool {
        let mut byte = [0];
        match self.stream.peek(&mut byte) {
            Ok(count) => count == 0,
            Err(error) => !is_timeout(&error),
        }
    }

    /// The address of the other end.
    pub fn peer(&self) -> io::Result<std::net::SocketAddr> {
        self.stream.peer_addr()
    }
}

/// Frames are numbered, so that no nonce is used twice with a key.
fn nonce(number: u64) -> chacha20poly1305::Nonce {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&number.to_le_bytes());
    nonce.into()
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TICK))?;
    stream.set_write_timeout(Some(STALLED))?;
    // One that vanished is noticed within half a minute.
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(10))
        .with_interval(Duration::from_secs(5))
        .with_retries(4);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// Fills `out`. `patience` is for the time in which nothing comes.
fn read(
    mut stream: &TcpStream,
    out: &mut [u8],
    patience: Duration,
    stop: &dyn Fn() -> bool,
) -> io::Result<()> {
    let mut filled = 0;
    let mut last = Instant::now();
    while filled < out.len() {
        match stream.read(&mut out[filled..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                filled += count;
                last = Instant::now();
            }
            Err(error) if is_timeout(&error) => {
                if stop() {
                    return Err(io::Error::new(io::ErrorKind::Interrupted, "stopped"));
                }
                if last.elapsed() > patience {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn pair(
        sender: &RoomCode,
        receiver: &RoomCode,
    ) -> (Result<Channel, Refused>, Result<Channel, Refused>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let code = receiver.clone();
        let other = thread::spawn(move || Channel::connect(TcpStream::connect(to).unwrap(), &code));
        let ours = Channel::accept(listener.accept().unwrap().0, sender);
        (ours, other.join().unwrap())
    }

    fn good() -> (Channel, Channel) {
        let code = RoomCode::new([3; 8]);
        let (a, b) = pair(&code, &code);
        (a.ok().unwrap(), b.ok().unwrap())
    }

    #[test]
    fn frames_of_any_length_go_both_ways() {
        let (mut a, mut b) = good();
        for length in [0, 1, 70_000] {
            a.send(&vec![7; length]).unwrap();
            assert_eq!(b.receive(PATIENCE, &|| false).unwrap(), vec![7; length]);
            b.send(&vec![8; length]).unwrap();
            assert_eq!(a.receive(PATIENCE, &|| false).unwrap(), vec![8; length]);
        }
        let stopped = a.receive(PATIENCE, &|| true).unwrap_err();
        assert_eq!(stopped.kind(), io::ErrorKind::Interrupted);
        assert!(!b.is_closed());
        drop(a);
        let ended = b.receive(PATIENCE, &|| false).unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::UnexpectedEof);
        assert!(b.is_closed());
    }

    #[test]
    fn a_wrong_code_is_refused_at_both_ends() {
        let (a, b) = pair(&RoomCode::new([1; 8]), &RoomCode::new([2; 8]));
        assert!(matches!(a, Err(Refused::Code)));
        assert!(matches!(b, Err(Refused::Code)));
    }

    #[test]
    fn a_changed_or_repeated_frame_is_refused() {
        for repeat in [false, true] {
            let (a, mut b) = good();
            let mut sealed = a.seal.encrypt(&nonce(0), &b"text"[..]).unwrap();
            if !repeat {
                sealed[0] ^= 1;
            }
            let mut frame = (sealed.len() as u32).to_le_bytes().to_vec();
            frame.extend_from_slice(&sealed);
            (&a.stream).write_all(&frame).unwrap();
            (&a.stream).write_all(&frame).unwrap();
            if repeat {
                b.receive(PATIENCE, &|| false).unwrap();
            }
            let error = b.receive(PATIENCE, &|| false).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn what_is_no_hello_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.write_all(&[b'G'; 64]).unwrap();
        let refused = Channel::accept(listener.accept().unwrap().0, &RoomCode::new([1; 8]));
        assert!(matches!(refused, Err(Refused::Foreign)));
    }
}
