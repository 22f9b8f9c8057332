//! Ordering a restore of several machines by one session.
//!
//! Owns: its settings, and that all of its machines get it or none. Does not own: what can
//! be ordered of one machine ([`control`]).

use super::shown::{NewSession, Ordered, Settings as Asked};
use super::{settings, views};
use crate::app::App;
use crate::db::executions;
use crate::exec::control;
use crate::failure::{Failure, Outcome};
use crate::secrets;
use crate::view::{self, JobRequest};
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use wire::{Code, JobKind, PORT_MULTICAST, Session};

/// Machines of one order.
const MOST: usize = 4096;

/// Orders a restore of all machines, or of none.
///
/// # Errors
/// What can be said against any of them; a group that another session uses.
pub async fn order(app: &App, request: NewSession, now: i64) -> Outcome<Ordered> {
    let random = |e: std::io::Error| Failure::io("random numbers", &e);
    if request.machines.is_empty() || request.machines.len() > MOST {
        return Err(Failure::usage(format!(
            "{} machines; a multicast session is ordered for 1 to {MOST}",
            request.machines.len()
        )));
    }
    let JobRequest::Restore {
        disks, all_disks, ..
    } = &request.execution.job
    else {
        return Err(Failure::usage("a multicast session restores an image"));
    };
    if *all_disks || disks.len() > 1 {
        return Err(
            Failure::usage("a multicast session restores one image to one disk").with_advice(
                "Order a session for each image of a backup of several disks, one after the other.",
            ),
        );
    }
    if request.execution.rate.is_some() {
        return Err(Failure::usage(
            "the limit of a session is one of its settings",
        ));
    }
    let mut tx = app.db.write().await?;
    // Read in the transaction: two orders at once do not choose one group.
    let mut others = Vec::new();
    let mut mate = None;
    for execution in executions::all_open(tx.conn()).await? {
        if execution.state.is_final() {
            continue;
        }
        if let Some(found) = settings(&execution.job) {
            if Some(&found.session) == request.session.as_ref() {
                mate = Some(execution.clone());
            }
            others.push(found.clone());
        }
    }
    let session = match &request.session {
        None => new(
            &request.settings,
            &others,
            &secrets::random_id().map_err(random)?,
        )?,
        Some(id) => {
            let found = mate.as_ref().and_then(|mate| settings(&mate.job)).cloned();
            found.ok_or_else(|| {
                Failure::not_found(format!("there is no multicast session {id}, or it is over"))
                    .with_advice("List them with: deployctl multicast list")
            })?
        }
    };
    let mut made = Vec::new();
    for machine in &request.machines {
        let execution = control::insert(
            app,
            tx.conn(),
            machine,
            request.execution.clone(),
            Some(session.clone()),
            now,
        )
        .await?;
        if let Some(mate) = &mate {
            same_image(&mate.job, &execution.job)?;
        }
        made.push(execution);
    }
    tx.commit().await?;
    tracing::info!(session = %session.session, group = %session.group, machines = made.len(), "multicast session ordered");
    let mut conn = app.db.read().await?;
    let mut shown = Vec::with_capacity(made.len());
    for execution in &made {
        let machine = crate::db::machines::by_id(&mut conn, &execution.machine).await?;
        let name = machine.map(|machine| machine.name).unwrap_or_default();
        shown.push(view::execution(app, execution, &name, now));
    }
    drop(conn);
    let all = views(app).await?;
    let found = all.into_iter().find(|view| view.id == session.session);
    let session = match (found, made.first()) {
        (Some(view), _) => view,
        // All of them have ended meanwhile.
        (None, Some(first)) => super::waiting(first, 0),
        (None, None) => return Err(Failure::internal("an order without machines")),
    };
    Ok(Ordered {
        session,
        executions: shown,
    })
}

fn same_image(of_session: &JobKind, new: &JobKind) -> Outcome<()> {
    let image = |job: &JobKind| match job {
        JobKind::Restore {
            image, image_name, ..
        } => (image.clone(), image_name.clone()),
        _ => Default::default(),
    };
    let ((wanted, name), (other, _)) = (image(of_session), image(new));
    if wanted == other {
        return Ok(());
    }
    Err(Failure::conflict(format!(
        "the session sends image \"{name}\" ({wanted}), not {other}"
    )))
}

