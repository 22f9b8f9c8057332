//! `deployd`: puts the parts together.
//!
//! Owns: the order of start and stop. Does not own: the parts.

use crate::app::{App, Limits};
use crate::care;
use crate::cast::Casts;
use crate::db::dhcp::Leases;
use crate::db::{self, Db};
use crate::exec::decider::Decider;
use crate::exec::watch as limits;
use crate::http::{self, listen, tls};
use crate::netboot::{self, BootDecider, LeaseConfig, NetbootConfig, ProxyMode};
use crate::options::{BootLoader, Options, ProxyDhcp, Switch};
use crate::secrets::Secrets;
use crate::store::rebuild::Rebuilt;
use crate::store::{self, Store};
use axum::Router;
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use wire::{Code, DiskState, Report};

/// Between two looks at time limits.
const ROUND: Duration = Duration::from_secs(5);
/// Between two tries to open the database.
const DATABASE_AGAIN: Duration = Duration::from_secs(5);

/// A server that runs.
pub struct Server {
    /// Its parts, for tests and for the console on standard error.
    pub app: Arc<App>,
    /// Where the plain port really is.
    pub plain: SocketAddr,
    /// Where the data port really is.
    pub data: SocketAddr,
    /// The address that machines are told, if any.
    pub address: Option<Ipv4Addr>,
    /// Hash of the server's key.
    pub pin: pinned::Pin,
    stop: watch::Sender<bool>,
    tasks: tokio::task::JoinSet<()>,
    _locks: [Flock<File>; 2],
}

fn report(code: Code, found: impl std::fmt::Display) -> Report {
    Report::new(code, found.to_string(), DiskState::NotInvolved)
}

/// Starts everything. Ports that are taken and a database that is not there yet are
/// waited for.
///
/// # Errors
/// Settings that cannot work, or a state folder that cannot be used.
pub async fn start(options: &Options) -> Result<Server, Report> {
    let locks = own_folders(options)?;
    let images = options.images_dir();
    let secrets = Secrets::load_or_create(&options.state).map_err(|e| {
        report(
            Code::Usage,
            format!("the state folder {}: {e}", options.state.display()),
        )
    })?;
    let db = Arc::new(open_database(&options.database_url()).await?);
    let store = Store::open(&images, Arc::clone(&db))
        .await
        .map_err(|f| *f.report)?
        .signing_with(Arc::clone(&secrets.signing));
    let store = Arc::new(store);
    if secrets.signing_is_new {
        store.sign_all().await.map_err(|f| *f.report)?;
    }
    let app = Arc::new(App {
        db,
        store,
        pin: secrets.pin,
        live: Default::default(),
        limits: Limits {
            max_transfers: usize::from(options.max_transfers),
            silent_after: i64::from(options.silent_after),
            start_within: i64::from(options.start_within),
        },
        admin_token: secrets.admin_token.clone(),
        state_dir: options.state.clone(),
        started: db::now(),
        scrub_wanted: Default::default(),
        rates: Default::default(),
        casts: Casts::new(sending_interface(options)),
        board: Default::default(),
    });
    let address = server_address(options)?;
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let failed = |e: std::io::Error| report(Code::PortInUse, e);
    let plain = listen::listen(SocketAddr::new(any, options.http_port), "boot scripts")
        .await
        .map_err(failed)?;
    let data = listen::listen(SocketAddr::new(any, options.data_port), "image data")
        .await
        .map_err(failed)?;
    let local = |listener: &tokio::net::TcpListener| listener.local_addr().map_err(failed);
    let (plain_at, data_at) = (local(&plain)?, local(&data)?);
    let (stop, stopped) = watch::channel(false);
    let mut tasks = tokio::task::JoinSet::new();
    let boot = match address {
        Some(server_ip) => {
            let config = netboot_config(
                options,
                server_ip,
                plain_at.port(),
                data_at.port(),
                &secrets,
            );
            let decider: Arc<dyn BootDecider> = Arc::new(Decider(Arc::clone(&app)));
            let router = netboot::router(Arc::new(config.boot_config()), decider);
            if options.netboot() {
                config.check_leases().map_err(|e| e.report())?;
                check_boot_loader(options)?;
                let stopped = stopped.clone();
                let shared = netboot::Shared {
                    board: Arc::clone(&app.board),
                    leases: Some(Arc::new(Leases(Arc::clone(&app.db)))),
                };
                tasks.spawn(async move {
                    if let Err(error) = netboot::run(config, shared, stopped).await {
                        tracing::error!("network boot does not work: {}", error.report());
                    }
                });
            }
            router
        }
        None => Router::new(),
    };
    tasks.spawn(tls::serve(
        plain,
        None,
        http::plain_router(Arc::clone(&app), boot, data_at.port()),
        stopped.clone(),
    ));
    tasks.spawn(tls::serve(
        data,
        Some(secrets.tls),
        http::data_router(Arc::clone(&app), data_at.port()),
        stopped.clone(),
    ));
    tasks.spawn(rounds(Arc::clone(&app), stopped.clone()));
    tasks.spawn(care::keep_rules(Arc::clone(&app), stopped.clone()));
    tasks.spawn(care::scrub(
        Arc::clone(&app),
        care::Scrub::of(options),
        stopped,
    ));
    Ok(Server {
        app,
        plain: plain_at,
        data: data_at,
        address,
        pin: secrets.pin,
        stop,
        tasks,
        _locks: locks,
    })
}

