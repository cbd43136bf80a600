//! The records that a node wants kept by others, and when it brings them there again.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::key::Key;
use super::wire::{Contact, Kept, Request, Response};
use super::{Dht, DhtEvent, Purpose, Reason, Record};
use crate::limits::{KADEMLIA_PUBLISHING_MAX, KADEMLIA_REPLICAS, REGISTRY_REFRESH, REGISTRY_TTL};
use crate::{Instant, NodeId};

#[derive(Debug)]
pub(super) struct Publishing<R: Record> {
    own: BTreeMap<(Key, R::Subject), Own<R>>,
    /// What `own` has under each key.
    subjects: BTreeMap<Key, BTreeSet<R::Subject>>,
    due: BTreeSet<(Instant, Key, R::Subject)>,
    /// Records whose nearest nodes are being looked for.
    searching: usize,
}

#[derive(Debug)]
struct Own<R> {
    record: R,
    due: Instant,
    progress: Progress,
    /// A node came while the round was under way that may have missed it.
    again: bool,
    /// Who has said that it keeps the record in this round.
    replicas: Vec<NodeId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Kept, or waiting for its turn.
    Resting,
    Searching,
    /// So many answers of replicas are outstanding.
    Storing(usize),
}

impl<R: Record> Publishing<R> {
    pub(super) const fn new() -> Publishing<R> {
        Publishing {
            own: BTreeMap::new(),
            subjects: BTreeMap::new(),
            due: BTreeSet::new(),
            searching: 0,
        }
    }

    /// Wants a record kept, at once.
    pub(super) fn insert(&mut self, now: Instant, key: Key, record: R) {
        let subject = record.subject();
        self.remove(&key, &subject);
        self.due.insert((now, key, subject.clone()));
        let own = Own {
            record,
            due: now,
            progress: Progress::Resting,
            again: false,
            replicas: Vec::new(),
        };
        self.subjects
            .entry(key)
            .or_default()
            .insert(subject.clone());
        self.own.insert((key, subject), own);
    }

    /// Replaces a record that is published already; gives whether it was.
    pub(super) fn revise(&mut self, key: Key, record: &R) -> bool {
        let own = self.own.get_mut(&(key, record.subject()));
        own.map(|own| own.record = record.clone()).is_some()
    }

    pub(super) fn replicas(&self, key: &Key, subject: &R::Subject) -> Option<&[NodeId]> {
        let own = self.own.get(&(*key, subject.clone()))?;
        let kept = own.progress == Progress::Resting && !own.replicas.is_empty();
        kept.then_some(&own.replicas)
    }

    /// What this node publishes under a key.
    pub(super) fn under(&self, key: &Key) -> impl Iterator<Item = &R> {
        let subjects = self.subjects.get(key).into_iter().flatten();
        subjects.filter_map(|subject| self.record(key, subject))
    }

    pub(super) fn record(&self, key: &Key, subject: &R::Subject) -> Option<&R> {
        let own = self.own.get(&(*key, subject.clone()));
        own.map(|own| &own.record)
    }

    pub(super) fn remove(&mut self, key: &Key, subject: &R::Subject) {
        if let Some(own) = self.own.remove(&(*key, subject.clone())) {
            if let Some(subjects) = self.subjects.get_mut(key) {
                subjects.remove(subject);
                if subjects.is_empty() {
                    self.subjects.remove(key);
                }
            }
            self.due.remove(&(own.due, *key, subject.clone()));
            if own.progress == Progress::Searching {
                self.searching -= 1;
            }
        }
    }

    /// Brings to a node that has just come what it should keep: it is nearer than a node that keeps it, or too few
    /// do.
    pub(super) fn node_came(&mut self, now: Instant, node: &NodeId) {
        for ((key, subject), own) in &mut self.own {
            let distance = key.distance(&(*node).into());
            let nearer = |replica: &NodeId| distance < key.distance(&(*replica).into());
            let wanted = own.replicas.len() < KADEMLIA_REPLICAS || own.replicas.iter().any(nearer);
            if !wanted || own.replicas.contains(node) {
                continue;
            }
            if own.progress == Progress::Resting {
                self.due.remove(&(own.due, *key, subject.clone()));
                own.due = now;
                self.due.insert((now, *key, subject.clone()));
            } else {
                own.again = true;
            }
        }
    }

