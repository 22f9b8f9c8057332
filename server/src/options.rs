//! Options of `deployd`.
//!
//! Owns: their names and defaults. Does not own: what they change.

use crate::netboot::dhcp::pool::AddressRange;
use clap::{Parser, ValueEnum};
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// The management server: boots machines over the network, stores images, runs backups
/// and restores.
#[derive(Clone, Debug, Parser)]
#[command(name = "deployd", version)]
pub struct Options {
    /// Folder of the database, keys, logs and old partition tables.
    #[arg(long, env = "DEPLOYD_STATE", default_value = "/var/lib/deployd")]
    pub state: PathBuf,
    /// Folder of the images [default: STATE/images].
    #[arg(long, env = "DEPLOYD_IMAGES")]
    pub images: Option<PathBuf>,
    /// Interface that machines boot on [default: the one with --address].
    #[arg(long, env = "DEPLOYD_INTERFACE")]
    pub interface: Option<String>,
    /// The server's address as machines reach it [default: the interface's].
    #[arg(long, env = "DEPLOYD_ADDRESS")]
    pub address: Option<Ipv4Addr>,
    /// Port of boot scripts, and of the console on this host (plain HTTP).
    #[arg(long, env = "DEPLOYD_HTTP_PORT", default_value_t = wire::PORT_CONSOLE)]
    pub http_port: u16,
    /// Port of check-in, image data and console (TLS).
    #[arg(long, env = "DEPLOYD_DATA_PORT", default_value_t = wire::PORT_DATA)]
    pub data_port: u16,
    /// Folder with boot loaders, kernel and initramfs [default: STATE/pxe].
    #[arg(long, env = "DEPLOYD_PXE_DIR")]
    pub pxe_dir: Option<PathBuf>,
    /// Answer network boots beside the DHCP server: on ports 67 and 4011, not at all, or on
    /// 4011 only (DHCP server on this host).
    #[arg(long, env = "DEPLOYD_PROXY_DHCP", value_enum, default_value_t = ProxyDhcp::On)]
    pub proxy_dhcp: ProxyDhcp,
    /// Lease these addresses: for a closed network without another DHCP server, as
    /// 10.0.0.100-10.0.0.199; several with commas, those behind relays with their subnet, as
    /// 10.1.0.100-10.1.0.199/24. Nothing is leased while another server answers.
    #[arg(
        long,
        env = "DEPLOYD_DHCP_RANGE",
        value_name = "FIRST-LAST",
        value_delimiter = ','
    )]
    pub dhcp_range: Vec<AddressRange>,
    /// Router that clients are told, one for each subnet that has one.
    #[arg(
        long,
        env = "DEPLOYD_DHCP_ROUTER",
        value_delimiter = ',',
        requires = "dhcp_range"
    )]
    pub dhcp_router: Vec<Ipv4Addr>,
    /// Name servers that clients are told.
    #[arg(
        long,
        env = "DEPLOYD_DHCP_DNS",
        value_delimiter = ',',
        requires = "dhcp_range"
    )]
    pub dhcp_dns: Vec<Ipv4Addr>,
    /// Seconds of a lease.
    #[arg(long, env = "DEPLOYD_DHCP_LEASE", default_value_t = 3600, value_parser = clap::value_parser!(u32).range(120..=31_536_000))]
    pub dhcp_lease: u32,
    /// Boot loader of UEFI machines. GRUB finds its server only by leases of this server
    /// (--dhcp-range) and on port 26500.
    #[arg(long, env = "DEPLOYD_BOOT_LOADER", value_enum, default_value_t = BootLoader::Ipxe)]
    pub boot_loader: BootLoader,
    /// Serve the first boot file by TFTP.
    #[arg(long, env = "DEPLOYD_TFTP", value_enum, default_value_t = Switch::On)]
    pub tftp: Switch,
    /// More words for the Deploy-OS's kernel command line.
    #[arg(long, env = "DEPLOYD_KERNEL_ARGS", default_value = "")]
    pub kernel_args: String,
    /// Database [default: sqlite in STATE].
    #[arg(long, env = "DEPLOYD_DATABASE")]
    pub database: Option<String>,
    /// Most unicast transfers at a time; others wait in line.
    #[arg(long, env = "DEPLOYD_MAX_TRANSFERS", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub max_transfers: u16,
    /// Seconds without a report after which a machine is called silent.
    #[arg(long, env = "DEPLOYD_SILENT_AFTER", default_value_t = 120, value_parser = clap::value_parser!(u32).range(5..=86_400))]
    pub silent_after: u32,
    /// Seconds in which a machine that booted must check in and begin its transfer.
    #[arg(long, env = "DEPLOYD_START_WITHIN", default_value_t = 900, value_parser = clap::value_parser!(u32).range(600..=86_400))]
    pub start_within: u32,
    /// Read everything that is stored again after so many days; 0: only when asked to.
    #[arg(long, env = "DEPLOYD_SCRUB_DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=3650))]
    pub scrub_days: u32,
    /// Bytes a second that a scrub reads at most, as 50M; 0: no limit.
    #[arg(long, env = "DEPLOYD_SCRUB_RATE", default_value = "50M", value_parser = wire::size::parse)]
    pub scrub_rate: u64,
    /// Make the index of the image folder anew from its packs and manifests, then end: for a
    /// database that was lost or is older than the folder.
    #[arg(long)]
    pub rebuild_index: bool,
    /// What is logged to standard error, as "info" or "server=debug".
    #[arg(long, env = "DEPLOYD_LOG", default_value = "info")]
    pub log: String,
}

