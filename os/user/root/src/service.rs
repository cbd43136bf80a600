//! A program that runs for others, and how it is started, again and again.

use alloc::vec::Vec;

use mielin_kernel::Executable;
use mielin_user::objects::{Endpoint, Frame, Thread, Untyped};
use mielin_user::process::{Gift, Start};
use mielin_user::{Error, Information, LoadError, ObjectKind, Rights, Supplies};

use crate::Failure;

/// Slots for what a program is made of: among others one for each page.
const NODE_BITS: u8 = 12;

/// Pages that a program sees: its arguments say where.
pub(crate) struct Shared {
    /// The pages, one behind the other.
    pub(crate) frames: Vec<Frame>,
    /// Each has 2^bits bytes.
    pub(crate) bits: u8,
    pub(crate) rights: Rights,
}

/// What a service is.
pub(crate) struct Recipe {
    pub(crate) name: &'static str,
    /// Where it serves.
    pub(crate) service: Option<Endpoint>,
    pub(crate) executable: Executable<'static>,
    /// Memory for all that it is made of.
    pub(crate) memory: Untyped,
    /// Memory of 2^bits bytes, which the program has for itself.
    pub(crate) own: (Untyped, u8),
    pub(crate) priority: u8,
    /// Its own node has 2^bits slots.
    pub(crate) node_bits: u8,
    pub(crate) gifts: Vec<Gift>,
    /// Interrupt lines, and the slots where their capabilities go: there is one for each line, so that it is made anew each time.
    pub(crate) lines: Vec<(u64, u32)>,
    /// Numbers that it is told, before the addresses of what is shared with it.
    pub(crate) arguments: Vec<u64>,
    pub(crate) shared: Vec<Shared>,
    /// Who has to begin anew, too, when it fails: by name.
    pub(crate) takes_along: &'static [&'static str],
}

/// A service that runs, or was given up.
pub(crate) struct Service {
    pub(crate) recipe: Recipe,
    /// Where the node goes with what it is made of.
    slot: u64,
    pub(crate) thread: Option<Thread>,
    pub(crate) restarts: u64,
    /// When it was started again, for the last times, ascending.
    pub(crate) recently: Vec<u64>,
}

impl Service {
    pub(crate) fn new(recipe: Recipe, slot: u64) -> Self {
        Self {
            recipe,
            slot,
            thread: None,
            restarts: 0,
            recently: Vec::new(),
        }
    }

    /// Starts it in its memory, of which nothing is in use. `faults` is told when it faults.
    pub(crate) fn start(
        &mut self,
        information: Information,
        supplies: &Supplies,
        faults: Endpoint,
    ) -> Result<(), Failure> {
        let recipe = &self.recipe;
        let name = recipe.name;
        let load = |error| Failure::Load(name, error);
        let kernel = |error| load(LoadError::Kernel(error));
        let mut own = supplies
            .within(recipe.memory, self.slot, NODE_BITS)
            .map_err(kernel)?;
        let (memory, bits) = recipe.own;
        let mut from = own.clone().with_memory(memory);
        let memory = from.object(ObjectKind::Untyped, bits).map_err(kernel)?;
        own = from.with_memory(recipe.memory);
        let mut program = own.load(&recipe.executable).map_err(load)?;
        let mut arguments = recipe.arguments.clone();
        for shared in &recipe.shared {
            let bytes = (shared.frames.len() as u64) << shared.bits;
            let at = program.addresses_aligned(bytes, shared.bits);
            for (index, frame) in (0..).zip(&shared.frames) {
                let copy = own.mint(frame.0, shared.rights, 0).map_err(kernel)?;
                let at = at + (index << shared.bits);
                own.map(Frame(copy), program.space, at, shared.rights)
                    .map_err(kernel)?;
            }
            arguments.push(at);
        }
        let start = Start {
            node_bits: recipe.node_bits,
            gifts: &recipe.gifts,
            arguments: &arguments,
            memory: Some(Untyped(memory)),
            keeps_itself: true,
            floats: false,
            priority: recipe.priority,
            control: information.scheduling(),
            slice: information.ticks_per_second() / 200,
            period: 0,
            stack_top: None,
            ticks_per_second: information.ticks_per_second(),
            architecture: information.architecture() as u16,
            faults: Some(faults),
        };
        let spawned = own.start(&mut program, &start).map_err(kernel)?;
        // It does not run before the first program waits.
        for (slot, line) in &recipe.lines {
            let control = information.interrupts();
            control.claim(*line, spawned.node, *slot).map_err(kernel)?;
        }
        self.thread = Some(spawned.thread);
        Ok(())
    }

    /// Takes all of it apart.
    pub(crate) fn end(
        &mut self,
        information: Information,
        supplies: &Supplies,
    ) -> Result<(), Error> {
        self.thread = None;
        let node = information.node();
        node.revoke(supplies.index(self.recipe.memory.0))?;
        node.revoke(supplies.index(self.recipe.own.0.0))
    }

    /// Has whoever waits for it, or calls it later, be refused: it was taken apart, and will not be started again.
    pub(crate) fn give_up(
        &self,
        information: Information,
        supplies: &Supplies,
    ) -> Result<(), Error> {
        let Some(service) = self.recipe.service else {
            return Ok(());
        };
        let slot = supplies.index(service.0);
        information.node().revoke(slot)?;
        information.node().delete(slot)
    }

    /// Has its first thread go on where nothing is.
    pub(crate) fn fail(&self) -> Result<(), Error> {
        let Some(thread) = self.thread else {
            return Ok(());
        };
        thread.suspend()?;
        thread.write_register(mielin_kernel::registers::PROGRAM_COUNTER, 0)?;
        thread.resume()
    }
}
