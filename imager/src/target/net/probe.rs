//! Whether a server can be reached: a TCP connection, nothing more.
//!
//! Owns: resolving and connecting with limits. Does not own: who the server is; the
//! check-in, with the pinned key, finds that out.

use crate::remote::ServerAddress;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 4;

/// Connects and disconnects.
///
/// # Errors
/// Why not, in words.
pub fn reach(server: &ServerAddress) -> Result<(), String> {
    let addresses: Vec<SocketAddr> = (server.host.as_str(), server.port)
        .to_socket_addrs()
        .map_err(|error| format!("the name cannot be resolved: {error}"))?
        .take(MAX_ADDRESSES)
        .collect();
    let mut problem = "the name has no address".to_owned();
    for address in addresses {
        match TcpStream::connect_timeout(&address, LIMIT) {
            Ok(_) => return Ok(()),
            Err(error) => problem = format!("{address}: {error}"),
        }
    }
    Err(problem)
}

#[cfg(test)]
mod tests {
    use super::reach;
    use crate::remote::ServerAddress;
    use std::net::TcpListener;

    #[test]
    fn an_open_port_is_reached_and_a_closed_one_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = ServerAddress::parse(&address.to_string()).unwrap();
        assert_eq!(reach(&server), Ok(()));
        drop(listener);
        let problem = reach(&server).unwrap_err();
        assert!(
            problem.contains(&address.to_string()) && problem.contains("refused"),
            "{problem}"
        );
    }
}
