//! The keys of leaves and hosts.

use core::fmt;

use zeroize::Zeroize;

use super::noise;
use crate::NodeId;

/// What stands before an X25519 public key in its SubjectPublicKeyInfo (RFC 8410, sections 3 and 4).
const X25519_SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x6e, 0x03, 0x21, 0x00,
];

/// An X25519 public key: who somebody is on a leaf link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// The id of the node that holds the key.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        let mut spki = [0; X25519_SPKI_PREFIX.len() + 32];
        spki[..X25519_SPKI_PREFIX.len()].copy_from_slice(&X25519_SPKI_PREFIX);
        spki[X25519_SPKI_PREFIX.len()..].copy_from_slice(&self.0);
        NodeId::of_public_key(&spki)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "PublicKey({a:02x}{b:02x}{c:02x}{d:02x})")
    }
}

/// The secret half. It is wiped from memory when it is dropped, and `Debug` does not show it.
#[derive(Clone)]
pub struct SecretKey {
    secret: [u8; 32],
    public: PublicKey,
}

impl SecretKey {
    /// The key with these bytes, any 32 that nobody can guess (RFC 7748, section 5). Multiplies once on the curve.
    #[must_use]
    pub fn from_bytes(secret: [u8; 32]) -> SecretKey {
        let public = PublicKey(noise::public_key(&secret));
        SecretKey { secret, public }
    }

    /// The bytes that [`SecretKey::from_bytes`] makes it of, for whoever stores it.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.secret
    }

    /// The public half.
    #[must_use]
    pub const fn public(&self) -> PublicKey {
        self.public
    }
}

impl Drop for SecretKey {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey of {:?}", self.public)
    }
}
