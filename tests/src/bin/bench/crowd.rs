//! Fifty targets at once beside one that has as much to send: what the server does.
//!
//! Owns: simulated targets, which have their records ready, so that the cores are the
//! server's; they speak as real ones do, with three connections each. Does not own: the
//! server (`loopback`).

use crate::disk::Place;
use crate::loopback::Server;
use crate::setting;
use e2e::built::Built;
use image::layout::{Disk, Layout, Region, Table};
use image::manifest::ManifestWriter;
use image::record::{Compression, Encoder};
use image::{ChunkRef, DEFAULT_CELL_SIZE, PAGE_CHUNKS, cells};
use imager::remote::{Options, Remote, ServerAddress};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Instant;
use wire::{Action, BeginWrite, CheckIn, Finish, Job, JobKind, JobOutcome, NicInfo, Summary};

const TARGETS: u16 = 50;
/// Least and most plain bytes of each target: as many as the disk has for all.
const PLAIN: (u64, u64) = (32 << 20, 128 << 20);
/// As the imager has them: connections, chunks that are asked for at once and bytes from
/// which on records are sent.
const CONNECTIONS: usize = 3;
const BATCH: usize = 4;
const UPLOAD: usize = 4 << 20;

/// What a target has to send.
struct Content {
    chunks: Vec<ChunkRef>,
    records: Vec<Vec<u8>>,
    manifest: Vec<u8>,
}

/// Measures backups and restores, and prints medians.
pub fn measure(built: &Built, place: &Place) -> io::Result<()> {
    let (from, _) = place.devices();
    let plain = (((place.size() / u64::from(TARGETS)) >> 20) << 20).min(PLAIN.1);
    if plain < PLAIN.0 {
        let least = (u64::from(TARGETS) * PLAIN.0) >> 20;
        println!("\n{TARGETS} targets at once: not measured, BENCH_MIB is below {least}");
        return Ok(());
    }
    let disk = File::open(from)?;
    let pieces: Vec<(u64, u64)> = (0..u64::from(TARGETS))
        .map(|at| (at * plain, plain))
        .collect();
    let many: Vec<Content> = pieces
        .iter()
        .map(|&piece| content(&disk, piece))
        .collect::<io::Result<_>>()?;
    let one = [content(&disk, (0, u64::from(TARGETS) * plain))?];
    let mut rates: [[Vec<f64>; 2]; 2] = Default::default();
    let mut peak = [0, 0];
    for _ in 0..setting("BENCH_RUNS", 5) {
        for (at, contents) in [&one[..], &many[..]].into_iter().enumerate() {
            let state = place.folder().join("crowd");
            let _ = std::fs::remove_dir_all(&state);
            let server = Server::start(built, &state, TARGETS)?;
            for (rates, kind) in rates.iter_mut().zip(["backup", "restore"]) {
                let seconds = all(&server, contents, kind)?;
                rates[at].push(((u64::from(TARGETS) * plain) >> 20) as f64 / seconds);
            }
            peak[at] = peak[at].max(server.peak_kib()?);
        }
    }
    println!(
        "\n{TARGETS} targets with {} MiB each, records ready, beside one with all of it",
        plain >> 20
    );
    for (name, [one, many]) in ["backup", "restore"].iter().zip(&mut rates) {
        let (one, many) = (middle(one), middle(many));
        println!(
            "  {name:<8} one {one:>8.1} MiB/s, {TARGETS} {many:>8.1} MiB/s, {:.2} of one's",
            many / one
        );
    }
    for (targets, peak) in ["one", "all"].iter().zip(peak) {
        println!(
            "  deployd's peak memory, {targets}: {:.1} MiB",
            peak as f64 / 1024.0
        );
    }
    Ok(())
}

fn middle(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Runs a job on all targets at once; how many seconds it takes.
fn all(server: &Server, contents: &[Content], kind: &str) -> io::Result<f64> {
    let mut jobs = Vec::new();
    for number in 1..=contents.len() as u16 {
        let remote = remote(server)?;
        let machine = Server::machine(number);
        check_in(&remote, number, kind)?;
        server.ctl(&match kind {
            "backup" => format!("backup {machine} --image i{number}"),
            _ => format!("restore {machine} --image i{number} --yes"),
        })?;
        match check_in(&remote, number, kind)? {
            Some(job) => jobs.push((remote.for_job(&job.execution, &job.token), job)),
            None => return Err(io::Error::other("no job for a target")),
        }
    }
    let began = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = jobs
            .iter()
            .zip(contents)
            .zip(1..)
            .map(|(((remote, job), content), number)| {
                scope.spawn(move || run(remote, job, content, number))
            })
            .collect();
        threads.into_iter().try_for_each(|thread| {
            let ended = thread.join();
            ended.unwrap_or_else(|_| Err(io::Error::other("a target panicked")))
        })
    })?;
    Ok(began.elapsed().as_secs_f64())
}

fn remote(server: &Server) -> io::Result<Remote> {
    let text = |e: &dyn std::fmt::Display| io::Error::other(e.to_string());
    let address = ServerAddress::parse(server.url()).map_err(|e| text(&e))?;
    let pin = pinned::Pin::from_hex(&server.pin()?).map_err(|e| text(&e))?;
    Remote::new(&address, Some(&pin), &Options::default()).map_err(|e| text(&e))
}

