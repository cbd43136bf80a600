//! The key pair that makes a node.

use std::fmt;

use mielin_mesh_core::NodeId;
use rcgen::{KeyPair, PublicKeyData, SigningKey};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::directory::{DataDirectory, DirectoryError};

/// An Ed25519 key pair; its public half is the node's identity for good.
///
/// Ed25519 because WebPKI and rustls take it as it is, signatures are
/// deterministic, and a key is 32 bytes that need no parameters.
pub struct NodeKey {
    pair: KeyPair,
    id: NodeId,
}

/// Why a key could not be made, read or stored.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The random generator or the signature code failed.
    #[error("cannot make a key pair: {0}")]
    Generate(rcgen::Error),
    /// The signature code failed.
    #[error("cannot sign with the node's key")]
    Sign,
    /// The stored key is damaged.
    #[error("{file} is not a PKCS#8 Ed25519 key: {source}")]
    Malformed {
        /// Its name in the data directory.
        file: String,
        /// What the parser said.
        source: rcgen::Error,
    },
    /// The data directory failed.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

impl NodeKey {
    /// A fresh key pair, not yet stored.
    ///
    /// # Errors
    /// [`IdentityError::Generate`] when the system gives no randomness.
    pub fn generate() -> Result<Self, IdentityError> {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(IdentityError::Generate)?;
        Ok(NodeKey::new(pair))
    }

    /// The id that this key gives its node: BLAKE3 of the DER-encoded
    /// SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7).
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Reads the key from a file of the data directory.
    pub(crate) fn load(
        directory: &DataDirectory,
        file: &str,
    ) -> Result<Option<Self>, IdentityError> {
        let Some(der) = directory.read(file)? else {
            return Ok(None);
        };
        let der = PrivatePkcs8KeyDer::from(der);
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ED25519).map_err(
            |source| IdentityError::Malformed {
                file: file.into(),
                source,
            },
        )?;
        Ok(Some(NodeKey::new(pair)))
    }

    pub(crate) fn store(
        &self,
        directory: &DataDirectory,
        file: &str,
    ) -> Result<(), DirectoryError> {
        directory.write(file, self.pair.serialized_der())
    }

    pub(crate) fn pair(&self) -> &KeyPair {
        &self.pair
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Result<[u8; 64], IdentityError> {
        let signature = self.pair.sign(message);
        let signature = signature.map_err(|_| IdentityError::Sign)?;
        signature.try_into().map_err(|_| IdentityError::Sign)
    }

    /// The private key as rustls wants it.
    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.pair.serialize_der().into())
    }

    fn new(pair: KeyPair) -> Self {
        let id = NodeId::of_public_key(&pair.subject_public_key_info());
        NodeKey { pair, id }
    }
}

/// Shows the id only, never the key.
impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
