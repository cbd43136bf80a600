//! Where things are kept when nobody knows everybody: Kademlia.
//!
//! The protocol is Kademlia (Maymounkov, Mazières, "Kademlia: A Peer-to-peer Information System Based on the
//! XOR Metric", IPTPS 2002) with the disjoint paths of S/Kademlia (Baumgart, Mies, ICPADS 2007) and
//! k = 20, α = 3. [`Dht`] is one node's part of it. It deviates from the papers in these points:
//!
//! - An id is the hash of a key that its node has proved to hold, so ids can be neither chosen nor borrowed,
//!   and no crypto puzzles are needed; admission to the mesh bounds how many somebody gets.
//! - A node enters a bucket only when it has answered, never on hearsay. One that cannot be dialled asks,
//!   but is in no table.
//! - A node that publishes a record answers for it, also when it is not among those that keep it; and those that
//!   replace a record by another node's show it to the former publisher.
//! - Records are kept at the 3 nearest of the nodes that answered, not at all k; who publishes them comes
//!   again every 200 s. A search for a record ends when two nodes agree on the newest; one that
//!   has seen all k brings the nearest three up to date.
//! - Latency breaks ties: of the candidates in one bucket the quicker is asked first.
//!
//! Memory is bounded: 256 buckets of 20 nodes and 20 that wait, 65,536 records, 256 searches.

mod keeping;
mod key;
mod lookup;
mod meeting;
mod publishing;
mod store;
mod table;
mod wire;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::fmt::Debug;
use core::time::Duration;

use oxicode::{Decode, Encode};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use thiserror::Error;

use crate::codec;
use crate::limits::{
    KADEMLIA_K, KADEMLIA_LOOKUPS_MAX, KADEMLIA_REFRESH, KADEMLIA_RPC_ATTEMPTS,
    KADEMLIA_RPC_TIMEOUT, KADEMLIA_SILENT_AFTER, REGISTRY_TTL,
};
use crate::{Instant, NodeId};
pub use key::{Distance, Key};
use lookup::Lookup;
use publishing::Publishing;
use store::Store;
use table::Table;
pub use wire::{Contact, StoreRefusal};
use wire::{Kept, Message, Request, Response};

/// What can be kept under a key.
pub trait Record: Clone + Debug + PartialEq + Encode + Decode {
    /// What a record is about: of two records about the same under one key only the newer is kept.
    type Subject: Clone + Debug + Ord;

    /// What this record is about.
    fn subject(&self) -> Self::Subject;
    /// Whether this record is newer than another about the same.
    fn supersedes(&self, other: &Self) -> bool;
    /// Whether it was made by whoever may make it, and belongs under this key.
    fn is_genuine(&self, key: &Key) -> bool;
    /// Who publishes it, and is told when another node's record supersedes it; `None` if nobody need be.
    fn publisher(&self) -> Option<NodeId>;
    /// Whether it may be dropped for another record when too many lie under its key.
    fn gives_way(&self) -> bool;
}

/// Names a search of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LookupId(u64);

/// Something to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DhtTransmit {
    /// The node it is for, and where it is said to listen.
    pub to: Contact,
    /// The message, about 16 KB at most but for the records in it.
    pub bytes: Vec<u8>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum DhtEvent<R: Record> {
    /// A search has ended.
    Found(Found<R>),
    /// A record of this node is kept at so many nodes (3, or fewer in a mesh that has fewer).
    Published {
        /// The key.
        key: Key,
        /// The record.
        record: R,
        /// Where.
        replicas: Vec<NodeId>,
    },
    /// Somebody keeps a newer record than the one that this node published, which it no longer does.
    Superseded {
        /// The key.
        key: Key,
        /// The newer one.
        by: R,
    },
}

/// What a search has found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found<R> {
    /// Which search.
    pub lookup: LookupId,
    /// The newest genuine records under the key; none for a search for nodes.
    pub records: Vec<R>,
    /// The nearest nodes that answered, nearest first, at most k.
    pub closest: Vec<Contact>,
    /// The requests that led, one by way of the other, to the first record or else to the nearest node; 0
    /// when it was known here.
    pub hops: u32,
    /// The nodes that were asked.
    pub queries: usize,
}

