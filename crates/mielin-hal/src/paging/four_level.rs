//! x86-64: four levels.
//!
//! Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 3A, "4-Level Paging and 5-Level Paging" and
//! "Process-Context Identifiers (PCIDs)"; "Page Attribute Table (PAT)".

use super::{Access, Caching, Leaf, PRESENT, PageTables, Permissions, Privilege, bits, shift};

const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
/// PWT and PCD: the two lower bits of an index into IA32_PAT. The third is not used.
const ATTRIBUTES: u32 = 3;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
/// PS: a page above level 0. At level 0 this bit is the third of the index into IA32_PAT.
const PAGE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NOT_EXECUTABLE: u64 = 1 << 63;

const PHYSICAL_BITS: u32 = 52;

/// Places in IA32_PAT.
const WRITE_BACK: u64 = 0;
const WRITE_COMBINING: u64 = 1;
const UNCACHEABLE: u64 = 3;

/// x86-64's four levels.
///
/// The processor must have NX, and what follows must be on: EFER.NXE, without which the bit is reserved; CR4.PGE for global
/// pages; CR0.WP, so that the kernel keeps to what entries say; SMEP and SMAP, where it has them. Pages of level 2
/// need [`Supervisor::huge_pages`](crate::x86::Supervisor::huge_pages).
///
/// A page that nobody may write is never marked as written: with shadow stacks on, that would make it one.
#[derive(Clone, Copy, Debug)]
pub enum FourLevel {}

impl FourLevel {
    /// IA32_PAT (MSR 0x277) for entries of this format: as after a reset, but write-combining in the place of
    /// write-through, for [`Caching::NonCacheable`]. Index 0 is write-back (0x06), 1 write-combining (0x01), 2 UC- (0x07) and
    /// 3 uncacheable (0x00).
    pub const PAT: u64 = 0x0007_0406_0007_0106;

    /// In what is written into CR3: keep the translations of this address space. Only with CR4.PCIDE, without which the bit
    /// is reserved.
    pub const KEEP_TRANSLATIONS: u64 = 1 << 63;
}

impl PageTables for FourLevel {
    const LEVELS: u8 = 4;
    const VIRTUAL_BITS: u8 = 48;
    const PHYSICAL_BITS: u8 = PHYSICAL_BITS as u8;
    const SPACE_BITS: u8 = 12;
    /// The last page of the lower half stays empty: after a SYSCALL at its end, Intel's processors would fault in the kernel
    /// when SYSRET finds an address that is not canonical, with the program's stack pointer.
    const USER_END: u64 = (1 << 47) - 4096;
    const KERNEL_BEGIN: u64 = u64::MAX << 47;
    const KERNEL_IN_EVERY_ROOT: bool = true;

    /// Allows everything: what is allowed by all entries on the way is allowed, so that the last one decides.
    #[inline]
    fn table(physical: u64) -> u64 {
        physical & bits(12, PHYSICAL_BITS) | ACCESSED | USER | WRITE | PRESENT
    }

    #[inline]
    fn leaf(level: u8, leaf: Leaf) -> u64 {
        let access = match leaf.permissions.access {
            Access::Read => NOT_EXECUTABLE,
            Access::ReadWrite => NOT_EXECUTABLE | WRITE | DIRTY,
            Access::ReadExecute => 0,
        };
        let privilege = match leaf.permissions.privilege {
            Privilege::Kernel => GLOBAL,
            Privilege::User => USER,
        };
        let attributes = match leaf.caching {
            Caching::WriteBack => WRITE_BACK << ATTRIBUTES,
            Caching::NonCacheable => WRITE_COMBINING << ATTRIBUTES,
            Caching::Device => UNCACHEABLE << ATTRIBUTES,
        };
        let page = match level {
            0 => 0,
            _ => PAGE,
        };
        let frame = leaf.physical & bits(shift(level), PHYSICAL_BITS);
        frame | access | privilege | attributes | page | ACCESSED | PRESENT
    }

    #[inline]
    fn next(entry: u64) -> Option<u64> {
        (entry & (PAGE | PRESENT) == PRESENT).then_some(entry & bits(12, PHYSICAL_BITS))
    }

    #[inline]
    fn read_leaf(entry: u64) -> Leaf {
        Leaf {
            physical: entry & bits(12, PHYSICAL_BITS),
            permissions: Permissions {
                access: match (entry & WRITE != 0, entry & NOT_EXECUTABLE == 0) {
                    (true, _) => Access::ReadWrite,
                    (false, true) => Access::ReadExecute,
                    (false, false) => Access::Read,
                },
                privilege: match entry & USER != 0 {
                    true => Privilege::User,
                    false => Privilege::Kernel,
                },
            },
            caching: match entry >> ATTRIBUTES & 0b11 {
                WRITE_BACK => Caching::WriteBack,
                WRITE_COMBINING => Caching::NonCacheable,
                _ => Caching::Device,
            },
        }
    }

    /// CR3. Numbers have 12 bits, of which those above are left out; without CR4.PCIDE there is only 0. The processor forgets
    /// the translations of this address space, unless [`FourLevel::KEEP_TRANSLATIONS`] is added.
    #[inline]
    fn root(physical: u64, space: u16) -> u64 {
        physical & bits(12, PHYSICAL_BITS) | u64::from(space) & bits(0, 12)
    }
}
