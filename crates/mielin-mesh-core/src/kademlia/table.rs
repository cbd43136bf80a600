//! The routing table: who is known, in buckets by distance (sections 2.2 and 4.1 of the paper).

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use super::key::{Distance, Key};
use super::wire::Contact;
use crate::limits::{KADEMLIA_FAILURES_MAX, KADEMLIA_K, KADEMLIA_REPLACEMENTS};
use crate::{Instant, NodeId};

/// A node that has answered at least once.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) contact: Contact,
    /// Smoothed round trip time of its answers.
    pub(super) rtt: Option<Duration>,
    seen: Instant,
    /// Requests since `seen` that were not answered.
    failures: u8,
}

#[derive(Clone, Debug, Default)]
struct Bucket {
    /// Least recently seen first; at most k.
    entries: VecDeque<Entry>,
    /// Who would like to enter, most recently seen last.
    replacements: VecDeque<Entry>,
    /// When a point in it was last looked for.
    refreshed: Instant,
    /// The entry that is asked whether it still lives, because somebody waits for its place.
    challenged: Option<NodeId>,
}

/// At most 256 buckets of k nodes, of which about log2(N) are ever used.
#[derive(Clone, Debug)]
pub(super) struct Table {
    local: Key,
    buckets: BTreeMap<u8, Bucket>,
}

impl Table {
    pub(super) const fn new(local: Key) -> Table {
        Table {
            local,
            buckets: BTreeMap::new(),
        }
    }

    fn bucket_of(&self, node: &NodeId) -> Option<u8> {
        self.local.distance(&Key::from(*node)).bucket()
    }

    /// Notes that a node answered or asked. A full bucket keeps whom it has: the newcomer waits, and the
    /// caller is to challenge the node that is given back, the one not heard of for longest.
    pub(super) fn seen(
        &mut self,
        now: Instant,
        contact: Contact,
        rtt: Option<Duration>,
    ) -> Option<Contact> {
        let bucket = self
            .buckets
            .entry(self.bucket_of(&contact.id)?)
            .or_default();
        let id = contact.id;
        if bucket.challenged == Some(id) {
            bucket.challenged = None;
        }
        let known = take(&mut bucket.entries, &id);
        let waited = take(&mut bucket.replacements, &id);
        let was_entry = known.is_some();
        let before = known.or(waited).and_then(|entry| entry.rtt);
        let entry = Entry {
            contact,
            rtt: smoothed(before, rtt),
            seen: now,
            failures: 0,
        };
        if was_entry || bucket.entries.len() < KADEMLIA_K {
            bucket.entries.push_back(entry);
            return None;
        }
        if bucket.replacements.len() == KADEMLIA_REPLACEMENTS {
            bucket.replacements.pop_front();
        }
        bucket.replacements.push_back(entry);
        if bucket.challenged.is_some() {
            return None;
        }
        let oldest = bucket.entries.front()?;
        bucket.challenged = Some(oldest.contact.id);
        Some(oldest.contact.clone())
    }

    /// Notes that a node did not answer. It loses its place when somebody waits for it, or has failed too
    /// often.
    pub(super) fn failed(&mut self, node: &NodeId) {
        let Some(bucket) = self.bucket_of(node).and_then(|b| self.buckets.get_mut(&b)) else {
            return;
        };
        if bucket.challenged == Some(*node) {
            bucket.challenged = None;
        }
        take(&mut bucket.replacements, node);
        let wanted = !bucket.replacements.is_empty();
        let entry = bucket.entries.iter_mut().find(|e| e.contact.id == *node);
        if let Some(entry) = entry {
            entry.failures += 1;
            if wanted || entry.failures >= KADEMLIA_FAILURES_MAX {
                self.remove(node);
            }
        }
    }

    /// Forgets a node; who came last of those that wait gets its place, as the likeliest to be there still.
    pub(super) fn remove(&mut self, node: &NodeId) {
        let Some(index) = self.bucket_of(node) else {
            return;
        };
        let Some(bucket) = self.buckets.get_mut(&index) else {
            return;
        };
        if bucket.challenged == Some(*node) {
            bucket.challenged = None;
        }
        take(&mut bucket.replacements, node);
        if take(&mut bucket.entries, node).is_some() {
            bucket.entries.extend(bucket.replacements.pop_back());
        }
        if bucket.entries.is_empty() {
            self.buckets.remove(&index);
        }
    }

    /// Whether a node that is not known would get a place without anybody's giving way.
    pub(super) fn has_room_for(&self, node: &NodeId) -> bool {
        self.bucket_of(node).is_some_and(|index| {
            let bucket = self.buckets.get(&index);
            bucket.is_none_or(|bucket| bucket.entries.len() < KADEMLIA_K)
        })
    }

    pub(super) fn entry(&self, node: &NodeId) -> Option<&Entry> {
        let bucket = self.buckets.get(&self.bucket_of(node)?)?;
        bucket.entries.iter().find(|e| e.contact.id == *node)
    }

    /// The known nodes nearest to a point, nearest first; those that failed lately only when `doubtful`.
    pub(super) fn closest(&self, target: &Key, count: usize, doubtful: bool) -> Vec<&Entry> {
        let mut found: Vec<(Distance, &Entry)> = self
            .iter()
            .filter(|entry| doubtful || entry.failures == 0)
            .map(|entry| (target.distance(&entry.contact.id.into()), entry))
            .collect();
        if found.len() > count {
            found.select_nth_unstable_by_key(count, |(distance, _)| *distance);
            found.truncate(count);
        }
        found.sort_unstable_by_key(|(distance, _)| *distance);
        found.into_iter().map(|(_, entry)| entry).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.buckets.values().flat_map(|bucket| &bucket.entries)
    }

    pub(super) fn len(&self) -> usize {
        self.buckets
            .values()
            .map(|bucket| bucket.entries.len())
            .sum()
    }

    /// Notes that a point was looked for.
    pub(super) fn looked_for(&mut self, now: Instant, target: &Key) {
        let index = self.local.distance(target).bucket();
        if let Some(bucket) = index.and_then(|index| self.buckets.get_mut(&index)) {
            bucket.refreshed = now;
        }
    }

    /// The buckets in which nothing was looked for during `age`.
    pub(super) fn unrefreshed(&self, now: Instant, age: Duration) -> Vec<u8> {
        let old = |bucket: &&Bucket| now.since(bucket.refreshed) >= age;
        let buckets = self.buckets.iter().filter(|(_, bucket)| old(bucket));
        buckets.map(|(index, _)| *index).collect()
    }

    /// The buckets beyond the nearest neighbour's, as a joining node refreshes them (section 2.3).
    pub(super) fn beyond_nearest(&self) -> Vec<u8> {
        self.buckets.keys().skip(1).copied().collect()
    }

    /// In each bucket, the node not heard of for longest, if that is `age` or more.
    pub(super) fn silent(&self, now: Instant, age: Duration) -> Vec<Contact> {
        let oldest = self.buckets.values().filter_map(|b| b.entries.front());
        oldest
            .filter(|entry| now.since(entry.seen) >= age)
            .map(|entry| entry.contact.clone())
            .collect()
    }
}

fn take(entries: &mut VecDeque<Entry>, node: &NodeId) -> Option<Entry> {
    let index = entries.iter().position(|e| e.contact.id == *node)?;
    entries.remove(index)
}

/// The exponential average of RFC 6298, section 2.
fn smoothed(before: Option<Duration>, sample: Option<Duration>) -> Option<Duration> {
    match (before, sample) {
        (Some(before), Some(sample)) => Some((before * 7 + sample) / 8),
        (before, sample) => sample.or(before),
    }
}
