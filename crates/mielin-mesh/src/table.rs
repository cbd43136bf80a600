//! This node's part of the table in which the locations of agents are kept.
//!
//! Every record of an agent that this node holds is signed and published under the agent's id and under its
//! name, by which any member can look for it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mielin_mesh_core::kademlia::{
    Contact, DhtError, DhtEvent, DhtTransmit, Found, Key, LookupId, Record,
};
use mielin_mesh_core::{
    AgentId, AgentRegistry, AgentState, Dht, Instant, LocationRecord, Member, NodeId,
    SignedLocation,
};
use mielin_mesh_wire::{Ed25519, Signer};
use tokio::sync::{Notify, oneshot};
use tokio::time::sleep;

use crate::error::MeshError;
use crate::event::LocalNode;
use crate::state::Shared;

/// Between two looks whether this node is in the table: two requests, both unanswered.
const JOIN_PAUSE: Duration = Duration::from_secs(5);

type Signed = SignedLocation<Ed25519>;

/// What a search in the table has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentLookup {
    /// The newest records under the key that their holders have signed: one for each agent, removed ones left
    /// out.
    pub records: Vec<LocationRecord>,
    /// The nodes nearest to the key that answered, nearest first; the first three keep the records. This
    /// node is not among them.
    pub closest: Vec<NodeId>,
    /// Requests that led, one by way of the other, to the first record or else to the nearest node; 0 when
    /// this node keeps the records itself.
    pub hops: u32,
    /// Nodes that were asked.
    pub queries: usize,
}

/// The core of the table with what it needs of this node.
pub(crate) struct Table {
    dht: Dht<Signed>,
    signer: Signer,
    lookups: HashMap<LookupId, oneshot::Sender<Found<Signed>>>,
    /// Wakes those who wait until a record is kept.
    published: Arc<Notify>,
}

impl Table {
    pub(crate) fn new(local: &LocalNode, signer: Signer, seed: u64) -> Table {
        let contact = Contact {
            id: local.id,
            addresses: vec![local.address],
        };
        Table {
            dht: Dht::new(local.id, Some(contact), seed),
            signer,
            lookups: HashMap::new(),
            published: Arc::default(),
        }
    }

    /// Follows membership: those that are there are heard of, and those that went are forgotten.
    pub(crate) fn member_changed(&mut self, now: Instant, member: &Member) {
        let contact = Contact {
            id: member.identity.id,
            addresses: vec![member.identity.address],
        };
        if member.state.is_active() {
            self.dht.heard_of(now, contact);
        } else {
            self.dht.remove(now, &member.identity.id);
        }
    }

    /// Asks a member in when nobody is known: the way in may have been lost.
    fn join_again<'a>(&mut self, now: Instant, mut members: impl Iterator<Item = &'a Member>) {
        if self.dht.contacts() == 0
            && let Some(member) = members.find(|member| member.state.is_active())
        {
            self.member_changed(now, member);
        }
    }

    /// Publishes what this node says about an agent that it holds. That it now runs or waits is not worth a search:
    /// others hear of it when the record is published again, or from this node.
    pub(crate) fn publish(&mut self, now: Instant, record: &LocationRecord) {
        let signed = match self.signer.sign_location(record.clone()) {
            Ok(signed) => signed,
            Err(error) => {
                tracing::error!(%error, "a location was not published");
                return;
            }
        };
        for key in keys(record) {
            let before = self.dht.published_record(&key, &record.agent);
            if before.is_some_and(|before| differ_little(before.record(), record)) {
                self.dht.revise(now, key, signed.clone());
            } else {
                self.dht.publish(now, key, signed.clone());
            }
        }
    }

    /// Lets what this node said about an agent expire.
    pub(crate) fn withdraw(&mut self, record: &LocationRecord) {
        for key in keys(record) {
            self.dht.withdraw(&key, &record.agent);
        }
    }

    /// Tells others from now on that this node listens there.
    pub(crate) fn advertise(&mut self, local: NodeId, address: SocketAddr) {
        self.dht.advertise(Some(Contact {
            id: local,
            addresses: vec![address],
        }));
    }

    /// See [`Dht::shut_out`].
    pub(crate) fn shut_out(&mut self, now: Instant, node: &NodeId) {
        self.dht.shut_out(now, node);
    }

    /// The records that are kept here for the mesh, with their keys.
    pub(crate) fn kept(&self) -> impl Iterator<Item = (&Key, &Signed)> {
        self.dht.kept()
    }

    /// Nodes in the table.
    pub(crate) fn contacts(&self) -> usize {
        self.dht.contacts()
    }

    /// Records that are kept here for the mesh.
    pub(crate) fn records(&self) -> usize {
        self.dht.records()
    }

    /// A peer cannot be reached.
    pub(crate) fn unreachable(&mut self, now: Instant, node: &NodeId) {
        self.dht.unreachable(now, node);
    }

    pub(crate) fn handle_message(
        &mut self,
        now: Instant,
        from: NodeId,
        bytes: &[u8],
    ) -> Result<(), DhtError> {
        self.dht.handle_message(now, from, bytes)
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.dht.handle_timeout(now);
    }

    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        self.dht.poll_timeout(now)
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<DhtTransmit> {
        self.dht.poll_transmit()
    }

    /// Tells those who wait what was found, and the registry what supersedes its own records.
    pub(crate) fn settle(&mut self, now: Instant, registry: &mut AgentRegistry) {
        while let Some(event) = self.dht.poll_event() {
            match event {
                DhtEvent::Found(found) => {
                    if let Some(waiting) = self.lookups.remove(&found.lookup) {
                        // Nobody waits any more when this fails.
                        let _ = waiting.send(found);
                    }
                }
                DhtEvent::Superseded { by, .. } => {
                    registry.learn(now, by.record().clone());
                }
                DhtEvent::Published {
                    record, replicas, ..
                } => {
                    let agent = record.subject();
                    tracing::trace!(?agent, replicas = replicas.len(), "published");
                    self.published.notify_waiters();
                }
            }
        }
    }
}

