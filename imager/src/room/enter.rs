//! Finding a room and entering it.
//!
//! Owns: looking for the sender, the code, the manifest and its proof, waiting for the
//! start. Does not own: what is received then (`receive`).

use super::channel::{Channel, Refused};
use super::code::RoomCode;
use super::listing::Pieces;
use super::message::{self, Reply, Request, Welcome};
use super::receive::{RoomControl, RoomSource};
use crate::cast::{Course, Image, Places};
use crate::keyring::Keyring;
use crate::progress::ProgressSink;
use crate::restore::{Guard, Plan as RestorePlan};
use crate::{report, trust};
use blockdev::Device;
use group::Group;
use image::manifest::ManifestReader;
use multicast::Plan;
use std::cell::RefCell;
use std::io::{self, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use wire::{Code, DiskState, Report};

/// Time in which a sender is looked for.
const FIND: Duration = Duration::from_secs(15);
const CONNECT: Duration = Duration::from_secs(10);
/// Time in which the sender answers.
pub(super) const ANSWER: Duration = Duration::from_secs(60);

/// Finds the sender by its packets on the group.
///
/// # Errors
/// `multicast-silent` if there are none, and the system's.
pub fn find(group: &Group, stop: &dyn Fn() -> bool) -> Result<SocketAddr, Report> {
    let address = group.address;
    match group.hear(FIND, |_| true, stop) {
        Ok(Some((_, from))) => {
            let mut to = from;
            to.set_port(address.port());
            Ok(to)
        }
        Ok(None) => {
            let found = format!("nothing came to {address} within {} s", FIND.as_secs());
            Err(
                Report::new(Code::MulticastSilent, found, DiskState::Untouched).with_advice(
                    "Start the sender; name the interface with --interface; check IGMP snooping \
                 without a querier, the packets' TTL (--ttl at the sender) and firewalls; or \
                 name the sender with --from, which works without multicast.",
                ),
            )
        }
        Err(error) => {
            let found = format!("joining {address}: {error}");
            Err(Report::new(Code::PortInUse, found, DiskState::Untouched)
                .with_advice("Check address, interface and rights."))
        }
    }
}

impl RoomSource {
    /// Connects, and gets the manifest, which is proved against the root that the sender
    /// with the same code names; and what the keyring demands.
    ///
    /// # Errors
    /// `server-refused` for a wrong code; an image that is damaged or not trusted.
    pub fn open(
        group: Group,
        sender: SocketAddr,
        code: &RoomCode,
        keyring: &Keyring,
        stop: &dyn Fn() -> bool,
    ) -> Result<Self, Report> {
        let lost = |error: io::Error| broken(&format!("the sender {sender}"), &error);
        let stream = TcpStream::connect_timeout(&sender, CONNECT).map_err(lost)?;
        let mut channel = Channel::connect(stream, code).map_err(|refused| match refused {
            Refused::Code => refuse(format!("the sender {sender} shows another code"))
                .with_advice("Type the code that the sender shows."),
            Refused::Foreign => refuse(format!("{sender} is no sender of this kind"))
                .with_advice("Use the same version of the program at both ends."),
            Refused::Io(error) => lost(error),
        })?;
        let welcome: Welcome = message::receive(&mut channel, ANSWER, stop).map_err(lost)?;
        let damaged = |e: image::Error| report::image(&e, DiskState::Untouched);
        let pieces = Pieces::new(welcome.manifest_len, || channel.receive(ANSWER, stop));
        let mut reader =
            ManifestReader::open(BufReader::with_capacity(1 << 20, pieces)).map_err(damaged)?;
        let key = keyring.for_image(reader.layout())?;
        if let Some(key) = &key {
            reader.unlock(Arc::clone(key)).map_err(damaged)?;
        }
        let mut pages = Vec::new();
        while let Some(page) = reader.next_page().map_err(damaged)? {
            pages.push(page.pack());
        }
        let root = reader
            .root()
            .filter(|root| root.root.to_hex() == welcome.root)
            .ok_or_else(|| refuse("the manifest is not the one that the sender names".into()))?;
        trust::demand(keyring.trusted, reader.signatures(), DiskState::Untouched)?;
        let (layout, bad) = (reader.layout().clone(), reader.bad().to_vec());
        drop(reader);
        let pages: Arc<[_]> = pages.into();
        let places = Places::of(Arc::clone(&pages)).map_err(damaged)?;
        if places.records() != welcome.records {
            return Err(refuse(
                "the sender's list is not that of the manifest".into(),
            ));
        }
        let plan = read_plan(&mut channel, &welcome, stop).map_err(lost)?;
        let control = RoomControl {
            channel: Rc::new(RefCell::new(channel)),
            plan,
        };
        let image = Image {
            layout,
            root,
            bad,
            key,
            pages,
            places,
        };
        Ok(RoomSource {
            course: Course::new(control, group, image),
            name: welcome.name,
        })
    }

    /// A guard that asks `inner`, then tells the sender, and waits until the room starts.
    pub fn ready<'a>(
        &self,
        inner: &'a mut dyn Guard,
        progress: &'a dyn ProgressSink,
    ) -> impl Guard + use<'a> {
        Ready {
            channel: Rc::clone(&self.course.control.channel),
            inner,
            progress,
        }
    }
}

struct Ready<'a> {
    channel: Rc<RefCell<Channel>>,
    inner: &'a mut dyn Guard,
    progress: &'a dyn ProgressSink,
}

impl Guard for Ready<'_> {
    fn before_write(&mut self, device: &Device, plan: &RestorePlan) -> Result<(), Report> {
        self.inner.before_write(device, plan)?;
        self.progress.note("waiting for the sender to start");
        let mut channel = self.channel.borrow_mut();
        let lost = |error: io::Error| broken("the sender", &error);
        message::send(&mut channel, &Request::Ready).map_err(lost)?;
        let stop = || self.progress.interrupted();
        let day = Duration::from_secs(24 * 3600);
        match message::receive(&mut channel, day, &stop) {
            Ok(Reply::Start) => Ok(()),
            Ok(_) => Err(refuse("the sender did not start".into())),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                let found = "stopped by an operator";
                Err(Report::new(Code::Interrupted, found, DiskState::Untouched))
            }
            Err(error) => Err(lost(error)),
        }
    }
}

fn read_plan(
    channel: &mut Channel,
    welcome: &Welcome,
    stop: &dyn Fn() -> bool,
) -> io::Result<Plan> {
    let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    let mut lengths = Vec::new();
    let wanted = welcome.records as usize * 4;
    while lengths.len() < wanted {
        let piece = channel.receive(ANSWER, stop)?;
        if piece.is_empty() || piece.len() > wanted - lengths.len() {
            return Err(invalid("a list of another length".into()));
        }
        lengths.extend_from_slice(&piece);
    }
    let lengths = lengths.chunks_exact(4).map(|bytes| {
        bytes
            .iter()
            .rev()
            .fold(0, |n, &byte| n << 8 | u32::from(byte))
    });
    Plan::new(lengths, welcome.symbol_len).map_err(|error| invalid(error.to_string()))
}

/// Something that the sender said, and that cannot be.
pub(super) fn refuse(found: String) -> Report {
    Report::new(Code::ServerRefused, found, DiskState::Untouched)
}

/// A connection that broke before the disk was touched.
pub(super) fn broken(who: &str, error: &io::Error) -> Report {
    let found = format!("{who}: {error}");
    Report::new(Code::ConnectionLost, found, DiskState::Untouched)
        .with_advice("Check network and sender, then start again.")
}
