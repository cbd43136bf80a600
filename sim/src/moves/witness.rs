//! Sees everything that nodes report, in order, and says at once when a promise is broken.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::{self, Write as _};
use std::time::Duration;

use mielin_mesh_core::{AgentId, Epoch, MigrationPhase};
use serde::Serialize;

use super::wire::Event;

/// Events of an agent that are kept to be shown.
const TRACE: usize = 80;

/// A promise that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Broken {
    /// Two copies ran, or a node ran an agent in an epoch that was over.
    Doubled,
    /// An agent is gone, and no node crashed that was its only holder.
    Lost,
    /// A source ran an agent again whose messages had gone out from its target.
    TakenBack,
    /// A message was taken, or dealt with, twice, out of order or with another content than it had, or one that was
    /// acknowledged is missing.
    Reordered,
    /// Two nodes announced an agent in one epoch.
    AnnouncedTwice,
    /// A page is not what it was at the source.
    Torn,
    /// Something is still under way long after everybody could talk again.
    Stuck,
}

/// A promise that was broken, and what was seen of the agent before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The promise.
    pub broken: Broken,
    /// With it the same run is made again.
    pub seed: u64,
    /// What was seen, the last events last.
    pub trace: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation {
            broken,
            seed,
            trace,
        } = self;
        write!(f, "{broken:?} with seed {seed}\n{trace}")
    }
}

/// What a node has of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    /// It runs, and may have to be given back.
    Provisional,
    /// It runs.
    Runs,
    /// It stands still.
    Frozen,
}

/// What is known of one agent.
#[derive(Debug, Default)]
struct Life {
    /// Who has it, how, and in which epoch.
    holders: BTreeMap<usize, (Hold, Epoch)>,
    epoch: Epoch,
    /// The last epoch in which messages went out, or acknowledgements.
    opened: Epoch,
    /// A node crashed that had all of it.
    bereaved: bool,
    /// When nobody had it any more.
    gone_at: Option<Duration>,
    announced: BTreeMap<Epoch, usize>,
    /// The last message of each sender that was acknowledged.
    took: BTreeMap<AgentId, u64>,
    heard: BTreeMap<AgentId, u64>,
    /// The contents of messages to others that have left its node.
    sent: BTreeMap<(AgentId, u64), u64>,
    /// Where its move stands.
    moving: Option<Step>,
    trace: VecDeque<String>,
}

/// A move has come into another phase, or to its end.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) agent: AgentId,
    pub(super) number: u64,
    pub(super) source: usize,
    pub(super) target: usize,
    pub(super) phase: MigrationPhase,
}

#[derive(Debug, Default)]
pub(super) struct Witness {
    seed: u64,
    lives: BTreeMap<AgentId, Life>,
    pub(super) messages_taken: u64,
    pub(super) messages_heard: u64,
    pub(super) checks: u64,
}

impl Witness {
    pub(super) fn new(seed: u64) -> Witness {
        Witness {
            seed,
            ..Witness::default()
        }
    }

    /// Takes what a node reported; gives the step of a move, if it is one.
    pub(super) fn see(
        &mut self,
        at: Duration,
        node: usize,
        event: Event,
    ) -> Result<Option<Step>, Violation> {
        self.checks += 1;
        let agent = event.agent();
        self.remember(at, agent, &format!("node {node}: {event}"));
        let life = self.lives.entry(agent).or_default();
        let broken = match event {
            Event::Phase {
                number,
                target,
                phase,
                ..
            } => {
                let step = Step {
                    agent,
                    number,
                    source: node,
                    target,
                    phase,
                };
                life.moving = (!step.phase.is_final()).then(|| step.clone());
                return Ok(Some(step));
            }
            Event::Runs {
                epoch,
                since,
                provisional,
                has,
                ..
            } => life.runs(node, epoch, since, provisional, &has),
            Event::Stops { .. } => {
                life.holders.insert(node, (Hold::Frozen, life.epoch));
                None
            }
            Event::Drops { .. } => life.drops(at, node),
            Event::Keeps { .. } => {
                life.holders.insert(node, (Hold::Runs, life.epoch));
                life.bereaved = false;
                None
            }
            Event::Opens { .. } => {
                life.opened = life.opened.max(life.epoch);
                (life.hold(node) == Some(Hold::Provisional)).then_some((
                    Broken::TakenBack,
                    "messages of a copy go out that may be given back",
                ))
            }
            Event::Torn { .. } => Some((Broken::Torn, "a page is not what it was")),
            Event::Sent {
                to,
                sequence,
                content,
                ..
            } => {
                let known = *life.sent.entry((to, sequence)).or_insert(content);
                if known != content {
                    Some((Broken::Reordered, "two messages have the same number"))
                } else {
                    life.may_speak(node)
                }
            }
            Event::Took {
                from,
                sequence,
                content,
                ..
            } => {
                self.messages_taken += 1;
                return self.took(agent, node, from, sequence, content);
            }
            Event::Heard {
                from,
                sequence,
                is_next,
                ..
            } => {
                self.messages_heard += 1;
                life.heard.insert(from, sequence);
                (!is_next).then_some((
                    Broken::Reordered,
                    "the agent dealt with another message first",
                ))
            }
            Event::Dropped { to, .. } => {
                let is_alive = self.lives.get(&to).is_some_and(Life::lives);
                let why = format!("{} dropped what it had for it, and it lives", agent.short());
                return match is_alive {
                    true => Err(self.violation(to, Broken::Reordered, &why)),
                    false => Ok(None),
                };
            }
            Event::Announced { epoch, .. } => {
                let first = *life.announced.entry(epoch).or_insert(node);
                (first != node).then_some((
                    Broken::AnnouncedTwice,
                    "another node announced it in this epoch",
                ))
            }
            Event::Note { .. } => None,
        };
        self.checked(agent, broken)
    }

