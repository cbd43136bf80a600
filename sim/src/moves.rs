//! Whether an agent stays one agent while it moves again and again, nodes crash and links are cut.
//!
//! [`MigrationCoordinator`](mielin_mesh_core::MigrationCoordinator),
//! [`MigrationReceiver`](mielin_mesh_core::MigrationReceiver), their arrivals, the mailboxes of
//! [`delivery`](mielin_mesh_core::delivery) and the registry are the ones of a node. What they ask for is done by a
//! model of a node's driver: pages are numbers, a stream is made of datagrams that are lost and repeated, a disk is what
//! a crash leaves. A witness sees every event, and ends the run at the first promise that is broken.

mod agent;
mod faults;
mod node;
mod post;
mod run;
mod source;
mod stream;
mod target;
mod wire;
mod witness;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use mielin_mesh_core::MigrationStrategy;
use serde::Serialize;

pub use run::run;
pub use witness::{Broken, Violation};

/// What to run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Nodes.
    pub nodes: usize,
    /// Agents that live at one time: for one that died another is spawned.
    pub agents: usize,
    /// Moves that are begun.
    pub moves: u64,
    /// What all moves are made by; `None` takes each strategy, and the choice of the core, by turns.
    pub strategy: Option<MigrationStrategy>,
    /// Into how many phases of a hundred something breaks in.
    pub faults_percent: f64,
    /// Datagrams that are lost, in percent.
    pub loss_percent: f64,
    /// Datagrams that arrive twice, in percent.
    pub duplicate_percent: f64,
    /// The longest way of a datagram.
    pub latency_max: Duration,
    /// Bytes that a link takes in a second.
    pub bandwidth: u64,
    /// What is wrong with the nodes, to see that it is found.
    pub sabotage: Option<Sabotage>,
    /// The one source of chance.
    pub seed: u64,
}

impl Scenario {
    /// So many moves of 100 agents among 20 nodes, over links that lose and double one datagram in a hundred.
    #[must_use]
    pub fn new(moves: u64, seed: u64) -> Scenario {
        Scenario {
            nodes: 20,
            agents: 100,
            moves,
            strategy: None,
            faults_percent: 8.0,
            loss_percent: 1.0,
            duplicate_percent: 1.0,
            latency_max: Duration::from_millis(40),
            bandwidth: 25_000_000,
            sabotage: None,
            seed,
        }
    }
}

/// Something that a node does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// A source in doubt that gets no answer takes that for the answer that the agent is not there.
    ResumesWithoutAnswer,
    /// A target says that it has written down that it has the agent, and has not.
    DropsTheNote,
    /// A target does not remember over a crash what it owes to the source of an agent that went on from there.
    ForgetsWhoWasHere,
    /// An agent goes on to a third node before its target knows whether its source has let go.
    MovesOnBeforeItIsSettled,
    /// A target takes messages in for an agent of which the source has not let go.
    TakesMessagesTooSoon,
    /// A node that restarts says of agents that have ended which may live elsewhere.
    TakesTheMissingForEnded,
    /// A source that takes its agent back goes on in the epoch that the target had.
    ResumesInTheTargetsEpoch,
    /// A target drops a page now and then.
    LosesPages,
    /// A target does not say what became of an agent.
    NeverAnswers,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Sabotage; 9] = [
        Sabotage::ResumesWithoutAnswer,
        Sabotage::DropsTheNote,
        Sabotage::ForgetsWhoWasHere,
        Sabotage::MovesOnBeforeItIsSettled,
        Sabotage::TakesMessagesTooSoon,
        Sabotage::TakesTheMissingForEnded,
        Sabotage::ResumesInTheTargetsEpoch,
        Sabotage::LosesPages,
        Sabotage::NeverAnswers,
    ];
}

/// How fast and how willing nodes are.
#[derive(Clone, Copy, Debug)]
struct Timing {
    bandwidth: u64,
    /// Offers that are refused, in percent.
    refused_percent: f64,
    /// Targets to which memory may follow, in percent.
    follows_percent: f64,
}

