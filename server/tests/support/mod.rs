//! A server on loopback and a target that is simulated down to its records.
//!
//! Owns: starting both. Does not own: what is tested.

#![allow(dead_code)] // each test uses a part of it

use image::cells::cut;
use image::layout::{Disk, Region, Table};
use image::manifest::{ManifestReader, ManifestWriter};
use image::record::{Compression, Decoder, Encoder, RecordReader};
use image::{BadRange, ChunkRef, Hash, Layout};
use serde::Serialize;
use serde::de::DeserializeOwned;
use server::daemon::{self, Server};
use server::options::Options;
use std::io::Read;
use std::path::Path;
use wire::*;

/// Grid of the simulated images.
pub const CELL: u32 = 64 << 10;

pub fn options(state: &Path) -> Options {
    use clap::Parser;
    Options::parse_from([
        "deployd",
        "--state",
        state.to_str().unwrap(),
        "--address",
        "127.0.0.1",
        "--http-port",
        "0",
        "--data-port",
        "0",
        "--proxy-dhcp",
        "off",
        "--tftp",
        "off",
    ])
}

pub async fn start(state: &Path) -> Server {
    daemon::start(&options(state)).await.unwrap()
}

/// Base address of the data port.
pub fn base(server: &Server) -> String {
    format!("https://127.0.0.1:{}", server.data.port())
}

/// Runs blocking code (the target's HTTP) beside the server.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// HTTP to a server; errors are status and report.
#[derive(Clone)]
pub struct Http {
    pub agent: ureq::Agent,
    pub pin: pinned::Pin,
    pub base: String,
    pub token: String,
}

pub type Reply<T> = Result<T, (u16, Report)>;

impl Http {
    pub fn new(server: &Server, token: &str) -> Self {
        Http {
            agent: pinned::agent(&server.pin, pinned::Timeouts::default()),
            pin: server.pin,
            base: base(server),
            token: token.to_owned(),
        }
    }

    fn request(&self, method: &str, path: &str) -> ureq::Request {
        let request = self.agent.request(method, &format!("{}{path}", self.base));
        let request = request.set(PROTOCOL_HEADER, "1");
        if self.token.is_empty() {
            request
        } else {
            request.set("authorization", &format!("Bearer {}", self.token))
        }
    }

    pub fn bytes(&self, method: &str, path: &str, body: &[u8]) -> Reply<Vec<u8>> {
        let result = if method == "GET" || method == "DELETE" {
            self.request(method, path).call()
        } else {
            self.request(method, path).send_bytes(body)
        };
        match result {
            Ok(response) => {
                let mut out = Vec::new();
                response.into_reader().read_to_end(&mut out).unwrap();
                Ok(out)
            }
            Err(ureq::Error::Status(status, response)) => {
                Err((status, response.into_json().unwrap()))
            }
            Err(error) => panic!("{method} {path}: {error}"),
        }
    }

    pub fn json<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        message: &impl Serialize,
    ) -> Reply<T> {
        let body = serde_json::to_vec(message).unwrap();
        let answer = self.bytes(method, path, &body)?;
        let answer = if answer.is_empty() {
            b"null".to_vec()
        } else {
            answer
        };
        Ok(serde_json::from_slice(&answer).unwrap_or_else(|e| panic!("{path}: {e}: {answer:?}")))
    }
}

/// A machine that can check in.
#[derive(Clone)]
pub struct Target {
    pub http: Http,
    pub mac: String,
    pub uuid: String,
    pub boot: String,
    /// Disks besides the first.
    pub more: Vec<DiskInfo>,
}

impl Target {
    pub fn new(server: &Server, number: u8) -> Self {
        Target {
            http: Http::new(server, ""),
            mac: format!("52:54:00:00:00:{number:02x}"),
            uuid: format!("4c4c4544-0042-3510-8051-b4c04f4a32{number:02x}"),
            boot: "boot-1".into(),
            more: Vec::new(),
        }
    }

    pub fn disk(&self) -> DiskInfo {
        DiskInfo {
            path: "/dev/vda".into(),
            size_bytes: 64 << 20,
            sector_size: 512,
            serial: format!("disk-of-{}", self.mac),
            bus: "virtio".into(),
            ..DiskInfo::default()
        }
    }