    fn checked<T>(
        &self,
        agent: AgentId,
        broken: Option<(Broken, &str)>,
    ) -> Result<Option<T>, Violation> {
        match broken {
            Some((broken, why)) => Err(self.violation(agent, broken, why)),
            None => Ok(None),
        }
    }

    fn took(
        &mut self,
        agent: AgentId,
        node: usize,
        from: AgentId,
        sequence: u64,
        content: u64,
    ) -> Result<Option<Step>, Violation> {
        let sender = self.lives.entry(from).or_default();
        let sent = sender.sent.get(&(agent, sequence)).copied();
        let life = self.lives.entry(agent).or_default();
        let last = life.took.entry(from).or_default();
        let is_next = sequence == *last + 1;
        *last = sequence;
        let broken = if !is_next {
            Some((
                Broken::Reordered,
                "it is not the next message of this sender",
            ))
        } else if sent != Some(content) {
            Some((Broken::Reordered, "nobody sent it like that"))
        } else {
            life.may_speak(node)
        };
        self.checked(agent, broken)
    }

    /// A node went down.
    pub(super) fn crashed(&mut self, at: Duration, node: usize) {
        let of_it = self.lives.iter().filter(|(_, life)| {
            let goes = |step: &Step| step.target == node;
            life.holders.contains_key(&node) || life.moving.as_ref().is_some_and(goes)
        });
        let agents: Vec<AgentId> = of_it.map(|(agent, _)| *agent).collect();
        for agent in agents {
            self.remember(at, agent, &format!("node {node} crashes"));
            let Some(life) = self.lives.get_mut(&agent) else {
                continue;
            };
            if matches!(
                life.holders.remove(&node),
                Some((Hold::Runs | Hold::Frozen, _))
            ) {
                life.bereaved = true;
            }
            life.moving.take_if(|step| step.source == node);
            if !life.lives() {
                life.gone_at.get_or_insert(at);
            }
        }
    }

    pub(super) fn remember(&mut self, at: Duration, agent: AgentId, what: &str) {
        let trace = &mut self.lives.entry(agent).or_default().trace;
        if trace.len() == TRACE {
            trace.pop_front();
        }
        trace.push_back(format!("{:>10.4} s  {what}", at.as_secs_f64()));
    }

    pub(super) fn violation(&self, agent: AgentId, broken: Broken, why: &str) -> Violation {
        let mut trace = format!("agent {agent}: {why}\n");
        for line in self.lives.get(&agent).into_iter().flat_map(|it| &it.trace) {
            // A string takes everything.
            let _ = writeln!(trace, "{line}");
        }
        Violation {
            broken,
            seed: self.seed,
            trace,
        }
    }

    /// The same, with what was seen of another agent, too.
    fn violation_of_two(
        &self,
        agent: AgentId,
        other: AgentId,
        broken: Broken,
        why: &str,
    ) -> Violation {
        let mut violation = self.violation(agent, broken, why);
        let of_other = self.violation(other, broken, "the other one");
        violation.trace.push_str(&of_other.trace);
        violation
    }

    /// The node at which an agent runs.
    pub(super) fn runner(&self, agent: &AgentId) -> Option<usize> {
        let mut holders = self.lives.get(agent)?.holders.iter();
        holders.find_map(|(node, (hold, _))| (*hold != Hold::Frozen).then_some(*node))
    }

