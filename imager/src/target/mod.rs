//! The imager as `/init`: mounts, network, check-in, job, report, reboot.
