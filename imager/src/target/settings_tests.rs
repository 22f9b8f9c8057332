//! Settings files as people write them, and worse ones.

use super::{KEYS, NicChoice, Settings};
use crate::remote::Scheme;
use proptest::prelude::*;
use std::net::Ipv4Addr;

const PIN: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn sound(text: &str) -> Settings {
    let (settings, problems) = Settings::parse(text);
    assert!(problems.is_empty(), "{problems:?}");
    settings
}

fn urls(settings: &Settings) -> Vec<String> {
    settings.servers().iter().map(ToString::to_string).collect()
}

#[test]
fn a_full_file_is_read() {
    // From an editor that marks the beginning and ends lines with two characters.
    let text = format!(
        "\u{feff}# our room\r\nServer = deploy ; http://10.0.0.2\r\nprotocol=https\r\nport = 26501\r\npin = {PIN}\r\n\
         \r\naddress = 10.0.0.50\r\nmask = 255.255.252.0\r\ngateway = 10.0.0.1\r\ndns = 10.0.0.3, 10.0.0.4\r\n\
         domain = lab.example\r\nnic = 52-54-00-AA-00-01\r\nvlan = 7"
    );
    let settings = sound(&text);
    assert_eq!(
        urls(&settings),
        ["https://deploy:26501", "http://10.0.0.2:26501"]
    );
    assert_eq!(
        settings.pin.map(|pin| pin.to_string()),
        Some(PIN.to_owned())
    );
    assert_eq!(settings.fixed(), Some((Ipv4Addr::new(10, 0, 0, 50), 22)));
    assert_eq!(settings.gateway, Some(Ipv4Addr::new(10, 0, 0, 1)));
    assert_eq!(settings.dns.len(), 2);
    assert_eq!(settings.domain.as_deref(), Some("lab.example"));
    assert_eq!(
        settings.nic,
        Some(NicChoice::Mac("52:54:00:aa:00:01".into()))
    );
    assert_eq!(
        (settings.vlan, settings.protocol),
        (Some(7), Some(Scheme::Https))
    );
    assert_eq!(sound(&settings.to_text()), settings);
}

#[test]
fn an_address_may_carry_its_prefix_and_nothing_is_nothing() {
    assert_eq!(
        sound("address = 10.1.2.3/16").fixed(),
        Some((Ipv4Addr::new(10, 1, 2, 3), 16))
    );
    assert_eq!(
        sound("address=10.1.2.3/255.255.0.0").fixed(),
        Some((Ipv4Addr::new(10, 1, 2, 3), 16))
    );
    assert!(sound("").is_empty() && sound("# nothing\n\n").is_empty());
    assert!(sound("server =\nvlan=").is_empty());
}

#[test]
fn what_is_wrong_is_told_by_line_and_changes_nothing() {
    let bad = [
        ("server = ftp://x", "protocol"),
        ("port = 0", "port"),
        ("port = +5", "port"),
        ("protocol = gopher", "neither"),
        ("address = 10.0.0.300", "address"),
        ("address = 127.0.0.1", "address"),
        ("address = 10.0.0.1/0", "mask"),
        ("mask = 255.0.255.0", "mask"),
        ("mask = 33", "mask"),
        ("gateway = x", "address"),
        ("dns = 10.0.0.1 x", "address"),
        ("domain = a b", "domain"),
        ("nic = a/b", "neither"),
        ("vlan = 4095", "VLAN"),
        ("colour = red", "no setting"),
        ("server", "no key"),
        ("= 5", "no setting"),
    ];
    for (line, word) in bad {
        let (settings, problems) = Settings::parse(&format!("# first\n{line}\n"));
        assert!(settings.is_empty(), "{line}");
        assert!(
            matches!(&problems[..], [one] if one.starts_with("line 2: ") && one.contains(word)),
            "{line}: {problems:?}"
        );
    }
}

