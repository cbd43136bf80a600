//! Address spaces: identifiers, tables, pages.
//!
//! A table that is mapped nowhere is empty. Capabilities of tables and pages say where they are mapped; an address space can end
//! before them, and its identifier be given to another one, so whoever unmaps looks whether the entry is really his.

use mielin_hal::paging::{Access, Caching, Leaf, PageTables, Permissions, Privilege, TABLE_BYTES};

use crate::abi::{Error, PAGE_BITS, Rights};
use crate::capability::{Capability, FrameForm};
use crate::kernel::{Kernel, SPACES_MAX, Served};
use crate::machine::{Machine, Page};
use crate::objects::{AddressSpace, Slot};
use crate::reference::Ref;
use crate::thread::Thread;

const LARGE_PAGE_BITS: u8 = 21;

/// The first virtual address that no page can have, whatever the MMU could: capabilities count pages in 32 bits.
const MAPPED_END: u64 = 1 << (32 + PAGE_BITS);

impl<M: Machine> Kernel<M> {
    pub(crate) fn free_spaces(&self) -> usize {
        self.identifiers()
            .filter(|identifier| self.spaces[usize::from(*identifier)].get().is_none())
            .count()
    }

    /// The identifiers that address spaces can have: 0 is the kernel's own.
    fn identifiers(&self) -> impl Iterator<Item = u16> + use<M> {
        let end = SPACES_MAX.min(1 << M::Mmu::SPACE_BITS.min(15)) as u16;
        1..end
    }

    /// Gives a new address space its identifier.
    pub(crate) fn begin_space(&self, space: Ref<AddressSpace>) -> Result<(), Error> {
        let next = self.next_space.get();
        let mut candidates = self.identifiers().skip_while(|i| *i < next);
        let free = |identifier: &u16| self.spaces[usize::from(*identifier)].get().is_none();
        let identifier = candidates
            .find(free)
            .or_else(|| self.identifiers().find(free))
            .ok_or(Error::NoIdentifier)?;
        self.next_space.set(identifier + 1);
        self.spaces[usize::from(identifier)].set(Some(space));
        self.object(space).identifier.set(identifier);
        Ok(())
    }

    /// An address space is no more.
    pub(crate) fn end_space(&self, space: Ref<AddressSpace>) {
        let object = self.object(space);
        self.drop_root(object);
        let identifier = object.identifier.get();
        self.spaces[usize::from(identifier)].set(None);
        self.machine.flush_space(identifier);
    }

    /// Takes its root from an address space.
    fn drop_root(&self, space: &AddressSpace) {
        let value = space.value.take();
        space.root.set(None);
        if value != 0 && value == self.loaded.get() {
            self.loaded.set(0);
            self.machine.load_root(0);
        }
    }

    /// Maps a table at the highest level at which one is missing on the way to the address: first the root.
    pub(crate) fn map_table(
        &self,
        by: Ref<Thread>,
        slot: Ref<Slot>,
        [space, address, ..]: [u64; 4],
    ) -> Served {
        let place = self.object(slot);
        let Capability::PageTable {
            table,
            space: mapped,
            ..
        } = place.capability()
        else {
            return Err(Error::WrongKind.into());
        };
        if mapped != 0 {
            return Err(Error::AlreadyMapped.into());
        }
        let space = self.space_at(by, space)?;
        let object = self.object(space);
        check_address::<M>(address, TABLE_BYTES)?;
        let identifier = object.identifier.get();
        let mut level = M::Mmu::LEVELS - 1;
        match object.root.get() {
            None => {
                self.machine.begin_root(table);
                object.root.set(Some(table));
                object.value.set(M::Mmu::root(table.address(), identifier));
                level += 1;
            }
            Some(root) => {
                let mut above = root;
                loop {
                    let entry = &self.object(above)[M::Mmu::index(level, address)];
                    if entry.get() == 0 {
                        entry.set(M::Mmu::table(table.address()));
                        // A processor may remember that nothing was there, and on RISC-V only this makes it look again at an
                        // entry that leads to a table ("Supervisor Memory-Management Fence Instruction").
                        self.machine.flush_space(identifier);
                        break;
                    }
                    // A large page, or all tables are there.
                    let next = M::Mmu::next(entry.get()).ok_or(Error::AlreadyMapped)?;
                    level -= 1;
                    if level == 0 {
                        return Err(Error::AlreadyMapped.into());
                    }
                    above = Ref::at(next).ok_or(Error::AlreadyMapped)?;
                }
            }
        }
        let begin = match level == M::Mmu::LEVELS {
            true => 0,
            false => address >> (PAGE_BITS + 9 * level) << (9 * level),
        };
        place.set(Capability::PageTable {
            table,
            level,
            space: identifier,
            at: begin as u32,
        });
        Ok(())
    }

    /// Takes a table out, if it is still where its capability says. It is full of entries still.
    pub(crate) fn unmap_table(&self, table: Ref<Page>, level: u8, space: u16, at: u32) {
        if space == 0 {
            return;
        }
        let Some(owner) = self.spaces[usize::from(space)].get() else {
            return;
        };
        let object = self.object(owner);
        if level == M::Mmu::LEVELS {
            if object.root.get() == Some(table) {
                self.drop_root(object);
                self.machine.flush_space(space);
            }
            return;
        }
        let address = u64::from(at) << PAGE_BITS;
        if let Some((above, index)) = self.entry_at(object, address, level) {
            let entry = &self.object(above)[index];
            if entry.get() == M::Mmu::table(table.address()) {
                entry.set(0);
                self.machine.flush_space(space);
            }
        }
    }

