//! Starting and stopping network boot's own sockets.
//!
//! Owns: proxyDHCP (with leasing) and TFTP as services. Does not own: the HTTP server, which carries
//! [`super::router`].

use std::future::Future;
use std::io;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, info};

use super::board::Board;
use super::config::NetbootConfig;
use super::error::NetbootError;
use super::files::BootFiles;
use super::lessor::{LeaseStore, now};
use super::portowner::owner_of_udp_port;
use super::proxy::Proxy;
use super::tftp::server::TftpServer;

const TFTP: u16 = 69;
/// Wait before a port that could not be had is tried again.
const RETRY: Duration = Duration::from_secs(10);

const PROXY_DHCP: &str = "boot files (proxyDHCP)";
const TFTP_SERVICE: &str = "TFTP";

/// What network boot shares with the rest of the server.
#[derive(Clone, Default)]
pub struct Shared {
    /// What operators are told.
    pub board: Arc<Board>,
    /// Where leases are stored; needed only to lease addresses.
    pub leases: Option<Arc<dyn LeaseStore>>,
}

/// Services that run.
#[derive(Debug)]
pub struct Netboot {
    tasks: JoinSet<()>,
}

impl Netboot {
    /// Waits until all have ended, which they do after `shutdown`.
    pub async fn wait(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Starts what the settings ask for, all or nothing.
///
/// # Errors
/// The first service that cannot start; the error names the port and who has it.
/// Port 67 taken by an address server on this host is none: see [`Proxy::open`].
pub async fn start(
    config: &NetbootConfig,
    shared: &Shared,
    shutdown: watch::Receiver<bool>,
) -> Result<Netboot, NetbootError> {
    check(config)?;
    let proxy = match config.answers_dhcp() {
        false => None,
        true => Some(Proxy::open(config, shared)?),
    };
    let tftp = if config.tftp {
        Some(open_tftp(config).await?)
    } else {
        None
    };
    let mut tasks = JoinSet::new();
    if let Some(proxy) = proxy {
        tasks.spawn(proxy.run(shutdown.clone()));
    }
    if let Some(tftp) = tftp {
        tasks.spawn(tftp.run(shutdown));
    }
    Ok(Netboot { tasks })
}

/// Runs what the settings ask for until `shutdown` becomes true. A service whose port
/// cannot be had says who has it and tries again; the others run meanwhile.
///
/// # Errors
/// Only for settings that cannot work.
pub async fn run(
    config: NetbootConfig,
    shared: Shared,
    shutdown: watch::Receiver<bool>,
) -> Result<(), NetbootError> {
    check(&config)?;
    let (config, shared) = (&config, &shared);
    let board = &shared.board;
    let proxy = async {
        let open = || async { Proxy::open(config, shared) };
        if config.answers_dhcp()
            && let Some(proxy) = insist(PROXY_DHCP, board, open, shutdown.clone()).await
        {
            proxy.run(shutdown.clone()).await;
        }
    };
    let tftp = async {
        let open = || open_tftp(config);
        if config.tftp
            && let Some(tftp) = insist(TFTP_SERVICE, board, open, shutdown.clone()).await
        {
            tftp.run(shutdown.clone()).await;
        }
    };
    tokio::join!(proxy, tftp);
    Ok(())
}

/// Tries until it works or `shutdown` becomes true.
async fn insist<T, F, Work>(
    service: &'static str,
    board: &Board,
    open: F,
    mut shutdown: watch::Receiver<bool>,
) -> Option<T>
where
    F: Fn() -> Work,
    Work: Future<Output = Result<T, NetbootError>>,
{
    let mut told = String::new();
    loop {
        match open().await {
            Ok(opened) => {
                info!("{service} runs");
                board.service(service, "runs");
                board.over(service);
                return Some(opened);
            }
            Err(failure) => {
                let report = failure.report();
                board.service(service, &format!("waits: {}", report.found));
                board.trouble(service, report.clone(), now());
                // The same trouble is told once, not every few seconds.
                if told != report.found {
                    error!(code = report.code.as_str(), advice = %report.advice, "{service} waits: {}", report.found);
                    told = report.found;
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = stopped(&mut shutdown) => return None,
        }
    }
}

/// Waits until `shutdown` becomes true, or its sender is gone.
pub(super) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // The error of `wait_for` says that the sender is gone: the end as well.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

fn check(config: &NetbootConfig) -> Result<(), NetbootError> {
    config.boot_config().check()?;
    config.check_leases()?;
    let unreadable = |source| NetbootError::Folder {
        folder: config.pxe_dir.clone(),
        source,
    };
    std::fs::read_dir(&config.pxe_dir)
        .map(drop)
        .map_err(unreadable)
}

async fn open_tftp(config: &NetbootConfig) -> Result<TftpServer, NetbootError> {
    let address = SocketAddrV4::new(config.server_ip, TFTP);
    TftpServer::bind(address, BootFiles::new(&config.pxe_dir))
        .await
        .map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => NetbootError::PortTaken {
                port: TFTP,
                service: "TFTP",
                owner: owner_of_udp_port(TFTP),
            },
            _ => NetbootError::Port {
                port: TFTP,
                service: "TFTP",
                source,
            },
        })
}
