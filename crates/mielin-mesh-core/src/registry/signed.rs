//! Location records that prove who made them, as they are kept in the table.

use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;

use oxicode::de::Decoder;
use oxicode::enc::Encoder;
use oxicode::{Decode, Encode};

use super::LocationRecord;
use crate::kademlia::{Key, Record};
use crate::{AgentId, NodeId, codec};

/// What a signature is made for, so that none of another kind passes for it.
const PURPOSE: &[u8] = b"mielin 2026 location record\0";

/// Checks Ed25519 signatures (RFC 8032). It is a parameter so that this crate brings no cryptography.
pub trait Verify {
    /// Whether `signature` is that of `message` under the public key.
    fn verify(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool;
}

/// A location record with the signature of the node that holds the agent.
///
/// The signature shows that this node said so, which no other can in its name. It does not show that the node
/// holds the agent: whoever is a member is trusted that far.
pub struct SignedLocation<V> {
    record: LocationRecord,
    key: [u8; 32],
    signature: [u8; 64],
    verifier: PhantomData<fn() -> V>,
}

impl<V> SignedLocation<V> {
    /// Signs a record. `key` is the public half of what `sign` signs with.
    ///
    /// # Errors
    ///
    /// Those of `sign`.
    pub fn sign<E>(
        record: LocationRecord,
        key: [u8; 32],
        sign: impl FnOnce(&[u8]) -> Result<[u8; 64], E>,
    ) -> Result<SignedLocation<V>, E> {
        let signature = sign(&message(&record))?;
        Ok(SignedLocation {
            record,
            key,
            signature,
            verifier: PhantomData,
        })
    }

    /// What the node said.
    #[must_use]
    pub fn record(&self) -> &LocationRecord {
        &self.record
    }

    fn names_its_signer(&self) -> bool {
        NodeId::of_ed25519_key(&self.key) == self.record.node
    }
}

fn message(record: &LocationRecord) -> Vec<u8> {
    let mut message = PURPOSE.to_vec();
    message.extend(codec::encode(record));
    message
}

impl<V: Verify> Record for SignedLocation<V> {
    type Subject = AgentId;

    fn subject(&self) -> AgentId {
        self.record.agent
    }

    fn supersedes(&self, other: &Self) -> bool {
        self.record.rank() > other.record.rank()
    }

    /// An agent that has ended is looked for less than one that lives.
    fn gives_way(&self) -> bool {
        self.record.state.is_final()
    }

    fn publisher(&self) -> Option<NodeId> {
        Some(self.record.node)
    }

    fn is_genuine(&self, key: &Key) -> bool {
        let belongs =
            *key == Key::of_agent(&self.record.agent) || *key == Key::of_name(&self.record.name);
        belongs
            && self.names_its_signer()
            && V::verify(&self.key, &message(&self.record), &self.signature)
    }
}

impl<V> Clone for SignedLocation<V> {
    fn clone(&self) -> Self {
        SignedLocation {
            record: self.record.clone(),
            key: self.key,
            signature: self.signature,
            verifier: PhantomData,
        }
    }
}

impl<V> PartialEq for SignedLocation<V> {
    fn eq(&self, other: &Self) -> bool {
        (&self.record, &self.key, &self.signature) == (&other.record, &other.key, &other.signature)
    }
}

impl<V> fmt::Debug for SignedLocation<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SignedLocation").field(&self.record).finish()
    }
}

impl<V> Encode for SignedLocation<V> {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), oxicode::Error> {
        self.record.encode(encoder)?;
        self.key.encode(encoder)?;
        self.signature.encode(encoder)
    }
}

impl<V> Decode for SignedLocation<V> {
    fn decode<D: Decoder<Context = ()>>(decoder: &mut D) -> Result<Self, oxicode::Error> {
        Ok(SignedLocation {
            record: Decode::decode(decoder)?,
            key: Decode::decode(decoder)?,
            signature: Decode::decode(decoder)?,
            verifier: PhantomData,
        })
    }
}
