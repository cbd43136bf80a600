//! What a test has: memory, slots and addresses that are given back when it ends, and threads to work for it.

use core::fmt::{self, Write};
use core::panic::Location;
use core::sync::atomic::{AtomicU64, Ordering};

use mielin_kernel::Executable;
use mielin_user::boot::Buffer;
use mielin_user::objects::{
    Endpoint, Frame, Node, Notification, Reply, SchedulingContext, Thread, Untyped,
};
use mielin_user::threads::{Entry, Spawned};
use mielin_user::{
    Cap, Error, Information, LoadError, ObjectKind, Program, Rights, Supplies, ThreadSlot,
};

/// The priority of the thread that runs the tests.
pub(crate) const PRIORITY: u8 = 200;
/// Threads that work for a test run when it waits.
pub(crate) const BELOW: u8 = 100;
/// Threads that come before the test itself.
pub(crate) const ABOVE: u8 = 220;

const NODE_BITS: u8 = 12;

/// Why a test failed, and where.
pub(crate) struct Failure {
    text: [u8; 240],
    len: usize,
    place: &'static Location<'static>,
}

pub(crate) type Outcome = Result<(), Failure>;

impl Failure {
    #[track_caller]
    pub(crate) fn new(why: fmt::Arguments<'_>) -> Self {
        let mut failure = Self {
            text: [0; 240],
            len: 0,
            place: Location::caller(),
        };
        // What does not fit is cut off.
        let _ = failure.write_fmt(why);
        failure
    }
}

impl Write for Failure {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            let place = self.text.get_mut(self.len).ok_or(fmt::Error)?;
            *place = byte;
            self.len += 1;
        }
        Ok(())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = core::str::from_utf8(&self.text[..self.len]).unwrap_or("?");
        write!(f, "{text}, {}:{}", self.place.file(), self.place.line())
    }
}

impl From<Error> for Failure {
    #[track_caller]
    fn from(error: Error) -> Self {
        Self::new(format_args!("the kernel refused: {error:?}"))
    }
}

impl From<LoadError> for Failure {
    #[track_caller]
    fn from(error: LoadError) -> Self {
        Self::new(format_args!("a program was not loaded: {error}"))
    }
}

/// Ends a test with a failure unless something is true.
macro_rules! ensure {
    ($condition:expr, $($why:tt)+) => {
        if !$condition {
            return Err($crate::room::Failure::new(format_args!($($why)+)));
        }
    };
}

/// Ends a test with a failure unless two values are the same.
macro_rules! same {
    ($left:expr, $right:expr) => {{
        let (left, right) = (&$left, &$right);
        if left != right {
            return Err($crate::room::Failure::new(format_args!(
                "{} is {left:?}, not {right:?}",
                stringify!($left)
            )));
        }
    }};
    ($left:expr, $right:expr, $($why:tt)+) => {{
        let (left, right) = (&$left, &$right);
        if left != right {
            return Err($crate::room::Failure::new(format_args!(
                "{}: {left:?}, not {right:?}",
                format_args!($($why)+)
            )));
        }
    }};
}
pub(crate) use {ensure, same};

/// Words that all threads of the suite's own address space see.
static SHARED: [AtomicU64; 64] = [const { AtomicU64::new(0) }; 64];

/// A shared word.
pub(crate) fn shared(index: usize) -> u64 {
    SHARED[index].load(Ordering::Relaxed)
}

/// Sets a shared word.
pub(crate) fn share(index: usize, value: u64) {
    SHARED[index].store(value, Ordering::Relaxed);
}

/// Adds one to a shared word that one thread only writes.
pub(crate) fn count(index: usize) {
    SHARED[index].store(shared(index).wrapping_add(1), Ordering::Relaxed);
}

/// Where a thread works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the suite's own address space.
    Here,
    /// In one of its own, with the suite's program.
    Apart,
}

/// A thread that works for a test, in a node of its own: what it was given is in the slots from 1 on.
pub(crate) struct Worker {
    pub(crate) spawned: Spawned,
    pub(crate) thread: Thread,
    pub(crate) context: SchedulingContext,
    pub(crate) program: Option<Program>,
}

