//! A room, seen from a receiver: its side of the control connection during a restore.
//!
//! Owns: joining, fetching, and telling the sender how it ended. Does not own: how it got
//! there (`enter`), the course of receiving (`crate::cast`).

use super::channel::Channel;
use super::enter::{ANSWER, broken};
use super::message::{self, Reply, Request};
use crate::cast::{Control, Course, Joined, Wanted};
use crate::restore::{CellWriter, Delivered, Source};
use image::{ImageKey, Layout};
use multicast::{Bits, Membership, PacketKey, Plan, Record};
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use wire::{Code, DiskState, Report};

/// An image in a room.
pub struct RoomSource {
    pub(super) course: Course<RoomControl>,
    /// Name of the image file at the sender.
    pub name: String,
}

/// The connection to the sender.
pub(super) struct RoomControl {
    pub(super) channel: Rc<RefCell<Channel>>,
    pub(super) plan: Plan,
}

impl RoomSource {
    /// Why not everything came by multicast, once the restore is over.
    pub fn warning(&self) -> Option<Report> {
        self.course.warning()
    }

    /// Records that came by multicast, and those over the control connection.
    pub fn counts(&self) -> (u32, u32) {
        self.course.counts()
    }

    /// Tells the sender how it ended.
    pub fn finish(&self, failure: Option<&Report>) {
        let (multicast, unicast) = self.counts();
        let message = match failure {
            None => Request::Done {
                multicast,
                unicast,
                why: self.warning().map(|why| why.found),
            },
            Some(report) => Request::Failed {
                found: format!("{}: {}", report.code, report.found),
            },
        };
        // A sender that is gone need not know.
        let _ = message::send(&mut self.course.control.channel.borrow_mut(), &message);
    }
}

impl Source for RoomSource {
    fn layout(&self) -> &Layout {
        self.course.layout()
    }

    fn key(&self) -> Option<Arc<ImageKey>> {
        self.course.key()
    }

    fn transfer(&mut self, writer: &CellWriter<'_>) -> Result<Delivered, Report> {
        self.course.transfer(writer)
    }

    fn heads(&mut self, writer: &CellWriter<'_>) -> Result<(), Report> {
        self.course.heads(writer)
    }
}

impl Control for RoomControl {
    fn join(&mut self, writer: &CellWriter<'_>, _: &Bits) -> Result<Joined, Report> {
        let key = |text: &str| {
            let mut bytes = [0; 32];
            hex::decode_to_slice(text, &mut bytes).map_err(io::Error::other)?;
            Ok(PacketKey::from_bytes(bytes))
        };
        let mut channel = self.channel.borrow_mut();
        message::send(&mut channel, &Request::Join).map_err(broken_off)?;
        let stop = || writer.stop_if_asked().is_err();
        match message::receive(&mut channel, ANSWER, &stop).map_err(broken_off)? {
            Reply::Member {
                session,
                receiver,
                down,
                up,
            } => Ok(Joined::Member(Box::new((
                self.plan.clone(),
                Membership {
                    session,
                    receiver,
                    down: key(&down).map_err(broken_off)?,
                    up: key(&up).map_err(broken_off)?,
                },
            )))),
            Reply::Start | Reply::Full => Ok(Joined::Unicast(
                "the session has as many receivers as it can have".into(),
            )),
        }
    }

    fn fetch(
        &mut self,
        writer: &CellWriter<'_>,
        wanted: &[Wanted],
        each: &mut dyn FnMut(Record) -> Result<(), Report>,
    ) -> Result<(), Report> {
        let request = Request::Fetch {
            records: wanted.iter().map(|wanted| wanted.record).collect(),
        };
        let mut channel = self.channel.borrow_mut();
        message::send(&mut channel, &request).map_err(broken_off)?;
        let stop = || writer.stop_if_asked().is_err();
        for wanted in wanted {
            let received = channel.receive(ANSWER, &stop);
            writer.stop_if_asked()?;
            let bytes = received.map_err(broken_off)?;
            each(Record {
                record: wanted.record,
                bytes,
            })?;
        }
        Ok(())
    }

    fn spoiled(&self, wanted: &Wanted) -> Report {
        let found = format!(
            "record {} of the sender is not chunk {}, which the manifest names",
            wanted.record, wanted.name
        );
        Report::new(Code::ImageDamaged, found, DiskState::Incomplete)
    }
}

/// A connection that broke while the disk was being written.
fn broken_off(error: io::Error) -> Report {
    Report {
        disk: DiskState::Incomplete,
        ..broken("the sender", &error)
    }
}
