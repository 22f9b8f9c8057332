//! What a machine boots: the answer to a boot script's request.
//!
//! Owns: registration at the first network boot and the choice between the Deploy-OS and
//! the local disk. Does not own: the script ([`crate::netboot`]).

use super::state::State;
use super::{conclude, concluded, failed, kind_name, registry};
use crate::app::App;
use crate::db::{self, executions, machines};
use crate::failure::Outcome;
use crate::identity::Identity;
use crate::netboot::{BootDecider, BootDecision, BootSeen, Decision};
use std::sync::Arc;
use wire::Code;

/// How long after its first network boot a machine that never checked in is booted into
/// the Deploy-OS without having a job.
const INVENTORY_SECONDS: i64 = 600;

/// The server's core, as network boot sees it.
pub struct Decider(pub Arc<App>);

impl BootDecider for Decider {
    fn decide(&self, seen: BootSeen) -> Decision {
        let app = Arc::clone(&self.0);
        Box::pin(async move {
            match decide(&app, &seen, db::now()).await {
                Ok(decision) => decision,
                // Not the local disk: the machine would leave its job behind.
                Err(failure) => BootDecision::Refused(*failure.report),
            }
        })
    }
}

/// Decides, and registers machines that are not known.
///
/// # Errors
/// The database fails.
pub async fn decide(app: &App, seen: &BootSeen, now: i64) -> Outcome<BootDecision> {
    let target = Identity::new(
        seen.macs.iter().map(String::as_str),
        seen.uuid.as_deref().unwrap_or_default(),
        &seen.serial,
    );
    let mut tx = app.db.write().await?;
    let machine = match registry::register(tx.conn(), &target, now).await? {
        Ok(machine) => machine,
        Err(report) => return Ok(BootDecision::Refused(report)),
    };
    let model = format!("{} {}", seen.manufacturer, seen.product);
    machines::set_model(tx.conn(), &machine.id, model.trim()).await?;
    let how = machine.local_boot;
    let local = |why: String| BootDecision::LocalDisk { why, how };
    let mut ended = None;
    let decision = match executions::open_of(tx.conn(), &machine.id).await? {
        // Once, so that disks, all cards and the firmware are known before the first job. A
        // machine on which the Deploy-OS does not get that far is left alone afterwards.
        None if machine.firmware.is_empty() && now - machine.first_seen < INVENTORY_SECONDS => {
            BootDecision::DeployOs {
                why: format!("inventory of {}", machine.name),
            }
        }
        None => local(format!("nothing is assigned to {}", machine.name)),
        Some(open) if open.state.is_final() => {
            let kind = kind_name(&open.job);
            local(format!(
                "the {kind} of {} has ended: {}",
                machine.name,
                open.state.as_str()
            ))
        }
        // A machine that boots has left the job that it was asked to stop.
        Some(mut open) if open.state == State::Interrupting => {
            let outcome = failed(
                &open,
                Code::Interrupted,
                "the machine was rebooted after the interrupt",
            );
            conclude(tx.conn(), &mut open, State::Interrupted, outcome, None, now).await?;
            let why = format!(
                "the {} of {} was interrupted",
                kind_name(&open.job),
                machine.name
            );
            ended = Some(open);
            local(why)
        }
        Some(mut open) => {
            if open.state == State::Waiting {
                open.state = State::Booting;
                open.changed = now;
                executions::update(tx.conn(), &open).await?;
            }
            BootDecision::DeployOs {
                why: format!("{} of {}", kind_name(&open.job), machine.name),
            }
        }
    };
    if matches!(decision, BootDecision::DeployOs { .. }) {
        machines::boot_fetched(tx.conn(), &machine.id, now, app.limits.start_within).await?;
    }
    tx.commit().await?;
    if let Some(execution) = ended {
        concluded(app, &execution, now).await;
    }
    Ok(decision)
}
