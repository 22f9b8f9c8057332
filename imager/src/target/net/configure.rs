//! Putting a lease into force: address, default route, name servers.
//!
//! Owns: the order, and undoing it. Does not own: the lease. Several cards may have their
//! addresses at a time, while a server is looked for; name servers are those of one.

use super::dhcp::Lease;
use super::netlink::{Request, broadcast};
use super::rtnl::Rtnl;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

/// What has been configured on an interface; needed to undo it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Configured {
    index: u32,
    address: Ipv4Addr,
    prefix: u8,
}

/// Configures an interface by its lease.
///
/// # Errors
/// The kernel's, with what was being done.
pub fn apply(index: u32, lease: &Lease) -> io::Result<Configured> {
    let mut kernel = Rtnl::open()?;
    let (address, prefix) = (lease.address, lease.prefix);
    kernel.request(Request::AddAddress {
        index,
        address,
        prefix,
    })?;
    if let Some(gateway) = lease.routers.first().copied() {
        let on_link = broadcast(gateway, prefix) != broadcast(address, prefix);
        kernel.request(Request::DefaultRoute {
            index,
            gateway,
            on_link,
        })?;
    }
    Ok(Configured {
        index,
        address,
        prefix,
    })
}

/// Makes the name servers of a lease those of this machine.
///
/// # Errors
/// Files in `etc` cannot be written.
pub fn name_servers(lease: &Lease, etc: &Path) -> io::Result<()> {
    std::fs::create_dir_all(etc)?;
    std::fs::write(etc.join("resolv.conf"), resolv_conf(lease))?;
    let hosts = etc.join("hosts");
    if !hosts.exists() {
        std::fs::write(hosts, "127.0.0.1 localhost\n::1 localhost\n")?;
    }
    Ok(())
}

/// Takes the address away again; its routes go with it.
///
/// # Errors
/// The kernel's.
pub fn undo(configured: Configured) -> io::Result<()> {
    let Configured {
        index,
        address,
        prefix,
    } = configured;
    Rtnl::open()?.request_unless_gone(Request::RemoveAddress {
        index,
        address,
        prefix,
    })
}

fn resolv_conf(lease: &Lease) -> String {
    let mut text = String::new();
    if let Some(domain) = &lease.domain {
        text.push_str(&format!("search {domain}\n"));
    }
    // The C library looks at three.
    for server in lease.dns.iter().take(3) {
        text.push_str(&format!("nameserver {server}\n"));
    }
    text.push_str("options timeout:2 attempts:2\n");
    text
}

#[cfg(test)]
mod tests {
    use super::resolv_conf;
    use crate::target::net::dhcp::{Announced, Lease};
    use std::net::Ipv4Addr;
    use std::time::Duration;

    #[test]
    fn name_servers_and_domain_are_written() {
        let lease = Lease {
            address: Ipv4Addr::new(10, 0, 0, 50),
            prefix: 24,
            routers: Vec::new(),
            dns: (1..=4).map(|n| Ipv4Addr::new(10, 0, 0, n)).collect(),
            domain: Some("lab.example".into()),
            server: Ipv4Addr::new(10, 0, 0, 1),
            valid: None,
            renew: Duration::MAX,
            rebind: Duration::MAX,
            announced: Announced::default(),
        };
        assert_eq!(
            resolv_conf(&lease),
            "search lab.example\nnameserver 10.0.0.1\nnameserver 10.0.0.2\n\
             nameserver 10.0.0.3\noptions timeout:2 attempts:2\n"
        );
    }
}
