//! A kernel that was started, and threads that make system calls.

use std::cell::{Cell, OnceCell};

use mielin_hal::paging::{PageTables, Sv39};
use mielin_kernel::abi::{Error, MessageInfo, Method, ObjectKind, Retype, SystemCall, boot};
use mielin_kernel::{
    Boot, BootError, Capability, Given, Kernel, LINES_MAX, Machine, Ref, Region, Request, Slot,
    State, Thread, registers,
};

use crate::arena::Arena;

/// RISC-V, as ELF counts.
pub(crate) const RISCV: u16 = 243;
/// Where the kernel of the tests has its interrupt lines, and where its memory begins.
const LINES_AT: u64 = 0xf_0000;
pub(crate) const POOL_BEGIN: u64 = 0x10_0000;
pub(crate) const POOL_END: u64 = 0x20_0000;
/// Where programs make all their calls.
const CALL_AT: u64 = 0x1_0000;

/// An executable with one page of code.
pub(crate) fn executable() -> Vec<u8> {
    segment(CALL_AT, 5, b"code", 4096)
}

/// An executable with one segment.
pub(crate) fn segment(address: u64, flags: u32, content: &[u8], memory_bytes: u64) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(16, 0);
    bytes.extend(2u16.to_le_bytes());
    bytes.extend(RISCV.to_le_bytes());
    bytes.extend(1u32.to_le_bytes());
    for long in [address, 64, 0] {
        bytes.extend(u64::to_le_bytes(long));
    }
    bytes.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 0, 0, 0] {
        bytes.extend(half.to_le_bytes());
    }
    bytes.extend(1u32.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    let file_bytes = content.len() as u64;
    for long in [120, address, address, file_bytes, memory_bytes, 4096] {
        bytes.extend(u64::to_le_bytes(long));
    }
    bytes.extend(content);
    bytes
}

/// What a port would know.
pub(crate) fn information<'a>(executable: &'a [u8], regions: &'a [Region]) -> Boot<'a> {
    Boot {
        pool: Region {
            begin: POOL_BEGIN,
            end: POOL_END,
            device: false,
        },
        regions,
        executable,
        archive: Given {
            physical: 0x1000,
            bytes: 100,
        },
        firmware: None,
        ticks_per_second: 20_000,
        kernel_bytes: 0,
        architecture: RISCV,
    }
}

/// How a system call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// With success, or an error.
    Done(Result<(), Error>),
    /// The thread waits.
    Waits,
    /// The kernel stopped in between; it is to be made again.
    Again,
    /// The thread is no more.
    Gone,
}

/// The first slots of the first node that are empty.
const FREE_AT: u64 = 64;

pub(crate) struct World<P: PageTables = Sv39> {
    pub(crate) kernel: Box<Kernel<Arena<P>>>,
    /// The first index of the first node that nobody uses.
    free: Cell<u64>,
    /// Calls that were served by a fast path.
    pub(crate) fast: Cell<u64>,
    pub(crate) last_was_fast: Cell<bool>,
    /// Where the untypeds begin: what lies below is the first thread's for ever.
    pub(crate) own_end: Cell<u64>,
    /// Its largest untyped.
    large: OnceCell<u64>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::of()
    }
}

impl<P: PageTables> World<P> {
    /// A kernel with its first thread.
    pub(crate) fn of() -> Self {
        let executable = executable();
        let world = Self::before_boot();
        world
            .boot(information(&executable, &[]))
            .expect("it starts");
        world
    }

    /// A kernel without any.
    pub(crate) fn before_boot() -> Self {
        let arena = Arena::new(LINES_AT, POOL_END);
        let lines: Ref<Slot> = Ref::at(LINES_AT).expect("an address of an object");
        for line in 0..u64::from(LINES_MAX) {
            arena.place::<Slot>(Ref::at(LINES_AT + line * 32).expect("an address of an object"));
        }
        Self {
            kernel: Box::new(Kernel::new(arena, lines)),
            free: Cell::new(FREE_AT),
            fast: Cell::new(0),
            last_was_fast: Cell::new(false),
            own_end: Cell::new(0),
            large: OnceCell::new(),
        }
    }

    pub(crate) fn boot(&self, with: Boot<'_>) -> Result<(), BootError> {
        with.start(&self.kernel)?;
        let untypeds = (boot::UNTYPED_FIRST..200).filter_map(|at| match self.capability(at) {
            Capability::Untyped { base, .. } => Some(base),
            _ => None,
        });
        self.own_end.set(untypeds.min().unwrap_or(POOL_END));
        Ok(())
    }

    pub(crate) fn arena(&self) -> &Arena<P> {
        self.kernel.machine()
    }

    pub(crate) fn thread(&self) -> Ref<Thread> {
        self.kernel.current().expect("somebody runs")
    }

    pub(crate) fn register(&self, thread: Ref<Thread>, register: usize) -> u64 {
        self.arena().object(thread).registers().get(register)
    }

    /// Has the current thread make a system call, on the way that the kernel chooses, or on the slow one.
    pub(crate) fn enter(&self, request: &Request, deadline: u64, slow: bool) -> After {
        let thread = self.thread();
        let saved = self.arena().object(thread).registers();
        saved.set(registers::PROGRAM_COUNTER, CALL_AT + registers::CALL_BYTES);
        saved.set(registers::DEADLINE, deadline);
        // Ports may leave these to the kernel. Here both ways begin with the same ones, so that all can be compared.
        saved.set(registers::NUMBER, request.number);
        saved.set(registers::CAPABILITY, request.capability);
        saved.set(registers::INFO, request.info.0);
        for (register, word) in registers::WORDS.into_iter().zip(request.words) {
            saved.set(register, word);
        }
        saved.set(registers::REPLY, request.reply);
        self.last_was_fast
            .set(!slow && self.kernel.system_call_fast(request));
        match self.last_was_fast.get() {
            true => self.fast.set(self.fast.get() + 1),
            false => self.kernel.system_call_slow(*request),
        }
        self.after(thread)
    }