/// The settings of a new session.
fn new(asked: &Asked, others: &[Session], id: &str) -> Outcome<Session> {
    if asked.targets == Some(0) {
        return Err(Failure::usage("a session waits for at least one machine"));
    }
    if asked.ttl == Some(0) {
        return Err(Failure::usage(
            "packets of TTL 0 do not leave the server; 1 stays in its network",
        ));
    }
    if let Some(symbol) = asked.symbol
        && (!(256..=1408).contains(&symbol) || !symbol.is_multiple_of(64))
    {
        return Err(Failure::usage(format!(
            "{symbol} bytes of the image in a packet; a multiple of 64 from 256 to 1408 is possible"
        )));
    }
    if let Some(rate) = asked.rate.filter(|&rate| rate < crate::exec::rate::LEAST) {
        return Err(Failure::usage(format!(
            "a limit of {rate} bytes a second; the smallest one is {} (1M)",
            crate::exec::rate::LEAST
        )));
    }
    let used: HashSet<IpAddr> = others
        .iter()
        .filter_map(|other| Some(address(&other.group)?.ip()))
        .collect();
    let group = match &asked.group {
        Some(text) => {
            let group = address(text).ok_or_else(|| {
                Failure::usage(format!("{text:?} is no group"))
                    .with_advice("Name one as 239.1.2.3, 239.1.2.3:26530 or [ff05::7]:26530, or none: the server chooses.")
            })?;
            if let Some(other) = others
                .iter()
                .find(|o| address(&o.group).is_some_and(|a| a.ip() == group.ip()))
            {
                let found = format!(
                    "multicast session {} uses the group {}",
                    other.session, other.group
                );
                return Err(Failure::new(Code::MulticastAddressInUse, found));
            }
            group
        }
        None => free(id, &used),
    };
    group::Group::new(group, asked.interface.as_deref())
        .map_err(|error| Failure::usage(error.to_string()))?;
    Ok(Session {
        session: id.to_owned(),
        group: group.to_string(),
        interface: asked.interface.clone(),
        rate: asked.rate,
        targets: asked.targets,
        longest_wait: asked.longest_wait,
        ttl: asked.ttl.unwrap_or(1),
        symbol: asked.symbol,
    })
}

/// A group with or without port.
fn address(text: &str) -> Option<SocketAddr> {
    let address = match text.parse::<SocketAddr>() {
        Ok(address) => address,
        Err(_) => SocketAddr::new(text.parse().ok()?, PORT_MULTICAST),
    };
    (address.ip().is_multicast() && address.port() > 0).then_some(address)
}

/// One of 239.255.0.0/16, which stay within a site, that nobody uses; not of the last 256, some
/// of which have a meaning.
fn free(id: &str, used: &HashSet<IpAddr>) -> SocketAddr {
    let hash = blake3::hash(id.as_bytes());
    let start = u16::from_le_bytes([hash.as_bytes()[0], hash.as_bytes()[1]]);
    let groups = (0..=u16::MAX).map(|n| {
        let [a, b] = start.wrapping_add(n).to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(239, 255, a, b))
    });
    let mut free = groups.filter(|group| {
        let special = matches!(group, IpAddr::V4(group) if group.octets()[2] == 255);
        !special && !used.contains(group)
    });
    let any = IpAddr::V4(Ipv4Addr::new(239, 255, 0, 1));
    SocketAddr::new(free.next().unwrap_or(any), PORT_MULTICAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(group: &str) -> Asked {
        Asked {
            group: Some(group.to_owned()),
            ..Asked::default()
        }
    }

    #[test]
    fn groups_have_a_port_and_belong_to_one_session() {
        let first = new(&asked("239.1.2.3"), &[], "a").unwrap();
        assert_eq!(first.group, "239.1.2.3:26530");
        let others = [first];
        let taken = new(&asked("239.1.2.3:9999"), &others, "b").unwrap_err();
        assert_eq!(taken.report.code, Code::MulticastAddressInUse);
        assert!(taken.report.found.contains("session a"), "{taken}");
        let six = new(&asked("[ff05::7]:5"), &others, "b").unwrap();
        assert_eq!(six.group, "[ff05::7]:5");
        for bad in [
            "10.0.0.1",
            "224.0.0.1",
            "239.1.2.3:0",
            "239.1.2",
            "x",
            "",
            "::1",
        ] {
            assert_eq!(
                new(&asked(bad), &[], "a").unwrap_err().report.code,
                Code::Usage,
                "{bad}"
            );
        }
    }

    #[test]
    fn a_group_is_chosen_that_nobody_uses() {
        let mut others = Vec::new();
        for n in 0..50 {
            let next = new(&Asked::default(), &others, &format!("s{}", n % 3)).unwrap();
            assert!(next.group.starts_with("239.255."), "{}", next.group);
            assert!(
                !others
                    .iter()
                    .any(|other: &Session| other.group == next.group)
            );
            others.push(next);
        }
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        let bad = [
            Asked {
                targets: Some(0),
                ..Asked::default()
            },
            Asked {
                ttl: Some(0),
                ..Asked::default()
            },
            Asked {
                symbol: Some(1400),
                ..Asked::default()
            },
            Asked {
                rate: Some(1000),
                ..Asked::default()
            },
        ];
        for asked in bad {
            assert!(new(&asked, &[], "a").is_err(), "{asked:?}");
        }
    }
}
