//! A server that is played, and disks as files, for jobs of several disks.
//!
//! Owns: a store of chunks and manifests behind the routes of one execution, and running a
//! job against it. Does not own: what is tested.

use crate::job::{JobResult, run};
use crate::keyring::Keyring;
use crate::progress::Tracker;
use crate::remote::{Options, Remote, ServerAddress};
use image::manifest::ManifestReader;
use image::record::RecordReader;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use testkit::build::Random;
use wire::{
    After, Code, DiskImage, DiskInfo, DiskSelector, DiskState, Job, JobKind, Published, Report,
    RestoreScope, Stored,
};

const MIB: usize = 1 << 20;

/// What the server does otherwise than it should.
pub enum Odd {
    Refuses(Code),
    HangsUp,
    Says(Vec<u8>),
}

type Oddness = Box<dyn Fn(&str, &[u8]) -> Option<Odd> + Send + Sync>;

/// Chunks and manifests of a store, and the routes that were asked for.
#[derive(Default)]
pub struct Kept {
    pub records: HashMap<Vec<u8>, Vec<u8>>,
    pub manifests: Vec<Vec<u8>>,
    pub asked: Vec<String>,
}

pub struct Server {
    pub kept: Mutex<Kept>,
    odd: Mutex<Oddness>,
    address: ServerAddress,
}

