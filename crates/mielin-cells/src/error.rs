//! What can go wrong with an agent, said so that a person can act on it.

use std::path::PathBuf;

use mielin_mesh::{Absence, MeshError};
use mielin_mesh_core::{AgentId, MemberState, NodeId, RollbackReason};
use mielin_safepoint::{InstrumentError, ModuleHash};
use mielin_wasm::EngineError;
use thiserror::Error;

use crate::stored::CheckpointError;

/// The class of an error: what a command line turns into an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request itself is wrong; asking again gives the same answer.
    Usage,
    /// The request is understood and denied: a limit, a state, a broken move.
    Refused,
    /// No such agent or node.
    NotFound,
    /// The node that would have to answer does not.
    Unreachable,
    /// The fault is this node's.
    Internal,
}

/// An operation on agents that did not happen. Unless a variant says otherwise, nothing was changed.
#[derive(Debug, Error)]
pub enum CellsError {
    /// Neither an id, a unique prefix nor a name of an agent.
    #[error("no agent is called `{0}`")]
    AgentNotFound(String),
    /// A prefix or name that fits several agents.
    #[error("`{query}` fits {count} agents; give more of the id")]
    AgentAmbiguous {
        /// What was asked for.
        query: String,
        /// How many agents it fits.
        count: usize,
    },
    /// Neither an id, a unique prefix nor a name of a member of the mesh.
    #[error("no node is called `{0}`")]
    NodeNotFound(String),
    /// A leaf of this node, by its name, that nobody knows more of.
    #[error("the leaf `{0}` has never been here")]
    LeafAwaited(String),
    /// A prefix or name that fits several nodes.
    #[error("`{query}` fits {count} nodes; give more of the id")]
    NodeAmbiguous {
        /// What was asked for.
        query: String,
        /// How many nodes it fits.
        count: usize,
    },
    /// A name that an agent may not have.
    #[error(
        "`{0}` is not a name: use 1 to 63 letters, digits, `-`, `_` or `.`, beginning with a letter or digit, and not 32 hex digits"
    )]
    BadName(String),
    /// Another living agent has this name.
    #[error("the name `{0}` is taken by another agent")]
    NameTaken(String),
    /// An argument or variable that a program cannot be given.
    #[error("an argument or environment variable contains a zero byte: {0:?}")]
    BadArgument(String),
    /// The module cannot become an agent.
    #[error("the module was refused: {0}")]
    BadModule(#[from] InstrumentError),
    /// The module in which an agent was stopped is not what this node's rewriter makes of the agent's program.
    #[error(
        "the agent was stopped in module {expected}, and this node makes {found} of its program: \
         it has another version of the rewriter"
    )]
    OtherRewriter {
        /// The module that the agent was stopped in.
        expected: ModuleHash,
        /// What the rewriter of this node makes.
        found: ModuleHash,
    },
    /// A checkpoint, or a stored agent, from which no agent can be made.
    #[error("the checkpoint cannot be used: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// A hibernated agent whose file is damaged. It goes on sleeping.
    #[error("agent {} cannot be woken from {}: {reason}", agent.short(), path.display())]
    Unwakeable {
        /// The agent.
        agent: AgentId,
        /// What is stored of it.
        path: PathBuf,
        /// What is wrong with that.
        reason: Box<CheckpointError>,
    },
    /// The engine refused the module or could not make an instance.
    #[error("{0}")]
    Engine(#[from] EngineError),
    /// The program needs more memory from the beginning than it is given.
    #[error("the program begins with {needed} bytes of memory, and its budget is {budget}")]
    MemoryBudget {
        /// What it begins with.
        needed: u64,
        /// What it may have.
        budget: u64,
    },
    /// A module, its input or a payload is larger than allowed.
    #[error("{what} is {len} bytes; at most {max} are allowed")]
    TooLarge {
        /// What is too large.
        what: String,
        /// Its length.
        len: u64,
        /// The limit.
        max: u64,
    },
    /// The node holds as many agents as it may.
    #[error("the node already holds {max} agents")]
    Full {
        /// The limit.
        max: u64,
    },
    /// The agent is in the middle of something else.
    #[error("agent {} is busy: {doing}; try again when that is over", agent.short())]
    Busy {
        /// The agent.
        agent: AgentId,
        /// What it is doing.
        doing: String,
    },
    /// The agent is on a leaf, where it can only be sent messages, moved and ended.
    #[error("agent {} is on the leaf {}; move it to a node first", agent.short(), leaf.short())]
    OnLeaf {
        /// The agent.
        agent: AgentId,
        /// The leaf.
        leaf: NodeId,
    },
    /// A leaf takes no agents now, or gives none back.
    #[error("the leaf {} is not ready: {why}", leaf.short())]
    LeafNotReady {
        /// The leaf.
        leaf: NodeId,
        /// Why.
        why: &'static str,
    },
    /// An agent that was to go to a leaf of another node has come to that node, and as far as is known no further.
    #[error("{error}; agent {} had come to the leaf's host {} by then", agent.short(), host.short())]
    AtHost {
        /// The agent.
        agent: AgentId,
        /// The host.
        host: NodeId,
        /// Why it has gone no further.
        error: Box<CellsError>,
    },
    /// A leaf has not taken an agent, which goes on here.
    #[error("the leaf {} has not taken agent {}: {why}", leaf.short(), agent.short())]
    NotTaken {
        /// The agent.
        agent: AgentId,
        /// The leaf.
        leaf: NodeId,
        /// Why.
        why: String,
    },
    /// The agent has ended; only its logs and exit code are left.
    #[error("agent {} has ended", .0.short())]
    Ended(AgentId),
    /// The agent lives, so it cannot be removed.
    #[error("agent {} has not ended", .0.short())]
    Alive(AgentId),
    /// A move to the node where the agent already is.
    #[error("agent {} is already on node {}", agent.short(), node.short())]
    SameNode {
        /// The agent.
        agent: AgentId,
        /// Where it is.
        node: NodeId,
    },
    /// The mesh could not be asked where agents are.
    #[error("the mesh could not be asked: {0}")]
    Mesh(#[from] MeshError),
    /// Moves are switched off on this node.
    #[error("moves are switched off on node {}", .0.short())]
    MigrationOff(NodeId),
    /// The node does not answer.
    #[error("node {} does not answer: {reason}", node.short())]
    Unreachable {
        /// The node.
        node: NodeId,
        /// What the mesh says.
        reason: String,
    },
    /// Membership says that the node is not there: nothing was begun, and no message was sent.
    #[error("{}", gone(.0))]
    Gone(Absence),
    /// Membership says that the node is not there to which a message was sent before. It may be in the agent's mailbox;
    /// else it waits on this node, before those that are sent later, for as long as this node runs.
    #[error("{}, and a message to agent {} is on its way", gone(absence), agent.short())]
    OnItsWay {
        /// The agent.
        agent: AgentId,
        /// What became of its node.
        absence: Absence,
    },
    /// Nothing happened within the time allowed. A message may still arrive.
    #[error("no answer from agent {} within {after_ms} ms", agent.short())]
    TimedOut {
        /// The agent.
        agent: AgentId,
        /// How long it was waited for.
        after_ms: u64,
    },
    /// The move did not happen; the agent goes on where it was, unless it lives elsewhere with a higher epoch.
    #[error("the move to node {} was rolled back: {reason}{}", node.short(), afterwards(.reason))]
    RolledBack {
        /// Where the agent was to go.
        node: NodeId,
        /// Why it did not.
        reason: RollbackReason,
    },
    /// The hand-over was under way when the target was lost; the agent stays frozen until its fate is known.
    #[error(
        "whether agent {} has moved to node {} is in doubt; it stays frozen until that node answers",
        .agent.short(), .node.short()
    )]
    InDoubt {
        /// The agent.
        agent: AgentId,
        /// The node that may have it.
        node: NodeId,
    },
    /// The receiver's mailbox stayed full.
    #[error("the mailbox of agent {} is full", .0.short())]
    MailboxFull(AgentId),
    /// Another node answered with an error.
    #[error("{message}")]
    Remote {
        /// Its class.
        kind: ErrorKind,
        /// The other node's words.
        message: String,
    },
    /// The node is stopping.
    #[error("the node is shutting down")]
    ShuttingDown,
    /// The node has no directory, so that nothing can be put there.
    #[error("the agent's node keeps nothing on its disk")]
    NoDisk,
    /// The agent does not wait for a node that may have it.
    #[error("agent {} is not in doubt", .0.short())]
    NotInDoubt(AgentId),
    /// A file operation failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The ledger of agents cannot be used.
    #[error("{what}: {reason}")]
    Ledger {
        /// What was tried.
        what: String,
        /// The database's answer.
        reason: String,
    },
    /// Something that should not happen.
    #[error("internal error: {0}")]
    Internal(String),
}

