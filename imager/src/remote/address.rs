//! Addresses of servers, as people and boot scripts write them.
//!
//! Owns: the rules for what is left out (spec facts "Discovery", 3): no protocol and
//! port 80 means HTTP; no protocol and another port HTTPS; no port 443 for HTTPS and 80
//! for HTTP; neither HTTPS on 443. Does not own: name resolution.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Longest list that is looked at; the products' settings had 63 characters.
const MAX_LIST_BYTES: usize = 4096;
/// Longest host name (RFC 1035).
const MAX_HOST_BYTES: usize = 253;

/// Protocol to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Plain.
    Http,
    /// TLS.
    Https,
}

/// Where a server is. Displays as a URL with its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    /// Protocol.
    pub scheme: Scheme,
    /// Name or address; IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// Why a text is no server address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing there.
    #[error("no server address is given")]
    Empty,
    /// Longer than any sensible list.
    #[error("the list of server addresses is longer than {MAX_LIST_BYTES} bytes")]
    TooLong,
    /// A protocol that is neither http nor https.
    #[error("{0:?} has a protocol other than http and https")]
    Protocol(String),
    /// Not a name, not an address.
    #[error("{0:?} has no valid host name or address")]
    Host(String),
    /// Not 1 to 65535.
    #[error("{0:?} has no valid port")]
    Port(String),
    /// A path or query.
    #[error("{0:?} has a path; only protocol, host and port are used")]
    Path(String),
}

/// Parses a list separated by `;`, in the order in which it is to be tried. Empty
/// entries are skipped.
///
/// # Errors
/// The first entry that is wrong, or [`AddressError::Empty`].
pub fn parse_list(text: &str) -> Result<Vec<ServerAddress>, AddressError> {
    parse_list_with(text, None, None)
}

/// As [`parse_list`], with a protocol and a port for entries that say none themselves.
///
/// # Errors
/// As [`parse_list`].
pub fn parse_list_with(
    text: &str,
    scheme: Option<Scheme>,
    port: Option<u16>,
) -> Result<Vec<ServerAddress>, AddressError> {
    if text.len() > MAX_LIST_BYTES {
        return Err(AddressError::TooLong);
    }
    let entries = text
        .split(';')
        .map(str::trim)
        .filter(|entry| !entry.is_empty());
    let list = entries
        .map(|entry| ServerAddress::parse_with(entry, scheme, port))
        .collect::<Result<Vec<_>, _>>()?;
    if list.is_empty() {
        Err(AddressError::Empty)
    } else {
        Ok(list)
    }
}

impl ServerAddress {
    /// Parses one address.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        Self::parse_with(text, None, None)
    }

    /// As [`ServerAddress::parse`], with a protocol and a port for an address that says
    /// none itself.
    ///
    /// # Errors
    /// As [`ServerAddress::parse`].
    pub fn parse_with(
        text: &str,
        default_scheme: Option<Scheme>,
        default_port: Option<u16>,
    ) -> Result<Self, AddressError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if text.len() > MAX_LIST_BYTES {
            return Err(AddressError::TooLong);
        }
        let (scheme, rest) = split_scheme(text)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#']) {
            return Err(AddressError::Path(text.to_owned()));
        }
        let (host, port) = split_port(text, rest)?;
        check_host(text, host)?;
        let port = port.or(default_port);
        let scheme = scheme.or(default_scheme).unwrap_or(match port {
            Some(80) => Scheme::Http,
            _ => Scheme::Https,
        });
        let port = port.unwrap_or(match scheme {
            Scheme::Http => 80,
            Scheme::Https => 443,
        });
        Ok(ServerAddress {
            scheme,
            host: host.to_ascii_lowercase(),
            port,
        })
    }

    /// The address with the DHCP domain appended to a bare host name.
    #[must_use]
    pub fn in_domain(mut self, domain: Option<&str>) -> Self {
        let bare = !self.host.contains(['.', ':']) && self.host != "localhost";
        if let Some(domain) = domain
            .map(|d| d.trim_matches('.'))
            .filter(|d| !d.is_empty())
            && bare
        {
            self.host = format!("{}.{}", self.host, domain.to_ascii_lowercase());
        }
        self
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

fn split_scheme(text: &str) -> Result<(Option<Scheme>, &str), AddressError> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Ok((None, text));
    };
    if scheme.eq_ignore_ascii_case("http") {
        Ok((Some(Scheme::Http), rest))
    } else if scheme.eq_ignore_ascii_case("https") {
        Ok((Some(Scheme::Https), rest))
    } else {
        Err(AddressError::Protocol(text.to_owned()))
    }
}

fn split_port<'a>(text: &str, rest: &'a str) -> Result<(&'a str, Option<u16>), AddressError> {
    let bad_host = || AddressError::Host(text.to_owned());
    let (host, port) = if let Some(inner) = rest.strip_prefix('[') {
        let (host, after) = inner.split_once(']').ok_or_else(bad_host)?;
        host.parse::<Ipv6Addr>().map_err(|_| bad_host())?;
        match after.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if after.is_empty() => (host, None),
            None => return Err(bad_host()),
        }
    } else if rest.parse::<Ipv6Addr>().is_ok() {
        (rest, None)
    } else {
        match rest.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        }
    };
    let Some(port) = port else {
        return Ok((host, None));
    };
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(number) if number != 0 && digits => Ok((host, Some(number))),
        _ => Err(AddressError::Port(text.to_owned())),
    }
}

