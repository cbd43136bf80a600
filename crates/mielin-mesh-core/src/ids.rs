//! Names of things: nodes, agents, roles, states.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use data_encoding::{Encoding, HEXLOWER_PERMISSIVE, Specification};
use oxicode::{Decode, Encode};
use thiserror::Error;

use crate::limits::NAME_BYTES_MAX;

/// What stands before an Ed25519 public key in its SubjectPublicKeyInfo (RFC 8410, sections 3 and 4).
const ED25519_SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// Text that is not the id, role or state it should be. The caller is at fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdError {
    /// Not the right number of hexadecimal digits.
    #[error("expected {expected} hexadecimal digits")]
    NotHex {
        /// How many digits the id has.
        expected: usize,
    },
    /// Not a role.
    #[error("expected a role: edge, relay or core")]
    NotRole,
    /// Not a node's server name.
    #[error(
        "expected a server name of the form BASE32{}",
        NodeId::SERVER_NAME_SUFFIX
    )]
    NotServerName,
}

/// A node: the BLAKE3 hash of its public key.
///
/// A node proves its id by holding the key, so an id cannot be taken by another node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct NodeId(pub [u8; 32]);

impl NodeId {
    /// What follows the id in [`NodeId::server_name`].
    pub const SERVER_NAME_SUFFIX: &str = ".node.mielin";

    /// The id of the node that holds the key with this DER-encoded SubjectPublicKeyInfo (RFC 5280, 4.1).
    #[must_use]
    pub fn of_public_key(spki_der: &[u8]) -> NodeId {
        NodeId(*blake3::hash(spki_der).as_bytes())
    }

    /// The id of the node that holds this Ed25519 public key.
    #[must_use]
    pub fn of_ed25519_key(key: &[u8; 32]) -> NodeId {
        let mut spki = ED25519_SPKI_PREFIX.to_vec();
        spki.extend_from_slice(key);
        NodeId::of_public_key(&spki)
    }

    /// The DNS name that the node's certificate carries: 52 base32 digits (RFC 4648, lower-case, no padding,
    /// within the 63 bytes of a label) and [`NodeId::SERVER_NAME_SUFFIX`].
    #[must_use]
    pub fn server_name(&self) -> String {
        let mut name = base32().encode(&self.0);
        name.push_str(NodeId::SERVER_NAME_SUFFIX);
        name
    }

    /// The node with this server name.
    ///
    /// # Errors
    ///
    /// [`IdError::NotServerName`] for anything that [`NodeId::server_name`] does not produce.
    pub fn from_server_name(name: &str) -> Result<NodeId, IdError> {
        let label = name
            .strip_suffix(NodeId::SERVER_NAME_SUFFIX)
            .ok_or(IdError::NotServerName)?;
        let bytes = base32()
            .decode(label.as_bytes())
            .map_err(|_| IdError::NotServerName)?;
        bytes
            .try_into()
            .map(NodeId)
            .map_err(|_| IdError::NotServerName)
    }

    /// The first eight hexadecimal digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        HEXLOWER_PERMISSIVE.encode(&self.0[..4])
    }
}

fn base32() -> Encoding {
    let mut specification = Specification::new();
    specification
        .symbols
        .push_str("abcdefghijklmnopqrstuvwxyz234567");
    specification
        .encoding()
        .expect("32 distinct symbols are an encoding")
}

fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], IdError> {
    let not_hex = IdError::NotHex { expected: 2 * N };
    let bytes: Vec<u8> = HEXLOWER_PERMISSIVE
        .decode(text.as_bytes())
        .map_err(|_| not_hex.clone())?;
    bytes.try_into().map_err(|_| not_hex)
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&HEXLOWER_PERMISSIVE.encode(&self.0))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", self.short())
    }
}

impl FromStr for NodeId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<NodeId, IdError> {
        parse_hex(text).map(NodeId)
    }
}

/// An agent's address: it stays the same wherever the agent goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct AgentId(pub [u8; 16]);

impl AgentId {
    /// The id of an agent from its content: the hash of the module it runs, its owner and a nonce that
    /// differs for each agent of that owner.
    #[must_use]
    pub fn derive(module: &[u8; 32], owner: &NodeId, nonce: &[u8; 16]) -> AgentId {
        let mut hasher = blake3::Hasher::new_derive_key("mielin 2026 agent id");
        hasher.update(module).update(&owner.0).update(nonce);
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        AgentId(id)
    }

    /// A random id from the operating system.
    ///
    /// # Panics
    ///
    /// If the operating system has no random bytes to give.
    #[cfg(feature = "std")]
    #[must_use]
    #[expect(clippy::new_without_default, reason = "two defaults would differ")]
    pub fn new() -> AgentId {
        let mut id = [0; 16];
        getrandom::fill(&mut id).expect("the operating system gives random bytes");
        AgentId(id)
    }

    /// The first eight hexadecimal digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        HEXLOWER_PERMISSIVE.encode(&self.0[..4])
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&HEXLOWER_PERMISSIVE.encode(&self.0))
    }
}

