//! Which images are kept.
//!
//! Owns: the rule, as a pure function, and its settings. Does not own: deleting
//! ([`super::prune`]).
//!
//! Images of one series (one machine, one name as it was ordered) are looked at together.
//! An image stays if any rule keeps it. Whatever the rules say, a pinned image stays, one
//! that is in use, and the newest that is whole. Damaged images take no other's place: they
//! stay as long as they would if they were whole.

use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use time::OffsetDateTime;

const DAY: i64 = 24 * 3600;

/// In which slot an image is, by its position and time: one of each slot is kept.
type Slot = fn(usize, i64) -> i64;

/// How many images are kept. All zero: all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// The newest ones.
    pub last: u32,
    /// The newest of each of so many days (UTC) that have one.
    pub daily: u32,
    /// The newest of each of so many weeks, from Monday, that have one.
    pub weekly: u32,
    /// The newest of each of so many months that have one.
    pub monthly: u32,
    /// All that are not older than so many days.
    pub days: u32,
}

impl Policy {
    /// Whether it keeps everything.
    pub fn keeps_all(&self) -> bool {
        *self == Policy::default()
    }
}

/// What the rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// When it was published.
    pub created: i64,
    /// An operator wants it to stay.
    pub pinned: bool,
    /// Nothing of it is known to be damaged.
    pub whole: bool,
    /// It is being restored or exported.
    pub used: bool,
}

/// Why an image stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// There is no rule for it.
    NoRule,
    /// It is pinned.
    Pinned,
    /// It is the newest whole one, or none is whole.
    Newest,
    /// It is being restored or exported.
    InUse,
    /// [`Policy::last`]
    Last,
    /// [`Policy::daily`]
    Daily,
    /// [`Policy::weekly`]
    Weekly,
    /// [`Policy::monthly`]
    Monthly,
    /// [`Policy::days`]
    Days,
}

/// Why each image of a series stays; the series is given newest first. One without a reason
/// goes.
pub fn choose(policy: &Policy, newest_first: &[Candidate], now: i64) -> Vec<Vec<Reason>> {
    let mut reasons: Vec<Vec<Reason>> = newest_first.iter().map(fixed).collect();
    match newest_first.iter().position(|c| c.whole) {
        Some(newest) => reasons[newest].push(Reason::Newest),
        // The next backup may heal any of them.
        None => reasons.iter_mut().for_each(|r| r.push(Reason::Newest)),
    }
    if policy.keeps_all() {
        reasons.iter_mut().for_each(|r| r.push(Reason::NoRule));
        return reasons;
    }
    // Each image is a slot of its own.
    let slots: [(u32, Reason, Slot); 4] = [
        (policy.last, Reason::Last, |at, _| at as i64),
        (policy.daily, Reason::Daily, |_, created| day(created)),
        (policy.weekly, Reason::Weekly, |_, created| {
            // 1970 began on a Thursday.
            (day(created) + 3).div_euclid(7)
        }),
        (policy.monthly, Reason::Monthly, |_, created| month(created)),
    ];
    for (count, reason, slot) in slots {
        let mut taken = HashSet::new();
        for (at, candidate) in newest_first.iter().enumerate() {
            let slot = slot(at, candidate.created);
            if taken.len() as u64 >= u64::from(count) || taken.contains(&slot) {
                continue;
            }
            reasons[at].push(reason);
            if candidate.whole {
                taken.insert(slot);
            }
        }
    }
    let oldest = now.saturating_sub(i64::from(policy.days) * DAY);
    for (candidate, reasons) in newest_first.iter().zip(&mut reasons) {
        if policy.days > 0 && candidate.created >= oldest {
            reasons.push(Reason::Days);
        }
    }
    reasons
}

fn fixed(candidate: &Candidate) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if candidate.pinned {
        reasons.push(Reason::Pinned);
    }
    if candidate.used {
        reasons.push(Reason::InUse);
    }
    reasons
}

fn day(seconds: i64) -> i64 {
    seconds.div_euclid(DAY)
}

fn month(seconds: i64) -> i64 {
    match OffsetDateTime::from_unix_timestamp(seconds) {
        Ok(time) => i64::from(time.year()) * 12 + i64::from(u8::from(time.month())),
        // No clock says such times; thirty days are as good.
        Err(_) => day(seconds).div_euclid(30),
    }
}