#[test]
fn a_pin_that_cannot_be_read_is_not_forgotten() {
    let (settings, problems) = Settings::parse("server = a\npin = 12\n");
    assert!(problems[0].starts_with("line 2: ") && problems[0].contains("64"));
    assert!(settings.lost_pin.is_some());
    assert!(Settings::default().or(&settings).lost_pin.is_some());
    // Another one takes its place.
    let other = sound(&format!("pin = {PIN}"));
    assert_eq!(other.clone().or(&settings).lost_pin, None);
    assert_eq!(settings.clone().or(&other).lost_pin, None);
    let mut typed = settings;
    assert_eq!(typed.set("pin", ""), Ok(true));
    assert_eq!(typed.lost_pin, None);
}

#[test]
fn what_does_not_fit_together_is_told() {
    let (settings, problems) = Settings::parse("address = 10.0.0.5\n");
    assert_eq!(settings.fixed(), None);
    assert!(problems[0].contains("no mask"), "{problems:?}");
    let (_, problems) = Settings::parse("gateway = 10.0.0.1\nmask = 24\n");
    assert_eq!(problems.len(), 2, "{problems:?}");
    let (settings, problems) = Settings::parse("port = 1\nport = 2\n");
    assert_eq!(settings.port, Some(2));
    assert!(problems[0].starts_with("line 2: "), "{problems:?}");
}

#[test]
fn a_long_file_is_not_read_to_its_end() {
    let text = format!("port = 5\n{}\nport = 6\n", "# x\n".repeat(5000));
    let (settings, problems) = Settings::parse(&text);
    assert_eq!(settings.port, Some(5));
    assert_eq!(problems.len(), 1, "{problems:?}");
    let (_, problems) = Settings::parse(&"x\n".repeat(5000));
    assert_eq!(problems.len(), 20);
}

#[test]
fn what_one_leaves_out_the_other_gives_in_groups() {
    let line = sound("server = a\npin = ").or(&sound(&format!(
        "server = b\nport = 1\npin = {PIN}\naddress = 10.0.0.5/24\ngateway = 10.0.0.1"
    )));
    assert_eq!(urls(&line), ["https://a:443"]);
    assert_eq!(line.fixed(), Some((Ipv4Addr::new(10, 0, 0, 5), 24)));
    assert!(line.pin.is_some());
    let own = sound("address = 10.9.0.5/16").or(&line);
    assert_eq!(own.fixed(), Some((Ipv4Addr::new(10, 9, 0, 5), 16)));
    assert_eq!(own.gateway, None);
}

fn any_settings() -> impl Strategy<Value = Settings> {
    let values = [
        "|a|deploy:80;[fd00::1]:5;https://x.example",
        "|http|https",
        "|1|26501|65535",
        format!("|{PIN}").as_str(),
        "|10.0.0.1|192.168.255.254",
        "|1|24|32",
        "|10.0.0.254",
        "|10.0.0.3|10.0.0.3 10.0.0.4",
        "|lab.example",
        "|eth0|52:54:00:aa:00:01",
        "|1|4094",
    ]
    .map(|list| list.split('|').map(str::to_owned).collect::<Vec<_>>());
    Vec::from(values.map(proptest::sample::select)).prop_map(|values| {
        let mut settings = Settings::default();
        for (key, value) in KEYS.iter().zip(values) {
            assert_eq!(settings.set(key, &value), Ok(true), "{key} = {value}");
        }
        settings
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(settings in any_settings()) {
        prop_assert_eq!(Settings::parse(&settings.to_text()).0, settings);
    }

    #[test]
    fn any_text_is_read(text in "\\PC{0,200}") {
        Settings::parse(&text);
    }

    #[test]
    fn any_value_is_taken_or_refused_and_what_is_taken_is_written(
        key in proptest::sample::select(&KEYS[..]), value in "\\PC{0,60}|[0-9./:;a-f -]{0,40}"
    ) {
        let mut settings = Settings::default();
        if settings.set(key, &value) == Ok(true) {
            prop_assert_eq!(Settings::parse(&settings.to_text()).0, settings);
        } else {
            prop_assert!(settings.is_empty());
        }
    }
}
