//! How many instructions the kernel takes, counted under `qemu -icount shift=0`, where each instruction is a nanosecond of the
//! machine's clock.
//!
//! Everything is done twice, for two numbers of rounds, so that what is the same for both drops out. The loops that make the
//! calls are assembly, in address spaces of their own, so that their instructions are known; they are reported, for whoever reads
//! this to subtract them. Lines are `count: NAME rounds0 ticks0 rounds1 ticks1 instructions`, where the last is what programs
//! execute in a round; `calibration` is a loop that makes no call.

#![no_std]
#![no_main]
#![allow(unsafe_code)]

mod blobs;

use core::fmt::Write;
use core::panic::PanicInfo;

use mielin_hal::Text;
use mielin_kernel::abi::{Method, Retype, SystemCall};
use mielin_kernel::registers;
use mielin_user::console::Console;
use mielin_user::objects::{
    AddressSpace, Endpoint, Frame, Node, PageTable, SchedulingContext, Thread,
};
use mielin_user::{Cap, Error, Information, MessageInfo, ObjectKind, Rights, Supplies, ThreadSlot};

use blobs::{CALL_INSTRUCTIONS, LOOP_INSTRUCTIONS};

mielin_user::program!(main);

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    mielin_user::start::fail()
}

/// Where the loops and what they read are in each address space.
const CODE_AT: u64 = 0x40_0000;
const TABLE_AT: u64 = 0x40_1000;
const BUFFER_AT: u64 = 0x40_2000;
const ROUNDS: [u64; 2] = [500, 2500];
/// Of the loop that makes no call, so many that a tick more or less makes no difference.
const CALIBRATION_ROUNDS: [u64; 2] = [100_000, 1_100_000];
/// Longer than anything here takes.
const SLICE: u64 = 1 << 40;
/// Slots of a thread's node: its own objects come first.
const OWN: u64 = 1;
const DONE: u64 = 2;

/// The arguments of a call: what each argument register gets, in the order of the loops.
#[derive(Clone, Copy)]
struct Call {
    number: SystemCall,
    capability: u64,
    info: MessageInfo,
    words: [u64; 4],
    reply: u64,
}

impl Call {
    fn new(number: SystemCall, capability: u64) -> Self {
        Self {
            number,
            capability,
            info: MessageInfo::new(0, 0),
            words: [0; 4],
            reply: 0,
        }
    }

    fn invoke(capability: u64, method: Method, words: [u64; 4]) -> Self {
        Self {
            info: MessageInfo::new(method as u64, 4),
            words,
            ..Self::new(SystemCall::Invoke, capability)
        }
    }

    fn with_words(self, words: usize) -> Self {
        Self {
            info: MessageInfo::new(0, words),
            ..self
        }
    }

    fn with_reply(self, reply: u64) -> Self {
        Self { reply, ..self }
    }

    fn table(self) -> [u64; 8] {
        let [w0, w1, w2, w3] = self.words;
        let number = self.number as u64;
        [
            self.capability,
            self.info.0,
            w0,
            w1,
            w2,
            w3,
            self.reply,
            number,
        ]
    }
}

/// A loop in an address space of its own.
struct Looper {
    thread: Thread,
    context: SchedulingContext,
    node: Node,
    space: AddressSpace,
    /// This program's own view of what the loop reads.
    table: *mut u64,
}

struct Bench {
    information: Information,
    supplies: Supplies,
    done: Endpoint,
}

impl Bench {
    /// Makes a loop with a node that holds its own node and the endpoint for its result.
    fn looper(&mut self, calls: usize, priority: u8) -> Result<Looper, Error> {
        let supplies = &mut self.supplies;
        let (space, node) = (supplies.new_space()?, supplies.new_node(6)?);
        let (read_write, read_execute) = (
            Rights::READ.or(Rights::WRITE),
            Rights::READ.or(Rights::EXECUTE),
        );
        let code = self.shared(space, CODE_AT, read_execute)?;
        blobs::copy(calls, code);
        let table = self.shared(space, TABLE_AT, Rights::READ)?;
        let supplies = &mut self.supplies;
        let buffer = supplies.frame()?;
        supplies.map(buffer, space, BUFFER_AT, read_write)?;
        let thread = supplies.thread()?;
        thread.equip(ThreadSlot::Node, node.0, 0)?;
        thread.equip(ThreadSlot::AddressSpace, space.0, 0)?;
        thread.equip(ThreadSlot::Buffer, buffer.0, 0)?;
        thread.write_register(registers::PROGRAM_COUNTER, CODE_AT)?;
        thread.set_priority(priority, self.information.scheduling(), false)?;
        node.copy(OWN, node.0)?;
        node.copy(DONE, self.done.0)?;
        let context = supplies.context()?;
        let control = self.information.scheduling();
        control.configure(context, SLICE, 0)?;
        Ok(Looper {
            thread,
            context,
            node,
            space,
            table,
        })
    }

