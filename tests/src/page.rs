//! The server's page, made reachable from this machine's browser.
//!
//! Owns: a forwarder from a loopback port here to the loopback port of the server's
//! namespace. Does not own: the page. Nothing outside this machine can reach it.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use testkit::netns::Host;

/// Forwards a local port to `port` on the loopback of `host`, for as long as this
/// process lives, and returns the local address. The same number is taken if it is free.
///
/// # Errors
/// No local port can be opened, or the host's namespace not be entered.
pub fn forward(host: &Host, port: u16) -> io::Result<SocketAddr> {
    let listener =
        TcpListener::bind(("127.0.0.1", port)).or_else(|_| TcpListener::bind(("127.0.0.1", 0)))?;
    let address = listener.local_addr()?;
    // The listener stays a socket of the namespace it was made in; what the thread on the
    // host connects is the host's.
    host.spawn(move || {
        for client in listener.incoming().flatten() {
            let _ = TcpStream::connect(("127.0.0.1", port)).and_then(|server| join(client, server));
        }
    })?;
    Ok(address)
}

fn join(client: TcpStream, server: TcpStream) -> io::Result<()> {
    let (from_client, to_client) = (client.try_clone()?, client);
    let (from_server, to_server) = (server.try_clone()?, server);
    thread::spawn(move || copy(from_client, to_server));
    thread::spawn(move || copy(from_server, to_client));
    Ok(())
}

/// Copies until one side ends; the other is told.
fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::forward;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use testkit::netns::Lab;

    #[test]
    fn both_directions_are_forwarded_into_the_namespace() {
        let lab = Lab::new().unwrap();
        let host = lab.host("page", "10.99.0.1/24").unwrap();
        let server = host
            .run(|| TcpListener::bind(("127.0.0.1", 0)).unwrap())
            .unwrap();
        let port = server.local_addr().unwrap().port();
        let here = forward(&host, port).unwrap();
        let mut client = TcpStream::connect(here).unwrap();
        client.write_all(b"ping").unwrap();
        let (mut accepted, _) = server.accept().unwrap();
        let mut word = [0; 4];
        accepted.read_exact(&mut word).unwrap();
        accepted.write_all(&word).unwrap();
        drop(accepted);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "ping");
    }
}