    pub(crate) fn unmap_page_table(&self, slot: Ref<Slot>) -> Served {
        let place = self.object(slot);
        let Capability::PageTable {
            table,
            level,
            space,
            at,
        } = place.capability()
        else {
            return Err(Error::WrongKind.into());
        };
        if space == 0 {
            return Err(Error::NotBound.into());
        }
        self.unmap_table(table, level, space, at);
        self.machine.clear(table.address(), TABLE_BYTES);
        place.set(Capability::PageTable {
            table,
            level: 0,
            space: 0,
            at: 0,
        });
        Ok(())
    }

    pub(crate) fn map_frame(
        &self,
        by: Ref<Thread>,
        slot: Ref<Slot>,
        [space, address, rights, _]: [u64; 4],
    ) -> Served {
        let place = self.object(slot);
        let Capability::Frame {
            page,
            form,
            space: mapped,
            ..
        } = place.capability()
        else {
            return Err(Error::WrongKind.into());
        };
        if mapped != 0 {
            return Err(Error::AlreadyMapped.into());
        }
        let rights = Rights((rights & 15) as u8);
        if !form.rights().has(rights) {
            return Err(Error::Denied.into());
        }
        let access = Access::new(
            rights.has(Rights::READ),
            rights.has(Rights::WRITE),
            rights.has(Rights::EXECUTE),
        )
        .ok_or(Error::InvalidArgument)?;
        let bytes = self.frame_bytes(form);
        check_address::<M>(address, bytes)?;
        let space = self.space_at(by, space)?;
        let object = self.object(space);
        let level = u8::from(form.is_large());
        let caching = match form.is_device() {
            true => Caching::Device,
            false => Caching::WriteBack,
        };
        if caching != Caching::WriteBack && access.is_executable() {
            return Err(Error::InvalidArgument.into());
        }
        let (table, index) = self
            .entry_at(object, address, level)
            .ok_or(Error::NoTable)?;
        let entry = &self.object(table)[index];
        if entry.get() != 0 {
            return Err(Error::AlreadyMapped.into());
        }
        let physical = u64::from(page) << PAGE_BITS;
        let leaf = Leaf {
            physical,
            permissions: Permissions {
                access,
                privilege: Privilege::User,
            },
            caching,
        };
        if access.is_executable() {
            self.machine.publish_code(physical, bytes);
        }
        entry.set(M::Mmu::leaf(level, leaf));
        // A processor may remember that nothing was there.
        self.machine.flush_page(object.identifier.get(), address);
        place.set(Capability::Frame {
            page,
            form,
            space: object.identifier.get(),
            at: (address >> PAGE_BITS) as u32,
        });
        Ok(())
    }

    /// Takes a page out, if it is still where its capability says.
    pub(crate) fn unmap_frame(&self, page: u32, form: FrameForm, space: u16, at: u32) {
        if space == 0 {
            return;
        }
        let Some(object) = self.spaces[usize::from(space)].get() else {
            return;
        };
        let level = u8::from(form.is_large());
        let address = u64::from(at) << PAGE_BITS;
        let Some((table, index)) = self.entry_at(self.object(object), address, level) else {
            return;
        };
        let entry = &self.object(table)[index];
        let is_table = level > 0 && M::Mmu::next(entry.get()).is_some();
        if entry.get() == 0 || is_table {
            return;
        }
        if M::Mmu::read_leaf(entry.get()).physical == u64::from(page) << PAGE_BITS {
            entry.set(0);
            self.machine.flush_page(space, address);
        }
    }

    pub(crate) fn unmap_page(&self, slot: Ref<Slot>) -> Served {
        let place = self.object(slot);
        let Capability::Frame {
            page,
            form,
            space,
            at,
        } = place.capability()
        else {
            return Err(Error::WrongKind.into());
        };
        if space == 0 {
            return Err(Error::NotBound.into());
        }
        self.unmap_frame(page, form, space, at);
        place.set(Capability::Frame {
            page,
            form,
            space: 0,
            at: 0,
        });
        Ok(())
    }

    pub(crate) fn frame_bytes(&self, form: FrameForm) -> u64 {
        match form.is_large() {
            true => 1 << LARGE_PAGE_BITS,
            false => 1 << PAGE_BITS,
        }
    }

    fn space_at(&self, by: Ref<Thread>, address: u64) -> Result<Ref<AddressSpace>, Error> {
        match self.capability_at(by, address)? {
            Capability::AddressSpace { space } => Ok(space),
            _ => Err(Error::WrongKind),
        }
    }

    /// The table of a level with the entry for an address, and the index of that entry. `None` if a table is missing on the way.
    fn entry_at(
        &self,
        space: &AddressSpace,
        address: u64,
        level: u8,
    ) -> Option<(Ref<Page>, usize)> {
        let mut table = space.root.get()?;
        let mut at = M::Mmu::LEVELS - 1;
        while at > level {
            let entry = self.object(table)[M::Mmu::index(at, address)].get();
            table = Ref::at(M::Mmu::next(entry)?)?;
            at -= 1;
        }
        Some((table, M::Mmu::index(level, address)))
    }
}

/// Whether a program can have `bytes` at this address, a multiple of them.
fn check_address<M: Machine>(address: u64, bytes: u64) -> Result<(), Error> {
    let end = address.checked_add(bytes).ok_or(Error::BadAddress)?;
    if !address.is_multiple_of(bytes) || end > M::Mmu::USER_END.min(MAPPED_END) {
        return Err(Error::BadAddress);
    }
    Ok(())
}
