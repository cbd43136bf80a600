//! The nodes that the mesh's root has shut out, as a member remembers them: in
//! the file `revocations`, one after the other, as OxiCode writes what the root has
//! signed.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use mielin_mesh_core::limits::REVOCATIONS_MAX;
use mielin_mesh_core::{NodeId, SignedRevocation, codec};

use crate::certificate::RootCertificate;
use crate::directory::{DataDirectory, DirectoryError};
use crate::signature::Ed25519;

const REVOCATIONS_FILE: &str = "revocations";

/// Who is shut out; clones share it. Nobody comes off it again.
#[derive(Clone, Debug, Default)]
pub struct Revoked(Arc<RwLock<BTreeSet<NodeId>>>);

impl Revoked {
    /// Whether a node is shut out.
    #[must_use]
    pub fn contains(&self, node: &NodeId) -> bool {
        let nodes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        nodes.contains(node)
    }

    pub(crate) fn insert(&self, node: NodeId) {
        let mut nodes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        nodes.insert(node);
    }
}

impl FromIterator<NodeId> for Revoked {
    fn from_iter<I: IntoIterator<Item = NodeId>>(nodes: I) -> Self {
        Revoked(Arc::new(RwLock::new(nodes.into_iter().collect())))
    }
}

/// The revocations that were stored. Those that this root did not sign, or that
/// cannot be read, are left out: the members have them too.
///
/// # Errors
/// The data directory failed.
pub fn stored_revocations(
    directory: &DataDirectory,
    root: &RootCertificate,
) -> Result<Vec<SignedRevocation>, DirectoryError> {
    let content = directory.read(REVOCATIONS_FILE)?;
    let mut stored = content.map_or_else(Vec::new, |content| parse(&content));
    let key = root.ed25519_key();
    stored.retain(|one| one.is_genuine::<Ed25519>(&key));
    Ok(stored)
}

pub(crate) fn parse(mut content: &[u8]) -> Vec<SignedRevocation> {
    let mut stored = Vec::new();
    while !content.is_empty() && stored.len() < REVOCATIONS_MAX {
        match codec::decode_prefix(content) {
            Ok((one, rest)) => {
                stored.push(one);
                content = rest;
            }
            Err(error) => {
                tracing::warn!(%error, "{REVOCATIONS_FILE} in the data directory is damaged");
                break;
            }
        }
    }
    stored
}

/// Replaces the stored revocations.
///
/// # Errors
/// The data directory failed.
pub fn store_revocations(
    directory: &DataDirectory,
    revocations: &[SignedRevocation],
) -> Result<(), DirectoryError> {
    let content: Vec<u8> = revocations.iter().flat_map(codec::encode).collect();
    directory.write(REVOCATIONS_FILE, &content)
}
