//! The network settings of a target: from a medium, from the kernel's command line, or typed.
//!
//! Owns: the keys, their forms, the text of the settings file (docs/reference/
//! settings.md). Total on any text. Does not own: where the file lies ([`super::start`]),
//! or what is done with the settings ([`super::net`]).
//!
//! | key | meaning |
//! |---|---|
//! | `server` | where the server is: URLs or `host[:port]`, separated by `;` |
//! | `protocol` | `http` or `https`, for servers that are given without |
//! | `port` | TCP port, for servers that are given without |
//! | `pin` | SHA-256 of the server's public key, 64 hex digits |
//! | `address` | this machine's IPv4 address, with `/24` or a `mask` of its own; without it DHCP |
//! | `mask` | `255.255.255.0` or `24` |
//! | `gateway` | the router |
//! | `dns` | name servers, separated by spaces or commas |
//! | `domain` | domain of bare host names |
//! | `nic` | only this network card: interface name or MAC address |
//! | `vlan` | number of the VLAN, 1 to 4094: packets are tagged |

use super::net::dhcp::packet::domain;
use crate::remote::{Scheme, ServerAddress, parse_list, parse_list_with};
use pinned::Pin;
use std::fmt::Write;
use std::net::Ipv4Addr;

/// Longest file that is looked at.
pub const MAX_BYTES: usize = 16 << 10;
/// What is told of one file.
const MAX_PROBLEMS: usize = 20;
const MAX_DNS: usize = 8;

/// All keys, in the order in which they are written and asked for.
pub const KEYS: [&str; 11] = [
    "server", "protocol", "port", "pin", "address", "mask", "gateway", "dns", "domain", "nic",
    "vlan",
];

/// The settings. What is not set is found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Servers as they were written; sound.
    server: Option<String>,
    /// For servers without a protocol.
    pub protocol: Option<Scheme>,
    /// For servers without a port.
    pub port: Option<u16>,
    /// Hash of the server's public key.
    pub pin: Option<Pin>,
    /// This machine's address.
    pub address: Option<Ipv4Addr>,
    /// Length of its network prefix, 1 to 32.
    pub prefix: Option<u8>,
    /// The router.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// Domain of bare host names.
    pub domain: Option<String>,
    /// The only network card to use.
    pub nic: Option<NicChoice>,
    /// Number of the VLAN.
    pub vlan: Option<u16>,
    /// Why the pin is not known although one is meant. Nothing may go on without it: whoever
    /// gave it wants no server but that one.
    pub lost_pin: Option<String>,
}

/// How a network card is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NicChoice {
    /// MAC address, lower case with colons.
    Mac(String),
    /// Interface name.
    Name(String),
}

impl NicChoice {
    /// Whether a network card is meant.
    pub fn fits(&self, name: &str, mac: &str) -> bool {
        match self {
            NicChoice::Mac(wanted) => wanted.eq_ignore_ascii_case(mac),
            NicChoice::Name(wanted) => wanted == name,
        }
    }

    /// As it is written.
    pub fn text(&self) -> &str {
        match self {
            NicChoice::Mac(text) | NicChoice::Name(text) => text,
        }
    }
}

impl Settings {
    /// Reads a file: settings, and what is wrong with it, by line. A line that is wrong
    /// changes nothing.
    pub fn parse(text: &str) -> (Self, Vec<String>) {
        let mut settings = Settings::default();
        let mut problems = Vec::new();
        let mut seen = Vec::new();
        let mut end = text.len().min(MAX_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        if end < text.len() {
            problems.push(format!("what stands after {MAX_BYTES} bytes is not read"));
        }
        let text = text.get(..end).unwrap_or_default();
        // Some editors put a mark before the first letter.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Err(problem) = settings.line(line, &mut seen)
                && problems.len() < MAX_PROBLEMS
            {
                problems.push(format!("line {number}: {problem}"));
            }
        }
        problems.extend(settings.contradictions());
        (settings, problems)
    }

    /// In place of settings that cannot be read: they may hold a pin.
    pub fn unreadable(why: String) -> Self {
        Settings {
            lost_pin: Some(why),
            ..Settings::default()
        }
    }

    fn line(&mut self, line: &str, seen: &mut Vec<String>) -> Result<(), String> {
        let (key, value) = line
            .split_once('=')
            .ok_or_else(|| format!("{} is no key = value", shown(line)))?;
        let key = key.trim().to_ascii_lowercase();
        let known = self.set(&key, value.trim());
        if let ("pin", Err(problem)) = (key.as_str(), &known) {
            self.lost_pin = Some(problem.clone());
        }
        if !known? {
            return Err(format!("{} is no setting", shown(&key)));
        }
        let twice = seen.contains(&key);
        seen.push(key);
        if twice {
            return Err("the key stood there before; this line counts".to_owned());
        }
        Ok(())
    }

