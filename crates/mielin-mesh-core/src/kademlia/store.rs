//! The records that a node keeps for others.

use alloc::boxed::Box;
use alloc::collections::btree_map::Entry;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::Record;
use super::key::Key;
use super::wire::{Kept, StoreRefusal};
use crate::limits::{
    KADEMLIA_RECORDS_MAX, KADEMLIA_RECORDS_PER_KEY, KADEMLIA_RECORDS_PER_PUBLISHER, REGISTRY_TTL,
};
use crate::{Instant, NodeId};

/// Records by key and, under one key, by what they are about.
#[derive(Clone, Debug)]
pub(super) struct Store<R: Record> {
    /// Boxed, because there is mostly one under a key, and a map has room for eleven.
    records: BTreeMap<Key, BTreeMap<R::Subject, Box<Held<R>>>>,
    expiries: BTreeSet<(Instant, Key, R::Subject)>,
    /// How many records are of whom.
    shares: Shares,
}

#[derive(Clone, Debug, Default)]
struct Shares(BTreeMap<NodeId, usize>);

impl Shares {
    fn add(&mut self, publisher: Option<NodeId>) {
        if let Some(publisher) = publisher {
            *self.0.entry(publisher).or_default() += 1;
        }
    }

    fn remove(&mut self, publisher: Option<NodeId>) {
        let Some(publisher) = publisher else {
            return;
        };
        if let Entry::Occupied(mut share) = self.0.entry(publisher) {
            *share.get_mut() -= 1;
            if *share.get() == 0 {
                share.remove();
            }
        }
    }

    fn is_used_up(&self, publisher: Option<NodeId>) -> bool {
        let share = publisher.and_then(|publisher| self.0.get(&publisher));
        share.is_some_and(|share| *share >= KADEMLIA_RECORDS_PER_PUBLISHER)
    }
}

#[derive(Clone, Debug)]
struct Held<R> {
    record: R,
    expires: Instant,
}

/// What became of a record that somebody wants kept.
pub(super) enum Stored<R> {
    Kept,
    /// It took the place of this one.
    Replaced(R),
    Superseded(Kept<R>),
    Refused(StoreRefusal),
}

impl<R: Record> Store<R> {
    pub(super) const fn new() -> Store<R> {
        Store {
            records: BTreeMap::new(),
            expiries: BTreeSet::new(),
            shares: Shares(BTreeMap::new()),
        }
    }

    /// Keeps a genuine record, unless it keeps a newer one. Nobody may publish more than its share, in all and, where
    /// others want a place, under one key.
    pub(super) fn insert(&mut self, now: Instant, key: Key, kept: Kept<R>) -> Stored<R> {
        let Kept { record, ttl_s } = kept;
        let life = core::time::Duration::from_secs(ttl_s.into()).min(REGISTRY_TTL);
        let mut expires = now + life;
        let publisher = record.publisher();
        let full = self.expiries.len() >= KADEMLIA_RECORDS_MAX || self.shares.is_used_up(publisher);
        let subject = record.subject();
        let under_key = match self.records.entry(key) {
            Entry::Vacant(_) if full => return Stored::Refused(StoreRefusal::Full),
            entry => entry.or_default(),
        };
        match under_key.get(&subject) {
            Some(held) if held.record != record && !record.supersedes(&held.record) => {
                return Stored::Superseded(kept_of(now, held));
            }
            Some(held) => {
                // A repair with the same record must not shorten its life.
                if held.record == record {
                    expires = expires.max(held.expires);
                }
                self.expiries.remove(&(held.expires, key, subject.clone()));
            }
            None if under_key.len() >= KADEMLIA_RECORDS_PER_KEY => {
                if self.shares.is_used_up(publisher) {
                    return Stored::Refused(StoreRefusal::Full);
                }
                let Some(place) = place_for(publisher, under_key) else {
                    return Stored::Refused(StoreRefusal::Full);
                };
                if let Some(held) = under_key.remove(&place) {
                    self.expiries.remove(&(held.expires, key, place));
                    self.shares.remove(held.record.publisher());
                }
            }
            None if full => return Stored::Refused(StoreRefusal::Full),
            None => {}
        }
        self.expiries.insert((expires, key, subject.clone()));
        let newer = record.clone();
        self.shares.add(publisher);
        let former = under_key.insert(subject, Box::new(Held { record, expires }));
        if let Some(former) = &former {
            self.shares.remove(former.record.publisher());
        }
        match former {
            Some(former) if former.record != newer => Stored::Replaced(former.record),
            _ => Stored::Kept,
        }
    }

    /// The records under a key.
    pub(super) fn under(&self, now: Instant, key: &Key) -> Vec<Kept<R>> {
        let records = self.records.get(key).into_iter().flatten();
        records.map(|(_, held)| kept_of(now, held)).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &R)> {
        let records = |(key, held)| {
            let held: &BTreeMap<R::Subject, Box<Held<R>>> = held;
            held.values().map(move |held| (key, &held.record))
        };
        self.records.iter().flat_map(records)
    }

    pub(super) fn drop_published_by(&mut self, node: &NodeId) {
        let expiries = &mut self.expiries;
        self.shares.0.remove(node);
        self.records.retain(|key, under_key| {
            under_key.retain(|subject, held| {
                let keep = held.record.publisher() != Some(*node);
                if !keep {
                    expiries.remove(&(held.expires, *key, subject.clone()));
                }
                keep
            });
            !under_key.is_empty()
        });
    }

    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((at, key, subject)) = self.expiries.first().cloned() {
            if at > now {
                break;
            }
            self.expiries.remove(&(at, key, subject.clone()));
            if let Entry::Occupied(mut under_key) = self.records.entry(key) {
                if let Some(held) = under_key.get_mut().remove(&subject) {
                    self.shares.remove(held.record.publisher());
                }
                if under_key.get().is_empty() {
                    under_key.remove();
                }
            }
        }
    }

    pub(super) fn timeout(&self) -> Option<Instant> {
        self.expiries.first().map(|(at, _, _)| *at)
    }

    pub(super) fn len(&self) -> usize {
        self.expiries.len()
    }
}

/// What gives way under a full key: the oldest record that has ended, or else the oldest of the publisher that has most,
/// if that has more than the newcomer would have.
fn place_for<R: Record>(
    newcomer: Option<NodeId>,
    under_key: &BTreeMap<R::Subject, Box<Held<R>>>,
) -> Option<R::Subject> {
    let oldest = |gives_way: &dyn Fn(&R) -> bool| {
        let old = under_key.iter().filter(|(_, held)| gives_way(&held.record));
        let oldest = old.min_by_key(|(_, held)| held.expires);
        oldest.map(|(subject, _)| subject.clone())
    };
    oldest(&R::gives_way).or_else(|| {
        let mut counts = BTreeMap::<Option<NodeId>, usize>::new();
        for held in under_key.values() {
            *counts.entry(held.record.publisher()).or_default() += 1;
        }
        let own = counts.get(&newcomer).copied().unwrap_or(0);
        let (most, count) = counts.into_iter().max_by_key(|(_, count)| *count)?;
        let gives_way = |record: &R| record.publisher() == most;
        (count > own + 1).then(|| oldest(&gives_way)).flatten()
    })
}

fn kept_of<R: Clone>(now: Instant, held: &Held<R>) -> Kept<R> {
    Kept {
        record: held.record.clone(),
        ttl_s: held.expires.since(now).as_secs() as u32,
    }
}