/// A message that is refused, or a search that cannot be made. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DhtError {
    /// The bytes are no message. The peer is at fault.
    #[error("not a message of the table")]
    Malformed,
    /// The message names another sender than the peer it came from. The peer is at fault.
    #[error("a message from {} claims to come from {}", .from.short(), .claimed.short())]
    Spoofed {
        /// The authenticated peer.
        from: NodeId,
        /// Whom it names.
        claimed: NodeId,
    },
    /// An answer to nothing that was asked. The peer is at fault, or slower than the time limit.
    #[error("an answer that nobody waits for")]
    Unasked,
    /// Too many searches run. The caller is to try again later.
    #[error("{KADEMLIA_LOOKUPS_MAX} searches run already")]
    Busy,
}

/// One node's part of the table.
#[derive(Debug)]
pub struct Dht<R: Record> {
    local: NodeId,
    /// What others are told, when they may dial this node.
    advertised: Option<Contact>,
    table: Table,
    store: Store<R>,
    searches: BTreeMap<LookupId, Search<R>>,
    rpcs: BTreeMap<u64, Rpc<R>>,
    deadlines: BTreeSet<(Instant, u64)>,
    publishing: Publishing<R>,
    /// Whose records count for nothing.
    shut_out: BTreeSet<NodeId>,
    upkeep_at: Option<Instant>,
    random: StdRng,
    next_id: u64,
    transmits: VecDeque<DhtTransmit>,
    events: VecDeque<DhtEvent<R>>,
}

#[derive(Debug)]
struct Search<R: Record> {
    lookup: Lookup,
    purpose: Purpose<R>,
    /// Who has given which record about what.
    records: BTreeMap<R::Subject, Answers<R>>,
    /// Hops to the first record.
    hops: Option<u32>,
}

#[derive(Debug)]
struct Answers<R> {
    newest: Kept<R>,
    from: BTreeSet<NodeId>,
}

#[derive(Debug)]
enum Purpose<R: Record> {
    Nodes,
    Values,
    /// The nearest are to keep this record.
    Publish(Key, R::Subject),
    /// This node itself, to fill the tables along the way.
    Join,
    /// Some point of a bucket, likewise.
    Refresh,
}

#[derive(Debug)]
struct Rpc<R: Record> {
    to: Contact,
    bytes: Vec<u8>,
    sent: Instant,
    attempts: u8,
    deadline: Instant,
    reason: Reason<R>,
}

#[derive(Clone, Debug)]
enum Reason<R: Record> {
    Liveness,
    Search(LookupId),
    Publish(Key, R::Subject),
    Repair,
}

