//! An agent without an instance, because it is on the disk; see [`crate::hibernation`].

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use mielin_mesh_core::{AgentState, Epoch, NodeId};
use mielin_safepoint::ModuleHash;
use mielin_wasm::{EngineKind, Instance, Prepared};
use tokio::sync::mpsc;

use super::{Cell, Held, Identity, Place, Restraint, Standing, Turn, terminated};
use crate::error::CellsError;
use crate::hibernation;
use crate::lock::lock;
use crate::logs::Logs;
use crate::persist::remove_stored;
use crate::post::Post;
use crate::report::{AgentEnd, EXIT_LOST};
use crate::scheduler::Scheduler;
use crate::tally::Tally;
use crate::watched::Watched;

/// What a [`Cell`] is made of that was asleep when its node stopped.
pub(crate) struct Sleeper {
    pub(crate) identity: Identity,
    pub(crate) epoch: Epoch,
    pub(crate) engine: EngineKind,
    pub(crate) module: ModuleHash,
    pub(crate) logs: Arc<Logs>,
    pub(crate) post: Arc<Post>,
    pub(crate) tally: Arc<Tally>,
    pub(crate) memory_bytes: u64,
    pub(crate) paused: bool,
    /// How long it has slept, and until when.
    pub(crate) slept: Duration,
    pub(crate) left: Option<Duration>,
}

impl Cell {
    /// An agent that is on the disk.
    pub(crate) fn asleep(
        sleeper: Sleeper,
        scheduler: Scheduler,
        changes: mpsc::UnboundedSender<mielin_mesh_core::AgentId>,
    ) -> Arc<Cell> {
        let now = Instant::now();
        let turn = Turn {
            memory_bytes: sleeper.memory_bytes,
            paused: sleeper.paused,
            slept: Some((sleeper.slept, now)),
            deadline: sleeper.left.map(|left| now + left),
            ..Turn::new(Place::Asleep)
        };
        sleeper.post.sleep();
        Arc::new(Cell {
            identity: sleeper.identity,
            epoch: AtomicU64::new(sleeper.epoch.0),
            engine: sleeper.engine,
            module: sleeper.module,
            logs: sleeper.logs,
            post: sleeper.post,
            tally: sleeper.tally,
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
                state: AgentState::Hibernated,
                gone: false,
            }),
            scheduler,
            changes,
            end: OnceLock::new(),
        })
    }

    pub(crate) fn is_asleep(&self) -> bool {
        lock(&self.turn).place == Place::Asleep
    }

    pub(crate) fn hibernated(&self) -> CellsError {
        CellsError::Busy {
            agent: self.id(),
            doing: "it is hibernated".to_owned(),
        }
    }

    /// How long it is until the end of the wait that a held agent is in.
    pub(crate) fn time_left(&self) -> Option<Duration> {
        let turn = lock(&self.turn);
        turn.awaited()
            .map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Frees the instance of an agent that is stored and whose post is frozen. If the node wants to store it by itself,
    /// it gets the program instead; says which.
    pub(crate) fn fall_asleep(self: &Arc<Self>, held: Held) -> bool {
        let mut turn = lock(&self.turn);
        if turn.holder.is_some() {
            drop(turn);
            self.post.thaw(self.epoch());
            return false;
        }
        turn.memory_bytes = held.memory_bytes();
        let program = held.take();
        turn.prepared = None;
        turn.place = Place::Asleep;
        turn.slept = Some((Duration::ZERO, Instant::now()));
        turn.deadline = turn.awaited();
        // One that came in before the post was frozen, and was not seen yet.
        let expected = !turn.paused && turn.wait.is_some_and(|wait| wait.message);
        let heard = !turn.paused && turn.heard_device && turn.wait.is_some_and(|wait| wait.reading);
        let is_there = heard || (expected && !self.post.mailbox_is_empty());
        *lock(&self.stop) = None;
        self.post.sleep();
        self.lie_down(turn);
        drop(program);
        if is_there {
            self.begin_waking();
        }
        true
    }

    /// Has the clock wake it at the end of its wait.
    pub(super) fn lie_down(self: &Arc<Self>, mut turn: MutexGuard<'_, Turn>) {
        if let Some(deadline) = turn.deadline {
            self.set_alarm(&mut turn, deadline);
        }
    }

    /// Wakes it soon, unless somebody does already.
    pub(super) fn begin_waking(self: &Arc<Self>) {
        let Some(node) = self.post.node() else { return };
        if self.waits_for().is_some() {
            return;
        }
        if self.leaf().is_some() {
            return node.lodgings.mail_came(&self.id());
        }
        if self.waking.try_lock().is_err() {
            return;
        }
        let (cell, runtime) = (Arc::clone(self), node.runtime.clone());
        runtime.spawn(async move {
            if let Err(error) = hibernation::wake(&node, &cell).await {
                tracing::warn!(agent = %cell.id(), %error, "a hibernated agent could not be woken");
                cell.logs
                    .note("error", &format!("could not be woken: {error}"));
            }
        });
    }

    /// How long it has slept.
    pub(crate) fn slept(&self) -> Duration {
        match lock(&self.turn).slept {
            Some((before, since)) => before + since.elapsed(),
            None => Duration::ZERO,
        }
    }

    /// Gives it an instance again, and lets it go on. Nothing happens if it has ended meanwhile, or lives elsewhere.
    pub(crate) fn awaken(
        self: &Arc<Self>,
        prepared: Arc<dyn Prepared>,
        instance: Box<dyn Instance>,
    ) {
        let mut turn = lock(&self.turn);
        if turn.place != Place::Asleep {
            return;
        }
        *lock(&self.stop) = Some(instance.stop_handle());
        self.put(&mut turn, instance);
        turn.prepared = Some(prepared);
        turn.slept = None;
        turn.place = Place::New;
        self.post.wake(self.epoch());
        self.settle(turn);
    }

    /// It was told to end. The end is on the disk before that is no more what is gone back to.
    pub(super) fn end_asleep(&self, mut turn: MutexGuard<'_, Turn>) {
        turn.place = Place::Ended;
        let memory_bytes = turn.memory_bytes;
        drop(turn);
        self.be_over(memory_bytes, terminated());
        self.logs
            .at_home(|home| remove_stored(home.agent, &home.directory()));
    }

    /// The leaf that it was on has started anew without it, or was removed; blocks while that is written down.
    pub(crate) fn lose_on_leaf(&self, leaf: NodeId) {
        let mut turn = lock(&self.turn);
        turn.place = Place::Ended;
        let memory_bytes = turn.memory_bytes;
        drop(turn);
        // Not before: what is stored is of before it went there, and nobody may wake that.
        self.lodge(None);
        let end = AgentEnd {
            exit_code: EXIT_LOST,
            failure: Some(format!(
                "lost with the leaf {}, which has started anew or was removed",
                leaf.short()
            )),
        };
        self.be_over(memory_bytes, end);
        self.logs
            .at_home(|home| remove_stored(home.agent, &home.directory()));
    }

    /// It lives elsewhere, with a higher epoch.
    pub(crate) fn give_up_asleep(&self) {
        self.mark_gone();
    }
}

impl Turn {
    /// When the wait ends that the agent is in; a paused one is in none.
    fn awaited(&self) -> Option<Instant> {
        self.wait.filter(|_| !self.paused).and(self.deadline)
    }
}
