//! Boot scripts and boot files over plain HTTP.
//!
//! Owns: the routes under `/boot`. Does not own: the listening socket, its limits on
//! connections and slow clients (the server's HTTP front), or the decision what a
//! machine boots ([`BootDecider`]).
//!
//! Plain HTTP, as boot loaders have no key to check a server by; what protects the
//! rest is told in the trust document.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::time::timeout;
use tokio_util::io::ReaderStream;
use tracing::{info, warn};

use super::config::BootConfig;
use super::decide::{BootDecider, BootDecision, LocalBoot};
use super::files::{BootFile, BootFiles, FileError};
use super::query;
use super::range::{Part, part};
use super::script::{
    first_stage_script, grub_script, grub_try_again_script, ipxe_script, try_again_script,
};

/// Longest wait for a [`BootDecider`]; then the machine is told to ask again.
pub const DECISION_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that are read from a file at a time.
const READ_SIZE: usize = 64 << 10;

#[derive(Clone)]
struct Boot {
    config: Arc<BootConfig>,
    decider: Arc<dyn BootDecider>,
    files: BootFiles,
    patience: Duration,
}

/// The routes `/boot/boot.ipxe`, `/boot/machine.ipxe`, `/boot/machine.grub` and
/// `/boot/files/{name}`, to be merged into the plain HTTP server's.
pub fn router(config: Arc<BootConfig>, decider: Arc<dyn BootDecider>) -> Router {
    router_with_timeout(config, decider, DECISION_TIMEOUT)
}

fn router_with_timeout(
    config: Arc<BootConfig>,
    decider: Arc<dyn BootDecider>,
    patience: Duration,
) -> Router {
    let files = BootFiles::new(&config.pxe_dir);
    Router::new()
        .route("/boot/boot.ipxe", get(first_stage))
        .route("/boot/machine.ipxe", get(machine))
        .route("/boot/machine.grub", get(machine_of_grub))
        .route("/boot/files/{name}", get(file))
        .with_state(Boot {
            config,
            decider,
            files,
            patience,
        })
}

fn script(text: String) -> Response {
    // A proxy between must not give one machine another's script.
    (
        [
            (CONTENT_TYPE, "text/plain; charset=utf-8"),
            (CACHE_CONTROL, "no-store"),
        ],
        text,
    )
        .into_response()
}

async fn first_stage(State(boot): State<Boot>) -> Response {
    script(first_stage_script(&boot.config))
}

/// How a boot loader wants its scripts.
struct Language {
    decided: fn(&BootDecision, &BootConfig) -> String,
    again: fn(&BootConfig) -> String,
}

async fn machine(State(boot): State<Boot>, RawQuery(query): RawQuery) -> Response {
    let language = Language {
        decided: ipxe_script,
        again: try_again_script,
    };
    decided(&boot, query, &language).await
}

async fn machine_of_grub(State(boot): State<Boot>, RawQuery(query): RawQuery) -> Response {
    let language = Language {
        decided: grub_script,
        again: grub_try_again_script,
    };
    decided(&boot, query, &language).await
}

async fn decided(boot: &Boot, query: Option<String>, language: &Language) -> Response {
    let seen = query::read(query.as_deref().unwrap_or_default());
    let Some(mac) = seen.macs.first().cloned() else {
        warn!("a machine asked for its boot script without a network address");
        let why = "the boot loader did not tell the machine's network address".to_owned();
        let how = LocalBoot::Auto;
        let decision = BootDecision::LocalDisk { why, how };
        return script((language.decided)(&decision, &boot.config));
    };
    match timeout(boot.patience, boot.decider.decide(seen)).await {
        Ok(decision) => {
            let what = match &decision {
                BootDecision::DeployOs { .. } => "the Deploy-OS",
                BootDecision::LocalDisk { .. } => "its local disk",
                BootDecision::Refused(report) => report.code.as_str(),
            };
            info!(%mac, "boot script fetched: {what}");
            script((language.decided)(&decision, &boot.config))
        }
        Err(_) => {
            warn!(%mac, "no decision in time what the machine boots; it asks again");
            script((language.again)(&boot.config))
        }
    }
}

async fn file(State(boot): State<Boot>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    let opened = {
        let (files, name) = (boot.files.clone(), name.clone());
        tokio::task::spawn_blocking(move || files.open(&name)).await
    };
    let opened = opened.unwrap_or_else(|error| Err(FileError::Unreadable(io::Error::other(error))));
    let answer = match opened {
        Ok(file) => send(file, &name, &headers)
            .await
            .map_err(FileError::Unreadable),
        Err(error) => Err(error),
    };
    match answer {
        Ok(response) => response,
        Err(FileError::NotFound) => {
            info!(name = %name.escape_default(), "no such boot file");
            (StatusCode::NOT_FOUND, "there is no such boot file\n").into_response()
        }
        Err(FileError::Unreadable(error)) => {
            warn!(name = %name.escape_default(), %error, "boot file cannot be read");
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                "the server cannot read the boot file\n",
            )
                .into_response()
        }
    }
}

/// Streams a file or the part of it that was asked for. The length is always told, as
/// UEFI firmware insists on it.
async fn send(file: BootFile, name: &str, headers: &HeaderMap) -> io::Result<Response> {
    let size = file.size;
    let wanted = headers.get(RANGE).and_then(|value| value.to_str().ok());
    let (status, offset, length) = match wanted.map_or(Part::Whole, |header| part(header, size)) {
        Part::Whole => (StatusCode::OK, 0, size),
        Part::Some { offset, length } => (StatusCode::PARTIAL_CONTENT, offset, length),
        Part::Unsatisfiable => {
            let range = [(CONTENT_RANGE, format!("bytes */{size}"))];
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, range).into_response());
        }
    };
    let mut reader = tokio::fs::File::from_std(file.file);
    reader.seek(io::SeekFrom::Start(offset)).await?;
    let body = Body::from_stream(ReaderStream::with_capacity(reader.take(length), READ_SIZE));
    // UEFI tells a program from a disk image by this type.
    let kind = if name.ends_with(".efi") {
        "application/efi"
    } else {
        "application/octet-stream"
    };
    let mut response = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, kind)
        .header(ACCEPT_RANGES, "bytes")
        .header(CONTENT_LENGTH, length);
    if status == StatusCode::PARTIAL_CONTENT {
        response = response.header(
            CONTENT_RANGE,
            format!("bytes {offset}-{}/{size}", offset + length - 1),
        );
    }
    response.body(body).map_err(io::Error::other)
}

#[cfg(test)]
mod tests;
