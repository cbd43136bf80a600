//! What a program is told by whoever has started it, and the slots of its node that have a meaning for all programs.
//!
//! It stands in the page of the message buffer of the program's first thread, behind the buffer.
#![allow(unsafe_code)]

use core::sync::atomic::{AtomicPtr, Ordering};

use mielin_kernel::abi::BUFFER_BYTES;

use crate::boot::Buffer;
use crate::objects::{AddressSpace, Cap, Endpoint, Node, SchedulingControl, Thread, Untyped};
use crate::supplies::Supplies;

/// Numbers that a program can be given.
pub const ARGUMENTS_MAX: usize = 64;

/// Slots of a program's node.
pub mod slot {
    /// The node itself.
    pub const NODE: u64 = 1;
    /// The program's address space.
    pub const SPACE: u64 = 2;
    /// Its first thread.
    pub const THREAD: u64 = 3;
    /// Memory of its own.
    pub const MEMORY: u64 = 4;
    /// The endpoint at which it serves.
    pub const SERVICE: u64 = 5;
    /// Where it writes what people should read.
    pub const CONSOLE: u64 = 6;
    /// Priorities that it may give.
    pub const SCHEDULING: u64 = 7;
    /// The first of those that mean something to this program alone.
    pub const OWN: u64 = 16;
    /// The first that is empty, as all behind it.
    pub const FREE: u64 = 128;
}

/// The bit that a notification has which is bound to a server's thread: no client's badge has it. The label of a message does not tell
/// them apart, because clients choose labels.
pub const NOTIFIED: u64 = 1 << 63;

pub(crate) mod word {
    pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"mielinpr");
    pub(crate) const TICKS_PER_SECOND: usize = 1;
    pub(crate) const ARCHITECTURE: usize = 2;
    pub(crate) const NODE_BITS: usize = 3;
    pub(crate) const FREE_ADDRESS: usize = 4;
    pub(crate) const THREAD_NUMBER: usize = 5;
    pub(crate) const ARGUMENTS: usize = 8;
}

/// The message buffer of the program's first thread.
static FIRST_BUFFER: AtomicPtr<u64> = AtomicPtr::new(core::ptr::null_mut());

/// The message buffer of the program's first thread, if whoever started the program has passed one.
pub fn first_buffer() -> Option<Buffer> {
    let at = FIRST_BUFFER.load(Ordering::Relaxed);
    // SAFETY: `Startup::at` has put it there, by whose promise it is a buffer.
    (!at.is_null()).then(|| unsafe { Buffer::at(at) })
}

/// What a program is told.
#[derive(Clone, Copy, Debug)]
pub struct Startup(*const u64);

impl Startup {
    /// What is at this address.
    ///
    /// # Safety
    /// Whoever has started the program has passed the address to its first thread, and nobody writes to the page behind it.
    #[must_use]
    pub unsafe fn at(address: *const u64) -> Self {
        let startup = Self(address);
        if startup.thread_number() == 0 {
            FIRST_BUFFER.store(startup.buffer_pointer(), Ordering::Relaxed);
        }
        startup
    }

    fn buffer_pointer(self) -> *mut u64 {
        self.0.wrapping_byte_sub(BUFFER_BYTES as usize).cast_mut()
    }

    fn word(self, index: usize) -> u64 {
        assert!(index < word::ARGUMENTS + ARGUMENTS_MAX);
        // SAFETY: by the promise of `at`, these words are in the page.
        unsafe { self.0.add(index).read() }
    }

    /// Whether whoever started the program speaks as it does.
    #[must_use]
    pub fn is_known(self) -> bool {
        self.word(0) == word::MAGIC
    }

    /// Ticks of the clock in a second.
    #[must_use]
    pub fn ticks_per_second(self) -> u64 {
        self.word(word::TICKS_PER_SECOND)
    }

    /// Ticks in so many milliseconds.
    #[must_use]
    pub fn milliseconds(self, count: u64) -> u64 {
        (self.ticks_per_second() / 1000).saturating_mul(count)
    }

    /// ELF's number of the architecture.
    #[must_use]
    pub fn architecture(self) -> u16 {
        self.word(word::ARCHITECTURE) as u16
    }

    /// Which of the program's threads this is: 0 for the first.
    #[must_use]
    pub fn thread_number(self) -> u64 {
        self.word(word::THREAD_NUMBER)
    }

    /// A number for this program, 0 if none was given.
    ///
    /// # Panics
    /// If there are no so many: there are [`ARGUMENTS_MAX`].
    #[must_use]
    pub fn argument(self, index: usize) -> u64 {
        self.word(word::ARGUMENTS + index)
    }

    /// Bytes that whoever started the program has mapped for it to read; two arguments say how many there are, and where.
    #[must_use]
    pub fn shared(self, len: usize, at: usize) -> &'static [u8] {
        let (len, at) = (self.argument(len), self.argument(at));
        if len == 0 || at == 0 {
            return &[];
        }
        let first = core::ptr::with_exposed_provenance(at as usize);
        // SAFETY: so many bytes are mapped there, for reading only, for as long as the program runs.
        unsafe { core::slice::from_raw_parts(first, len as usize) }
    }

    /// The first thread's message buffer.
    #[must_use]
    pub fn buffer(self) -> Buffer {
        // SAFETY: the information stands behind the buffer, in its page, which is this thread's.
        unsafe { Buffer::at(self.buffer_pointer()) }
    }

    /// The endpoint at which it serves.
    #[must_use]
    pub fn service(self) -> Endpoint {
        Endpoint(Cap(slot::SERVICE))
    }

    /// Its first thread.
    #[must_use]
    pub fn thread(self) -> Thread {
        Thread(Cap(slot::THREAD))
    }

    /// Priorities that it may give.
    #[must_use]
    pub fn scheduling(self) -> SchedulingControl {
        SchedulingControl(Cap(slot::SCHEDULING))
    }

    /// Its slots, memory and addresses.
    #[must_use]
    pub fn supplies(self) -> Supplies {
        Supplies::of_program(
            Node(Cap(slot::NODE)),
            AddressSpace(Cap(slot::SPACE)),
            Untyped(Cap(slot::MEMORY)),
            slot::FREE..1 << self.word(word::NODE_BITS),
            self.word(word::FREE_ADDRESS),
        )
    }
}
