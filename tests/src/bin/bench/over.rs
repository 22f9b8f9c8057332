//! The plainest way of a stream over the network: what a peer that has no server of its own
//! is piped into.
//!
//! Owns: a connection over loopback TCP, without checks or encryption, whose other end writes
//! a file and makes it durable. Does not own: the stream.
//!
//! Called as `bench over FILE`, with the stream on standard input.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};

/// Bytes that are copied at once.
const PIECE: usize = 128 << 10;

/// Runs the command line after `over`.
pub fn main(arguments: &[String]) -> io::Result<()> {
    let [file] = arguments else {
        return Err(io::Error::other(
            "over FILE, with a stream on standard input",
        ));
    };
    let mut file = File::create(file)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut near = TcpStream::connect(listener.local_addr()?)?;
    let (mut far, _) = listener.accept()?;
    let receiving = std::thread::spawn(move || {
        copy(&mut far, &mut file)?;
        file.sync_all()
    });
    copy(&mut io::stdin().lock(), &mut near)?;
    near.shutdown(Shutdown::Write)?;
    let received = receiving.join();
    received.unwrap_or_else(|_| Err(io::Error::other("the receiver panicked")))
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            count => to.write_all(&buffer[..count])?,
        }
    }
}
