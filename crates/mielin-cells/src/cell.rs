//! One agent on this node: what it is, and the state machine that decides who has its instance.
//!
//! The instance is in exactly one place: at rest in the cell, with a worker thread during a turn, or with the one
//! operation that holds it (a move, a snapshot). Every wish (pause, terminate, hold) is noted under the cell's lock
//! and taken up by [`Cell::settle`], which runs whenever the instance comes to rest.

mod held;
mod recording;
mod resting;
pub(crate) mod restraint;
mod sleep;
#[cfg(test)]
pub(crate) mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use mielin_mesh_core::{AgentId, AgentState, Epoch, NodeId};
use mielin_safepoint::ModuleHash;
use mielin_wasm::{EngineKind, Grants, Limits, Outcome, Prepared, StopHandle, ThreadClock, Wait};
use oxicode::{Decode, Encode};
use tokio::sync::{mpsc, watch};

use self::held::Holder;
pub(crate) use self::held::{Held, HeldLive};
pub(crate) use self::resting::Program;
use self::resting::Resting;
use self::restraint::Restraint;
pub(crate) use self::sleep::Sleeper;

use crate::budget::{Budget, Measure};
use crate::error::CellsError;
use crate::lock::lock;
use crate::logs::Logs;
use crate::post::Post;
use crate::record::Remains;
use crate::report::{AgentEnd, EXIT_OVER_BUDGET, EXIT_TERMINATED, EXIT_TRAPPED};
use crate::scheduler::Scheduler;
use crate::tally::{Tally, Verdict};
use crate::watched::Watched;

/// What stays the same for as long as the agent lives, wherever it is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) id: AgentId,
    pub(crate) name: String,
    /// The node that spawned it.
    pub(crate) owner: NodeId,
    pub(crate) grants: Grants,
    pub(crate) limits: Limits,
    pub(crate) budget: Budget,
    pub(crate) started_ms: u64,
}

/// An agent of this node.
pub(crate) struct Cell {
    pub(crate) identity: Identity,
    epoch: AtomicU64,
    pub(crate) engine: EngineKind,
    /// The rewritten module it runs.
    pub(crate) module: ModuleHash,
    pub(crate) logs: Arc<Logs>,
    pub(crate) post: Arc<Post>,
    pub(crate) tally: Arc<Tally>,
    /// It is this node's: it has no source, or has been written down here.
    secured: AtomicBool,
    /// Its source is known to have let go of it, or it has none.
    settled: AtomicBool,
    /// The node that may have it, while this one is in doubt.
    doubt: Mutex<Option<NodeId>>,
    /// The leaf that has its program, or is about to.
    leaf: Mutex<Option<NodeId>>,
    /// The leaf that it was on last.
    device: Mutex<Option<Device>>,
    /// `None` while there is no instance.
    stop: Mutex<Option<StopHandle>>,
    /// Held by whoever wakes the agent, or keeps it asleep.
    pub(crate) waking: tokio::sync::Mutex<()>,
    /// Kept off its thread for a part of its time.
    pub(crate) restraint: Restraint,
    turn: Mutex<Turn>,
    standing: Watched<Standing>,
    scheduler: Scheduler,
    changes: mpsc::UnboundedSender<AgentId>,
    /// Set once, when the record has it, and before `state` says that the agent ended.
    end: OnceLock<AgentEnd>,
}

/// The leaf that an agent was on last: sensors and actuators are those of that one, wherever on its host the agent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Device {
    pub(crate) leaf: NodeId,
    /// The leaf has handed it over by itself, and is to have it again when it takes agents.
    pub(crate) returns: bool,
}

/// What a [`Cell`] is made of.
pub(crate) struct Parts {
    pub(crate) identity: Identity,
    pub(crate) epoch: Epoch,
    pub(crate) engine: EngineKind,
    pub(crate) prepared: Arc<dyn Prepared>,
    pub(crate) logs: Arc<Logs>,
    pub(crate) post: Arc<Post>,
    pub(crate) tally: Arc<Tally>,
    pub(crate) program: Program,
    /// Whether its user has paused it.
    pub(crate) paused: bool,
    /// Whether no source can take it back.
    pub(crate) settled: bool,
}

