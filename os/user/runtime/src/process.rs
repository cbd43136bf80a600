//! Programs in address spaces of their own.
#![allow(unsafe_code)]

use core::fmt;

use mielin_kernel::abi::{BUFFER_BYTES, Error, ObjectKind, Rights, ThreadSlot};
use mielin_kernel::{Executable, ExecutableError, Segment};

use crate::objects::{AddressSpace, Cap, Endpoint, Frame, Node, SchedulingControl, Untyped};
use crate::startup::{ARGUMENTS_MAX, slot, word};
use crate::supplies::Supplies;
use crate::threads::{FIRST_STACK_PAGES, Place, STACK_PAGES, Spawned, Stack};

const PAGE_BYTES: u64 = 4096;
const LARGE_PAGE_BYTES: u64 = 1 << 21;

/// Why a program was not loaded. What was made for it until then is still there, in the supplies' memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// The executable is none.
    Executable(ExecutableError),
    /// The kernel refused something; for [`Error::BadAddress`] and [`Error::AlreadyMapped`] the executable is at fault.
    Kernel(Error),
}

impl From<Error> for LoadError {
    fn from(error: Error) -> Self {
        Self::Kernel(error)
    }
}

impl From<ExecutableError> for LoadError {
    fn from(error: ExecutableError) -> Self {
        Self::Executable(error)
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Executable(error) => write!(f, "the executable: {error:?}"),
            Self::Kernel(error) => write!(f, "the kernel: {error:?}"),
        }
    }
}

/// A program in memory, without threads.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Its address space.
    pub space: AddressSpace,
    /// Where it begins.
    pub entry: u64,
    next_address: u64,
}

impl Program {
    /// Addresses that nothing of it uses, with an empty page before and behind them.
    pub fn addresses(&mut self, bytes: u64) -> u64 {
        self.addresses_aligned(bytes, PAGE_BYTES.ilog2() as u8)
    }

    /// The same, from a multiple of 2^bits on.
    pub fn addresses_aligned(&mut self, bytes: u64, bits: u8) -> u64 {
        let at = self.next_address.next_multiple_of(1 << bits);
        self.next_address = at + bytes.next_multiple_of(PAGE_BYTES) + PAGE_BYTES;
        at
    }
}

/// A page of this program's own address space through which memory for others is written.
struct Window {
    space: AddressSpace,
    at: u64,
}

impl Window {
    /// Sets all words of a page, by their index.
    fn fill(
        &self,
        supplies: &mut Supplies,
        frame: Frame,
        word: impl Fn(u64) -> u64,
    ) -> Result<(), Error> {
        let rights = Rights::READ.or(Rights::WRITE);
        supplies.map(frame, self.space, self.at, rights)?;
        let target = core::ptr::with_exposed_provenance_mut::<u64>(self.at as usize);
        for index in 0..PAGE_BYTES / 8 {
            // SAFETY: the page was mapped there just now, for this, and nothing else is there.
            unsafe { target.add(index as usize).write_volatile(word(index)) };
        }
        frame.unmap()
    }
}

/// A capability that a program is given when it starts.
#[derive(Clone, Copy, Debug)]
pub struct Gift {
    /// The slot of the program's node.
    pub slot: u64,
    /// What is copied there.
    pub cap: Cap,
    /// With these rights at most.
    pub rights: Rights,
    /// With this badge, if it is not 0.
    pub badge: u64,
}

impl Gift {
    /// All of a capability.
    #[must_use]
    pub const fn whole(slot: u64, cap: Cap) -> Self {
        Self {
            slot,
            cap,
            rights: Rights::ALL,
            badge: 0,
        }
    }

    /// The right to send and call, with a badge that says who does it.
    #[must_use]
    pub const fn calls(slot: u64, cap: Cap, badge: u64) -> Self {
        Self {
            slot,
            cap,
            rights: Rights::WRITE.or(Rights::GRANT),
            badge,
        }
    }

    /// The right to receive, or to wait.
    #[must_use]
    pub const fn serves(slot: u64, cap: Cap) -> Self {
        Self {
            slot,
            cap,
            rights: Rights::READ,
            badge: 0,
        }
    }
}

