//! How the first thread comes into being: from an executable, with capabilities for everything that there is.

use mielin_hal::paging::{Access, Caching, Leaf, PageTables, Permissions, Privilege};

use crate::abi::{BUFFER_BYTES, PAGE_BITS, Rights, ThreadSlot, boot};
use crate::capability::{Capability, FrameForm};
use crate::executable::{Executable, ExecutableError};
use crate::kernel::Kernel;
use crate::machine::{Machine, Page};
use crate::objects::{AddressSpace, SchedulingContext, Slot};
use crate::reference::{OBJECTS_END, Ref, UNIT_BYTES};
use crate::registers;
use crate::thread::{self, Thread};

const PAGE_BYTES: u64 = 1 << PAGE_BITS;
/// Slots of the first node: 4,096.
const NODE_BITS: u8 = 12;
const STACK_PAGES: u64 = 16;
/// The first physical address that no frame can have: they count pages in 32 bits.
const FRAMES_END: u64 = 1 << (32 + PAGE_BITS);
/// A page that is not mapped lies between parts.
const GUARD_BYTES: u64 = PAGE_BYTES;
/// The first thread's slice: 1/200 of a second.
const SLICES_PER_SECOND: u64 = 200;
/// The smallest budget, and slice: 10 microseconds.
const BUDGETS_PER_SECOND_MAX: u64 = 100_000;

/// Why the first thread cannot begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootError {
    /// The memory for it is too small.
    NoMemory,
    /// The executable is not one.
    Executable(ExecutableError),
    /// The executable wants an address that no program can have, or one twice; or what is given has a physical address that no page has.
    BadAddress(u64),
    /// Memory that is said to be two things, from this address on.
    Overlap(u64),
    /// The kernel refused something: it is not new.
    Kernel(crate::abi::Error),
}

impl From<crate::abi::Error> for BootError {
    fn from(error: crate::abi::Error) -> Self {
        Self::Kernel(error)
    }
}

impl From<ExecutableError> for BootError {
    fn from(error: ExecutableError) -> Self {
        Self::Executable(error)
    }
}

/// Memory that programs get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its first physical address.
    pub begin: u64,
    /// The address behind it.
    pub end: u64,
    /// It holds registers of devices.
    pub device: bool,
}

/// Bytes that lie somewhere in physical memory, and are to be mapped for the first thread to read. They begin a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    /// Where.
    pub physical: u64,
    /// How many.
    pub bytes: u64,
}

/// What a port knows when it starts the first thread.
#[derive(Clone, Copy, Debug)]
pub struct Boot<'a> {
    /// Memory for the first objects, page by page; what is left of it becomes untyped.
    pub pool: Region,
    /// All else that nobody uses.
    pub regions: &'a [Region],
    /// The executable of the first thread.
    pub executable: &'a [u8],
    /// The archive.
    pub archive: Given,
    /// What firmware says of the machine.
    pub firmware: Option<Given>,
    /// Of the clock.
    pub ticks_per_second: u64,
    /// Memory that the kernel itself uses.
    pub kernel_bytes: u64,
    /// ELF's number of the architecture.
    pub architecture: u16,
}

