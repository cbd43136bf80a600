//! RISC-V: three or four levels.
//!
//! Source: The RISC-V Instruction Set Manual, volume II, "Supervisor-Level ISA": "Sv32", "Sv39" and "Sv48" (the bits
//! mean the same in each), "Supervisor Address Translation and Protection (satp) Register".

use super::{Access, Caching, Leaf, PRESENT, PageTables, Permissions, Privilege, bits, shift};

const READ: u64 = 1 << 1;
const WRITE: u64 = 1 << 2;
const EXECUTE: u64 = 1 << 3;
const USER: u64 = 1 << 4;
const GLOBAL: u64 = 1 << 5;
const ACCESSED: u64 = 1 << 6;
const DIRTY: u64 = 1 << 7;
/// RSW: two bits that are the kernel's own.
const OWN: u32 = 8;
/// Where a page's address, less its lowest 12 bits, stands.
const FRAME: u32 = 10;
const PHYSICAL_BITS: u32 = 56;

const SATP_SV39: u64 = 8;
const SATP_SV48: u64 = 9;

/// A table's entry has none of R, W and X, and A, D and U are reserved in it.
#[inline]
const fn table(physical: u64) -> u64 {
    (physical & bits(12, PHYSICAL_BITS)) >> 12 << FRAME | PRESENT
}

#[inline]
const fn leaf(level: u8, leaf: Leaf) -> u64 {
    let access = match leaf.permissions.access {
        Access::Read => READ,
        Access::ReadWrite => READ | WRITE | DIRTY,
        Access::ReadExecute => READ | EXECUTE,
    };
    let privilege = match leaf.permissions.privilege {
        Privilege::Kernel => GLOBAL,
        Privilege::User => USER,
    };
    let caching = match leaf.caching {
        Caching::WriteBack => 0,
        Caching::NonCacheable => 1 << OWN,
        Caching::Device => 2 << OWN,
    };
    let frame = (leaf.physical & bits(shift(level), PHYSICAL_BITS)) >> 12 << FRAME;
    frame | caching | ACCESSED | privilege | access | PRESENT
}

#[inline]
const fn next(entry: u64) -> Option<u64> {
    match entry & (PRESENT | READ | WRITE | EXECUTE) == PRESENT {
        true => Some(physical(entry)),
        false => None,
    }
}

#[inline]
const fn physical(entry: u64) -> u64 {
    (entry & bits(FRAME, 54)) >> FRAME << 12
}

#[inline]
const fn read_leaf(entry: u64) -> Leaf {
    Leaf {
        physical: physical(entry),
        permissions: Permissions {
            access: match (entry & WRITE != 0, entry & EXECUTE != 0) {
                (true, _) => Access::ReadWrite,
                (false, true) => Access::ReadExecute,
                (false, false) => Access::Read,
            },
            privilege: match entry & USER != 0 {
                true => Privilege::User,
                false => Privilege::Kernel,
            },
        },
        caching: match entry >> OWN & 0b11 {
            0 => Caching::WriteBack,
            1 => Caching::NonCacheable,
            _ => Caching::Device,
        },
    }
}

#[inline]
const fn root(mode: u64, physical: u64, space: u16) -> u64 {
    mode << 60 | (space as u64) << 44 | (physical & bits(12, PHYSICAL_BITS)) >> 12
}

macro_rules! formats {
    ($($(#[$doc:meta])* $name:ident: $levels:literal levels, $virtual_bits:literal bits, $mode:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub enum $name {}

        impl PageTables for $name {
            const LEVELS: u8 = $levels;
            const VIRTUAL_BITS: u8 = $virtual_bits;
            const PHYSICAL_BITS: u8 = PHYSICAL_BITS as u8;
            const SPACE_BITS: u8 = 16;
            const USER_END: u64 = 1 << ($virtual_bits - 1);
            const KERNEL_BEGIN: u64 = u64::MAX << ($virtual_bits - 1);
            const KERNEL_IN_EVERY_ROOT: bool = true;

            #[inline]
            fn table(physical: u64) -> u64 {
                table(physical)
            }

            #[inline]
            fn leaf(level: u8, page: Leaf) -> u64 {
                leaf(level, page)
            }

            #[inline]
            fn next(entry: u64) -> Option<u64> {
                next(entry)
            }

            #[inline]
            fn read_leaf(entry: u64) -> Leaf {
                read_leaf(entry)
            }

            #[inline]
            fn root(physical: u64, space: u16) -> u64 {
                root($mode, physical, space)
            }
        }
    )*};
}

formats! {
    /// RISC-V's three levels.
    ///
    /// How a page is cached is not an entry's affair here: it is an attribute of its physical address (volume II, "Physical
    /// Memory Attributes"), and the extension Svpbmt, which lets entries change it, is not used. [`Caching`] is kept in
    /// the two bits that are the kernel's own (RSW), which processors ignore.
    ///
    /// `satp` may have fewer bits for address spaces than 16: as many as stay when all are written.
    Sv39: 3 levels, 39 bits, SATP_SV39;

    /// RISC-V's four levels, whose entries are those of [`Sv39`]. A processor that has not got it ignores a `satp` that
    /// wants it, so that reading the register tells. The root has no pages here, although the architecture would have
    /// some of 512 GiB.
    Sv48: 4 levels, 48 bits, SATP_SV48;
}