    /// Brings what a lost node kept to another one at once, rather than with the next round.
    pub(super) fn replica_lost(&mut self, now: Instant, node: &NodeId) {
        for ((key, subject), own) in &mut self.own {
            if own.progress == Progress::Resting && own.replicas.contains(node) && own.due > now {
                self.due.remove(&(own.due, *key, subject.clone()));
                own.due = now;
                self.due.insert((now, *key, subject.clone()));
            }
        }
    }

    pub(super) fn timeout(&self) -> Option<Instant> {
        let (at, _, _) = self.due.first()?;
        (self.searching < KADEMLIA_PUBLISHING_MAX).then_some(*at)
    }

    /// The next record whose time has come, if one more search may run.
    fn next_due(&mut self, now: Instant) -> Option<(Key, R::Subject)> {
        if self.timeout()? > now {
            return None;
        }
        let (_, key, subject) = self.due.pop_first()?;
        let own = self.own.get_mut(&(key, subject.clone()))?;
        own.due = now + REGISTRY_REFRESH;
        self.due.insert((own.due, key, subject.clone()));
        if own.progress != Progress::Resting {
            // The last round has not even ended.
            return None;
        }
        own.progress = Progress::Searching;
        own.replicas.clear();
        self.searching += 1;
        Some((key, subject))
    }
}

impl<R: Record> Dht<R> {
    /// Begins the rounds of the records whose time has come.
    pub(super) fn publish_due(&mut self, now: Instant) {
        while let Some((key, subject)) = self.publishing.next_due(now) {
            self.search(now, key, Purpose::Publish(key, subject));
        }
    }

    /// The nodes nearest to a record's key are known. This node may be one of them.
    pub(super) fn publish_at(
        &mut self,
        now: Instant,
        key: Key,
        subject: &R::Subject,
        closest: Vec<Contact>,
    ) {
        let Some(own) = self.publishing.own.get_mut(&(key, subject.clone())) else {
            return;
        };
        if own.progress != Progress::Searching {
            // It was published anew meanwhile, and that search is still to end.
            return;
        }
        self.publishing.searching -= 1;
        let kept = Kept {
            record: own.record.clone(),
            ttl_s: REGISTRY_TTL.as_secs() as u32,
        };
        let distance = key.distance(&self.local.into());
        let is_nearer = |c: &Contact| key.distance(&c.id.into()) < distance;
        let among_nearest = self.advertised.is_some()
            && closest.iter().filter(|c| is_nearer(c)).count() < KADEMLIA_REPLICAS;
        let others = KADEMLIA_REPLICAS - usize::from(among_nearest);
        let others: Vec<Contact> = closest.into_iter().take(others).collect();
        own.progress = Progress::Storing(others.len() + usize::from(among_nearest));
        for contact in others {
            let request = Request::Store(key, kept.clone());
            let reason = Reason::Publish(key, subject.clone());
            self.request(now, contact, request, reason);
        }
        if among_nearest {
            let response = self.keep(now, key, kept);
            self.published(now, key, subject, self.local, response);
        }
    }

    /// A node was asked to keep a record of this node, and answered.
    pub(super) fn published(
        &mut self,
        now: Instant,
        key: Key,
        subject: &R::Subject,
        from: NodeId,
        response: Response<R>,
    ) {
        let newer = match &response {
            Response::Superseded(by) => self.counts(&by.record, &key),
            _ => false,
        };
        let Some(own) = self.publishing.own.get_mut(&(key, subject.clone())) else {
            return;
        };
        match response {
            Response::Stored => own.replicas.push(from),
            Response::Superseded(by) if newer && by.record.supersedes(&own.record) => {
                return self.superseded(&key, by.record);
            }
            _ => {}
        }
        self.not_published(now, key, subject);
    }

    /// One answer fewer is outstanding.
    pub(super) fn not_published(&mut self, now: Instant, key: Key, subject: &R::Subject) {
        let Some(own) = self.publishing.own.get_mut(&(key, subject.clone())) else {
            return;
        };
        let Progress::Storing(outstanding) = &mut own.progress else {
            return;
        };
        *outstanding -= 1;
        if *outstanding > 0 {
            return;
        }
        own.progress = Progress::Resting;
        if core::mem::take(&mut own.again) {
            let due = core::mem::replace(&mut own.due, now);
            self.publishing.due.remove(&(due, key, subject.clone()));
            self.publishing.due.insert((now, key, subject.clone()));
        }
        let (record, replicas) = (own.record.clone(), own.replicas.clone());
        self.events.push_back(DhtEvent::Published {
            key,
            record,
            replicas,
        });
        self.publish_due(now);
    }
}
