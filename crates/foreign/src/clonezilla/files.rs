//! Which files of the folder hold what, by their names.
//!
//! Owns: the meaning of names like `sda1.ext4-ptcl-img.gz.aa`, and that the pieces of one are
//! all there. Does not own: what is in them.

/// What holds a partition's contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A partclone image.
    Partclone,
    /// The bytes of the partition.
    Raw,
    /// The UUID and label of swap space.
    Swap,
    /// Something that is not read.
    Other,
}

/// The files of one partition, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// What they hold together.
    pub content: Content,
    /// Their names.
    pub files: Vec<String>,
}

/// The number of a partition by its name on a disk of that name, as `sda12` or `nvme0n1p2`.
pub fn partition_number(disk: &str, name: &str) -> Option<u32> {
    let rest = name.strip_prefix(disk)?;
    let digits = match disk.ends_with(|c: char| c.is_ascii_digit()) {
        true => rest.strip_prefix('p')?,
        false => rest,
    };
    let all = digits.bytes().all(|b| b.is_ascii_digit());
    (all && !digits.starts_with('0')).then(|| digits.parse().ok())?
}

/// The name of a partition, as `sda12` or `nvme0n1p2`.
pub fn partition_name(disk: &str, number: u32) -> String {
    let between = if disk.ends_with(|c: char| c.is_ascii_digit()) {
        "p"
    } else {
        ""
    };
    format!("{disk}{between}{number}")
}

/// The files that hold a partition, among all names of the folder.
///
/// # Errors
/// What is wrong, as a sentence: nothing there, pieces missing, two kinds at once.
pub fn contents(partition: &str, all: &[String]) -> Result<Parts, String> {
    let mut found: Vec<(Content, &str, &str, &String)> = Vec::new();
    for name in all {
        if let Some((content, stem, piece)) = meaning(partition, name) {
            found.push((content, stem, piece, name));
        }
    }
    found.sort_by_key(|(.., name)| name.len());
    found.sort_by(|a, b| (a.2.len(), a.2).cmp(&(b.2.len(), b.2)));
    let Some(&(content, stem, piece, _)) = found.first() else {
        return Err(format!("no file holds {partition}"));
    };
    if let Some(other) = found.iter().find(|f| (f.0, f.1) != (content, stem)) {
        return Err(format!("{stem} and {} both hold {partition}", other.3));
    }
    let whole = piece.is_empty() && found.len() == 1;
    let in_order = |(n, f): (usize, &(Content, &str, &str, &String))| piece_number(f.2) == Some(n);
    if !whole && !found.iter().enumerate().all(in_order) {
        return Err(format!("pieces of {stem} are missing"));
    }
    Ok(Parts {
        content,
        files: found.iter().map(|f| f.3.clone()).collect(),
    })
}

/// What a file holds of the partition: its name without the piece, and the piece.
fn meaning<'a>(partition: &str, name: &'a str) -> Option<(Content, &'a str, &'a str)> {
    if let Some(info) = name.strip_prefix("swappt-") {
        let of_it = info.strip_suffix(".info") == Some(partition);
        return of_it.then_some((Content::Swap, name, ""));
    }
    let rest = name.strip_prefix(partition)?.strip_prefix('.')?;
    if rest == "info" {
        return None; // what the file system's tool said, for people
    }
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_piece = last.len() == 2 && last.bytes().all(|b| b.is_ascii_lowercase());
    // Compressions have two letters, too.
    let is_piece = is_piece && !matches!(last, "gz" | "xz" | "lz");
    let (stem, piece) = match is_piece {
        true => (&name[..name.len() - 3], last),
        false => (name, ""),
    };
    let image = rest.split('.').next().unwrap_or_default();
    let content = match image {
        "dd-img" => Content::Raw,
        image if image.ends_with("-ptcl-img") => Content::Partclone,
        _ => Content::Other,
    };
    Some((content, stem, piece))
}

/// 0 for `aa`, 1 for `ab` and so on.
fn piece_number(piece: &str) -> Option<usize> {
    match piece.as_bytes() {
        &[a @ b'a'..=b'z', b @ b'a'..=b'z'] => {
            Some(usize::from(a - b'a') * 26 + usize::from(b - b'a'))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Content, contents, partition_name, partition_number};

    #[test]
    fn numbers_by_names() {
        let number = partition_number;
        assert_eq!(number("sda", "sda12"), Some(12));
        assert_eq!(number("nvme0n1", "nvme0n1p2"), Some(2));
        assert_eq!(partition_name("nvme0n1", 2), "nvme0n1p2");
        assert_eq!(partition_name("sda", 12), "sda12");
        for (disk, name) in [
            ("sda", "sda"),
            ("sda", "sdb1"),
            ("sda", "sdap1"),
            ("sda", "sda01"),
            ("nvme0n1", "nvme0n12"),
            ("sd", "sda1"),
            ("sda", "sda99999999999"),
        ] {
            assert_eq!(number(disk, name), None, "{name}");
        }
    }

    fn of(names: &[&str]) -> Result<(Content, usize), String> {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        contents("sda1", &names).map(|parts| (parts.content, parts.files.len()))
    }

    #[test]
    fn the_pieces_of_a_partition_are_all_there() {
        let gz = |piece: &str| format!("sda1.ext4-ptcl-img.gz.{piece}");
        let (a, b, c) = (gz("aa"), gz("ab"), gz("ac"));
        assert_eq!(
            of(&[&c, "sda1.info", &a, "sda12.vfat-ptcl-img.gz.aa", &b]),
            Ok((Content::Partclone, 3))
        );
        assert_eq!(
            of(&["sda1.ntfs-ptcl-img.zst", "disk"]),
            Ok((Content::Partclone, 1))
        );
        assert_eq!(of(&["sda1.dd-img.aa"]), Ok((Content::Raw, 1)));
        assert_eq!(of(&["sda1.dd-ptcl-img.gz.aa"]), Ok((Content::Partclone, 1)));
        assert_eq!(of(&["swappt-sda1.info"]), Ok((Content::Swap, 1)));
        assert_eq!(of(&["sda1.ntfs-img.gz.aa"]), Ok((Content::Other, 1)));
        for wrong in [
            &[&a[..], &c][..],
            &[&b],
            &[],
            &["sda1.ext4-ptcl-img.gz", &a],
            &["sda1.dd-img.aa", &a],
        ] {
            assert!(of(wrong).is_err(), "{wrong:?}");
        }
    }
}
