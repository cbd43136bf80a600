//! What callers hand in and get back: requests to spawn and move, and reports about agents and moves.

use std::time::Duration;

use bytes::Bytes;
use mielin_mesh_core::{AgentId, AgentState, Epoch, MigrationStrategy, NodeId};
use mielin_safepoint::ModuleHash;
use mielin_wasm::{EngineKind, Grants, Limits};

use crate::budget::{Budget, Measure, Spending};
use crate::lodging::Handover;

/// An agent to be started on this node.
#[derive(Clone, Debug)]
pub struct SpawnRequest {
    /// A WASI preview-1 command, as a compiler makes it.
    pub module: Bytes,
    /// The agent's name in the mesh; generated from `hint` when absent.
    pub name: Option<String>,
    /// What a generated name begins with, usually the file's stem.
    pub hint: Option<String>,
    /// Arguments after the program's name.
    pub args: Vec<String>,
    /// Environment variables.
    pub env: Vec<(String, String)>,
    /// The whole of standard input.
    pub stdin: Bytes,
    /// What the agent may do.
    pub grants: Grants,
    /// Limits other than the node's.
    pub limits: Option<Limits>,
    /// What it may use up, and how fast. A budget for memory takes the place of the limit.
    pub budget: Budget,
}

impl SpawnRequest {
    /// A request that grants nothing and passes nothing.
    #[must_use]
    pub fn new(module: impl Into<Bytes>) -> SpawnRequest {
        SpawnRequest {
            module: module.into(),
            name: None,
            hint: None,
            args: Vec::new(),
            env: Vec::new(),
            stdin: Bytes::new(),
            grants: Grants::default(),
            limits: None,
            budget: Budget::default(),
        }
    }
}

/// The agents of the mesh, as far as its members could be asked.
#[derive(Clone, Debug)]
pub struct AgentDirectory {
    /// Every agent, ordered by name.
    pub agents: Vec<AgentSummary>,
    /// Members that did not answer: agents that they hold may be missing.
    pub silent: Vec<NodeId>,
    /// Members whose agents are not listed, because their registry is off, or all others where this node's is.
    pub unlisted: Vec<NodeId>,
}

/// One line of the list of agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentSummary {
    /// The agent.
    pub agent: AgentId,
    /// Its name.
    pub name: String,
    /// What it does, as last announced.
    pub state: AgentState,
    /// The node it is on.
    pub node: NodeId,
    /// How often it was handed over.
    pub epoch: Epoch,
    /// Milliseconds since the Unix epoch at which it was spawned.
    pub started_ms: u64,
    /// Whether that node is alive, as far as this one knows.
    pub reachable: bool,
}

/// Everything a node tells about one of its agents.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentReport {
    /// The agent.
    pub agent: AgentId,
    /// Its name.
    pub name: String,
    /// What it does.
    pub state: AgentState,
    /// The node it is on.
    pub node: NodeId,
    /// How often it was handed over.
    pub epoch: Epoch,
    /// The rewritten module it runs.
    pub module: ModuleHash,
    /// The engine it runs on here.
    pub engine: EngineKind,
    /// What it may do.
    pub grants: Grants,
    /// Milliseconds since the Unix epoch at which it was spawned.
    pub started_ms: u64,
    /// Bytes of linear memory.
    pub memory_bytes: u64,
    /// What they may become.
    pub memory_bytes_max: u64,
    /// Bytes in its standard output so far.
    pub stdout_bytes: u64,
    /// Bytes in its standard error so far.
    pub stderr_bytes: u64,
    /// Bytes of each stream that its log keeps.
    pub log_bytes_max: u64,
    /// Messages that wait in its mailbox.
    pub mailbox_count: u64,
    /// The node that may have it: it was handed over, that node does not answer, and this copy is frozen until it does.
    pub waits_for: Option<NodeId>,
    /// What it did so far.
    pub counters: Counters,
    /// What it may use up and how much of that it has; empty if nothing was bounded when it was spawned.
    pub budget: Budget,
    /// It was faster than its budget allows, and is held back for a while.
    pub throttled: bool,
}

/// What an agent did since it was spawned; it travels with the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Turns on a worker thread.
    pub turns: u64,
    /// Microseconds on a worker thread.
    pub busy_us: u64,
    /// Messages accepted into its mailbox.
    pub received: u64,
    /// Messages it sent.
    pub sent: u64,
    /// Calls refused for want of a grant.
    pub denied: u64,
    /// Completed moves.
    pub moves: u64,
    /// Nanoseconds on a processor, in its program and in host calls.
    pub cpu_ns: u64,
    /// Bytes that it wrote to standard output, standard error and the host log.
    pub log_bytes: u64,
    /// Host calls; one that waits is one.
    pub host_calls: u64,
}

impl AgentReport {
    /// The parts of its budget, and how much of each is used up.
    #[must_use]
    pub fn spending(&self) -> Vec<Spending> {
        let counters = &self.counters;
        self.budget
            .spending(self.memory_bytes, |measure| match measure {
                Measure::Cpu => counters.cpu_ns,
                Measure::Messages => counters.sent,
                Measure::Log => counters.log_bytes,
                Measure::HostCalls => counters.host_calls,
            })
    }
}

/// How an agent ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentEnd {
    /// Its exit code: the program's own, 134 after a trap, 137 after `terminate`, 152 when it
    /// had used up its budget, 129 if it was lost with its node.
    pub exit_code: i32,
    /// Why it did not end by itself.
    pub failure: Option<String>,
}

