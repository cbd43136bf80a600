//! Join tokens: what a new node needs to trust a mesh and to be trusted at first.
//!
//! A token is `mielin1` followed by base64url (RFC 4648, section 5, unpadded)
//! of
//!
//! ```text
//! secret: 32 bytes | expires: u64 BE, Unix seconds | role: u8 | root certificate | checksum: 4 bytes
//! ```
//!
//! The checksum (first bytes of BLAKE3 over what precedes it) is there for
//! people who copy half a token; what protects the mesh is the secret, of which
//! the issuer keeps only a hash.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use data_encoding::BASE64URL_NOPAD;
use mielin_mesh_core::NodeRole;

use crate::certificate::{DER_BYTES_MAX, MeshId, RootCertificate};

const PREFIX: &str = "mielin1";
const SECRET_BYTES: usize = 32;
const CHECKSUM_BYTES: usize = 4;
const FIXED_BYTES: usize = SECRET_BYTES + 8 + 1;

/// Admits one node, or a number of nodes, to one mesh, and not for ever. Whoever
/// reads it can use it: `Display` shows all of it, `Debug` hides the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    pub(crate) secret: [u8; SECRET_BYTES],
    pub(crate) expires: SystemTime,
    pub(crate) role: Option<NodeRole>,
    pub(crate) root: RootCertificate,
}

/// Why a token was not accepted. The mesh is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Its time is over.
    #[error("the token has expired; ask for a new one")]
    Expired,
    /// As many nodes as it was for have used it.
    #[error("the token was already used; ask for a new one")]
    Used,
    /// The issuer has never issued it, or has forgotten it long after its end.
    #[error("the issuer does not know this token")]
    Unknown,
    /// It belongs to another mesh than the node that was dialled.
    #[error("the token belongs to another mesh than the node at this address")]
    WrongMesh,
    /// It is not a token, or not all of one.
    #[error("this is not a complete join token; copy all of it, beginning with `mielin1`")]
    Malformed,
}

impl JoinToken {
    /// A token with a fresh secret.
    pub(crate) fn generate(
        root: RootCertificate,
        role: Option<NodeRole>,
        expires: SystemTime,
    ) -> Result<Self, getrandom::Error> {
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut secret)?;
        Ok(JoinToken {
            secret,
            expires,
            role,
            root,
        })
    }

    /// The mesh it admits to.
    #[must_use]
    pub fn mesh_id(&self) -> MeshId {
        self.root.mesh_id()
    }

    /// The role it grants; `None` leaves the choice to the joiner.
    #[must_use]
    pub fn role(&self) -> Option<NodeRole> {
        self.role
    }

    /// When it ends, by the issuer's clock.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        self.expires
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(FIXED_BYTES + self.root.der().len() + CHECKSUM_BYTES);
        bytes.extend_from_slice(&self.secret);
        bytes.extend_from_slice(&unix_seconds(self.expires).to_be_bytes());
        bytes.push(role_byte(self.role));
        bytes.extend_from_slice(self.root.der());
        bytes.extend_from_slice(&checksum(&bytes));
        write!(f, "{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("mesh", &self.mesh_id())
            .field("role", &self.role)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let body = text
            .trim()
            .strip_prefix(PREFIX)
            .ok_or(TokenError::Malformed)?;
        if body.len() > 2 * DER_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let bytes = BASE64URL_NOPAD
            .decode(body.as_bytes())
            .map_err(|_| TokenError::Malformed)?;
        let (bytes, sum) = bytes
            .split_last_chunk::<CHECKSUM_BYTES>()
            .ok_or(TokenError::Malformed)?;
        if *sum != checksum(bytes) {
            return Err(TokenError::Malformed);
        }
        let (secret, rest) = bytes
            .split_first_chunk::<SECRET_BYTES>()
            .ok_or(TokenError::Malformed)?;
        let (expires, rest) = rest.split_first_chunk::<8>().ok_or(TokenError::Malformed)?;
        let (role, root) = rest.split_first().ok_or(TokenError::Malformed)?;
        let expires = SystemTime::UNIX_EPOCH
            .checked_add(Duration::from_secs(u64::from_be_bytes(*expires)))
            .ok_or(TokenError::Malformed)?;
        Ok(JoinToken {
            secret: *secret,
            expires,
            role: role_of_byte(*role).ok_or(TokenError::Malformed)?,
            root: RootCertificate::from_der(root.to_vec()).map_err(|_| TokenError::Malformed)?,
        })
    }
}

/// What the issuer keeps of a secret. A plain hash is enough, because the
/// secret is 32 random bytes and not a password.
pub(crate) fn secret_hash(secret: &[u8; SECRET_BYTES]) -> [u8; 32] {
    *blake3::hash(secret).as_bytes()
}

pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

pub(crate) fn role_byte(role: Option<NodeRole>) -> u8 {
    match role {
        None => 0,
        Some(NodeRole::Edge) => 1,
        Some(NodeRole::Relay) => 2,
        Some(NodeRole::Core) => 3,
    }
}

/// The outer `None` is an unknown byte.
#[allow(clippy::option_option)]
pub(crate) fn role_of_byte(byte: u8) -> Option<Option<NodeRole>> {
    match byte {
        0 => Some(None),
        1 => Some(Some(NodeRole::Edge)),
        2 => Some(Some(NodeRole::Relay)),
        3 => Some(Some(NodeRole::Core)),
        _ => None,
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(PREFIX.as_bytes()).update(bytes);
    let [a, b, c, d, ..] = *hasher.finalize().as_bytes();
    [a, b, c, d]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::certificate::make_root;

    #[test]
    fn text_round_trips_and_every_damaged_character_is_noticed() {
        let (_, root) = make_root().unwrap();
        let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000);
        let token = JoinToken::generate(root, Some(NodeRole::Relay), expires).unwrap();
        let text = token.to_string();
        assert_eq!(format!(" {text}\n").parse::<JoinToken>().unwrap(), token);
        assert!(!format!("{token:?}").contains(&text[10..40]));
        for index in 0..text.len() {
            let mut damaged = text.clone().into_bytes();
            damaged[index] = if damaged[index] == b'A' { b'B' } else { b'A' };
            let damaged = String::from_utf8(damaged).unwrap();
            assert_eq!(
                damaged.parse::<JoinToken>(),
                Err(TokenError::Malformed),
                "{index}"
            );
            assert_eq!(
                text[..index].parse::<JoinToken>(),
                Err(TokenError::Malformed)
            );
        }
        for hostile in [
            "",
            "mielin1",
            "mielin2abc",
            "mielin1\u{fe0f}",
            &"mielin1A".repeat(9000),
        ] {
            assert_eq!(hostile.parse::<JoinToken>(), Err(TokenError::Malformed));
        }
    }
}
