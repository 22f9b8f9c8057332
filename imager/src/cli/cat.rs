//! `imager cat`.
//!
//! Owns: its options, and a file's way to standard output. Does not own: reading it.

use super::Output;
use super::inside::Inside;
use crate::extract::shown;
use crate::files::path::find;
use crate::files::{self, Fail, Kind, Piece};
use crate::progress::Silent;
use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use wire::{Code, DiskState, Report};

/// Options of `imager cat`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    inside: Inside,
    /// File in the image
    path: OsString,
}

/// Writes a file of an image to standard output.
pub fn run(args: &Args) -> Result<Output, Report> {
    args.inside.with(&Silent, |opened| {
        let path = args.path.as_bytes();
        let report = |fail: Fail| fail.report(&shown(&opened.label, path));
        let found = find(opened.tree, path, true).map_err(report)?;
        if found.node.kind != Kind::File {
            let what = found.node.kind.as_str();
            return Err(report(Fail::Kind(format!("is no file but a {what}"))));
        }
        let mut out = std::io::stdout().lock();
        let zeros = vec![0; 64 << 10];
        let mut enough = false;
        let read = files::read(opened.tree, &found.node, &mut |piece| {
            let mut write = |bytes: &[u8]| {
                out.write_all(bytes).map_err(|e| {
                    enough = e.kind() == ErrorKind::BrokenPipe;
                    let found = format!("standard output: {e}");
                    let report = Report::new(Code::OutputFailed, found, DiskState::NotInvolved);
                    Fail::Output(Box::new(report))
                })
            };
            match piece {
                Piece::Data(bytes) => write(bytes),
                Piece::Hole(mut len) => {
                    while len > 0 {
                        let part = len.min(zeros.len() as u64);
                        write(&zeros[..part as usize])?;
                        len -= part;
                    }
                    Ok(())
                }
            }
        });
        // A reader that has enough (`| head`) is no failure.
        if !enough {
            read.map_err(report)?;
            let flushed = out.flush();
            flushed.map_err(|e| {
                let found = format!("standard output: {e}");
                Report::new(Code::OutputFailed, found, DiskState::NotInvolved)
            })?;
        }
        Ok(Output {
            text: String::new(),
            json: serde_json::Value::Null,
            aside: false,
        })
    })
}
