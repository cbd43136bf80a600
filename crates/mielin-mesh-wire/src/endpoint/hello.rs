//! What two endpoints tell each other before anything else.
//!
//! The protocol's major version is negotiated in the handshake (ALPN, RFC 7301);
//! what differs within it is said here. Each side sends one hello on a stream of
//! its own, the dialler together with the end of its handshake, so it costs no
//! round trip. The acceptor's is also its word that it has verified the dialler,
//! who in TLS 1.3 finishes before its own certificate was looked at.
//!
//! ```text
//! minor version: u16 BE | features: u64 BE | instance: 8 bytes | dial: u64 BE
//!     | length: u8 | program version: ASCII | what newer minor versions add
//! ```

use std::fmt;
use std::ops::BitOr;
use std::time::SystemTime;

/// What a node serves, as a set of bits. A bit that only one side knows means nothing.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Features(u64);

impl Features {
    /// It takes part in membership.
    pub const MEMBERSHIP: Features = Features(1);
    /// It keeps records for the table, and answers for its own.
    pub const TABLE: Features = Features(1 << 1);
    /// Agents may move to it.
    pub const MIGRATION: Features = Features(1 << 2);
    /// It can be the end of a circuit, and join others' where its role allows that.
    pub const CIRCUITS: Features = Features(1 << 3);
    /// It hands routed messages on.
    pub const ROUTED: Features = Features(1 << 4);
    /// It takes in revocations.
    pub const REVOCATIONS: Features = Features(1 << 5);
    /// It takes in messages that are posted.
    pub const LANES: Features = Features(1 << 6);

    const NAMES: [(Features, &'static str); 7] = [
        (Features::MEMBERSHIP, "membership"),
        (Features::TABLE, "table"),
        (Features::MIGRATION, "migration"),
        (Features::CIRCUITS, "circuits"),
        (Features::ROUTED, "routed"),
        (Features::REVOCATIONS, "revocations"),
        (Features::LANES, "lanes"),
    ];

    /// Nothing but what every node serves.
    pub const NONE: Features = Features(0);

    /// Everything that this version knows.
    #[must_use]
    pub fn all() -> Features {
        let known = Features::NAMES.iter();
        known.fold(Features::NONE, |all, (feature, _)| all | *feature)
    }

    /// Whether all of `others` are among these.
    #[must_use]
    pub const fn contains(self, others: Features) -> bool {
        self.0 & others.0 == others.0
    }

    /// Those that both have.
    #[must_use]
    pub const fn common(self, other: Features) -> Features {
        Features(self.0 & other.0)
    }

    /// These but for `others`.
    #[must_use]
    pub const fn without(self, others: Features) -> Features {
        Features(self.0 & !others.0)
    }

    /// The names of those that this version knows.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let known = Features::NAMES.into_iter();
        let present = known.filter(move |(feature, _)| self.contains(*feature));
        present.map(|(_, name)| name)
    }
}

impl BitOr for Features {
    type Output = Features;

