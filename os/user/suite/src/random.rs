//! Random system calls from user mode.
//!
//! A few threads make them, in an address space and a node of their own, by capabilities for objects of their own memory and of
//! others. They can destroy all of it, themselves included; then they are made anew. The test holds what leads to its
//! own objects: those it gives to the threads are copies, and what they can revoke is theirs.

use mielin_user::abi::{MessageInfo, Method, Retype, SystemCall};
use mielin_user::boot::Buffer;
use mielin_user::objects::{Endpoint, Frame, Node, Notification, Reply, Untyped};
use mielin_user::system_call::{Arguments, make_numbered};
use mielin_user::threads::Spawned;
use mielin_user::{Cap, Error, ObjectKind, Rights, Supplies, ThreadSlot};

use crate::Test;
use crate::console::say;
use crate::processor;
use crate::room::{Failure, Outcome, Room, ensure, rest, same};

pub(crate) const TESTS: &[Test] = &[("random::a_million_system_calls", a_million)];

const CALLS: u64 = 1_000_000;
/// The calls of a round, after which all is made anew.
const CALLS_OF_A_ROUND: u64 = 20_000;
/// What a thread makes of them at most.
const CALLS_OF_A_THREAD: u64 = 10_000;
const THREADS: usize = 3;
/// The node of the threads has so many slots: the first ones are what they have in the beginning.
const SLOTS: u64 = 1 << 6;
const GIVEN: u64 = 23;
/// Where all of them see the page in which they count.
const COUNTS: u64 = 0x7000_0000;
const PRIORITY: u8 = 100;
/// The one that has those who wait for nothing go on.
const BELOW: u8 = 50;

/// Of the page of counts: its calls, and those that succeeded, for each thread.
fn counted(window: u64, thread: usize) -> (u64, u64) {
    let at = window + 16 * thread as u64;
    (processor::load(at), processor::load(at + 8))
}