/// Makes the index of the image folder anew; no server may run on it.
///
/// # Errors
/// Settings that cannot work, files that cannot be read; the database is unchanged then.
pub async fn rebuild_index(options: &Options) -> Result<Rebuilt, Report> {
    let _locks = own_folders(options)?;
    let url = options.database_url();
    check_url(&url)?;
    let db = Db::open(&url).await.map_err(|error| {
        report(Code::Usage, format!("the database {url}: {error}")).with_advice(
            "If it is damaged, move its files (deployd.sqlite*) to another folder and start this again: \
             a new one is made.",
        )
    })?;
    let rebuilt = store::rebuild::rebuild(&options.images_dir(), &db).await;
    db.close().await;
    rebuilt.map_err(|failure| *failure.report)
}

/// Makes the folders if need be and keeps other servers away from them.
fn own_folders(options: &Options) -> Result<[Flock<File>; 2], Report> {
    let made = |what: &str, folder: &Path| {
        std::fs::create_dir_all(folder).map_err(|e| {
            let found = format!("the {what} folder {}: {e}", folder.display());
            report(Code::Usage, found)
        })
    };
    let images = options.images_dir();
    made("state", &options.state)?;
    made("image", &images)?;
    Ok([lock(&options.state, "lock")?, lock(&images, "store-lock")?])
}

impl Server {
    /// Stops everything in order.
    pub async fn stop(mut self) {
        self.app.casts.stop().await;
        let _ = self.stop.send(true);
        while self.tasks.join_next().await.is_some() {}
        self.app.db.close().await;
    }
}

/// Two servers on one folder would give every job out twice.
fn lock(folder: &Path, name: &str) -> Result<Flock<File>, Report> {
    let path = folder.join(name);
    let open = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let file = open.map_err(|e| report(Code::Usage, format!("{}: {e}", path.display())))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
        report(
            Code::Usage,
            format!("another deployd works on {}", folder.display()),
        )
        .with_advice(
            "Stop the other one, or give this one other folders with --state and --images.",
        )
    })
}

fn check_url(url: &str) -> Result<(), Report> {
    if url.starts_with("sqlite:") {
        return Ok(());
    }
    Err(report(
        Code::Usage,
        format!("the database {url:?} is none that this version can use"),
    )
    .with_advice("Use sqlite:///path/to/file, or leave the option out."))
}

