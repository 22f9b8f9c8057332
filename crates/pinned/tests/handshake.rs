//! A real TLS server on loopback, met with the right pin, a wrong pin, and a stolen
//! certificate (right certificate, other private key).

use pinned::{Pin, Timeouts, agent, is_pin_mismatch};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

fn certificate(key: &rcgen::KeyPair) -> CertificateDer<'static> {
    // Long expired: dates must not matter.
    let mut params = rcgen::CertificateParams::new(vec!["somebody.else".into()]).unwrap();
    params.not_before = rcgen::date_time_ymd(1990, 1, 1);
    params.not_after = rcgen::date_time_ymd(1991, 1, 1);
    params.self_signed(key).unwrap().der().clone()
}

/// Serves one connection.
fn serve(cert: CertificateDer<'static>, key: &rcgen::KeyPair) -> (SocketAddr, JoinHandle<()>) {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let signer = provider.key_provider.load_private_key(key).unwrap();
    // Built by hand: the ordinary builder would notice a key that does not fit.
    let certified = Arc::new(rustls::sign::CertifiedKey::new(vec![cert], signer));
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let (mut tcp, _) = listener.accept().unwrap();
        let mut tls = rustls::ServerConnection::new(Arc::new(config)).unwrap();
        let mut stream = rustls::Stream::new(&mut tls, &mut tcp);
        let mut request = [0; 4096];
        if stream.read(&mut request).is_ok_and(|n| n > 0) {
            let _ = stream.write_all(
                b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello",
            );
            let _ = stream.flush();
        }
    });
    (address, thread)
}

#[test]
fn the_pinned_server_is_accepted_whatever_its_names_and_dates() {
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = certificate(&key);
    let pin = Pin::of_certificate(&cert).unwrap();
    let (address, thread) = serve(cert, &key);
    let text = agent(&pin, Timeouts::default())
        .get(&format!("https://{address}/"))
        .call()
        .unwrap()
        .into_string()
        .unwrap();
    assert_eq!(text, "hello");
    thread.join().unwrap();
}

#[test]
fn another_key_is_refused_and_told_apart_from_a_lost_connection() {
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = certificate(&key);
    let other = rcgen::KeyPair::generate().unwrap();
    let pin = Pin::of_certificate(&certificate(&other)).unwrap();
    let (address, thread) = serve(cert, &key);
    let error = agent(&pin, Timeouts::default())
        .get(&format!("https://{address}/"))
        .call()
        .unwrap_err();
    assert!(is_pin_mismatch(&error), "{error}");
    thread.join().unwrap();

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = listener.local_addr().unwrap();
    drop(listener);
    let error = agent(&pin, Timeouts::default())
        .get(&format!("https://{closed}/"))
        .call()
        .unwrap_err();
    assert!(!is_pin_mismatch(&error), "{error}");
}

#[test]
fn the_right_certificate_without_its_private_key_is_refused() {
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = certificate(&key);
    let pin = Pin::of_certificate(&cert).unwrap();
    let thief = rcgen::KeyPair::generate().unwrap();
    let (address, thread) = serve(cert, &thief);
    assert!(
        agent(&pin, Timeouts::default())
            .get(&format!("https://{address}/"))
            .call()
            .is_err()
    );
    thread.join().unwrap();
}

#[test]
fn plain_http_is_refused() {
    let pin = Pin::from_bytes([0; 32]);
    assert!(
        agent(&pin, Timeouts::default())
            .get("http://127.0.0.1:9/")
            .call()
            .is_err()
    );
}
