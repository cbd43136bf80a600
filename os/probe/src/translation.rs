//! The program's own page tables, in the formats of `mielin-hal`. Everything else is tried under them: code that is only
//! executed, constants that are only read, everything else not executable.
//!
//! Addresses stay what they are. Of memory, the gigabyte is mapped in which the program lies.

use core::cell::UnsafeCell;
use core::ops::Range;

use mielin_hal::paging::{
    Access, Caching, ENTRIES, Entry, Leaf, PageTables, Permissions, Privilege, TABLE_BYTES,
};

const GIGABYTE: u64 = 1 << 30;
/// A root, up to two tables between, one for devices, and those in which the program begins and ends.
const TABLES: usize = 6;

#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Table([u64; ENTRIES]);

/// Room for the tables of one format.
pub(crate) struct Room(UnsafeCell<[Table; TABLES]>);

// SAFETY: only `Tables::new` looks inside, and whoever calls it does so once.
unsafe impl Sync for Room {}

impl Room {
    pub(crate) const fn new() -> Self {
        Self(UnsafeCell::new([Table([0; ENTRIES]); TABLES]))
    }
}

/// Tables that are being written. The first is the root.
pub(crate) struct Tables {
    tables: &'static mut [Table; TABLES],
    used: usize,
}

impl Tables {
    /// # Safety
    /// Called once for a room.
    pub(crate) unsafe fn new(room: &'static Room) -> Self {
        // SAFETY: by the caller this is the only reference, and the room stays for ever.
        let tables = unsafe { &mut *room.0.get() };
        Self { tables, used: 1 }
    }

    /// Maps the gigabyte of the program, and that of the devices by pages of some level. Gives the address of the root.
    pub(crate) fn fill<T: PageTables>(mut self, devices: u64, devices_level: u8) -> u64 {
        let bytes = |level| T::page_bytes(level).expect("a level with pages");
        for physical in pages(devices..devices + GIGABYTE, bytes(devices_level)) {
            self.map::<T>(devices_level, physical, Access::ReadWrite, Caching::Device);
        }
        let [code, constants] = sections();
        let memory = code.start & !(GIGABYTE - 1);
        for area in pages(memory..memory + GIGABYTE, bytes(1)) {
            if area + bytes(1) <= code.start || area >= constants.end {
                self.map::<T>(1, area, Access::ReadWrite, Caching::WriteBack);
                continue;
            }
            for page in pages(area..area + bytes(1), bytes(0)) {
                let access = match page {
                    _ if code.contains(&page) => Access::ReadExecute,
                    _ if constants.contains(&page) => Access::Read,
                    _ => Access::ReadWrite,
                };
                self.map::<T>(0, page, access, Caching::WriteBack);
            }
        }
        self.address(0)
    }

    fn map<T: PageTables>(&mut self, level: u8, physical: u64, access: Access, caching: Caching) {
        let mut table = 0;
        for above in (level + 1..T::LEVELS).rev() {
            let index = T::index(above, physical);
            table = match T::decode(above, self.tables[table].0[index]) {
                Entry::Table(next) => ((next - self.address(0)) / TABLE_BYTES) as usize,
                Entry::Absent => {
                    let next = self.used;
                    self.tables[table].0[index] = T::table(self.address(next));
                    self.used += 1;
                    next
                }
                other => panic!("{physical:#x} is mapped as {other:?}"),
            };
        }
        let permissions = Permissions {
            access,
            privilege: Privilege::Kernel,
        };
        let leaf = Leaf {
            physical,
            permissions,
            caching,
        };
        self.tables[table].0[T::index(level, physical)] = T::leaf(level, leaf);
    }

    fn address(&self, table: usize) -> u64 {
        (&raw const self.tables[table]) as u64
    }
}

fn pages(range: Range<u64>, bytes: u64) -> impl Iterator<Item = u64> {
    range.step_by(bytes as usize)
}

/// The program's code and its constants, as the linker has put them, in pages of their own.
fn sections() -> [Range<u64>; 2] {
    unsafe extern "C" {
        static __code_begin: u8;
        static __constants_begin: u8;
        static __data_begin: u8;
    }
    let code = (&raw const __code_begin) as u64;
    let constants = (&raw const __constants_begin) as u64;
    let data = (&raw const __data_begin) as u64;
    [code..constants, constants..data]
}
