extern crate std;
use std::vec::Vec;

use super::*;

/// Every leaf of a level, at some address that uses all bits.
fn leaves<T: PageTables>(level: u8) -> Vec<Leaf> {
    let physical = bits(shift(level), T::PHYSICAL_BITS.into());
    let mut leaves = Vec::new();
    for access in Access::ALL {
        for privilege in Privilege::ALL {
            for caching in Caching::ALL {
                for physical in [0, 1 << shift(level), physical] {
                    let permissions = Permissions { access, privilege };
                    leaves.push(Leaf {
                        physical,
                        permissions,
                        caching,
                    });
                }
            }
        }
    }
    leaves
}

fn levels_with_leaves<T: PageTables>() -> impl Iterator<Item = u8> {
    (0..T::LEVELS).filter(|level| T::page_bytes(*level).is_some())
}

/// Numbers without an end in sight (splitmix64).
fn numbers() -> impl FnMut() -> u64 {
    let mut state: u64 = 1;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }
}

fn what_goes_in_comes_out<T: PageTables>() {
    for level in levels_with_leaves::<T>() {
        for leaf in leaves::<T>(level) {
            let entry = T::leaf(level, leaf);
            assert!(T::is_present(entry));
            assert_eq!(T::decode(level, entry), Entry::Leaf(leaf), "{entry:#x}");
            // A small page is no larger one.
            if !leaf.physical.is_multiple_of(1 << 21) && level == 0 {
                assert_ne!(T::decode(1, entry), Entry::Leaf(leaf), "{entry:#x}");
            }
            // Bits beyond the address are left out, and change nothing else.
            let beyond = Leaf {
                physical: leaf.physical | !bits(shift(level), T::PHYSICAL_BITS.into()),
                ..leaf
            };
            assert_eq!(T::leaf(level, beyond), entry);
        }
    }
    for physical in [0, 4096, bits(12, T::PHYSICAL_BITS.into())] {
        let entry = T::table(physical);
        for level in 1..T::LEVELS {
            assert_eq!(T::decode(level, entry), Entry::Table(physical));
        }
        // On Arm, a table's entry is like the beginning of a page's.
        assert!(!matches!(T::decode(0, entry), Entry::Table(_)));
    }
}

/// Any bits: no panic, and what is taken for ours is what we would have written.
fn hostile_entries<T: PageTables>() {
    let mut number = numbers();
    let mut leaves_seen = 0;
    let mut check = |level: u8, entry: u64| match T::decode(level, entry) {
        Entry::Absent => assert!(!T::is_present(entry)),
        Entry::Table(physical) => assert_eq!(T::table(physical), entry),
        Entry::Leaf(leaf) => {
            leaves_seen += 1;
            assert_eq!(T::leaf(level, leaf), entry);
            assert!(leaf.physical.is_multiple_of(T::entry_bytes(level)));
        }
        Entry::Foreign => assert!(T::is_present(entry)),
    };
    for _ in 0..100_000 {
        let (any, few) = (number(), number() & number() & number());
        for level in 0..T::LEVELS {
            check(level, any);
            check(level, few);
        }
    }
    // Every bit of every good entry, changed.
    for level in levels_with_leaves::<T>() {
        for leaf in leaves::<T>(level) {
            for bit in 0..64 {
                check(level, T::leaf(level, leaf) ^ 1 << bit);
            }
        }
    }
    assert!(leaves_seen > 0);
}

fn addresses<T: PageTables>() {
    let root = T::LEVELS - 1;
    assert_eq!(T::index(0, 0x3000), 3);
    assert_eq!(T::index(1, 5 << 21 | 0x3000), 5);
    assert_eq!(T::index(root, u64::MAX), ENTRIES - 1);
    assert_eq!(T::index(root, 7 << shift(root)), 7);
    let sizes: Vec<_> = (0..T::LEVELS).map(T::page_bytes).collect();
    assert_eq!(sizes[..3], [Some(1 << 12), Some(1 << 21), Some(1 << 30)]);
    assert!(sizes[3..].iter().all(Option::is_none));
    assert!(T::is_user(0, T::USER_END) && T::is_user(T::USER_END, 0));
    assert!(T::is_user(T::USER_END - 1, 1));
    for (address, bytes) in [
        (0, T::USER_END + 1),
        (T::USER_END - 1, 2),
        (T::USER_END, 1),
        (T::USER_END + 1, 0),
        (1, u64::MAX),
        (u64::MAX, 1),
        (T::KERNEL_BEGIN, 1),
        (u64::MAX, u64::MAX),
    ] {
        assert!(!T::is_user(address, bytes), "{address:#x}, {bytes:#x}");
    }
    // Where the halves share a root, they have halves of it.
    if T::KERNEL_IN_EVERY_ROOT {
        assert_eq!(T::index(root, T::USER_END - 1), ENTRIES / 2 - 1);
        assert_eq!(T::index(root, T::KERNEL_BEGIN), ENTRIES / 2);
    }
}

