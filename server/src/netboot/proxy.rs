//! The sockets of proxyDHCP and of the address server.
//!
//! Owns: ports 67 and 4011 on one interface, and watching for rivals. Does not own:
//! what is answered ([`super::dhcp`]), or whether addresses are leased
//! ([`super::lessor`]).
//!
//! Port 67 is taken alone if it is free. If an address server on the same host has it
//! and lets others share it, only broadcasts are taken: the clients' unicasts stay
//! that server's, so no renewal of a lease is lost. If it does not share, the proxy
//! works on 4011 alone; that server must then send option 60 `PXEClient` and no boot
//! file. To lease addresses, port 67 is needed alone. Sockets are bound to the interface, so answers leave where machines boot.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::{Duration, MissedTickBehavior, interval};
use tracing::{debug, error, info, warn};
use wire::{Code, DiskState, Report};

use super::board::Board;
use super::config::{NetbootConfig, ProxyMode};
use super::dhcp::client::architecture_name;
use super::dhcp::conflict::rival;
use super::dhcp::lease::Leasing;
use super::dhcp::{Answer, Destination, Ignored, Port, ProxyConfig, answer};
use super::error::NetbootError;
use super::files::BootFiles;
use super::lessor::{Handled, Lessor, now, own_prefix, pools};
use super::portowner::owner_of_udp_port;
use super::service::{Shared, stopped};

const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
const BOOT_SERVER: u16 = 4011;
/// Real packets have below 1500 bytes; what is longer is cut and then refused.
const MAX_PACKET: usize = 4096;
/// GRUB for UEFI machines, which asks for `machine.grub`.
const GRUB_FILE: &str = "grubnetx64.efi";
/// Between two looks at the clock of leasing, and two tries to read what was leased.
const ROUND: Duration = Duration::from_secs(1);

/// A proxyDHCP server that has its ports.
#[derive(Debug)]
pub struct Proxy {
    config: ProxyConfig,
    server_ip: Ipv4Addr,
    dhcp: Option<UdpSocket>,
    /// What packets on `dhcp` are answered as.
    dhcp_port: Port,
    /// Port 4011, unless boot files are another server's business.
    boot: Option<UdpSocket>,
    rivals: Option<UdpSocket>,
    lessor: Option<Lessor>,
    board: Arc<Board>,
}

impl Proxy {
    /// Takes the ports. Must run inside a Tokio runtime.
    ///
    /// # Errors
    /// No interface has the server's address, or a port cannot be had. Port 67 taken by
    /// another program is no error unless addresses are to be leased: a warning names it,
    /// and the proxy uses 4011 alone.
    pub fn open(config: &NetbootConfig, shared: &Shared) -> Result<Proxy, NetbootError> {
        let interface = match &config.interface {
            Some(name) => name.clone(),
            None => interface_of(config.server_ip)?,
        };
        let boot_address = SocketAddrV4::new(config.server_ip, BOOT_SERVER);
        let boot = match config.proxy_dhcp {
            ProxyMode::Off => None,
            ProxyMode::On | ProxyMode::Only4011 => {
                Some(socket(boot_address, &interface, false).map_err(|e| refused(e, BOOT_SERVER))?)
            }
        };
        let (dhcp, dhcp_port) = match (config.proxy_dhcp, &config.leases) {
            (_, Some(_)) => (Some(open_alone(&interface)?), Port::Dhcp67),
            (ProxyMode::On, None) => open_dhcp(&interface)?,
            (ProxyMode::Only4011 | ProxyMode::Off, None) => (None, Port::Dhcp67),
        };
        // Broadcasts only, so no DHCP client of this host loses an answer to us. If a
        // client of this host does not share the port, rivals stay unseen.
        let offers = SocketAddrV4::new(Ipv4Addr::BROADCAST, DHCP_CLIENT);
        let rivals = match socket(offers, &interface, true) {
            Ok(rivals) => Some(rivals),
            // Addresses are leased only by who can see whether others do.
            Err(error) if config.leases.is_some() => return Err(refused(error, DHCP_CLIENT)),
            Err(error) => {
                debug!(%error, "rivals stay unseen");
                None
            }
        };
        let offers = offers_of(config);
        let lessor = lessor_of(config, shared, &offers)?;
        Ok(Proxy {
            config: offers,
            server_ip: config.server_ip,
            dhcp,
            dhcp_port,
            boot,
            rivals,
            lessor,
            board: Arc::clone(&shared.board),
        })
    }

