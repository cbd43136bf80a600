//! Where a member is to be found first: an address, or a host's name.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::timeout;

/// How long the system's resolver may take; the resolver itself goes on.
const RESOLVE_LIMIT: Duration = Duration::from_secs(10);
/// Addresses of one name that are tried; a resolver's answer has no bound of its own.
const ADDRESSES_MAX: usize = 16;
/// Longest host name in its written form (RFC 1035, 2.3.4).
const HOST_BYTES_MAX: usize = 253;

/// A member to contact first: `ADDRESS:PORT`, `[V6ADDRESS]:PORT` or `HOST:PORT`.
///
/// A host's name is looked up anew at every attempt, so it may move.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BootstrapNode(Place);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Place {
    Address(SocketAddr),
    Name { host: String, port: u16 },
}

/// Why a text names no member. The caller's mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapError {
    /// There is no port, or what stands there is no number.
    #[error("there is no port; write HOST:PORT, and [ADDRESS]:PORT for IPv6")]
    Port,
    /// The number is not that of a port.
    #[error("the port is not between 1 and 65535")]
    PortRange,
    /// The host is neither an IP address nor a name (RFC 1123, 2.1).
    #[error("the host is neither an IP address nor a host name")]
    Host,
}

impl BootstrapNode {
    /// Every address of the host, in the system's order, at most 16.
    ///
    /// # Errors
    /// What the system's resolver says; `TimedOut` after 10 s, and `NotFound`
    /// for a name without an address.
    pub async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let (host, port) = match &self.0 {
            Place::Address(address) => return Ok(vec![*address]),
            Place::Name { host, port } => (host.as_str(), *port),
        };
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for address in timeout(RESOLVE_LIMIT, lookup_host((host, port))).await?? {
            if addresses.len() < ADDRESSES_MAX && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no address"));
        }
        Ok(addresses)
    }
}

impl From<SocketAddr> for BootstrapNode {
    fn from(address: SocketAddr) -> Self {
        BootstrapNode(Place::Address(address))
    }
}

impl FromStr for BootstrapNode {
    type Err = BootstrapError;

    fn from_str(text: &str) -> Result<Self, BootstrapError> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return match address.port() {
                0 => Err(BootstrapError::PortRange),
                _ => Ok(address.into()),
            };
        }
        let (host, port) = text.rsplit_once(':').ok_or(BootstrapError::Port)?;
        if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(BootstrapError::Port);
        }
        let port = match port.parse::<u16>() {
            Ok(port) if port != 0 => port,
            _ => return Err(BootstrapError::PortRange),
        };
        if !is_host_name(host) {
            return Err(BootstrapError::Host);
        }
        let host = host.to_owned();
        Ok(BootstrapNode(Place::Name { host, port }))
    }
}

/// Letters, digits, hyphens, and the underscores that some networks have, in
/// labels of at most 63 bytes.
fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        (1..=63).contains(&label.len()) && label.chars().all(allowed) && !label.starts_with('-')
    };
    host.len() <= HOST_BYTES_MAX && host.strip_suffix('.').unwrap_or(host).split('.').all(label)
}

impl fmt::Display for BootstrapNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Address(address) => address.fmt(f),
            Place::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_are_read_and_written_alike() {
        for text in [
            "192.168.1.100:9000",
            "[::1]:9000",
            "[fe80::1%2]:9000",
            "node.example.org:9000",
            "localhost:1",
            "my_host.:65535",
        ] {
            let node: BootstrapNode = text.parse().unwrap();
            assert_eq!(node.to_string(), text);
        }
    }

    #[test]
    fn what_names_no_member_is_refused() {
        let long = format!("{}:1", "a.".repeat(130));
        let cases = [
            ("", BootstrapError::Port),
            ("host", BootstrapError::Port),
            ("host:", BootstrapError::Port),
            ("host:+1", BootstrapError::Port),
            ("host:0", BootstrapError::PortRange),
            ("host:65536", BootstrapError::PortRange),
            ("10.0.0.1:0", BootstrapError::PortRange),
            ("127.0.0.1:99999", BootstrapError::PortRange),
            ("[::1]:99999", BootstrapError::PortRange),
            ("::1:9000", BootstrapError::Host),
            (":9000", BootstrapError::Host),
            ("a..b:9000", BootstrapError::Host),
            ("-a:9000", BootstrapError::Host),
            ("a b:9000", BootstrapError::Host),
            (&long, BootstrapError::Host),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<BootstrapNode>(), Err(expected), "{text}");
        }
    }

    #[tokio::test]
    async fn a_name_becomes_its_addresses() {
        let node: BootstrapNode = "localhost:7".parse().unwrap();
        let addresses = node.resolve().await.unwrap();
        assert!(
            addresses
                .iter()
                .all(|a| a.ip().is_loopback() && a.port() == 7)
        );
    }
}