    pub fn check_in(&self) -> CheckInReply {
        let message = CheckIn {
            protocol: PROTOCOL_VERSION,
            version: SOFTWARE_VERSION.into(),
            uuid: self.uuid.clone(),
            firmware: "bios".into(),
            architecture: "x86_64".into(),
            boot_id: self.boot.clone(),
            nics: vec![NicInfo {
                name: "eth0".into(),
                mac: self.mac.clone(),
                link: true,
                ..NicInfo::default()
            }],
            disks: [vec![self.disk()], self.more.clone()].concat(),
            ..CheckIn::default()
        };
        self.http.json("POST", "/v1/checkin", &message).unwrap()
    }

    pub fn job(&self) -> Session {
        match self.check_in().action {
            Action::Job(job) => Session {
                http: Http {
                    token: job.token.clone(),
                    ..self.http.clone()
                },
                job: *job,
            },
            other => panic!("no job: {other:?}"),
        }
    }
}

/// A target with a job.
#[derive(Clone)]
pub struct Session {
    pub http: Http,
    pub job: Job,
}

impl Session {
    /// With new connections: the server behind the old ones is gone.
    pub fn reconnected(mut self) -> Self {
        self.http.agent = pinned::agent(&self.http.pin, pinned::Timeouts::default());
        self
    }

    pub fn path(&self, rest: &str) -> String {
        format!("/v1/executions/{}/{rest}", self.job.execution)
    }

    pub fn progress(&self, step: Step, done: u64, total: u64) -> Reply<ProgressReply> {
        let message = Progress {
            step,
            done_bytes: done,
            total_bytes: total,
            rate: 1,
            seconds_left: None,
            wire_bytes: 0,
        };
        self.http.json("POST", &self.path("progress"), &message)
    }

    pub fn have(&self, names: &[Hash]) -> Reply<Vec<bool>> {
        let body: Vec<u8> = names.iter().flat_map(|name| name.0).collect();
        let bitmap = self.http.bytes("POST", &self.path("have"), &body)?;
        Ok((0..names.len())
            .map(|at| bitmap[at / 8] >> (at % 8) & 1 == 1)
            .collect())
    }

    pub fn upload(&self, records: &[u8]) -> Reply<Stored> {
        let answer = self.http.bytes("POST", &self.path("records"), records)?;
        Ok(serde_json::from_slice(&answer).unwrap())
    }

    pub fn publish(&self, manifest: &[u8]) -> Reply<Published> {
        let answer = self.http.bytes("PUT", &self.path("manifest"), manifest)?;
        Ok(serde_json::from_slice(&answer).unwrap())
    }

    pub fn finish(&self, outcome: JobOutcome) -> Reply<FinishReply> {
        self.http.json(
            "POST",
            &self.path("finish"),
            &Finish {
                outcome,
                summary: Summary::default(),
            },
        )
    }

    pub fn done(&self) -> Reply<FinishReply> {
        self.finish(JobOutcome::Done { warnings: vec![] })
    }

    /// Tells the server what disks there are.
    pub fn disks(&self, disks: &[DiskInfo]) -> Reply<()> {
        let entry = |info: &DiskInfo| DiskCheckEntry {
            info: info.clone(),
            map: None,
            problem: None,
            health: None,
        };
        let check = DiskCheck {
            disks: disks.iter().map(entry).collect(),
        };
        self.http.json("POST", &self.path("disks"), &check)
    }

    pub fn begin_write(&self, disk: DiskInfo) -> Reply<()> {
        self.http
            .json("POST", &self.path("begin-write"), &BeginWrite::from(disk))
    }

    /// Sends what is missing and publishes.
    pub fn back_up(&self, image: &Image) -> Reply<Published> {
        self.progress(Step::Running, 0, image.plain.len() as u64)?;
        let names: Vec<Hash> = image.chunks.iter().map(|c| c.name).collect();
        let have = self.have(&names)?;
        let missing: Vec<u8> = image
            .records
            .iter()
            .zip(have)
            .filter(|(_, have)| !have)
            .flat_map(|(record, _)| record.clone())
            .collect();
        if !missing.is_empty() {
            self.upload(&missing)?;
        }
        self.publish(&image.manifest)
    }