#[cfg(test)]
mod tests {
    use super::{Candidate, DAY, Policy, Reason, choose};
    use proptest::prelude::*;

    fn series(days: &[i64]) -> Vec<Candidate> {
        days.iter()
            .map(|day| Candidate {
                created: day * DAY + 3600,
                pinned: false,
                whole: true,
                used: false,
            })
            .collect()
    }

    fn kept(policy: &Policy, images: &[Candidate]) -> Vec<usize> {
        let reasons = choose(policy, images, 100 * DAY);
        let at = |(at, reasons): (usize, &Vec<Reason>)| (!reasons.is_empty()).then_some(at);
        reasons.iter().enumerate().filter_map(at).collect()
    }

    #[test]
    fn each_rule_keeps_what_it_says() {
        // 1970-04-09 (Thursday) back: two of one day, then days, weeks and months apart.
        let mut images = series(&[98, 98, 97, 96, 90, 60, 31, 30, 5]);
        let with = |set: fn(&mut Policy)| {
            let mut policy = Policy::default();
            set(&mut policy);
            policy
        };
        assert_eq!(kept(&with(|p| p.last = 2), &images), [0, 1]);
        assert_eq!(kept(&with(|p| p.daily = 3), &images), [0, 2, 3]);
        assert_eq!(kept(&with(|p| p.weekly = 2), &images), [0, 4]);
        assert_eq!(kept(&with(|p| p.monthly = 4), &images), [0, 5, 6, 7]);
        assert_eq!(kept(&with(|p| p.days = 4), &images), [0, 1, 2, 3]);
        let both = Policy {
            last: 1,
            monthly: 2,
            ..Policy::default()
        };
        assert_eq!(kept(&both, &images), [0, 5]);
        // A damaged one takes nobody's place.
        images[0].whole = false;
        assert_eq!(kept(&with(|p| p.last = 2), &images), [0, 1, 2]);
        assert_eq!(kept(&with(|p| p.daily = 1), &images), [0, 1]);
    }

    fn candidate() -> impl Strategy<Value = Candidate> {
        // Clocks jump, and several images of a day are common.
        let created = prop_oneof![0i64..40 * DAY, Just(20 * DAY), any::<i64>()];
        (created, any::<bool>(), any::<bool>(), 0..5u8).prop_map(|(created, pinned, used, bits)| {
            Candidate {
                created,
                pinned: pinned && bits == 0,
                used: used && bits == 1,
                whole: bits != 2,
            }
        })
    }

    fn policy() -> impl Strategy<Value = Policy> {
        (0..4u32, 0..4u32, 0..4u32, 0..4u32, 0..10u32).prop_map(
            |(last, daily, weekly, monthly, days)| Policy {
                last,
                daily,
                weekly,
                monthly,
                days,
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn what_must_stay_stays(
            images in prop::collection::vec(candidate(), 0..30),
            policy in policy(),
            more in policy(),
            now in prop_oneof![0i64..60 * DAY, any::<i64>()],
        ) {
            let reasons = choose(&policy, &images, now);
            let kept = |at: usize| !reasons[at].is_empty();
            prop_assert_eq!(reasons.len(), images.len());
            if let Some(newest) = images.iter().position(|c| c.whole) {
                prop_assert!(kept(newest));
            } else {
                prop_assert!(reasons.iter().all(|r| !r.is_empty()));
            }
            for (at, image) in images.iter().enumerate() {
                prop_assert!(kept(at) || !image.pinned && !image.used);
                prop_assert!(kept(at) || !policy.keeps_all());
                let newer = images[..at].iter().filter(|c| c.whole).count();
                prop_assert!(kept(at) || newer >= policy.last as usize);
            }
            // Said twice it deletes nothing more.
            let rest: Vec<Candidate> = (0..images.len()).filter(|&at| kept(at)).map(|at| images[at]).collect();
            prop_assert!(choose(&policy, &rest, now).iter().all(|r| !r.is_empty()));
            // A rule more never deletes more.
            if !policy.keeps_all() {
                let wider = Policy {
                    last: policy.last + more.last,
                    daily: policy.daily + more.daily,
                    weekly: policy.weekly + more.weekly,
                    monthly: policy.monthly + more.monthly,
                    days: policy.days + more.days,
                };
                for (at, reasons) in choose(&wider, &images, now).iter().enumerate() {
                    prop_assert!(!kept(at) || !reasons.is_empty());
                }
            }
        }
    }
}
