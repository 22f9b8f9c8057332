//! How a request fails: a report for people, with an HTTP status.
//!
//! Owns: the mapping of causes to codes and statuses. Does not own: the codes
//! (`wire::codes`).

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use wire::{Code, DiskState, Report};

/// A failed request.
#[derive(Debug, thiserror::Error)]
#[error("{report}")]
pub struct Failure {
    /// HTTP status.
    pub status: StatusCode,
    /// What people read.
    pub report: Box<Report>,
}

/// Result of everything that a request can reach.
pub type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// A failure with the status that fits its code.
    pub fn new(code: Code, found: impl Into<String>) -> Self {
        let status = match code {
            Code::Usage => StatusCode::BAD_REQUEST,
            Code::ServerRefused => StatusCode::FORBIDDEN,
            Code::ImageNotFound | Code::NothingAssigned => StatusCode::NOT_FOUND,
            Code::ImageDamaged | Code::ImageVersion => StatusCode::UNPROCESSABLE_ENTITY,
            Code::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
            Code::Internal | Code::OutputFailed => StatusCode::INTERNAL_SERVER_ERROR,
            Code::Busy => StatusCode::SERVICE_UNAVAILABLE,
            // Worth another try, which targets see by the status.
            Code::ConnectionLost | Code::TransferTimeout => StatusCode::REQUEST_TIMEOUT,
            _ => StatusCode::CONFLICT,
        };
        Failure {
            status,
            report: Box::new(Report::new(code, found, DiskState::NotInvolved)),
        }
    }

    /// The request is not understood or not allowed in this state.
    pub fn usage(found: impl Into<String>) -> Self {
        Failure::new(Code::Usage, found)
    }

    /// Token, state or protocol do not allow the request.
    pub fn refused(found: impl Into<String>) -> Self {
        Failure::new(Code::ServerRefused, found)
    }

    /// No or wrong token.
    pub fn unauthorized(found: impl Into<String>) -> Self {
        Failure {
            status: StatusCode::UNAUTHORIZED,
            ..Failure::refused(found)
        }
    }

    /// What was named is not there.
    pub fn not_found(found: impl Into<String>) -> Self {
        Failure {
            status: StatusCode::NOT_FOUND,
            ..Failure::usage(found)
        }
    }

    /// The state forbids it; nothing was changed.
    pub fn conflict(found: impl Into<String>) -> Self {
        Failure {
            status: StatusCode::CONFLICT,
            ..Failure::usage(found)
        }
    }

    /// Something the server does not expect.
    pub fn internal(found: impl Into<String>) -> Self {
        Failure::new(Code::Internal, found)
    }

    /// The server cannot answer now; asked again, it will.
    pub fn later(found: impl Into<String>) -> Self {
        Failure {
            status: StatusCode::SERVICE_UNAVAILABLE,
            ..Failure::internal(found)
        }
    }

    /// Replaces the catalogue's advice.
    pub fn with_advice(mut self, advice: impl Into<String>) -> Self {
        self.report.advice = advice.into();
        self
    }

    /// A file of an image cannot be opened. Only a missing one is damage: with too many
    /// open files, say, the image is as good as before.
    pub fn of_image_file(path: &std::path::Path, error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::NotFound => {
                Failure::new(Code::ImageDamaged, format!("{}: {error}", path.display()))
            }
            _ => Failure::io(&path.display().to_string(), error),
        }
    }

    /// A failure of the server's own files. A full file system is told as such.
    pub fn io(what: &str, error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                Failure::new(Code::NoSpace, format!("{what}: {error}"))
            }
            _ => Failure::internal(format!("{what}: {error}")),
        }
    }
}

/// SQLite's primary result code (5 busy, 13 full) of the extended one that is given.
fn primary(extended: &str) -> Option<u32> {
    Some(extended.parse::<u32>().ok()? & 0xff)
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        let found = format!("the server's database: {error}");
        let result = error.as_database_error().and_then(|e| e.code());
        let code = match result.as_deref().and_then(primary) {
            Some(13) => Code::NoSpace,
            Some(5) => return Failure::later(found),
            _ => Code::Internal,
        };
        match error {
            // The server stops or is overloaded: the target asks again.
            sqlx::Error::PoolClosed | sqlx::Error::PoolTimedOut => Failure::later(found),
            _ => Failure::new(code, found),
        }
    }
}

impl From<image::Error> for Failure {
    fn from(error: image::Error) -> Self {
        match &error {
            image::Error::Io { operation, source } => Failure::io(operation, source),
            image::Error::Damaged { .. } => Failure::new(Code::ImageDamaged, error.to_string()),
            image::Error::Key { .. } => Failure::new(Code::ImageLocked, error.to_string()),
            image::Error::Version { .. } => Failure::new(Code::ImageVersion, error.to_string()),
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Failure::internal(format!("the server's own records: {error}"))
    }
}

impl From<tokio::task::JoinError> for Failure {
    fn from(error: tokio::task::JoinError) -> Self {
        let found = format!("a task ended early: {error}");
        if error.is_cancelled() {
            Failure::later(found)
        } else {
            Failure::internal(found)
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            tracing::error!(code = %self.report.code, found = %self.report.found, "request failed");
        } else {
            tracing::debug!(code = %self.report.code, found = %self.report.found, "request refused");
        }
        (self.status, Json(*self.report)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::Failure;
    use wire::Code;

    #[test]
    fn what_passes_is_told_apart_from_what_stays() {
        assert_eq!(Failure::from(sqlx::Error::PoolClosed).status, 503);
        assert_eq!(Failure::from(sqlx::Error::RowNotFound).status, 500);
        assert_eq!(Failure::new(Code::ConnectionLost, "").status, 408);
    }

    #[test]
    fn extended_codes_mean_what_their_primary_ones_do() {
        assert_eq!(super::primary("5"), Some(5));
        assert_eq!(super::primary("517"), Some(5), "SQLITE_BUSY_SNAPSHOT");
        assert_eq!(super::primary("13"), Some(13));
        assert_eq!(super::primary("x"), None);
    }

    #[test]
    fn a_full_disk_is_told_as_such() {
        let error = std::io::Error::from_raw_os_error(28);
        assert_eq!(
            Failure::io("writing a pack", &error).report.code,
            Code::NoSpace
        );
        let error = std::io::Error::from_raw_os_error(5);
        assert_eq!(
            Failure::io("writing a pack", &error).report.code,
            Code::Internal
        );
    }
}