fn check_host(text: &str, host: &str) -> Result<(), AddressError> {
    if host.contains(':') {
        return Ok(()); // an IPv6 address, parsed already
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let named = host.len() <= MAX_HOST_BYTES && host.split('.').all(label);
    // Four numbers that are no address ("10.0.0.300") are a slip, not a host name.
    let numeric = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if named && (!numeric || host.parse::<Ipv4Addr>().is_ok()) {
        Ok(())
    } else {
        Err(AddressError::Host(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::{AddressError, ServerAddress, parse_list};
    use proptest::prelude::*;

    fn parsed(text: &str) -> String {
        ServerAddress::parse(text).map_or_else(|error| error.to_string(), |a| a.to_string())
    }

    #[test]
    fn what_is_left_out_follows_the_rules() {
        for (text, url) in [
            ("10.0.0.1:80", "http://10.0.0.1:80"),
            ("10.0.0.1:8080", "https://10.0.0.1:8080"),
            ("10.0.0.1", "https://10.0.0.1:443"),
            ("https://deploy.example", "https://deploy.example:443"),
            ("http://deploy.example", "http://deploy.example:80"),
            (
                "http://deploy.example:26501/",
                "http://deploy.example:26501",
            ),
            ("https://deploy.example:80", "https://deploy.example:80"),
            ("HTTPS://Deploy.Example", "https://deploy.example:443"),
            (" deploy ", "https://deploy:443"),
            ("[fd00::1]:26501", "https://[fd00::1]:26501"),
            ("fd00::1", "https://[fd00::1]:443"),
            ("http://[fd00::1]", "http://[fd00::1]:80"),
        ] {
            assert_eq!(parsed(text), url, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, problem) in [
            ("", "no server address"),
            ("ftp://a", "protocol"),
            ("a:0", "port"),
            ("a:65536", "port"),
            ("a:+80", "port"),
            ("a:", "port"),
            ("a:80:80", "port"),
            (":80", "host"),
            ("a b", "host"),
            ("user@a", "host"),
            ("a..b", "host"),
            ("10.0.0.300", "host"),
            ("[fd00::1", "host"),
            ("[a]:80", "host"),
            ("[fd00::1]80", "host"),
            ("http://a/console", "path"),
            ("a?x", "path"),
        ] {
            let told = parsed(text);
            assert!(told.contains(problem), "{text}: {told}");
        }
    }

    #[test]
    fn lists_keep_their_order_and_sixty_three_characters_fit() {
        let list = "https://10.20.30.40:26501;http://deploy.example.org;fallback:80";
        assert_eq!(list.len(), 63);
        let urls: Vec<String> = parse_list(list)
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            urls,
            [
                "https://10.20.30.40:26501",
                "http://deploy.example.org:80",
                "http://fallback:80"
            ]
        );
        assert_eq!(parse_list(" ; ;"), Err(AddressError::Empty));
        assert!(parse_list("a;;b").is_ok_and(|list| list.len() == 2));
        assert_eq!(parse_list(&"a;".repeat(4000)), Err(AddressError::TooLong));
    }

    #[test]
    fn what_an_entry_leaves_out_can_be_said_for_all() {
        let with = |text: &str, scheme, port| {
            super::parse_list_with(text, scheme, port).map(|list| list[0].to_string())
        };
        let (http, https) = (Some(super::Scheme::Http), Some(super::Scheme::Https));
        for (text, scheme, port, url) in [
            ("a", None, Some(26501), "https://a:26501"),
            ("a", None, Some(80), "http://a:80"),
            ("a", http, None, "http://a:80"),
            ("a", https, Some(80), "https://a:80"),
            ("a:8080", http, Some(26501), "http://a:8080"),
            ("https://a:1", http, Some(26501), "https://a:1"),
        ] {
            assert_eq!(with(text, scheme, port), Ok(url.to_owned()), "{text}");
        }
    }

    #[test]
    fn only_bare_names_get_the_domain() {
        for (text, url) in [
            ("deploy", "https://deploy.lab.example:443"),
            ("deploy.other", "https://deploy.other:443"),
            ("10.0.0.1", "https://10.0.0.1:443"),
            ("[fd00::1]", "https://[fd00::1]:443"),
            ("localhost", "https://localhost:443"),
        ] {
            let address = ServerAddress::parse(text).unwrap();
            assert_eq!(
                address.clone().in_domain(Some("Lab.Example.")).to_string(),
                url
            );
            assert_eq!(address.clone().in_domain(None), address);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused_and_what_is_taken_stays_the_same(text in ".{0,80}") {
            if let Ok(address) = ServerAddress::parse(&text) {
                prop_assert_eq!(ServerAddress::parse(&address.to_string()), Ok(address));
            }
            let _ = parse_list(&text);
        }

        #[test]
        fn near_addresses_are_taken_or_refused(
            text in "(https?://|ftp://)?(\\[?[0-9a-f:.]{0,12}\\]?|[a-z.-]{1,8})(:[0-9]{0,6})?/?"
        ) {
            if let Ok(address) = ServerAddress::parse(&text) {
                prop_assert!(address.port != 0);
                prop_assert_eq!(ServerAddress::parse(&address.to_string()), Ok(address));
            }
        }
    }
}