/// What watchers of an agent see.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) state: AgentState,
    /// It lives on another node now.
    pub(crate) gone: bool,
}

struct Turn {
    place: Place,
    program: Option<Program>,
    /// Its place among the cells that have an instance, if this one has.
    rank: Option<u64>,
    resting: Resting,
    /// The compiled module, dropped with the program.
    prepared: Option<Arc<dyn Prepared>>,
    paused: bool,
    killed: bool,
    /// What keeps other operations away, in words.
    claimed: Option<&'static str>,
    wait: Option<Wait>,
    /// Its device has said something since it began to run.
    heard_device: bool,
    /// The earliest alarm under way, so that a long series of waits does not fill the clock.
    alarm: Option<Instant>,
    deadline: Option<Instant>,
    /// When a throttled agent goes on.
    goes_on_at: Option<Instant>,
    holder: Option<Holder>,
    memory_bytes: u64,
    /// How long it has slept when this instant came, while it is asleep.
    slept: Option<(Duration, Instant)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Made, but not started.
    New,
    Queued,
    Running,
    Waiting,
    /// Held back, because it was faster than its budget allows.
    Throttled,
    Paused,
    /// With an operation.
    Held,
    /// On the disk.
    Asleep,
    Ended,
    /// It lives on another node now.
    Gone,
}

impl Turn {
    fn new(place: Place) -> Turn {
        Turn {
            place,
            program: None,
            rank: None,
            resting: Resting::No,
            prepared: None,
            paused: false,
            killed: false,
            claimed: None,
            wait: None,
            heard_device: false,
            alarm: None,
            deadline: None,
            goes_on_at: None,
            holder: None,
            memory_bytes: 0,
            slept: None,
        }
    }
}

impl Cell {
    /// An agent that does nothing until [`Cell::start`].
    pub(crate) fn new(
        parts: Parts,
        scheduler: Scheduler,
        changes: mpsc::UnboundedSender<AgentId>,
    ) -> Arc<Cell> {
        let stop = match &parts.program {
            Program::Live(instance) => Some(instance.stop_handle()),
            Program::Rested(_) => None,
        };
        let turn = Turn {
            memory_bytes: parts.program.memory_bytes(),
            paused: parts.paused,
            ..Turn::new(Place::New)
        };
        Arc::new(Cell {
            identity: parts.identity,
            epoch: AtomicU64::new(parts.epoch.0),
            engine: parts.engine,
            module: parts.prepared.module().hash(),
            logs: parts.logs,
            post: parts.post,
            tally: parts.tally,
            secured: AtomicBool::new(parts.settled),
            settled: AtomicBool::new(parts.settled),
            doubt: Mutex::default(),
            leaf: Mutex::default(),
            device: Mutex::default(),
            stop: Mutex::new(stop),
            waking: tokio::sync::Mutex::default(),
            restraint: Restraint::default(),
            turn: Mutex::new(Turn {
                program: Some(parts.program),
                prepared: Some(parts.prepared),
                ..turn
            }),
            standing: Watched::new(Standing {
                state: AgentState::Starting,
                gone: false,
            }),
            scheduler,
            changes,
            end: OnceLock::new(),
        })
    }

    /// An agent that ended in an earlier run of the node.
    pub(crate) fn ended(
        remains: Remains,
        logs: Logs,
        scheduler: Scheduler,
        changes: mpsc::UnboundedSender<AgentId>,
    ) -> Arc<Cell> {
        let Remains {
            identity,
            epoch,
            end,
            ..
        } = remains;
        let post = Post::new(identity.id, epoch, identity.limits.message_bytes);
        post.end();
        logs.adopt_lines(remains.lines);
        let turn = Turn {
            memory_bytes: remains.memory_bytes,
            ..Turn::new(Place::Ended)
        };
        Arc::new(Cell {
            epoch: AtomicU64::new(epoch.0),
            engine: remains.engine,
            module: remains.module,
            logs: Arc::new(logs),
            post: Arc::new(post),
            tally: Arc::new(Tally::resumed(&identity.budget, &remains.tallied)),
            identity,
            secured: AtomicBool::new(true),
            settled: AtomicBool::new(true),
            doubt: Mutex::default(),
            leaf: Mutex::default(),
            device: Mutex::default(),
            stop: Mutex::default(),
            waking: tokio::sync::Mutex::default(),
            restraint: Restraint::default(),
            turn: Mutex::new(turn),
            standing: Watched::new(Standing {
                state: end.state(),
                gone: false,
            }),
            scheduler,
            changes,
            end: OnceLock::from(end),
        })
    }

