//! The imager as `/init`: mounts, network, check-in, job, report, reboot.

pub mod cmdline;
pub mod net;
