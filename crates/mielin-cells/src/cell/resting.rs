//! Agents without an instance, because others were active more recently: [`Rested`] until they go on.
//!
//! Nobody else knows of it: what counts for all others is that the program is in the cell. It is woken when it is to run,
//! or when somebody takes it out who needs an instance.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mielin_wasm::{Instance, NotWoken, Prepared, Rested};

use super::{Cell, Place, Turn};
use crate::lock::lock;

/// How long an agent waits that could not be woken, because there was no memory for it.
const NO_ROOM_PAUSE: Duration = Duration::from_secs(1);

/// The program of an agent while it does not run.
pub(crate) enum Program {
    Live(Box<dyn Instance>),
    Rested(Box<Rested>),
}

impl Program {
    pub(super) fn memory_bytes(&self) -> u64 {
        match self {
            Program::Live(instance) => instance.memory_bytes(),
            Program::Rested(rested) => rested.memory_bytes(),
        }
    }
}

impl Cell {
    /// Puts an instance into the cell.
    pub(super) fn put(self: &Arc<Self>, turn: &mut Turn, instance: Box<dyn Instance>) {
        turn.program = Some(Program::Live(instance));
        self.note_live(turn);
    }

    /// Notes that the cell has an instance, and has been active just now.
    pub(super) fn note_live(self: &Arc<Self>, turn: &mut Turn) {
        if turn.rank.is_none() && matches!(turn.program, Some(Program::Live(_))) {
            turn.rank = Some(self.scheduler.live().enter(Arc::downgrade(self)));
        }
    }

    /// Takes the program out of the cell.
    pub(super) fn take(&self, turn: &mut Turn) -> Option<Program> {
        if let Some(rank) = turn.rank.take() {
            self.scheduler.live().leave(rank);
        }
        turn.program.take()
    }

    /// Makes an instance of a program that has none.
    pub(super) fn awake(
        &self,
        program: Program,
        prepared: &dyn Prepared,
    ) -> Result<Box<dyn Instance>, Box<NotWoken>> {
        let instance = match program {
            Program::Live(instance) => return Ok(instance),
            Program::Rested(rested) => prepared.wake(*rested)?,
        };
        *lock(&self.stop) = Some(instance.stop_handle());
        Ok(instance)
    }

    /// The instance for a turn. None if there will be no turn: there is no room for it, or somebody has wished for
    /// something meanwhile.
    pub(super) fn awake_for_turn(
        self: &Arc<Self>,
        program: Program,
        prepared: &dyn Prepared,
    ) -> Option<Box<dyn Instance>> {
        let has_rested = matches!(program, Program::Rested(_));
        let instance = match self.awake(program, prepared) {
            Ok(instance) => instance,
            Err(not_woken) => {
                self.wait_for_room(*not_woken);
                return None;
            }
        };
        if has_rested {
            let mut turn = lock(&self.turn);
            if turn.holder.is_some() || turn.paused || turn.killed {
                self.put(&mut turn, instance);
                self.settle(turn);
                return None;
            }
            drop(turn);
            // That was no time of the program's.
            self.scheduler.begin_slice(self);
        }
        Some(instance)
    }

    /// Has an agent wait for which there was no room when it should go on.
    pub(super) fn wait_for_room(self: &Arc<Self>, not_woken: NotWoken) {
        let NotWoken { rested, error } = not_woken;
        let text = format!("it cannot go on, and tries again: {error}");
        // Once, however often it tries.
        if self
            .logs
            .lines()
            .last()
            .is_none_or(|line| line.text != text)
        {
            tracing::warn!(agent = %self.id(), %error, "an agent cannot be woken; it is tried again");
            self.logs.note("warn", &text);
        }
        let mut turn = lock(&self.turn);
        turn.program = Some(Program::Rested(Box::new(rested)));
        if turn.killed || turn.paused || turn.holder.is_some() {
            return self.settle(turn);
        }
        let again = Instant::now() + NO_ROOM_PAUSE;
        turn.place = Place::Waiting;
        turn.deadline = Some(again);
        self.set_alarm(&mut turn, again);
    }

    /// Gives its instance back, if it has not been active since it had this rank. One that an operation has claimed, or
    /// that waits for a processor and `also_queued` does not say so, keeps it as if it had been active; one that cannot
    /// rest keeps it, and is not asked again before it has been active.
    pub(crate) fn rest(self: &Arc<Self>, rank: u64, also_queued: bool) {
        let instance = {
            let mut turn = lock(&self.turn);
            if turn.rank != Some(rank) {
                return;
            }
            turn.rank = None;
            let is_needed = turn.claimed.is_some() || (turn.place == Place::Queued && !also_queued);
            match turn.program.take() {
                Some(Program::Live(instance)) if is_needed => {
                    return self.put(&mut turn, instance);
                }
                Some(Program::Live(instance)) => {
                    turn.memory_bytes = instance.memory_bytes();
                    turn.resting = Resting::Alone;
                    instance
                }
                other => {
                    turn.program = other;
                    return;
                }
            }
        };
        // That takes milliseconds if it has touched much.
        let rested = instance.rest();
        let mut turn = lock(&self.turn);
        turn.program = Some(match rested {
            Ok(rested) => {
                *lock(&self.stop) = None;
                self.logs.rest();
                Program::Rested(Box::new(rested))
            }
            Err(instance) => Program::Live(instance),
        });
        if std::mem::replace(&mut turn.resting, Resting::No) == Resting::Wanted {
            self.settle(turn);
        }
    }

    /// Its turn has come while it is put to rest.
    pub(super) fn come_again(&self, turn: &mut Turn) {
        turn.place = Place::Waiting;
        turn.wait = None;
        turn.deadline = None;
        turn.resting.note();
    }
}

/// Whether the program is out of its cell to be put to rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resting {
    No,
    Alone,
    /// Something has happened meanwhile for which the cell must be settled.
    Wanted,
}

impl Resting {
    pub(super) fn note(&mut self) {
        if *self == Resting::Alone {
            *self = Resting::Wanted;
        }
    }
}
