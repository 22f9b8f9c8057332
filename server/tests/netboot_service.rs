//! Starting and stopping network boot: ports that are taken, settings that cannot work.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;

use server::netboot::{NetbootConfig, NetbootError, ProxyMode, Shared, run, start};
use testkit::netns::{Host, Lab};
use tokio::sync::watch;

fn config(pxe_dir: &Path) -> NetbootConfig {
    NetbootConfig {
        interface: Some("eth0".to_owned()),
        server_ip: Ipv4Addr::new(10, 99, 0, 2),
        http_port: 26500,
        data_port: 26501,
        pin: "00".to_owned(),
        signer: String::new(),
        pxe_dir: pxe_dir.to_owned(),
        tftp: true,
        proxy_dhcp: ProxyMode::On,
        leases: None,
        extra_kernel_args: String::new(),
    }
}

/// Runs an async test on a laboratory host.
fn on<T, F, Work>(host: &Host, work: F) -> T
where
    F: FnOnce() -> Work + Send + 'static,
    Work: Future<Output = T>,
    T: Send + 'static,
{
    host.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(work())
    })
    .unwrap()
}

#[test]
fn a_taken_tftp_port_is_told_with_its_owner() {
    let (folder, lab) = (tempfile::tempdir().unwrap(), Lab::new().unwrap());
    let host = lab.host("srv", "10.99.0.2/24").unwrap();
    let settings = config(folder.path());
    let outcome = on(&host, || async move {
        let _taken = UdpSocket::bind("0.0.0.0:69").unwrap();
        let (_stop, shutdown) = watch::channel(false);
        start(&settings, &Shared::default(), shutdown)
            .await
            .map(|_| ())
    });
    let Err(NetbootError::PortTaken {
        port: 69, owner, ..
    }) = outcome
    else {
        panic!("{outcome:?}")
    };
    assert!(
        owner.contains(&format!("(process {})", std::process::id())),
        "{owner}"
    );
}

#[test]
fn one_taken_port_does_not_hold_the_other_service_and_shutdown_ends_the_waiting() {
    let (folder, lab) = (tempfile::tempdir().unwrap(), Lab::new().unwrap());
    let host = lab.host("srv", "10.99.0.2/24").unwrap();
    let settings = config(folder.path());
    let outcome = on(&host, || async move {
        let _taken = UdpSocket::bind("0.0.0.0:69").unwrap();
        let (stop, shutdown) = watch::channel(false);
        let running = tokio::spawn(run(settings, Shared::default(), shutdown));
        // proxyDHCP runs as soon as its port is taken by it.
        while UdpSocket::bind("10.99.0.2:4011").is_ok() {
            tokio::task::yield_now().await;
        }
        stop.send_replace(true);
        running.await.unwrap()
    });
    assert!(outcome.is_ok(), "{outcome:?}");
}

#[test]
fn settings_that_cannot_work_are_refused_at_once() {
    let (folder, lab) = (tempfile::tempdir().unwrap(), Lab::new().unwrap());
    let host = lab.host("srv", "10.99.0.2/24").unwrap();
    let nowhere = NetbootConfig {
        pxe_dir: folder.path().join("nowhere"),
        ..config(folder.path())
    };
    let odd_pin = NetbootConfig {
        pin: "secret".to_owned(),
        ..config(folder.path())
    };
    let (first, second) = on(&host, || async move {
        let (_stop, shutdown) = watch::channel(false);
        (
            run(nowhere, Shared::default(), shutdown.clone()).await,
            run(odd_pin, Shared::default(), shutdown).await,
        )
    });
    assert!(
        matches!(first, Err(NetbootError::Folder { .. })),
        "{first:?}"
    );
    assert!(
        matches!(second, Err(NetbootError::Config { setting: "pin", .. })),
        "{second:?}"
    );
}

#[test]
fn nothing_is_opened_when_nothing_is_asked_for() {
    let (folder, lab) = (tempfile::tempdir().unwrap(), Lab::new().unwrap());
    let host = lab.host("srv", "10.99.0.2/24").unwrap();
    let off = NetbootConfig {
        tftp: false,
        proxy_dhcp: ProxyMode::Off,
        ..config(folder.path())
    };
    on(&host, || async move {
        let (_stop, shutdown) = watch::channel(false);
        let _off = start(&off, &Shared::default(), shutdown).await.unwrap();
        for port in [67, 69, 4011] {
            assert!(UdpSocket::bind(("10.99.0.2", port)).is_ok(), "{port}");
        }
    });
}

#[test]
fn port_67_is_left_alone_when_only_4011_is_asked_for() {
    let (folder, lab) = (tempfile::tempdir().unwrap(), Lab::new().unwrap());
    let host = lab.host("srv", "10.99.0.2/24").unwrap();
    let only_4011 = NetbootConfig {
        tftp: false,
        proxy_dhcp: ProxyMode::Only4011,
        ..config(folder.path())
    };
    on(&host, || async move {
        let (_stop, shutdown) = watch::channel(false);
        let _only = start(&only_4011, &Shared::default(), shutdown)
            .await
            .unwrap();
        assert!(UdpSocket::bind(("10.99.0.2", 67)).is_ok());
        assert!(UdpSocket::bind(("10.99.0.2", 4011)).is_err());
    });
}
