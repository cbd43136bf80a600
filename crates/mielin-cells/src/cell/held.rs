//! What an operation takes out of a cell, and gives back: the program as it is, or with an instance.

use std::sync::Arc;

use mielin_safepoint::{Resumable, Snapshot};
use mielin_wasm::{Instance, NotWoken, Prepared};
use tokio::sync::oneshot;

use super::{Cell, Place, Program};
use crate::error::CellsError;
use crate::lock::lock;

/// Whoever wants the program.
pub(super) type Holder = oneshot::Sender<Held>;

/// The program of an agent, whether or not it has an instance. Dropping it lets the agent go on.
pub(crate) struct Held {
    cell: Arc<Cell>,
    program: Option<Program>,
    prepared: Arc<dyn Prepared>,
}

/// The same with an instance.
pub(crate) struct HeldLive(Held);

const TAKEN_OUT: &str = "the program is taken out only when the value is consumed";

impl Cell {
    /// Takes the program at the next safepoint, or when whoever has it puts it back. The caller has claimed the agent,
    /// or the node stops and takes it from everybody.
    pub(crate) async fn hold(self: &Arc<Self>) -> Result<Held, CellsError> {
        let receiver = {
            let mut turn = lock(&self.turn);
            let (sender, receiver) = oneshot::channel();
            turn.holder = Some(sender);
            match turn.place {
                Place::Running => {
                    drop(turn);
                    self.scheduler.want_stop(self);
                }
                Place::Ended | Place::Gone => return Err(CellsError::Ended(self.id())),
                Place::Asleep => {
                    turn.holder = None;
                    return Err(self.hibernated());
                }
                _ => self.settle(turn),
            }
            receiver
        };
        receiver.await.map_err(|_| CellsError::Ended(self.id()))
    }

    /// The same, and makes an instance of a program that has none.
    pub(crate) async fn hold_live(self: &Arc<Self>) -> Result<HeldLive, CellsError> {
        let held = self.hold().await?;
        if matches!(held.program, Some(Program::Live(_))) {
            return Ok(HeldLive(held));
        }
        let waking = tokio::task::spawn_blocking(move || held.wake());
        waking
            .await
            .map_err(|error| CellsError::Internal(error.to_string()))?
    }

    /// Hands the program to whoever wants to hold it; whether it has gone there.
    pub(super) fn hand_over(self: &Arc<Self>, turn: &mut super::Turn, holder: Holder) -> bool {
        let Some(prepared) = turn.prepared.clone() else {
            return false;
        };
        let held = Held {
            cell: Arc::clone(self),
            program: self.take(turn),
            prepared,
        };
        match holder.send(held) {
            Ok(()) => {
                turn.place = Place::Held;
                true
            }
            // Whoever wanted to hold it is no longer there. To drop this would lock the cell again.
            Err(mut held) => {
                turn.program = held.program.take();
                self.note_live(turn);
                false
            }
        }
    }
}

impl Held {
    /// The rewritten module that it runs.
    pub(crate) fn module(&self) -> &Resumable {
        self.prepared.module()
    }

    /// All of the program, with its host state.
    pub(crate) fn snapshot(&self) -> Snapshot {
        match self.program() {
            Program::Live(instance) => instance.snapshot(),
            Program::Rested(rested) => rested.snapshot(),
        }
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        self.program().memory_bytes()
    }

    /// The agent does not run here any more; frees its program.
    pub(super) fn take(mut self) -> Option<Program> {
        self.program.take()
    }

    /// The agent lives elsewhere now: frees its program for good.
    pub(crate) fn retire(self) {
        self.cell.mark_gone();
        self.take();
    }

    fn program(&self) -> &Program {
        self.program.as_ref().expect(TAKEN_OUT)
    }

    /// Blocks for as long as it takes to make an instance.
    fn wake(mut self) -> Result<HeldLive, CellsError> {
        let program = self.program.take().expect(TAKEN_OUT);
        match self.cell.awake(program, &*self.prepared) {
            Ok(instance) => {
                self.program = Some(Program::Live(instance));
                Ok(HeldLive(self))
            }
            Err(not_woken) => {
                let NotWoken { rested, error } = *not_woken;
                self.program = Some(Program::Rested(Box::new(rested)));
                Err(error.into())
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(program) = self.program.take() {
            self.cell.give_back(program);
        }
    }
}

impl HeldLive {
    pub(crate) fn instance(&self) -> &dyn Instance {
        match self.0.program() {
            Program::Live(instance) => &**instance,
            Program::Rested(_) => unreachable!("it was woken"),
        }
    }

    pub(crate) fn instance_mut(&mut self) -> &mut dyn Instance {
        match self.0.program.as_mut().expect(TAKEN_OUT) {
            Program::Live(instance) => &mut **instance,
            Program::Rested(_) => unreachable!("it was woken"),
        }
    }

    /// See [`Held::retire`].
    pub(crate) fn retire(self) {
        self.0.retire();
    }
}
