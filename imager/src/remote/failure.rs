//! What a failed request means: a report for people, and whether trying again can help.
//!
//! Owns: the classification of transport errors and of HTTP statuses. Does not own: the
//! decision how long to try ([`super::retry`]).

use wire::{Code, DiskState, Report};

/// A request that was not answered as hoped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server may answer later: not reachable, restarting, connection broken.
    Transient(Report),
    /// The answer will not change.
    Final(Report),
}

impl Failure {
    /// The report, whatever its kind.
    pub fn into_report(self) -> Report {
        match self {
            Failure::Transient(report) | Failure::Final(report) => report,
        }
    }

    pub(super) fn local(doing: &str, error: &std::io::Error) -> Failure {
        Failure::Final(report(Code::Internal, format!("{doing}: {error}")))
    }
}

pub(super) fn report(code: Code, found: String) -> Report {
    Report::new(code, found, DiskState::NotInvolved)
}

/// Classifies a request that got no answer. `reached` says whether this server has ever
/// answered: only then can a connection be called lost.
pub(super) fn from_transport(url: &str, error: &ureq::Error, reached: bool) -> Failure {
    if pinned::is_pin_mismatch(error) {
        let found = format!("the server at {url} has another key than deploy.pin= names");
        let advice = "Make sure that this is your server; if its key was replaced, boot again to get the new pin.";
        return Failure::Final(report(Code::ServerRefused, found).with_advice(advice));
    }
    let text = error_chain(error);
    let found = format!("{url}: {text}");
    let code = match error.kind() {
        ureq::ErrorKind::InvalidUrl | ureq::ErrorKind::UnknownScheme => {
            return Failure::Final(report(Code::Usage, found));
        }
        ureq::ErrorKind::Dns | ureq::ErrorKind::ConnectionFailed if !reached => {
            Code::ServerNotFound
        }
        _ if is_timeout(error) => {
            if reached {
                Code::TransferTimeout
            } else {
                Code::ServerNotFound
            }
        }
        _ => Code::ConnectionLost,
    };
    Failure::Transient(report(code, found))
}

/// Classifies an answer with an error status; `body` is the beginning of what came with it.
pub(super) fn from_status(url: &str, status: u16, body: &[u8]) -> Failure {
    let told = serde_json::from_slice::<Report>(body).ok();
    let explained = told.unwrap_or_else(|| {
        let code = match status {
            401 | 403 => Code::ServerRefused,
            408 | 504 => Code::TransferTimeout,
            429 | 503 => Code::Busy,
            _ => Code::ServerRefused,
        };
        report(
            code,
            format!("{url} answered with HTTP status {status} and no explanation"),
        )
    });
    match status {
        408 | 429 | 502 | 503 | 504 => Failure::Transient(explained),
        _ => Failure::Final(explained),
    }
}

/// An answer that is not one of our server's.
pub(super) fn not_our_server(url: &str, found: Option<&str>) -> Failure {
    let wanted = wire::PROTOCOL_VERSION;
    let report = match found {
        Some(version) => report(
            Code::ServerRefused,
            format!("{url} speaks protocol version {version}, this target speaks {wanted}"),
        )
        .with_advice("Boot the target again, so that it gets the Deploy-OS of this server."),
        None => report(
            Code::ServerRefused,
            format!(
                "what answers at {url} is not a deployment server (no {} header)",
                wire::PROTOCOL_HEADER
            ),
        )
        .with_advice("Check address and port; a proxy or another web server answers there."),
    };
    Failure::Final(report)
}

/// A break or time-out within the body of an answer.
pub(super) fn from_body(url: &str, error: &std::io::Error) -> Failure {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    let code = match error.kind() {
        TimedOut | WouldBlock => Code::TransferTimeout,
        _ => Code::ConnectionLost,
    };
    Failure::Transient(report(
        code,
        format!("{url}: the answer broke off: {error}"),
    ))
}

fn is_timeout(error: &ureq::Error) -> bool {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return matches!(io.kind(), TimedOut | WouldBlock);
        }
        source = error.source();
    }
    false
}

/// The innermost cause says most; the outer texts repeat the URL.
fn error_chain(error: &ureq::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(next) = innermost.source() {
        innermost = next;
    }
    innermost.to_string()
}
