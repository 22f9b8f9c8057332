//! Who has a port.
//!
//! Owns: finding program and process id by way of `/proc`, for error texts. Best
//! effort: without rights to look into a process, its name is not known. Does not
//! own: what is done about it.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

/// The programs that have a UDP port open, as `dnsmasq (process 71)`.
pub fn owner_of_udp_port(port: u16) -> String {
    // Of this thread and not of the process: they may live in different namespaces.
    owner(&["/proc/thread-self/net/udp"], port)
}

/// The programs that have a TCP port open, as `nginx (process 71)`.
pub fn owner_of_tcp_port(port: u16) -> String {
    owner(
        &["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"],
        port,
    )
}

fn owner(tables: &[&str], port: u16) -> String {
    let texts = tables
        .iter()
        .map(|table| fs::read_to_string(table).unwrap_or_default());
    let inodes: HashSet<String> = texts.flat_map(|text| inodes_of_port(&text, port)).collect();
    let mut owners = holders(&inodes);
    owners.sort_unstable();
    match owners.is_empty() {
        true => "another program, whose name this process may not see".to_owned(),
        false => owners.join(", "),
    }
}

/// Socket inodes with a local port, from the text of `/proc/net/udp`.
fn inodes_of_port(table: &str, port: u16) -> HashSet<String> {
    let ending = format!(":{port:04X}");
    let of_line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let local = fields.get(1)?;
        local
            .ends_with(&ending)
            .then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
    };
    table.lines().skip(1).filter_map(of_line).collect()
}

fn holders(inodes: &HashSet<String>) -> Vec<String> {
    let links: HashSet<String> = inodes
        .iter()
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if links.is_empty() {
        return Vec::new();
    }
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .flatten()
        .filter_map(|process| holder(&process.path(), &links))
        .collect()
}

fn holder(process: &Path, links: &HashSet<String>) -> Option<String> {
    let pid: u32 = process.file_name()?.to_str()?.parse().ok()?;
    let holds = fs::read_dir(process.join("fd"))
        .ok()?
        .flatten()
        .any(|descriptor| {
            fs::read_link(descriptor.path())
                .is_ok_and(|link| links.contains(&*link.to_string_lossy()))
        });
    if !holds {
        return None;
    }
    let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
    Some(format!("{} (process {pid})", name.trim()))
}

#[cfg(test)]
mod tests {
    use super::{inodes_of_port, owner_of_udp_port};

    #[test]
    fn a_port_of_this_process_is_found() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let owner = owner_of_udp_port(socket.local_addr().unwrap().port());
        assert!(
            owner.contains(&format!("(process {})", std::process::id())),
            "{owner}"
        );
    }

    #[test]
    fn the_table_of_the_kernel_is_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                     12: 00000000:0043 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 x 0\n\
                     13: 0100007F:1043 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 x 0\n\
                     14: broken\n";
        assert_eq!(
            inodes_of_port(table, 67).into_iter().collect::<Vec<_>>(),
            ["4711"]
        );
        assert_eq!(inodes_of_port(table, 69).len(), 0);
    }
}