/// The exit code of an agent that trapped.
pub const EXIT_TRAPPED: i32 = 134;
/// The exit code of an agent that was terminated.
pub const EXIT_TERMINATED: i32 = 137;
/// The exit code of an agent that had used up its budget: that of a process which was ended by SIGXCPU.
pub const EXIT_OVER_BUDGET: i32 = 152;
/// The exit code of an agent whose node stopped without storing it.
pub const EXIT_LOST: i32 = 129;

impl AgentEnd {
    /// The end as it is announced.
    pub(crate) fn state(&self) -> AgentState {
        match &self.failure {
            // The whole of the reason is in the host log.
            Some(reason) if self.exit_code != EXIT_TERMINATED => AgentState::Failed {
                reason: reason
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .chars()
                    .take(200)
                    .collect(),
            },
            _ => AgentState::Ended {
                exit_code: self.exit_code,
            },
        }
    }
}

/// One of an agent's two byte streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogKind {
    /// What it wrote to file descriptor 1.
    Stdout,
    /// What it wrote to file descriptor 2.
    Stderr,
}

/// A piece of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogChunk {
    /// Where the piece begins.
    pub offset: u64,
    /// The bytes; empty when nothing new was written in the time allowed.
    pub bytes: Bytes,
    /// Whether the agent has ended and nothing follows these bytes.
    pub end: bool,
}

/// A line the node wrote about an agent: a denial, or what the agent said through `mielin.log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostLine {
    /// Milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
    /// The text, cut to a kilobyte.
    pub text: String,
}

/// How to move an agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MoveOptions {
    /// The strategy. By default stop-copy for a small memory; else as much goes ahead as pays, and what is left goes
    /// while the agent stands still if that takes no longer than `downtime`, and else follows it.
    pub strategy: Option<MigrationStrategy>,
    /// How long the agent should stand still at most; 5 ms by default. A wish, not a promise.
    pub downtime: Option<Duration>,
}

/// A step of a move, as it happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoveProgress {
    /// The phase that begins, by its name; `pre-copy 3` for the third round.
    pub phase: String,
    /// Bytes sent so far.
    pub bytes: u64,
    /// Microseconds since the move began.
    pub elapsed_us: u64,
}

/// A completed move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoveReport {
    /// The agent.
    pub agent: AgentId,
    /// The node it left.
    pub from: NodeId,
    /// The node it runs on now.
    pub to: NodeId,
    /// What was done.
    pub strategy: MigrationStrategy,
    /// From the moment the source stopped running the agent until it knew that the target runs it.
    pub downtime_us: u64,
    /// From the request until the target had everything and the source let go.
    pub total_us: u64,
    /// Bytes sent by the source, module included.
    pub bytes: u64,
    /// How often pages were sent, the last time while the agent stood still: 1 for a stop-copy.
    pub rounds: u32,
    /// Pages sent in each round, the last one frozen (if nothing was left to follow).
    pub pages: Vec<u64>,
    /// The phases and their microseconds, in order.
    pub phases: Vec<PhaseTime>,
    /// The dirty tracker used, or `none`.
    pub tracker: String,
    /// From the arrival of the last frozen byte until the agent was runnable, measured by the target; 0 of a move to a leaf
    /// or from one, which measures nothing.
    pub target_resume_us: u64,
    /// Pages that followed while the agent ran at the target.
    pub followed: u64,
    /// Those of them that it touched before they were there.
    pub faults: u64,
    /// Pages that the agent wrote with what the target had already, and that were not sent again.
    pub unchanged: u64,
    /// The largest share of its time, in percent, that was taken from the agent so that it did not outrun the rounds.
    pub throttled_percent: u8,
    /// Bytes of pages that were sent, as they are in memory with their numbers.
    pub page_bytes: u64,
    /// The same as they crossed: fewer if they were compressed.
    pub page_bytes_sent: u64,
}

impl MoveReport {
    /// Of this move and the one after it together, of which one was to a leaf or from one.
    pub(crate) fn and_then(self, next: MoveReport) -> MoveReport {
        let (from, to) = (self.from, next.to);
        let pages = [self.pages.as_slice(), &next.pages].concat();
        // Of the way to a leaf less is measured.
        let (whole, part) = if self.phases.is_empty() {
            (next, self)
        } else {
            (self, next)
        };
        MoveReport {
            from,
            to,
            pages,
            downtime_us: whole.downtime_us + part.downtime_us,
            total_us: whole.total_us + part.total_us,
            bytes: whole.bytes + part.bytes,
            rounds: whole.rounds + part.rounds,
            ..whole
        }
    }

    /// Of a move, and of the one before it if there was one.
    pub(crate) fn after(before: Option<MoveReport>, moved: MoveReport) -> MoveReport {
        match before {
            None => moved,
            Some(before) => before.and_then(moved),
        }
    }

    /// Of a move to a leaf or back, which is a stop-copy.
    pub(crate) fn of_handover(
        (from, to): (NodeId, NodeId),
        handover: Handover,
        pages: Vec<u64>,
        total: Duration,
    ) -> MoveReport {
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        MoveReport {
            agent: handover.agent,
            from,
            to,
            strategy: MigrationStrategy::StopCopy,
            downtime_us: us(handover.took),
            total_us: us(total),
            bytes: handover.bytes,
            rounds: 1,
            pages,
            phases: Vec::new(),
            tracker: "none".to_owned(),
            target_resume_us: 0,
            followed: 0,
            faults: 0,
            unchanged: 0,
            throttled_percent: 0,
            page_bytes: 0,
            page_bytes_sent: 0,
        }
    }
}

/// How long a phase took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhaseTime {
    /// The phase's name.
    pub phase: String,
    /// Its microseconds.
    pub us: u64,
}
