//! A restore whose answers were changed on their way ends with the image's bytes on the
//! disk, or says that it did not, and is right about the disk.
//!
//! Owns: a server that sends one answer changed: bits, lengths, order, other chunks' bytes,
//! with right checksums too. Does not own: changes to files (the image crate's tests), or
//! what TLS notices long before (`pinned`).

use super::run;
use crate::keyring::Keyring;
use crate::progress::Tracker;
use crate::remote::{Options, Remote, ServerAddress};
use image::layout::Region;
use image::manifest::ManifestWriter;
use image::record::{Compression, Encoder, HEADER_LEN};
use image::{ChunkRef, Hash, Layout};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use testkit::build::Random;
use wire::{After, Code, DiskInfo, DiskSelector, DiskState, Job, JobKind, RestoreScope};

const TRIALS: u64 = 500;
const TRIALS_IN_LONG_RUNS: u64 = 20_000;
const CELL: usize = 65_536;
/// The head of a region without a table is 1 MiB; what follows comes before it.
const CELLS: usize = 24;
const SIZE: usize = CELL * CELLS;

/// An image as a server has it.
struct Image {
    contents: Vec<u8>,
    manifest: Vec<u8>,
    root: String,
    /// Name and record of each chunk.
    records: Vec<(Hash, Vec<u8>)>,
}

impl Image {
    fn new() -> Image {
        let mut random = Random::new(11);
        let mut contents = vec![0; SIZE];
        for (number, cell) in contents.chunks_mut(CELL).enumerate() {
            match number % 3 {
                0 => random.fill(cell),
                // Compressible, and some cells are equal.
                _ => cell.fill((number % 40) as u8),
            }
        }
        let mut layout = Layout {
            cell_size: CELL as u32,
            ..Layout::default()
        };
        layout.disk.size_bytes = SIZE as u64;
        layout.disk.sector_size = 512;
        layout.table.kind = "none".into();
        layout.regions = vec![Region {
            kind: "whole".into(),
            size: SIZE as u64,
            method: "full".into(),
            used_bytes: SIZE as u64,
            ..Region::default()
        }];
        let mut encoder = Encoder::new(Compression::Zstd(1)).unwrap();
        let cells: Vec<_> = image::cells::cut(0, layout.cell_size, [(0, SIZE as u64)]).collect();
        let (mut chunks, mut records) = (Vec::new(), Vec::new());
        for plain in contents.chunks(CELL) {
            let mut record = Vec::new();
            let header = encoder.encode(plain, &mut record).unwrap();
            chunks.push(ChunkRef {
                name: header.name,
                plain_len: header.plain_len,
            });
            records.push((header.name, record));
        }
        let mut writer = ManifestWriter::new(Vec::new(), &layout).unwrap();
        writer.page(&cells, &chunks).unwrap();
        let (manifest, root) = writer.finish().unwrap();
        Image {
            contents,
            manifest,
            root: root.root.to_hex(),
            records,
        }
    }

    fn record(&self, name: &[u8]) -> Option<&[u8]> {
        let found = self.records.iter().find(|(known, _)| known.0 == name);
        found.map(|(_, record)| record.as_slice())
    }

    /// The bytes of one chunk under the name of another, with right checksums.
    fn forged(&self, name: Hash, random: &mut Random) -> Vec<u8> {
        let other = random.below(CELLS as u64) as usize;
        let plain = &self.contents[other * CELL..][..CELL];
        let mut record = Vec::new();
        let mut encoder = Encoder::new(Compression::Zstd(1)).unwrap();
        encoder.encode_named(plain, name, &mut record).unwrap();
        record
    }
}

/// Which answer is changed, whether all that follow are too, and the dice that say how.
struct Change {
    answer: u64,
    for_good: bool,
    random: Random,
    was_made: bool,
}

