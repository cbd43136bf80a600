//! Signatures of nodes under what they publish.

use std::sync::Arc;

use mielin_mesh_core::registry::Verify;
use mielin_mesh_core::{LocationRecord, SignedLocation};
use rcgen::PublicKeyData;
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
    /// The public half of the key, whose hash is the node's id.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        let key = self.0.pair().der_bytes();
        key.try_into().expect("an Ed25519 key has 32 bytes")
    }

    /// Signs a message, which should say what it is for.
    ///
    /// # Errors
    /// [`IdentityError::Sign`] when the signature code fails.
    pub fn sign(&self, message: &[u8]) -> Result<[u8; 64], IdentityError> {
        self.0.sign(message)
    }

    /// Signs a location record, which should name this node as the holder: others refuse it otherwise.
    ///
    /// # Errors
    /// [`IdentityError::Sign`] when the signature code fails.
    pub fn sign_location(
        &self,
        record: LocationRecord,
    ) -> Result<SignedLocation<Ed25519>, IdentityError> {
        SignedLocation::sign(record, self.public_key(), |message| self.sign(message))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mielin_mesh_core::kademlia::{Contact, DhtEvent, DhtTransmit, Key, Record};
    use mielin_mesh_core::{AgentId, AgentState, Dht, Epoch, Instant, Name, NodeId, codec};

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

    type Table = Dht<SignedLocation<Ed25519>>;

    /// Nodes of a table, and a network that loses nothing.
    struct Tables(BTreeMap<NodeId, Table>);

    impl Tables {
        fn of(keys: &[Arc<NodeKey>]) -> Tables {
            let contact = |key: &NodeKey| Contact {
                id: key.id(),
                addresses: vec![([127, 0, 0, 1], 1).into()],
            };
            let nodes = keys.iter().map(|key| {
                let mut table = Dht::new(key.id(), Some(contact(key)), 1);
                table.join(Instant::START, contact(&keys[0]));
                (key.id(), table)
            });
            let mut tables = Tables(nodes.collect());
            tables.carry();
            tables
        }

        fn carry(&mut self) {
            loop {
                let sent = self.0.iter_mut().filter_map(|(from, table)| {
                    let sent = table.poll_transmit()?;
                    Some((*from, sent))
                });
                let sent: Vec<_> = sent.collect();
                if sent.is_empty() {
                    return;
                }
                for (from, DhtTransmit { to, bytes }) in sent {
                    let table = self.0.get_mut(&to.id).unwrap();
                    table.handle_message(Instant::START, from, &bytes).unwrap();
                }
            }
        }

        /// Has a node publish a record; what it is told.
        fn publish(
            &mut self,
            node: &NodeKey,
            record: &SignedLocation<Ed25519>,
        ) -> Vec<DhtEvent<SignedLocation<Ed25519>>> {
            let table = self.0.get_mut(&node.id()).unwrap();
            let key = Key::of_agent(&record.record().agent);
            table.publish(Instant::START, key, record.clone());
            self.carry();
            let table = self.0.get_mut(&node.id()).unwrap();
            std::iter::from_fn(|| table.poll_event()).collect()
        }

        fn look_up(&mut self, node: &NodeKey, agent: &AgentId) -> Vec<LocationRecord> {
            let table = self.0.get_mut(&node.id()).unwrap();
            let lookup = table.find_value(Instant::START, Key::of_agent(agent));
            self.carry();
            let table = self.0.get_mut(&node.id()).unwrap();
            let mut events = std::iter::from_fn(|| table.poll_event());
            let found = events.find_map(|event| match event {
                DhtEvent::Found(found) if Ok(found.lookup) == lookup => Some(found.records),
                _ => None,
            });
            let found = found.expect("the search has ended");
            found.iter().map(|signed| signed.record().clone()).collect()
        }
    }

    #[test]
    fn replayed_and_forged_records_change_nothing() {
        let keys: Vec<_> = (0..6)
            .map(|_| Arc::new(NodeKey::generate().unwrap()))
            .collect();
        let [holder, attacker, asker] = [1, 2, 3].map(|index: usize| &keys[index]);
        let mut tables = Tables::of(&keys);
        let newest = record(holder);
        let agent = newest.agent;
        let signer = Signer(holder.clone());
        let old = LocationRecord {
            epoch: Epoch(3),
            ..newest.clone()
        };
        let old = signer.sign_location(old).unwrap();
        tables.publish(holder, &old);
        let current = signer.sign_location(newest.clone()).unwrap();
        tables.publish(holder, &current);
        assert_eq!(tables.look_up(asker, &agent), std::slice::from_ref(&newest));

        // What the holder once said, said again.
        let told = tables.publish(attacker, &old);
        let superseded = |event: &DhtEvent<_>| matches!(event, DhtEvent::Superseded { by, .. } if *by == current);
        assert!(told.iter().any(superseded), "{told:?}");
        assert_eq!(tables.look_up(asker, &agent), std::slice::from_ref(&newest));

        // In the holder's name, with a higher epoch.
        let forged = LocationRecord {
            epoch: Epoch(9),
            ..newest.clone()
        };
        let forged = Signer(attacker.clone()).sign_location(forged).unwrap();
        let told = tables.publish(attacker, &forged);
        let kept = |event: &DhtEvent<_>| matches!(event, DhtEvent::Published { replicas, .. } if !replicas.is_empty());
        assert!(!told.iter().any(kept), "{told:?}");
        assert_eq!(tables.look_up(asker, &agent), [newest]);
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