    fn bitor(self, other: Features) -> Features {
        Features(self.0 | other.0)
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// The running endpoint that speaks, chosen when it is bound: another one of the same node means that the node has
/// restarted, or moved to another address, and that connections with it from before are dead. Of two processes of one
/// node the one with the lower number was started first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instance(pub(crate) [u8; 8]);

impl Instance {
    /// The milliseconds since 1970, which fit until 2109, and 22 random bits.
    pub(crate) fn begun(now: SystemTime, random: u32) -> Instance {
        const RANDOM_BITS: u32 = 22;
        let since = now.duration_since(SystemTime::UNIX_EPOCH);
        let since_ms = since.map_or(0, |since| since.as_millis() as u64);
        let random = u64::from(random) & ((1 << RANDOM_BITS) - 1);
        Instance((since_ms << RANDOM_BITS | random).to_be_bytes())
    }

    /// Whether the other is what this one is after so many changes of the host's address, or fewer.
    pub(super) fn becomes(self, other: Instance, moves: u64) -> bool {
        let since = u64::from_be_bytes(other.0).wrapping_sub(u64::from_be_bytes(self.0));
        since <= moves
    }

    /// What it is after so many changes of the host's address.
    pub(crate) fn after(self, moves: u64) -> Instance {
        Instance(u64::from_be_bytes(self.0).wrapping_add(moves).to_be_bytes())
    }
}

/// The program's version, as text that may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProgramVersion(String);

impl ProgramVersion {
    const BYTES_MAX: usize = 32;

    fn check(text: &[u8]) -> Option<ProgramVersion> {
        let shown = text.len() <= Self::BYTES_MAX && text.iter().all(u8::is_ascii_graphic);
        let text = std::str::from_utf8(text).ok().filter(|_| shown)?;
        Some(ProgramVersion(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// See the [module](self).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) minor: u16,
    pub(crate) features: Features,
    pub(crate) instance: Instance,
    /// Counts the connections that the endpoint has dialled, so that both ends know which is newer; 0 from who has
    /// not dialled this one.
    pub(crate) dial: u64,
    pub(crate) program: ProgramVersion,
}

/// Bytes that are no hello. The peer is at fault.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MalformedHello;

impl Hello {
    /// Counts what was added to the protocol since its major version.
    pub(crate) const MINOR: u16 = 0;
    /// Longest hello that is read, with room for what newer versions add.
    pub(crate) const BYTES_MAX: usize = 512;
    const FIXED_BYTES: usize = 2 + 8 + 8 + 8 + 1;

    /// What this program says, as this running endpoint.
    pub(crate) fn new(features: Features, instance: Instance) -> Hello {
        let program = ProgramVersion::check(env!("CARGO_PKG_VERSION").as_bytes());
        Hello {
            minor: Self::MINOR,
            features,
            instance,
            dial: 0,
            program: program.expect("versions of packages are short and ASCII"),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::FIXED_BYTES + ProgramVersion::BYTES_MAX);
        bytes.extend(self.minor.to_be_bytes());
        bytes.extend(self.features.0.to_be_bytes());
        bytes.extend(self.instance.0);
        bytes.extend(self.dial.to_be_bytes());
        bytes.push(self.program.0.len() as u8);
        bytes.extend(self.program.0.as_bytes());
        bytes
    }

    /// Reads what is known of a hello, and passes over what a newer version has added.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Hello, MalformedHello> {
        if bytes.len() > Self::BYTES_MAX {
            return Err(MalformedHello);
        }
        let (minor, rest) = bytes.split_first_chunk().ok_or(MalformedHello)?;
        let (features, rest) = rest.split_first_chunk().ok_or(MalformedHello)?;
        let (instance, rest) = rest.split_first_chunk().ok_or(MalformedHello)?;
        let (dial, rest) = rest.split_first_chunk().ok_or(MalformedHello)?;
        let (length, rest) = rest.split_first().ok_or(MalformedHello)?;
        let text = rest.get(..usize::from(*length)).ok_or(MalformedHello)?;
        Ok(Hello {
            minor: u16::from_be_bytes(*minor),
            features: Features(u64::from_be_bytes(*features)),
            instance: Instance(*instance),
            dial: u64::from_be_bytes(*dial),
            program: ProgramVersion::check(text).ok_or(MalformedHello)?,
        })
    }

    /// Sends it on a stream of its own.
    pub(crate) async fn send(&self, connection: &quinn::Connection) -> Option<()> {
        let mut stream = connection.open_uni().await.ok()?;
        stream.write_all(&self.encode()).await.ok()?;
        stream.finish().ok()
    }

    /// Waits for the peer's; `None` when the connection has ended or something else came.
    pub(crate) async fn receive(connection: &quinn::Connection) -> Option<Hello> {
        let mut stream = connection.accept_uni().await.ok()?;
        let bytes = stream.read_to_end(Self::BYTES_MAX).await.ok()?;
        Hello::decode(&bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_of_a_newer_version_is_understood_as_far_as_it_is_known() {
        let known = Features::TABLE | Features::CIRCUITS;
        let hello = Hello::new(known, Instance([7; 8]));
        assert_eq!(Hello::decode(&hello.encode()), Ok(hello.clone()));
        let newer = Hello {
            minor: 9,
            features: Features(known.0 | 1 << 63),
            ..hello.clone()
        };
        let mut bytes = newer.encode();
        bytes.extend(b"something that nobody knows yet");
        let read = Hello::decode(&bytes).unwrap();
        assert_eq!(read, newer);
        assert_eq!(read.features.common(Features::all()), known);
        assert!(read.features.names().eq(["table", "circuits"]));
    }

    #[test]
    fn what_is_no_hello_is_refused() {
        let whole = Hello::new(Features::all(), Instance([7; 8])).encode();
        for length in 0..whole.len() {
            assert_eq!(Hello::decode(&whole[..length]), Err(MalformedHello));
        }
        let mut control = whole.clone();
        *control.last_mut().unwrap() = 0x1b;
        assert_eq!(Hello::decode(&control), Err(MalformedHello));
        let mut long = whole;
        long.resize(Hello::BYTES_MAX + 1, 0);
        assert_eq!(Hello::decode(&long), Err(MalformedHello));
    }
}
