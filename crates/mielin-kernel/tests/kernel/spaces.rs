//! Tables and pages in random orders, in all formats: the invariants, and that no processor remembers what is no more.

use std::collections::HashMap;

use mielin_hal::paging::{Entry, FourLevel, PageTables, Stage1, Sv39, Sv48};
use mielin_kernel::abi::{Error, Method, ObjectKind, Retype, boot};
use mielin_kernel::{AddressSpace, Machine, Page, Ref};
use proptest::prelude::*;

use crate::random::run;
use crate::world::World;

#[derive(Clone, Copy, Debug)]
enum Change {
    /// A table into a space, for an address.
    MapTable(usize, usize, usize),
    UnmapTable(usize),
    /// A frame into a space, at an address, with rights.
    MapFrame(usize, usize, usize, u64),
    UnmapFrame(usize),
    Renew(usize),
}

const TABLES: usize = 8;
const FRAMES: usize = 5;
/// Addresses with few tables between them.
const ADDRESSES: [u64; 5] = [
    0x4000_0000,
    0x4000_1000,
    0x4020_0000,
    0x8000_0000,
    0x4000_1800,
];

fn change() -> impl Strategy<Value = Change> {
    let space = || prop_oneof![4 => Just(0usize), 1 => Just(1usize)];
    let rights = prop_oneof![3 => Just(1), 3 => Just(3), 3 => Just(9), 2 => 0..16u64];
    let address = || prop_oneof![6 => 0..3usize, 1 => 0..5usize];
    prop_oneof![
        6 => (0..TABLES, space(), address()).prop_map(|(t, s, a)| Change::MapTable(t, s, a)),
        1 => (0..TABLES).prop_map(Change::UnmapTable),
        6 => (0..FRAMES, space(), address(), rights)
            .prop_map(|(f, s, a, r)| Change::MapFrame(f, s, a, r)),
        2 => (0..FRAMES).prop_map(Change::UnmapFrame),
        1 => (0..2 + TABLES + 2).prop_map(Change::Renew),
    ]
}

struct Scene<P: PageTables> {
    world: World<P>,
    spaces: Vec<u64>,
    tables: Vec<u64>,
    /// Two frames, and copies of the first with fewer rights.
    frames: Vec<u64>,
}

impl<P: PageTables> Scene<P> {
    fn new() -> Self {
        let world = World::<P>::of();
        let spaces = (0..2)
            .map(|_| world.make(ObjectKind::AddressSpace, 0))
            .collect();
        let tables = (0..TABLES)
            .map(|_| world.make(ObjectKind::PageTable, 0))
            .collect();
        let mut frames: Vec<u64> = (0..2).map(|_| world.make(ObjectKind::Frame, 12)).collect();
        for rights in [15, 1, 9] {
            let copy = world.free();
            let mint = [copy, frames[0], rights, 0];
            world
                .invoke(boot::NODE, Method::Mint, &mint)
                .expect("it is free");
            frames.push(copy);
        }
        Self {
            world,
            spaces,
            tables,
            frames,
        }
    }

    fn apply(&self, change: Change) -> Result<[u64; 4], Error> {
        match change {
            Change::MapTable(table, space, address) => {
                let words = [self.spaces[space], ADDRESSES[address] & !0xfff];
                self.world.invoke(self.tables[table], Method::Map, &words)
            }
            Change::UnmapTable(table) => self.world.invoke(self.tables[table], Method::Unmap, &[]),
            Change::MapFrame(frame, space, address, rights) => {
                let words = [self.spaces[space], ADDRESSES[address], rights, 0];
                self.world.invoke(self.frames[frame], Method::Map, &words)
            }
            Change::UnmapFrame(frame) => self.world.invoke(self.frames[frame], Method::Unmap, &[]),
            Change::Renew(which) => {
                let (at, kind, size) = match which {
                    0..2 => (self.spaces[which], ObjectKind::AddressSpace, 0),
                    _ if which < 2 + TABLES => (self.tables[which - 2], ObjectKind::PageTable, 0),
                    _ => (self.frames[which - 2 - TABLES], ObjectKind::Frame, 12),
                };
                self.world.invoke(boot::NODE, Method::Delete, &[at])?;
                let words = [Retype::new(kind, size, 1).0, boot::NODE, at];
                self.world
                    .invoke(self.world.untyped(19), Method::Retype, &words)
            }
        }
    }

    /// What processors can have seen: the pages of all spaces, by space and address.
    fn pages(&self) -> HashMap<(u16, u64), u64> {
        let arena = self.world.arena();
        let mut pages = HashMap::new();
        for at in arena.all::<AddressSpace>() {
            let space = arena.object(at);
            if let Some(root) = space.root() {
                self.walk((root, P::LEVELS - 1, 0), space.identifier(), &mut pages);
            }
        }
        pages
    }

    fn walk(
        &self,
        (table, level, begin): (Ref<Page>, u8, u64),
        space: u16,
        pages: &mut HashMap<(u16, u64), u64>,
    ) {
        let own = match level + 1 == P::LEVELS && P::KERNEL_IN_EVERY_ROOT {
            true => 256,
            false => 512,
        };
        let entries = self.world.arena().object(table).iter().take(own);
        for (index, entry) in entries.enumerate() {
            let at = begin + index as u64 * P::entry_bytes(level);
            match P::decode(level, entry.get()) {
                Entry::Table(next) => {
                    let next = Ref::at(next).expect("a table");
                    self.walk((next, level - 1, at), space, pages);
                }
                Entry::Leaf(_) => {
                    pages.insert((space, at), entry.get());
                }
                Entry::Absent | Entry::Foreign => {}
            }
        }
    }
}

fn hold<P: PageTables>() {
    let mapped = std::cell::Cell::new(0);
    run(60, &prop::collection::vec(change(), 1..80), |changes| {
        let scene = Scene::<P>::new();
        for table in 0..TABLES {
            // Some are too many, in formats of three levels.
            let _ = scene.apply(Change::MapTable(table, table / 4, 0));
        }
        for change in changes {
            let before = scene.pages();
            scene.world.arena().flushes.borrow_mut().clear();
            let result = scene.apply(change);
            let is_map = matches!(change, Change::MapFrame(..));
            mapped.set(mapped.get() + u64::from(is_map && result.is_ok()));
            scene.world.check();
            let after = scene.pages();
            if let (Change::MapFrame(_, _, _, rights), Ok(_)) = (change, result) {
                prop_assert!(rights & 10 != 10, "writable and executable");
            }
            let flushes = scene.world.arena().flushes.borrow();
            for ((space, at), entry) in before {
                let is_same = after.get(&(space, at)) == Some(&entry);
                let forgotten =
                    flushes.contains(&(space, Some(at))) || flushes.contains(&(space, None));
                prop_assert!(
                    is_same || forgotten,
                    "{at:#x} in {space} is still remembered"
                );
            }
        }
        Ok(())
    });
    assert!(mapped.get() > 60, "{} pages were mapped", mapped.get());
}

#[test]
fn pages_come_and_go_in_the_format_of_riscv() {
    hold::<Sv39>();
    hold::<Sv48>();
}

#[test]
fn pages_come_and_go_in_the_formats_of_arm_and_x86() {
    hold::<Stage1>();
    hold::<FourLevel>();
}
