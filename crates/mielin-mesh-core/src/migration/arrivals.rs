//! What a target remembers about agents that came, so that it can answer a source in doubt.

use alloc::collections::{BTreeMap, VecDeque};

use oxicode::{Decode, Encode};

use crate::limits::ARRIVALS_MAX;
use crate::{AgentId, Epoch};

/// What a source in doubt asks the target, on a connection of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Query {
    /// The agent that was handed over.
    pub agent: AgentId,
    /// The epoch it was handed over in.
    pub epoch: Epoch,
}

/// What a target says to a source in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum QueryReply {
    /// The agent was started here and is this node's (it may have moved on, ended or been lost since).
    Running {
        /// The last epoch in which it was.
        epoch: Epoch,
    },
    /// The agent was started here, and this node has not yet secured it or undone that. Ask again.
    Unsettled,
    /// The agent was not started here in that epoch, and will not be.
    NotHere {
        /// The last epoch in which it was started here, zero if never.
        last: Epoch,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
struct Arrival {
    /// The last epoch started here.
    started: Epoch,
    /// The last epoch in which it became this node's.
    secured: Epoch,
    /// The last epoch of which a source was told that it will not start here.
    denied: Epoch,
}

/// The agents that were handed over to this node, each with what its sources may rely on.
///
/// One value per node, shared by all its receivers under one lock: starting an agent and denying that it will
/// start exclude each other, and that is what makes a source's question safe while a `Go` is on its way.
/// The last [`ARRIVALS_MAX`] agents are remembered. A source asks every second, so it would have to be cut
/// off for as many arrivals before a wrong answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Arrivals {
    arrivals: BTreeMap<AgentId, Arrival>,
    oldest: VecDeque<AgentId>,
}

impl Arrivals {
    /// Nobody came yet.
    #[must_use]
    pub const fn new() -> Arrivals {
        Arrivals {
            arrivals: BTreeMap::new(),
            oldest: VecDeque::new(),
        }
    }

    /// Notes that an agent is about to be started here; false if its source was told that it will not be,
    /// or if it was started in that epoch before.
    #[must_use]
    pub fn start(&mut self, agent: AgentId, epoch: Epoch) -> bool {
        let arrival = self.entry(agent);
        let may = epoch > arrival.denied && epoch > arrival.started;
        if may {
            arrival.started = epoch;
        }
        may
    }

    /// The agent is this node's from now on: it has everything, and has written that down.
    pub fn secure(&mut self, agent: AgentId, epoch: Epoch) {
        let arrival = self.entry(agent);
        arrival.started = arrival.started.max(epoch);
        arrival.secured = arrival.secured.max(epoch);
    }

    /// The agent that was started in this epoch has been stopped before it was secured, with no trace, and will not be
    /// started in it again.
    pub fn undo(&mut self, agent: AgentId, epoch: Epoch) {
        let arrival = self.entry(agent);
        if arrival.started == epoch && arrival.secured < epoch {
            arrival.started = arrival.secured;
            arrival.denied = arrival.denied.max(epoch);
        }
    }

    /// The answer to a source in doubt. If it is [`QueryReply::NotHere`], the agent will not be started here
    /// in that epoch any more.
    #[must_use]
    pub fn answer(&mut self, query: Query) -> QueryReply {
        let arrival = self.entry(query.agent);
        if arrival.secured >= query.epoch {
            return QueryReply::Running {
                epoch: arrival.secured,
            };
        }
        if arrival.started >= query.epoch {
            return QueryReply::Unsettled;
        }
        arrival.denied = arrival.denied.max(query.epoch);
        QueryReply::NotHere {
            last: arrival.started,
        }
    }

    fn entry(&mut self, agent: AgentId) -> &mut Arrival {
        if !self.arrivals.contains_key(&agent) {
            if self.oldest.len() >= ARRIVALS_MAX
                && let Some(forgotten) = self.oldest.pop_front()
            {
                self.arrivals.remove(&forgotten);
            }
            self.oldest.push_back(agent);
        }
        self.arrivals.entry(agent).or_default()
    }
}
