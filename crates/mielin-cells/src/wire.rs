//! What nodes say to each other about agents: protocol 101 (operations) in OxiCode headers.
//!
//! Every operation is one stream: a [`Call`] in the first frame's header, then any number of [`Answer::Step`] and
//! one last answer. Log bytes and copies of agents travel as the payload of their frames and meet no codec.

use mielin_mesh_core::{
    AgentId, AgentState, Epoch, MigrationStrategy, NodeId, RollbackReason, codec,
};
use mielin_safepoint::ModuleHash;
use mielin_wasm::{EngineKind, Grants};
use oxicode::{Decode, Encode};

use crate::budget::Budget;
use crate::error::{CellsError, ErrorKind};
use crate::report::{
    AgentEnd, AgentReport, HostLine, LogKind, MoveProgress, MoveReport, PhaseTime,
};
use crate::tally::Tallied;

/// The protocol number of operations on agents.
pub(crate) const OPERATIONS: u16 = 101;
/// The protocol number of requests for the leaves of a node.
pub(crate) const LEAVES: u16 = 102;
/// The protocol number of moves.
pub(crate) const MOVES: u16 = 200;
/// Pages that an agent waits for which runs while its memory follows.
pub(crate) const PAGES: u16 = 300;

/// The largest header of an operation.
pub(crate) const HEADER_MAX: usize = 60 * 1024;
/// Log bytes in one answer.
pub(crate) const LOG_CHUNK_MAX: usize = 256 * 1024;
/// Host lines in one answer, so that they fit a header.
const LINES_MAX: usize = 48;

/// An operation on an agent of the node that is asked.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct Call {
    pub(crate) agent: [u8; 16],
    pub(crate) operation: Operation,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) enum Operation {
    Inspect,
    Pause,
    Resume,
    Terminate,
    Wait,
    ReadLog {
        stderr: bool,
        offset: u64,
        wait_ms: u64,
    },
    HostLog,
    Migrate {
        node: [u8; 32],
        strategy: Option<u8>,
        downtime_ms: Option<u64>,
    },
    Remove,
    Recover,
    /// A copy of it; see [`Answer::Piece`].
    Checkpoint,
    /// A new agent on this node that is a copy of it.
    Clone {
        node: [u8; 32],
        name: Option<String>,
    },
    /// A new agent here of a copy of so many bytes, which follow as the payloads of frames without headers when this has
    /// been answered with [`Answer::Done`]. The agent of the call is the original.
    Restore {
        len: u64,
        name: Option<String>,
    },
    Hibernate,
}