impl Boot<'_> {
    /// Makes the first thread of a new kernel, and has it run next.
    ///
    /// # Errors
    /// See [`BootError`]. The kernel is not usable then.
    pub fn start<M: Machine>(self, kernel: &Kernel<M>) -> Result<(), BootError> {
        let executable = Executable::parse(self.executable, self.architecture)?;
        self.check_memory::<M>()?;
        let mut maker = Maker::new(kernel, self.pool)?;
        maker.make_objects()?;
        let mut end = 0;
        for segment in executable.segments() {
            let segment = segment?;
            maker.load(&segment)?;
            end = end.max(segment.address + segment.memory_bytes);
        }
        let mut free = (end + GUARD_BYTES).next_multiple_of(PAGE_BYTES);
        let mut show = |given: Given, maker: &mut Maker<'_, M>| {
            let at = free;
            for offset in (0..given.bytes).step_by(PAGE_BYTES as usize) {
                maker.map_page(at + offset, given.physical + offset, Access::Read)?;
            }
            free = (at + given.bytes + GUARD_BYTES).next_multiple_of(PAGE_BYTES);
            Ok::<u64, BootError>(at)
        };
        let archive = show(self.archive, &mut maker)?;
        let firmware = match self.firmware {
            Some(given) => show(given, &mut maker)?,
            None => 0,
        };
        let stack = free;
        for page in 0..STACK_PAGES {
            let frame = maker.page()?;
            maker.map_page(stack + page * PAGE_BYTES, frame, Access::ReadWrite)?;
        }
        free = stack + STACK_PAGES * PAGE_BYTES + GUARD_BYTES;
        let page = maker.page()?;
        maker.map_page(free, page, Access::ReadWrite)?;
        let information = free + BUFFER_BYTES;

        let table: &Page = kernel.object(Ref::at(page).ok_or(BootError::NoMemory)?);
        let words = table
            .get(BUFFER_BYTES as usize / 8..)
            .ok_or(BootError::NoMemory)?;
        words[0].set(boot::MAGIC);
        words[boot::TICKS_PER_SECOND].set(self.ticks_per_second);
        words[boot::NODE_BITS].set(u64::from(NODE_BITS));
        words[boot::ARCHIVE].set(archive);
        words[boot::ARCHIVE_BYTES].set(self.archive.bytes);
        words[boot::FIRMWARE].set(firmware);
        words[boot::FIRMWARE_BYTES].set(self.firmware.map_or(0, |given| given.bytes));
        words[boot::KERNEL_BYTES].set(self.kernel_bytes);
        words[boot::FREE_ADDRESS].set(free + PAGE_BYTES + GUARD_BYTES);
        words[boot::ARCHITECTURE].set(u64::from(self.architecture));
        let count = maker.give_untypeds(words, self.regions)?;
        words[boot::UNTYPED_COUNT].set(count);
        words[boot::FREE_FIRST].set(boot::UNTYPED_FIRST + count);
        let top = stack + STACK_PAGES * PAGE_BYTES;
        maker.begin(
            self.ticks_per_second,
            page,
            [executable.entry(), top, information],
        )
    }
}

impl Boot<'_> {
    /// No memory is two things, and what is given can be mapped.
    fn check_memory<M: Machine>(&self) -> Result<(), BootError> {
        let given = [Some(self.archive), self.firmware].into_iter().flatten();
        let given = given.map(|given| (given.physical, given.physical.saturating_add(given.bytes)));
        for (begin, end) in given.clone() {
            if !begin.is_multiple_of(PAGE_BYTES) || end > 1 << M::Mmu::PHYSICAL_BITS {
                return Err(BootError::BadAddress(begin));
            }
        }
        let regions = self.regions.iter().map(|region| (region.begin, region.end));
        let pool = (self.pool.begin, self.pool.end);
        let mut parts = core::iter::once(pool).chain(regions);
        while let Some(a) = parts.next() {
            for b in parts.clone().chain(given.clone()) {
                let (begin, end) = (a.0.max(b.0), a.1.min(b.1));
                if begin < end {
                    return Err(BootError::Overlap(begin));
                }
            }
        }
        Ok(())
    }
}

struct Maker<'a, M: Machine> {
    kernel: &'a Kernel<M>,
    next: u64,
    end: u64,
    node: Ref<Slot>,
    space: Ref<AddressSpace>,
    thread: Ref<Thread>,
    context: Ref<SchedulingContext>,
}

impl<'a, M: Machine> Maker<'a, M> {
    fn new(kernel: &'a Kernel<M>, pool: Region) -> Result<Self, BootError> {
        let begin = pool.begin.max(PAGE_BYTES);
        let begin = begin.min(OBJECTS_END).next_multiple_of(PAGE_BYTES);
        // A thread has a page, with its address space and its time; the node is behind them.
        let node = begin + PAGE_BYTES;
        let end = pool.end.min(OBJECTS_END) / PAGE_BYTES * PAGE_BYTES;
        let next = node + (crate::abi::SLOT_BYTES << NODE_BITS);
        if next >= end {
            return Err(BootError::NoMemory);
        }
        Ok(Self {
            kernel,
            next,
            end,
            thread: thread::in_memory(begin).ok_or(BootError::NoMemory)?,
            space: Ref::at(begin + 2048).ok_or(BootError::NoMemory)?,
            context: Ref::at(begin + 2048 + 256).ok_or(BootError::NoMemory)?,
            node: Ref::at(node).ok_or(BootError::NoMemory)?,
        })
    }

