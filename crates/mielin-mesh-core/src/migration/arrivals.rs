//! What a target remembers about agents that came, so that it can answer a source in doubt.

use oxicode::{Decode, Encode};

use crate::{AgentId, Epoch};

/// What a target says to a source in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum QueryReply {
    /// The agent was started here with this epoch (it may have moved on or ended since).
    Running {
        /// The epoch.
        epoch: Epoch,
    },
    /// The agent was not started here in that epoch, and will not be.
    NotHere {
        /// The last epoch in which it was started here, zero if never.
        last: Epoch,
    },
}

/// The agents that were started here by a move, each with its last epoch.
#[derive(Clone, Debug, Default)]
pub struct Arrivals {}

impl Arrivals {
    /// Remembers that an agent was started here. Call it before the agent's first instruction.
    pub fn record(&mut self, _agent: AgentId, _epoch: Epoch) {
        todo!()
    }
    /// The answer to a source that handed `agent` over in `epoch`. Cut a receiver that still waits for
    /// the agent's `Go` *before* asking: an agent that is not here now must not start later.
    pub fn answer(&self, _agent: &AgentId, _epoch: Epoch) -> QueryReply {
        todo!()
    }
}
