//! The six sources of the server's address, on hosts of their own with dnsmasq as DHCP and
//! name server: `imager discover --configure` runs what `/init` runs. Wants root, iproute2
//! and dnsmasq.
//!
//! Owns: which source counts, and what is told. Does not own: bytes of messages (unit tests),
//! the check-in (the tests in virtual machines).

use pinned::Pin;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Output, Stdio};
use std::sync::Arc;
use std::thread;
use testkit::netns::{Host, Lab, require};

const IMAGER: &str = env!("CARGO_BIN_EXE_imager");
const DOMAIN: &str = "lab.example";

/// The key of a server, and its pin.
struct Key {
    config: Arc<rustls::ServerConfig>,
    pin: Pin,
}

impl Key {
    fn new() -> Key {
        let pair = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["server".into()]).unwrap();
        let certificate = params.self_signed(&pair).unwrap().der().clone();
        let pin = Pin::of_certificate(&certificate).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        Key {
            config: Arc::new(config),
            pin,
        }
    }

    /// A server with this key on a host. It lives as long as the test.
    fn serve(&self, host: &Host, port: u16) {
        let config = Arc::clone(&self.config);
        listen(host, port, move |stream| {
            let Ok(connection) = rustls::ServerConnection::new(Arc::clone(&config)) else {
                return;
            };
            answer(rustls::StreamOwned::new(connection, stream), "{}");
        });
    }

    /// What a server says of itself without TLS.
    fn introduce(&self, host: &Host, port: u16, data_port: u16) {
        let said = format!(r#"{{"data_port":{data_port},"pin":"{}"}}"#, self.pin);
        listen(host, port, move |stream| answer(stream, &said));
    }
}

fn listen(host: &Host, port: u16, work: impl Fn(TcpStream) + Send + 'static) {
    let address = host.address().unwrap().parse().unwrap();
    let to = SocketAddr::new(address, port);
    let listener = host.run(move || TcpListener::bind(to)).unwrap().unwrap();
    thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(work));
}

fn answer(mut stream: impl Read + Write, body: &str) {
    // One read is enough for a request this short; who has another key than the client
    // wants gets no further.
    if stream.read(&mut [0; 2048]).is_ok() {
        let head = "HTTP/1.1 200 OK\r\ndeploy-protocol: 1\r\ncontent-length";
        let _ = write!(stream, "{head}: {}\r\n\r\n{body}", body.len());
        let _ = stream.flush();
    }
}

/// A program that ends with the value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server's host with dnsmasq, and a client without an address.
struct Net {
    // Dropped in this order.
    _dnsmasq: Option<Running>,
    client: Host,
    server: Host,
    lab: Lab,
    folder: tempfile::TempDir,
}