    fn make_objects(&mut self) -> Result<(), BootError> {
        let machine = self.kernel.machine();
        for which in ThreadSlot::ALL {
            machine.place(thread::slot(self.thread, which));
        }
        machine.place(self.thread);
        machine.begin_thread(self.thread);
        machine.place(self.space);
        machine.place(self.context);
        for index in 0..1 << NODE_BITS {
            machine.place::<Slot>(self.node.offset(index * 2));
        }
        let header = Capability::Header {
            count: 0,
            bits: NODE_BITS,
        };
        self.kernel.object(self.node).set(header);
        self.kernel.begin_space(self.space)?;
        let node = Capability::Node {
            node: self.node,
            bits: NODE_BITS,
            rights: Rights::ALL,
        };
        self.hold(boot::NODE, node);
        self.hold(
            boot::THREAD,
            Capability::Thread {
                thread: self.thread,
            },
        );
        self.hold(
            boot::ADDRESS_SPACE,
            Capability::AddressSpace { space: self.space },
        );
        let context = self.context;
        self.hold(
            boot::SCHEDULING_CONTEXT,
            Capability::SchedulingContext { context },
        );
        self.hold(boot::INTERRUPT_CONTROL, Capability::InterruptControl);
        self.hold(
            boot::SCHEDULING_CONTROL,
            Capability::SchedulingControl {
                priority_max: u8::MAX,
            },
        );
        self.hold(boot::POWER, Capability::Power);
        let ports = Capability::Ports {
            first: 0,
            last: u16::MAX,
        };
        self.hold(boot::PORTS, ports);
        let root = self.page()?;
        let root: Ref<Page> = Ref::at(root).ok_or(BootError::NoMemory)?;
        machine.begin_root(root);
        let space = self.kernel.object(self.space);
        space.root.set(Some(root));
        let identifier = space.identifier.get();
        space.value.set(M::Mmu::root(root.address(), identifier));
        Ok(())
    }

    fn slot(&self, index: u64) -> Ref<Slot> {
        self.node.offset(index as i32 * 2)
    }

    #[inline(never)]
    fn hold(&self, index: u64, capability: Capability) {
        self.kernel.count(capability);
        self.kernel.object(self.slot(index)).set(capability);
    }

    /// A new page, zeroed.
    #[inline(never)]
    fn page(&mut self) -> Result<u64, BootError> {
        let at = self.next;
        if at + PAGE_BYTES > self.end {
            return Err(BootError::NoMemory);
        }
        self.next += PAGE_BYTES;
        self.kernel.machine().clear(at, PAGE_BYTES);
        Ok(at)
    }

    /// Maps a page, with whatever tables are missing. Tables and pages of the first thread are its own for ever.
    #[inline(never)]
    fn map_page(&mut self, address: u64, physical: u64, access: Access) -> Result<(), BootError> {
        if !M::Mmu::is_user(address, PAGE_BYTES) {
            return Err(BootError::BadAddress(address));
        }
        let kernel = self.kernel;
        let mut table = kernel
            .object(self.space)
            .root
            .get()
            .ok_or(BootError::NoMemory)?;
        for level in (1..M::Mmu::LEVELS).rev() {
            let entry = &kernel.object(table)[M::Mmu::index(level, address)];
            if entry.get() == 0 {
                let below = self.page()?;
                entry.set(M::Mmu::table(below));
            }
            let next = M::Mmu::next(entry.get()).ok_or(BootError::BadAddress(address))?;
            table = Ref::at(next).ok_or(BootError::NoMemory)?;
        }
        let entry = &kernel.object(table)[M::Mmu::index(0, address)];
        if entry.get() != 0 {
            return Err(BootError::BadAddress(address));
        }
        let leaf = Leaf {
            physical,
            permissions: Permissions {
                access,
                privilege: Privilege::User,
            },
            caching: Caching::WriteBack,
        };
        entry.set(M::Mmu::leaf(0, leaf));
        Ok(())
    }

