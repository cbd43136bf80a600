//! An agent's program: an address space with two threads, and memory that comes when it is touched.

use alloc::vec::Vec;

use mielin_kernel::Executable;
use mielin_user::agents::{Right, STACK_BYTES, badge, host, slot};
use mielin_user::objects::{Endpoint, Frame, Node, Notification, Untyped};
use mielin_user::pages::{NODE_BITS, NODE_MEMORY, NODE_SPACE, Pages};
use mielin_user::process::{Gift, Start};
use mielin_user::startup;
use mielin_user::{Cap, Error, LoadError, ObjectKind, Rights, Startup, Supplies};

/// What an agent's program is made of: threads, tables, what it writes of its executable.
const MAKING_BITS: u8 = 20;
/// What an agent can have of memory, as a power of two: 16 MiB, in which its engine and its stack are, too.
const MEMORY_BITS: u8 = 24;
/// Addresses for it: more than there is memory, because that is given page by page.
const REGION_BYTES: u64 = 64 << 20;
/// Slots for what the program is made of.
const MAKING_NODE_BITS: u8 = 11;
/// Slots of the program's own node.
const OWN_NODE_BITS: u8 = 5;
const PRIORITY: u8 = 60;
/// An agent's budget is for so many milliseconds.
const PERIOD_MS: u64 = 20;

/// The page server without a badge: fault endpoints are made of it.
const PAGES: Cap = Cap(startup::slot::OWN + 1);
/// This server without a badge: what agents' programs call is made of it.
const AGENTS: Cap = Cap(startup::slot::OWN + 2);

/// Memory for one agent after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    making: Untyped,
    memory: Untyped,
    /// Where the node goes with what the program is made of.
    node_slot: u64,
    /// What its second thread waits for, and what that raises for the first.
    control: Notification,
    wake: Notification,
    freeze: Notification,
    message: Notification,
    /// The fault endpoint with the agent's badge.
    faults: Endpoint,
    /// The agent's number.
    number: u64,
}

/// What agents' programs have in common.
pub(crate) struct Programs {
    startup: Startup,
    supplies: Supplies,
    pages: Pages,
    executable: Executable<'static>,
    template: Vec<Frame>,
}

impl Programs {
    pub(crate) fn new(
        startup: Startup,
        supplies: Supplies,
        pages: Pages,
        executable: Executable<'static>,
    ) -> Result<Self, LoadError> {
        let mut programs = Self {
            startup,
            supplies,
            pages,
            executable,
            template: Vec::new(),
        };
        let template = &mut programs.template;
        programs
            .supplies
            .template(&programs.executable, |frame| template.push(frame))?;
        Ok(programs)
    }

    /// Memory for as many agents as there is memory for, at most `most`.
    pub(crate) fn places(&mut self, most: u64) -> Result<Vec<Place>, Error> {
        // What is small first: between the large pieces it would waste much.
        let (_, bits, used) = self.supplies.untyped().describe()?;
        let left = (1_u64 << bits).saturating_sub(used) >> MAKING_BITS;
        let most = most.min(left / ((1 << (MEMORY_BITS - MAKING_BITS)) + 1));
        let mut places = Vec::new();
        for number in 1..=most {
            let supplies = &mut self.supplies;
            let control = supplies.notification()?;
            let mut raised = |bit| {
                let raised = supplies.mint(control.0, Rights::WRITE, bit);
                raised.map(Notification)
            };
            let (freeze, message) = (raised(host::FREEZE)?, raised(host::MESSAGE)?);
            places.push(Place {
                making: Untyped(supplies.object(ObjectKind::Untyped, MAKING_BITS)?),
                memory: Untyped(Cap(0)),
                node_slot: supplies.slot()?,
                control,
                wake: supplies.notification()?,
                freeze,
                message,
                faults: Endpoint(supplies.mint(PAGES, Rights::ALL, number)?),
                number,
            });
        }
        for index in 0..places.len() {
            match self.supplies.object(ObjectKind::Untyped, MEMORY_BITS) {
                Ok(memory) => places[index].memory = Untyped(memory),
                Err(_) => {
                    places.truncate(index);
                    break;
                }
            }
        }
        Ok(places)
    }

    /// Starts the program of an agent.
    pub(crate) fn start(
        &self,
        place: &Place,
        may_send: bool,
        cpu_percent: Option<u8>,
    ) -> Result<(), LoadError> {
        let mut own = self
            .supplies
            .within(place.making, place.node_slot, MAKING_NODE_BITS)?;
        let mut program = own.load_with(&self.executable, &self.template)?;
        let region = program.addresses_aligned(REGION_BYTES, 21);

        let pages_node = own.new_node(NODE_BITS)?;
        let (memory, kind) = (place.memory, ObjectKind::Untyped);
        memory.retype(kind, MEMORY_BITS, 1, pages_node, NODE_MEMORY)?;
        pages_node.copy(NODE_SPACE, program.space.0)?;
        self.pages
            .watch(place.number, pages_node, region, REGION_BYTES)?;

        let call = |right| badge(place.number, right);
        let mut gifts = Vec::from([
            Gift::calls(slot::CALLS, AGENTS, call(Right::Calls)),
            Gift::serves(slot::CONTROL, place.control.0),
            Gift::whole(slot::WAKE, place.wake.0),
        ]);
        if may_send {
            gifts.push(Gift::calls(slot::SENDS, AGENTS, call(Right::Sends)));
        }
        let [(slice, period), for_second] = self.time(cpu_percent);
        let start = Start {
            node_bits: OWN_NODE_BITS,
            gifts: &gifts,
            arguments: &[region, REGION_BYTES],
            memory: None,
            keeps_itself: false,
            floats: true,
            priority: PRIORITY,
            control: self.startup.scheduling(),
            slice,
            period,
            stack_top: Some(region + STACK_BYTES),
            ticks_per_second: self.startup.ticks_per_second(),
            architecture: self.startup.architecture(),
            faults: Some(place.faults),
        };
        let first = own.start(&mut program, &start)?;
        let second = Start {
            stack_top: None,
            slice: for_second.0,
            period: for_second.1,
            ..start
        };
        own.start_thread(&mut program, first.node, 1, &second)?;
        Ok(())
    }

    /// Ticks in each period, for the first thread and the second, which only hands on what it is told; without limit in a period of 0.
    fn time(&self, percent: Option<u8>) -> [(u64, u64); 2] {
        match percent {
            Some(percent) if percent < 100 => {
                let period = self.startup.milliseconds(PERIOD_MS);
                let one = period / 100;
                let most = one * u64::from(percent);
                let second = (one / 2).max(1);
                [
                    (most.saturating_sub(second).max(1), period),
                    (second, period),
                ]
            }
            _ => [(self.startup.milliseconds(5), 0); 2],
        }
    }

    /// Takes an agent's program apart. Its memory can be used again.
    pub(crate) fn end(&self, place: &Place) -> Result<(), Error> {
        let node = Node(Cap(startup::slot::NODE));
        node.revoke(self.supplies.index(place.making.0))?;
        node.revoke(self.supplies.index(place.memory.0))?;
        // It is not there if the program never began.
        let _ = self.pages.forget(place.number);
        // What was raised for it is nobody else's.
        let _ = place.control.wait_until(0);
        let _ = place.wake.wait_until(0);
        Ok(())
    }
}

impl Place {
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Has the agent stop where it is, and be stored.
    pub(crate) fn freeze(&self) -> Result<(), Error> {
        self.freeze.signal()
    }

    /// Says that a message has come.
    pub(crate) fn tell_of_message(&self) -> Result<(), Error> {
        self.message.signal()
    }
}