impl Change {
    /// Changes an answer that is a stream of `parts`.
    fn make(&mut self, image: &Image, asked: &[[u8; 32]], mut parts: Vec<Vec<u8>>) -> Vec<u8> {
        if self.answer > 0 {
            self.answer -= 1;
            return parts.concat();
        }
        if self.was_made && !self.for_good {
            return parts.concat();
        }
        let random = &mut self.random;
        let honest = parts.concat();
        let any = |random: &mut Random, limit: usize| random.below(limit.max(1) as u64) as usize;
        let mut bytes = honest.clone();
        let (at, other) = (any(random, bytes.len()), any(random, bytes.len()));
        let (low, high) = (at.min(other), at.max(other));
        let (part, second) = (any(random, parts.len()), any(random, parts.len()));
        match random.below(if asked.is_empty() { 6 } else { 12 }) {
            0 | 1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes.truncate(at),
            3 => {
                let end = (at + 1 + any(random, 200)).min(bytes.len());
                bytes.drain(at..end);
            }
            4 => {
                let again = bytes[low..high.min(low + 500)].to_vec();
                bytes.splice(high..high, again);
            }
            5 => {
                let end = (at + 1 + any(random, 40)).min(bytes.len());
                random.fill(&mut bytes[at..end]);
            }
            6 => {
                parts.swap(part, second);
                bytes = parts.concat();
            }
            7 => {
                parts.remove(part);
                bytes = parts.concat();
            }
            8 => {
                parts.insert(second, parts[part].clone());
                bytes = parts.concat();
            }
            9 => {
                // Another chunk's whole record.
                parts[part] = image.records[any(random, CELLS)].1.clone();
                bytes = parts.concat();
            }
            10 => {
                parts[part] = image.forged(Hash(asked[part]), random);
                bytes = parts.concat();
            }
            _ => {
                // A changed payload with checksums that fit it.
                let record = &mut parts[part];
                if record.len() > HEADER_LEN {
                    let place = HEADER_LEN + any(random, record.len() - HEADER_LEN);
                    record[place] ^= 1 << random.below(8);
                    let sum = crc32fast::hash(&record[HEADER_LEN..]).to_le_bytes();
                    record[48..52].copy_from_slice(&sum);
                    let sum = crc32fast::hash(&record[..HEADER_LEN - 4]).to_le_bytes();
                    record[HEADER_LEN - 4..HEADER_LEN].copy_from_slice(&sum);
                }
                bytes = parts.concat();
            }
        }
        self.was_made |= bytes != honest;
        bytes
    }
}

struct Server {
    image: Image,
    change: Mutex<Change>,
    begun: AtomicBool,
}

impl Server {
    fn answer(&self, route: &str, body: &[u8]) -> Option<Vec<u8>> {
        let mut change = self.change.lock().unwrap();
        match route {
            "disks" | "tables" => Some(Vec::new()),
            "begin-write" => {
                self.begun.store(true, Ordering::SeqCst);
                Some(Vec::new())
            }
            "manifest" => Some(change.make(&self.image, &[], vec![self.image.manifest.clone()])),
            "fetch" => {
                let (asked, _) = body.as_chunks::<32>();
                let parts = asked.iter().map(|name| self.image.record(name));
                let parts: Option<Vec<&[u8]>> = parts.collect();
                let parts = parts?.into_iter().map(<[u8]>::to_vec).collect();
                Some(change.make(&self.image, asked, parts))
            }
            _ => None,
        }
    }

    fn converse(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut stream = stream;
        loop {
            let mut first = String::new();
            if reader.read_line(&mut first)? == 0 {
                return Ok(());
            }
            let mut length = 0;
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line)? == 0 || line == "\r\n" {
                    break;
                }
                let line = line.to_ascii_lowercase();
                if let Some(value) = line.strip_prefix("content-length: ") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            let path = first.split(' ').nth(1).unwrap_or_default();
            let route = path.rsplit('/').next().unwrap_or_default();
            let (status, body) = match self.answer(route, &body) {
                Some(body) if body.is_empty() && route != "fetch" => ("204 No Content", body),
                Some(body) => ("200 OK", body),
                None => ("404 Not Found", Vec::new()),
            };
            write!(
                stream,
                "HTTP/1.1 {status}\r\ndeploy-protocol: 1\r\ncontent-length: {}\r\n\r\n",
                body.len()
            )?;
            stream.write_all(&body)?;
        }
    }
}

