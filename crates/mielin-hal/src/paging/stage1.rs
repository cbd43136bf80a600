//! 64-bit Arm: the first stage of translation in EL1 and EL0, with a granule of 4 KiB and addresses of 48 bits.
//!
//! Source: Arm Architecture Reference Manual for A-profile, D8.3 (translation table descriptor formats), D8.4 (memory
//! access control), D8.6 (memory types), D19.2 (MAIR_EL1, TCR_EL1, TTBR0_EL1, ID_AA64MMFR0_EL1).

use super::{Access, Caching, Leaf, PRESENT, PageTables, Permissions, Privilege, bits, shift};

/// Bit 1: a table above level 0, a page at it. Without it a block above level 0, and nothing at it.
const TABLE_OR_PAGE: u64 = 1 << 1;
/// AttrIndx: which byte of MAIR_EL1 says what memory it is.
const ATTRIBUTES: u32 = 2;
/// AP[1]: EL0 may.
const USER: u64 = 1 << 6;
/// AP[2]: nobody may write.
const READ_ONLY: u64 = 1 << 7;
/// SH: memory is the same for all processors of a system. Of memory without caches it says nothing (D8.6).
const INNER_SHAREABLE: u64 = 0b11 << 8;
const ACCESSED: u64 = 1 << 10;
const NOT_GLOBAL: u64 = 1 << 11;
/// PXN: not executable in EL1.
const NOT_BY_KERNEL: u64 = 1 << 53;
/// UXN: not executable in EL0.
const NOT_BY_USER: u64 = 1 << 54;

const PHYSICAL_BITS: u32 = 48;

/// Places in MAIR_EL1.
const WRITE_BACK: u64 = 0;
const DEVICE: u64 = 1;
const NON_CACHEABLE: u64 = 2;

/// Arm's first stage, with a granule of 4 KiB and four levels. Arm itself counts them the other way round: its level 3 is 0
/// here.
///
/// TTBR0_EL1 has the root of a program, with its number, and TTBR1_EL1 that of the kernel.
#[derive(Clone, Copy, Debug)]
pub enum Stage1 {}

impl Stage1 {
    /// MAIR_EL1 for entries of this format. Attribute 0 is normal memory, write-back, allocated by reads and writes
    /// (0xff), 1 Device-nGnRE (0x04), and 2 normal memory without caches (0x44).
    pub const MAIR: u64 =
        0xff << (8 * WRITE_BACK) | 0x04 << (8 * DEVICE) | 0x44 << (8 * NON_CACHEABLE);

    /// TCR_EL1, but for its fields IPS and AS, which [`Stage1::tcr`] adds. For the tables of either root: 48 bits (TxSZ = 16), a
    /// granule of 4 KiB (TG0 = 0b00, TG1 = 0b10), walks by memory that is inner shareable (SHx = 0b11) and cached
    /// write-back, allocated by reads and writes (IRGNx and ORGNx = 0b01); the number of the address space is that in TTBR0_EL1.
    pub const TCR: u64 = {
        const HALF: u64 = 16 | 0b01 << 8 | 0b01 << 10 | 0b11 << 12;
        HALF | HALF << 16 | 0b10 << 30
    };

    /// TCR_EL1 on a processor with this ID_AA64MMFR0_EL1: [`Stage1::TCR`] with its physical addresses, up to 48 bits, and all
    /// its bits for numbers of address spaces. `None` if it has no granule of 4 KiB.
    #[must_use]
    pub const fn tcr(mmfr0: u64) -> Option<u64> {
        /// IPS and PARange: 48 bits. With more, entries are of another format.
        const BITS_48: u64 = 0b101;

        // TGran4: signed, and negative if there is none.
        if mmfr0 >> 28 & 0b1000 != 0 {
            return None;
        }
        let range = match mmfr0 & 0xf {
            range @ 0..BITS_48 => range,
            _ => BITS_48,
        };
        let long_numbers = (Self::space_bits(mmfr0) == 16) as u64;
        Some(Self::TCR | range << 32 | long_numbers << 36)
    }

    /// Bits of the numbers of address spaces, by ID_AA64MMFR0_EL1: 8 or 16.
    #[must_use]
    pub const fn space_bits(mmfr0: u64) -> u8 {
        match mmfr0 >> 4 & 0xf {
            0b0010 => 16,
            _ => 8,
        }
    }
}

impl PageTables for Stage1 {
    const LEVELS: u8 = 4;
    const VIRTUAL_BITS: u8 = 48;
    const PHYSICAL_BITS: u8 = PHYSICAL_BITS as u8;
    const SPACE_BITS: u8 = 16;
    const USER_END: u64 = 1 << 48;
    const KERNEL_BEGIN: u64 = u64::MAX << 48;
    const KERNEL_IN_EVERY_ROOT: bool = false;

    #[inline]
    fn table(physical: u64) -> u64 {
        physical & bits(12, PHYSICAL_BITS) | TABLE_OR_PAGE | PRESENT
    }

    #[inline]
    fn leaf(level: u8, leaf: Leaf) -> u64 {
        let (kind, executor, others) = match leaf.permissions.privilege {
            Privilege::Kernel => (0, NOT_BY_KERNEL, NOT_BY_USER),
            Privilege::User => (USER | NOT_GLOBAL, NOT_BY_USER, NOT_BY_KERNEL),
        };
        let access = match leaf.permissions.access {
            Access::Read => READ_ONLY | executor,
            Access::ReadWrite => executor,
            Access::ReadExecute => READ_ONLY,
        };
        let attributes = match leaf.caching {
            Caching::WriteBack => WRITE_BACK << ATTRIBUTES,
            Caching::NonCacheable => NON_CACHEABLE << ATTRIBUTES,
            Caching::Device => DEVICE << ATTRIBUTES,
        };
        let page = match level {
            0 => TABLE_OR_PAGE,
            _ => 0,
        };
        let output = leaf.physical & bits(shift(level), PHYSICAL_BITS);
        let always = ACCESSED | INNER_SHAREABLE | PRESENT;
        output | kind | access | others | attributes | page | always
    }

    #[inline]
    fn next(entry: u64) -> Option<u64> {
        let table = PRESENT | TABLE_OR_PAGE;
        (entry & table == table).then_some(entry & bits(12, PHYSICAL_BITS))
    }

    #[inline]
    fn read_leaf(entry: u64) -> Leaf {
        let (privilege, executor) = match entry & USER != 0 {
            true => (Privilege::User, NOT_BY_USER),
            false => (Privilege::Kernel, NOT_BY_KERNEL),
        };
        Leaf {
            physical: entry & bits(12, PHYSICAL_BITS),
            permissions: Permissions {
                access: match (entry & READ_ONLY == 0, entry & executor == 0) {
                    (true, _) => Access::ReadWrite,
                    (false, true) => Access::ReadExecute,
                    (false, false) => Access::Read,
                },
                privilege,
            },
            caching: match entry >> ATTRIBUTES & 0b111 {
                WRITE_BACK => Caching::WriteBack,
                NON_CACHEABLE => Caching::NonCacheable,
                _ => Caching::Device,
            },
        }
    }

    /// TTBR0_EL1. Where numbers have 8 bits, `space` is below 256. TTBR1_EL1 is this with the number 0.
    #[inline]
    fn root(physical: u64, space: u16) -> u64 {
        physical & bits(12, PHYSICAL_BITS) | u64::from(space) << 48
    }
}