impl<R: Record> Dht<R> {
    /// An empty table. `advertised` is where others may dial this node, `None` if they cannot. `seed` feeds
    /// the choice of points to refresh.
    #[must_use]
    pub fn new(local: NodeId, advertised: Option<Contact>, seed: u64) -> Dht<R> {
        let mut random = StdRng::seed_from_u64(seed);
        let next_id = random.random::<u64>() >> 1;
        Dht {
            local,
            advertised,
            table: Table::new(local.into()),
            store: Store::new(),
            searches: BTreeMap::new(),
            rpcs: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            publishing: Publishing::new(),
            shut_out: BTreeSet::new(),
            upkeep_at: None,
            random,
            next_id,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Changes where others may dial this node.
    pub fn advertise(&mut self, advertised: Option<Contact>) {
        self.advertised = advertised;
    }

    /// Forgets a node: it is dead, left, or may not be spoken to any more. What it kept of this node's is brought to
    /// another.
    pub fn remove(&mut self, now: Instant, node: &NodeId) {
        self.table.remove(node);
        self.unreachable(now, node);
        self.publishing.replica_lost(now, node);
        self.publish_due(now);
    }

    /// Forgets a node for good: the records that it publishes count for nothing from now on, and those that are kept
    /// here are dropped.
    pub fn shut_out(&mut self, now: Instant, node: &NodeId) {
        self.shut_out.insert(*node);
        self.store.drop_published_by(node);
        self.remove(now, node);
    }

    /// Whether a record counts under a key. One that this node itself publishes there in its own name needs no proof,
    /// which took a fifth of the processor's time when many agents were spawned.
    fn counts(&self, record: &R, key: &Key) -> bool {
        let publisher = record.publisher();
        let own = || {
            publisher == Some(self.local)
                && self.publishing.record(key, &record.subject()) == Some(record)
        };
        publisher.is_none_or(|node| !self.shut_out.contains(&node))
            && (own() || record.is_genuine(key))
    }

    /// Notes that nothing can be sent to a node at present.
    pub fn unreachable(&mut self, now: Instant, node: &NodeId) {
        let hopeless = |(id, rpc): (&u64, &Rpc<R>)| (rpc.to.id == *node).then_some(*id);
        let hopeless: Vec<u64> = self.rpcs.iter().filter_map(hopeless).collect();
        for id in hopeless {
            self.fail(now, id);
        }
    }

    fn refresh(&mut self, now: Instant, bucket: u8) {
        let target = Key::from(self.local).in_bucket(bucket, self.random.random());
        self.search(now, target, Purpose::Refresh);
    }

    /// Begins to look for the nodes nearest to a point.
    ///
    /// # Errors
    ///
    /// [`DhtError::Busy`].
    pub fn find_node(&mut self, now: Instant, target: Key) -> Result<LookupId, DhtError> {
        self.admit()?;
        Ok(self.search(now, target, Purpose::Nodes))
    }

    /// Begins to look for the records under a key.
    ///
    /// # Errors
    ///
    /// [`DhtError::Busy`].
    pub fn find_value(&mut self, now: Instant, key: Key) -> Result<LookupId, DhtError> {
        self.admit()?;
        Ok(self.search(now, key, Purpose::Values))
    }

    fn admit(&self) -> Result<(), DhtError> {
        if self.searches.len() < KADEMLIA_LOOKUPS_MAX {
            Ok(())
        } else {
            Err(DhtError::Busy)
        }
    }

    /// Has a record kept at the nodes nearest to its key, and brings it there again and again until it is
    /// withdrawn or superseded.
    pub fn publish(&mut self, now: Instant, key: Key, record: R) {
        self.publishing.insert(now, key, record);
        self.publish_due(now);
    }

    /// Changes what is published under a key without haste: others get it when they would have been told of the old
    /// record again. Publishes it if nothing was.
    pub fn revise(&mut self, now: Instant, key: Key, record: R) {
        if !self.publishing.revise(key, &record) {
            self.publish(now, key, record);
        }
    }

    /// What this node publishes about something under a key.
    #[must_use]
    pub fn published_record(&self, key: &Key, subject: &R::Subject) -> Option<&R> {
        self.publishing.record(key, subject)
    }

    /// The nodes that have said that they keep what this node publishes about something; `None` while they are still
    /// being looked for and asked, or when nothing is published.
    #[must_use]
    pub fn replicas(&self, key: &Key, subject: &R::Subject) -> Option<&[NodeId]> {
        self.publishing.replicas(key, subject)
    }

    /// The records that are kept here for the mesh, with their keys.
    pub fn kept(&self) -> impl Iterator<Item = (&Key, &R)> {
        self.store.iter()
    }

    /// Lets a record expire.
    pub fn withdraw(&mut self, key: &Key, subject: &R::Subject) {
        self.publishing.remove(key, subject);
    }

    /// The number of nodes in the table.
    #[must_use]
    pub fn contacts(&self) -> usize {
        self.table.len()
    }

    /// The number of records that are kept for others.
    #[must_use]
    pub fn records(&self) -> usize {
        self.store.len()
    }

    /// The known nodes nearest to a point, nearest first.
    #[must_use]
    pub fn closest(&self, target: &Key, count: usize) -> Vec<Contact> {
        let entries = self.table.closest(target, count, true);
        entries.into_iter().map(|e| e.contact.clone()).collect()
    }

    /// Takes a message from an authenticated peer.
    ///
    /// # Errors
    ///
    /// [`DhtError::Malformed`], [`DhtError::Spoofed`] and [`DhtError::Unasked`].
    pub fn handle_message(
        &mut self,
        now: Instant,
        from: NodeId,
        bytes: &[u8],
    ) -> Result<(), DhtError> {
        let message: Message<R> = codec::decode(bytes).map_err(|_| DhtError::Malformed)?;
        if !message.is_sound() {
            return Err(DhtError::Malformed);
        }
        match message {
            Message::Request { rpc, sender, body } => {
                self.handle_request(now, from, rpc, sender, body)
            }
            Message::Response { rpc, body } => self.handle_response(now, from, rpc, body),
        }
    }

    fn handle_request(
        &mut self,
        now: Instant,
        from: NodeId,
        rpc: u64,
        sender: Option<Contact>,
        request: Request<R>,
    ) -> Result<(), DhtError> {
        if let Some(sender) = &sender
            && sender.id != from
        {
            let claimed = sender.id;
            return Err(DhtError::Spoofed { from, claimed });
        }
        let body = match request {
            Request::Ping => Response::Pong,
            Request::FindNode(target) => Response::Found {
                records: Vec::new(),
                nodes: self.nodes_for(&from, &target),
            },
            Request::FindValue(key) => {
                self.store.expire(now);
                Response::Found {
                    records: self.known(now, &key),
                    nodes: self.nodes_for(&from, &key),
                }
            }
            Request::Store(key, kept) => self.keep(now, key, kept),
        };
        let to = sender.clone().unwrap_or(Contact {
            id: from,
            addresses: Vec::new(),
        });
        let bytes = codec::encode(&Message::Response { rpc, body });
        self.transmits.push_back(DhtTransmit { to, bytes });
        // Who asks is there; where it listens is proved when it answers.
        if let Some(sender) = sender {
            if self.table.entry(&from).is_some() {
                self.note(now, sender, None);
            } else if !self.rpcs.values().any(|rpc| rpc.to.id == from) {
                self.add(now, sender);
            }
        }
        Ok(())
    }

    fn nodes_for(&self, asker: &NodeId, target: &Key) -> Vec<Contact> {
        let entries = self.table.closest(target, KADEMLIA_K + 1, false);
        let others = entries.into_iter().filter(|e| e.contact.id != *asker);
        others.take(KADEMLIA_K).map(|e| e.contact.clone()).collect()
    }

    fn handle_response(
        &mut self,
        now: Instant,
        from: NodeId,
        id: u64,
        body: Response<R>,
    ) -> Result<(), DhtError> {
        match self.rpcs.get(&id) {
            Some(rpc) if rpc.to.id == from => {}
            _ => return Err(DhtError::Unasked),
        }
        let Some(rpc) = self.finish(id) else {
            return Err(DhtError::Unasked);
        };
        // A repeated request may have been answered the first time: its round trip is not known.
        let rtt = (rpc.attempts == 1).then(|| now.since(rpc.sent));
        self.note(now, rpc.to, rtt);
        match (rpc.reason, body) {
            (Reason::Search(search), Response::Found { records, nodes }) => {
                self.take_answer(&search, from, records, nodes);
                self.drive(now, search);
            }
            (Reason::Search(search), _) => {
                if let Some(search) = self.searches.get_mut(&search) {
                    search.lookup.failed(&from);
                }
                self.drive(now, search);
            }
            (Reason::Publish(key, subject), body) => {
                self.published(now, key, &subject, from, body);
            }
            (Reason::Liveness | Reason::Repair, _) => {}
        }
        Ok(())
    }

    /// Notes a sign of life.
    fn note(&mut self, now: Instant, contact: Contact, rtt: Option<Duration>) {
        self.upkeep_at.get_or_insert(now + KADEMLIA_SILENT_AFTER);
        let id = contact.id;
        let is_new = self.table.entry(&id).is_none();
        if let Some(oldest) = self.table.seen(now, contact, rtt) {
            self.request(now, oldest, Request::Ping, Reason::Liveness);
        }
        if is_new && self.table.entry(&id).is_some() {
            self.publishing.node_came(now, &id);
            self.publish_due(now);
        }
    }

    fn request(&mut self, now: Instant, to: Contact, body: Request<R>, reason: Reason<R>) {
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        let bytes = codec::encode(&Message::Request {
            rpc: id,
            sender: self.advertised.clone(),
            body,
        });
        let deadline = now + KADEMLIA_RPC_TIMEOUT;
        self.deadlines.insert((deadline, id));
        self.transmits.push_back(DhtTransmit {
            to: to.clone(),
            bytes: bytes.clone(),
        });
        let rpc = Rpc {
            to,
            bytes,
            sent: now,
            attempts: 1,
            deadline,
            reason,
        };
        self.rpcs.insert(id, rpc);
    }

    fn finish(&mut self, id: u64) -> Option<Rpc<R>> {
        let rpc = self.rpcs.remove(&id)?;
        self.deadlines.remove(&(rpc.deadline, id));
        Some(rpc)
    }

    /// A request is given up.
    fn fail(&mut self, now: Instant, id: u64) {
        let Some(rpc) = self.finish(id) else { return };
        self.table.failed(&rpc.to.id);
        match rpc.reason {
            Reason::Search(search) => {
                if let Some(search) = self.searches.get_mut(&search) {
                    search.lookup.failed(&rpc.to.id);
                }
                self.drive(now, search);
            }
            Reason::Publish(key, subject) => self.not_published(now, key, &subject),
            Reason::Liveness | Reason::Repair => {}
        }
    }

    fn search(&mut self, now: Instant, target: Key, purpose: Purpose<R>) -> LookupId {
        self.search_from(now, target, purpose, None)
    }

    fn search_from(
        &mut self,
        now: Instant,
        target: Key,
        purpose: Purpose<R>,
        told: Option<Contact>,
    ) -> LookupId {
        let id = LookupId(self.next_id);
        self.next_id = self.next_id.wrapping_add(1);
        self.table.looked_for(now, &target);
        let known = self.table.closest(&target, KADEMLIA_K, true);
        let known = known.into_iter().map(|e| (e.contact.clone(), e.rtt));
        let known = known.chain(told.map(|contact| (contact, None)));
        let mut search = Search {
            lookup: Lookup::new(target, known),
            purpose,
            records: BTreeMap::new(),
            hops: None,
        };
        if matches!(search.purpose, Purpose::Values) {
            self.store.expire(now);
            for kept in self.known(now, &target) {
                search.records_from(self.local, kept);
                search.hops = Some(0);
            }
        }
        self.searches.insert(id, search);
        self.drive(now, id);
        id
    }

    /// Takes what a node knows. What does not count is left out.
    fn take_answer(
        &mut self,
        search: &LookupId,
        from: NodeId,
        mut records: Vec<Kept<R>>,
        nodes: Vec<Contact>,
    ) {
        let Some(target) = self.searches.get(search).map(|s| s.lookup.target()) else {
            return;
        };
        records.retain(|kept| self.counts(&kept.record, &target));
        let Some(search) = self.searches.get_mut(search) else {
            return;
        };
        let known = nodes.into_iter().filter(|contact| contact.id != self.local);
        let known = known.map(|contact| {
            let rtt = self.table.entry(&contact.id).and_then(|entry| entry.rtt);
            (contact, rtt)
        });
        if !search.lookup.answered(&from, known.collect()) {
            return;
        }
        if !matches!(search.purpose, Purpose::Values) {
            return;
        }
        for mut kept in records {
            kept.ttl_s = kept.ttl_s.min(REGISTRY_TTL.as_secs() as u32);
            search.records_from(from, kept);
            if search.hops.is_none() {
                let hops = search.lookup.closest().find(|(c, _)| c.id == from);
                search.hops = hops.map(|(_, hops)| hops);
            }
        }
    }

    /// Asks the next nodes of a search, or ends it.
    fn drive(&mut self, now: Instant, id: LookupId) {
        let Some(search) = self.searches.get_mut(&id) else {
            return;
        };
        let agreed = search.agreed();
        if !agreed {
            let target = search.lookup.target();
            let mut asked = Vec::new();
            while let Some(contact) = search.lookup.next(now) {
                asked.push(contact);
            }
            let values = matches!(search.purpose, Purpose::Values);
            for contact in asked {
                let request = match values {
                    true => Request::FindValue(target),
                    false => Request::FindNode(target),
                };
                self.request(now, contact, request, Reason::Search(id));
            }
        }
        let done = |search: &Search<R>| agreed || search.lookup.is_done();
        if self.searches.get(&id).is_some_and(done)
            && let Some(search) = self.searches.remove(&id)
        {
            self.end(now, id, search, agreed);
        }
    }

    fn end(&mut self, now: Instant, id: LookupId, search: Search<R>, agreed: bool) {
        let closest: Vec<Contact> = search
            .lookup
            .closest()
            .take(KADEMLIA_K)
            .map(|(contact, _)| contact.clone())
            .collect();
        match search.purpose {
            Purpose::Refresh => {}
            Purpose::Join => {
                for bucket in self.table.beyond_nearest() {
                    self.refresh(now, bucket);
                }
            }
            Purpose::Publish(key, subject) => self.publish_at(now, key, &subject, closest),
            Purpose::Nodes | Purpose::Values => {
                if !agreed {
                    self.repair(now, &search, &closest);
                }
                let nearest = search.lookup.closest().next().map(|(_, hops)| hops);
                self.events.push_back(DhtEvent::Found(Found {
                    lookup: id,
                    closest,
                    hops: search.hops.or(nearest).unwrap_or(0),
                    queries: search.lookup.queries(),
                    records: search
                        .records
                        .into_values()
                        .map(|a| a.newest.record)
                        .collect(),
                }));
            }
        }
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.store.expire(now);
        while let Some((at, id)) = self.deadlines.first().copied() {
            if at > now {
                break;
            }
            self.repeat(now, id);
        }
        // A slow request no longer holds its search up.
        let searches: Vec<LookupId> = self.searches.keys().copied().collect();
        for id in searches {
            self.drive(now, id);
        }
        if self.upkeep_at.is_some_and(|at| at <= now) {
            self.upkeep_at = (self.table.len() > 0).then(|| now + KADEMLIA_SILENT_AFTER);
            for contact in self.table.silent(now, KADEMLIA_SILENT_AFTER) {
                self.request(now, contact, Request::Ping, Reason::Liveness);
            }
            for bucket in self.table.unrefreshed(now, KADEMLIA_REFRESH) {
                self.refresh(now, bucket);
            }
        }
        self.publish_due(now);
    }

    /// Sends a request once more, or gives it up.
    fn repeat(&mut self, now: Instant, id: u64) {
        let Some(rpc) = self.rpcs.get_mut(&id) else {
            self.deadlines.pop_first();
            return;
        };
        if rpc.attempts >= KADEMLIA_RPC_ATTEMPTS {
            self.fail(now, id);
            return;
        }
        rpc.attempts += 1;
        self.deadlines.remove(&(rpc.deadline, id));
        rpc.deadline = now + KADEMLIA_RPC_TIMEOUT;
        self.deadlines.insert((rpc.deadline, id));
        self.transmits.push_back(DhtTransmit {
            to: rpc.to.clone(),
            bytes: rpc.bytes.clone(),
        });
    }

    /// When to call [`Dht::handle_timeout`]; ask again after every other call.
    #[must_use]
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        let slow = self
            .searches
            .values()
            .filter_map(|s| s.lookup.timeout(now))
            .min();
        [
            deadline,
            slow,
            self.upkeep_at,
            self.store.timeout(),
            self.publishing.timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The next message to send; ask after every call until there is none. Tell [`Dht::unreachable`] when it
    /// cannot be sent.
    pub fn poll_transmit(&mut self) -> Option<DhtTransmit> {
        self.transmits.pop_front()
    }

    /// The next event; ask after every call until there is none.
    pub fn poll_event(&mut self) -> Option<DhtEvent<R>> {
        self.events.pop_front()
    }
}

impl<R: Record> Search<R> {
    fn records_from(&mut self, from: NodeId, kept: Kept<R>) {
        let answers = self
            .records
            .entry(kept.record.subject())
            .or_insert_with(|| Answers {
                newest: kept.clone(),
                from: BTreeSet::new(),
            });
        if kept.record.supersedes(&answers.newest.record) {
            answers.newest = kept;
            answers.from.clear();
        } else if kept.record != answers.newest.record {
            return;
        } else {
            answers.newest.ttl_s = answers.newest.ttl_s.max(kept.ttl_s);
        }
        answers.from.insert(from);
    }

    /// Whether two nodes agree on the newest record about everything that was found.
    fn agreed(&self) -> bool {
        !self.records.is_empty() && self.records.values().all(|answers| answers.from.len() >= 2)
    }
}

#[cfg(test)]
mod tests;
