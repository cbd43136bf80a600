//! Signatures of nodes under what they publish.

use std::sync::Arc;

use mielin_mesh_core::registry::Verify;
use mielin_mesh_core::{LocationRecord, SignedLocation};
use rcgen::{PublicKeyData, SigningKey};
use ring::signature::{ED25519, UnparsedPublicKey};

use crate::identity::{IdentityError, NodeKey};

/// Checks signatures with `ring`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ed25519 {}

impl Verify for Ed25519 {
    fn verify(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
        UnparsedPublicKey::new(&ED25519, key)
            .verify(message, signature)
            .is_ok()
    }
}

/// Signs in a node's name; clones share its key.
#[derive(Clone, Debug)]
pub struct Signer(pub(crate) Arc<NodeKey>);

impl Signer {
    /// Signs a location record, which should name this node as the holder: others refuse it otherwise.
    ///
    /// # Errors
    /// [`IdentityError::Sign`] when the signature code fails.
    pub fn sign_location(
        &self,
        record: LocationRecord,
    ) -> Result<SignedLocation<Ed25519>, IdentityError> {
        let pair = self.0.pair();
        let key = pair.der_bytes().try_into();
        let key = key.map_err(|_| IdentityError::Sign)?;
        SignedLocation::sign(record, key, |message| {
            let signature = pair.sign(message).map_err(|_| IdentityError::Sign)?;
            signature.try_into().map_err(|_| IdentityError::Sign)
        })
    }
}

#[cfg(test)]
mod tests {
    use mielin_mesh_core::kademlia::{Key, Record};
    use mielin_mesh_core::{AgentId, AgentState, Epoch, Name, codec};

    use super::*;

    fn record(key: &NodeKey) -> LocationRecord {
        LocationRecord {
            agent: AgentId([3; 16]),
            name: Name::new("worker").unwrap(),
            module: [7; 32],
            owner: key.id(),
            started_ms: 0,
            node: key.id(),
            epoch: Epoch(4),
            revision: 9,
            state: AgentState::Running,
        }
    }

    #[test]
    fn only_the_holders_own_words_are_genuine() {
        let [holder, other] = [(); 2].map(|()| Arc::new(NodeKey::generate().unwrap()));
        let said = record(&holder);
        let (agent, name) = (Key::of_agent(&said.agent), Key::of_name(&said.name));
        let signed = Signer(holder.clone()).sign_location(said.clone()).unwrap();
        assert!(signed.is_genuine(&agent) && signed.is_genuine(&name));
        let elsewhere = Key::of_agent(&AgentId([4; 16]));
        assert!(!signed.is_genuine(&elsewhere), "it belongs under its keys");

        let forged = Signer(other).sign_location(said).unwrap();
        assert!(!forged.is_genuine(&agent), "another node signed it");
    }

    #[test]
    fn no_bit_of_a_signed_record_can_be_changed() {
        let holder = Arc::new(NodeKey::generate().unwrap());
        let said = record(&holder);
        let agent = Key::of_agent(&said.agent);
        let bytes = codec::encode(&Signer(holder).sign_location(said).unwrap());
        for at in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[at / 8] ^= 1 << (at % 8);
            if let Ok(read) = codec::decode::<SignedLocation<Ed25519>>(&changed) {
                assert!(!read.is_genuine(&agent), "bit {at}");
            }
        }
    }
}
