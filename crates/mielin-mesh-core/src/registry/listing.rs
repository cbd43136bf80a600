//! Every agent of the mesh: members are asked page by page for what they hold, and for what they keep in the table
//! of holders that are gone.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use oxicode::{Decode, Encode};
use thiserror::Error;

use super::{AgentRegistry, Location, LocationRecord, SignedLocation, Verify};
use crate::kademlia::{Key, Record};
use crate::limits::REGISTRY_PAGE_MAX;
use crate::{AgentId, AgentState, NodeId, codec};

/// The beginning of an agent's id in lower-case hexadecimal digits, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefix(String);

/// A text that cannot be the beginning of an agent's id. The caller is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the beginning of an agent's id has at most 32 hexadecimal digits")]
pub struct NotAPrefix;

impl Prefix {
    /// Reads digits of either case.
    ///
    /// # Errors
    ///
    /// [`NotAPrefix`].
    pub fn new(text: &str) -> Result<Prefix, NotAPrefix> {
        let fits = text.len() <= 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        fits.then(|| Prefix(text.to_ascii_lowercase()))
            .ok_or(NotAPrefix)
    }

    /// Whether the agent's id begins so.
    #[must_use]
    pub fn fits(&self, agent: &AgentId) -> bool {
        self.0.is_empty() || agent.to_string().starts_with(&self.0)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Asks a member for the next of the agents that it knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentQuery {
    /// Only agents whose id begins so.
    pub prefix: Prefix,
    /// Only agents with a greater id: the last one of the page before.
    pub after: Option<AgentId>,
}

/// A query as it is sent.
#[derive(Encode, Decode)]
struct Asked {
    prefix: String,
    after: Option<AgentId>,
}

/// What a peer sent is no query or no page. The peer is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a page of agents")]
pub struct MalformedPage;

impl AgentQuery {
    /// The query as it is sent.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(&Asked {
            prefix: self.prefix.to_string(),
            after: self.after,
        })
    }

    /// Reads a query of a peer.
    ///
    /// # Errors
    ///
    /// [`MalformedPage`].
    pub fn decode(bytes: &[u8]) -> Result<AgentQuery, MalformedPage> {
        let Asked { prefix, after } = codec::decode(bytes).map_err(|_| MalformedPage)?;
        let prefix = Prefix::new(&prefix).map_err(|_| MalformedPage)?;
        Ok(AgentQuery { prefix, after })
    }

    fn wants(&self, record: &LocationRecord) -> bool {
        self.after.is_none_or(|after| record.agent > after) && self.prefix.fits(&record.agent)
    }
}

/// The next agents that a member knows, by id: at most [`REGISTRY_PAGE_MAX`].
pub struct AgentPage<V> {
    /// Those that the member holds.
    held: Vec<LocationRecord>,
    /// Those whose holders are gone, as far as the member knows: it keeps their records.
    kept: Vec<SignedLocation<V>>,
    /// Ask again after this one; it is the last.
    next: Option<AgentId>,
}

impl<V: Verify> AgentPage<V> {
    /// Reads what a member answered to a query.
    ///
    /// # Errors
    ///
    /// [`MalformedPage`], also when the page leads back to where it began.
    pub fn decode(query: &AgentQuery, bytes: &[u8]) -> Result<AgentPage<V>, MalformedPage> {
        let (held, kept, next) = codec::decode(bytes).map_err(|_| MalformedPage)?;
        let page = AgentPage { held, kept, next };
        let leads_on = page.next.is_none_or(|next| query.after < Some(next));
        if page.records() > REGISTRY_PAGE_MAX || !leads_on {
            return Err(MalformedPage);
        }
        Ok(page)
    }

    /// The page as it is sent.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(&(&self.held, &self.kept, self.next))
    }

    /// Records in the page.
    #[must_use]
    pub fn records(&self) -> usize {
        self.held.len() + self.kept.len()
    }

    #[cfg(test)]
    pub(super) fn put(&mut self, record: LocationRecord) {
        self.held.push(record);
    }

    /// The query for the next page; `None` when this is the last.
    #[must_use]
    pub fn next(&self, query: &AgentQuery) -> Option<AgentQuery> {
        let prefix = query.prefix.clone();
        let after = Some(self.next?);
        Some(AgentQuery { prefix, after })
    }
}