macro_rules! of_every_format {
    ($($name:ident: $format:ty;)*) => {$(
        mod $name {
            use super::super::*;

            #[test]
            fn what_goes_in_comes_out() {
                super::what_goes_in_comes_out::<$format>();
            }

            #[test]
            fn hostile_entries() {
                super::hostile_entries::<$format>();
            }

            #[test]
            fn addresses() {
                super::addresses::<$format>();
            }
        }
    )*};
}

of_every_format! {
    sv39: Sv39;
    sv48: Sv48;
    stage1: Stage1;
    four_level: FourLevel;
}

#[test]
fn no_access_is_writable_and_executable() {
    for bits in 0..8_u8 {
        let [read, write, execute] = [0, 1, 2].map(|bit| bits >> bit & 1 != 0);
        let access = Access::new(read, write, execute);
        assert_eq!(access.is_some(), read && !(write && execute), "{bits:#b}");
        if let Some(access) = access {
            assert_eq!(
                (access.is_writable(), access.is_executable()),
                (write, execute)
            );
        }
    }
}

/// A page, or what an entry must not be.
#[track_caller]
fn check<T: PageTables>(
    level: u8,
    entry: u64,
    expected: Option<(u64, Access, Privilege, Caching)>,
) {
    let expected = match expected {
        Some((physical, access, privilege, caching)) => {
            let leaf = Leaf {
                physical,
                permissions: Permissions { access, privilege },
                caching,
            };
            assert_eq!(T::leaf(level, leaf), entry, "{entry:#x}");
            Entry::Leaf(leaf)
        }
        None => Entry::Foreign,
    };
    assert_eq!(T::decode(level, entry), expected, "{entry:#x}");
}

use Access::{Read, ReadExecute, ReadWrite};
use Caching::{Device, NonCacheable, WriteBack};
use Privilege::{Kernel, User};

/// Volume II, "Sv39": N PBMT reserved PPN RSW D A G U X W R V, from bit 63 down.
#[test]
fn entries_of_riscv() {
    // The frame 0x80200 from bit 10 on: 0x2008_0000. D A - U - W R V: 0xd7.
    let frame = 0x80200 << 10;
    let at = 0x8020_0000;
    check::<Sv39>(0, frame | 0xd7, Some((at, ReadWrite, User, WriteBack)));
    check::<Sv39>(0, frame | 0x5b, Some((at, ReadExecute, User, WriteBack)));
    check::<Sv39>(1, frame | 0x6b, Some((at, ReadExecute, Kernel, WriteBack)));
    check::<Sv48>(0, frame | 0x63, Some((at, Read, Kernel, WriteBack)));
    check::<Sv48>(0, frame | 0x2e7, Some((at, ReadWrite, Kernel, Device)));
    assert_eq!(Sv39::table(0x8000_3000), 0x80003 << 10 | 1);
    for (level, entry) in [
        (0, frame | 0xdf),           // writable and executable
        (0, frame | 0xd5),           // W without R is reserved
        (0, frame | 0x97),           // not accessed
        (0, frame | 0x57),           // writable, not dirty
        (0, frame | 0xf7),           // a program's, and global
        (0, frame | 0xd7 | 1 << 61), // PBMT
        (0, frame | 0xd7 | 1 << 60), // reserved
        (0, frame | 0xd7 | 1 << 63), // N
        (0, frame | 0x01),           // a table below the last
        (2, frame | 0xd7),           // not a multiple of 1 GiB
        (1, frame | 0x41),           // a table with A, which is reserved
    ] {
        check::<Sv39>(level, entry, None);
    }
    // 512 GiB.
    check::<Sv48>(3, 0xd7, None);
    // satp: MODE is 8 for Sv39, 9 for Sv48; ASID from bit 44; PPN.
    assert_eq!(Sv39::root(0x8000_3000, 0x1234), 0x8123_4000_0008_0003);
    assert_eq!(Sv48::root(0x8000_3000, 0xffff), 0x9fff_f000_0008_0003);
}