    /// Agents that nobody has had for so long.
    pub(super) fn gone(&self, at: Duration, for_long: Duration) -> Vec<AgentId> {
        let gone = |life: &Life| life.gone_at.is_some_and(|gone| gone + for_long <= at);
        let of = self.lives.iter().filter(|(_, life)| gone(life));
        of.map(|(agent, _)| *agent).collect()
    }

    /// Where the move of an agent stands.
    pub(super) fn moving(&self, agent: &AgentId) -> Option<&Step> {
        self.lives.get(agent)?.moving.as_ref()
    }

    /// What must be so at the end, for agents that live: all that was sent to them was dealt with.
    pub(super) fn end(&self) -> Result<(), Violation> {
        for (agent, life) in &self.lives {
            if !life.lives() {
                continue;
            }
            let runs = |(hold, _): &(Hold, Epoch)| *hold == Hold::Runs;
            if life.holders.len() != 1 || !life.holders.values().all(runs) {
                return Err(self.violation(*agent, Broken::Stuck, "it does not run"));
            }
            if let Some(step) = &life.moving {
                let why = format!("move {} is {}", step.number, step.phase);
                return Err(self.violation(*agent, Broken::Stuck, &why));
            }
            for (from, sender) in &self.lives {
                let sent = sender
                    .sent
                    .range((*agent, 0)..=(*agent, u64::MAX))
                    .next_back();
                let sent = sent.map_or(0, |((_, sequence), _)| *sequence);
                let [took, heard] =
                    [&life.took, &life.heard].map(|it| it.get(from).copied().unwrap_or(0));
                if took != heard {
                    let why = format!("of {from} it took {took} and dealt with {heard}");
                    return Err(self.violation(*agent, Broken::Reordered, &why));
                }
                if took < sent && sender.lives() {
                    let why = format!("{from} sent it {sent}, and it took {took}");
                    return Err(self.violation_of_two(*agent, *from, Broken::Stuck, &why));
                }
            }
        }
        Ok(())
    }
}

impl Life {
    fn hold(&self, node: usize) -> Option<Hold> {
        self.holders.get(&node).map(|(hold, _)| *hold)
    }

    /// Whether somebody has it who may let it go on: not a source that has not heard that it was let out elsewhere.
    fn lives(&self) -> bool {
        let mut holders = self.holders.values();
        holders.any(|(hold, epoch)| *hold != Hold::Frozen || *epoch >= self.opened)
    }

    fn runs(
        &mut self,
        node: usize,
        epoch: Epoch,
        since: Epoch,
        provisional: bool,
        has: &[(AgentId, u64)],
    ) -> Option<(Broken, &'static str)> {
        let hold = if provisional {
            Hold::Provisional
        } else {
            Hold::Runs
        };
        let mut others = self.holders.iter().filter(|(other, _)| **other != node);
        let runs_elsewhere = others.any(|(_, (hold, _))| *hold != Hold::Frozen);
        self.holders.insert(node, (hold, epoch));
        self.gone_at = None;
        self.bereaved &= provisional;
        let before = self.epoch;
        self.epoch = epoch.max(before);
        if runs_elsewhere {
            return Some((Broken::Doubled, "two copies run"));
        }
        if epoch < before {
            return Some((Broken::Doubled, "it runs in an epoch that is over"));
        }
        if self.opened > since {
            return Some((
                Broken::TakenBack,
                "what another copy did since was seen by others",
            ));
        }
        let has: BTreeMap<_, _> = has.iter().copied().filter(|(_, last)| *last > 0).collect();
        if has != self.took {
            return Some((
                Broken::Reordered,
                "it has other messages than were acknowledged for it",
            ));
        }
        // What a copy did that was given back is not.
        for (from, last) in &mut self.heard {
            *last = (*last).min(has.get(from).copied().unwrap_or(0));
        }
        None
    }

    fn drops(&mut self, at: Duration, node: usize) -> Option<(Broken, &'static str)> {
        let had = self.holders.remove(&node).map(|(hold, _)| hold);
        if !self.lives() {
            self.gone_at.get_or_insert(at);
            if !self.bereaved && had.is_some() {
                return Some((Broken::Lost, "nobody has it any more"));
            }
        } else if had != Some(Hold::Provisional)
            && !self.bereaved
            && self
                .holders
                .values()
                .all(|(hold, _)| *hold == Hold::Provisional)
        {
            return Some((Broken::Lost, "what is left of it may lack pages"));
        }
        None
    }

    /// Whether messages may come and go at this node.
    fn may_speak(&self, node: usize) -> Option<(Broken, &'static str)> {
        let runs = self.hold(node) == Some(Hold::Runs);
        (!runs || self.opened < self.epoch).then_some((
            Broken::TakenBack,
            "messages come or go at a node that may not let them",
        ))
    }
}