impl Server {
    fn new() -> Arc<Server> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let server = Arc::new(Server {
            kept: Mutex::default(),
            odd: Mutex::new(Box::new(|_, _| None)),
            address: ServerAddress::parse(&address).unwrap(),
        });
        let serving = Arc::clone(&server);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let server = Arc::clone(&serving);
                std::thread::spawn(move || drop(server.converse(stream)));
            }
        });
        server
    }

    pub fn oddly(&self, odd: impl Fn(&str, &[u8]) -> Option<Odd> + Send + Sync + 'static) {
        *self.odd.lock().unwrap() = Box::new(odd);
    }

    pub fn was_asked(&self, route: &str) -> bool {
        let kept = self.kept.lock().unwrap();
        kept.asked.iter().any(|asked| asked.starts_with(route))
    }

    fn roots(&self) -> Vec<String> {
        let kept = self.kept.lock().unwrap();
        kept.manifests.iter().map(|m| root(m)).collect()
    }

    fn answer(&self, route: &str, body: &[u8]) -> Option<Vec<u8>> {
        let mut kept = self.kept.lock().unwrap();
        kept.asked.push(route.to_owned());
        let (name, part) = route.split_once("?part=").unwrap_or((route, "0"));
        match name {
            "have" => {
                let (names, _) = body.as_chunks::<32>();
                let mut bits = vec![0; names.len().div_ceil(8)];
                for (at, name) in names.iter().enumerate() {
                    let has = kept.records.contains_key(&name[..]);
                    bits[at / 8] |= u8::from(has) << (at % 8);
                }
                Some(bits)
            }
            "records" => {
                let mut reader = RecordReader::new(body, 0);
                let mut payload = Vec::new();
                while let Some(header) = reader.next_record(&mut payload).unwrap() {
                    let record = [&header.encode()[..], &payload].concat();
                    kept.records.insert(header.name.0.to_vec(), record);
                }
                Some(serde_json::to_vec(&Stored::default()).unwrap())
            }
            "manifests" => {
                let mut rest = body;
                let mut published = Vec::new();
                while let Some((length, after)) = rest.split_at_checked(8) {
                    let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
                    let (manifest, after) = after.split_at(length);
                    published.push(Published {
                        image: format!("i{}", published.len()),
                        root: root(manifest),
                    });
                    kept.manifests.push(manifest.to_vec());
                    rest = after;
                }
                Some(serde_json::to_vec(&published).unwrap())
            }
            "manifest" => kept.manifests.get(part.parse::<usize>().ok()?).cloned(),
            "fetch" => {
                let names = body.chunks(32).map(|name| kept.records.get(name));
                names
                    .map(|record| record.cloned())
                    .collect::<Option<Vec<_>>>()
                    .map(|r| r.concat())
            }
            _ => Some(Vec::new()),
        }
    }

    fn converse(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
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
            let odd = (self.odd.lock().unwrap())(route, &body);
            let (status, body) = match odd {
                Some(Odd::HangsUp) => return Ok(()),
                Some(Odd::Says(body)) => ("200 OK", body),
                Some(Odd::Refuses(code)) => {
                    let report = Report::new(code, "on purpose", DiskState::NotInvolved);
                    ("409 Conflict", serde_json::to_vec(&report).unwrap())
                }
                None => match self.answer(route, &body) {
                    Some(body) => ("200 OK", body),
                    None => ("404 Not Found", Vec::new()),
                },
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

fn root(manifest: &[u8]) -> String {
    let mut reader = ManifestReader::open(manifest).unwrap();
    while reader.next_page().unwrap().is_some() {}
    reader.root().unwrap().root.to_hex()
}

/// A server, disks as files, and what the job said.
pub struct Stage {
    pub server: Arc<Server>,
    pub dir: tempfile::TempDir,
    pub disks: Vec<DiskInfo>,
    said: Arc<Mutex<String>>,
}

impl Stage {
    pub fn new() -> Stage {
        Stage {
            server: Server::new(),
            dir: tempfile::tempdir().unwrap(),
            disks: Vec::new(),
            said: Arc::default(),
        }
    }

    pub fn path(&self, at: usize) -> PathBuf {
        self.dir.path().join(format!("disk-{at}"))
    }

    /// The next disk, of what is at its path.
    pub fn add(&mut self) -> PathBuf {
        let path = self.path(self.disks.len());
        let size_bytes = path.metadata().unwrap().len();
        self.disks.push(DiskInfo {
            number: self.disks.len() as u32,
            path: path.to_str().unwrap().into(),
            size_bytes,
            sector_size: 512,
            bus: "sata".into(),
            serial: format!("S{}", self.disks.len()),
            ..DiskInfo::default()
        });
        path
    }

    pub fn noise(&mut self, mib: usize) -> PathBuf {
        let path = self.path(self.disks.len());
        let bytes = Random::new(self.disks.len() as u64).bytes(mib * MIB);
        std::fs::write(path, bytes).unwrap();
        self.add()
    }

    pub fn remote(&self, retry_for: Duration) -> Remote {
        let options = Options {
            retry_for,
            ..Options::default()
        };
        let remote = Remote::new(&self.server.address, None, &options).unwrap();
        remote.for_job("e", "t")
    }

    fn selectors(&self) -> Vec<DiskSelector> {
        let one = |disk: &DiskInfo| DiskSelector {
            path: Some(disk.path.clone()),
            ..DiskSelector::default()
        };
        self.disks.iter().map(one).collect()
    }

    fn run(
        &self,
        kind: JobKind,
        resumed: &[u32],
        retry_for: Duration,
    ) -> Result<JobResult, Report> {
        let remote = self.remote(retry_for);
        let said = Arc::clone(&self.said);
        let tracker = Tracker::new(move |note| {
            let mut said = said.lock().unwrap();
            *said += note;
            *said += "\n";
        });
        let job = Job {
            execution: "e".into(),
            token: "t".into(),
            kind,
            resume: !resumed.is_empty(),
            resumed: resumed.to_vec(),
            scripts: Vec::new(),
            after: After::Reboot,
        };
        run(&job, &remote, &self.disks, &Keyring::default(), &tracker)
    }

    pub fn back_up(&self, retry_for: Duration) -> Result<JobResult, Report> {
        self.run(self.backup(None, self.selectors()), &[], retry_for)
    }

    /// A job of the first disk alone.
    pub fn back_up_one(&self) -> Result<JobResult, Report> {
        let first = self.selectors().into_iter().next();
        self.run(self.backup(first, Vec::new()), &[], Duration::ZERO)
    }

    fn backup(&self, disk: Option<DiskSelector>, disks: Vec<DiskSelector>) -> JobKind {
        JobKind::Backup {
            disk,
            image: "gold".into(),
            full: false,
            codec: wire::Codec::Zstd,
            level: 1,
            partitions: Vec::new(),
            full_partitions: Vec::new(),
            skip_bad: false,
            disks,
        }
    }

    /// Each image to the disk at its place.
    pub fn set(&self) -> Vec<DiskImage> {
        let roots = self.server.roots();
        let part = |(disk, root): (DiskSelector, String)| DiskImage {
            disk,
            image: "i".into(),
            root,
        };
        self.selectors().into_iter().zip(roots).map(part).collect()
    }

    pub fn restore(&self, resumed: &[u32]) -> Result<JobResult, Report> {
        let kind = JobKind::Restore {
            disk: None,
            image: "i".into(),
            image_name: "gold".into(),
            root: String::new(),
            verify: true,
            force: false,
            scope: RestoreScope::default(),
            reuse: false,
            set: self.set(),
            multicast: None,
        };
        self.run(kind, resumed, Duration::ZERO)
    }

    pub fn said(&self, what: &str) -> bool {
        self.said.lock().unwrap().contains(what)
    }
}

pub fn overwrite(path: &Path, at: usize, bytes: &[u8]) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(bytes, at as u64).unwrap();
}

/// As a restore leaves a disk before its last step.
pub fn half_make(path: &Path) {
    overwrite(path, 0, &vec![0; MIB]);
}