    /// How it ended for the thread.
    pub(crate) fn after(&self, thread: Ref<Thread>) -> After {
        let Some(object) = self.arena().find(thread) else {
            return After::Gone;
        };
        if object.registers().get(registers::PROGRAM_COUNTER) == CALL_AT {
            return After::Again;
        }
        match object.state() {
            State::Ready | State::Inactive => {
                let error = object.registers().get(registers::ERROR);
                After::Done(match error {
                    0 => Ok(()),
                    number => Err(Error::from_number(number).expect("an error of the kernel")),
                })
            }
            _ => After::Waits,
        }
    }

    /// A call until it is through.
    pub(crate) fn call(&self, request: &Request) -> After {
        loop {
            let after = self.enter(request, u64::MAX, false);
            if after != After::Again {
                return after;
            }
        }
    }

    /// An invocation that has to end. Gives the words of its answer.
    pub(crate) fn invoke(
        &self,
        capability: u64,
        method: Method,
        words: &[u64],
    ) -> Result<[u64; 4], Error> {
        let thread = self.thread();
        match self.call(&invocation(capability, method, words)) {
            After::Done(Ok(())) => Ok(registers::WORDS.map(|word| self.register(thread, word))),
            After::Done(Err(error)) => Err(error),
            after => panic!("{method:?} of {capability} ended as {after:?}"),
        }
    }

    /// The address of the first thread's untyped with at least so many bits: the smallest.
    pub(crate) fn untyped(&self, bits: u64) -> u64 {
        let mut found: Vec<(u64, u64)> = (boot::UNTYPED_FIRST..FREE_AT)
            .filter_map(|slot| {
                let words = self.invoke(slot, Method::Describe, &[]).ok()?;
                Some((words[1], slot))
            })
            .filter(|(has, _)| *has >= bits)
            .collect();
        found.sort_unstable();
        found.first().expect("so much memory is there").1
    }

    /// An index of the first node at which nothing is.
    pub(crate) fn free(&self) -> u64 {
        self.free.replace(self.free.get() + 1)
    }

    /// Makes an object of the largest untyped. Gives the address of its capability.
    pub(crate) fn make(&self, kind: ObjectKind, size: u8) -> u64 {
        let at = self.free();
        let words = [Retype::new(kind, size, 1).0, boot::NODE, at];
        let untyped = *self.large.get_or_init(|| self.untyped(19));
        self.invoke(untyped, Method::Retype, &words)
            .expect("there is memory");
        at
    }

    /// Makes a thread that has the first one's node, and time of its own if `budget` is not 0.
    pub(crate) fn make_thread(&self, priority: u64, budget: u64, period: u64) -> Made {
        let thread = self.make(ObjectKind::Thread, 0);
        let context = self.make(ObjectKind::SchedulingContext, 0);
        let invoke = |capability, method, words: &[u64]| {
            self.invoke(capability, method, words)
                .expect("the first thread may do that");
        };
        invoke(thread, Method::Equip, &[0, boot::NODE]);
        invoke(
            thread,
            Method::SetPriority,
            &[priority, boot::SCHEDULING_CONTROL, 0],
        );
        if budget > 0 {
            let words = [context, budget, period];
            invoke(boot::SCHEDULING_CONTROL, Method::Configure, &words);
            invoke(context, Method::BindThread, &[thread]);
        }
        Made { thread, context }
    }

    /// The object of a thread's capability in the first node.
    pub(crate) fn thread_at(&self, address: u64) -> Ref<Thread> {
        match self.capability(address) {
            Capability::Thread { thread } => thread,
            other => panic!("{other:?} is no thread"),
        }
    }

    /// What is at an index of the first node.
    pub(crate) fn capability(&self, index: u64) -> Capability {
        self.arena().object(self.slot(index)).capability()
    }

    /// The slot of the first node with an index.
    pub(crate) fn slot(&self, index: u64) -> Ref<Slot> {
        Ref::at(POOL_BEGIN + 4096 + index * 32).expect("an address of an object")
    }

    /// Lets time pass until the machine's alarm, or for so many ticks if that is sooner, and has the alarm come if it is due.
    pub(crate) fn pass(&self, ticks: u64) -> u64 {
        let arena = self.arena();
        let now = arena.clock.get();
        let until = arena.alarm.get().clamp(now, now + ticks);
        arena.clock.set(until);
        if arena.alarm.get() <= until {
            arena.alarm.set(u64::MAX);
            self.kernel.tick();
        }
        until - now
    }
}

/// A thread and its time, by their capabilities.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Made {
    pub(crate) thread: u64,
    pub(crate) context: u64,
}

pub(crate) fn request(call: SystemCall, capability: u64) -> Request {
    Request {
        number: call as u64,
        capability,
        info: MessageInfo::new(0, 0),
        words: [0; 4],
        reply: 0,
    }
}

pub(crate) fn message(call: SystemCall, capability: u64, reply: u64, words: &[u64]) -> Request {
    let mut request = request(call, capability);
    request.info = MessageInfo::new(7, words.len());
    request.words[..words.len()].copy_from_slice(words);
    request.reply = reply;
    request
}

pub(crate) fn invocation(capability: u64, method: Method, words: &[u64]) -> Request {
    let mut request = message(SystemCall::Invoke, capability, 0, words);
    request.info = MessageInfo::new(method as u64, words.len());
    request
}
