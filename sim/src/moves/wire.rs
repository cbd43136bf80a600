//! What nodes say to each other, and what they report to the witness.

use std::fmt;

use mielin_mesh_core::delivery::DeliveryReply;
use mielin_mesh_core::migration::{Query, QueryReply};
use mielin_mesh_core::{AgentId, Epoch, LocationRecord, MigrationFrame, MigrationPhase};
use oxicode::{Decode, Encode};

use super::agent::Travelling;
use super::stream::Packet;

/// A datagram.
#[derive(Debug, Encode, Decode)]
pub(super) enum Datagram {
    /// Of a stream.
    Stream(Packet),
    /// A message that is posted: an envelope.
    Post(Vec<u8>),
    /// What is said to one.
    Answer {
        source: AgentId,
        destination: AgentId,
        reply: Option<DeliveryReply>,
    },
    /// Messages of one agent to another, and the sender waits for the answer.
    Exchange {
        number: u64,
        destination: AgentId,
        envelopes: Vec<Vec<u8>>,
    },
    /// That answer.
    Exchanged { number: u64, reply: DeliveryReply },
    /// Where is this agent?
    Where(AgentId),
    /// Where an agent is.
    Record(LocationRecord),
}

/// What is said on a stream.
#[derive(Debug, Encode, Decode)]
pub(super) enum Said {
    Frame {
        frame: MigrationFrame,
        tail: Tail,
    },
    /// The agent waits for this page.
    Wanted(u32),
    Query(Query),
    Reply(QueryReply),
}

/// What follows a frame.
#[derive(Clone, Debug, Encode, Decode)]
pub(super) enum Tail {
    Nothing,
    /// Pages and what is in them.
    Pages(Vec<(u32, u32)>),
    /// Pages that are zero, or that follow.
    Named(Vec<u32>),
    State(Travelling),
}

/// What a node reports.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// A move has come to another phase, or begins.
    Phase {
        agent: AgentId,
        number: u64,
        target: usize,
        phase: MigrationPhase,
    },
    /// A copy begins to run, or goes on.
    Runs {
        agent: AgentId,
        epoch: Epoch,
        /// The epoch of which it knows.
        since: Epoch,
        /// It may have to be given back.
        provisional: bool,
        /// The last message of each sender that it has.
        has: Vec<(AgentId, u64)>,
    },
    /// It stands still, and is kept.
    Stops { agent: AgentId },
    /// It was given up here.
    Drops { agent: AgentId },
    /// It is this node's.
    Keeps { agent: AgentId },
    /// What it says and acknowledges is let out.
    Opens { agent: AgentId },
    /// A page is not what it was at the source.
    Torn { agent: AgentId, page: u32 },
    /// A message left the node, perhaps again.
    Sent {
        agent: AgentId,
        to: AgentId,
        sequence: u64,
        content: u64,
    },
    /// A message was taken into the mailbox, and is acknowledged.
    Took {
        agent: AgentId,
        from: AgentId,
        sequence: u64,
        content: u64,
    },
    /// The agent dealt with a message.
    Heard {
        agent: AgentId,
        from: AgentId,
        sequence: u64,
        is_next: bool,
    },
    /// Messages to an agent were dropped because it has ended.
    Dropped { agent: AgentId, to: AgentId },
    /// The mesh was told that the agent is here.
    Announced { agent: AgentId, epoch: Epoch },
    /// For the trace.
    Note { agent: AgentId, text: String },
}

/// A line of a trace, without the agent whose it is.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Phase {
                number,
                target,
                phase,
                ..
            } => write!(f, "move {number} to node {target}: {phase}"),
            Event::Runs {
                epoch,
                since,
                provisional,
                ..
            } => {
                let how = if *provisional { ", provisionally" } else { "" };
                write!(f, "runs in epoch {epoch}, knows of {since}{how}")
            }
            Event::Stops { .. } => f.write_str("stands still"),
            Event::Drops { .. } => f.write_str("is dropped"),
            Event::Keeps { .. } => f.write_str("is this node's"),
            Event::Opens { .. } => f.write_str("messages go out"),
            Event::Torn { page, .. } => write!(f, "page {page} is torn"),
            Event::Sent { to, sequence, .. } => write!(f, "sends {sequence} to {}", to.short()),
            Event::Took { from, sequence, .. } => {
                write!(f, "acknowledges {sequence} of {}", from.short())
            }
            Event::Heard { from, sequence, .. } => {
                write!(f, "deals with {sequence} of {}", from.short())
            }
            Event::Dropped { to, .. } => write!(f, "has messages to {} dropped", to.short()),
            Event::Announced { epoch, .. } => write!(f, "is announced in epoch {epoch}"),
            Event::Note { text, .. } => f.write_str(text),
        }
    }
}

impl Event {
    pub(super) fn agent(&self) -> AgentId {
        match self {
            Event::Phase { agent, .. }
            | Event::Runs { agent, .. }
            | Event::Stops { agent }
            | Event::Drops { agent }
            | Event::Keeps { agent }
            | Event::Opens { agent }
            | Event::Torn { agent, .. }
            | Event::Sent { agent, .. }
            | Event::Took { agent, .. }
            | Event::Heard { agent, .. }
            | Event::Dropped { agent, .. }
            | Event::Announced { agent, .. }
            | Event::Note { agent, .. } => *agent,
        }
    }
}
