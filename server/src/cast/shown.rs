//! What operators see of multicast sessions and ask of them: JSON of `/api/sessions`.
//!
//! Owns: the shapes. Does not own: routes, what becomes of an order.

use crate::view::{ExecutionView, NewExecution};
use serde::{Deserialize, Serialize};
use wire::Report;

/// A restore of several machines by one session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NewSession {
    /// Names, ids or addresses; a session that is there already gets them as further ones.
    pub machines: Vec<String>,
    /// The restore, of one image to one disk, the same for all.
    pub execution: NewExecution,
    /// Id of a session that is there, with its settings; a new one if not given.
    #[serde(default)]
    pub session: Option<String>,
    /// Settings of a new one.
    #[serde(default)]
    pub settings: Settings,
}

/// Settings of a session; all of them can be left out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Settings {
    /// Group, with or without port: `239.1.2.3`, `239.1.2.3:26530`, `ff05::7`,
    /// `[ff05::7]:26530`. One that no session uses if not given.
    #[serde(default)]
    pub group: Option<String>,
    /// Interface that sends: that of network boot, or what the routes say, if not given.
    #[serde(default)]
    pub interface: Option<String>,
    /// Bytes a second with all headers; as fast as the network carries if not given.
    #[serde(default)]
    pub rate: Option<u64>,
    /// Machines that are waited for; all that were ordered and are not over if not given.
    #[serde(default)]
    pub targets: Option<u32>,
    /// Seconds from the first machine that is ready after which those that are there start;
    /// for ever if not given.
    #[serde(default)]
    pub longest_wait: Option<u32>,
    /// How many routers packets may pass, and one; 1 if not given.
    #[serde(default)]
    pub ttl: Option<u8>,
    /// Bytes of the image in a packet, a multiple of 64 from 256 to 1408.
    #[serde(default)]
    pub symbol: Option<u16>,
}

/// What was ordered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ordered {
    /// The session.
    pub session: SessionView,
    /// One for each machine, in the order of the request.
    pub executions: Vec<ExecutionView>,
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// No machine is ready.
    Waiting,
    /// Some machines are ready; others are waited for.
    Gathering,
    /// The machines were told to start, and find out what they need.
    Starting,
    /// Data goes out for the first time.
    Sending,
    /// What was lost, or is needed by those that came late, goes out again.
    Repairing,
    /// All that took part have everything, or have left.
    Over,
}

/// A session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionView {
    /// Id.
    pub id: String,
    /// Group and port.
    pub group: String,
    /// Name of the image.
    pub image: String,
    /// Id of the image.
    pub image_id: String,
    /// Where it stands.
    pub stage: Stage,
    /// Machines that are ready and wait.
    pub ready: u32,
    /// Machines that are waited for.
    pub targets: u32,
    /// Seconds until those that are ready start; none if they wait for ever.
    pub starts_in: Option<u32>,
    /// When sending began (seconds since 1970).
    pub started: Option<i64>,
    /// Bytes a second with all headers, while it sends.
    pub rate: u64,
    /// Part of the packets that is lost, 0 to 1, as parity is reckoned by.
    pub loss: f64,
    /// Packets sent.
    pub packets: u64,
    /// Part of them that was parity sent beforehand, 0 to 1.
    pub parity: f64,
    /// Part of them that went out again because somebody lacked something, 0 to 1.
    pub repair: f64,
    /// How often it goes through its blocks, from 1.
    pub pass: u32,
    /// Bytes that were sent at least once, or need not be.
    pub sent_bytes: u64,
    /// Bytes of all records.
    pub total_bytes: u64,
    /// Those that took part, those that left among them.
    pub receivers: Vec<ReceiverView>,
    /// Why it cannot send.
    pub problem: Option<Report>,
}

/// A machine in a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReceiverView {
    /// Name of the machine.
    pub machine: String,
    /// Id of the execution.
    pub execution: String,
    /// `ready`, `joined`, `receiving`, `slow`, `done`, or `left`.
    pub state: String,
    /// Why it left: `done`, `slow`, `lossy`, `silent`, `vanished`, `stopped`.
    pub reason: Option<String>,
    /// Part of the packets that it loses, 0 to 1.
    pub loss: f64,
    /// Part of what it wants that has come, 0 to 1.
    pub done: f64,
}
