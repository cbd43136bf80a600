//! One search for the nodes nearest to a point, or for the records under it.
//!
//! The search of the paper's section 2.3, over disjoint paths as in S/Kademlia (Baumgart and Mies, 2007,
//! section 4.4): each path knows only what the nodes it asked itself have said, and no node is asked by two.
//! A liar misleads one path; the others arrive.
//!
//! Deviations: a request that is slow does not hold its path up, its answer is taken when it comes; and
//! among candidates of one bucket the one with the shorter measured round trip is asked first.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use super::key::{Distance, Key};
use super::wire::Contact;
use crate::limits::{
    KADEMLIA_CANDIDATES_MAX, KADEMLIA_K, KADEMLIA_PATHS, KADEMLIA_QUERIES_MAX, KADEMLIA_SLOW_AFTER,
};
use crate::{Instant, NodeId};

/// The state of one search; it decides whom to ask and when it has ended.
#[derive(Clone, Debug)]
pub(super) struct Lookup {
    target: Key,
    candidates: BTreeMap<Distance, Candidate>,
    queries: usize,
}

#[derive(Clone, Debug)]
struct Candidate {
    contact: Contact,
    rtt: Option<Duration>,
    /// One bit for each path that has heard of it.
    paths: u8,
    /// Requests that lead to it, its own included.
    hops: u32,
    progress: Progress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Heard,
    Asked { path: u8, since: Instant },
    Answered,
    Failed,
}

impl Lookup {
    /// A search that begins with the nodes known here, dealt out to the paths in order of distance.
    pub(super) fn new(
        target: Key,
        known: impl Iterator<Item = (Contact, Option<Duration>)>,
    ) -> Lookup {
        let mut lookup = Lookup {
            target,
            candidates: BTreeMap::new(),
            queries: 0,
        };
        for (index, (contact, rtt)) in known.enumerate() {
            let paths = 1 << (index % usize::from(KADEMLIA_PATHS));
            lookup.hear(contact, rtt, paths, 1);
        }
        lookup
    }

    pub(super) fn target(&self) -> Key {
        self.target
    }

    /// How many nodes were asked.
    pub(super) fn queries(&self) -> usize {
        self.queries
    }

    fn hear(&mut self, contact: Contact, rtt: Option<Duration>, paths: u8, hops: u32) {
        let distance = self.target.distance(&contact.id.into());
        if let Some(known) = self.candidates.get_mut(&distance) {
            known.paths |= paths;
            return;
        }
        let candidate = Candidate {
            contact,
            rtt,
            paths,
            hops,
            progress: Progress::Heard,
        };
        self.candidates.insert(distance, candidate);
        if self.candidates.len() > KADEMLIA_CANDIDATES_MAX {
            let heard =
                |(_, candidate): &(&Distance, &Candidate)| candidate.progress == Progress::Heard;
            let farthest = self.candidates.iter().rfind(heard).map(|(d, _)| *d);
            if let Some(farthest) = farthest {
                self.candidates.remove(&farthest);
            }
        }
    }

    /// The next node to ask; ask again until there is none. `None` with [`Lookup::is_done`] false means that
    /// answers must come first, or time pass.
    pub(super) fn next(&mut self, now: Instant) -> Option<Contact> {
        if self.queries >= KADEMLIA_QUERIES_MAX {
            return None;
        }
        (0..KADEMLIA_PATHS).find_map(|path| self.next_of(path, now))
    }

    fn next_of(&mut self, path: u8, now: Instant) -> Option<Contact> {
        let held_up = self.candidates.values().any(|candidate| {
            matches!(candidate.progress, Progress::Asked { path: by, since }
                if by == path && now.since(since) < KADEMLIA_SLOW_AFTER)
        });
        if held_up {
            return None;
        }
        let heard = self
            .horizon(path)
            .filter(|(_, c)| c.progress == Progress::Heard);
        let chosen = heard.min_by_key(|(distance, candidate)| {
            let rtt = candidate.rtt.unwrap_or(Duration::MAX);
            (distance.bucket(), rtt, **distance)
        });
        let distance = *chosen?.0;
        let candidate = self.candidates.get_mut(&distance)?;
        candidate.progress = Progress::Asked { path, since: now };
        self.queries += 1;
        Some(candidate.contact.clone())
    }

    /// The k nearest that a path knows and that have not failed.
    fn horizon(&self, path: u8) -> impl Iterator<Item = (&Distance, &Candidate)> {
        let of_path = move |candidate: &Candidate| candidate.paths & (1 << path) != 0;
        self.candidates
            .iter()
            .filter(move |(_, c)| of_path(c) && c.progress != Progress::Failed)
            .take(KADEMLIA_K)
    }

    /// Takes an answer with the nodes it names. False when this node was not asked or has answered.
    pub(super) fn answered(
        &mut self,
        node: &NodeId,
        nodes: Vec<(Contact, Option<Duration>)>,
    ) -> bool {
        let distance = self.target.distance(&(*node).into());
        let Some(candidate) = self.candidates.get_mut(&distance) else {
            return false;
        };
        let Progress::Asked { path, .. } = candidate.progress else {
            return false;
        };
        candidate.progress = Progress::Answered;
        let hops = candidate.hops + 1;
        for (contact, rtt) in nodes {
            self.hear(contact, rtt, 1 << path, hops);
        }
        true
    }

    /// Notes that a node will not answer.
    pub(super) fn failed(&mut self, node: &NodeId) {
        let distance = self.target.distance(&(*node).into());
        if let Some(candidate) = self.candidates.get_mut(&distance)
            && candidate.progress != Progress::Answered
        {
            candidate.progress = Progress::Failed;
        }
    }

    /// Whether on every path the k nearest have answered, or nobody is left to ask.
    pub(super) fn is_done(&self) -> bool {
        let waiting = |c: &Candidate| matches!(c.progress, Progress::Asked { .. });
        if self.queries >= KADEMLIA_QUERIES_MAX {
            return !self.candidates.values().any(waiting);
        }
        (0..KADEMLIA_PATHS).all(|path| {
            self.horizon(path)
                .all(|(_, c)| c.progress == Progress::Answered)
        })
    }

    /// When a slow request ceases to hold its path up.
    pub(super) fn timeout(&self, now: Instant) -> Option<Instant> {
        let slow_at = |candidate: &Candidate| match candidate.progress {
            Progress::Asked { since, .. } => Some(since + KADEMLIA_SLOW_AFTER),
            _ => None,
        };
        self.candidates
            .values()
            .filter_map(slow_at)
            .filter(|at| *at > now)
            .min()
    }

    /// Those who answered, nearest first, with the requests that led to each.
    pub(super) fn closest(&self) -> impl Iterator<Item = (&Contact, u32)> {
        self.candidates
            .values()
            .filter(|candidate| candidate.progress == Progress::Answered)
            .map(|candidate| (&candidate.contact, candidate.hops))
    }
}