impl Net {
    fn new() -> Net {
        let lab = Lab::new().unwrap();
        Net {
            _dnsmasq: None,
            client: lab.host_without_address("cli").unwrap(),
            server: lab.host("srv", "10.99.0.1/24").unwrap(),
            lab,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Starts dnsmasq anew with these options; it gives addresses, a domain and itself
    /// as name server.
    fn dnsmasq(&mut self, options: &[&str]) {
        require("dnsmasq", "dnsmasq-base").unwrap();
        self._dnsmasq = None;
        let leases = self.folder.path().join("leases");
        let child = self
            .server
            .command("dnsmasq")
            .args(["--conf-file=/dev/null", "--no-daemon", "--no-ping"])
            .args(["--interface=eth0", "--bind-interfaces", "--user=root"])
            .args(["--no-resolv", "--no-hosts", "--pid-file"])
            .arg(format!("--local=/{DOMAIN}/"))
            .arg(format!("--dhcp-leasefile={}", leases.display()))
            .arg("--dhcp-range=10.99.0.50,10.99.0.60,255.255.255.0,1h")
            .args(["--dhcp-option=6,10.99.0.1", "--dhcp-option=15,lab.example"])
            .args(options)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self._dnsmasq = Some(Running(child));
    }

    fn settings(&self, text: &str) -> String {
        let path = self.folder.path().join("settings");
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let output = self
            .client
            .command(IMAGER)
            .args(["discover", "--configure", "--nic", "eth0", "--json"])
            .arg("--etc")
            .arg(self.folder.path().join("etc"))
            .args(arguments)
            .output()
            .unwrap();
        // The next run begins without an address, as a machine does.
        let flush = ["-4", "addr", "flush", "dev", "eth0"];
        assert!(
            self.client
                .command("ip")
                .args(flush)
                .status()
                .unwrap()
                .success()
        );
        output
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    /// Source and server that were found.
    fn found(&self, arguments: &[&str]) -> (String, String) {
        let json = self.json(arguments);
        let text = |key: &str| {
            json[key]
                .as_str()
                .unwrap_or_else(|| panic!("{json:#}"))
                .to_owned()
        };
        (text("source"), text("server"))
    }
}

fn pair(source: &str, server: &str) -> (String, String) {
    (source.to_owned(), server.to_owned())
}

#[test]
fn every_source_is_found_and_the_earlier_ones_count_first() {
    let mut net = Net::new();
    let key = Key::new();
    for port in 1001..=1006 {
        key.serve(&net.server, port);
    }
    key.introduce(&net.server, 80, 1006);
    let pin = format!("deploy.pin={}", key.pin);
    let with_server = format!("deploy.server=10.99.0.1:1001 {pin}");
    let settings = net.settings("server = 10.99.0.1\nport = 1003\n");
    let settings = ["--arguments", pin.as_str(), "--settings", settings.as_str()];

    let options = ["--dhcp-option=186,10.99.0.1", "--dhcp-option=190,1002"];
    let vendor = "--dhcp-option=vendor:deploy-os,1,https://10.99.0.1:1004";
    let service = "--srv-host=_deploy._tcp.lab.example,srv.lab.example,1005";
    let names = [
        "--host-record=srv.lab.example,10.99.0.1",
        "--host-record=deploy.lab.example,10.99.0.1",
    ];
    let [address, port] = options;
    let [srv, host] = names;
    net.dnsmasq(&[address, port, vendor, service, srv, host]);
    assert_eq!(
        net.found(&[settings[2], settings[3], "--arguments", &with_server]),
        pair("command line", "https://10.99.0.1:1001")
    );
    assert_eq!(
        net.found(&settings),
        pair("DHCP options", "https://10.99.0.1:1002")
    );
    net.dnsmasq(&[vendor, service, srv, host]);
    assert_eq!(
        net.found(&settings),
        pair("settings", "https://10.99.0.1:1003")
    );
    let only_pin = &settings[..2];
    assert_eq!(
        net.found(only_pin),
        pair("vendor class", "https://10.99.0.1:1004")
    );
    net.dnsmasq(&[service, srv, host]);
    assert_eq!(
        net.found(only_pin),
        pair("DNS service", "https://srv.lab.example:1005")
    );
    net.dnsmasq(&[host]);
    // Its HTTP port says where the TLS port is; the key has to be the pin's.
    assert_eq!(
        net.found(only_pin),
        pair("DNS host", "https://deploy.lab.example:1006")
    );
    // Without a pin the key is the one that it says itself.
    let json = net.json(&[]);
    assert_eq!(json["pin"], key.pin.to_string());
    let resolv = std::fs::read_to_string(net.folder.path().join("etc/resolv.conf")).unwrap();
    assert!(
        resolv.contains("search lab.example\nnameserver 10.99.0.1\n"),
        "{resolv}"
    );
}

#[test]
fn options_count_within_option_43_too_and_in_their_old_form() {
    let mut net = Net::new();
    let key = Key::new();
    key.serve(&net.server, 1002);
    key.introduce(&net.server, 187, 1002);
    let pin = format!("deploy.pin={}", key.pin);
    net.dnsmasq(&[
        "--dhcp-option=vendor:deploy-os,186,10.99.0.1",
        "--dhcp-option=vendor:deploy-os,190,1002",
    ]);
    let arguments = ["--arguments", pin.as_str()];
    assert_eq!(
        net.found(&arguments),
        pair("DHCP options", "https://10.99.0.1:1002")
    );
    net.dnsmasq(&["--dhcp-option=186,10.99.0.1", "--dhcp-option=187,187"]);
    assert_eq!(
        net.found(&arguments),
        pair("DHCP options", "https://10.99.0.1:1002")
    );
}

#[test]
fn dead_servers_are_passed_over_in_the_order_of_sources_and_priorities() {
    let mut net = Net::new();
    let key = Key::new();
    key.serve(&net.server, 1005);
    let pin = format!(
        "deploy.pin={} deploy.server=10.99.0.1:1;10.99.0.1:2",
        key.pin
    );
    let settings = net.settings("server = nobody\n");
    net.dnsmasq(&[
        "--dhcp-option=186,10.99.0.1",
        "--dhcp-option=190,3",
        "--dhcp-option=192,4",
        "--srv-host=_deploy._tcp.lab.example,srv.lab.example,1005,20,0",
        "--srv-host=_deploy._tcp.lab.example,srv.lab.example,5,10,0",
        "--host-record=srv.lab.example,10.99.0.1",
    ]);
    let json = net.json(&["--arguments", &pin, "--settings", &settings]);
    assert_eq!(json["server"], "https://srv.lab.example:1005", "{json:#}");
    let said = |source: &str| {
        json["sources"][source]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(
        said("command line"),
        "https://10.99.0.1:1: connection refused, https://10.99.0.1:2: connection refused"
    );
    assert_eq!(
        said("DHCP options"),
        "https://10.99.0.1:3: connection refused, http://10.99.0.1:4: connection refused"
    );
    assert!(
        said("settings").contains("https://nobody.lab.example:443: there is no such name"),
        "{json:#}"
    );
    assert_eq!(said("vendor class"), "not offered");
    assert_eq!(
        said("DNS service"),
        "https://srv.lab.example:5: connection refused (10.99.0.1:5), https://srv.lab.example:1005 answers"
    );
    assert_eq!(json["sources"]["DNS host"], Value::Null);
}

#[test]
fn where_nothing_answers_every_source_is_told() {
    let mut net = Net::new();
    net.dnsmasq(&[]);
    let json = net.json(&["--limit", "6"]);
    assert_eq!(json["code"], "server-not-found", "{json:#}");
    let found = json["found"].as_str().unwrap();
    assert!(found.starts_with("eth0 10.99.0."), "{found}");
    let rest = "command line: not given; DHCP options: not offered; settings: none given; \
        vendor class: not offered; DNS service: _deploy._tcp.lab.example: there is no such name (name server 10.99.0.1); \
        DNS host: http://deploy.lab.example:80: there is no such name (name server 10.99.0.1)";
    assert!(found.ends_with(rest), "{found}");
    // Without DHCP that is what is told.
    net._dnsmasq = None;
    let json = net.json(&["--limit", "3"]);
    assert_eq!(json["code"], "no-address", "{json:#}");
}

#[test]
fn a_server_with_another_key_is_refused_whatever_names_it() {
    let mut net = Net::new();
    let (right, wrong) = (Key::new(), Key::new());
    wrong.serve(&net.server, 1002);
    wrong.introduce(&net.server, 80, 1002);
    net.dnsmasq(&[
        "--dhcp-option=186,10.99.0.1",
        "--dhcp-option=190,1002",
        "--dhcp-option=192,80",
    ]);
    let settings = net.settings(&format!("server = 10.99.0.1:1003\npin = {}\n", right.pin));
    let arguments = ["--settings", settings.as_str(), "--limit", "6"];
    let json = net.json(&arguments);
    assert_eq!(json["code"], "server-refused", "{json:#}");
    let found = json["found"].as_str().unwrap();
    for part in [
        "https://10.99.0.1:1002: it has another key than the pin names",
        "http://10.99.0.1:80: it has another key",
        "settings: https://10.99.0.1:1003: connection refused",
    ] {
        assert!(found.contains(part), "{part}: {found}");
    }
    right.serve(&net.server, 1003);
    assert_eq!(
        net.found(&arguments),
        pair("settings", "https://10.99.0.1:1003")
    );
    // A pin that cannot be read is not no pin.
    let broken = net.settings("server = 10.99.0.1:1003\npin = 12\n");
    let json = net.json(&["--settings", &broken]);
    assert_eq!(json["code"], "usage", "{json:#}");
    // Without a pin no key is believed that TLS alone shows.
    net.dnsmasq(&["--dhcp-option=186,10.99.0.1", "--dhcp-option=190,1002"]);
    let json = net.json(&["--limit", "6"]);
    assert!(
        json["found"].as_str().unwrap().contains("no pin is known"),
        "{json:#}"
    );
}

#[test]
fn a_server_beside_the_dhcp_server_is_heard() {
    let mut net = Net::new();
    let key = Key::new();
    let proxy = net.lab.host("proxy", "10.99.0.2/24").unwrap();
    key.serve(&proxy, 1004);
    net.dnsmasq(&[]);
    let socket = proxy
        .run(|| {
            let socket = UdpSocket::bind("0.0.0.0:67")?;
            socket.set_broadcast(true)?;
            Ok::<_, std::io::Error>(socket)
        })
        .unwrap()
        .unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok(len) = socket.recv(&mut buffer) {
            let Some(reply) = proxy_offer(&buffer[..len]) else {
                continue;
            };
            let _ = socket.send_to(&reply, "255.255.255.255:68");
        }
    });
    let pin = format!("deploy.pin={}", key.pin);
    assert_eq!(
        net.found(&["--arguments", &pin]),
        pair("vendor class", "https://10.99.0.2:1004")
    );
}

/// The offer of a server that gives no addresses, to a DISCOVER of our vendor class.
fn proxy_offer(request: &[u8]) -> Option<Vec<u8>> {
    let discover = request.get(240..243)? == [53, 1, 1];
    let ours = request.windows(11).any(|part| part == b"\x3c\x09deploy-os");
    if !(discover && ours) {
        return None;
    }
    let mut reply = request[..240].to_vec();
    reply[0] = 2;
    reply.extend([53, 1, 2, 54, 4, 10, 99, 0, 2]);
    // 1004 is 0x3ec.
    reply.extend([43, 10, 186, 4, 10, 99, 0, 2, 190, 2, 3, 0xec, 255]);
    reply.resize(300, 0);
    Some(reply)
}

#[test]
fn a_fixed_address_needs_no_dhcp() {
    let net = Net::new();
    let key = Key::new();
    key.serve(&net.server, 26501);
    let settings = net.settings(&format!(
        "address = 10.99.0.77\nmask = 255.255.255.0\ngateway = 10.99.0.1\ndns = 10.99.0.1\n\
         server = 10.99.0.1\nport = 26501\npin = {}\n",
        key.pin
    ));
    let json = net.json(&["--settings", &settings]);
    assert_eq!(json["server"], "https://10.99.0.1:26501", "{json:#}");
    assert_eq!(json["address"], "10.99.0.77/24");
    assert_eq!(
        json["sources"]["DHCP options"],
        "not asked (the address is fixed)"
    );
}

#[test]
fn who_only_asks_changes_nothing() {
    let mut net = Net::new();
    let key = Key::new();
    key.serve(&net.server, 1002);
    net.dnsmasq(&["--dhcp-option=186,10.99.0.1", "--dhcp-option=190,1002"]);
    let asking = net.lab.host("ask", "10.99.0.9/24").unwrap();
    let pin = format!("deploy.pin={}", key.pin);
    let output = asking
        .command(IMAGER)
        .args(["discover", "--nic", "eth0", "--arguments", &pin])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("https://10.99.0.1:1002\n"), "{text}");
    assert!(text.contains("\nDNS host      not asked\n"), "{text}");
    let shown = asking
        .command("ip")
        .args(["-4", "-o", "addr", "show", "eth0"])
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert_eq!(shown.lines().count(), 1, "{shown}");
    assert!(shown.contains("10.99.0.9/24"), "{shown}");
    let leases = std::fs::read_to_string(net.folder.path().join("leases")).unwrap_or_default();
    assert_eq!(leases, "", "an address was given away");
}
