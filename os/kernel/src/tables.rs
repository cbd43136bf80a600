//! The kernel's own map of memory: made once, at the beginning.

use core::cell::Cell;

use mielin_hal::paging::{
    Access, Caching, ENTRIES, Leaf, PageTables, Permissions, Privilege, TABLE_BYTES,
};

use crate::arch::Mmu;

/// A table in the kernel's image.
#[repr(C, align(4096))]
pub(crate) struct Table(pub(crate) [Cell<u64>; ENTRIES]);

#[cfg(not(target_arch = "x86_64"))]
impl Table {
    pub(crate) const fn empty() -> Self {
        Self([const { Cell::new(0) }; ENTRIES])
    }
}

/// A root and the tables below it, which are few.
pub(crate) struct Map<'a> {
    root: &'a Table,
    spare: &'a [Table],
    used: usize,
    /// The highest level on which it has pages.
    highest: u8,
    /// How far above where they are in memory the tables lie.
    offset: u64,
}

impl<'a> Map<'a> {
    pub(crate) fn new(root: &'a Table, spare: &'a [Table], offset: u64) -> Self {
        Self {
            root,
            spare,
            used: 0,
            highest: 2,
            offset,
        }
    }

    /// The processor has no pages of 1 GiB.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn without_huge_pages(&mut self) {
        self.highest = 1;
    }

    /// Maps a stretch with the largest pages that fit. Its ends begin pages.
    ///
    /// # Panics
    /// If there are too few tables: their number is chosen for what a port maps.
    pub(crate) fn add(
        &mut self,
        virtual_address: u64,
        physical: u64,
        bytes: u64,
        access: Access,
        caching: Caching,
    ) {
        let mut done = 0;
        while done < bytes {
            let (to, from, left) = (virtual_address + done, physical + done, bytes - done);
            let fits = |level: &u8| {
                let page = Mmu::page_bytes(*level).unwrap_or(u64::MAX);
                page <= left && to.is_multiple_of(page) && from.is_multiple_of(page)
            };
            let level = (0..=self.highest).rev().find(fits).unwrap_or(0);
            let leaf = Leaf {
                physical: from,
                permissions: Permissions {
                    access,
                    privilege: Privilege::Kernel,
                },
                caching,
            };
            self.entry(to, level).set(Mmu::leaf(level, leaf));
            done += Mmu::page_bytes(level).unwrap_or(TABLE_BYTES);
        }
    }

    /// The entry for an address at a level.
    fn entry(&mut self, address: u64, level: u8) -> &'a Cell<u64> {
        let mut table = self.root;
        for above in (level + 1..Mmu::LEVELS).rev() {
            let entry = &table.0[Mmu::index(above, address)];
            let next = match Mmu::next(entry.get()) {
                Some(physical) => self
                    .spare
                    .iter()
                    .find(|table| self.physical(table) == physical),
                None => {
                    let new = self.spare.get(self.used);
                    self.used += 1;
                    if let Some(new) = new {
                        entry.set(Mmu::table(self.physical(new)));
                    }
                    new
                }
            };
            table = next.expect("there are enough tables for the kernel's own map");
        }
        &table.0[Mmu::index(level, address)]
    }

    fn physical(&self, table: &Table) -> u64 {
        (&raw const *table).addr() as u64 - self.offset
    }
}