/// How a program starts.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// Its node has 2^bits slots.
    pub node_bits: u8,
    /// What it is given.
    pub gifts: &'a [Gift],
    /// Numbers that it is told.
    pub arguments: &'a [u64],
    /// Memory of its own, which goes to its node.
    pub memory: Option<Untyped>,
    /// It has capabilities for its own node, address space and first thread.
    pub keeps_itself: bool,
    /// Its first thread uses the floating-point unit.
    pub floats: bool,
    /// Of its first thread.
    pub priority: u8,
    /// Allows that.
    pub control: SchedulingControl,
    /// Of its first thread, in ticks,
    pub slice: u64,
    /// in each of these; without limit if it is 0.
    pub period: u64,
    /// Where its stack ends, if that needs no memory of these supplies.
    pub stack_top: Option<u64>,
    /// Of the clock.
    pub ticks_per_second: u64,
    /// ELF's number.
    pub architecture: u16,
    /// Is told of its faults.
    pub faults: Option<Endpoint>,
}

/// The addresses of a segment's pages.
fn pages(segment: &Segment<'_>) -> Result<impl Iterator<Item = u64> + use<>, Error> {
    let first = segment.address / PAGE_BYTES * PAGE_BYTES;
    let end = segment.address.checked_add(segment.memory_bytes);
    let end = end.ok_or(Error::BadAddress)?;
    Ok((first..end).step_by(PAGE_BYTES as usize))
}

