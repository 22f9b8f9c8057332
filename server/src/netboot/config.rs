//! Settings of network boot.
//!
//! Owns: their names, defaults and what is refused at once. Does not own: where they
//! are stored (the server's settings).

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use super::dhcp::pool::AddressRange;
use super::error::NetbootError;
use super::files::is_boot_file_name;

/// How proxyDHCP takes part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyMode {
    /// Not at all: another server names the boot file, or machines boot from media.
    Off,
    /// On ports 67 and 4011, beside an address server on the same or another host.
    #[default]
    On,
    /// On port 4011 only. The address server on the same host must then send option 60
    /// `PXEClient` and no boot file, so that clients come to 4011 by themselves.
    Only4011,
}

/// Addresses that the server leases itself, for a network without a DHCP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseConfig {
    /// Ranges; one of the server's own subnet, others for machines behind relays.
    pub ranges: Vec<AddressRange>,
    /// Routers; each goes to the clients of its subnet.
    pub routers: Vec<Ipv4Addr>,
    /// Name servers.
    pub name_servers: Vec<Ipv4Addr>,
    /// Seconds of a lease.
    pub seconds: u32,
    /// How long other DHCP servers are looked for before the first lease.
    pub settle: Duration,
    /// Whether UEFI machines get GRUB in place of iPXE. It learns its server from the lease
    /// only, so there is no such choice beside another DHCP server.
    pub grub: bool,
}

/// How long other DHCP servers are looked for: some try an address for 3 seconds before
/// they offer it.
pub const SETTLE: Duration = Duration::from_secs(6);

/// Everything that network boot needs to know. Ports are the fixed ones of the
/// protocols where none is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetbootConfig {
    /// Interface that machines boot on; without one, that which has `server_ip`.
    pub interface: Option<String>,
    /// The server's address as machines reach it.
    pub server_ip: Ipv4Addr,
    /// Port of the plain HTTP server that carries [`super::router`].
    pub http_port: u16,
    /// Port of the check-in and data server (TLS), for the kernel command line.
    pub data_port: u16,
    /// Hash of the data server's key in hexadecimal, for the kernel command line.
    pub pin: String,
    /// Public key that signs the server's images, in hexadecimal, for the kernel command line.
    pub signer: String,
    /// Folder with kernel, initramfs and boot loaders. Only plain files directly in it
    /// are served, by exact name.
    pub pxe_dir: PathBuf,
    /// Whether to serve TFTP on port 69.
    pub tftp: bool,
    /// How proxyDHCP takes part.
    pub proxy_dhcp: ProxyMode,
    /// Addresses that are leased; none beside a DHCP server.
    pub leases: Option<LeaseConfig>,
    /// More words for the kernel command line, as `console=ttyS1,9600`.
    pub extra_kernel_args: String,
}

impl NetbootConfig {
    /// The part that boot scripts and boot files need.
    /// A firmware segment is used from the next start of the server on.
    pub fn boot_config(&self) -> BootConfig {
        let mut initrds = vec![INITRAMFS_FILE.to_owned()];
        if self.pxe_dir.join(FIRMWARE_FILE).is_file() {
            initrds.push(FIRMWARE_FILE.to_owned());
        }
        BootConfig {
            server_ip: self.server_ip,
            http_port: self.http_port,
            data_port: self.data_port,
            pin: self.pin.clone(),
            signer: self.signer.clone(),
            pxe_dir: self.pxe_dir.clone(),
            kernel: KERNEL_FILE.to_owned(),
            initrds,
            extra_kernel_args: self.extra_kernel_args.clone(),
        }
    }

    /// Whether any DHCP packet is answered.
    pub fn answers_dhcp(&self) -> bool {
        self.proxy_dhcp != ProxyMode::Off || self.leases.is_some()
    }

    /// Refuses ranges that could not be leased.
    ///
    /// # Errors
    /// [`NetbootError::Config`] names the setting.
    pub fn check_leases(&self) -> Result<(), NetbootError> {
        let Some(leases) = &self.leases else {
            return Ok(());
        };
        if self.proxy_dhcp == ProxyMode::Only4011 {
            return Err(NetbootError::Config {
                setting: "--dhcp-range",
                why: "addresses are leased on port 67, and --proxy-dhcp 4011 leaves that to another server"
                    .to_owned(),
            });
        }
        let own = super::lessor::own_prefix(self.server_ip);
        super::lessor::pools(leases, self.server_ip, own).map(drop)
    }
}

/// Name of the kernel in the PXE folder.
pub const KERNEL_FILE: &str = "vmlinuz";
/// Name of the initramfs in the PXE folder.
pub const INITRAMFS_FILE: &str = "initramfs.img";

/// Name of the initramfs segment with firmware for cards that need blobs; optional.
pub const FIRMWARE_FILE: &str = "firmware.img";