    /// What fits each for itself and not together.
    pub fn contradictions(&self) -> Vec<String> {
        let mut list = Vec::new();
        if self.address.is_some() && self.prefix.is_none() {
            list.push("address is not used: it has no mask".to_owned());
        }
        if self.address.is_none() && self.prefix.is_some() {
            list.push("mask is not used: there is no address".to_owned());
        }
        if self.address.is_none() && self.gateway.is_some() {
            list.push("gateway is not used: there is no address".to_owned());
        }
        list
    }

    /// Sets one key; an empty value unsets it. `false` if there is no such key.
    ///
    /// # Errors
    /// What is wrong with the value; nothing has changed then.
    pub fn set(&mut self, key: &str, value: &str) -> Result<bool, String> {
        let given = Some(value).filter(|value| !value.is_empty());
        match key {
            "server" => self.server = given.map(servers).transpose()?,
            "protocol" => self.protocol = given.map(protocol).transpose()?,
            "port" => self.port = given.map(port).transpose()?,
            "pin" => {
                let pin = given.map(|value| Pin::from_hex(value).map_err(|e| e.to_string()));
                self.pin = pin.transpose()?;
                self.lost_pin = None;
            }
            "address" => match given.and_then(|value| value.split_once('/')) {
                Some((address, mask)) => {
                    let (address, prefix) = (host(address)?, prefix(mask)?);
                    (self.address, self.prefix) = (Some(address), Some(prefix));
                }
                None => self.address = given.map(host).transpose()?,
            },
            "mask" => self.prefix = given.map(prefix).transpose()?,
            "gateway" => self.gateway = given.map(host).transpose()?,
            "dns" => self.dns = name_servers(value)?,
            "domain" => {
                let name = |value: &str| {
                    domain(value.as_bytes()).ok_or(format!("{} is no domain", shown(value)))
                };
                self.domain = given.map(name).transpose()?;
            }
            "nic" => self.nic = given.map(nic_choice).transpose()?,
            "vlan" => self.vlan = given.map(vlan).transpose()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The value of a key as it is written; empty if it is not set.
    pub fn get(&self, key: &str) -> String {
        let value = match key {
            "server" => self.server.clone(),
            "protocol" => self.protocol.map(|scheme| match scheme {
                Scheme::Http => "http".to_owned(),
                Scheme::Https => "https".to_owned(),
            }),
            "port" => text(&self.port),
            "pin" => text(&self.pin),
            "address" => text(&self.address),
            "mask" => self.prefix.map(|prefix| mask(prefix).to_string()),
            "gateway" => text(&self.gateway),
            "dns" => {
                let list: Vec<String> = self.dns.iter().map(ToString::to_string).collect();
                Some(list.join(" "))
            }
            "domain" => self.domain.clone(),
            "nic" => self.nic.as_ref().map(|nic| nic.text().to_owned()),
            "vlan" => text(&self.vlan),
            _ => None,
        };
        value.unwrap_or_default()
    }

    /// The text of a settings file that says the same.
    pub fn to_text(&self) -> String {
        let mut text =
            "# Network settings of the Deploy-OS; what is left out is found out.\n".to_owned();
        for key in KEYS {
            let value = self.get(key);
            if !value.is_empty() {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{key} = {value}");
            }
        }
        text
    }

    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Settings::default()
    }

    /// The servers, in the order in which they are tried.
    pub fn servers(&self) -> Vec<ServerAddress> {
        let text = self.server.as_deref().unwrap_or_default();
        // What is no list was refused when it was set.
        parse_list_with(text, self.protocol, self.port).unwrap_or_default()
    }

    /// The address that is used in place of DHCP, if it is complete.
    pub fn fixed(&self) -> Option<(Ipv4Addr, u8)> {
        self.address.zip(self.prefix)
    }

    /// These settings, and what they leave out as `other` has it. An address comes with
    /// its mask and router, or not at all; a server with its protocol and port.
    #[must_use]
    pub fn or(mut self, other: &Settings) -> Self {
        if self.address.is_none() {
            self.address = other.address;
            self.prefix = other.prefix;
            self.gateway = other.gateway;
        }
        if self.server.is_none() {
            self.server.clone_from(&other.server);
            self.protocol = other.protocol;
            self.port = other.port;
        }
        if self.dns.is_empty() {
            self.dns.clone_from(&other.dns);
        }
        let pin = self.pin.or(other.pin);
        let lost = || self.lost_pin.clone().or_else(|| other.lost_pin.clone());
        Settings {
            pin,
            lost_pin: pin.map_or_else(lost, |_| None),
            domain: self.domain.or_else(|| other.domain.clone()),
            nic: self.nic.or_else(|| other.nic.clone()),
            vlan: self.vlan.or(other.vlan),
            ..self
        }
    }
}

fn text<T: ToString>(value: &Option<T>) -> Option<String> {
    value.as_ref().map(ToString::to_string)
}

/// Text of somebody else in a message.
fn shown(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    format!("{short:?}")
}

fn servers(value: &str) -> Result<String, String> {
    parse_list(value).map_err(|error| error.to_string())?;
    let entries = value.split(';').map(str::trim);
    let entries: Vec<&str> = entries.filter(|entry| !entry.is_empty()).collect();
    Ok(entries.join(";"))
}

fn protocol(value: &str) -> Result<Scheme, String> {
    match value.to_ascii_lowercase().as_str() {
        "http" => Ok(Scheme::Http),
        "https" => Ok(Scheme::Https),
        _ => Err(format!("{} is neither http nor https", shown(value))),
    }
}

fn port(value: &str) -> Result<u16, String> {
    number(value, 1, 65535).ok_or_else(|| format!("{} is no port (1 to 65535)", shown(value)))
}

fn vlan(value: &str) -> Result<u16, String> {
    number(value, 1, 4094).ok_or_else(|| format!("{} is no VLAN (1 to 4094)", shown(value)))
}

fn number(value: &str, least: u16, most: u16) -> Option<u16> {
    let digits = value.bytes().all(|b| b.is_ascii_digit());
    let number = value.parse().ok().filter(|_| digits)?;
    (least..=most).contains(&number).then_some(number)
}

/// An address that a machine can have.
fn host(value: &str) -> Result<Ipv4Addr, String> {
    let usable = |address: &Ipv4Addr| {
        !(address.is_unspecified()
            || address.is_broadcast()
            || address.is_multicast()
            || address.is_loopback())
    };
    let address = value.trim().parse().ok().filter(usable);
    address.ok_or_else(|| format!("{} is no IPv4 address of a machine", shown(value)))
}

/// `24` or `255.255.255.0`.
fn prefix(value: &str) -> Result<u8, String> {
    let value = value.trim();
    let length = number(value, 1, 32).and_then(|length| u8::try_from(length).ok());
    let of_mask = || {
        let bits = value.parse::<Ipv4Addr>().ok()?.to_bits();
        let ones = u8::try_from(bits.leading_ones()).ok()?;
        (ones > 0 && mask(ones).to_bits() == bits).then_some(ones)
    };
    length
        .or_else(of_mask)
        .ok_or_else(|| format!("{} is no network mask", shown(value)))
}

fn mask(prefix: u8) -> Ipv4Addr {
    let hosts = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
    Ipv4Addr::from_bits(!hosts)
}

fn name_servers(value: &str) -> Result<Vec<Ipv4Addr>, String> {
    let separated = |c: char| c.is_whitespace() || c == ',' || c == ';';
    let words = value.split(separated).filter(|word| !word.is_empty());
    let list = words.map(host).collect::<Result<Vec<_>, _>>()?;
    if list.len() > MAX_DNS {
        return Err(format!("more than {MAX_DNS} name servers"));
    }
    Ok(list)
}

fn nic_choice(value: &str) -> Result<NicChoice, String> {
    // PXELINUX writes 01-aa-bb-cc-dd-ee-ff, where 01 means Ethernet.
    let dashed = value.replace('-', ":").to_ascii_lowercase();
    let mac = if dashed.len() == 20 {
        dashed.strip_prefix("01:")
    } else {
        Some(dashed.as_str())
    };
    if let Some(mac) = mac.filter(|mac| is_mac(mac)) {
        return Ok(NicChoice::Mac(mac.to_owned()));
    }
    let name_bytes = |b: u8| b.is_ascii_graphic() && b != b'/' && b != b':';
    if !value.is_empty() && value.len() < 16 && value.bytes().all(name_bytes) {
        Ok(NicChoice::Name(value.to_owned()))
    } else {
        Err(format!(
            "{} is neither a MAC address nor an interface name",
            shown(value)
        ))
    }
}

fn is_mac(text: &str) -> bool {
    let pair = |pair: &str| pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit());
    text.split(':').count() == 6 && text.split(':').all(pair)
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
