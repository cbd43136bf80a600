//! Programs in address spaces of their own.
#![allow(unsafe_code)]

use core::fmt;

use mielin_kernel::abi::{Error, Rights};
use mielin_kernel::{Executable, ExecutableError, Segment};

use crate::objects::{AddressSpace, Frame, Node};
use crate::supplies::Supplies;
use crate::threads::Spawned;

const PAGE_BYTES: u64 = 4096;

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
        let at = self.next_address;
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
    fn fill(
        &self,
        supplies: &mut Supplies,
        frame: Frame,
        segment: &Segment<'_>,
        page: u64,
    ) -> Result<(), Error> {
        let rights = Rights::READ.or(Rights::WRITE);
        supplies.map(frame, self.space, self.at, rights)?;
        let target = core::ptr::with_exposed_provenance_mut::<u64>(self.at as usize);
        for index in 0..PAGE_BYTES / 8 {
            let word = segment.word(page + index * 8);
            // SAFETY: the page was mapped there just now, for this, and nothing else is there.
            unsafe { target.add(index as usize).write_volatile(word) };
        }
        frame.unmap()
    }
}

impl Supplies {
    /// Loads an executable into a new address space.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load(&mut self, executable: &Executable<'_>) -> Result<Program, LoadError> {
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
            let mut page = segment.address / PAGE_BYTES * PAGE_BYTES;
            let last = segment
                .address
                .checked_add(segment.memory_bytes)
                .ok_or(Error::BadAddress)?;
            while page < last {
                let frame = self.frame()?;
                window.fill(self, frame, &segment, page)?;
                self.map(frame, space, page, rights)?;
                page += PAGE_BYTES;
            }
            end = end.max(page);
        }
        Ok(Program {
            space,
            entry: executable.entry(),
            next_address: end + PAGE_BYTES,
        })
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
        let stack = program.addresses(4 * PAGE_BYTES);
        let buffer = program.addresses(PAGE_BYTES);
        self.equip_thread(program.space, node, stack, buffer, entry, argument)
    }
}