/// Gets into the table, and in again, for as long as there are members and nobody is known.
pub(crate) async fn keep_in(shared: Arc<Shared>) {
    loop {
        sleep(JOIN_PAUSE).await;
        let local = shared.local.id;
        shared.with_cores(|cores, now| {
            let mut members = cores.membership.members();
            members.retain(|member| member.identity.id != local);
            // Not always the same: one may know nobody either.
            let count = members.len().max(1);
            members.rotate_left(now.since_start().as_secs() as usize % count);
            cores.table.join_again(now, members.iter());
        });
    }
}

/// Where a record is kept.
fn keys(record: &LocationRecord) -> [Key; 2] {
    [Key::of_agent(&record.agent), Key::of_name(&record.name)]
}

/// Whether an agent has only gone on from running to waiting or back.
fn differ_little(before: &LocationRecord, after: &LocationRecord) -> bool {
    let usual =
        |record: &LocationRecord| matches!(record.state, AgentState::Running | AgentState::Waiting);
    before.epoch == after.epoch && usual(before) && usual(after)
}

/// Completes when what this node says about an agent is kept by others, under both keys.
pub(crate) async fn published(shared: &Arc<Shared>, agent: &AgentId) {
    let waker = Arc::clone(&shared.cores().table.published);
    loop {
        let woken = waker.notified();
        let mut woken = std::pin::pin!(woken);
        woken.as_mut().enable();
        {
            let cores = shared.cores();
            let Some(own) = cores.registry.locate(agent) else {
                return;
            };
            let mut keys = keys(&own.record).into_iter();
            if keys.all(|key| cores.table.dht.replicas(&key, agent).is_some()) {
                return;
            }
        }
        woken.await;
    }
}

/// Searches the table. What is found is remembered.
pub(crate) async fn look_up(shared: &Arc<Shared>, key: Key) -> Result<AgentLookup, MeshError> {
    if !shared.config.enable_registry {
        return Err(MeshError::RegistryOff);
    }
    let (waiting, found) = oneshot::channel();
    shared
        .with_cores(|cores, now| {
            let lookup = cores.table.dht.find_value(now, key)?;
            cores.table.lookups.insert(lookup, waiting);
            Ok::<_, DhtError>(())
        })
        .map_err(|_| MeshError::Busy)?;
    let mut closing = shared.closing.subscribe();
    let found = tokio::select! {
        found = found => found.map_err(|_| MeshError::ShutDown)?,
        _ = closing.wait_for(|closing| *closing) => return Err(MeshError::ShutDown),
    };
    let records = found.records.iter().map(|signed| signed.record().clone());
    shared.with_cores(|cores, now| {
        for record in records.clone() {
            cores.registry.learn(now, record);
        }
        match found.records.is_empty() {
            true => cores.counts.lookups_empty += 1,
            false => cores.counts.lookups_found += 1,
        }
        cores.counts.lookup_queries += found.queries as u64;
    });
    let records: Vec<LocationRecord> = records
        .filter(|record| record.state != AgentState::Removed)
        .collect();
    Ok(AgentLookup {
        records,
        closest: found.closest.iter().map(|contact| contact.id).collect(),
        hops: found.hops,
        queries: found.queries,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use mielin_mesh_core::{Identity, MemberState, Name, NodeRole};
    use mielin_mesh_wire::create_mesh;

    use super::*;

    fn member(number: u8, state: MemberState) -> Member {
        Member {
            identity: Identity {
                id: NodeId([number; 32]),
                name: Name::new("member").unwrap(),
                role: NodeRole::Edge,
                address: ([127, 0, 0, 1], 9000).into(),
                generation: 1,
                departed: None,
                revision: 0,
                relays: Vec::new(),
            },
            state,
            since: Instant::START,
        }
    }

    #[test]
    fn whoever_knows_nobody_asks_a_member_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let credentials = create_mesh(dir.path(), "local", NodeRole::Core).unwrap();
        let local = LocalNode {
            id: credentials.id(),
            name: "local".into(),
            role: NodeRole::Core,
            address: ([127, 0, 0, 1], 1).into(),
        };
        let mut table = Table::new(&local, credentials.signer(), 1);
        let (dead, alive) = (member(1, MemberState::Dead), member(2, MemberState::Alive));
        table.join_again(Instant::START, [&dead].into_iter());
        assert_eq!(table.poll_transmit(), None);
        table.join_again(Instant::START, [&dead, &alive].into_iter());
        assert_eq!(table.poll_transmit().unwrap().to.id, alive.identity.id);
    }
}
