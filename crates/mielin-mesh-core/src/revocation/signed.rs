//! What the root says about a node, and its signature.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use oxicode::de::Decoder;
use oxicode::enc::Encoder;
use oxicode::{Decode, Encode};
use thiserror::Error;

use crate::limits::REVOCATION_REASON_BYTES_MAX;
use crate::registry::Verify;
use crate::{NodeId, codec};

/// What a signature is made for, so that none of another kind passes for it.
const PURPOSE: &[u8] = b"mielin 2026 revocation\0";

/// Why a node was revoked, for people: one line, at most [`REVOCATION_REASON_BYTES_MAX`] bytes, possibly empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reason(String);

/// Not a reason. The caller, or the peer, is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReasonError {
    /// It is too long.
    #[error("a reason has at most {REVOCATION_REASON_BYTES_MAX} bytes")]
    TooLong,
    /// It would not stay on its line.
    #[error("a reason has no control characters")]
    Control,
}

impl Reason {
    /// Checks a reason.
    ///
    /// # Errors
    ///
    /// [`ReasonError`].
    pub fn new(text: &str) -> Result<Reason, ReasonError> {
        if text.len() > REVOCATION_REASON_BYTES_MAX {
            return Err(ReasonError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(ReasonError::Control);
        }
        Ok(Reason(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Encode for Reason {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), oxicode::Error> {
        self.0.encode(encoder)
    }
}

impl Decode for Reason {
    fn decode<D: Decoder<Context = ()>>(decoder: &mut D) -> Result<Self, oxicode::Error> {
        let text = String::decode(decoder)?;
        Reason::new(&text).map_err(|_| oxicode::Error::Custom {
            message: "not a reason",
        })
    }
}

/// What the root says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Revocation {
    /// The node whose certificates, all of them, are worth nothing any more.
    pub node: NodeId,
    /// When, in milliseconds since 1970 by the root holder's clock. It is for people: a revocation holds at once.
    pub revoked_ms: u64,
    /// Why.
    pub reason: Reason,
}

/// A revocation with the signature of the mesh's root.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SignedRevocation {
    revocation: Revocation,
    signature: [u8; 64],
}

impl SignedRevocation {
    /// Signs a revocation with the root's key.
    ///
    /// # Errors
    ///
    /// Those of `sign`.
    pub fn sign<E>(
        revocation: Revocation,
        sign: impl FnOnce(&[u8]) -> Result<[u8; 64], E>,
    ) -> Result<SignedRevocation, E> {
        let signature = sign(&message(&revocation))?;
        Ok(SignedRevocation {
            revocation,
            signature,
        })
    }

    /// What the root, if it was the root, says.
    #[must_use]
    pub fn revocation(&self) -> &Revocation {
        &self.revocation
    }

    /// Whether the root with this Ed25519 key has signed it.
    #[must_use]
    pub fn is_genuine<V: Verify>(&self, root_key: &[u8; 32]) -> bool {
        V::verify(root_key, &message(&self.revocation), &self.signature)
    }
}

fn message(revocation: &Revocation) -> Vec<u8> {
    let mut message = PURPOSE.to_vec();
    message.extend(codec::encode(revocation));
    message
}
