//! The agents that are here, and their turns.

mod desk;

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use mielin_mesh_core::AgentId;
use mielin_mesh_core::handover::{Letter, POST_PAYLOAD_BYTES_MAX, PostResult};
use mielin_mesh_core::limits::HANDOVER_AGENTS_MAX;
use mielin_safepoint::{Resumable, SnapshotError, SnapshotLimits};
use mielin_wasm::{
    Address, Checkpoint, CheckpointFormError, Engine, HostState, Instance, Limits, Outcome,
    Platform, StopHandle, Wait, interpreter,
};
use spin::Mutex;

use crate::Devices;
use desk::Desk;

/// So many agents can be here.
pub const AGENTS_MAX: usize = HANDOVER_AGENTS_MAX;
/// The most memory that a program has here.
pub const MEMORY_BYTES_MAX: u64 = 256 << 10;
/// The largest rewritten module.
pub const MODULE_BYTES_MAX: usize = 128 << 10;

const WASM_PAGE: usize = 64 << 10;
/// Pages of memory for frames: 64 KiB of what is alive in a stack.
const FRAMES_PAGES: u64 = 1;
/// What wasmi makes of a module, in times of its bytes: measured 2 to 5, with what it needs while it does so.
const COMPILED: usize = 6;
/// What an instance and an engine take beside memories and code, rounded up.
const BESIDE_BYTES: usize = 48 << 10;
/// What has to be free after all that, for the link and what agents say.
const SPARE_BYTES: usize = 64 << 10;

/// Runs agents in turns.
pub struct Agents {
    platform: &'static dyn Platform,
    devices: Arc<Mutex<Devices>>,
    room: Room,
    /// None while no agent is here: what it has made of modules it keeps for as long as it lives.
    engine: Option<Arc<dyn Engine>>,
    all: Vec<Agent>,
    /// Whose turn is next.
    next: usize,
}

/// Says whether pieces of memory of these sizes are free, all at once.
pub type Room = fn(&[usize]) -> bool;

struct Agent {
    id: AgentId,
    instance: Box<dyn Instance>,
    desk: Arc<Desk>,
    state: State,
}

/// What an agent does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It came, and may not run.
    Held,
    /// It has something to do.
    Ready,
    /// It waits.
    Waiting(Wait),
    /// It has come to its end, and has to be handed over like any other.
    Ended,
    /// It is on its way out.
    Frozen,
}

/// Why an agent cannot be here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// There is no room.
    NoRoom,
    /// It is no checkpoint, or its parts do not fit each other.
    Damaged,
    /// The engine refuses it, in these words.
    Unsuitable(String),
}

/// What a turn has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Whose it was.
    pub agent: AgentId,
    /// How it has ended.
    pub outcome: Outcome,
}

fn limits() -> Limits {
    Limits {
        memory_bytes: MEMORY_BYTES_MAX,
        table_elements: 1 << 12,
        module_bytes: MODULE_BYTES_MAX,
        message_bytes: POST_PAYLOAD_BYTES_MAX,
        log_bytes: u64::MAX,
        input_bytes: 4 << 10,
    }
}

fn snapshot_limits() -> SnapshotLimits {
    SnapshotLimits {
        memory_bytes: MEMORY_BYTES_MAX,
        globals: 256,
        frames_bytes: (FRAMES_PAGES as usize * WASM_PAGE) as u32,
        host_sections: 32,
        host_bytes: (MODULE_BYTES_MAX + (64 << 10)) as u64,
    }
}

impl Agents {
    /// None. What they need of the machine they have of `platform`; `room` says how much memory is left.
    #[must_use]
    pub fn new(platform: &'static dyn Platform, devices: Arc<Mutex<Devices>>, room: Room) -> Self {
        Self {
            platform,
            devices,
            room,
            engine: None,
            all: Vec::new(),
            next: 0,
        }
    }