    /// Fetches the image and returns its plain bytes, every check made.
    pub fn restore(&self) -> Reply<Vec<u8>> {
        let JobKind::Restore { root, .. } = &self.job.kind else {
            panic!("no restore")
        };
        let manifest = self.http.bytes("GET", &self.path("manifest"), &[])?;
        let mut reader = ManifestReader::open(&manifest[..]).unwrap();
        let mut plain_all = Vec::new();
        while let Some(page) = reader.next_page().unwrap() {
            let body: Vec<u8> = page.chunks.iter().flat_map(|chunk| chunk.name.0).collect();
            let answer = self.http.bytes("POST", &self.path("fetch"), &body)?;
            let mut records = RecordReader::new(&answer[..], 0);
            let (mut payload, mut plain) = (Vec::new(), Vec::new());
            for chunk in &page.chunks {
                let header = records.next_record(&mut payload).unwrap().unwrap();
                assert_eq!(header.name, chunk.name);
                Decoder::new()
                    .decode(&header, &payload, 0, &mut plain)
                    .unwrap();
                plain_all.extend_from_slice(&plain);
            }
        }
        assert_eq!(reader.root().unwrap().root.to_hex(), *root);
        Ok(plain_all)
    }
}

/// An image as a target would make it of a disk with these bytes.
#[derive(Clone)]
pub struct Image {
    pub plain: Vec<u8>,
    pub chunks: Vec<ChunkRef>,
    pub records: Vec<Vec<u8>>,
    pub manifest: Vec<u8>,
}

impl Image {
    /// `cells` full cells whose content depends on `seed` and their number.
    pub fn new(seed: u64, cells: u64) -> Self {
        let mut plain = vec![0; usize::try_from(cells * u64::from(CELL)).unwrap()];
        for (at, cell) in plain.chunks_mut(CELL as usize).enumerate() {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&seed.to_le_bytes()).update(&at.to_le_bytes());
            hasher.finalize_xof().fill(cell);
        }
        Image::of(plain)
    }

    /// Of these bytes, a whole number of cells.
    pub fn of(plain: Vec<u8>) -> Self {
        Image::with_bad(plain, &[])
    }

    /// As [`Image::of`], of a disk that did not give these ranges.
    pub fn with_bad(plain: Vec<u8>, bad: &[BadRange]) -> Self {
        let size = plain.len() as u64;
        let layout = Layout {
            created: "2026-01-02T03:04:05Z".into(),
            tool: "test".into(),
            disk: Disk {
                size_bytes: size,
                sector_size: 512,
                ..Disk::default()
            },
            cell_size: CELL,
            table: Table {
                kind: "none".into(),
                blobs: vec![],
            },
            regions: vec![Region {
                kind: "whole".into(),
                number: Some(0),
                size,
                used_bytes: size,
                method: "full".into(),
                ..Region::default()
            }],
            ..Layout::default()
        };
        let cells: Vec<_> = cut(0, CELL, [(0, size)]).collect();
        let mut encoder = Encoder::new(Compression::Zstd(1)).unwrap();
        let mut records = Vec::new();
        let mut chunks = Vec::new();
        for cell in plain.chunks(CELL as usize) {
            let mut record = Vec::new();
            let header = encoder.encode(cell, &mut record).unwrap();
            chunks.push(ChunkRef {
                name: header.name,
                plain_len: header.plain_len,
            });
            records.push(record);
        }
        let writer = if bad.is_empty() {
            ManifestWriter::new(Vec::new(), &layout)
        } else {
            ManifestWriter::of_bad_disk(Vec::new(), &layout)
        };
        let mut writer = writer.unwrap();
        for (cells, chunks) in cells
            .chunks(image::PAGE_CHUNKS)
            .zip(chunks.chunks(image::PAGE_CHUNKS))
        {
            writer.page(cells, chunks).unwrap();
        }
        let (manifest, _) = writer.finish_with(bad).unwrap();
        Image {
            plain,
            chunks,
            records,
            manifest,
        }
    }
}