/// Which node, what became of it, and when.
fn gone(absence: &Absence) -> String {
    let seconds = absence.since.as_secs();
    let ago = match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3_600),
    };
    let what = match absence.state {
        _ if absence.revoked => "was revoked",
        MemberState::Left => "left the mesh",
        MemberState::Stopped => "was stopped",
        _ => "was declared dead",
    };
    let id = absence.node.short();
    match &absence.name {
        Some(name) => format!("node {name} ({id}) {what} {ago} ago"),
        None => format!("node {id} {what} {ago} ago"),
    }
}

impl CellsError {
    /// The class of this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            CellsError::BadName(_)
            | CellsError::BadArgument(_)
            | CellsError::AgentAmbiguous { .. }
            | CellsError::NodeAmbiguous { .. } => ErrorKind::Usage,
            CellsError::AgentNotFound(_)
            | CellsError::NodeNotFound(_)
            | CellsError::LeafAwaited(_) => ErrorKind::NotFound,
            CellsError::Gone(absence) | CellsError::OnItsWay { absence, .. } if absence.revoked => {
                ErrorKind::Refused
            }
            CellsError::Unreachable { .. }
            | CellsError::Gone(_)
            | CellsError::OnItsWay { .. }
            | CellsError::TimedOut { .. }
            | CellsError::InDoubt { .. } => ErrorKind::Unreachable,
            CellsError::RolledBack { reason, .. } => rolled_back(reason),
            CellsError::AtHost { error, .. } => error.kind(),
            CellsError::Remote { kind, .. } => *kind,
            CellsError::Io { .. } | CellsError::Ledger { .. } | CellsError::Internal(_) => {
                ErrorKind::Internal
            }
            _ => ErrorKind::Refused,
        }
    }

    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> CellsError {
        let what = what.into();
        move |source| CellsError::Io { what, source }
    }
}

