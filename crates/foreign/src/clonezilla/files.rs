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
    /// Whether the names say that they are not compressed.
    pub plain: bool,
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

/// The partition that a file holds by its name: what stands in front of `.FS-img`, or swap
/// space.
pub fn partition_of(name: &str) -> Option<&str> {
    if let Some(info) = name.strip_prefix("swappt-") {
        return info.strip_suffix(".info");
    }
    let (partition, rest) = name.split_once('.')?;
    let image = rest.split('.').next().unwrap_or_default();
    image.ends_with("-img").then_some(partition)
}

/// A file of a partition.
struct Found<'a> {
    content: Content,
    /// It is not compressed, by its name.
    plain: bool,
    /// The name without the piece.
    stem: &'a str,
    piece: &'a str,
    name: &'a String,
}

/// The files that hold a partition, among all names of the folder.
///
/// # Errors
/// What is wrong, as a sentence: nothing there, pieces missing, two kinds at once.
pub fn contents(partition: &str, all: &[String]) -> Result<Parts, String> {
    let of_it = |name: &&String| meaning(partition, name, true).is_some();
    let names: Vec<&String> = all.iter().filter(of_it).collect();
    // One word behind the image is a compression or a piece: of several files each is one.
    let alone = names.len() == 1;
    let mut found: Vec<Found<'_>> = names
        .into_iter()
        .filter_map(|name| meaning(partition, name, alone))
        .collect();
    found.sort_by_key(|f| (f.piece.len(), f.piece));
    let Some(Found {
        content,
        plain,
        stem,
        ..
    }) = found.first()
    else {
        return Err(format!("no file holds {partition}"));
    };
    if let Some(other) = found
        .iter()
        .find(|f| (f.content, f.stem) != (*content, *stem))
    {
        return Err(format!("{stem} and {} both hold {partition}", other.name));
    }
    let whole = found.len() == 1 && found[0].piece.is_empty();
    let pieces: Vec<&str> = found.iter().map(|f| f.piece).collect();
    if !whole && !are_all(&pieces) {
        return Err(format!("pieces of {stem} are missing"));
    }
    Ok(Parts {
        content: *content,
        plain: *plain,
        files: found.iter().map(|f| f.name.clone()).collect(),
    })
}

/// What a file holds of the partition, if it holds any: `PARTITION.FS-img[.COMPRESSION][.PIECE]`.
/// Names of compressions are those of pieces, too; `alone` takes them for compressions.
fn meaning<'a>(partition: &str, name: &'a String, alone: bool) -> Option<Found<'a>> {
    let whole = |content| Found {
        content,
        plain: true,
        stem: name,
        piece: "",
        name,
    };
    if let Some(info) = name.strip_prefix("swappt-") {
        let of_it = info.strip_suffix(".info") == Some(partition);
        return of_it.then(|| whole(Content::Swap));
    }
    let rest = name.strip_prefix(partition)?.strip_prefix('.')?;
    if rest == "info" {
        return None; // what the file system's tool said, for people
    }
    let words: Vec<&str> = rest.split('.').collect();
    let content = match words[0] {
        "dd-img" => Content::Raw,
        image if image.ends_with("-ptcl-img") => Content::Partclone,
        _ => Content::Other,
    };
    let is_packing = |word: &str| PACKINGS.contains(&word);
    let piece = match words[1..] {
        [] => "",
        [word] if is_packing(word) && (alone || !is_piece(word)) => "",
        [word] | [_, word] if is_piece(word) => word,
        _ => return Some(whole(Content::Other)),
    };
    let stem = match piece.len() {
        0 => name.as_str(),
        len => &name[..name.len() - len - 1],
    };
    let packing = match words[1..] {
        [packing, _] => Some(packing),
        [packing] if piece.is_empty() => Some(packing),
        _ => None,
    };
    Some(Found {
        content,
        plain: packing.is_none_or(|word| word == "uncomp"),
        stem,
        piece,
        name,
    })
}

/// Endings of compressed files that Clonezilla writes.
const PACKINGS: [&str; 10] = [
    "gz", "bz2", "xz", "lz", "lzo", "lzma", "lz4", "lrz", "zst", "uncomp",
];

/// Whether `split` may have put that behind a name.
fn is_piece(word: &str) -> bool {
    (2..=8).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_lowercase())
}

