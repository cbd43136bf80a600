//! The nodes that the mesh's root has shut out, as a member remembers them: in
//! the file `revocations`, one after the other, as OxiCode writes what the root has
//! signed. Beside it stand their names, as far as they were known, one
//! `<node id> <name>` per line in `revoked-names`: the root signs ids.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use mielin_mesh_core::limits::REVOCATIONS_MAX;
use mielin_mesh_core::{Name, NodeId, SignedRevocation, codec};

use crate::certificate::RootCertificate;
use crate::directory::{DataDirectory, DirectoryError};
use crate::signature::Ed25519;

const REVOCATIONS_FILE: &str = "revocations";
const NAMES_FILE: &str = "revoked-names";

/// Who is shut out, with what proves it; clones share it. Nobody comes off it again.
#[derive(Clone, Debug, Default)]
pub struct Revoked(Arc<RwLock<BTreeMap<NodeId, SignedRevocation>>>);

impl Revoked {
    /// Whether a node is shut out.
    #[must_use]
    pub fn contains(&self, node: &NodeId) -> bool {
        let nodes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        nodes.contains_key(node)
    }

    /// What the root has signed about a node, as it stands in the reason for which a connection with it is closed.
    pub(crate) fn proof(&self, node: &NodeId) -> Vec<u8> {
        let nodes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        nodes.get(node).map_or_else(Vec::new, codec::encode)
    }

    pub(crate) fn insert(&self, signed: SignedRevocation) {
        let mut nodes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        nodes.insert(signed.revocation().node, signed);
    }
}

impl FromIterator<SignedRevocation> for Revoked {
    fn from_iter<I: IntoIterator<Item = SignedRevocation>>(signed: I) -> Self {
        let nodes = signed.into_iter().map(|one| (one.revocation().node, one));
        Revoked(Arc::new(RwLock::new(nodes.collect())))
    }
}

/// The names of nodes that are shut out.
///
/// # Errors
/// The data directory failed.
pub fn stored_revoked_names(
    directory: &DataDirectory,
) -> Result<BTreeMap<NodeId, Name>, DirectoryError> {
    let content = directory.read(NAMES_FILE)?.unwrap_or_default();
    Ok(parse_names(&content))
}

/// Lines that say nothing are passed over.
pub(crate) fn parse_names(content: &[u8]) -> BTreeMap<NodeId, Name> {
    let content = String::from_utf8_lossy(content);
    let parse = |line: &str| {
        let (node, name) = line.split_once(' ')?;
        Some((node.parse().ok()?, Name::new(name).ok()?))
    };
    let names = content.lines().filter_map(parse);
    names.take(REVOCATIONS_MAX).collect()
}

pub(crate) fn write_names(names: &BTreeMap<NodeId, Name>) -> String {
    let line = |(node, name): (&NodeId, &Name)| format!("{node} {name}\n");
    names.iter().map(line).collect()
}

/// Replaces the names of nodes that are shut out.
///
/// # Errors
/// The data directory failed.
pub fn store_revoked_names(
    directory: &DataDirectory,
    names: &BTreeMap<NodeId, Name>,
) -> Result<(), DirectoryError> {
    directory.write(NAMES_FILE, write_names(names).as_bytes())
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
