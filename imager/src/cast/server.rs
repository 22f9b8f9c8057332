//! A session of a server, seen from a target.
//!
//! Owns: waiting for the start, joining, and getting over the data port what multicast did
//! not bring. Does not own: the course of receiving (`course`), the job.

use super::{Control, Course, Image, Joined, Places, Wanted};
use crate::progress::ProgressSink;
use crate::remote::{Body, Remote};
use crate::report;
use crate::restore::fetch::{ServerSource, incomplete, told_of_spoiled};
use crate::restore::{CellWriter, Delivered, Source};
use group::Group;
use image::record::RecordReader;
use image::{Error, ImageKey, Layout};
use multicast::{Bits, Membership, PacketKey, Plan, Record};
use std::io::{self, BufReader, Read};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire::{Code, DiskState, JoinReply, Report, Session, SessionReply};

/// Between two questions whether the session starts.
const ASK_EVERY: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(100);
/// How often records that arrive damaged are asked for again.
const DAMAGE_TRIES: u32 = 3;

/// An image that a server sends by multicast.
pub struct SessionSource(Course<ServerControl>);

struct ServerControl {
    remote: Remote,
    records: u32,
}

impl SessionSource {
    /// Of an image whose manifest came and was proved.
    ///
    /// # Errors
    /// The manifest is damaged, or the session's address is none.
    pub fn new(server: &ServerSource, remote: &Remote, session: &Session) -> Result<Self, Report> {
        let pages = server.pages();
        let places = Places::of(Arc::clone(&pages));
        let places = places.map_err(|e| report::image(&e, DiskState::Untouched))?;
        let control = ServerControl {
            remote: remote.clone(),
            records: places.records(),
        };
        let image = Image {
            layout: server.layout().clone(),
            root: server.root(),
            bad: server.bad().to_vec(),
            key: server.key(),
            pages,
            places,
        };
        let group = reach(&session.group, remote.base()).map_err(|error| {
            let found = format!("the session's group {}: {error}", session.group);
            Report::new(Code::Usage, found, DiskState::Untouched)
        })?;
        Ok(SessionSource(Course::new(control, group, image)))
    }

    /// Why not everything came by multicast, once the restore is over.
    pub fn warning(&self) -> Option<Report> {
        self.0.warning()
    }

    /// How much came in which way, for people.
    pub fn account(&self) -> String {
        let (multicast, unicast) = self.0.counts();
        format!("{multicast} chunks came by multicast, {unicast} by unicast")
    }
}

/// The group, by the interface that leads to the server.
fn reach(group: &str, server: &str) -> io::Result<Group> {
    let address: SocketAddr = group.parse().map_err(io::Error::other)?;
    let group = Group::new(address, None)?;
    let host = server.split_once("://").map_or(server, |(_, host)| host);
    // Without a way to the server nothing works; the system's routes may do as well.
    let server = host.to_socket_addrs().ok();
    Ok(server
        .and_then(|mut found| found.next())
        .and_then(|server| group.towards(server).ok())
        .unwrap_or(group))
}

/// Waits until the session starts; nothing was written.
///
/// # Errors
/// There can be no session; an operator wants to stop.
pub fn wait_for_start(remote: &Remote, progress: &dyn ProgressSink) -> Result<(), Report> {
    let mut told = String::new();
    loop {
        let SessionReply::Wait {
            ready,
            targets,
            seconds,
        } = remote.session()?
        else {
            progress.note("the multicast session starts");
            return Ok(());
        };
        let limit = match seconds {
            Some(_) => "; it starts without the others after the longest wait",
            None => "",
        };
        let text = format!(
            "waiting for the multicast session: {ready} of {targets} machines are ready{limit}"
        );
        if text != told {
            progress.note(&text);
            told = text;
        }
        let until = Instant::now() + ASK_EVERY;
        while Instant::now() < until {
            if progress.interrupted() {
                let found = "stopped by an operator while others were waited for";
                return Err(Report::new(Code::Interrupted, found, DiskState::Untouched));
            }
            std::thread::sleep(TICK);
        }
    }
}

impl Source for SessionSource {
    fn layout(&self) -> &Layout {
        self.0.layout()
    }

    fn key(&self) -> Option<Arc<ImageKey>> {
        self.0.key()
    }

    fn transfer(&mut self, writer: &CellWriter<'_>) -> Result<Delivered, Report> {
        self.0.transfer(writer).map_err(incomplete)
    }

    fn heads(&mut self, writer: &CellWriter<'_>) -> Result<(), Report> {
        self.0.heads(writer).map_err(incomplete)
    }
}

impl ServerControl {
    /// The session's list; `None` if it is not one of this manifest.
    fn plan(&self) -> Result<Option<Plan>, Report> {
        let mut retry = self.remote.retry("receiving the session's list of records");
        let len = (self.records as usize + 1) * 4;
        loop {
            let mut bytes = Vec::new();
            let read = self
                .remote
                .session_plan()?
                .take(len as u64 + 1)
                .read_to_end(&mut bytes);
            match read {
                Ok(_) => return Ok(plan_of(&bytes, len)),
                Err(error) => match Body::failure(&error) {
                    Some(failure) => retry.wait(failure)?,
                    None => return Ok(None),
                },
            }
        }
    }
}

