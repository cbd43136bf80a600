//! Tokens as their issuer remembers them, and the file that they are kept in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use mielin_mesh_core::{NodeId, NodeRole};

use crate::token::{role_byte, role_of_byte, unix_seconds};

/// Nodes that one token may admit. With it the file of all tokens stays below
/// what a data directory reads.
pub const TOKEN_USES_MAX: u16 = 100;
/// The longest time for which a token is good.
pub const TOKEN_LIFETIME_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What the issuer knows of a token; it is found by the hash of its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Issued {
    pub(crate) expires: SystemTime,
    pub(crate) role: Option<NodeRole>,
    /// Nodes that it admits.
    pub(crate) uses: u16,
    /// Those that it has admitted.
    pub(crate) used_by: BTreeSet<NodeId>,
}

impl Issued {
    /// Whether the token admits this node, which may have come by it before.
    pub(crate) fn has_place_for(&self, node: &NodeId) -> bool {
        self.used_by.contains(node) || self.used_by.len() < usize::from(self.uses)
    }
}

/// For each token: hash, end in Unix seconds, role, uses, and the nodes that
/// have used it behind their number; numbers big-endian.
pub(crate) fn encode_tokens(tokens: &BTreeMap<[u8; 32], Issued>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (hash, issued) in tokens {
        bytes.extend_from_slice(hash);
        bytes.extend_from_slice(&unix_seconds(issued.expires).to_be_bytes());
        bytes.push(role_byte(issued.role));
        bytes.extend_from_slice(&issued.uses.to_be_bytes());
        bytes.extend_from_slice(&(issued.used_by.len() as u16).to_be_bytes());
        for node in &issued.used_by {
            bytes.extend_from_slice(&node.0);
        }
    }
    bytes
}

pub(crate) fn decode_tokens(mut bytes: &[u8]) -> Option<BTreeMap<[u8; 32], Issued>> {
    let mut tokens = BTreeMap::new();
    while !bytes.is_empty() {
        let (hash, rest) = bytes.split_first_chunk::<32>()?;
        let (expires, rest) = rest.split_first_chunk::<8>()?;
        let (role, rest) = rest.split_first()?;
        let (uses, rest) = rest.split_first_chunk::<2>()?;
        let (count, mut rest) = rest.split_first_chunk::<2>()?;
        let (uses, count) = (u16::from_be_bytes(*uses), u16::from_be_bytes(*count));
        if count > uses || uses > TOKEN_USES_MAX {
            return None;
        }
        let mut used_by = BTreeSet::new();
        for _ in 0..count {
            let (node, behind) = rest.split_first_chunk::<32>()?;
            used_by.insert(NodeId(*node));
            rest = behind;
        }
        let expires = SystemTime::UNIX_EPOCH
            .checked_add(Duration::from_secs(u64::from_be_bytes(*expires)))?;
        let role = role_of_byte(*role)?;
        tokens.insert(
            *hash,
            Issued {
                expires,
                role,
                uses,
                used_by,
            },
        );
        bytes = rest;
    }
    Some(tokens)
}
