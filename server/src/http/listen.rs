//! Listening sockets of the plain and the data port.
//!
//! Owns: waiting for a port that another program has, and saying which. Does not own:
//! what is spoken on it.

use crate::netboot::portowner::owner_of_tcp_port;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use wire::{Code, DiskState, Report};

/// Between two tries.
const AGAIN: Duration = Duration::from_secs(5);

/// Opens a port, as often as it takes.
///
/// # Errors
/// The address is not this machine's, or the port may not be used: waiting does not help.
pub async fn listen(address: SocketAddr, what: &str) -> io::Result<TcpListener> {
    listen_every(AGAIN, address, what).await
}

async fn listen_every(again: Duration, address: SocketAddr, what: &str) -> io::Result<TcpListener> {
    let mut told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if !told {
                    let owner = owner_of_tcp_port(address.port());
                    let found = format!("port {}/tcp ({what}) is taken by {owner}", address.port());
                    let report = Report::new(Code::PortInUse, found, DiskState::NotInvolved);
                    tracing::error!("{report}\n  The server waits for it.");
                    told = true;
                }
                tokio::time::sleep(again).await;
            }
            Err(error) => {
                return Err(io::Error::new(
                    error.kind(),
                    format!(
                        "port {}/tcp ({what}) on {}: {error}",
                        address.port(),
                        address.ip()
                    ),
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{listen, listen_every};
    use std::time::Duration;

    #[tokio::test]
    async fn a_free_port_is_opened_and_a_foreign_address_is_an_error() {
        let listener = listen("127.0.0.1:0".parse().unwrap(), "test")
            .await
            .unwrap();
        assert_ne!(listener.local_addr().unwrap().port(), 0);
        // TEST-NET-1 is no address of any machine.
        let error = listen("192.0.2.1:0".parse().unwrap(), "test")
            .await
            .unwrap_err();
        assert!(error.to_string().contains("192.0.2.1"), "{error}");
    }

    #[tokio::test]
    async fn a_taken_port_is_waited_for() {
        let first = listen("127.0.0.1:0".parse().unwrap(), "test")
            .await
            .unwrap();
        let address = first.local_addr().unwrap();
        let second =
            tokio::spawn(
                async move { listen_every(Duration::from_millis(5), address, "test").await },
            );
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        assert_eq!(
            second.await.unwrap().unwrap().local_addr().unwrap(),
            address
        );
    }
}
