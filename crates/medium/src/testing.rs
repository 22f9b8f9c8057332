//! For tests: a medium in a file, and what others read of it.
//!
//! Owns: writing pieces, calling programs. Does not own: what is expected.

use crate::{Content, Piece};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

/// Writes pieces over a file of that size full of rubbish; `files` are the caller's.
pub(crate) fn write(path: &Path, size_bytes: u64, pieces: &[Piece], files: &[&[u8]]) {
    let file = std::fs::File::create(path).unwrap();
    file.set_len(size_bytes).unwrap();
    // What is not written must not matter.
    for at in (0..size_bytes.min(8 << 20)).step_by(4096) {
        file.write_all_at(&[0xA5; 4096], at).unwrap();
    }
    let mut end = 0;
    for piece in pieces {
        assert!(piece.at >= end && piece.len > 0, "{piece:?} after {end}");
        end = piece.at + piece.len;
        assert!(end <= size_bytes, "{piece:?} ends behind {size_bytes}");
        let length = usize::try_from(piece.len).unwrap();
        let bytes = match &piece.content {
            Content::Zeros => vec![0; length],
            Content::Bytes(bytes) => bytes.clone(),
            Content::File { index, offset } => {
                let from = usize::try_from(*offset).unwrap();
                files[*index][from..from + length].to_vec()
            }
        };
        assert_eq!(bytes.len(), length);
        file.write_all_at(&bytes, piece.at).unwrap();
    }
    file.set_len(size_bytes).unwrap();
}

/// What a program says on its standard output; it must succeed.
pub(crate) fn run(program: &str, args: &[&str]) -> Vec<u8> {
    let output = Command::new(program)
        .args(args)
        .env("MTOOLS_SKIP_CHECK", "1")
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .unwrap_or_else(|e| {
            panic!("{program}: {e}; install mtools, dosfstools, xorriso, genisoimage, grub-common")
        });
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success(),
        "{program} {args:?}: {said}{errors}"
    );
    output.stdout
}

/// As [`run`], as text.
pub(crate) fn text(program: &str, args: &[&str]) -> String {
    String::from_utf8_lossy(&run(program, args)).into_owned()
}