    /// A page in another space that this program can write.
    fn shared(
        &mut self,
        space: AddressSpace,
        address: u64,
        rights: Rights,
    ) -> Result<*mut u64, Error> {
        let supplies = &mut self.supplies;
        let (frame, copy) = (supplies.frame()?, supplies.slot()?);
        supplies.node().copy(copy, frame.0)?;
        let at = supplies.addresses(4096);
        let read_write = Rights::READ.or(Rights::WRITE);
        supplies.map(frame, supplies.space(), at, read_write)?;
        supplies.map(Frame(Cap(copy)), space, address, rights)?;
        Ok(core::ptr::with_exposed_provenance_mut(at as usize))
    }

    /// Says what a loop does, and how often.
    fn prepare(&self, looper: &Looper, rounds: u64, calls: &[Call]) -> Result<(), Error> {
        let result = Call::new(SystemCall::Send, DONE).with_words(1).table();
        let words = calls.iter().flat_map(|call| call.table()).chain(result);
        for (index, word) in words.enumerate() {
            // SAFETY: the page is mapped there, and has room for three calls.
            unsafe { looper.table.add(index).write_volatile(word) };
        }
        looper
            .thread
            .write_register(registers::PROGRAM_COUNTER, CODE_AT)?;
        looper
            .thread
            .write_register(blobs::TABLE_REGISTER, TABLE_AT)?;
        looper.thread.write_register(blobs::ROUNDS_REGISTER, rounds)
    }

    /// How long a loop takes.
    fn run(&self, looper: &Looper) -> Result<u64, Error> {
        looper.thread.resume()?;
        let ticks = self.done.receive(None)?.words[0];
        looper.thread.suspend()?;
        Ok(ticks)
    }

    fn measure(
        &self,
        text: &mut Text<'_, Console>,
        name: &str,
        looper: &Looper,
        calls: &[Call],
        instructions: u64,
    ) -> Result<(), Error> {
        let all_rounds = match calls {
            [] => CALIBRATION_ROUNDS,
            _ => ROUNDS,
        };
        let mut ticks = [0; 2];
        for (rounds, ticks) in all_rounds.into_iter().zip(&mut ticks) {
            self.prepare(looper, rounds, calls)?;
            *ticks = self.run(looper)?;
        }
        let ([r0, r1], [t0, t1]) = (all_rounds, ticks);
        let _ = writeln!(text, "count: {name} {r0} {t0} {r1} {t1} {instructions}");
        Ok(())
    }

    fn all(&mut self, text: &mut Text<'_, Console>) -> Result<(), Error> {
        const ONE: u64 = CALL_INSTRUCTIONS + LOOP_INSTRUCTIONS;
        let idle = self.looper(0, 100)?;
        idle.context.bind(Some(idle.thread))?;
        self.measure(text, "calibration", &idle, &[], LOOP_INSTRUCTIONS)?;

        // A call to a server without time of its own, in another space.
        let (client, server) = (self.looper(1, 100)?, self.looper(1, 100)?);
        let (endpoint, reply) = (self.supplies.endpoint()?, self.supplies.reply()?);
        client.node.copy(3, endpoint.0)?;
        server.node.copy(3, endpoint.0)?;
        server.node.copy(4, reply.0)?;
        client.context.bind(Some(client.thread))?;
        let rows = [
            ("call_reply_0", 0),
            ("call_reply_4", 4),
            ("call_reply_64", 64),
        ];
        for (name, words) in rows {
            let serve = Call::new(SystemCall::ReplyReceive, 3).with_words(words);
            server.thread.suspend()?;
            self.prepare(&server, u64::MAX, &[serve.with_reply(4)])?;
            server.context.bind(Some(server.thread))?;
            server.thread.resume()?;
            self.let_run()?;
            server.context.bind(None)?;
            let call = Call::new(SystemCall::Call, 3).with_words(words);
            self.measure(text, name, &client, &[call], 2 * ONE)?;
        }
        self.signals(text)?;
        self.yields(text)?;
        self.memory(text)
    }