impl Worker {
    /// Lets it run on its own time.
    pub(crate) fn start(&self) -> Result<(), Error> {
        self.context.bind(Some(self.thread))?;
        self.thread.resume()
    }

    /// Lets it run on time that others lend it.
    ///
    /// It comes to its first wait by time of its own, which is taken away then.
    pub(crate) fn start_passive(&self, room: &Room) -> Result<(), Error> {
        self.start()?;
        room.settle()?;
        self.context.bind(None)
    }
}

pub(crate) const WORKER_NODE_BITS: u8 = 5;

/// The room of a test.
pub(crate) struct Room {
    pub(crate) information: Information,
    /// Of the test's own memory.
    pub(crate) supplies: Supplies,
    /// Nobody signals it: to wait for time.
    never: Notification,
    idler: Idler,
    executable: Executable<'static>,
}

/// A thread that comes after all others: when it runs, all of them wait for something.
#[derive(Clone, Copy)]
struct Idler {
    asked: Notification,
    idle: Notification,
}

impl Idler {
    fn new(information: Information, supplies: &mut Supplies) -> Result<Self, Error> {
        let idler = Self {
            asked: supplies.notification()?,
            idle: supplies.notification()?,
        };
        let node = supplies.new_node(2)?;
        node.copy(1, idler.asked.0)?;
        node.copy(2, idler.idle.0)?;
        let spawned = supplies.spawn(node, tell_when_idle, 0)?;
        let slice = information.ticks_per_second() / 1000;
        supplies.run(spawned.thread, information.scheduling(), 1, slice)?;
        Ok(idler)
    }
}

extern "C" fn tell_when_idle(_: u64, _: u64) -> ! {
    let (asked, idle) = (Notification(Cap(1)), Notification(Cap(2)));
    loop {
        if asked.wait().is_err() || idle.signal().is_err() {
            rest()
        }
    }
}

/// What stays from one test to the next.
pub(crate) struct House {
    information: Information,
    supplies: Supplies,
    executable: Executable<'static>,
    untyped: Untyped,
    /// Of the test's node.
    slot: u64,
    never: Notification,
    idler: Idler,
}

impl House {
    pub(crate) fn new(
        information: Information,
        mut supplies: Supplies,
        executable: Executable<'static>,
        untyped: Untyped,
    ) -> Result<Self, Error> {
        let slot = supplies.slot()?;
        let never = supplies.notification()?;
        let idler = Idler::new(information, &mut supplies)?;
        Ok(Self {
            information,
            supplies,
            executable,
            untyped,
            slot,
            never,
            idler,
        })
    }

    /// Makes a room, has a test done in it, and takes everything back.
    pub(crate) fn with_room(&self, test: fn(&mut Room) -> Outcome) -> Outcome {
        for word in &SHARED {
            word.store(0, Ordering::Relaxed);
        }
        let supplies = self.supplies.within(self.untyped, self.slot, NODE_BITS)?;
        let mut room = Room {
            information: self.information,
            supplies,
            never: self.never,
            idler: self.idler,
            executable: self.executable,
        };
        let outcome = test(&mut room);
        let thread = self.information.thread();
        thread.bind(None)?;
        thread.set_priority(PRIORITY, self.information.scheduling(), true)?;
        let buffer = self.information.buffer();
        buffer.receive_capabilities(Node(Cap(0)), 0);
        self.information.node().revoke(self.untyped.0.0)?;
        let (_, bits, _) = self.untyped.describe()?;
        // All of it can be one object again, so nothing is left of what the test has made.
        self.untyped.retype(
            ObjectKind::Untyped,
            bits,
            1,
            self.information.node(),
            self.slot,
        )?;
        self.information.node().revoke(self.untyped.0.0)?;
        outcome
    }
}

impl Room {
    /// The suite's message buffer.
    pub(crate) fn buffer(&self) -> Buffer {
        self.information.buffer()
    }