/// What boot scripts and boot files are made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootConfig {
    /// The server's address as machines reach it.
    pub server_ip: Ipv4Addr,
    /// Port of the plain HTTP server.
    pub http_port: u16,
    /// Port of the check-in and data server (TLS).
    pub data_port: u16,
    /// Hash of the data server's key in hexadecimal; empty = no `deploy.pin=`.
    pub pin: String,
    /// Public key that signs the server's images, in hexadecimal; empty = no `deploy.signer=`.
    pub signer: String,
    /// Folder with kernel, initramfs and boot loaders.
    pub pxe_dir: PathBuf,
    /// Kernel's file name in `pxe_dir`.
    pub kernel: String,
    /// Initramfs segments in `pxe_dir`, in order.
    pub initrds: Vec<String>,
    /// More words for the kernel command line.
    pub extra_kernel_args: String,
}

impl BootConfig {
    /// Start of every boot URL, without a slash at the end. Full addresses everywhere:
    /// beside a foreign DHCP server, iPXE's `${next-server}` is that one, not us.
    pub fn base_url(&self) -> String {
        format!("http://{}:{}/boot", self.server_ip, self.http_port)
    }

    /// Refuses what could not work, or would break out of a script line.
    ///
    /// # Errors
    /// [`NetbootError::Config`] names the setting.
    pub fn check(&self) -> Result<(), NetbootError> {
        let refuse =
            |setting: &'static str, why: String| Err(NetbootError::Config { setting, why });
        if self.server_ip.is_unspecified()
            || self.server_ip.is_broadcast()
            || self.server_ip.is_multicast()
        {
            return refuse(
                "server address",
                format!("{} is no address that machines can reach", self.server_ip),
            );
        }
        for (setting, value) in [("pin", &self.pin), ("signer", &self.signer)] {
            if !value.bytes().all(|b| b.is_ascii_hexdigit()) {
                return refuse(setting, "it must be hexadecimal".to_owned());
            }
        }
        if let Some(name) = self
            .initrds
            .iter()
            .chain([&self.kernel])
            .find(|name| !is_boot_file_name(name))
        {
            return refuse("boot file", format!("\"{name}\" is no name of a boot file"));
        }
        let args = &self.extra_kernel_args;
        let breaks_line = args.chars().any(|c| !(' '..='~').contains(&c) || c == '$');
        if breaks_line
            || args
                .split(' ')
                .any(|word| matches!(word, "||" | "&&" | ";") || word.starts_with('#'))
        {
            return refuse(
                "kernel arguments",
                "only printable ASCII without \"$\", and no word that iPXE takes as a separator"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{BootConfig, NetbootConfig, ProxyMode};
    use std::net::Ipv4Addr;
    use std::path::Path;

    pub(crate) fn sample(pxe_dir: &Path) -> NetbootConfig {
        NetbootConfig {
            interface: None,
            server_ip: Ipv4Addr::new(10, 99, 0, 1),
            http_port: 26500,
            data_port: 26501,
            pin: "00ff".to_owned(),
            signer: "11ee".to_owned(),
            pxe_dir: pxe_dir.to_owned(),
            tftp: true,
            proxy_dhcp: ProxyMode::On,
            leases: None,
            extra_kernel_args: String::new(),
        }
    }

    fn boot() -> BootConfig {
        sample(Path::new("/srv/pxe")).boot_config()
    }

    #[test]
    fn urls_name_the_server_in_full() {
        assert_eq!(boot().base_url(), "http://10.99.0.1:26500/boot");
    }

    #[test]
    fn a_firmware_segment_follows_the_initramfs_if_it_is_there() {
        assert_eq!(boot().initrds, ["initramfs.img"]);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("firmware.img"), b"x").unwrap();
        let with = sample(folder.path()).boot_config();
        assert_eq!(with.initrds, ["initramfs.img", "firmware.img"]);
    }

    #[test]
    fn sound_settings_pass() {
        assert!(boot().check().is_ok());
        let args = BootConfig {
            extra_kernel_args: "console=ttyS1,9600 quiet a=b;c".to_owned(),
            ..boot()
        };
        assert!(args.check().is_ok());
    }

    #[test]
    fn settings_that_would_break_scripts_are_refused() {
        let broken = [
            BootConfig {
                server_ip: Ipv4Addr::UNSPECIFIED,
                ..boot()
            },
            BootConfig {
                server_ip: Ipv4Addr::BROADCAST,
                ..boot()
            },
            BootConfig {
                pin: "not hex".to_owned(),
                ..boot()
            },
            BootConfig {
                signer: "x y".to_owned(),
                ..boot()
            },
            BootConfig {
                kernel: "../vmlinuz".to_owned(),
                ..boot()
            },
            BootConfig {
                initrds: vec!["a b".to_owned()],
                ..boot()
            },
            BootConfig {
                extra_kernel_args: "a\nshell".to_owned(),
                ..boot()
            },
            BootConfig {
                extra_kernel_args: "a || shell".to_owned(),
                ..boot()
            },
            BootConfig {
                extra_kernel_args: "${net0/mac}".to_owned(),
                ..boot()
            },
        ];
        for config in broken {
            assert!(config.check().is_err(), "{config:?}");
        }
    }
}