impl AgentRegistry {
    /// Answers a query with what this node holds, and with what it keeps in the table of nodes that are gone.
    pub fn page<'a, V: Verify + 'a>(
        &self,
        query: &AgentQuery,
        kept: impl Iterator<Item = (&'a Key, &'a SignedLocation<V>)>,
    ) -> AgentPage<V> {
        let held = self.iter().map(|location| &location.record);
        let held = held.filter(|r| self.held.contains(&r.agent) && query.wants(r));
        let gone = |record: &LocationRecord| {
            record.node != self.local && !self.members.contains_key(&record.node)
        };
        let kept = kept.filter(|(key, signed)| {
            let record = signed.record();
            **key == Key::of_agent(&record.agent) && gone(record) && query.wants(record)
        });
        let kept: BTreeMap<AgentId, &SignedLocation<V>> = kept
            .map(|(_, signed)| (signed.record().agent, signed))
            .collect();
        let held: BTreeMap<AgentId, &LocationRecord> = held.map(|r| (r.agent, r)).collect();
        let all: BTreeSet<AgentId> = held.keys().chain(kept.keys()).copied().collect();
        // One agent may be in both: a former holder's record that nobody has replaced.
        let whole = all.len() <= REGISTRY_PAGE_MAX / 2;
        let last = all
            .iter()
            .nth((REGISTRY_PAGE_MAX / 2).saturating_sub(1))
            .copied();
        let here = |agent: &AgentId| whole || last.is_some_and(|last| *agent <= last);
        AgentPage {
            held: held
                .values()
                .filter(|r| here(&r.agent))
                .map(|r| (*r).clone())
                .collect(),
            kept: kept
                .values()
                .filter(|s| here(&s.record().agent))
                .map(|s| (*s).clone())
                .collect(),
            next: if whole { None } else { last },
        }
    }
}

/// Puts together what the members know.
#[derive(Clone, Debug, Default)]
pub struct AgentListing {
    records: BTreeMap<AgentId, LocationRecord>,
    answered: BTreeSet<NodeId>,
}

impl AgentListing {
    /// Takes a page of an authenticated member. What the member does not hold, and what its holder has not signed,
    /// counts for nothing.
    pub fn add<V: Verify>(&mut self, from: NodeId, page: AgentPage<V>) {
        if page.next.is_none() {
            self.answered.insert(from);
        }
        let held = page.held.into_iter().filter(|record| record.node == from);
        let genuine =
            |signed: &SignedLocation<V>| signed.is_genuine(&Key::of_agent(&signed.record().agent));
        let kept = page.kept.into_iter().filter(genuine);
        let kept = kept.map(|signed| signed.record().clone());
        for record in held.chain(kept) {
            self.insert(record);
        }
    }

    fn insert(&mut self, record: LocationRecord) {
        let known = self.records.get(&record.agent);
        if known.is_none_or(|known| known.rank() < record.rank()) {
            self.records.insert(record.agent, record);
        }
    }

    /// Every agent that is known, by id: what the members said, what this node holds, and what it has found of nodes
    /// that did not answer.
    #[must_use]
    pub fn finish(mut self, registry: &AgentRegistry, prefix: &Prefix) -> Vec<Location> {
        let known = registry.locations.values();
        let known = known.map(|known| &known.location.record);
        for record in known.filter(|record| prefix.fits(&record.agent)) {
            if !self.answered.contains(&record.node) {
                self.insert(record.clone());
            }
        }
        let listed = self.records.into_values();
        let listed = listed.filter(|record| {
            record.state != AgentState::Removed && !registry.shut_out.contains(&record.node)
        });
        listed.map(|record| registry.location_of(record)).collect()
    }
}