    pub(crate) fn milliseconds(&self, count: u64) -> u64 {
        self.information.ticks_per_second() / 1000 * count
    }

    pub(crate) fn now(&self) -> u64 {
        mielin_user::system_call::now()
    }

    /// A time in so many milliseconds.
    pub(crate) fn soon(&self, milliseconds: u64) -> u64 {
        self.now() + self.milliseconds(milliseconds)
    }

    /// Lets the other threads run for so long.
    pub(crate) fn pause(&self, milliseconds: u64) -> Result<(), Error> {
        match self.never.wait_until(self.soon(milliseconds)) {
            Err(Error::TimedOut) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(Error::Canceled),
        }
    }

    /// Lets the other threads run until all of them wait. Threads that never do have it wait without end.
    pub(crate) fn settle(&self) -> Result<(), Error> {
        self.idler.asked.signal()?;
        self.idler.idle.wait().map(|_| ())
    }

    /// A notification that nobody signals.
    pub(crate) fn never(&self) -> Notification {
        self.never
    }

    pub(crate) fn endpoint(&mut self) -> Result<Endpoint, Error> {
        self.supplies.endpoint()
    }

    pub(crate) fn reply(&mut self) -> Result<Reply, Error> {
        self.supplies.reply()
    }

    pub(crate) fn notification(&mut self) -> Result<Notification, Error> {
        self.supplies.notification()
    }

    pub(crate) fn mint(&mut self, from: Cap, rights: Rights, badge: u64) -> Result<Cap, Error> {
        self.supplies.mint(from, rights, badge)
    }

    /// The suite's program in an address space of its own, without threads.
    pub(crate) fn load(&mut self) -> Result<Program, LoadError> {
        self.supplies.load(&self.executable)
    }

    /// A worker that is given capabilities, and stands still.
    pub(crate) fn worker(
        &mut self,
        place: Place,
        entry: Entry,
        argument: u64,
        priority: u8,
        given: &[Cap],
    ) -> Result<Worker, Failure> {
        let node = self.supplies.new_node(WORKER_NODE_BITS)?;
        for (slot, cap) in (1..).zip(given) {
            node.copy(slot, *cap)?;
        }
        let (spawned, program) = match place {
            Place::Here => (self.supplies.spawn(node, entry, argument)?, None),
            Place::Apart => {
                let mut program = self.load()?;
                let at = entry as usize as u64;
                let spawned = self.supplies.spawn_in(&mut program, node, at, argument)?;
                (spawned, Some(program))
            }
        };
        let thread = spawned.thread;
        thread.set_priority(priority, self.information.scheduling(), false)?;
        let context = self.supplies.context()?;
        let slice = self.milliseconds(1);
        self.information.scheduling().configure(context, slice, 0)?;
        Ok(Worker {
            spawned,
            thread,
            context,
            program,
        })
    }

    /// The same, running.
    pub(crate) fn working(
        &mut self,
        place: Place,
        entry: Entry,
        argument: u64,
        priority: u8,
        given: &[Cap],
    ) -> Result<Worker, Failure> {
        let worker = self.worker(place, entry, argument, priority, given)?;
        worker.start()?;
        Ok(worker)
    }

    /// An endpoint that is told of a thread's faults, with a badge.
    pub(crate) fn watch(
        &mut self,
        thread: Thread,
        which: ThreadSlot,
        endpoint: Endpoint,
        badge: u64,
    ) -> Result<(), Error> {
        let told = self.mint(endpoint.0, Rights::ALL, badge)?;
        thread.equip(which, told, 0)
    }

    /// A new page, and where it is mapped in the suite's own space.
    pub(crate) fn page(&mut self) -> Result<(Frame, u64), Error> {
        let frame = self.supplies.frame()?;
        let at = self.supplies.addresses(4096);
        let rights = Rights::READ.or(Rights::WRITE);
        self.supplies
            .map(frame, self.supplies.space(), at, rights)?;
        Ok((frame, at))
    }
}

/// Ends a worker: nobody is told, so that it stands still from here on.
pub(crate) fn rest() -> ! {
    mielin_user::start::fail()
}
