//! Clients of the network block device: any bytes, with knobs that make the handshake. The
//! modules stand alone, so the imager and what it links need not be built here.
#![no_main]

#[allow(dead_code)]
#[path = "../../imager/src/nbd/proto.rs"]
mod proto;
#[allow(dead_code)]
#[path = "../../imager/src/nbd/session.rs"]
mod session;

use libfuzzer_sys::fuzz_target;
use session::{Disk, Export, PIECE};
use std::io::{self, Read, Write};

const SIZE: u64 = 3 << 20;
/// Bytes that one input may be answered with.
const BUDGET: usize = 64 << 20;

struct Wire<'a> {
    input: &'a [u8],
    answered: usize,
}

impl Read for Wire<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.input.read(buf)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.answered += buf.len();
        if self.answered > BUDGET {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Every other 4 KiB is in use; one place cannot be read.
struct Pattern;

impl Disk for Pattern {
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<(), String> {
        let end = offset + buf.len() as u64;
        assert!(end <= SIZE && !buf.is_empty() && buf.len() <= PIECE);
        if (offset..end).contains(&(1 << 20)) {
            return Err("it cannot be read".to_owned());
        }
        Ok(())
    }

    fn extent(&self, offset: u64, limit: u64) -> Result<(bool, u64), String> {
        assert!(limit > 0 && offset + limit <= SIZE);
        let end = (offset | 4095) + 1;
        Ok((offset >> 12 & 1 == 0, (end - offset).min(limit)))
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&knobs, rest)) = data.split_first() else {
        return;
    };
    let mut input = Vec::new();
    if knobs & 1 != 0 {
        input.extend_from_slice(&[0, 0, 0, 3]);
    }
    if knobs & 2 != 0 {
        input.extend_from_slice(b"IHAVEOPT\0\0\0\x08\0\0\0\0");
    }
    if knobs & 4 != 0 {
        input.extend_from_slice(
            b"IHAVEOPT\0\0\0\x0a\0\0\0\x1b\0\0\0\0\0\0\0\x01\0\0\0\x0fbase:allocation",
        );
    }
    if knobs & 8 != 0 {
        input.extend_from_slice(b"IHAVEOPT\0\0\0\x07\0\0\0\x06\0\0\0\0\0\0");
    }
    input.extend_from_slice(rest);
    let export = |name: &str, start, size| Export {
        name: name.to_owned(),
        description: String::new(),
        start,
        size,
    };
    let exports = [export("", 0, SIZE), export("1", 4096, 2 << 20)];
    let mut wire = Wire {
        input: &input,
        answered: 0,
    };
    let _ = session::serve(&mut wire, &exports, &Pattern, || {});
});
