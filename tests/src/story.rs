//! What happens to machines in a run, step by step, as an operator would see it.
//!
//! Owns: registering, ordering jobs and waiting for their states, printing each step.
//! Does not own: what is proved about the disks afterwards (`proof`).

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use testkit::accel::Accelerator;
use testkit::debian::LOGIN_PROMPT;
use testkit::machine::Machine;

use crate::machines::{LIMIT, Pc};
use crate::site::Site;
use crate::status::{Execution, Status};

/// Prints the steps of a run with the time since its start.
#[derive(Debug)]
pub struct Story {
    start: Instant,
    /// What runs the guests.
    pub accelerator: Accelerator,
}

impl Story {
    /// Begins to tell.
    pub fn begin(title: &str, accelerator: Accelerator) -> Story {
        println!("{title}, with {}", accelerator.name());
        Story {
            start: Instant::now(),
            accelerator,
        }
    }

    /// Says what happens.
    pub fn step(&self, text: &str) {
        println!("  [{:4} s] {text}", self.start.elapsed().as_secs());
    }

    /// Lets an unknown machine boot from the network until the server knows it, then
    /// switches it off. Returns the name that the server gave it.
    ///
    /// # Errors
    /// It does not get there.
    pub fn register(&self, site: &Site, pc: &Pc, disk: &Path) -> io::Result<String> {
        self.step(&format!(
            "{}: network boot of a machine that nobody knows",
            pc.name
        ));
        let machine = pc.boot(site, self.accelerator, "register", disk)?;
        self.wait_registered(site, pc, machine)
    }

    /// As [`Story::register`], by way of the boot file for cards without iPXE.
    ///
    /// # Errors
    /// It does not get there, or not by that way.
    pub fn register_by_undionly(&self, site: &Site, pc: &Pc, disk: &Path) -> io::Result<String> {
        self.step(&format!(
            "{}: network boot by undionly.kpxe, of a machine that nobody knows",
            pc.name
        ));
        let machine = pc.boot_by_undionly(site, self.accelerator, "register", disk)?;
        let name = self.wait_registered(site, pc, machine)?;
        let sent = "file=undionly.kpxe bytes=";
        if site.server_log()?.contains(sent) {
            return Ok(name);
        }
        Err(io::Error::other(format!(
            "the server's log has no \"{sent}\": the machine came another way"
        )))
    }

    fn wait_registered(&self, site: &Site, pc: &Pc, mut machine: Machine) -> io::Result<String> {
        let known = |status: &Status| status.machine(pc.mac).is_some();
        let what = "the machine registers itself";
        let status = site.wait_status(what, LIMIT, &mut machine, known)?;
        // The Deploy-OS has nothing to do here and leaves by itself.
        machine.wait_exit(LIMIT)?;
        status
            .machine(pc.mac)
            .ok_or_else(|| io::Error::other("the machine vanished"))
    }

    /// Waits for a state of a machine's newest execution of a kind, which `guest` is to
    /// bring about.
    ///
    /// # Errors
    /// The execution fails instead, or the state does not come.
    pub fn wait_execution(
        &self,
        site: &Site,
        guest: &mut Machine,
        (machine, kind): (&str, &str),
        what: &str,
        mut wanted: impl FnMut(&Execution) -> bool,
    ) -> io::Result<Execution> {
        let mut found = None;
        site.wait_status(
            &format!("{kind} of {machine}: {what}"),
            LIMIT,
            guest,
            |status| match status.execution(machine, kind) {
                Some(execution) if wanted(&execution) || execution.is_final() => {
                    found = Some(execution);
                    true
                }
                _ => false,
            },
        )?;
        match found {
            Some(execution) if wanted(&execution) => Ok(execution),
            other => Err(guest.failure(&format!(
                "{kind} of {machine}: waiting until {what}, but {other:?}"
            ))),
        }
    }

    /// Boots a machine that has a job, waits until the server says that it is done, and
    /// until the machine left by itself. Returns the execution and how long it took.
    ///
    /// # Errors
    /// The job fails, or does not end.
    pub fn run_job(
        &self,
        site: &Site,
        pc: &Pc,
        machine: &str,
        kind: &str,
        disk: &Path,
    ) -> io::Result<(Execution, Duration)> {
        let start = Instant::now();
        let mut guest = pc.boot(site, self.accelerator, kind, disk)?;
        let order = (machine, kind);
        let done = self.wait_execution(site, &mut guest, order, "done", Execution::is_done)?;
        guest.wait_exit(LIMIT)?;
        self.step(&format!("{}: {kind} done, and the machine left", pc.name));
        Ok((done, start.elapsed()))
    }

    /// Boots a machine with nothing to do, network first, to the login prompt of its disk.
    ///
    /// # Errors
    /// It does not get there.
    pub fn boots_through(&self, site: &Site, pc: &Pc, disk: &Path) -> io::Result<Duration> {
        self.step(&format!(
            "{}: network boot with nothing to do goes on to the disk",
            pc.name
        ));
        let time = pc
            .boot(site, self.accelerator, "login", disk)?
            .wait_for(LOGIN_PROMPT, LIMIT)?;
        self.step(&format!("{}: login prompt", pc.name));
        Ok(time)
    }
}