    /// Lets threads of lower priority run until they wait.
    fn let_run(&self) -> Result<(), Error> {
        let until = mielin_user::system_call::now() + self.information.ticks_per_second() / 100;
        match self.done.receive_until(None, until) {
            Err(Error::TimedOut) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// A signal that wakes a thread of higher priority, which waits again.
    fn signals(&mut self, text: &mut Text<'_, Console>) -> Result<(), Error> {
        const ONE: u64 = CALL_INSTRUCTIONS + LOOP_INSTRUCTIONS;
        let (low, high) = (self.looper(1, 100)?, self.looper(1, 101)?);
        let notification = self.supplies.notification()?;
        low.node.copy(3, notification.0)?;
        high.node.copy(3, notification.0)?;
        low.context.bind(Some(low.thread))?;
        high.context.bind(Some(high.thread))?;
        self.prepare(&high, u64::MAX, &[Call::new(SystemCall::Receive, 3)])?;
        high.thread.resume()?;
        self.let_run()?;
        let signal = Call::new(SystemCall::Signal, 3);
        self.measure(text, "signal_wake_wait", &low, &[signal], 2 * ONE)?;
        high.thread.suspend()
    }

    /// Two threads of the same priority give way to each other.
    fn yields(&mut self, text: &mut Text<'_, Console>) -> Result<(), Error> {
        const ONE: u64 = CALL_INSTRUCTIONS + LOOP_INSTRUCTIONS;
        let (one, other) = (self.looper(1, 100)?, self.looper(1, 100)?);
        one.context.bind(Some(one.thread))?;
        other.context.bind(Some(other.thread))?;
        let give_way = Call::new(SystemCall::Yield, 0);
        self.prepare(&other, u64::MAX, &[give_way])?;
        other.thread.resume()?;
        // A round has both: the reader halves it.
        self.measure(text, "yield_switch_twice", &one, &[give_way], 2 * ONE)?;
        other.thread.suspend()
    }

    fn memory(&mut self, text: &mut Text<'_, Console>) -> Result<(), Error> {
        const TWO: u64 = 2 * CALL_INSTRUCTIONS + LOOP_INSTRUCTIONS;
        let looper = self.looper(2, 100)?;
        looper.context.bind(Some(looper.thread))?;
        let slot = self.supplies.slot()?;
        let untyped = self.supplies.untyped();
        untyped.retype(ObjectKind::Untyped, 12, 1, self.supplies.node(), slot)?;
        looper.node.take(3, Cap(slot))?;
        let what = Retype::new(ObjectKind::Endpoint, 0, 1);
        let calls = [
            Call::invoke(3, Method::Retype, [what.0, OWN, 5, 0]),
            Call::invoke(OWN, Method::Revoke, [3, 0, 0, 0]),
        ];
        self.measure(text, "retype_revoke", &looper, &calls, TWO)?;

        let frame = self.supplies.frame()?;
        looper.node.take(6, frame.0)?;
        looper.node.copy(7, looper.space.0)?;
        let address = 0x80_0000;
        let table = PageTable(self.supplies.object(ObjectKind::PageTable, 0)?);
        table.map(looper.space, address)?;
        let rights = u64::from(Rights::READ.or(Rights::WRITE).0);
        let calls = [
            Call::invoke(6, Method::Map, [7, address, rights, 0]),
            Call::invoke(6, Method::Unmap, [0; 4]),
        ];
        self.measure(text, "map_unmap", &looper, &calls, TWO)
    }
}

fn main(information: Information) -> ! {
    let mut supplies = Supplies::of_first_thread(information);
    let power = information.power();
    if let (Ok(mut console), Ok(done)) = (
        Console::claim(&mut supplies, information),
        supplies.endpoint(),
    ) {
        let mut text = Text(&mut console);
        let mut bench = Bench {
            information,
            supplies,
            done,
        };
        let result = bench.all(&mut text);
        let _ = match result {
            Ok(()) => writeln!(text, "count: done"),
            Err(error) => writeln!(text, "count: the kernel says {error:?}"),
        };
        let _ = power.shut_down(result.is_ok());
    }
    let _ = power.shut_down(false);
    mielin_user::start::fail()
}