    /// Whether clients are heard on port 67, and not on 4011 alone.
    pub fn hears_port_67(&self) -> bool {
        self.dhcp.is_some()
    }

    /// Answers until `shutdown` becomes true.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        if !self.leases_read(&mut shutdown).await {
            return;
        }
        let mut buffers = [[0; MAX_PACKET]; 3];
        let [on_dhcp, on_boot, on_rival] = &mut buffers;
        let mut round = interval(ROUND);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                received = receive(self.dhcp.as_ref(), on_dhcp) => {
                    if let Some((bytes, from)) = received {
                        self.on_port_67(bytes, from).await;
                    }
                }
                received = receive(self.boot.as_ref(), on_boot) => {
                    if let Some((bytes, from)) = received {
                        self.reply(Port::Boot4011, bytes, from).await;
                    }
                }
                received = receive(self.rivals.as_ref(), on_rival) => {
                    if let Some((bytes, _)) = received {
                        self.on_offer(bytes);
                    }
                }
                _ = round.tick(), if self.lessor.is_some() => self.on_round().await,
                () = stopped(&mut shutdown) => return,
            }
        }
    }

    /// Reads what was leased before, however long the database takes. Returns false at the end.
    async fn leases_read(&self, shutdown: &mut watch::Receiver<bool>) -> bool {
        let Some(lessor) = &self.lessor else {
            return true;
        };
        while let Err(failure) = lessor.load().await {
            error!(%failure, "leases cannot be read; no address is given before");
            tokio::select! {
                () = tokio::time::sleep(ROUND) => {}
                () = stopped(shutdown) => return false,
            }
        }
        true
    }

    async fn on_port_67(&mut self, bytes: &[u8], from: SocketAddr) {
        let handled = match &mut self.lessor {
            Some(lessor) => lessor.on_request(bytes).await,
            None => Handled::Leave,
        };
        match handled {
            Handled::Leave if self.boot.is_none() => {}
            Handled::Leave => self.reply(self.dhcp_port, bytes, from).await,
            Handled::Done(None) => self.unbootable(bytes),
            Handled::Done(Some((packet, to))) => {
                self.unbootable(bytes);
                self.send(self.dhcp.as_ref(), &packet, to, from).await;
            }
        }
    }

    async fn on_round(&mut self) {
        let probe = self.lessor.as_mut().and_then(Lessor::tick);
        let (Some(probe), Some(socket)) = (probe, &self.rivals) else {
            return;
        };
        let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, DHCP_SERVER);
        if let Err(error) = socket.send_to(&probe, to).await {
            debug!(%error, "the probe for other DHCP servers cannot be sent");
        }
    }

    async fn reply(&self, port: Port, bytes: &[u8], from: SocketAddr) {
        match answer(bytes, &self.config, port, self.server_ip) {
            Answer::Reply {
                packet,
                to,
                mac,
                boot_file,
            } => {
                let socket = match port {
                    Port::Dhcp67 | Port::Shared67 => self.dhcp.as_ref(),
                    Port::Boot4011 => self.boot.as_ref(),
                };
                if self.send(socket, &packet, to, from).await {
                    info!(%mac, %boot_file, "network boot offered");
                }
            }
            Answer::Ignore(why @ Ignored::NoBootFile { .. }) => self.no_boot_file(&why),
            Answer::Ignore(why) => debug!(%from, %why, "DHCP packet ignored"),
        }
    }

    async fn send(
        &self,
        socket: Option<&UdpSocket>,
        packet: &[u8],
        to: Destination,
        from: SocketAddr,
    ) -> bool {
        let to = match to {
            Destination::Broadcast => SocketAddrV4::new(Ipv4Addr::BROADCAST, DHCP_CLIENT).into(),
            Destination::Address(address) => SocketAddr::from(address),
            Destination::Sender => from,
        };
        let Some(socket) = socket else { return false };
        let sent = socket.send_to(packet, to).await;
        if let Err(error) = &sent {
            warn!(%to, %error, "a DHCP answer cannot be sent");
        }
        sent.is_ok()
    }

    /// A boot client that was given an address may have been given no boot file.
    fn unbootable(&self, bytes: &[u8]) {
        if self.boot.is_some()
            && let Answer::Ignore(why @ Ignored::NoBootFile { .. }) =
                answer(bytes, &self.config, Port::Dhcp67, self.server_ip)
        {
            self.no_boot_file(&why);
        }
    }

    fn no_boot_file(&self, why: &Ignored) {
        let Ignored::NoBootFile { mac, architecture } = why else {
            return;
        };
        let (kind, advice) = architecture_name(*architecture);
        let found = format!(
            "machine {mac} wants to boot from the network as {kind} (architecture {architecture}), \
             for which there is no boot file"
        );
        let report =
            Report::new(Code::NoNetworkBoot, found, DiskState::NotInvolved).with_advice(advice);
        let key = format!("no boot file for {mac}");
        if self.board.trouble(&key, report.clone(), now()) {
            warn!(code = report.code.as_str(), advice = %report.advice, "{}", report.found);
        }
    }

    fn on_offer(&mut self, bytes: &[u8]) {
        if let Some(lessor) = &mut self.lessor {
            lessor.on_offer(bytes);
        }
        let Some(server) = rival(bytes, self.server_ip) else {
            return;
        };
        let found = format!("{server} answers network boots too");
        let report = Report::new(Code::DhcpConflict, found, DiskState::NotInvolved)
            .with_advice("Turn off the boot options of the other server, or give this one's.");
        let key = format!("boot server {server}");
        if self.board.trouble(&key, report.clone(), now()) {
            warn!(code = report.code.as_str(), %server, advice = %report.advice, "{}", report.found);
        }
    }
}