    /// The largest checkpoint for which there is room: it comes in one piece, is taken apart, and an agent is made of it.
    #[must_use]
    pub fn room_bytes(&self) -> usize {
        if self.all.len() >= AGENTS_MAX {
            return 0;
        }
        let sizes = [256, 192, 128, 96, 64, 32, 16].map(|kib: usize| kib << 10);
        let fits = |bytes: &usize| {
            let module = (*bytes).min(MODULE_BYTES_MAX);
            let needed = [*bytes, *bytes, COMPILED * module, WASM_PAGE, WASM_PAGE];
            (self.room)(&needed) && (self.room)(&[*bytes, BESIDE_BYTES, SPARE_BYTES])
        };
        sizes.into_iter().find(fits).unwrap_or(0)
    }

    /// Makes an agent of a checkpoint, whose module is the rewritten one. It does not run before [`Agents::run`].
    ///
    /// # Errors
    /// [`Unfit`]; nothing has changed.
    pub fn admit(&mut self, id: AgentId, checkpoint: Vec<u8>) -> Result<(), Unfit> {
        if self.all.len() >= AGENTS_MAX || self.find(id).is_some() {
            return Err(Unfit::NoRoom);
        }
        let bytes = checkpoint.len();
        let decoded = Checkpoint::decode(&checkpoint, &snapshot_limits());
        drop(checkpoint);
        let Checkpoint {
            snapshot, module, ..
        } = decoded.map_err(|error| match error {
            CheckpointFormError::Snapshot(error @ SnapshotError::Limit { .. }) => {
                Unfit::Unsuitable(error.to_string())
            }
            _ => Unfit::Damaged,
        })?;
        let memory = usize::try_from(snapshot.memory_bytes).map_err(|_| Unfit::NoRoom)?;
        if self.all.is_empty() {
            self.engine = None;
        }
        let frames = FRAMES_PAGES as usize * WASM_PAGE;
        let needed = [memory, frames, COMPILED * module.len(), BESIDE_BYTES];
        if !(self.room)(&needed) || !(self.room)(&[bytes, memory, frames, SPARE_BYTES]) {
            return Err(Unfit::NoRoom);
        }
        let module = Resumable::unvalidated(module).map_err(|_| Unfit::Damaged)?;
        if module.hash() != snapshot.module {
            return Err(Unfit::Damaged);
        }
        let module = module.with_frames_pages(FRAMES_PAGES);
        let desk = Arc::new(Desk::new(Arc::clone(&self.devices)));
        let engine = self.engine.get_or_insert_with(interpreter);
        let prepared = engine.prepare(&module, None);
        drop(module);
        let state = HostState::on(self.platform, Address(id.0));
        let mut instance = prepared
            .and_then(|prepared| prepared.instantiate(state, desk.clone(), &limits()))
            .map_err(|error| Unfit::Unsuitable(error.to_string()))?;
        let loaded = instance.load(&snapshot);
        loaded.map_err(|_| Unfit::Damaged)?;
        instance.host_mut().address = Address(id.0);
        self.all.push(Agent {
            id,
            instance,
            desk,
            state: State::Held,
        });
        Ok(())
    }

    fn find(&self, id: AgentId) -> Option<usize> {
        self.all.iter().position(|agent| agent.id == id)
    }

    fn agent(&mut self, id: AgentId) -> Option<&mut Agent> {
        self.all.iter_mut().find(|agent| agent.id == id)
    }

    /// An agent that does not run may.
    pub fn run(&mut self, id: AgentId) {
        if let Some(agent) = self.agent(id) {
            agent.state = State::Ready;
        }
    }

    /// An agent goes, with all that it is.
    pub fn remove(&mut self, id: AgentId) {
        self.all.retain(|agent| agent.id != id);
        if self.all.is_empty() {
            self.engine = None;
        }
    }