fn plan_of(bytes: &[u8], len: usize) -> Option<Plan> {
    let (symbol, lengths) = bytes.split_first_chunk::<4>()?;
    if bytes.len() != len {
        return None;
    }
    let symbol = u16::try_from(u32::from_le_bytes(*symbol)).ok()?;
    let (lengths, _) = lengths.as_chunks::<4>();
    Plan::new(
        lengths.iter().map(|bytes| u32::from_le_bytes(*bytes)),
        symbol,
    )
    .ok()
}

fn key_of(hex: &str) -> Option<PacketKey> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(hex, &mut bytes).ok()?;
    Some(PacketKey::from_bytes(bytes))
}

impl Control for ServerControl {
    fn join(&mut self, _: &CellWriter<'_>, wanted: &Bits) -> Result<Joined, Report> {
        let plan = match wanted.count() {
            0 => None,
            _ => self.plan()?,
        };
        let (number, receiver, down, up) = match self.remote.session_join(&wanted.to_bytes())? {
            JoinReply::Member {
                number,
                receiver,
                down,
                up,
            } => (number, receiver, down, up),
            JoinReply::Unicast { why } => return Ok(Joined::Unicast(why)),
        };
        let keys = key_of(&down).zip(key_of(&up));
        Ok(match plan.zip(keys) {
            Some((plan, (down, up))) => Joined::Member(Box::new((
                plan,
                Membership {
                    session: number,
                    receiver,
                    down,
                    up,
                },
            ))),
            None => Joined::Unicast("what the server says of the session cannot be".into()),
        })
    }

    fn fetch(
        &mut self,
        writer: &CellWriter<'_>,
        wanted: &[Wanted],
        each: &mut dyn FnMut(Record) -> Result<(), Report>,
    ) -> Result<(), Report> {
        let mut retry = self.remote.retry("receiving data");
        let mut left = wanted;
        let mut damaged = 0;
        while !left.is_empty() {
            writer.stop_if_asked()?;
            let mut came = 0;
            let result = receive(&self.remote, left, &mut |record| {
                came += 1;
                each(record)
            });
            left = left.get(came..).unwrap_or_default();
            if came > 0 {
                retry.succeeded();
            }
            let error = match result {
                Ok(()) => continue,
                Err(Stop::Final(report)) => return Err(report),
                Err(Stop::Image(error)) => error,
            };
            if let Error::Io { source, .. } = &error
                && let Some(failure) = Body::failure(source)
            {
                retry.wait(failure)?;
                continue;
            }
            damaged += 1;
            if damaged >= DAMAGE_TRIES {
                let name = left.first().map(|wanted| wanted.name);
                return Err(told_of_spoiled(&self.remote, &error, name));
            }
            writer.note(&format!(
                "data arrived damaged ({error}); asking for it again"
            ));
        }
        Ok(())
    }

    fn spoiled(&self, wanted: &Wanted) -> Report {
        let error = Error::damaged(
            "the server's record is not the chunk that the manifest names",
            0,
        );
        told_of_spoiled(&self.remote, &error, Some(wanted.name))
    }
}

enum Stop {
    /// What came is no record, or nothing came any more.
    Image(Error),
    /// Nothing can help.
    Final(Report),
}

fn receive(
    remote: &Remote,
    wanted: &[Wanted],
    each: &mut dyn FnMut(Record) -> Result<(), Report>,
) -> Result<(), Stop> {
    let hashes: Vec<[u8; 32]> = wanted.iter().map(|wanted| wanted.name.0).collect();
    let body = remote.fetch(&hashes).map_err(Stop::Final)?;
    let mut records = RecordReader::new(BufReader::with_capacity(256 << 10, body), 0);
    let mut payload = Vec::new();
    for wanted in wanted {
        let at = records.position();
        let header = records
            .next_record(&mut payload)
            .and_then(|header| {
                header.ok_or_else(|| {
                    Error::damaged("the server sent fewer chunks than were asked for", at)
                })
            })
            .map_err(Stop::Image)?;
        let mut bytes = header.encode().to_vec();
        bytes.extend_from_slice(&payload);
        each(Record {
            record: wanted.record,
            bytes,
        })
        .map_err(Stop::Final)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::plan_of;

    #[test]
    fn a_list_is_as_long_as_the_manifest_says() {
        let list =
            |numbers: &[u32]| -> Vec<u8> { numbers.iter().flat_map(|n| n.to_le_bytes()).collect() };
        let good = list(&[1408, 100, 200, 300]);
        let plan = plan_of(&good, 16).unwrap();
        assert_eq!((plan.records(), plan.total_len()), (3, 600));
        assert!(plan_of(&good, 12).is_none());
        assert!(plan_of(&good[..15], 16).is_none());
        assert!(plan_of(&list(&[1407, 100, 200, 300]), 16).is_none());
        assert!(plan_of(&list(&[70_000, 100, 200, 300]), 16).is_none());
        assert!(plan_of(&list(&[1408, 0, 200, 300]), 16).is_none());
        assert!(plan_of(&[], 4).is_none());
    }
}