impl fmt::Debug for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AgentId({})", self.short())
    }
}

impl FromStr for AgentId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<AgentId, IdError> {
        parse_hex(text).map(AgentId)
    }
}

/// How often an agent was handed over. The copy with the higher epoch is the live one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch after this one.
    #[must_use]
    pub const fn next(self) -> Epoch {
        Epoch(self.0.saturating_add(1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a node is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum NodeRole {
    /// Runs agents and may vanish.
    Edge,
    /// Forwards for nodes without a reachable address.
    Relay,
    /// Stable.
    Core,
}

impl fmt::Display for NodeRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            NodeRole::Edge => "edge",
            NodeRole::Relay => "relay",
            NodeRole::Core => "core",
        })
    }
}

impl FromStr for NodeRole {
    type Err = IdError;

    fn from_str(text: &str) -> Result<NodeRole, IdError> {
        match text {
            "edge" => Ok(NodeRole::Edge),
            "relay" => Ok(NodeRole::Relay),
            "core" => Ok(NodeRole::Core),
            _ => Err(IdError::NotRole),
        }
    }
}

/// What the group believes about a member (SWIM, section 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum MemberState {
    /// Answers.
    Alive,
    /// Did not answer a probe; has some time to refute.
    Suspect,
    /// Did not refute.
    Dead,
    /// Said that it stops and will be back; it keeps its name.
    Stopped,
    /// Said that it leaves for good.
    Left,
}

impl MemberState {
    /// Whether messages to the member may arrive: alive, or under suspicion only.
    #[must_use]
    pub const fn is_active(self) -> bool {
        matches!(self, MemberState::Alive | MemberState::Suspect)
    }
}

impl fmt::Display for MemberState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            MemberState::Alive => "alive",
            MemberState::Suspect => "suspect",
            MemberState::Dead => "dead",
            MemberState::Stopped => "stopped",
            MemberState::Left => "left",
        })
    }
}

/// What an agent does.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum AgentState {
    /// Is being prepared.
    Starting,
    /// Runs, or would if a thread were free.
    Running,
    /// Waits for a message or a clock.
    Waiting,
    /// Was paused.
    Paused,
    /// Is on its way to another node.
    Moving,
    /// Was handed over, and the source does not know yet whether it arrived.
    InDoubt,
    /// Left by itself or was ended.
    Ended {
        /// The program's exit code.
        exit_code: i32,
    },
    /// Cannot go on.
    Failed {
        /// Why.
        reason: String,
    },
    /// Had ended, and its node has forgotten it.
    Removed,
    /// Is on its node's disk, until something is asked of it.
    Hibernated,
}

impl AgentState {
    /// Whether the agent will never run again.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(
            self,
            AgentState::Ended { .. } | AgentState::Failed { .. } | AgentState::Removed
        )
    }
}

impl fmt::Display for AgentState {
    /// One lower-case word; exit code and reason are left to the caller.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            AgentState::Starting => "starting",
            AgentState::Running => "running",
            AgentState::Waiting => "waiting",
            AgentState::Paused => "paused",
            AgentState::Moving => "moving",
            AgentState::InDoubt => "in-doubt",
            AgentState::Ended { .. } => "ended",
            AgentState::Failed { .. } => "failed",
            AgentState::Removed => "removed",
            AgentState::Hibernated => "hibernated",
        })
    }
}

/// A name that cannot be used. The caller is at fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing at all.
    #[error("a name cannot be empty")]
    Empty,
    /// Too long.
    #[error("a name has at most {NAME_BYTES_MAX} bytes, this has {len}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// White space or a control character, which would break tables and commands.
    #[error("a name cannot contain {character:?}")]
    BadCharacter {
        /// The first offending character.
        character: char,
    },
    /// It looks like an option.
    #[error("a name cannot begin with a hyphen, which commands would take for an option")]
    Hyphen,
}

/// The name of a node or an agent: 1 to 64 bytes without white space or control characters, the first of them not a
/// hyphen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// Checks a name.
    ///
    /// # Errors
    ///
    /// [`NameError`] says what is wrong with it.
    pub fn new(name: impl Into<String>) -> Result<Name, NameError> {
        let name = name.into();
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong { len: name.len() });
        }
        if name.starts_with('-') {
            return Err(NameError::Hyphen);
        }
        match name.chars().find(|c| c.is_whitespace() || c.is_control()) {
            Some(character) => Err(NameError::BadCharacter { character }),
            None => Ok(Name(name)),
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Name, NameError> {
        Name::new(text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

impl Encode for Name {
    fn encode<E: oxicode::enc::Encoder>(&self, encoder: &mut E) -> Result<(), oxicode::Error> {
        self.0.encode(encoder)
    }
}

impl<Context> Decode<Context> for Name {
    fn decode<D: oxicode::de::Decoder<Context = Context>>(
        decoder: &mut D,
    ) -> Result<Name, oxicode::Error> {
        Name::new(String::decode(decoder)?).map_err(|e| oxicode::Error::OwnedCustom {
            message: e.to_string(),
        })
    }
}

#[cfg(test)]
mod tests;