    /// Lets the agent run for the first time on this node, or sleep until something is asked of it.
    pub(crate) fn start(self: &Arc<Self>) {
        let turn = lock(&self.turn);
        match turn.place {
            Place::New => self.settle(turn),
            Place::Asleep => self.lie_down(turn),
            _ => {}
        }
    }

    pub(crate) fn id(&self) -> AgentId {
        self.identity.id
    }

    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    /// Raises the epoch after a hand-over that did not take place.
    pub(crate) fn raise_epoch(&self, epoch: Epoch) {
        self.epoch.fetch_max(epoch.0, Ordering::AcqRel);
    }

    pub(crate) fn state(&self) -> AgentState {
        self.standing.with(|standing| standing.state.clone())
    }

    /// Sees every change of what others know about it.
    pub(crate) fn watch(&self) -> watch::Receiver<Standing> {
        self.standing.watch()
    }

    /// How it ended, if it did.
    pub(crate) fn end(&self) -> Option<&AgentEnd> {
        self.end.get()
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        let turn = lock(&self.turn);
        turn.program
            .as_ref()
            .map_or(turn.memory_bytes, Program::memory_bytes)
    }

    /// The compiled module.
    pub(crate) fn prepared(&self) -> Result<Arc<dyn Prepared>, CellsError> {
        let prepared = lock(&self.turn).prepared.clone();
        prepared.ok_or(CellsError::Ended(self.id()))
    }

    /// Whether it was told to end.
    pub(crate) fn is_killed(&self) -> bool {
        lock(&self.turn).killed
    }

    /// Whether an operation keeps others away.
    pub(crate) fn is_claimed(&self) -> bool {
        lock(&self.turn).claimed.is_some()
    }

    /// Whether it is held back.
    pub(crate) fn is_throttled(&self) -> bool {
        lock(&self.turn).place == Place::Throttled
    }

    pub(crate) fn is_paused(&self) -> bool {
        lock(&self.turn).paused
    }

    /// Whether it lives here: neither ended nor moved away.
    pub(crate) fn lives(&self) -> bool {
        !matches!(lock(&self.turn).place, Place::Ended | Place::Gone)
    }

    /// Asks a running program to leave; nothing happens if it is not running.
    pub(crate) fn request_stop(&self) {
        let stop = lock(&self.stop).clone();
        if let Some(stop) = stop {
            stop.request();
        }
    }

    /// Stops the agent until [`Cell::unpause`].
    pub(crate) fn pause(self: &Arc<Self>) -> Result<(), CellsError> {
        let mut turn = self.unclaimed()?;
        turn.paused = true;
        match turn.place {
            Place::Running => {
                drop(turn);
                self.scheduler.want_stop(self);
            }
            Place::Waiting | Place::Queued | Place::Throttled => {
                turn.place = Place::Paused;
                self.publish(AgentState::Paused);
            }
            _ => {}
        }
        Ok(())
    }

    /// Lets a paused agent go on.
    pub(crate) fn unpause(self: &Arc<Self>) -> Result<(), CellsError> {
        let mut turn = self.unclaimed()?;
        turn.paused = false;
        if turn.place == Place::Paused {
            turn.wait = None;
            self.settle(turn);
        }
        Ok(())
    }