/// D8.3.2: UXN 54, PXN 53, nG 11, AF 10, SH 9:8, AP 7:6, AttrIndx 4:2, page or block 1, valid 0.
#[test]
fn entries_of_arm() {
    const UXN: u64 = 1 << 54;
    const PXN: u64 = 1 << 53;
    let at = 0x4020_0000;
    // A program's: not global, never executable by the kernel.
    let data = UXN | PXN | at | 0xf43;
    let code = PXN | at | 0xfc3;
    check::<Stage1>(0, data, Some((at, ReadWrite, User, WriteBack)));
    check::<Stage1>(0, code, Some((at, ReadExecute, User, WriteBack)));
    // The kernel's: global, never executable by programs.
    let kernel_code = UXN | at | 0x781;
    check::<Stage1>(1, kernel_code, Some((at, ReadExecute, Kernel, WriteBack)));
    let rodata = UXN | PXN | at | 0x783;
    check::<Stage1>(0, rodata, Some((at, Read, Kernel, WriteBack)));
    let uart = UXN | PXN | 0x0900_0000 | 0x707;
    check::<Stage1>(0, uart, Some((0x0900_0000, ReadWrite, Kernel, Device)));
    let frames = UXN | PXN | at | 0xf4b;
    check::<Stage1>(0, frames, Some((at, ReadWrite, User, NonCacheable)));
    assert_eq!(Stage1::table(0x4000_3000), 0x4000_3003);
    for (level, entry) in [
        (0, data & !UXN),            // writable and executable by the program
        (0, data & !PXN),            // executable by the kernel
        (0, data & !(1 << 11)),      // a program's, and global
        (0, data & !(1 << 10)),      // AF
        (0, data & !(1 << 1)),       // reserved at the last level
        (0, data | 1 << 2 | 1 << 3), // an attribute that MAIR does not have
        (0, data | 1 << 51),         // DBM: the processor makes it writable
        (0, data | 1 << 52),         // contiguous
        (1, data),                   // a table with the bits of a page
        (3, data & !(1 << 1)),       // there are no blocks of 512 GiB
        (2, data & !(1 << 1)),       // not a multiple of 1 GiB
    ] {
        check::<Stage1>(level, entry, None);
    }
    assert_eq!(Stage1::root(0x4000_3000, 0x1234), 0x1234_0000_4000_3000);
}

/// D19.2: MAIR_EL1, TCR_EL1, ID_AA64MMFR0_EL1.
#[test]
fn registers_of_arm() {
    assert_eq!(Stage1::MAIR, 0x44_04ff);
    assert_eq!(Stage1::TCR, 0xb510_3510);
    // A Cortex-A57: 44 bits, 16-bit numbers, granules of 4 and 64 KiB.
    let a57 = 0x0000_1124;
    assert_eq!(Stage1::tcr(a57), Some(0x14_b510_3510));
    assert_eq!(Stage1::space_bits(a57), 16);
    // 52 bits are more than entries have; 8-bit numbers.
    assert_eq!(Stage1::tcr(0x1000_0006), Some(0x05_b510_3510));
    assert_eq!(Stage1::space_bits(6), 8);
    assert_eq!(Stage1::tcr(0xf000_0022), None);
}

/// Volume 3A, figure "Formats of CR3 and Paging-Structure Entries with 4-Level Paging".
#[test]
fn entries_of_x86() {
    const XD: u64 = 1 << 63;
    let at = 0x0020_0000;
    // D A - - U W P: 0x67.
    let data = XD | at | 0x67;
    check::<FourLevel>(0, data, Some((at, ReadWrite, User, WriteBack)));
    check::<FourLevel>(0, at | 0x25, Some((at, ReadExecute, User, WriteBack)));
    check::<FourLevel>(0, XD | at | 0x25, Some((at, Read, User, WriteBack)));
    // G PS - A P: 0x1a1.
    check::<FourLevel>(1, at | 0x1a1, Some((at, ReadExecute, Kernel, WriteBack)));
    // PCD and PWT.
    let apic = XD | 0xfee0_0000 | 0x17b;
    check::<FourLevel>(0, apic, Some((0xfee0_0000, ReadWrite, Kernel, Device)));
    let frames = XD | at | 0x6f;
    check::<FourLevel>(0, frames, Some((at, ReadWrite, User, NonCacheable)));
    assert_eq!(FourLevel::table(0x3000), 0x3027);
    for (level, entry) in [
        (0, data & !XD),              // writable and executable
        (0, data | 1 << 8),           // a program's, and global
        (0, data & !(1 << 5)),        // not accessed
        (0, XD | at | 0x65),          // written, and not writable: a shadow stack
        (0, data | 1 << 7),           // PAT's third bit
        (0, data | 1 << 4),           // UC-
        (0, data | 1 << 52),          // somebody's own bit
        (0, data | 1 << 59),          // a protection key
        (1, data | 1 << 7 | 1 << 12), // PAT's third bit
        (1, data | 1 << 7 | 1 << 13), // reserved
        (3, data | 1 << 7),           // reserved
        (1, data),                    // a table with a limit of its own
    ] {
        check::<FourLevel>(level, entry, None);
    }
    assert_eq!(FourLevel::root(0x3000, 0xfabc), 0x3abc);
    let pat = FourLevel::PAT.to_le_bytes();
    assert_eq!((pat[0], pat[1], pat[3]), (0x06, 0x01, 0x00));
}
