//! Boots that get nowhere.
//!
//! Owns: when a machine that fetched its boot script counts as stalled, and what is told of it;
//! pure, with the time passed in. Does not own: where boots are noted, what ends with them.

use wire::size::duration;
use wire::{Code, DiskState, Report};

/// A machine that fetched so many scripts without a check-in starts again by itself.
const LOOP: u64 = 3;

/// Boot scripts of the Deploy-OS that a machine fetched since its last check-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boots {
    /// Time of the first one.
    pub first: i64,
    /// Time of the last one.
    pub last: i64,
    /// How many.
    pub count: u64,
}

/// Why a machine counts as stalled at `now`, if it does: its first boot script is more than
/// `limit` seconds ago. `started`: since when this server could have heard a check-in.
pub fn stalled(boots: Option<&Boots>, started: i64, now: i64, limit: i64) -> Option<Report> {
    let boots = boots?;
    if now.saturating_sub(boots.first.max(started)) <= limit {
        return None;
    }
    let ago = |at: i64| duration(u64::try_from(now.saturating_sub(at)).unwrap_or(0));
    let (first, last) = (ago(boots.first), ago(boots.last));
    let found = match boots.count {
        0 | 1 => format!("the boot script was fetched {first} ago, and no check-in followed"),
        count => format!(
            "the boot script was fetched {count} times, first {first} ago and last {last} ago, \
             and no check-in followed"
        ),
    };
    let report = Report::new(Code::BootStalled, found, DiskState::NotInvolved);
    Some(match boots.count {
        0..LOOP => report,
        _ => report.with_advice(
            "The machine starts again and again. Look at its screen. Likely: its kernel panics \
             (it starts again after 30 s), its memory is too small or bad, or the server's data \
             port cannot be reached and somebody restarts it.",
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::{Boots, stalled};
    use wire::Code;

    const LIMIT: i64 = 900;

    fn boots(first: i64, last: i64, count: u64) -> Option<Boots> {
        Some(Boots { first, last, count })
    }

    fn found(boots: Option<Boots>, started: i64, now: i64) -> Option<String> {
        stalled(boots.as_ref(), started, now, LIMIT).map(|report| report.found)
    }

    #[test]
    fn a_machine_is_stalled_once_the_limit_is_over() {
        assert_eq!(found(None, 0, 1_000_000), None);
        let once = boots(1000, 1000, 1);
        assert_eq!(found(once, 0, 1900), None);
        let text = "the boot script was fetched 15 min 01 s ago, and no check-in followed";
        assert_eq!(found(once, 0, 1901).as_deref(), Some(text));
    }

    #[test]
    fn one_that_starts_again_and_again_is_stalled_since_its_first_boot() {
        let report = stalled(boots(1000, 1880, 9).as_ref(), 0, 1901, LIMIT).unwrap();
        assert_eq!(report.code, Code::BootStalled);
        assert!(
            report
                .found
                .contains("9 times, first 15 min 01 s ago and last 21 s ago"),
            "{report}"
        );
        assert!(report.advice.contains("again and again"), "{report}");
    }

    #[test]
    fn what_was_before_the_server_s_start_may_have_been_a_check_in() {
        let once = boots(1000, 1000, 1);
        assert_eq!(found(once, 5000, 5900), None);
        assert!(found(once, 5000, 5901).is_some());
        // A clock that was set back, and numbers at the ends.
        assert_eq!(found(once, 0, 10), None);
        assert_eq!(
            found(boots(i64::MAX, i64::MAX, u64::MAX), 0, i64::MIN),
            None
        );
        assert!(found(boots(i64::MIN, i64::MIN, 0), i64::MIN, i64::MAX).is_some());
    }
}