/// The class of a move that did not happen: whether the target was lost, or said no.
fn rolled_back(reason: &RollbackReason) -> ErrorKind {
    match reason {
        RollbackReason::TimedOut
        | RollbackReason::ConnectionLost
        | RollbackReason::TargetDied
        | RollbackReason::SourceDied
        | RollbackReason::NotStarted
        | RollbackReason::Forced => ErrorKind::Unreachable,
        RollbackReason::Refused(_)
        | RollbackReason::TargetFailed(_)
        | RollbackReason::SourceFailed(_)
        | RollbackReason::Cancelled
        | RollbackReason::Protocol
        | RollbackReason::Superseded => ErrorKind::Refused,
    }
}

fn afterwards(reason: &RollbackReason) -> &'static str {
    match reason {
        RollbackReason::Superseded => "",
        _ => "; the agent goes on at its source",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::wire::{Answer, Failure};

    /// Also as whoever asked on another node hears it.
    #[test]
    fn a_lost_target_is_unreachable_and_one_that_says_no_refuses() {
        let reasons = [
            (RollbackReason::TargetDied, ErrorKind::Unreachable),
            (RollbackReason::ConnectionLost, ErrorKind::Unreachable),
            (RollbackReason::TimedOut, ErrorKind::Unreachable),
            (RollbackReason::NotStarted, ErrorKind::Unreachable),
            (
                RollbackReason::Refused("full".to_owned()),
                ErrorKind::Refused,
            ),
            (RollbackReason::Cancelled, ErrorKind::Refused),
        ];
        let agent = AgentId([1; 16]);
        for (reason, kind) in reasons {
            let error = CellsError::RolledBack {
                node: NodeId([2; 32]),
                reason,
            };
            let sent = Answer::Failed(Failure::new(&error)).encode();
            let Answer::Failed(failure) = Answer::decode(&sent).unwrap() else {
                panic!("another answer than was sent");
            };
            let heard = failure.into_error(agent);
            assert_eq!((error.kind(), heard.kind()), (kind, kind), "{error}");
            assert_eq!(error.to_string(), heard.to_string());
            assert!(
                error
                    .to_string()
                    .ends_with("the agent goes on at its source")
            );
        }
        let node = NodeId([2; 32]);
        let doubt = CellsError::InDoubt { agent, node };
        let Answer::Failed(failure) =
            Answer::decode(&Answer::Failed(Failure::new(&doubt)).encode()).unwrap()
        else {
            panic!("another answer than was sent");
        };
        let heard = failure.into_error(agent);
        assert_eq!(heard.kind(), ErrorKind::Unreachable);
        assert_eq!(heard.to_string(), doubt.to_string());
        assert!(heard.to_string().contains(&node.short()), "{heard}");
    }
}