fn job(path: &Path, root: &str) -> Job {
    let selector = DiskSelector {
        path: Some(path.to_str().unwrap().into()),
        ..DiskSelector::default()
    };
    Job {
        execution: "e".into(),
        token: "t".into(),
        kind: JobKind::Restore {
            disk: Some(selector),
            image: "i".into(),
            image_name: "gold".into(),
            root: root.into(),
            verify: true,
            force: false,
            scope: RestoreScope::default(),
            reuse: false,
            set: Vec::new(),
            multicast: None,
        },
        resume: false,
        resumed: Vec::new(),
        scripts: Vec::new(),
        after: After::Reboot,
    }
}

#[test]
fn no_changed_answer_is_taken_for_good() {
    let server = Arc::new(Server {
        image: Image::new(),
        change: Mutex::new(Change {
            answer: u64::MAX,
            for_good: false,
            random: Random::new(0),
            was_made: false,
        }),
        begun: AtomicBool::new(false),
    });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let serving = Arc::clone(&server);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let server = Arc::clone(&serving);
            // A client that gave up on a changed answer closes; that is its right.
            std::thread::spawn(move || drop(server.converse(stream)));
        }
    });
    let address = ServerAddress::parse(&address).unwrap();
    let options = Options {
        retry_for: Duration::ZERO,
        ..Options::default()
    };
    // In memory: a flush for each trial would take longer than the trial.
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = dir.path().join("disk");
    let disk = DiskInfo {
        path: path.to_str().unwrap().into(),
        size_bytes: SIZE as u64,
        sector_size: 512,
        bus: "sata".into(),
        ..DiskInfo::default()
    };
    let old = vec![7; SIZE];
    let job = job(&path, &server.image.root);
    let (mut changed, mut refused, mut mended) = (0, 0, 0);
    let trials = match std::env::var_os("DEPLOY_LONG") {
        Some(_) => TRIALS_IN_LONG_RUNS,
        None => TRIALS,
    };
    for trial in 0..trials {
        std::fs::write(&path, &old).unwrap();
        server.begun.store(false, Ordering::SeqCst);
        *server.change.lock().unwrap() = Change {
            // The manifest, what is not a head, the head.
            answer: trial % 3,
            for_good: trial % 2 == 1,
            random: Random::new(trial),
            was_made: false,
        };
        let remote = Remote::new(&address, None, &options)
            .unwrap()
            .for_job("e", "t");
        let tracker = Tracker::new(|_| {});
        let end = run(
            &job,
            &remote,
            std::slice::from_ref(&disk),
            &Keyring::default(),
            &tracker,
        );
        let was_made = server.change.lock().unwrap().was_made;
        let now = std::fs::read(&path).unwrap();
        changed += u64::from(was_made);
        match end {
            Ok(_) => {
                assert!(now == server.image.contents, "trial {trial}: a wrong done");
                mended += u64::from(was_made);
            }
            Err(report) => {
                assert!(was_made, "trial {trial}: {report}");
                refused += 1;
                assert!(
                    [
                        Code::ImageDamaged,
                        Code::ConnectionLost,
                        Code::ServerRefused
                    ]
                    .contains(&report.code),
                    "trial {trial}: {report}"
                );
                let untouched = !server.begun.load(Ordering::SeqCst);
                assert_eq!(
                    report.disk == DiskState::Untouched,
                    untouched,
                    "trial {trial}: {report}"
                );
                if untouched {
                    assert!(now == old, "trial {trial}: the disk was written");
                } else {
                    let mut first = vec![1; 4096];
                    std::fs::File::open(&path)
                        .unwrap()
                        .read_exact_at(&mut first, 0)
                        .unwrap();
                    assert!(
                        first.iter().all(|byte| *byte == 0),
                        "trial {trial}: it looks whole: {report}"
                    );
                }
            }
        }
    }
    println!(
        "{changed} answers of {trials} were changed: {refused} restores refused, {mended} mended"
    );
    assert!(changed > trials * 9 / 10 && refused > 0 && mended > 0);
}