impl Operation {
    /// Whether it may be asked again when the answer was lost.
    pub(crate) fn may_repeat(&self) -> bool {
        !matches!(
            self,
            Operation::Migrate { .. }
                | Operation::Remove
                | Operation::Recover
                | Operation::Clone { .. }
                | Operation::Restore { .. }
        )
    }
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) enum Answer {
    Done,
    Inspected(Inspected),
    Ended {
        exit_code: i32,
        failure: Option<String>,
    },
    /// The payload has the bytes.
    Log {
        offset: u64,
        end: bool,
    },
    HostLog(Vec<Line>),
    Step {
        phase: String,
        bytes: u64,
        elapsed_us: u64,
    },
    Moved(Moved),
    /// The agent lives on another node.
    Elsewhere {
        node: [u8; 32],
        epoch: u64,
    },
    /// The node never heard of the agent.
    Unknown,
    Failed(Failure),
    /// The payload of the next other answer begins with this one's.
    Piece,
    /// The payload is the end of a copy of the agent.
    Copied,
    /// A new agent.
    Made([u8; 16]),
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct Inspected {
    /// The node that answers, or its leaf.
    node: [u8; 32],
    name: String,
    state: AgentState,
    epoch: u64,
    module: [u8; 32],
    wasmi: bool,
    grants: Vec<String>,
    started_ms: u64,
    memory_bytes: u64,
    memory_bytes_max: u64,
    stdout_bytes: u64,
    stderr_bytes: u64,
    log_bytes_max: u64,
    mailbox_count: u64,
    waits_for: Option<[u8; 32]>,
    tallied: Tallied,
    budget: String,
    throttled: bool,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct Line {
    time_ms: u64,
    level: String,
    text: String,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct Moved {
    from: [u8; 32],
    to: [u8; 32],
    strategy: u8,
    downtime_us: u64,
    total_us: u64,
    bytes: u64,
    rounds: u32,
    pages: Vec<u64>,
    phases: Vec<(String, u64)>,
    tracker: String,
    target_resume_us: u64,
    followed: u64,
    faults: u64,
    unchanged: u64,
    throttled_percent: u8,
    page_bytes: [u64; 2],
}

/// An error as it crosses the wire; what has no form of its own keeps its class and its words.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) enum Failure {
    Ended,
    Busy(String),
    SameNode([u8; 32]),
    NodeNotFound(String),
    RolledBack {
        node: [u8; 32],
        reason: RollbackReason,
    },
    InDoubt([u8; 32]),
    Other {
        class: u8,
        message: String,
    },
    Alive,
    NameTaken(String),
}

impl Answer {
    pub(crate) fn ended(end: &AgentEnd) -> Answer {
        Answer::Ended {
            exit_code: end.exit_code,
            failure: end.failure.clone(),
        }
    }

    pub(crate) fn step(progress: MoveProgress) -> Answer {
        Answer::Step {
            phase: progress.phase,
            bytes: progress.bytes,
            elapsed_us: progress.elapsed_us,
        }
    }

    /// The newest lines that fit.
    pub(crate) fn host_log(lines: &[HostLine]) -> Answer {
        let newest = &lines[lines.len().saturating_sub(LINES_MAX)..];
        Answer::HostLog(newest.iter().map(Line::new).collect())
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Answer, CellsError> {
        codec::decode(bytes).map_err(|_| malformed("an answer"))
    }
}

impl Call {
    pub(crate) fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Call, CellsError> {
        codec::decode(bytes).map_err(|_| malformed("a call"))
    }
}

impl Line {
    pub(crate) fn new(line: &HostLine) -> Line {
        Line {
            time_ms: line.time_ms,
            level: line.level.clone(),
            text: line.text.clone(),
        }
    }

    pub(crate) fn into_host_line(self) -> HostLine {
        HostLine {
            time_ms: self.time_ms,
            level: self.level,
            text: self.text,
        }
    }
}

impl Inspected {
    pub(crate) fn new(report: &AgentReport) -> Inspected {
        Inspected {
            node: report.node.0,
            name: report.name.clone(),
            state: report.state.clone(),
            epoch: report.epoch.0,
            module: report.module.0,
            wasmi: report.engine == EngineKind::Wasmi,
            grants: report.grants.iter().map(ToString::to_string).collect(),
            started_ms: report.started_ms,
            memory_bytes: report.memory_bytes,
            memory_bytes_max: report.memory_bytes_max,
            stdout_bytes: report.stdout_bytes,
            stderr_bytes: report.stderr_bytes,
            log_bytes_max: report.log_bytes_max,
            mailbox_count: report.mailbox_count,
            waits_for: report.waits_for.map(|node| node.0),
            tallied: Tallied::new(&report.counters),
            budget: report.budget.to_string(),
            throttled: report.throttled,
        }
    }

    pub(crate) fn into_report(self, agent: AgentId) -> Result<AgentReport, CellsError> {
        Ok(AgentReport {
            agent,
            name: self.name,
            state: self.state,
            node: NodeId(self.node),
            epoch: Epoch(self.epoch),
            module: ModuleHash(self.module),
            engine: if self.wasmi {
                EngineKind::Wasmi
            } else {
                EngineKind::Wasmtime
            },
            grants: grants_from_text(&self.grants)?,
            started_ms: self.started_ms,
            memory_bytes: self.memory_bytes,
            memory_bytes_max: self.memory_bytes_max,
            stdout_bytes: self.stdout_bytes,
            stderr_bytes: self.stderr_bytes,
            log_bytes_max: self.log_bytes_max,
            mailbox_count: self.mailbox_count,
            waits_for: self.waits_for.map(NodeId),
            counters: self.tallied.counters(),
            budget: budget_from_text(&self.budget)?,
            throttled: self.throttled,
        })
    }
}

/// Grants as their texts, the form in which they travel.
pub(crate) fn grants_from_text(texts: &[String]) -> Result<Grants, CellsError> {
    texts
        .iter()
        .map(|text| text.parse().map_err(|_| malformed("a grant")))
        .collect()
}

/// A budget as its text, the form in which it travels.
pub(crate) fn budget_from_text(text: &str) -> Result<Budget, CellsError> {
    text.parse().map_err(|_| malformed("a budget"))
}

impl Moved {
    pub(crate) fn new(report: &MoveReport) -> Moved {
        Moved {
            from: report.from.0,
            to: report.to.0,
            strategy: strategy_number(report.strategy),
            downtime_us: report.downtime_us,
            total_us: report.total_us,
            bytes: report.bytes,
            rounds: report.rounds,
            pages: report.pages.clone(),
            phases: report
                .phases
                .iter()
                .map(|time| (time.phase.clone(), time.us))
                .collect(),
            tracker: report.tracker.clone(),
            target_resume_us: report.target_resume_us,
            followed: report.followed,
            faults: report.faults,
            unchanged: report.unchanged,
            throttled_percent: report.throttled_percent,
            page_bytes: [report.page_bytes, report.page_bytes_sent],
        }
    }

    pub(crate) fn into_report(self, agent: AgentId) -> Result<MoveReport, CellsError> {
        Ok(MoveReport {
            agent,
            from: NodeId(self.from),
            to: NodeId(self.to),
            strategy: strategy_from_number(self.strategy)?,
            downtime_us: self.downtime_us,
            total_us: self.total_us,
            bytes: self.bytes,
            rounds: self.rounds,
            pages: self.pages,
            phases: self
                .phases
                .into_iter()
                .map(|(phase, us)| PhaseTime { phase, us })
                .collect(),
            tracker: self.tracker,
            target_resume_us: self.target_resume_us,
            followed: self.followed,
            faults: self.faults,
            unchanged: self.unchanged,
            throttled_percent: self.throttled_percent,
            page_bytes: self.page_bytes[0],
            page_bytes_sent: self.page_bytes[1],
        })
    }
}

impl Failure {
    pub(crate) fn new(error: &CellsError) -> Failure {
        match error {
            CellsError::Ended(_) => Failure::Ended,
            CellsError::Alive(_) => Failure::Alive,
            CellsError::NameTaken(name) => Failure::NameTaken(name.clone()),
            CellsError::Busy { doing, .. } => Failure::Busy(doing.clone()),
            CellsError::SameNode { node, .. } => Failure::SameNode(node.0),
            CellsError::NodeNotFound(node) => Failure::NodeNotFound(node.clone()),
            CellsError::RolledBack { node, reason } => Failure::RolledBack {
                node: node.0,
                reason: reason.clone(),
            },
            CellsError::InDoubt { node, .. } => Failure::InDoubt(node.0),
            other => Failure::Other {
                class: class_number(other.kind()),
                message: other.to_string(),
            },
        }
    }

    pub(crate) fn into_error(self, agent: AgentId) -> CellsError {
        match self {
            Failure::Ended => CellsError::Ended(agent),
            Failure::Alive => CellsError::Alive(agent),
            Failure::NameTaken(name) => CellsError::NameTaken(name),
            Failure::Busy(doing) => CellsError::Busy { agent, doing },
            Failure::SameNode(node) => CellsError::SameNode {
                agent,
                node: NodeId(node),
            },
            Failure::NodeNotFound(node) => CellsError::NodeNotFound(node),
            Failure::RolledBack { node, reason } => CellsError::RolledBack {
                node: NodeId(node),
                reason,
            },
            Failure::InDoubt(node) => CellsError::InDoubt {
                agent,
                node: NodeId(node),
            },
            Failure::Other { class, message } => CellsError::Remote {
                kind: class_from_number(class),
                message,
            },
        }
    }
}

pub(crate) fn strategy_number(strategy: MigrationStrategy) -> u8 {
    match strategy {
        MigrationStrategy::StopCopy => 0,
        MigrationStrategy::PreCopy => 1,
        MigrationStrategy::PostCopy => 2,
        MigrationStrategy::Hybrid => 3,
    }
}

pub(crate) fn strategy_from_number(number: u8) -> Result<MigrationStrategy, CellsError> {
    match number {
        0 => Ok(MigrationStrategy::StopCopy),
        1 => Ok(MigrationStrategy::PreCopy),
        2 => Ok(MigrationStrategy::PostCopy),
        3 => Ok(MigrationStrategy::Hybrid),
        _ => Err(malformed("a strategy")),
    }
}

fn class_number(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Usage => 0,
        ErrorKind::Refused => 1,
        ErrorKind::NotFound => 2,
        ErrorKind::Unreachable => 3,
        ErrorKind::Internal => 4,
    }
}

fn class_from_number(class: u8) -> ErrorKind {
    match class {
        0 => ErrorKind::Usage,
        1 => ErrorKind::Refused,
        2 => ErrorKind::NotFound,
        3 => ErrorKind::Unreachable,
        _ => ErrorKind::Internal,
    }
}

pub(crate) fn malformed(what: &str) -> CellsError {
    CellsError::Remote {
        kind: ErrorKind::Internal,
        message: format!("the other node sent {what} that is malformed"),
    }
}

pub(crate) fn log_kind(stderr: bool) -> LogKind {
    if stderr {
        LogKind::Stderr
    } else {
        LogKind::Stdout
    }
}

#[cfg(test)]
mod tests;