    fn load(&mut self, segment: &crate::executable::Segment<'_>) -> Result<(), BootError> {
        let begin = segment.address / PAGE_BYTES * PAGE_BYTES;
        let end = segment
            .address
            .checked_add(segment.memory_bytes)
            .filter(|end| M::Mmu::is_user(begin, end - begin))
            .ok_or(BootError::BadAddress(segment.address))?;
        let mut at = begin;
        while at < end {
            let frame = self.page()?;
            let page: &Page = self
                .kernel
                .object(Ref::at(frame).ok_or(BootError::NoMemory)?);
            for (index, word) in page.iter().enumerate() {
                word.set(segment.word(at + index as u64 * 8));
            }
            if segment.access.is_executable() {
                self.kernel.machine().publish_code(frame, PAGE_BYTES);
            }
            self.map_page(at, frame, segment.access)?;
            at += PAGE_BYTES;
        }
        Ok(())
    }

    /// Gives the first thread all memory that is left, in pieces that are powers of two. Gives their number.
    fn give_untypeds(
        &mut self,
        words: &[core::cell::Cell<u64>],
        regions: &[Region],
    ) -> Result<u64, BootError> {
        let rest = Region {
            begin: self.next,
            end: self.end,
            device: false,
        };
        self.next = self.end;
        let mut count = 0;
        for region in core::iter::once(&rest).chain(regions) {
            let limit = match region.device {
                true => FRAMES_END,
                false => OBJECTS_END,
            };
            let begin = region.begin.clamp(PAGE_BYTES, limit);
            let mut at = begin.next_multiple_of(PAGE_BYTES);
            let end = region.end.min(limit) / PAGE_BYTES * PAGE_BYTES;
            while at < end && count < boot::UNTYPEDS_MAX as u64 {
                let bits = at
                    .trailing_zeros()
                    .min((end - at).ilog2())
                    .min(u32::from(crate::abi::UNTYPED_BITS_MAX)) as u8;
                self.hold(
                    boot::UNTYPED_FIRST + count,
                    Capability::Untyped {
                        base: at,
                        bits,
                        device: region.device,
                        used: 0,
                    },
                );
                let place = boot::UNTYPEDS + 2 * count as usize;
                words[place].set(at);
                words[place + 1].set(u64::from(bits) | u64::from(region.device) << 8);
                count += 1;
                at += 1 << bits;
            }
        }
        Ok(count)
    }

    fn begin(
        &self,
        ticks_per_second: u64,
        page: u64,
        [entry, top, information]: [u64; 3],
    ) -> Result<(), BootError> {
        let kernel = self.kernel;
        let form = FrameForm::new(false, false, Rights::READ.or(Rights::WRITE));
        let number = u32::try_from(page >> PAGE_BITS).map_err(|_| BootError::NoMemory)?;
        // It is mapped for ever: as far as the capability says, nowhere.
        let frame = Capability::Frame {
            page: number,
            form,
            space: 0,
            at: 0,
        };
        self.hold(boot::PAGE, frame);
        let thread = self.thread;
        let equip = |which, from: u64, capability| {
            let place = thread::slot(thread, which);
            kernel.put(self.slot(from), place, capability);
        };
        let node = Capability::Node {
            node: self.node,
            bits: NODE_BITS,
            rights: Rights::ALL,
        };
        equip(ThreadSlot::Node, boot::NODE, node);
        let space = self.space;
        equip(
            ThreadSlot::AddressSpace,
            boot::ADDRESS_SPACE,
            Capability::SpaceOf { thread, space },
        );
        let buffer = Capability::BufferOf {
            thread,
            page: number,
        };
        equip(ThreadSlot::Buffer, boot::PAGE, buffer);
        let object = kernel.object(thread);
        object.space.set(Some(space));
        object.buffer.set(u64::from(number) * PAGE_BYTES);
        object.priority.set(u8::MAX);
        object.uses_floats.set(true);
        object.registers().set(registers::PROGRAM_COUNTER, entry);
        object.registers().set(registers::STACK_POINTER, top);
        object.registers().set(registers::ARGUMENTS[0], information);
        let least = (ticks_per_second / BUDGETS_PER_SECOND_MAX).max(1);
        kernel.budget_min.set(least);
        let slice = (ticks_per_second / SLICES_PER_SECOND).max(least);
        let now = kernel.machine().now();
        kernel.object(self.context).configure(slice, 0, now);
        kernel.give_time(self.context, thread);
        kernel.make_ready(thread);
        // The tables were written, and must be seen.
        kernel
            .machine
            .flush_space(kernel.object(space).identifier.get());
        kernel.settle();
        const { assert!(UNIT_BYTES <= PAGE_BYTES) };
        Ok(())
    }
}
