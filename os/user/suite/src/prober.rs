//! A thread that tries to use memory, and whose faults its test is told of.

use mielin_user::abi::FAULT_LABEL;
use mielin_user::objects::{Endpoint, Message, Reply};
use mielin_user::{Cap, Error, FaultKind, ThreadSlot};

use crate::processor;
use crate::room::{BELOW, Failure, Place, Room, Worker, rest};

/// What it tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Try {
    Load,
    Store,
    Call,
    Undefined,
    Breakpoint,
    Privileged,
    Floats,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    /// It worked, and gave this.
    Done(u64),
    /// It faulted: the words of the message.
    Fault([u64; 4]),
}

impl Came {
    /// Whether it is a fault of a page at this address.
    pub(crate) fn is_page_fault(self, address: u64, access: u64) -> bool {
        match self {
            Self::Fault([kind, _, at, how]) => {
                kind == FaultKind::Page as u64 && at == address && how == access
            }
            Self::Done(_) => false,
        }
    }

    /// Whether it is a fault of this kind.
    pub(crate) fn is_fault(self, kind: FaultKind) -> bool {
        matches!(self, Self::Fault([one, ..]) if one == kind as u64)
    }
}

/// What the prober says when it was not stopped.
const DONE: u64 = 77;
/// The badge of its faults.
pub(crate) const BADGE: u64 = 0xfa;

pub(crate) struct Prober {
    pub(crate) worker: Worker,
    pub(crate) endpoint: Endpoint,
    pub(crate) reply: Reply,
}

/// The entry of its thread: what is to be tried is in the lowest three bits, and the address, a multiple of 8, in the others.
extern "C" fn attempt(what: u64, _: u64) -> ! {
    let (which, address) = (what & 7, what & !7);
    let value = match which {
        0 => processor::load(address),
        1 => {
            processor::store(address, 0x1234);
            0
        }
        2 => {
            processor::call(address);
            0
        }
        3 => {
            processor::undefined();
            0
        }
        4 => {
            processor::breakpoint();
            0
        }
        5 => {
            processor::privileged();
            0
        }
        _ => {
            processor::use_floats();
            0
        }
    };
    let _ = Endpoint(Cap(1)).send(&Message::new(DONE, [value]));
    rest()
}

impl Prober {
    pub(crate) fn new(room: &mut Room, place: Place) -> Result<Self, Failure> {
        let endpoint = room.endpoint()?;
        let reply = room.reply()?;
        let worker = room.worker(place, attempt, 0, BELOW, &[endpoint.0])?;
        room.watch(worker.thread, ThreadSlot::FaultEndpoint, endpoint, BADGE)?;
        worker.context.bind(Some(worker.thread))?;
        Ok(Self {
            worker,
            endpoint,
            reply,
        })
    }

    /// Has it try something, and tells what came of it. The thread stands still then.
    pub(crate) fn attempt(&self, room: &Room, what: Try, address: u64) -> Result<Came, Failure> {
        self.begin(what, address)?;
        let came = self.next(room)?;
        self.worker.thread.suspend()?;
        Ok(came)
    }

    /// Has it begin.
    pub(crate) fn begin(&self, what: Try, address: u64) -> Result<(), Failure> {
        let Worker {
            spawned, thread, ..
        } = self.worker;
        let at = attempt as *const () as usize as u64;
        spawned.set_entry(at, address & !7 | what as u64)?;
        thread.resume()?;
        Ok(())
    }

    /// What it comes to next.
    pub(crate) fn next(&self, room: &Room) -> Result<Came, Failure> {
        let deadline = room.soon(1000);
        let got = self.endpoint.receive_until(Some(self.reply), deadline)?;
        match got.info.label() {
            DONE => Ok(Came::Done(got.words[0])),
            FAULT_LABEL if got.badge == BADGE && got.info.words() == 4 => {
                Ok(Came::Fault(got.words))
            }
            _ => Err(Failure::new(format_args!("a strange message: {got:?}"))),
        }
    }

    /// Whether nothing comes for a while.
    pub(crate) fn is_silent(&self, room: &Room) -> bool {
        room.settle().is_ok() && self.endpoint.receive_until(None, 0) == Err(Error::TimedOut)
    }
}
