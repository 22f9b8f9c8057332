//! From kernel start to check-in, beside the same kernel with a minimal initramfs.
//!
//! Owns: the peer (busybox: DHCP on the one card, then a fetch of the same server's boot
//! script) and the comparison. Does not own: the site and its machines.
//!
//! Both are started by QEMU directly with the same kernel, memory and card, in turns;
//! times are the guest's own, from kernel start.

use crate::setting;
use e2e::built::Built;
use e2e::machines::LIMIT;
use e2e::site::{SERVER, Site, TAPS};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use testkit::qemu::{Firmware, Nic, Spec};

/// Printed by the peer with its uptime.
const PEER_MARKER: &str = "PEER FETCHED ";
/// Printed by ours with its uptime.
const OUR_MARKER: &str = "deploy-os: check-in ";

/// Measures and prints the comparison.
pub fn measure(built: &Built) -> io::Result<()> {
    let runs = setting("BENCH_RUNS", 5);
    let accelerator = built.accelerator()?;
    let site = Site::new(built, "bench-boot")?;
    let folder = tempfile::tempdir()?;
    let peer = folder.path().join("peer.img");
    make_peer(&peer)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for run in 0..runs {
        for (name, initramfs, marker, times) in [
            (
                "ours",
                built.pxe().join("initramfs.img"),
                OUR_MARKER,
                &mut ours,
            ),
            ("peer", peer.clone(), PEER_MARKER, &mut theirs),
        ] {
            let mut spec = Spec::new(&format!("{name}-{run}"), Firmware::Bios, accelerator);
            spec.nics.push(Nic::new(TAPS[0], "52:54:00:be:00:01"));
            let arguments = format!(
                "console=ttyS0,115200 panic=30 deploy.server=https://{SERVER}:26501 deploy.pin={}",
                site.pin()?
            );
            spec.kernel = Some((built.pxe().join("vmlinuz"), initramfs, arguments));
            let mut machine = spec.start(|qemu| site.command(qemu), site.logs())?;
            machine.wait_for(marker, LIMIT)?;
            times.push(seconds_after(&machine.console()?, marker)?);
        }
    }
    let (ours, theirs) = (median(&mut ours), median(&mut theirs));
    println!(
        "\nKernel start to check-in, {accelerator:?}, 768 MiB, virtio card (median of {runs})"
    );
    println!("  {:<44} {ours:>7.2} s", "imager as /init: first check-in");
    println!(
        "  {:<44} {theirs:>7.2} s",
        "busybox: DHCP and a fetch from the same server"
    );
    println!("  ratio {:.2}", ours / theirs);
    Ok(())
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The number that stands behind a marker in a console's log.
fn seconds_after(log: &str, marker: &str) -> io::Result<f64> {
    let rest = log.split(marker).nth(1).unwrap_or_default();
    let number: String = rest
        .chars()
        .skip_while(|c| !c.is_ascii_digit())
        .take_while(|c| c.is_ascii_digit() || *c == '.')
        .collect();
    number
        .parse()
        .map_err(|_| io::Error::other(format!("no time behind {marker:?} in the console's log")))
}

/// An initramfs of busybox and a script.
fn make_peer(path: &Path) -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let root = folder.path();
    for name in ["bin", "proc", "sys", "dev", "etc"] {
        fs::create_dir(root.join(name))?;
    }
    fs::copy("/bin/busybox", root.join("bin/busybox"))?;
    let lease = "#!/bin/busybox sh\n[ \"$1\" = bound ] && /bin/busybox ip addr add $ip/$mask dev $interface\nexit 0\n";
    let init = format!(
        "#!/bin/busybox sh\n\
         B=/bin/busybox\n\
         $B mount -t proc proc /proc; $B mount -t sysfs sysfs /sys; $B mount -t devtmpfs dev /dev\n\
         $B ip link set eth0 up\n\
         $B udhcpc -i eth0 -q -n -s /lease -t 20 -T 1 > /dev/null 2>&1\n\
         $B wget -q -O /dev/null http://{SERVER}:26500/boot/boot.ipxe && \
         echo \"{PEER_MARKER}$($B cut -d' ' -f1 /proc/uptime) s\" > /dev/console\n\
         $B poweroff -f\n"
    );
    for (name, text) in [("init", init.as_str()), ("lease", lease)] {
        fs::write(root.join(name), text)?;
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o755))?;
    }
    let script = format!(
        "cd {} && find . | LC_ALL=C sort | cpio -o -H newc --quiet | zstd -q -19 -f -o {}",
        root.display(),
        path.display()
    );
    let status = Command::new("bash").args(["-ec", &script]).status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other("packing the peer's initramfs failed"))
    }
}
