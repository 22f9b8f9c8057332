//! rustls configuration and HTTP agent that accept one public key.
//!
//! Owns: the verifier and the agent's time-outs. Does not own: retries, requests.

use crate::patient::{Connector, Stop};
use crate::pin::Pin;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use std::sync::Arc;
use std::time::Duration;

/// Time limits of an agent. Each read and write has its own limit, so that a long
/// transfer is never cut while it makes progress.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Longest time to connect.
    pub connect: Duration,
    /// Longest time without a byte from the server.
    pub read: Duration,
    /// Longest time in which the server takes no byte.
    pub write: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            connect: Duration::from_secs(3),
            read: Duration::from_secs(60),
            write: Duration::from_secs(60),
        }
    }
}

/// A TLS client configuration that accepts exactly the server with this key.
pub fn client_config(pin: &Pin) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(PinVerifier {
        pin: *pin,
        algorithms: provider.signature_verification_algorithms,
    });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        // ring serves TLS 1.2 and 1.3 with its default suites, so this cannot fail.
        .expect("the ring provider supports the default protocol versions")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Arc::new(config)
}

/// An HTTP agent that talks only to the server with this key. It follows no
/// redirects and uses no proxy: the server is on the local network.
pub fn agent(pin: &Pin, timeouts: Timeouts) -> ureq::Agent {
    agent_until(pin, timeouts, Arc::new(|| false))
}

/// As [`agent`]; what waits on a connection gives up soon after `stop` says so.
pub fn agent_until(pin: &Pin, timeouts: Timeouts, stop: Stop) -> ureq::Agent {
    let config = client_config(pin);
    ureq::AgentBuilder::new()
        .tls_connector(Arc::new(Connector {
            config,
            timeouts,
            stop,
        }))
        .https_only(true)
        .redirects(0)
        .try_proxy_from_env(false)
        .timeout_connect(timeouts.connect)
        .timeout_read(timeouts.read)
        .timeout_write(timeouts.write)
        .max_idle_connections_per_host(8)
        .build()
}

/// Whether a request failed because the server has another key than the pin's
/// (`server-refused`, and not `connection-lost`).
pub fn is_pin_mismatch(error: &ureq::Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(tls) = error.downcast_ref::<Error>() {
            return is_mismatch(tls);
        }
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && let Some(tls) = io.get_ref().and_then(|inner| inner.downcast_ref::<Error>())
        {
            return is_mismatch(tls);
        }
        source = error.source();
    }
    false
}

fn is_mismatch(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
    )
}

#[derive(Debug)]
struct PinVerifier {
    pin: Pin,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let pin = Pin::of_certificate(end_entity)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        if pin == self.pin {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(
                CertificateError::ApplicationVerificationFailure,
            ))
        }
    }

    // The handshake's signature proves that the server has the key's private half;
    // without this check a pin would prove nothing.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