/// How proxyDHCP takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProxyDhcp {
    /// On ports 67 and 4011.
    On,
    /// Not at all.
    Off,
    /// On port 4011 only.
    #[value(name = "4011")]
    Only4011,
}

/// Boot loader of UEFI machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BootLoader {
    /// iPXE.
    Ipxe,
    /// GRUB.
    Grub,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

impl Options {
    /// Folder of the images.
    pub fn images_dir(&self) -> PathBuf {
        self.images
            .clone()
            .unwrap_or_else(|| self.state.join("images"))
    }

    /// Folder of the boot files.
    pub fn pxe_dir(&self) -> PathBuf {
        self.pxe_dir
            .clone()
            .unwrap_or_else(|| self.state.join("pxe"))
    }

    /// URL of the database.
    pub fn database_url(&self) -> String {
        self.database
            .clone()
            .unwrap_or_else(|| format!("sqlite://{}", self.state.join("deployd.sqlite").display()))
    }

    /// Whether machines can boot over the network at all.
    pub fn netboot(&self) -> bool {
        self.proxy_dhcp != ProxyDhcp::Off || self.tftp == Switch::On || !self.dhcp_range.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::{Options, ProxyDhcp};
    use clap::{CommandFactory, Parser};

    #[test]
    fn options_are_sound_and_have_their_defaults() {
        Options::command().debug_assert();
        let options = Options::parse_from(["deployd", "--proxy-dhcp", "4011", "--state", "/s"]);
        assert_eq!(
            (options.http_port, options.data_port, options.max_transfers),
            (26500, 26501, 5)
        );
        assert_eq!(options.proxy_dhcp, ProxyDhcp::Only4011);
        assert_eq!(options.database_url(), "sqlite:///s/deployd.sqlite");
        assert!(Options::try_parse_from(["deployd", "--max-transfers", "0"]).is_err());
        let ranges = "10.0.0.100-10.0.0.199,10.1.0.5-10.1.0.9/24";
        let options = Options::parse_from(["deployd", "--dhcp-range", ranges]);
        assert_eq!((options.dhcp_range.len(), options.dhcp_lease), (2, 3600));
        for wrong in [
            ["deployd", "--dhcp-range", "10.0.0.9-10.0.0.1"],
            ["deployd", "--dhcp-router", "10.0.0.1"],
            ["deployd", "--dhcp-lease", "1"],
        ] {
            assert!(Options::try_parse_from(wrong).is_err(), "{wrong:?}");
        }
    }
}
