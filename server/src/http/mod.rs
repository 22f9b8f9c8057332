//! HTTP: who may ask for what.
//!
//! Owns: routes, tokens, limits on connections and bodies. Does not own: what is done
//! ([`crate::exec`], [`crate::store`]).
//!
//! The data port (TLS) carries everything. The plain port carries what boot loaders can
//! read, and the console for the server's own host only: a token or a password sent over
//! a network without TLS is everybody's.

pub mod api;
pub mod body;
mod cast;
mod certificates;
mod doubt;
pub mod listen;
pub mod stock;
pub mod target;
pub mod tls;

use crate::app::App;
use crate::failure::Failure;
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use std::net::SocketAddr;
use std::sync::Arc;
use wire::{PROTOCOL_HEADER, PROTOCOL_VERSION, SOFTWARE_VERSION};

/// Header with the server's software version.
pub const VERSION_HEADER: &str = "deploy-version";

/// All routes of the data port, which is `data_port`.
pub fn data_router(app: Arc<App>, data_port: u16) -> Router {
    Router::new()
        .merge(introduction(&app, data_port))
        .merge(target::router(Arc::clone(&app)))
        .merge(console(app))
        .layer(middleware::from_fn(versions))
}

/// Routes of the plain port: `boot` and where the data port is for everybody, the console
/// for this host.
pub fn plain_router(app: Arc<App>, boot: Router, data_port: u16) -> Router {
    let introduction = introduction(&app, data_port).layer(middleware::from_fn(versions));
    let console = console(app)
        .layer(middleware::from_fn(versions))
        .layer(middleware::from_fn(loopback_only));
    boot.merge(introduction).merge(console)
}

/// Where the data port is and which key it has. A boot script says the same, as openly.
fn introduction(app: &App, data_port: u16) -> Router {
    let message = wire::Introduction {
        data_port,
        pin: app.pin.to_string(),
    };
    let answer = move || std::future::ready(Json(message.clone()));
    Router::new().route(wire::INTRODUCTION_PATH, get(answer))
}

/// The web page and the API.
fn console(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(crate::web::page))
        .nest("/api", api::router(app))
}

/// Puts our versions on every answer and refuses another protocol.
async fn versions(request: Request, next: Next) -> Response {
    let mut response = match check_protocol(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(PROTOCOL_HEADER, HeaderValue::from(PROTOCOL_VERSION));
    headers.insert(VERSION_HEADER, HeaderValue::from_static(SOFTWARE_VERSION));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A request may leave the header out (a browser's first one); what it says must fit.
fn check_protocol(headers: &HeaderMap) -> Result<(), Failure> {
    let Some(theirs) = headers.get(PROTOCOL_HEADER) else {
        return Ok(());
    };
    if theirs.as_bytes() == PROTOCOL_VERSION.to_string().as_bytes() {
        return Ok(());
    }
    Err(Failure::refused(format!(
        "the request speaks protocol {}, this server (version {SOFTWARE_VERSION}) protocol {PROTOCOL_VERSION}",
        String::from_utf8_lossy(theirs.as_bytes())
    ))
    .with_advice("Use the programs of the server's version."))
}

async fn loopback_only(
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    if peer.ip().to_canonical().is_loopback() {
        return next.run(request).await;
    }
    Failure::refused("without TLS the console is open to the server's own host only")
        .with_advice(format!(
            "Use https and port {} (or the data port that was set).",
            wire::PORT_DATA
        ))
        .into_response()
}

/// The bearer token of a request.
///
/// # Errors
/// There is none.
pub fn bearer(headers: &HeaderMap) -> Result<&str, Failure> {
    headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .map(str::trim)
        .ok_or_else(|| Failure::unauthorized("the request has no bearer token"))
}

#[cfg(test)]
mod tests {
    use super::plain_router;
    use crate::exec::tests::app;
    use axum::Router;
    use axum::body::Body;
    use axum::extract::{ConnectInfo, Request};
    use axum::routing::get;
    use hyper_util::service::TowerToHyperService;
    use std::net::SocketAddr;
    use std::sync::Arc;

    #[tokio::test(flavor = "multi_thread")]
    async fn without_tls_the_console_is_for_this_host_and_boot_scripts_for_all() {
        let dir = tempfile::tempdir().unwrap();
        let app = Arc::new(app(dir.path(), 0).await);
        let boot = Router::new().route("/boot/boot.ipxe", get(|| async { "#!ipxe" }));
        let service = TowerToHyperService::new(plain_router(app, boot, 26501));
        let status = async |peer: &str, path: &str| {
            let request = Request::get(path).header("authorization", "Bearer t");
            let mut request = request.body(Body::empty()).unwrap();
            let peer: SocketAddr = peer.parse().unwrap();
            request.extensions_mut().insert(ConnectInfo(peer));
            hyper::service::Service::call(&service, request)
                .await
                .unwrap()
                .status()
                .as_u16()
        };
        for path in ["/", "/api/version", "/api/overview"] {
            for near in ["127.0.0.1:5", "[::1]:5", "[::ffff:127.0.0.1]:5"] {
                assert_eq!(status(near, path).await, 200, "{path} from {near}");
            }
            for far in ["192.0.2.7:5", "[2001:db8::1]:5"] {
                assert_eq!(status(far, path).await, 403, "{path} from {far}");
            }
        }
        for path in ["/boot/boot.ipxe", wire::INTRODUCTION_PATH] {
            assert_eq!(status("192.0.2.7:5", path).await, 200, "{path}");
        }
    }
}