/// Whether pieces, sorted by length and text, are all that there were, up to the last.
fn are_all(pieces: &[&str]) -> bool {
    let same = pieces.first().map(|p| p.len()) == pieces.last().map(|p| p.len());
    let number = |piece: &str| match same {
        true => Some(digits(piece)),
        false => lengthened(piece),
    };
    (0u64..)
        .zip(pieces)
        .all(|(n, piece)| number(piece) == Some(n))
}

/// `aa` is 0, `ab` is 1, and so on.
fn digits(letters: &str) -> u64 {
    letters
        .bytes()
        .fold(0, |n, b| n * 26 + u64::from(b.saturating_sub(b'a')))
}

/// The same where `split` was not told how long they are: behind `yz` comes `zaaa`, so that
/// each longer one sorts behind the shorter ones.
fn lengthened(piece: &str) -> Option<u64> {
    let level = piece.len().checked_sub(2)? / 2;
    let (zs, rest) = piece.split_at_checked(level)?;
    let fits = rest.len() == level + 2 && zs.bytes().all(|b| b == b'z') && !rest.starts_with('z');
    let before: u64 = (0..level as u32).map(|l| 25 * 26u64.pow(l + 1)).sum();
    fits.then(|| before + digits(rest))
}

#[cfg(test)]
mod tests {
    use super::{Content, contents, lengthened, partition_name, partition_number, partition_of};

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

    #[test]
    fn names_tell_what_is_not_compressed() {
        for (names, plain) in [
            (&["sda1.dd-img"][..], true),
            (&["sda1.dd-img.aa"], true),
            (&["sda1.dd-img.uncomp"], true),
            (&["sda1.dd-img.uncomp.aa"], true),
            (&["sda1.dd-img.gz"], false),
            (&["sda1.dd-img.zst.aa", "sda1.dd-img.zst.ab"], false),
        ] {
            let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
            assert_eq!(contents("sda1", &names).unwrap().plain, plain, "{names:?}");
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
        assert_eq!(of(&["sda1.ntfs-ptcl-img.lz4"]), Ok((Content::Partclone, 1)));
        assert_eq!(of(&["sda1.ntfs-ptcl-img.gz.x.y"]), Ok((Content::Other, 1)));
        for wrong in [
            &[&a[..], &c][..],
            &["sda1.dd-img.aa", "sda1.dd-img.gz"],
            &["sda1.dd-img.aa", "sda1.dd-img.aaa"],
            &[&b],
            &[],
            &["sda1.ext4-ptcl-img.gz", &a],
            &["sda1.dd-img.aa", &a],
        ] {
            assert!(of(wrong).is_err(), "{wrong:?}");
        }
    }

    /// All pieces that `split` itself makes of so many, with a length for them or without.
    #[test]
    fn pieces_with_the_names_of_compressions_are_pieces() {
        for (count, length) in [(330, "-a2"), (700, "-a3"), (700, "")] {
            let dir = tempfile::tempdir().unwrap();
            let line = format!(
                "for stem in sda1.dd-img sda1.ext4-ptcl-img.gz; do \
                 mkdir $stem && cd $stem && head -c {count} /dev/zero | split -b1 {length} - $stem. && cd ..; done"
            );
            let mut shell = std::process::Command::new("bash");
            let status = shell.args(["-ec", &line]).current_dir(dir.path()).status();
            assert!(status.unwrap().success(), "{line}");
            for stem in ["sda1.dd-img", "sda1.ext4-ptcl-img.gz"] {
                let files = std::fs::read_dir(dir.path().join(stem)).unwrap();
                let mut names: Vec<String> = files
                    .map(|file| file.unwrap().file_name().into_string().unwrap())
                    .collect();
                names.sort();
                let parts = contents("sda1", &names).unwrap();
                assert_eq!(parts.files, names, "{count} {length}");
                // One that is missing is missed, be it the one that looks like a compression.
                for gone in [0, 181, 311, count - 2] {
                    let mut rest = names.clone();
                    rest.remove(gone);
                    assert!(contents("sda1", &rest).is_err(), "{count} {length} {gone}");
                }
            }
        }
        assert_eq!(lengthened("zza"), None);
    }

    #[test]
    fn files_belong_to_partitions() {
        for (name, partition) in [
            ("sda1.ext4-ptcl-img.gz.aa", Some("sda1")),
            ("nvme0n1p2.dd-img", Some("nvme0n1p2")),
            ("swappt-sda2.info", Some("sda2")),
            ("sda1.info", None),
            ("sda-pt.sf", None),
            ("parts", None),
        ] {
            assert_eq!(partition_of(name), partition, "{name}");
        }
    }
}
