//! Network boot: proxyDHCP, TFTP, boot scripts and boot files.
