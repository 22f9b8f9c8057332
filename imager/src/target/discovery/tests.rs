//! What the sources say, without a network.

use super::{Known, Said, Source, ask, is_named, search, sentence};
use crate::remote::{ServerAddress, parse_list};
use crate::target::discovery::resolver::Way;
use crate::target::net::dhcp::{Announced, Lease, Proxy};
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

fn known() -> Known {
    Known {
        command_line: Vec::new(),
        settings: Vec::new(),
        settings_from: "no medium".to_owned(),
        lease: Lease {
            address: Ipv4Addr::LOCALHOST,
            prefix: 8,
            routers: Vec::new(),
            dns: Vec::new(),
            domain: None,
            server: Ipv4Addr::LOCALHOST,
            valid: None,
            renew: Duration::MAX,
            rebind: Duration::MAX,
            announced: Announced::default(),
        },
        fixed: false,
        proxies: Vec::new(),
        pin: None,
        way: Way::default(),
    }
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn servers(said: Said) -> Vec<String> {
    match said {
        Said::Servers(list) => list.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn bare_names_get_the_domain_from_every_source() {
    let mut known = known();
    known.command_line = parse_list("boot;10.0.0.1:80").unwrap();
    known.settings = parse_list("set.other:8080").unwrap();
    known.lease.domain = Some("Lab.example".to_owned());
    known.lease.announced.vendor = texts(&["https://vendor:1"]);
    let of = |source| servers(ask(source, &known));
    assert_eq!(
        of(Source::CommandLine),
        ["https://boot.lab.example:443", "http://10.0.0.1:80"]
    );
    assert_eq!(of(Source::Settings), ["https://set.other:8080"]);
    assert_eq!(of(Source::VendorClass), ["https://vendor.lab.example:1"]);
    assert_eq!(of(Source::DnsHost), ["http://deploy.lab.example:80"]);
}

#[test]
fn what_a_server_beside_the_address_server_offers_comes_after_the_settings() {
    let mut known = known();
    known.proxies = vec![Proxy {
        server: Ipv4Addr::LOCALHOST,
        announced: Announced {
            options: texts(&["https://10.0.0.7:1"]),
            vendor: texts(&["http://10.0.0.8:2"]),
        },
    }];
    assert_eq!(
        servers(ask(Source::VendorClass, &known)),
        ["https://10.0.0.7:1", "http://10.0.0.8:2"]
    );
    assert!(!is_named(&known));
    known.settings = parse_list("a").unwrap();
    assert!(is_named(&known));
}

#[test]
fn every_source_is_in_the_list_with_what_it_said() {
    // A port where nobody listens.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = listener.local_addr().unwrap();
    drop(listener);
    let mut known = known();
    known.command_line = vec![ServerAddress::parse(&format!("http://{closed}")).unwrap()];
    known.lease.announced.options = texts(&["https://127.0.0.1:1"]);
    let tried = search(&known);
    assert!(tried.found.is_none() && tried.silent && tried.refused);
    assert_eq!(
        sentence(&tried.outcomes),
        format!(
            "command line: http://{closed}: connection refused; \
             DHCP options: https://127.0.0.1:1: its key cannot be checked: no pin is known; \
             settings: no medium; vendor class: not offered; \
             DNS service: no domain is known; DNS host: no domain is known"
        )
    );
    known.fixed = true;
    known.lease.announced.options.clear();
    known.lease.domain = Some("lab.example".to_owned());
    let told = sentence(&search(&known).outcomes);
    for part in [
        "DHCP options: not asked (the address is fixed)",
        "DNS service: _deploy._tcp.lab.example: no name server is known",
        "DNS host: http://deploy.lab.example:80: no name server is known",
    ] {
        assert!(told.contains(part), "{told}");
    }
}
