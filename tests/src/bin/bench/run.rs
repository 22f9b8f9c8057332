//! Running one command and measuring it: wall time, CPU time, peak memory.
//!
//! Owns: the measurement (by GNU time, which counts children too) and medians. Does not
//! own: what is run.

use std::io;
use std::process::{Command, Stdio};

/// Figures of one run.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Seconds from start to end.
    pub wall: f64,
    /// User and system seconds of all processes.
    pub cpu: f64,
    /// Peak resident memory of the largest process, in KiB.
    pub peak_kib: u64,
}

/// Runs a shell command, which must succeed.
pub fn timed(script: &str) -> io::Result<Figures> {
    let output = Command::new("/usr/bin/time")
        .args([
            "-q",
            "-f",
            "TIMED %e %U %S %M",
            "bash",
            "-c",
            &format!("set -e -o pipefail; {script}"),
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(io::Error::other(format!("{script}\nfailed:\n{text}")));
    }
    parse(&text).ok_or_else(|| io::Error::other(format!("no figures from GNU time for {script}")))
}

fn parse(text: &str) -> Option<Figures> {
    let line = text
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("TIMED "))?;
    let mut fields = line.split(' ').map(|field| field.parse::<f64>().ok());
    let mut next = || fields.next().flatten();
    let (wall, user, system, peak) = (next()?, next()?, next()?, next()?);
    Some(Figures {
        wall,
        cpu: user + system,
        peak_kib: peak as u64,
    })
}

/// Runs a command that must succeed, unmeasured.
pub fn plain(script: &str) -> io::Result<()> {
    timed(script).map(drop)
}

/// Median of several runs, field by field; the peak is the largest.
pub fn median(runs: &[Figures]) -> Figures {
    let middle = |pick: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = runs.iter().map(pick).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    };
    Figures {
        wall: middle(|f| f.wall),
        cpu: middle(|f| f.cpu),
        peak_kib: runs.iter().map(|f| f.peak_kib).max().unwrap_or(0),
    }
}

/// Smallest and largest wall time.
pub fn spread(runs: &[Figures]) -> (f64, f64) {
    runs.iter().fold((f64::INFINITY, 0.0), |(low, high), f| {
        (low.min(f.wall), high.max(f.wall))
    })
}
