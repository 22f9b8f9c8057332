//! What goes into the initramfs, and nothing else.
//!
//! `base` is the system: the imager as `/init`, a busybox for the rescue shell,
//! and the few nodes and directories that exist before `/init` mounts anything.
//! `tree` packs a directory (firmware, driver packs) as a segment of its own.
//! Does not own the archive's bytes (`newc`).

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::newc::Node;

/// One member: path inside the initramfs, and what it is.
pub type Member = (String, Node);

/// Without this file `localhost` does not resolve in a system that has no resolver.
const HOSTS: &[u8] = b"127.0.0.1 localhost\n::1 localhost\n";

/// The rescue shell looks commands up under these names.
const APPLETS: [&str; 30] = [
    "sh", "ash", "cat", "cp", "dd", "df", "dmesg", "free", "grep", "hexdump", "ip", "kill", "less",
    "ln", "ls", "mkdir", "mount", "mv", "nslookup", "ping", "ps", "rm", "route", "sync", "top",
    "umount", "uname", "vi", "wget", "blkid",
];

/// The system itself, in the order in which it is packed (parents first).
///
/// # Errors
/// When one of the two programs cannot be read.
pub fn base(init: &Path, busybox: &Path) -> io::Result<Vec<Member>> {
    let mut members: Vec<Member> = Vec::new();
    for directory in [
        "bin", "dev", "etc", "lib", "mnt", "proc", "root", "run", "sys", "tmp",
    ] {
        members.push((directory.to_owned(), Node::Directory(0o755)));
    }
    // The kernel opens /dev/console for /init before devtmpfs is mounted.
    members.push(("dev/console".to_owned(), Node::CharDevice(0o600, 5, 1)));
    members.push(("dev/null".to_owned(), Node::CharDevice(0o666, 1, 3)));
    members.push(("etc/hosts".to_owned(), Node::File(0o644, HOSTS.to_vec())));
    members.push(("init".to_owned(), Node::File(0o755, read(init)?)));
    members.push(("bin/busybox".to_owned(), Node::File(0o755, read(busybox)?)));
    for applet in APPLETS {
        members.push((format!("bin/{applet}"), Node::Symlink("busybox".to_owned())));
    }
    members.push(("bin/imager".to_owned(), Node::Symlink("/init".to_owned())));
    Ok(members)
}

/// Everything below `root`, sorted by name, placed under `prefix`.
///
/// # Errors
/// When something below `root` cannot be read or is neither file, directory nor link.
pub fn tree(root: &Path, prefix: &str) -> io::Result<Vec<Member>> {
    let mut members = Vec::new();
    let mut parent = String::new();
    for part in prefix.split('/').filter(|part| !part.is_empty()) {
        if !parent.is_empty() {
            parent.push('/');
        }
        parent.push_str(part);
        members.push((parent.clone(), Node::Directory(0o755)));
    }
    collect(root, &parent, &mut members)?;
    Ok(members)
}

fn collect(directory: &Path, prefix: &str, members: &mut Vec<Member>) -> io::Result<()> {
    let mut names = fs::read_dir(directory)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort();
    for name in names {
        let source = directory.join(&name);
        let text = name.to_str().ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{}: name is not UTF-8", source.display()),
            )
        })?;
        let inside = if prefix.is_empty() {
            text.to_owned()
        } else {
            format!("{prefix}/{text}")
        };
        let meta = fs::symlink_metadata(&source)?;
        let mode = meta.permissions().mode() & 0o777;
        if meta.is_dir() {
            members.push((inside.clone(), Node::Directory(mode)));
            collect(&source, &inside, members)?;
        } else if meta.is_symlink() {
            let to = fs::read_link(&source)?;
            members.push((inside, Node::Symlink(to.to_string_lossy().into_owned())));
        } else if meta.is_file() {
            members.push((inside, Node::File(mode, read(&source)?)));
        } else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{}: neither file, directory nor link", source.display()),
            ));
        }
    }
    Ok(())
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    fs::read(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::Path;

    use super::{base, tree};
    use crate::newc::Node;

    #[test]
    fn every_parent_comes_before_its_children() {
        let members = base(Path::new("/proc/self/exe"), Path::new("/proc/self/exe")).unwrap();
        let mut seen = HashSet::new();
        for (path, node) in &members {
            if let Some((parent, _)) = path.rsplit_once('/') {
                assert!(seen.contains(parent), "{path} before {parent}");
            }
            assert!(seen.insert(path.clone()), "{path} twice");
            if path == "init" {
                assert!(matches!(node, Node::File(0o755, _)));
            }
        }
        assert!(seen.contains("init") && seen.contains("dev/console"));
    }

    #[test]
    fn a_tree_is_sorted_and_keeps_links() {
        let folder = std::env::temp_dir().join(format!("initrd-tree-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("b")).unwrap();
        std::fs::write(folder.join("b/z"), b"z").unwrap();
        std::fs::write(folder.join("b/a"), b"a").unwrap();
        std::os::unix::fs::symlink("b/z", folder.join("a")).unwrap();
        let members = tree(&folder, "lib/firmware").unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "lib",
                "lib/firmware",
                "lib/firmware/a",
                "lib/firmware/b",
                "lib/firmware/b/a",
                "lib/firmware/b/z"
            ]
        );
        assert_eq!(members[2].1, Node::Symlink("b/z".to_owned()));
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = base(Path::new("/nowhere/imager"), Path::new("/proc/self/exe")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/imager"));
    }
}
