//! What a memory-management unit reads: entries of page tables, and the registers that lead to them.
//!
//! Pure functions over entries of 64 bits, on every host, so that the portable part of a kernel and its tests are the same
//! whatever machine they are for. They touch no memory: whoever calls them writes the entries, orders these writes and
//! says which translations are stale.
//!
//! | format | architecture | levels | addresses of programs |
//! |---|---|---|---|
//! | [`Sv39`] | RISC-V | 3 | 2³⁸ bytes |
//! | [`Sv48`] | RISC-V | 4 | 2⁴⁷ bytes |
//! | [`Stage1`] | 64-bit Arm, granule of 4 KiB | 4 | 2⁴⁸ bytes |
//! | [`FourLevel`] | x86-64 | 4 | 2⁴⁷ bytes, less the last page |
//!
//! All have tables of 512 entries in 4 KiB, and pages of 4 KiB, 2 MiB and 1 GiB. Level 0 is that of the smallest pages.
//!
//! What is the same in all of them: no entry is writable and executable, because no [`Access`] is. A page of a program is
//! never executable by the kernel as far as entries can say so (Arm, RISC-V; x86-64 needs SMEP), a page of the kernel
//! never by programs, and reading or writing a program's pages from the kernel is left to PAN, SUM and SMAP. Pages of
//! the kernel are global, those of programs belong to an address space. The bits by which processors say that a page was used
//! are set from the beginning, so that no processor writes into tables, nor asks the kernel to (RISC-V's Svade).
//!
//! ```
//! use mielin_hal::paging::{Access, Caching, Entry, Leaf, PageTables, Permissions, Privilege, Sv39};
//!
//! let code = Leaf {
//!     physical: 0x8020_0000,
//!     permissions: Permissions { access: Access::ReadExecute, privilege: Privilege::User },
//!     caching: Caching::WriteBack,
//! };
//! let entry = Sv39::leaf(0, code);
//! assert_eq!(Sv39::decode(0, entry), Entry::Leaf(code));
//! assert_eq!(Access::new(true, true, true), None);
//! ```

mod four_level;
mod stage1;
mod sv;

pub use four_level::FourLevel;
pub use stage1::Stage1;
pub use sv::{Sv39, Sv48};

/// Bytes of a table, and of the smallest page.
pub const TABLE_BYTES: u64 = 4096;
/// Entries of a table.
pub const ENTRIES: usize = 512;

/// What may be done with a page. Every page may be read: two of the three architectures have no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// It may be read.
    Read,
    /// And written.
    ReadWrite,
    /// And executed.
    ReadExecute,
}

impl Access {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Read, Self::ReadWrite, Self::ReadExecute];

    /// The access that allows just this. `None` if no page may be like that: unreadable, or writable and executable.
    #[must_use]
    #[inline]
    pub const fn new(read: bool, write: bool, execute: bool) -> Option<Self> {
        match (read, write, execute) {
            (true, false, false) => Some(Self::Read),
            (true, true, false) => Some(Self::ReadWrite),
            (true, false, true) => Some(Self::ReadExecute),
            _ => None,
        }
    }

    /// Whether it allows writing.
    #[must_use]
    #[inline]
    pub const fn is_writable(self) -> bool {
        matches!(self, Self::ReadWrite)
    }

    /// Whether it allows execution.
    #[must_use]
    #[inline]
    pub const fn is_executable(self) -> bool {
        matches!(self, Self::ReadExecute)
    }
}

/// Whose page it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Privilege {
    /// The kernel's, the same in all address spaces.
    Kernel,
    /// A program's, in this address space only.
    User,
}

impl Privilege {
    /// Each of them.
    pub const ALL: [Self; 2] = [Self::Kernel, Self::User];
}

/// Who may do what with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Permissions {
    /// What may be done.
    pub access: Access,
    /// And by whom.
    pub privilege: Privilege,
}

/// What stands between a page and its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Caching {
    /// Ordinary memory: every cache.
    WriteBack,
    /// Memory without caches, whose writes may be gathered: a frame buffer, or what a device reads without asking caches.
    NonCacheable,
    /// Registers of a device: each access happens, in order, and none happens that the program does not ask for.
    Device,
}

impl Caching {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::WriteBack, Self::NonCacheable, Self::Device];
}