/// Numbers that look random (xorshift; Marsaglia, 2003).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 3
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// An address: mostly of a slot of the threads' node, some of which lead to further nodes.
    fn address(&mut self) -> u64 {
        let near = match self.below(4) {
            0 => 1 + self.below(SLOTS - 1),
            _ => 1 + self.below(GIVEN),
        };
        match self.below(32) {
            0 => self.next() << self.below(8),
            1 => 0,
            2 | 3 => near | self.below(16) << 6,
            4 => near | self.next() << 6,
            _ => near,
        }
    }

    fn word(&mut self) -> u64 {
        match self.below(16) {
            0 => u64::MAX - self.below(4),
            1 => self.next() << self.below(32),
            2 => 1 << self.below(64),
            3 => COUNTS + self.below(4) * 4096,
            4 => 0x40_0000 + self.below(64) * 4096,
            5 | 6 => self.below(4096) << 12,
            7..=9 => self.address(),
            _ => self.below(SLOTS),
        }
    }

    /// What is to be made: mostly something that there is.
    fn retype(&mut self) -> u64 {
        let kind = ObjectKind::ALL[self.below(11) as usize];
        let size = match kind {
            ObjectKind::Untyped => 5 + self.below(12),
            ObjectKind::Node => 1 + self.below(6),
            ObjectKind::Queue => 8 + self.below(3),
            ObjectKind::Frame => 12,
            _ => 0,
        };
        let count = 1 + self.below(2) * self.below(5);
        match self.below(16) {
            0 => self.next(),
            _ => Retype::new(kind, size as u8, count).0,
        }
    }

    /// One of these.
    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }

    /// A call that makes sense for what [`give`] has put into a slot, and its words.
    fn sensible(&mut self, slot: u64) -> (SystemCall, Method, [u64; 4]) {
        use Method as M;
        use SystemCall as S;
        let (index, address, small) = (1 + self.below(SLOTS - 1), self.address(), self.below(8));
        let space = 8;
        let page = self.below(8) << 12 | COUNTS + (self.below(3) << 21);
        let (call, methods, words): (&[S], &[M], _) = match slot {
            1..=3 => {
                let methods = [
                    M::Resume,
                    M::Suspend,
                    M::ReadRegister,
                    M::SetPriority,
                    M::Equip,
                ];
                let method = self.of(&methods);
                let words = match method {
                    M::SetPriority => [60 + self.below(80), 20, small & 1, 0],
                    M::Equip => [self.below(5), address, self.below(5) * 1024, 0],
                    _ => [self.below(40), 0, 0, 0],
                };
                return (S::Invoke, method, words);
            }
            4 | 17 => (
                &[S::Invoke],
                &[M::BindThread, M::Consumed],
                [self.below(4), 0, 0, 0],
            ),
            5 => (
                &[S::Invoke],
                &[M::Retype, M::Retype, M::Describe],
                [self.retype(), 6, index, 0],
            ),
            6 | 23 => {
                let methods = [M::Copy, M::Mint, M::Move, M::Delete, M::Delete, M::Revoke];
                let rights = self.below(16);
                let badge = self.below(3) * self.next();
                return (
                    S::Invoke,
                    self.of(&methods),
                    [index, address, rights, badge],
                );
            }
            9 | 10 => {
                let calls = [
                    S::Call,
                    S::ReplyReceive,
                    S::Send,
                    S::Receive,
                    S::CallUntil,
                    S::ReplyReceiveUntil,
                    S::SendUntil,
                    S::ReceiveUntil,
                ];
                return (
                    self.of(&calls),
                    M::Retype,
                    [self.word(), small, index, address],
                );
            }
            11 | 12 => (
                &[S::Signal, S::Receive, S::ReceiveUntil],
                &[M::Retype],
                [small; 4],
            ),
            13 => (
                &[S::Push, S::Pop, S::Invoke],
                &[M::BindQueue],
                [small & 1, 11 * (small & 1), 0, 0],
            ),
            14 => (
                &[S::Invoke],
                &[M::Map, M::Unmap, M::Address],
                [space, page, 1 | small & 2, 0],
            ),
            15 | 16 => (&[S::Reply], &[M::Retype], [small; 4]),
            18 | 19 => (
                &[S::Invoke],
                &[M::Map, M::Unmap],
                [space, page + (small << 30), 0, 0],
            ),
            20 => (
                &[S::Invoke],
                &[M::Configure],
                [17, 1 + self.below(2000), small * 1000, 0],
            ),
            21 => (&[S::Invoke], &[M::Claim], [self.below(100), 6, index, 0]),
            22 => (
                &[S::Invoke],
                &[M::ReadPort, M::WritePort],
                [0x7f + small, 1 << (small & 3), 0, 0],
            ),
            _ => (&[S::Yield], &[M::Retype], [0; 4]),
        };
        (self.of(call), self.of(methods), words)
    }

    fn call(&mut self, now: u64) -> (u64, Arguments) {
        let mut arguments = self.arguments(now);
        let number = match self.below(64) {
            0 => self.next(),
            1 => 14 + self.below(4),
            2..=20 => self.below(13),
            21..=31 => SystemCall::Invoke as u64,
            _ => {
                let slot = 1 + self.below(GIVEN);
                let (call, method, words) = self.sensible(slot);
                arguments.capability = slot;
                arguments.words = words;
                if call == SystemCall::Invoke {
                    arguments.info = MessageInfo::new(method as u64, 4);
                }
                if call == SystemCall::Reply || self.below(2) == 0 {
                    arguments.reply = 15 + self.below(2);
                }
                call as u64
            }
        };
        (number, arguments)
    }

    fn arguments(&mut self, now: u64) -> Arguments {
        let mut words = [self.word(), self.word(), self.word(), self.word()];
        let mut label = self.below(27);
        // A thread whose registers are written to is of little use from then on.
        if label == Method::WriteRegister as u64 && self.below(16) != 0 {
            label = Method::ReadRegister as u64;
        }
        match Method::from_number(label) {
            Some(Method::Retype) => words[0] = self.retype(),
            Some(Method::Copy | Method::Mint | Method::Move | Method::Delete | Method::Revoke) => {
                words[0] = 1 + self.below(SLOTS);
            }
            Some(Method::Equip) => words[0] = self.below(6),
            _ => {}
        }
        let mut info = MessageInfo::new(label, self.below(8) as usize);
        if self.below(4) == 0 {
            info = MessageInfo::new(label, self.below(256) as usize);
        }
        if self.below(4) == 0 {
            info = info.with_capabilities(self.below(5) as usize);
        }
        if self.below(64) == 0 {
            info = MessageInfo(self.next() << self.below(8));
        }
        let deadline = match self.below(4) {
            0 => 0,
            1 => self.next(),
            _ => now.wrapping_add(self.below(200)),
        };
        let reply = match self.below(3) {
            0 => 0,
            _ => self.address(),
        };
        Arguments {
            capability: self.address(),
            info,
            words,
            reply,
            deadline,
        }
    }
}

