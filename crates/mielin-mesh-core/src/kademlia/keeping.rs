//! What a node keeps for others: storing, repairing, and telling who published what has become old.

use alloc::vec::Vec;

use super::key::Key;
use super::store::Stored;
use super::table;
use super::wire::{Contact, Kept, Request, Response, StoreRefusal};
use super::{Dht, DhtEvent, Reason, Record, Search};
use crate::Instant;
use crate::limits::{KADEMLIA_K, KADEMLIA_RECORDS_PER_KEY, KADEMLIA_REPLICAS, REGISTRY_TTL};

impl<R: Record> Dht<R> {
    /// The records under a key that this node keeps or publishes: while it lives it answers for itself, whatever
    /// became of the nodes that keep what it publishes.
    pub(super) fn known(&self, now: Instant, key: &Key) -> Vec<Kept<R>> {
        let mut known = self.store.under(now, key);
        for record in self.publishing.under(key) {
            if known.len() >= KADEMLIA_RECORDS_PER_KEY {
                break;
            }
            if !known
                .iter()
                .any(|kept| kept.record.subject() == record.subject())
            {
                let (record, ttl_s) = (record.clone(), REGISTRY_TTL.as_secs() as u32);
                known.push(Kept { record, ttl_s });
            }
        }
        known
    }

    pub(super) fn keep(&mut self, now: Instant, key: Key, kept: Kept<R>) -> Response<R> {
        self.store.expire(now);
        self.heed(&key, &kept.record);
        let nearer = self.table.closest(&key, KADEMLIA_K, false);
        let own = key.distance(&self.local.into());
        let is_nearer = |e: &&table::Entry| key.distance(&e.contact.id.into()) < own;
        if nearer.iter().filter(|e| is_nearer(e)).count() == KADEMLIA_K {
            return Response::Refused(StoreRefusal::TooFar);
        }
        let record = kept.record.clone();
        if !self.counts(&record, &key) {
            return Response::Refused(StoreRefusal::NotGenuine);
        }
        match self.store.insert(now, key, kept) {
            Stored::Kept => Response::Stored,
            Stored::Replaced(former) => {
                self.warn(now, key, &former, record);
                Response::Stored
            }
            Stored::Superseded(by) => Response::Superseded(by),
            Stored::Refused(refusal) => Response::Refused(refusal),
        }
    }

    /// Gives up publishing what a genuine record of another node supersedes.
    fn heed(&mut self, key: &Key, by: &R) {
        let own = self.publishing.record(key, &by.subject());
        if own.is_some_and(|own| by.supersedes(own)) && self.counts(by, key) {
            self.superseded(key, by.clone());
        }
    }

    pub(super) fn superseded(&mut self, key: &Key, by: R) {
        self.publishing.remove(key, &by.subject());
        let key = *key;
        self.events.push_back(DhtEvent::Superseded { key, by });
    }

    /// Shows a record to the publisher of the one that it has replaced.
    fn warn(&mut self, now: Instant, key: Key, former: &R, record: R) {
        let publisher = former.publisher();
        if publisher.is_none() || publisher == record.publisher() {
            return;
        }
        let Some(id) = publisher.filter(|id| *id != self.local) else {
            return;
        };
        let known = self.table.entry(&id).map(|entry| entry.contact.clone());
        let addresses = Vec::new();
        let to = known.unwrap_or(Contact { id, addresses });
        let ttl_s = REGISTRY_TTL.as_secs() as u32;
        let request = Request::Store(key, Kept { record, ttl_s });
        self.request(now, to, request, Reason::Repair);
    }

    /// Brings those of the nearest up to date that should keep the newest record and do not.
    pub(super) fn repair(&mut self, now: Instant, search: &Search<R>, closest: &[Contact]) {
        let key = search.lookup.target();
        for answers in search.records.values() {
            let lacking = closest.iter().take(KADEMLIA_REPLICAS);
            let lacking: Vec<Contact> = lacking
                .filter(|c| !answers.from.contains(&c.id))
                .cloned()
                .collect();
            for contact in lacking {
                let request = Request::Store(key, answers.newest.clone());
                self.request(now, contact, request, Reason::Repair);
            }
        }
    }
}