/// The address server, if addresses are to be leased.
fn lessor_of(
    config: &NetbootConfig,
    shared: &Shared,
    offers: &ProxyConfig,
) -> Result<Option<Lessor>, NetbootError> {
    let Some(leases) = &config.leases else {
        return Ok(None);
    };
    let Some(store) = &shared.leases else {
        let why = "there is no place to store leases".to_owned();
        return Err(NetbootError::Config {
            setting: "--dhcp-range",
            why,
        });
    };
    let mut offers = offers.clone();
    if leases.grub {
        offers.efi64_file = BootFiles::new(&config.pxe_dir).first_of(&[GRUB_FILE]);
        if offers.efi64_file.is_none() {
            return Err(NetbootError::Config {
                setting: "--boot-loader",
                why: format!("{GRUB_FILE} is not in {}", config.pxe_dir.display()),
            });
        }
    }
    let leasing = Leasing {
        server_ip: config.server_ip,
        pools: pools(leases, config.server_ip, own_prefix(config.server_ip))?,
        name_servers: leases.name_servers.clone(),
        seconds: leases.seconds,
        data_port: config.data_port,
        http_port: config.http_port,
        boot: (config.proxy_dhcp != ProxyMode::Off).then_some(offers),
    };
    let (board, store) = (Arc::clone(&shared.board), Arc::clone(store));
    Ok(Some(Lessor::new(leasing, leases.settle, board, store)))
}

