//! The sockets of proxyDHCP.
//!
//! Owns: ports 67 and 4011 on one interface, and watching for rivals. Does not own:
//! what is answered ([`super::dhcp`]).
//!
//! Port 67 is taken alone if it is free. If an address server on the same host has it
//! and lets others share it, only broadcasts are taken: the clients' unicasts stay
//! that server's, so no renewal of a lease is lost. If it does not share, the proxy
//! works on 4011 alone; that server must then send option 60 `PXEClient` and no boot
//! file. Sockets are bound to the interface, so answers leave where machines boot.

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tracing::{debug, info, warn};
use wire::Code;

use super::config::{NetbootConfig, ProxyMode};
use super::dhcp::conflict::rival;
use super::dhcp::{Answer, Destination, Ignored, Port, ProxyConfig, answer};
use super::error::NetbootError;
use super::files::BootFiles;
use super::portowner::owner_of_udp_port;
use super::service::stopped;

const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
const BOOT_SERVER: u16 = 4011;
/// Real packets have below 1500 bytes; what is longer is cut and then refused.
const MAX_PACKET: usize = 4096;
/// Rivals that are told of, each once.
const MAX_RIVALS: usize = 64;

/// A proxyDHCP server that has its ports.
#[derive(Debug)]
pub struct Proxy {
    config: ProxyConfig,
    server_ip: Ipv4Addr,
    dhcp: Option<UdpSocket>,
    /// What packets on `dhcp` are answered as.
    dhcp_port: Port,
    boot: UdpSocket,
    rivals: Option<UdpSocket>,
}

impl Proxy {
    /// Takes the ports. Must run inside a Tokio runtime.
    ///
    /// # Errors
    /// No interface has the server's address, or a port cannot be had. Port 67 taken by
    /// another program is no error: a warning names it, and the proxy uses 4011 alone.
    pub fn open(config: &NetbootConfig) -> Result<Proxy, NetbootError> {
        let interface = match &config.interface {
            Some(name) => name.clone(),
            None => interface_of(config.server_ip)?,
        };
        let boot_address = SocketAddrV4::new(config.server_ip, BOOT_SERVER);
        let boot = socket(boot_address, &interface, false).map_err(|e| refused(e, BOOT_SERVER))?;
        let (dhcp, dhcp_port) = match config.proxy_dhcp {
            ProxyMode::On => open_dhcp(&interface)?,
            ProxyMode::Only4011 | ProxyMode::Off => (None, Port::Dhcp67),
        };
        // Broadcasts only, so no DHCP client of this host loses an answer to us. If a
        // client of this host does not share the port, rivals stay unseen.
        let offers = SocketAddrV4::new(Ipv4Addr::BROADCAST, DHCP_CLIENT);
        let rivals = socket(offers, &interface, true)
            .inspect_err(|error| debug!(%error, "rivals stay unseen"))
            .ok();
        Ok(Proxy {
            config: offers_of(config),
            server_ip: config.server_ip,
            dhcp,
            dhcp_port,
            boot,
            rivals,
        })
    }

    /// Whether clients are heard on port 67, and not on 4011 alone.
    pub fn hears_port_67(&self) -> bool {
        self.dhcp.is_some()
    }

    /// Answers until `shutdown` becomes true.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>) {
        let mut buffers = [[0; MAX_PACKET]; 3];
        let [on_dhcp, on_boot, on_rival] = &mut buffers;
        let mut known = HashSet::new();
        loop {
            tokio::select! {
                received = receive(self.dhcp.as_ref(), on_dhcp) => self.reply(self.dhcp_port, received).await,
                received = receive(Some(&self.boot), on_boot) => self.reply(Port::Boot4011, received).await,
                received = receive(self.rivals.as_ref(), on_rival) => {
                    if let Some((bytes, _)) = received {
                        self.on_offer(bytes, &mut known);
                    }
                }
                () = stopped(&mut shutdown) => return,
            }
        }
    }

    async fn reply(&self, port: Port, received: Option<(&[u8], SocketAddr)>) {
        let Some((bytes, from)) = received else {
            return;
        };
        match answer(bytes, &self.config, port, self.server_ip) {
            Answer::Reply {
                packet,
                to,
                mac,
                boot_file,
            } => {
                let to = match to {
                    Destination::Broadcast => {
                        SocketAddrV4::new(Ipv4Addr::BROADCAST, DHCP_CLIENT).into()
                    }
                    Destination::Address(address) => SocketAddr::from(address),
                    Destination::Sender => from,
                };
                let socket = match port {
                    Port::Dhcp67 | Port::Shared67 => self.dhcp.as_ref(),
                    Port::Boot4011 => Some(&self.boot),
                };
                let Some(socket) = socket else { return };
                match socket.send_to(&packet, to).await {
                    Ok(_) => info!(%mac, %boot_file, %to, "network boot offered"),
                    Err(error) => warn!(%mac, %to, %error, "network boot offer cannot be sent"),
                }
            }
            Answer::Ignore(why @ Ignored::NoBootFile { .. }) => {
                warn!(%why, "network boot not offered")
            }
            Answer::Ignore(why) => debug!(%from, %why, "DHCP packet ignored"),
        }
    }

    fn on_offer(&self, bytes: &[u8], known: &mut HashSet<Ipv4Addr>) {
        let Some(server) = rival(bytes, self.server_ip) else {
            return;
        };
        if known.len() < MAX_RIVALS && known.insert(server) {
            let code = Code::DhcpConflict;
            warn!(code = code.as_str(), %server, advice = code.advice(), "{}", code.headline());
        }
    }
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
    ProxyConfig {
        script_url: format!("{base}/boot.ipxe"),
        files_url: format!("{base}/files"),
        bios_file: find("BIOS", &["undionly.kpxe"]),
        efi64_file: find("x86-64 UEFI", &["snponly.efi", "ipxe.efi"]),
    }
}

fn open_dhcp(interface: &str) -> Result<(Option<UdpSocket>, Port), NetbootError> {
    let alone = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, DHCP_SERVER);
    match socket(alone, interface, false) {
        Ok(socket) => return Ok((Some(socket), Port::Dhcp67)),
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            return Err(refused(error, DHCP_SERVER));
        }
        Err(_) => {}
    }
    let owner = owner_of_udp_port(DHCP_SERVER);
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
    let service = "proxyDHCP";
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