    /// Freezes an agent between two of its turns, and gives its program, without the module, and how much mail it has taken. It does not run until [`Agents::run`].
    /// `None` while it has something under way of which it has to know before, and where there is no room for the copy.
    pub fn freeze(&mut self, id: AgentId) -> Option<(Vec<u8>, u64)> {
        let room = self.room;
        let agent = self.agent(id)?;
        if agent.state == State::Held || !agent.desk.is_clear() {
            return None;
        }
        let bytes = agent.instance.memory().len() + WASM_PAGE;
        if !room(&[bytes, bytes, SPARE_BYTES]) {
            return None;
        }
        let snapshot = agent.instance.snapshot();
        agent.state = State::Frozen;
        Some((snapshot.encode(), agent.desk.taken()))
    }

    /// Lets the next agent that has something to do have its turn, which ends at the latest when it is asked to stop: `arm` gets what asks.
    pub fn turn(&mut self, arm: impl FnOnce(StopHandle)) -> Option<Turn> {
        let count = self.all.len();
        let order = (0..count).map(|step| (self.next + step) % count);
        let index = order
            .into_iter()
            .find(|index| self.all[*index].is_ready())?;
        self.next = index + 1;
        let agent = &mut self.all[index];
        arm(agent.instance.stop_handle());
        let outcome = agent.instance.run();
        agent.state = match &outcome {
            Outcome::Stopped => State::Ready,
            Outcome::Blocked(wait) => State::Waiting(*wait),
            Outcome::Exited(_) | Outcome::Trapped(_) => State::Ended,
        };
        Some(Turn {
            agent: agent.id,
            outcome,
        })
    }

    /// Whether an agent has something to do.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.all.iter().any(Agent::is_ready)
    }

    /// How long until an agent has something to do because of the time alone.
    #[must_use]
    pub fn idle(&self) -> Option<Duration> {
        let waits = self.all.iter().filter_map(|agent| match agent.state {
            State::Waiting(wait) => wait.deadline_ns.map(|at| agent.instance.host().until(at)),
            _ => None,
        });
        waits.min()
    }

    /// There are new readings.
    pub fn wake_for_readings(&mut self) {
        for agent in &mut self.all {
            if matches!(agent.state, State::Waiting(wait) if wait.reading) {
                agent.state = State::Ready;
            }
        }
    }

    /// Mail has come for an agent.
    pub fn deliver(&mut self, id: AgentId, letter: Letter, len: usize, payload: Vec<u8>) {
        if let Some(agent) = self.agent(id) {
            agent.desk.deliver(letter, len, payload);
            if matches!(agent.state, State::Waiting(wait) if wait.message) {
                agent.state = State::Ready;
            }
        }
    }

    /// The post of an agent is answered.
    pub fn answer(&mut self, id: AgentId, result: PostResult) {
        if let Some(agent) = self.agent(id) {
            agent.desk.answer(result);
        }
    }

    /// The agents that were allowed to run, whose desks have something for the host; and whether one is frozen.
    pub(crate) fn desks(&self) -> impl Iterator<Item = (AgentId, &Desk, bool)> {
        let agents = self.all.iter().filter(|agent| agent.state != State::Held);
        agents.map(|agent| (agent.id, &*agent.desk, agent.state == State::Frozen))
    }

    /// Whether an agent has come to its end.
    #[must_use]
    pub fn has_ended(&self, id: AgentId) -> bool {
        self.find(id)
            .is_some_and(|index| self.all[index].state == State::Ended)
    }

    /// The agents that are here.
    pub fn ids(&self) -> impl Iterator<Item = AgentId> {
        self.all.iter().map(|agent| agent.id)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

impl Agent {
    fn is_ready(&self) -> bool {
        match self.state {
            State::Ready => true,
            State::Waiting(wait) => {
                let over = |at| self.instance.host().until(at).is_zero();
                wait.deadline_ns.is_some_and(over) || self.desk.has_answer()
            }
            State::Held | State::Ended | State::Frozen => false,
        }
    }
}

impl fmt::Debug for Agents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let states = self.all.iter().map(|agent| (agent.id, agent.state));
        f.debug_list().entries(states).finish()
    }
}
