//! Orders to wipe a disk.
//!
//! Owns: which disk an order means, settled when it is given. Does not own: the wiping (the
//! target), whether its result is believed ([`super::state`]), the certificate
//! ([`super::certificates`]).

use super::choices;
use crate::db::machines::Machine;
use crate::failure::{Failure, Outcome};
use wire::{Code, JobKind, WipeOrder, size};

/// The job of an order. The disk is named by what does not change: what an operator was
/// shown is what is wiped.
///
/// # Errors
/// The order makes no sense, or no disk or several are meant.
pub fn settle(machine: &Machine, order: WipeOrder) -> Outcome<JobKind> {
    order.check().map_err(Failure::usage)?;
    let disk = match &order.disk {
        Some(_) => choices::disk(machine, order.disk.clone())?,
        None => match choices::built_in(machine)[..] {
            // The server has not seen its disks yet: the target takes the only one, if it
            // is one.
            [] => None,
            [disk] => Some(choices::identity(disk)),
            ref several => {
                let list: Vec<String> = several
                    .iter()
                    .map(|disk| format!("{} ({})", disk.path, size::bytes(disk.size_bytes)))
                    .collect();
                let found = format!(
                    "machine \"{}\" has several disks: {}",
                    machine.name,
                    list.join("; ")
                );
                return Err(Failure::new(Code::TargetAmbiguous, found));
            }
        },
    };
    Ok(JobKind::Wipe(WipeOrder { disk, ..order }))
}

#[cfg(test)]
mod tests {
    use super::settle;
    use crate::db::machines::Machine;
    use wire::{Code, DiskInfo, DiskSelector, JobKind, WipeMethod, WipeOrder};

    fn disk(number: u32, serial: &str) -> DiskInfo {
        DiskInfo {
            number,
            path: format!("/dev/sd{number}"),
            serial: serial.into(),
            size_bytes: 1 << 30,
            bus: "sata".into(),
            ..DiskInfo::default()
        }
    }

    fn machine_with(disks: Vec<DiskInfo>) -> Machine {
        Machine {
            id: "m".into(),
            name: "pc".into(),
            uuid: None,
            serial: String::new(),
            model: String::new(),
            firmware: String::new(),
            architecture: String::new(),
            memory_bytes: 0,
            version: String::new(),
            address: String::new(),
            uptime_ms: 0,
            disks,
            disk_check: None,
            disk_check_at: None,
            san_disks: None,
            local_boot: crate::netboot::LocalBoot::Auto,
            hardware: None,
            boots: None,
            first_seen: 0,
            last_seen: 0,
        }
    }

    #[test]
    fn the_disk_is_named_by_what_does_not_change() {
        let one = machine_with(vec![disk(0, "S0")]);
        let named = |machine: &_, order| match settle(machine, order) {
            Ok(JobKind::Wipe(order)) => Ok(order.disk.and_then(|disk| disk.serial)),
            Ok(other) => panic!("{other:?}"),
            Err(failure) => Err(failure.report.code),
        };
        let any = WipeOrder::default();
        assert_eq!(named(&one, any.clone()), Ok(Some("S0".into())));
        let two = machine_with(vec![disk(0, "S0"), disk(1, "S1")]);
        assert_eq!(named(&two, any.clone()), Err(Code::TargetAmbiguous));
        let by_number = WipeOrder {
            disk: Some(DiskSelector {
                number: Some(1),
                ..DiskSelector::default()
            }),
            ..any.clone()
        };
        assert_eq!(named(&two, by_number.clone()), Ok(Some("S1".into())));
        assert_eq!(named(&one, by_number), Err(Code::DiskNotFound));
        assert_eq!(named(&machine_with(Vec::new()), any.clone()), Ok(None));
        let odd = WipeOrder {
            method: WipeMethod::Discard,
            passes: 2,
            ..any
        };
        assert_eq!(named(&one, odd), Err(Code::Usage));
    }
}