fn check_in(remote: &Remote, number: u16, boot: &str) -> io::Result<Option<Box<Job>>> {
    let message = CheckIn {
        protocol: wire::PROTOCOL_VERSION,
        version: wire::SOFTWARE_VERSION.into(),
        uuid: Server::uuid(number),
        architecture: std::env::consts::ARCH.into(),
        boot_id: boot.into(),
        nics: vec![NicInfo {
            mac: Server::mac(number),
            link: true,
            ..NicInfo::default()
        }],
        disks: vec![the_disk(number)],
        ..CheckIn::default()
    };
    let reply = remote.checkin(&message).map_err(failed)?;
    Ok(match reply.action {
        Action::Job(job) => Some(job),
        _ => None,
    })
}

/// The one disk of target `number`.
fn the_disk(number: u16) -> wire::DiskInfo {
    wire::DiskInfo {
        path: "/dev/vda".into(),
        size_bytes: u64::from(TARGETS) * PLAIN.1,
        sector_size: 512,
        serial: format!("s{number}"),
        bus: "virtio".into(),
        ..wire::DiskInfo::default()
    }
}

fn failed(report: wire::Report) -> io::Error {
    io::Error::other(report.to_string())
}

fn run(remote: &Remote, job: &Job, content: &Content, number: u16) -> io::Result<()> {
    let restores = matches!(job.kind, JobKind::Restore { .. });
    if restores {
        io::copy(&mut remote.get_manifest().map_err(failed)?, &mut io::sink())?;
        let disk = the_disk(number);
        let (part, others) = (0, Vec::new());
        remote
            .begin_write(&BeginWrite { disk, part, others })
            .map_err(failed)?;
    }
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                scope.spawn(|| {
                    let mut body = Vec::new();
                    loop {
                        let first = next.fetch_add(BATCH, std::sync::atomic::Ordering::Relaxed);
                        let end = (first + BATCH).min(content.chunks.len());
                        if !body.is_empty() && (first >= end || body.len() >= UPLOAD) {
                            remote.send_records(&body).map_err(failed)?;
                            body.clear();
                        }
                        if first >= end {
                            return Ok(());
                        }
                        let names: Vec<[u8; 32]> = content.chunks[first..end]
                            .iter()
                            .map(|c| c.name.0)
                            .collect();
                        if restores {
                            let mut body = remote.fetch(&names).map_err(failed)?;
                            io::copy(&mut body, &mut io::sink())?;
                            continue;
                        }
                        let known = remote.have(&names).map_err(failed)?;
                        let missing = content.records[first..end].iter().zip(known);
                        for (record, _) in missing.filter(|(_, known)| !known) {
                            body.extend_from_slice(record);
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| {
            let ended = thread.join();
            ended.unwrap_or_else(|_| Err(io::Error::other("a connection panicked")))
        })
    })?;
    if !restores {
        let manifest = content.manifest.as_slice();
        remote
            .put_manifest(manifest.len() as u64, || Ok(manifest))
            .map_err(failed)?;
    }
    let outcome = JobOutcome::Done {
        warnings: Vec::new(),
    };
    let summary = Summary::default();
    remote
        .finish(&Finish { outcome, summary })
        .map_err(failed)?;
    Ok(())
}

/// A piece of the disk as an image of its own, every sector of it.
fn content(disk: &File, (start, size): (u64, u64)) -> io::Result<Content> {
    let error = |e: image::Error| io::Error::other(e.to_string());
    let layout = Layout {
        created: "2026-01-02T03:04:05Z".into(),
        tool: "bench".into(),
        disk: Disk {
            size_bytes: size,
            sector_size: 512,
            ..Disk::default()
        },
        cell_size: DEFAULT_CELL_SIZE,
        table: Table {
            kind: "none".into(),
            blobs: Vec::new(),
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
    let cells: Vec<_> = cells::cut(0, DEFAULT_CELL_SIZE, [(0, size)]).collect();
    let mut encoder = Encoder::new(Compression::Zstd(1)).map_err(error)?;
    let (mut chunks, mut records) = (Vec::new(), Vec::new());
    let mut plain = vec![0; DEFAULT_CELL_SIZE as usize];
    for at in 0..cells.len() as u64 {
        disk.read_exact_at(&mut plain, start + at * u64::from(DEFAULT_CELL_SIZE))?;
        // No two chunks are the same, so that all of them are sent.
        plain[..8].copy_from_slice(&(start + at).to_le_bytes());
        let mut record = Vec::new();
        let header = encoder.encode(&plain, &mut record).map_err(error)?;
        chunks.push(ChunkRef {
            name: header.name,
            plain_len: header.plain_len,
        });
        records.push(record);
    }
    let mut writer = ManifestWriter::new(Vec::new(), &layout)?;
    for (cells, chunks) in cells.chunks(PAGE_CHUNKS).zip(chunks.chunks(PAGE_CHUNKS)) {
        writer.page(cells, chunks)?;
    }
    let (manifest, _) = writer.finish()?;
    Ok(Content {
        chunks,
        records,
        manifest,
    })
}