/// What came out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Outcome {
    /// Runs.
    pub runs: u64,
    /// The seed, or the first one.
    pub seed: u64,
    /// Moves that began.
    pub moves: u64,
    /// The agent lives at the target.
    pub completed: u64,
    /// It goes on at the source.
    pub rolled_back: u64,
    /// The source crashed before it knew.
    pub cut_short: u64,
    /// The source came to be in doubt.
    pub in_doubt: u64,
    /// Doubts that were resolved, one way or the other.
    pub in_doubt_resolved: u64,
    /// Doubts that ended with a crash of the source.
    pub in_doubt_cut_short: u64,
    /// The longest doubt that was resolved, in seconds.
    pub in_doubt_s_max: f64,
    /// Agents that lived.
    pub agents: u64,
    /// Agents that are gone because a node crashed that was their only holder.
    pub died_with_holder: u64,
    /// Agents that are gone otherwise.
    pub lost: u64,
    /// Agents of which two copies ran, or one in an epoch that was over.
    pub doubled: u64,
    /// Agents that a source ran again although what its target's copy did was seen.
    pub taken_back: u64,
    /// Messages that were taken or dealt with twice, out of order or not at all.
    pub reordered: u64,
    /// Agents that two nodes announced in one epoch.
    pub announced_twice: u64,
    /// Agents with a page that is not what it was.
    pub torn: u64,
    /// What was still under way long after everybody could talk again.
    pub stuck: u64,
    /// Messages between agents that were sent, some by copies that were given back.
    pub messages_sent: u64,
    /// Messages acknowledged.
    pub messages_taken: u64,
    /// Messages that agents dealt with, some by copies that were given back.
    pub messages_heard: u64,
    /// Faults, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Faults of a move by the phase that they hit.
    pub fault_phases: BTreeMap<String, u64>,
    /// Events at which the promises were checked.
    pub checks: u64,
    /// Virtual seconds.
    pub virtual_s: f64,
    /// The promise that was broken.
    #[serde(skip)]
    pub violation: Option<Violation>,
}

impl Outcome {
    fn note(&mut self, violation: Violation) {
        let counter = match violation.broken {
            Broken::Doubled => &mut self.doubled,
            Broken::Lost => &mut self.lost,
            Broken::TakenBack => &mut self.taken_back,
            Broken::Reordered => &mut self.reordered,
            Broken::AnnouncedTwice => &mut self.announced_twice,
            Broken::Torn => &mut self.torn,
            Broken::Stuck => &mut self.stuck,
        };
        *counter += 1;
        self.violation = Some(violation);
    }
}

impl Outcome {
    /// Adds what came out of another run.
    pub fn add(&mut self, other: Outcome) {
        if self.runs == 0 {
            self.seed = other.seed;
        }
        let sums = [
            (&mut self.runs, other.runs),
            (&mut self.moves, other.moves),
            (&mut self.completed, other.completed),
            (&mut self.rolled_back, other.rolled_back),
            (&mut self.cut_short, other.cut_short),
            (&mut self.in_doubt, other.in_doubt),
            (&mut self.in_doubt_resolved, other.in_doubt_resolved),
            (&mut self.in_doubt_cut_short, other.in_doubt_cut_short),
            (&mut self.agents, other.agents),
            (&mut self.died_with_holder, other.died_with_holder),
            (&mut self.lost, other.lost),
            (&mut self.doubled, other.doubled),
            (&mut self.taken_back, other.taken_back),
            (&mut self.reordered, other.reordered),
            (&mut self.announced_twice, other.announced_twice),
            (&mut self.torn, other.torn),
            (&mut self.stuck, other.stuck),
            (&mut self.messages_sent, other.messages_sent),
            (&mut self.messages_taken, other.messages_taken),
            (&mut self.messages_heard, other.messages_heard),
            (&mut self.checks, other.checks),
        ];
        for (sum, figure) in sums {
            *sum += figure;
        }
        for (name, figure) in other.faults {
            *self.faults.entry(name).or_default() += figure;
        }
        for (name, figure) in other.fault_phases {
            *self.fault_phases.entry(name).or_default() += figure;
        }
        self.in_doubt_s_max = self.in_doubt_s_max.max(other.in_doubt_s_max);
        self.virtual_s += other.virtual_s;
        self.violation = self.violation.take().or(other.violation);
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figures = [
            ("moves", self.moves),
            ("  completed", self.completed),
            ("  rolled back", self.rolled_back),
            ("  source crashed first", self.cut_short),
            ("  in doubt meanwhile", self.in_doubt),
            ("  of these resolved", self.in_doubt_resolved),
            ("  source crashed in doubt", self.in_doubt_cut_short),
            ("agents", self.agents),
            ("  died with their only holder", self.died_with_holder),
            ("  lost", self.lost),
            ("  doubled", self.doubled),
            ("  taken back", self.taken_back),
            ("  announced twice", self.announced_twice),
            ("  torn", self.torn),
            ("messages sent", self.messages_sent),
            ("  acknowledged", self.messages_taken),
            ("  reordered, doubled or lost", self.reordered),
            ("stuck", self.stuck),
            ("checks", self.checks),
        ];
        writeln!(f, "{:<32}{:>10}", "first seed", self.seed)?;
        writeln!(f, "{:<32}{:>10}", "runs", self.runs)?;
        for (name, figure) in figures {
            writeln!(f, "{name:<32}{figure:>10}")?;
        }
        writeln!(f, "{:<32}{:>10.1}", "longest doubt, s", self.in_doubt_s_max)?;
        writeln!(f, "{:<32}{:>10.1}", "virtual time, s", self.virtual_s)?;
        writeln!(f, "faults")?;
        for (name, figure) in &self.faults {
            writeln!(f, "  {name:<30}{figure:>10}")?;
        }
        writeln!(f, "faults of moves by phase")?;
        for (name, figure) in &self.fault_phases {
            writeln!(f, "  {name:<30}{figure:>10}")?;
        }
        Ok(())
    }
}
