//! The agents that are here or were, and an index of their names.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;

use mielin_mesh_core::{AgentId, Epoch, NodeId};

use crate::cell::Cell;

#[derive(Default)]
pub(super) struct Table {
    residents: HashMap<AgentId, Resident>,
    names: Names,
    /// Ended agents in the order of their end, and agents that left: the oldest are forgotten first.
    pub(super) ended: VecDeque<AgentId>,
    pub(super) left: VecDeque<AgentId>,
}

pub(super) enum Resident {
    Here(Arc<Cell>),
    /// A tombstone: where it went, and with which epoch.
    Left(NodeId, Epoch),
}

/// The agents that are here, by a hash of their names: a set of numbers is small, and who looks compares the names.
#[derive(Default)]
struct Names {
    hasher: RandomState,
    agents: BTreeSet<(u64, AgentId)>,
}

impl Table {
    pub(super) fn get(&self, agent: &AgentId) -> Option<&Resident> {
        self.residents.get(agent)
    }

    pub(super) fn here(&self, agent: &AgentId) -> Option<&Arc<Cell>> {
        match self.residents.get(agent) {
            Some(Resident::Here(cell)) => Some(cell),
            Some(Resident::Left(..)) | None => None,
        }
    }

    pub(super) fn insert(&mut self, agent: AgentId, resident: Resident) {
        self.remove(&agent);
        if let Resident::Here(cell) = &resident {
            let name = self.names.hash(&cell.identity.name);
            self.names.agents.insert((name, agent));
        }
        self.residents.insert(agent, resident);
    }

    pub(super) fn remove(&mut self, agent: &AgentId) {
        if let Some(Resident::Here(cell)) = self.residents.remove(agent) {
            let name = self.names.hash(&cell.identity.name);
            self.names.agents.remove(&(name, *agent));
        }
    }

    /// The agents that are here, living or ended.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Cell>> {
        self.residents
            .values()
            .filter_map(|resident| match resident {
                Resident::Here(cell) => Some(cell),
                Resident::Left(..) => None,
            })
    }

    pub(super) fn living(&self) -> impl Iterator<Item = &Arc<Cell>> {
        self.all().filter(|cell| !cell.state().is_final())
    }

    /// Whether at least so many live here. They are counted only where that is not clear.
    pub(super) fn lives_at_least(&self, count: usize) -> bool {
        self.names.agents.len() >= count && self.living().count() >= count
    }

    /// Those that are here and have this name, living or ended.
    pub(super) fn named(&self, name: &str) -> impl Iterator<Item = &Arc<Cell>> {
        let hash = self.names.hash(name);
        let like = (hash, AgentId([0; 16]))..=(hash, AgentId([u8::MAX; 16]));
        let like = self.names.agents.range(like);
        like.filter_map(|(_, agent)| self.here(agent))
            .filter(move |cell| cell.identity.name == name)
    }
}

impl Names {
    fn hash(&self, name: &str) -> u64 {
        self.hasher.hash_one(name)
    }
}
