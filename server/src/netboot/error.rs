//! What can go wrong at the start of network boot.
//!
//! Owns: its kinds, and the report that people read. Does not own: failures of single
//! transfers (logged where they happen; one machine's trouble stays its own).

use std::io;
use std::path::PathBuf;

use thiserror::Error;
use wire::{Code, DiskState, Report};

/// Why network boot cannot start.
#[derive(Debug, Error)]
pub enum NetbootError {
    /// A setting that cannot work.
    #[error("setting \"{setting}\": {why}")]
    Config {
        /// The setting as people know it.
        setting: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A port that another program has.
    #[error("port {port}/udp ({service}) is taken by {owner}")]
    PortTaken {
        /// The port.
        port: u16,
        /// What we want it for.
        service: &'static str,
        /// Program and process id, as far as they can be seen.
        owner: String,
    },
    /// A port that cannot be had for another reason.
    #[error("port {port}/udp ({service}) cannot be opened: {source}")]
    Port {
        /// The port.
        port: u16,
        /// What we want it for.
        service: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The PXE folder cannot be read.
    #[error("the folder {folder} cannot be read: {source}")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl NetbootError {
    /// The failure in the words that people see.
    pub fn report(&self) -> Report {
        let report = |code| Report::new(code, self.to_string(), DiskState::NotInvolved);
        match self {
            NetbootError::Config { .. } => report(Code::Usage).with_advice("Correct the setting."),
            NetbootError::PortTaken { .. } => report(Code::PortInUse),
            NetbootError::Port { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                report(Code::PortInUse).with_advice(
                    "Run the server as root, or give it CAP_NET_BIND_SERVICE and CAP_NET_RAW.",
                )
            }
            NetbootError::Port { .. } => report(Code::PortInUse)
                .with_advice("Check the server's address and interface in the settings."),
            NetbootError::Folder { .. } => report(Code::Usage).with_advice(
                "Build the boot files (./build.sh), or name their folder in the settings.",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::NetbootError;
    use wire::Code;

    #[test]
    fn a_taken_port_is_reported_with_port_and_owner() {
        let error = NetbootError::PortTaken {
            port: 69,
            service: "TFTP",
            owner: "in.tftpd (process 7)".to_owned(),
        };
        let report = error.report();
        assert_eq!(report.code, Code::PortInUse);
        assert!(report.found.contains("69/udp") && report.found.contains("in.tftpd (process 7)"));
    }

    #[test]
    fn missing_rights_are_not_told_as_a_taken_port() {
        let source = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let report = NetbootError::Port {
            port: 67,
            service: "proxyDHCP",
            source,
        }
        .report();
        assert!(report.advice.contains("root"), "{report}");
    }
}