/// The entry of a thread. Its number is in the lowest bits of what it is given, and what its calls follow from in the others.
extern "C" fn call_at_random(seed: u64, buffer_at: u64) -> ! {
    let at = COUNTS + 16 * (seed & 3);
    let calls = processor::load(at);
    let mut numbers = Numbers((seed ^ calls << 20).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let pointer = core::ptr::with_exposed_provenance_mut(buffer_at as usize);
    #[allow(unsafe_code)]
    // SAFETY: whoever made this thread mapped its buffer there; other threads write to it by the kernel only.
    let buffer = unsafe { Buffer::at(pointer) };
    while processor::load(at) < CALLS_OF_A_THREAD {
        let (number, arguments) = numbers.call(mielin_user::system_call::now());
        if numbers.below(4) == 0 {
            for place in 0..3 {
                buffer.send_capability(place, Cap(numbers.address()));
            }
            buffer.receive_capabilities(Node(Cap(numbers.address())), numbers.below(SLOTS));
        }
        // In memory, because others write to this thread's registers.
        processor::store(at, processor::load(at) + 1);
        if make_numbered(number, &arguments).is_ok() {
            processor::store(at + 8, processor::load(at + 8) + 1);
        }
    }
    rest()
}

/// Has those go on who wait for something that will not come, or were stopped: whenever it runs, none of them can.
///
/// In its slots: 1 the endpoint of their faults, 2 its reply object, 3 to 5 the threads, 6 to 8 their time.
extern "C" fn keep_going(seed: u64, _: u64) -> ! {
    loop {
        // Whoever faulted has lost its registers to another's call: it begins anew.
        let got = Endpoint(Cap(1)).receive_until(Some(Reply(Cap(2))), 0);
        for (thread, number) in (3..).zip(0..THREADS as u64) {
            let (thread, time) = (
                mielin_user::objects::Thread(Cap(thread)),
                mielin_user::objects::SchedulingContext(Cap(thread + 3)),
            );
            let faulted = got.is_ok_and(|got| got.badge == number + 1);
            let stopped = thread.suspend();
            if faulted {
                let restart = Restart::load(number);
                let _ = restart.apply(thread, seed | number);
            }
            let _ = time.bind(Some(thread));
            if stopped.is_err() || thread.resume().is_err() {
                rest()
            }
        }
    }
}

/// Where a thread begins: in words of the shared page, behind the counts.
struct Restart {
    entry: u64,
    stack_top: u64,
    buffer: u64,
}

impl Restart {
    fn at(number: u64) -> u64 {
        COUNTS + 1024 + 32 * number
    }

    fn load(number: u64) -> Self {
        let at = Self::at(number);
        Self {
            entry: processor::load(at),
            stack_top: processor::load(at + 8),
            buffer: processor::load(at + 16),
        }
    }

    /// As `Spawned::set_entry` does.
    fn apply(&self, thread: mielin_user::objects::Thread, argument: u64) -> Result<(), Error> {
        use mielin_kernel::registers::{ARGUMENTS, PROGRAM_COUNTER, STACK_POINTER};
        let shift = if cfg!(target_arch = "x86_64") { 8 } else { 0 };
        thread.write_register(PROGRAM_COUNTER, self.entry)?;
        thread.write_register(STACK_POINTER, self.stack_top - shift)?;
        thread.write_register(ARGUMENTS[0], argument)?;
        thread.write_register(ARGUMENTS[1], self.buffer)
    }
}

/// What a round is made in.
struct Sandbox {
    threads: [Spawned; THREADS],
    node: Node,
    /// What they were given, for when they lose it.
    originals: Node,
    window: u64,
}

impl Sandbox {
    /// Makes everything of `ground`, but for what the threads have of their own, `sand`.
    fn new(room: &mut Room, sand: Untyped, seed: u64) -> Result<Self, Failure> {
        let node = room.supplies.new_node(SLOTS.ilog2() as u8)?;
        let mut program = room.load()?;
        let (page, window) = room.page()?;
        let copy = Frame(room.mint(page.0, Rights::ALL, 0)?);
        let rights = Rights::READ.or(Rights::WRITE);
        room.supplies.map(copy, program.space, COUNTS, rights)?;

        let keeper_node = room.supplies.new_node(4)?;
        let entry = keep_going as *const () as usize as u64;
        let supplies = &mut room.supplies;
        let keeper = supplies.spawn_in(&mut program, keeper_node, entry, seed)?;
        let (faults, reply) = (supplies.endpoint()?, supplies.reply()?);
        keeper_node.copy(1, faults.0)?;
        keeper_node.copy(2, reply.0)?;

        let control = room.information.scheduling();
        let slice = room.milliseconds(1) / 10;
        let entry = call_at_random as *const () as usize as u64;
        let mut threads = [keeper; THREADS];
        for (number, thread) in (0..).zip(&mut threads) {
            let argument = seed | number;
            *thread = room
                .supplies
                .spawn_in(&mut program, node, entry, argument)?;
            room.watch(thread.thread, ThreadSlot::FaultEndpoint, faults, number + 1)?;
            thread.thread.set_priority(PRIORITY, control, number == 0)?;
            let context = room.supplies.context()?;
            control.configure(context, slice, 0)?;
            context.bind(Some(thread.thread))?;
            keeper_node.copy(3 + number, thread.thread.0)?;
            keeper_node.copy(6 + number, context.0)?;
            node.copy(1 + number, thread.thread.0)?;
            let at = window + (Restart::at(number) - COUNTS);
            processor::store(at, entry);
            processor::store(at + 8, thread.stack_top);
            processor::store(at + 16, thread.buffer_address);
            if number == 0 {
                node.copy(4, context.0)?;
            }
        }
        give(room, node, program.space.0, sand)?;
        let originals = room.supplies.new_node(SLOTS.ilog2() as u8)?;
        for slot in 1..=GIVEN {
            // Untypeds and tables are never copied.
            let given = room.supplies.cap_within(node, slot);
            let _ = originals.copy(slot, given);
        }
        for thread in &threads {
            thread.thread.resume()?;
        }
        room.supplies.run(keeper.thread, control, BELOW, slice)?;
        Ok(Self {
            threads,
            node,
            originals,
            window,
        })
    }

    /// The calls so far, and those that succeeded.
    fn counts(&self) -> (u64, u64) {
        let each = (0..THREADS).map(|thread| counted(self.window, thread));
        each.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }
}

/// Gives the threads something of each kind.
fn give(room: &mut Room, node: Node, space: Cap, sand: Untyped) -> Result<(), Error> {
    let information = room.information;
    node.take(5, sand.0)?;
    node.copy(6, node.0)?;
    node.mint(7, node.0, Rights::READ, 0)?;
    node.copy(8, space)?;
    let endpoint: Endpoint = room.endpoint()?;
    node.copy(9, endpoint.0)?;
    node.mint(10, endpoint.0, Rights::WRITE.or(Rights::GRANT), 77)?;
    let notification: Notification = room.notification()?;
    node.copy(11, notification.0)?;
    node.mint(12, notification.0, Rights::WRITE, 1 << 33)?;
    let supplies: &mut Supplies = &mut room.supplies;
    node.copy(13, supplies.queue(8)?.0)?;
    node.copy(14, supplies.frame()?.0)?;
    node.copy(15, supplies.reply()?.0)?;
    node.copy(16, supplies.reply()?.0)?;
    node.copy(17, supplies.context()?.0)?;
    node.take(18, supplies.object(ObjectKind::PageTable, 0)?)?;
    node.take(19, supplies.object(ObjectKind::PageTable, 0)?)?;
    node.mint(20, information.scheduling().0, Rights::ALL, 120)?;
    node.copy(21, information.interrupts().0)?;
    // Ports that are no device's that matters, where there are any.
    node.mint(22, information.ports().0, Rights::ALL, 0x0080_0083)?;
    node.copy(23, supplies.new_node(4)?.0)
}

/// A round: so many calls, or until nobody makes any more. Gives the calls, and those that succeeded.
fn round(room: &mut Room, sand: Untyped, seed: u64) -> Result<(u64, u64), Failure> {
    let sandbox = Sandbox::new(room, sand, seed)?;
    let mut idle = 0;
    let (mut before, _) = sandbox.counts();
    loop {
        room.pause(1)?;
        // What they have lost they get again, as far as it can be copied and they have room.
        for slot in 1..=GIVEN {
            let original = room.supplies.cap_within(sandbox.originals, slot);
            let _ = sandbox.node.copy(slot, original);
        }
        let (calls, done) = sandbox.counts();
        idle = if calls == before { idle + 1 } else { 0 };
        before = calls;
        if calls >= CALLS_OF_A_ROUND || idle > 10 {
            for thread in &sandbox.threads {
                thread.thread.suspend()?;
            }
            return Ok((calls, done));
        }
    }
}

fn a_million(room: &mut Room) -> Outcome {
    const GROUND_BITS: u8 = 22;
    const SAND_BITS: u8 = 19;
    let ground = Untyped(room.supplies.object(ObjectKind::Untyped, GROUND_BITS)?);
    let sands = Untyped(room.supplies.object(ObjectKind::Untyped, SAND_BITS)?);
    let (inner, whole) = (room.supplies.slot()?, room.supplies.slot()?);
    let (node, own, sand) = (
        room.supplies.node(),
        room.supplies.index(ground.0),
        room.supplies.index(sands.0),
    );
    let begin = room.now();
    let (mut calls, mut done, mut rounds, mut short) = (0, 0, 0, 0);
    while calls < CALLS {
        rounds += 1;
        ensure!(rounds < 1000, "{calls} calls only in {rounds} rounds");
        // All of it is the threads' own, but for the capability that it is derived from.
        sands.retype(ObjectKind::Untyped, SAND_BITS, 1, node, whole)?;
        let supplies = room.supplies.within(ground, inner, 10)?;
        let outer = core::mem::replace(&mut room.supplies, supplies);
        let made = round(room, Untyped(outer.cap(whole)), rounds << 24);
        room.supplies = outer;
        let (now, succeeded) = made?;
        calls += now;
        done += succeeded;
        short += u64::from(now < CALLS_OF_A_ROUND);
        // Nothing is lost: both pieces of memory are one piece again.
        for (memory, slot, bits) in [(sands, sand, SAND_BITS), (ground, own, GROUND_BITS)] {
            node.revoke(slot)?;
            memory.retype(ObjectKind::Untyped, bits, 1, node, whole)?;
            node.revoke(slot)?;
        }
        same!(room.never().wait_until(0), Err(Error::TimedOut));
    }
    let milliseconds = (room.now() - begin) / room.milliseconds(1);
    say!(
        "suite: {calls} calls in {rounds} rounds ({short} of them short), {done} succeeded, {milliseconds} ms"
    );
    ensure!(done * 20 > calls, "{done} of {calls} calls succeeded only");
    Ok(())
}