/// A page in an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Leaf {
    /// Where it begins in physical memory: a multiple of its size, below 2 to the power of [`PageTables::PHYSICAL_BITS`].
    pub physical: u64,
    /// Who may do what with it.
    pub permissions: Permissions,
    /// How it is cached. What is not [`Caching::WriteBack`] is not for execution: processors fetch ahead, and would ask devices for
    /// instructions.
    pub caching: Caching,
}

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    /// Nothing is there. The other bits are the kernel's own.
    Absent,
    /// The table of the next level below is at this physical address.
    Table(u64),
    /// A page.
    Leaf(Leaf),
    /// Something that [`PageTables::table`] and [`PageTables::leaf`] do not make, for instance with reserved bits set.
    Foreign,
}

/// A format of page tables.
///
/// Levels count from 0, that of the smallest pages, up to the root, [`PageTables::LEVELS`] less one.
pub trait PageTables {
    /// How many levels of tables there are.
    const LEVELS: u8;
    /// Bits of a virtual address that are translated. Those above are copies of the highest one; on Arm, they choose
    /// between the root of programs and that of the kernel.
    const VIRTUAL_BITS: u8;
    /// Bits of a physical address that an entry can hold. Processors may have fewer.
    const PHYSICAL_BITS: u8;
    /// Bits of the number of an address space that the root register holds. Processors may have fewer.
    const SPACE_BITS: u8;
    /// Programs have the addresses below.
    const USER_END: u64;
    /// The kernel has the addresses from here on.
    const KERNEL_BEGIN: u64;
    /// Whether the upper half of the entries of every root is the kernel's, and has to be the same in each. Otherwise it
    /// has a root of its own, in another register.
    const KERNEL_IN_EVERY_ROOT: bool;

    /// The entry that leads to a table of the next level below.
    #[must_use]
    fn table(physical: u64) -> u64;

    /// The entry that maps a page at a level that has pages. Bits of an address that do not fit are left out.
    #[must_use]
    fn leaf(level: u8, leaf: Leaf) -> u64;

    /// The table to which an entry of a level above 0 leads; for walks. `None` if it leads to none.
    #[must_use]
    fn next(entry: u64) -> Option<u64>;

    /// The page that an entry that is present, and leads to no table, would map, if it were one of ours.
    #[must_use]
    fn read_leaf(entry: u64) -> Leaf;

    /// What is written into the register of the root (`satp`, `TTBR0_EL1`, `CR3`), for the address space of this number.
    #[must_use]
    fn root(physical: u64, space: u16) -> u64;

    /// Where in the table of a level the entry for an address is.
    #[must_use]
    #[inline]
    fn index(level: u8, address: u64) -> usize {
        (address >> shift(level)) as usize % ENTRIES
    }

    /// Bytes of a page at this level; `None` if there are none but tables.
    #[must_use]
    #[inline]
    fn page_bytes(level: u8) -> Option<u64> {
        (level <= HIGHEST_LEAF).then(|| 1 << shift(level))
    }

    /// Bytes of address space that one entry of this level stands for.
    #[must_use]
    #[inline]
    fn entry_bytes(level: u8) -> u64 {
        1 << shift(level)
    }

    /// Whether something is mapped there.
    #[must_use]
    #[inline]
    fn is_present(entry: u64) -> bool {
        // The lowest bit, in all formats.
        entry & PRESENT != 0
    }

    /// What an entry says, whatever it is.
    #[must_use]
    #[inline]
    fn decode(level: u8, entry: u64) -> Entry {
        if !Self::is_present(entry) {
            return Entry::Absent;
        }
        if level > 0
            && let Some(physical) = Self::next(entry)
        {
            return match Self::table(physical) == entry {
                true => Entry::Table(physical),
                false => Entry::Foreign,
            };
        }
        let leaf = Self::read_leaf(entry);
        match level <= HIGHEST_LEAF && Self::leaf(level, leaf) == entry {
            true => Entry::Leaf(leaf),
            false => Entry::Foreign,
        }
    }

    /// Whether so many bytes from an address on are all a program's addresses. Says nothing about what is mapped.
    #[must_use]
    #[inline]
    fn is_user(address: u64, bytes: u64) -> bool {
        // Without a sum that could wrap.
        address <= Self::USER_END && bytes <= Self::USER_END - address
    }
}

/// In all formats.
const PRESENT: u64 = 1;
/// 1 GiB.
const HIGHEST_LEAF: u8 = 2;

/// The bits of an address below those that choose an entry of this level.
#[inline]
const fn shift(level: u8) -> u32 {
    12 + 9 * level as u32
}

/// The bits from `low` up to, but not including, `end`.
#[inline]
const fn bits(low: u32, end: u32) -> u64 {
    (u64::MAX >> (64 - end)) & (u64::MAX << low)
}

#[cfg(test)]
mod tests;