impl Supplies {
    /// Loads an executable into a new address space.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load(&mut self, executable: &Executable<'_>) -> Result<Program, LoadError> {
        self.load_with(executable, &[])
    }

    /// Makes the pages of an executable that are never written, for [`Supplies::load_with`].
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn template(
        &mut self,
        executable: &Executable<'_>,
        mut keep: impl FnMut(Frame),
    ) -> Result<(), LoadError> {
        let window = Window {
            space: self.space(),
            at: self.addresses(PAGE_BYTES),
        };
        for segment in executable.segments() {
            let segment = segment?;
            if segment.access.is_writable() {
                continue;
            }
            for page in pages(&segment)? {
                let frame = self.frame()?;
                window.fill(self, frame, |index| segment.word(page + index * 8))?;
                keep(frame);
            }
        }
        Ok(())
    }

    /// Loads an executable into a new address space, which shares with others what they all only read: the executable's
    /// [`Supplies::template`], or nothing.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load_with(
        &mut self,
        executable: &Executable<'_>,
        template: &[Frame],
    ) -> Result<Program, LoadError> {
        let mut template = template.iter();
        let space = self.new_space()?;
        let window = Window {
            space: self.space(),
            at: self.addresses(PAGE_BYTES),
        };
        let mut end = 0;
        for segment in executable.segments() {
            let segment = segment?;
            let access = segment.access;
            let mut rights = Rights::READ;
            if access.is_writable() {
                rights = rights.or(Rights::WRITE);
            }
            if access.is_executable() {
                rights = rights.or(Rights::EXECUTE);
            }
            for page in pages(&segment)? {
                let shared = match access.is_writable() {
                    true => None,
                    false => template.next(),
                };
                let frame = match shared {
                    Some(shared) => Frame(self.mint(shared.0, rights, 0)?),
                    None => {
                        let frame = self.frame()?;
                        window.fill(self, frame, |index| segment.word(page + index * 8))?;
                        frame
                    }
                };
                self.map(frame, space, page, rights)?;
                end = end.max(page + PAGE_BYTES);
            }
        }
        Ok(Program {
            space,
            entry: executable.entry(),
            next_address: end + PAGE_BYTES,
        })
    }

    /// Makes pages of 2 MiB with these bytes, in order; what is behind the bytes is zero.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn large_frames_of(
        &mut self,
        bytes: &[u8],
        mut keep: impl FnMut(Frame),
    ) -> Result<(), Error> {
        let at = self.addresses(LARGE_PAGE_BYTES);
        for part in bytes.chunks(LARGE_PAGE_BYTES as usize) {
            let frame = Frame(self.object(ObjectKind::Frame, LARGE_PAGE_BYTES.ilog2() as u8)?);
            let rights = Rights::READ.or(Rights::WRITE);
            self.map(frame, self.space(), at, rights)?;
            let target = core::ptr::with_exposed_provenance_mut::<u8>(at as usize);
            // SAFETY: the page was mapped there just now, for this, and has room for the part.
            unsafe { core::ptr::copy_nonoverlapping(part.as_ptr(), target, part.len()) };
            frame.unmap()?;
            keep(frame);
        }
        Ok(())
    }

    /// Makes a thread in a program, that begins at an address and gets a number and the address of its buffer. It sees the
    /// capabilities of `node`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn spawn_in(
        &mut self,
        program: &mut Program,
        node: Node,
        entry: u64,
        argument: u64,
    ) -> Result<Spawned, Error> {
        let place = Place {
            space: program.space,
            stack: Stack::New(STACK_PAGES, program.addresses(STACK_PAGES * PAGE_BYTES)),
            buffer: program.addresses(PAGE_BYTES),
        };
        self.equip_thread(node, place, entry, argument)
    }

    /// Starts a program: its first thread, with a [`Startup`](crate::Startup). What it is given it finds in slots of its node.
    ///
    /// # Errors
    /// What the kernel says; [`Error::InvalidArgument`] for too many arguments.
    pub fn start(&mut self, program: &mut Program, start: &Start<'_>) -> Result<Spawned, Error> {
        let node = self.new_node(start.node_bits)?;
        for gift in start.gifts {
            match node.mint(gift.slot, gift.cap, gift.rights, gift.badge) {
                // What it stood for is no more: the program finds the slot empty.
                Ok(()) | Err(Error::NoCapability) => {}
                Err(error) => return Err(error),
            }
        }
        if let Some(memory) = start.memory {
            node.take(slot::MEMORY, memory.0)?;
        }
        let spawned = self.start_thread(program, node, 0, start)?;
        Ok(spawned)
    }

    /// Starts a further thread of a program, with this number: it begins where the first one did, with a
    /// [`Startup`](crate::Startup) of its own. Gifts and memory are not looked at.
    ///
    /// # Errors
    /// As for [`Supplies::start`].
    pub fn start_thread(
        &mut self,
        program: &mut Program,
        node: Node,
        number: u64,
        start: &Start<'_>,
    ) -> Result<Spawned, Error> {
        if start.arguments.len() > ARGUMENTS_MAX {
            return Err(Error::InvalidArgument);
        }
        let stack = match start.stack_top {
            Some(top) => Stack::There(top),
            None => {
                let pages = FIRST_STACK_PAGES;
                Stack::New(pages, program.addresses(pages * PAGE_BYTES))
            }
        };
        let page = program.addresses(PAGE_BYTES);
        let information = page + BUFFER_BYTES;
        let place = Place {
            space: program.space,
            stack,
            buffer: page,
        };
        let spawned = self.equip_thread(node, place, program.entry, information)?;
        let window = Window {
            space: self.space(),
            at: self.addresses(PAGE_BYTES),
        };
        // It is mapped in the program already, and a capability maps a page once.
        let copy = Frame(self.mint(spawned.buffer_frame.0, Rights::ALL, 0)?);
        window.fill(self, copy, |index| {
            let index = (index as usize).checked_sub(BUFFER_BYTES as usize / 8);
            match index {
                Some(0) => word::MAGIC,
                Some(word::TICKS_PER_SECOND) => start.ticks_per_second,
                Some(word::ARCHITECTURE) => u64::from(start.architecture),
                Some(word::NODE_BITS) => u64::from(start.node_bits),
                Some(word::FREE_ADDRESS) => program.next_address,
                Some(word::THREAD_NUMBER) => number,
                Some(index) => {
                    let argument = index.checked_sub(word::ARGUMENTS);
                    let argument = argument.and_then(|index| start.arguments.get(index));
                    argument.copied().unwrap_or(0)
                }
                None => 0,
            }
        })?;
        if let Some(faults) = start.faults {
            spawned
                .thread
                .equip(ThreadSlot::FaultEndpoint, faults.0, 0)?;
        }
        if start.keeps_itself {
            node.copy(slot::NODE, node.0)?;
            node.copy(slot::SPACE, program.space.0)?;
            node.copy(slot::THREAD, spawned.thread.0)?;
        }
        let thread = spawned.thread;
        thread.set_priority(start.priority, start.control, start.floats)?;
        let context = self.context()?;
        start
            .control
            .configure(context, start.slice, start.period)?;
        context.bind(Some(thread))?;
        thread.resume()?;
        Ok(spawned)
    }
}