/// What the folder of boot files has to offer; what is missing is said once here, and
/// again for every machine that would have wanted it.
fn offers_of(config: &NetbootConfig) -> ProxyConfig {
    let base = config.boot_config().base_url();
    let files = BootFiles::new(&config.pxe_dir);
    let find = |machines: &str, names: &[&str]| {
        let found = files.first_of(names);
        if found.is_none() {
            let folder = config.pxe_dir.display();
            warn!(%folder, "no boot file for {machines} machines ({})", names.join(" or "));
        }
        found
    };
    let efi64_file = find("x86-64 UEFI", &["snponly.efi", "ipxe.efi"]);
    ProxyConfig {
        script_url: format!("{base}/boot.ipxe"),
        files_url: format!("{base}/files"),
        bios_file: find("BIOS", &["undionly.kpxe"]),
        efi64_http_file: efi64_file.clone(),
        efi64_file,
    }
}

/// Port 67 without sharing it.
fn open_alone(interface: &str) -> Result<UdpSocket, NetbootError> {
    let alone = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, DHCP_SERVER);
    socket(alone, interface, false).map_err(|error| refused(error, DHCP_SERVER))
}

fn open_dhcp(interface: &str) -> Result<(Option<UdpSocket>, Port), NetbootError> {
    let owner = match open_alone(interface) {
        Ok(socket) => return Ok((Some(socket), Port::Dhcp67)),
        Err(NetbootError::PortTaken { owner, .. }) => owner,
        Err(error) => return Err(error),
    };
    let shared = SocketAddrV4::new(Ipv4Addr::BROADCAST, DHCP_SERVER);
    match socket(shared, interface, true) {
        Ok(socket) => {
            info!(%owner, "port 67/udp is shared: broadcasts only, requests by relays go to its owner");
            Ok((Some(socket), Port::Shared67))
        }
        Err(_) => {
            let code = Code::PortInUse;
            warn!(
                code = code.as_str(),
                %owner,
                "port 67/udp is taken and not shared; going on with 4011 alone: \
                 let its owner send option 60 \"PXEClient\" and no boot file"
            );
            Ok((None, Port::Dhcp67))
        }
    }
}

fn refused(source: io::Error, port: u16) -> NetbootError {
    let service = "DHCP";
    match source.kind() {
        io::ErrorKind::AddrInUse => NetbootError::PortTaken {
            port,
            service,
            owner: owner_of_udp_port(port),
        },
        _ => NetbootError::Port {
            port,
            service,
            source,
        },
    }
}

fn socket(address: SocketAddrV4, interface: &str, share: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_broadcast(true)?;
    socket.set_reuse_address(share)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.bind(&SocketAddr::from(address).into())?;
    UdpSocket::from_std(socket.into())
}

/// The interface that has an address.
fn interface_of(address: Ipv4Addr) -> Result<String, NetbootError> {
    let refuse = |why| NetbootError::Config {
        setting: "server address",
        why,
    };
    let all = nix::ifaddrs::getifaddrs()
        .map_err(|error| refuse(format!("interfaces cannot be listed: {error}")))?;
    let has = |entry: &nix::ifaddrs::InterfaceAddress| {
        entry
            .address
            .as_ref()
            .and_then(|a| a.as_sockaddr_in())
            .is_some_and(|a| a.ip() == address)
    };
    let found = all.into_iter().find(has).map(|entry| entry.interface_name);
    found.ok_or_else(|| {
        refuse(format!(
            "no interface of this host has the address {address}"
        ))
    })
}

/// The next packet. Never comes without a socket. `None` for an error, which is that
/// of an earlier send and concerns nobody else.
async fn receive<'a>(
    socket: Option<&UdpSocket>,
    buffer: &'a mut [u8],
) -> Option<(&'a [u8], SocketAddr)> {
    let Some(socket) = socket else {
        return std::future::pending().await;
    };
    match socket.recv_from(buffer).await {
        Ok((length, from)) => Some((buffer.get(..length).unwrap_or_default(), from)),
        Err(error) => {
            debug!(%error, "DHCP socket");
            None
        }
    }
}