    /// Ends the agent. If it does not run at this moment its end is written down here, which blocks.
    pub(crate) fn kill(self: &Arc<Self>) -> Result<(), CellsError> {
        let mut turn = self.unclaimed()?;
        turn.killed = true;
        match turn.place {
            Place::Running => {
                drop(turn);
                self.scheduler.want_stop(self);
            }
            Place::Held | Place::New => {}
            Place::Asleep => self.end_asleep(turn),
            _ => self.settle(turn),
        }
        Ok(())
    }

    fn unclaimed(&self) -> Result<MutexGuard<'_, Turn>, CellsError> {
        let turn = lock(&self.turn);
        match turn.place {
            Place::Ended => return Err(CellsError::Ended(self.id())),
            Place::Gone => {
                return Err(CellsError::Busy {
                    agent: self.id(),
                    doing: "it has just moved away".to_owned(),
                });
            }
            _ => {}
        }
        if let Some(leaf) = self.leaf() {
            return Err(CellsError::OnLeaf {
                agent: self.id(),
                leaf,
            });
        }
        match turn.claimed {
            Some(doing) => Err(CellsError::Busy {
                agent: self.id(),
                doing: doing.to_owned(),
            }),
            None => Ok(turn),
        }
    }

    /// Keeps pause, terminate and other claims away until the claim is dropped.
    pub(crate) fn claim(self: &Arc<Self>, doing: &'static str) -> Result<Claim, CellsError> {
        let mut turn = self.unclaimed()?;
        turn.claimed = Some(doing);
        Ok(Claim {
            cell: Arc::clone(self),
        })
    }

    /// A message is in the mailbox.
    pub(crate) fn message_arrived(self: &Arc<Self>) {
        let turn = lock(&self.turn);
        match turn.place {
            Place::Waiting if turn.wait.is_some_and(|wait| wait.message) => self.settle(turn),
            // It was not taken in, and comes again.
            Place::Asleep => self.begin_waking(),
            _ => {}
        }
    }

    /// A sensor that it reads has a reading, or an actuator of its has answered.
    pub(crate) fn device_spoke(self: &Arc<Self>) {
        let mut turn = lock(&self.turn);
        match turn.place {
            Place::Waiting if turn.wait.is_some_and(|wait| wait.reading) => self.settle(turn),
            Place::Asleep => self.begin_waking(),
            _ => turn.heard_device = true,
        }
    }

    /// An alarm rang; it may be one of an earlier wait.
    pub(crate) fn deadline_passed(self: &Arc<Self>) {
        let mut turn = lock(&self.turn);
        turn.alarm = None;
        let deadline = match turn.place {
            Place::Waiting | Place::Asleep => turn.deadline,
            Place::Throttled => turn.goes_on_at,
            _ => return,
        };
        match deadline {
            Some(deadline) if deadline <= Instant::now() => match turn.place {
                Place::Asleep => self.begin_waking(),
                _ => self.settle(turn),
            },
            Some(deadline) => self.set_alarm(&mut turn, deadline),
            None => {}
        }
    }

    /// One turn on a worker thread, whose clock this is.
    pub(crate) fn take_turn(self: &Arc<Self>, clock: Option<ThreadClock>) {
        let (program, prepared) = {
            let mut turn = lock(&self.turn);
            if turn.place != Place::Queued {
                return;
            }
            if turn.resting != Resting::No {
                return self.come_again(&mut turn);
            }
            let (Some(program), Some(prepared)) = (self.take(&mut turn), turn.prepared.clone())
            else {
                return;
            };
            turn.place = Place::Running;
            turn.wait = None;
            turn.heard_device = false;
            turn.memory_bytes = program.memory_bytes();
            (program, prepared)
        };
        let Some(mut instance) = self.awake_for_turn(program, &*prepared) else {
            return;
        };
        let began = Instant::now();
        self.tally.begin_turn(clock);
        let outcome = catch_unwind(AssertUnwindSafe(|| instance.run()));
        self.tally.end_turn(began.elapsed());
        self.restraint.ran(began.elapsed());
        let wait = match outcome {
            Ok(Outcome::Stopped) => None,
            Ok(Outcome::Blocked(wait)) => Some(wait),
            Ok(Outcome::Exited(exit_code)) => {
                return self.finish(
                    Program::Live(instance),
                    AgentEnd {
                        exit_code,
                        failure: None,
                    },
                );
            }
            Ok(Outcome::Trapped(trap)) => {
                let end = AgentEnd {
                    exit_code: EXIT_TRAPPED,
                    failure: Some(trap.to_string()),
                };
                return self.finish(Program::Live(instance), end);
            }
            Err(_) => {
                let failure = Some("the engine panicked".to_owned());
                return self.finish(
                    Program::Live(instance),
                    AgentEnd {
                        exit_code: EXIT_TRAPPED,
                        failure,
                    },
                );
            }
        };
        let left = wait
            .and_then(|wait| wait.deadline_ns)
            .map(|deadline| instance.host().until(deadline));
        let mut turn = lock(&self.turn);
        self.put(&mut turn, instance);
        let deadline = left.map(|left| Instant::now() + left);
        let expected = wait.is_some_and(|wait| {
            (wait.message && !self.post.mailbox_is_empty()) || (wait.reading && turn.heard_device)
        });
        let is_over = deadline.is_some_and(|deadline| deadline <= Instant::now());
        let is_spent = matches!(self.tally.verdict(), Verdict::Over(_));
        if let (Some(wait), false) = (wait, expected || is_over || is_spent) {
            turn.wait = Some(wait);
            turn.deadline = deadline;
            turn.place = Place::Waiting;
            if turn.holder.is_none() && !turn.paused && !turn.killed {
                if let Some(deadline) = deadline {
                    self.set_alarm(&mut turn, deadline);
                }
                if turn.claimed.is_none() {
                    self.publish(AgentState::Waiting);
                }
                return;
            }
        }
        self.settle(turn);
    }

    fn set_alarm(self: &Arc<Self>, turn: &mut Turn, deadline: Instant) {
        if turn.alarm.is_none_or(|alarm| deadline < alarm) {
            turn.alarm = Some(deadline);
            self.scheduler.arm(deadline, Arc::downgrade(self));
        }
    }

    /// Decides what happens to an instance at rest: the wishes first, then the budget, then the queue.
    fn settle(self: &Arc<Self>, mut turn: MutexGuard<'_, Turn>) {
        if turn.program.is_none() {
            turn.resting.note();
            return;
        }
        let verdict = self.tally.verdict();
        let end = match verdict {
            _ if turn.killed => Some(terminated()),
            Verdict::Over(measure) => Some(self.over(measure)),
            Verdict::GoOn | Verdict::HoldBack(_) => None,
        };
        if let Some(end) = end {
            let Some(program) = self.take(&mut turn) else {
                return;
            };
            drop(turn);
            return self.finish(program, end);
        }
        if let Some(holder) = turn.holder.take()
            && self.hand_over(&mut turn, holder)
        {
            return;
        }
        self.note_live(&mut turn);
        if self.waits_for().is_some() {
            // Another node may run it: it is to be stored, and nothing else.
            turn.place = Place::Waiting;
            turn.wait = None;
            turn.deadline = None;
            return;
        }
        if turn.paused {
            turn.place = Place::Paused;
            if turn.claimed.is_none() {
                self.publish(AgentState::Paused);
            }
            return;
        }
        if let Some(until) = self.restraint.rests_until() {
            turn.place = Place::Waiting;
            turn.wait = None;
            turn.deadline = Some(until);
            return self.set_alarm(&mut turn, until);
        }
        let queued = turn.place == Place::Queued;
        // In the eyes of the mesh a throttled agent runs: how often it is held back is nobody's news.
        if turn.claimed.is_none() {
            self.publish(AgentState::Running);
        }
        if let (Verdict::HoldBack(goes_on_at), false) = (verdict, queued) {
            turn.place = Place::Throttled;
            turn.goes_on_at = Some(goes_on_at);
            self.set_alarm(&mut turn, goes_on_at);
            return;
        }
        turn.place = Place::Queued;
        drop(turn);
        if !queued {
            self.scheduler.push(Arc::clone(self));
        }
    }

    /// The end of an agent that has used up its budget.
    fn over(&self, measure: Measure) -> AgentEnd {
        AgentEnd {
            exit_code: EXIT_OVER_BUDGET,
            failure: Some(format!(
                "its budget {} is used up",
                self.identity.budget.text(measure)
            )),
        }
    }

    fn finish(&self, program: Program, end: AgentEnd) {
        let memory_bytes = program.memory_bytes();
        drop(program);
        self.be_over(memory_bytes, end);
    }

    fn be_over(&self, memory_bytes: u64, end: AgentEnd) {
        {
            let mut turn = lock(&self.turn);
            turn.memory_bytes = memory_bytes;
            turn.place = Place::Ended;
            turn.prepared = None;
            turn.holder = None;
        }
        if let Some(failure) = &end.failure {
            self.logs.note("error", failure);
        }
        // Nobody who sees the end may still get a message in.
        self.post.end();
        self.logs.close();
        let state = end.state();
        self.record_end(end);
        self.publish(state);
    }

    /// Says which node may have it, or that none may.
    pub(crate) fn doubt(&self, node: Option<NodeId>) {
        *lock(&self.doubt) = node;
    }

    /// Says which leaf has its program, or that none has. It is asleep here in the meantime.
    pub(crate) fn lodge(&self, leaf: Option<NodeId>) {
        *lock(&self.leaf) = leaf;
        self.post.lodge(leaf.is_some());
        self.publish(match leaf {
            // Whether it waits there is not known here.
            Some(_) => AgentState::Running,
            None => AgentState::Hibernated,
        });
    }

    /// Whose sensors and actuators are its own.
    pub(crate) fn device(&self) -> Option<Device> {
        *lock(&self.device)
    }

    pub(crate) fn set_device(&self, device: Option<Device>) {
        *lock(&self.device) = device;
    }

    /// The leaf that has its program, if one has.
    pub(crate) fn leaf(&self) -> Option<NodeId> {
        *lock(&self.leaf)
    }

    /// The node whose answer a frozen agent waits for.
    pub(crate) fn waits_for(&self) -> Option<NodeId> {
        *lock(&self.doubt)
    }

    /// Makes a state known here and, through the announcer, to the mesh.
    pub(crate) fn publish(&self, state: AgentState) {
        let changed = self.standing.change(|present| {
            let changed = !present.state.is_final() && present.state != state;
            if changed {
                present.state = state;
            }
            changed
        });
        if changed {
            // The announcer is gone only when the node stops.
            let _ = self.changes.send(self.id());
        }
    }

    fn give_back(self: &Arc<Self>, program: Program) {
        let mut turn = lock(&self.turn);
        turn.program = Some(program);
        self.settle(turn);
    }

    fn mark_gone(&self) {
        {
            let mut turn = lock(&self.turn);
            turn.place = Place::Gone;
            turn.prepared = None;
            // Whoever waits for the instance waits in vain.
            turn.holder = None;
        }
        self.standing.change(|standing| {
            standing.gone = true;
            true
        });
    }
}

/// The right to be the only operation on an agent; see [`Cell::claim`].
pub(crate) struct Claim {
    cell: Arc<Cell>,
}

impl Claim {
    pub(crate) fn cell(&self) -> &Arc<Cell> {
        &self.cell
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut turn = lock(&self.cell.turn);
        turn.claimed = None;
        if self.cell.waits_for().is_some() {
            return;
        }
        let state = match turn.place {
            Place::Queued | Place::Running | Place::Throttled => AgentState::Running,
            Place::Waiting => AgentState::Waiting,
            Place::Paused => AgentState::Paused,
            // On a leaf it runs.
            Place::Asleep if self.cell.leaf().is_some() => return,
            Place::Asleep => AgentState::Hibernated,
            Place::New | Place::Held | Place::Ended | Place::Gone => return,
        };
        drop(turn);
        self.cell.publish(state);
    }
}

fn terminated() -> AgentEnd {
    AgentEnd {
        exit_code: EXIT_TERMINATED,
        failure: Some("terminated".to_owned()),
    }
}