async fn open_database(url: &str) -> Result<Db, Report> {
    check_url(url)?;
    loop {
        match Db::open(url).await {
            Ok(db) => return Ok(db),
            // Made by a newer version, or a URL that is none: waiting does not help.
            Err(error @ sqlx::Error::Configuration(_)) => return Err(report(Code::Usage, error)),
            Err(error) => {
                tracing::error!(%error, url, "the database cannot be opened; the server tries again");
                tokio::time::sleep(DATABASE_AGAIN).await;
            }
        }
    }
}

async fn rounds(app: Arc<App>, mut stopped: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(ROUND) => {}
            _ = stopped.wait_for(|stop| *stop) => return,
        }
        if let Err(error) = limits::round(&app, db::now()).await {
            tracing::error!(%error, "time limits could not be looked at");
        }
    }
}

/// The address that machines are told; none if neither address nor interface is set and
/// network boot is off.
fn server_address(options: &Options) -> Result<Option<Ipv4Addr>, Report> {
    if let Some(address) = options.address {
        return Ok(Some(address));
    }
    let Some(interface) = &options.interface else {
        if options.netboot() {
            return Err(report(Code::Usage, "neither --interface nor --address is given")
                .with_advice("Name the interface that machines boot on, or turn network boot off: --proxy-dhcp off --tftp off."));
        }
        return Ok(None);
    };
    let all = nix::ifaddrs::getifaddrs()
        .map_err(|e| report(Code::Internal, format!("addresses of this machine: {e}")))?;
    let found = all
        .filter(|entry| entry.interface_name == *interface)
        .find_map(|entry| {
            entry
                .address
                .as_ref()
                .and_then(|a| a.as_sockaddr_in().map(nix::sys::socket::SockaddrIn::ip))
        });
    found.map(Some).ok_or_else(|| {
        report(
            Code::Usage,
            format!("interface {interface:?} is not there or has no IPv4 address"),
        )
        .with_advice("List the interfaces with: ip address")
    })
}

/// The interface that multicast sessions send from if their order names none: the one of
/// network boot, or that of the address that machines are told.
fn sending_interface(options: &Options) -> Option<String> {
    let of_address = || group::interface_of(options.address?.into()).ok().flatten();
    options.interface.clone().or_else(of_address)
}

/// GRUB asks the server that gave it its address, at the usual port.
fn check_boot_loader(options: &Options) -> Result<(), Report> {
    let fits = !options.dhcp_range.is_empty() && options.http_port == wire::PORT_CONSOLE;
    if options.boot_loader == BootLoader::Ipxe || fits {
        return Ok(());
    }
    let found =
        "--boot-loader grub works only with --dhcp-range, and with boot scripts on the usual port";
    Err(report(Code::Usage, found).with_advice(format!(
        "Add --dhcp-range, leave --http-port at {}, or take iPXE.",
        wire::PORT_CONSOLE
    )))
}

fn netboot_config(
    options: &Options,
    server_ip: Ipv4Addr,
    http_port: u16,
    data_port: u16,
    secrets: &Secrets,
) -> NetbootConfig {
    NetbootConfig {
        interface: options.interface.clone(),
        server_ip,
        http_port,
        data_port,
        pin: secrets.pin.to_string(),
        signer: secrets.signing.public().to_string(),
        pxe_dir: options.pxe_dir(),
        tftp: options.tftp == Switch::On,
        proxy_dhcp: match options.proxy_dhcp {
            ProxyDhcp::On => ProxyMode::On,
            ProxyDhcp::Off => ProxyMode::Off,
            ProxyDhcp::Only4011 => ProxyMode::Only4011,
        },
        leases: (!options.dhcp_range.is_empty()).then(|| LeaseConfig {
            ranges: options.dhcp_range.clone(),
            routers: options.dhcp_router.clone(),
            name_servers: options.dhcp_dns.clone(),
            seconds: options.dhcp_lease,
            settle: netboot::config::SETTLE,
            grub: options.boot_loader == BootLoader::Grub,
        }),
        extra_kernel_args: options.kernel_args.clone(),
    }
}
