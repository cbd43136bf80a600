//! Memory that notices what is done to it, and a machine around it.

use std::any::{Any, TypeId};
use std::cell::{Cell, OnceCell, RefCell};
use std::marker::PhantomData;

use mielin_hal::paging::{Access, Caching, Leaf, PageTables, Permissions, Privilege, Sv39};
use mielin_kernel::{Machine, Object, Page, Ref, Thread, UNIT_BYTES};

const PAGE_BYTES: u64 = 4096;
/// In an owner: the object begins in this unit.
const BEGINS: u32 = 1 << 31;
const CHUNKS: usize = 4096;
const CHUNK_BYTES: usize = 16 << 10;

/// Objects of all types that were ever placed, in the order of their coming. None goes before all do: whoever uses a removed
/// one does not find it by its address any more.
struct Store {
    chunks: Vec<OnceCell<Box<dyn Any>>>,
    kinds: RefCell<Vec<Kind>>,
    count: Cell<usize>,
}

/// What there is of a type.
struct Kind {
    of: TypeId,
    /// The chunk to which objects are added, and how many it has.
    open: (usize, usize),
    /// Where they are now.
    addresses: Vec<u64>,
    sorted: bool,
}

impl Store {
    fn new() -> Self {
        Self {
            chunks: (0..CHUNKS).map(|_| OnceCell::new()).collect(),
            kinds: RefCell::default(),
            count: Cell::new(0),
        }
    }

    fn kind<T: Object, R>(&self, serve: impl FnOnce(&mut Kind) -> R) -> R {
        let mut kinds = self.kinds.borrow_mut();
        let of = TypeId::of::<T>();
        let known = kinds.iter().position(|kind| kind.of == of);
        let index = known.unwrap_or_else(|| {
            kinds.push(Kind {
                of,
                open: (CHUNKS, usize::MAX),
                addresses: Vec::new(),
                sorted: true,
            });
            kinds.len() - 1
        });
        serve(&mut kinds[index])
    }

    /// Adds a new object. Gives its number, from 1 on.
    fn add<T: Object>(&self, address: u64) -> u32 {
        let capacity = (CHUNK_BYTES / size_of::<T>()).clamp(1, 1024);
        let (chunk, used) = self.kind::<T, _>(|kind| {
            let (chunk, used) = &mut kind.open;
            if *used >= capacity {
                *chunk = self.count.replace(self.count.get() + 1);
                *used = 0;
                let places: Vec<OnceCell<T>> = (0..capacity).map(|_| OnceCell::new()).collect();
                assert!(*chunk < CHUNKS, "the arena has no room for more objects");
                assert!(self.chunks[*chunk].set(Box::new(places)).is_ok());
            }
            *used += 1;
            kind.sorted &= kind.addresses.last().is_none_or(|last| *last < address);
            kind.addresses.push(address);
            (*chunk, *used - 1)
        });
        let places = self.places::<T>(chunk).expect("the chunk was made");
        assert!(places[used].set(T::fresh()).is_ok());
        (chunk << 10 | used) as u32 + 1
    }

    fn forget<T: Object>(&self, address: u64) {
        self.kind::<T, _>(|kind| {
            kind.sort();
            let at = kind.addresses.binary_search(&address);
            kind.addresses.remove(at.expect("it was added"));
        });
    }

    fn places<T: 'static>(&self, chunk: usize) -> Option<&Vec<OnceCell<T>>> {
        self.chunks[chunk].get()?.downcast_ref()
    }

    fn find<T: 'static>(&self, number: u32) -> Option<&T> {
        let index = number as usize - 1;
        self.places::<T>(index >> 10)?.get(index & 1023)?.get()
    }
}

impl Kind {
    fn sort(&mut self) {
        if !self.sorted {
            self.addresses.sort_unstable();
            self.sorted = true;
        }
    }
}

/// The machine of the tests.
///
/// Each object lies at an address; whoever asks for one gets it only by the address where it begins, by its type, and while it is
/// there. Pages of programs and tables exist where memory was cleared. It panics whenever the kernel does what it has no right to.
pub(crate) struct Arena<P = Sv39> {
    begin: u64,
    owners: Vec<Cell<u32>>,
    store: Store,
    pages: Vec<OnceCell<Box<Page>>>,
    cleared: Vec<Cell<bool>>,
    pub(crate) clock: Cell<u64>,
    pub(crate) alarm: Cell<u64>,
    /// Whether something urgent waits, a bit for each time that the kernel asks, from the lowest on, and then again.
    pub(crate) interruptions: Cell<u64>,
    pub(crate) root: Cell<u64>,
    pub(crate) flushes: RefCell<Vec<(u16, Option<u64>)>>,
    pub(crate) published: RefCell<Vec<(u64, u64)>>,
    pub(crate) lines: Vec<Cell<bool>>,
    pub(crate) forgotten: RefCell<Vec<Ref<Thread>>>,
    pub(crate) written: RefCell<Vec<(u16, u8, u32)>>,
    form: PhantomData<P>,
}

/// Interrupt lines that the machine has.
pub(crate) const LINES: u32 = 32;

impl<P: PageTables> Arena<P> {
    pub(crate) fn new(begin: u64, end: u64) -> Self {
        let pages = ((end - begin) / PAGE_BYTES) as usize;
        Self {
            begin,
            owners: vec![Cell::new(0); ((end - begin) / UNIT_BYTES) as usize],
            store: Store::new(),
            pages: (0..pages).map(|_| OnceCell::new()).collect(),
            cleared: vec![Cell::new(false); pages],
            clock: Cell::new(1000),
            alarm: Cell::new(u64::MAX),
            interruptions: Cell::new(0),
            root: Cell::new(0),
            flushes: RefCell::default(),
            published: RefCell::default(),
            lines: vec![Cell::new(false); LINES as usize],
            forgotten: RefCell::default(),
            written: RefCell::default(),
            form: PhantomData,
        }
    }

    fn unit(&self, address: u64) -> usize {
        let inside = address.checked_sub(self.begin);
        let unit = inside.map(|bytes| (bytes / UNIT_BYTES) as usize);
        unit.filter(|unit| *unit < self.owners.len())
            .unwrap_or_else(|| panic!("there is no memory at {address:#x}"))
    }

    fn units<T>(&self, at: Ref<T>) -> std::ops::Range<usize> {
        let first = self.unit(at.address());
        first..first + size_of::<T>().div_ceil(UNIT_BYTES as usize)
    }

    fn page(&self, address: u64) -> Option<&Page> {
        let index = self.unit(address) / (PAGE_BYTES / UNIT_BYTES) as usize;
        if !address.is_multiple_of(PAGE_BYTES) || !self.cleared[index].get() {
            return None;
        }
        Some(self.pages[index].get_or_init(|| Box::new(Page::fresh())))
    }

    /// The object that is there now.
    pub(crate) fn find<T: Object>(&self, at: Ref<T>) -> Option<&T> {
        if TypeId::of::<T>() == TypeId::of::<Page>() {
            return (self.page(at.address())? as &dyn Any).downcast_ref();
        }
        let owner = self.owners[self.unit(at.address())].get();
        if owner & BEGINS == 0 {
            return None;
        }
        self.store.find(owner & !BEGINS)
    }

    /// All objects of a type that are there now, but for pages.
    pub(crate) fn all<T: Object>(&self) -> Vec<Ref<T>> {
        self.store.kind::<T, _>(|kind| {
            kind.sort();
            let addresses = kind.addresses.iter();
            addresses.filter_map(|address| Ref::at(*address)).collect()
        })
    }

    /// How many objects there are, but for pages.
    pub(crate) fn count(&self) -> usize {
        let kinds = self.store.kinds.borrow();
        kinds.iter().map(|kind| kind.addresses.len()).sum()
    }
}

impl<P: PageTables> Machine for Arena<P> {
    type Mmu = P;

    fn object<T: Object>(&self, at: Ref<T>) -> &T {
        self.find(at)
            .unwrap_or_else(|| panic!("no {} is at {at:?}", std::any::type_name::<T>()))
    }

    fn place<T: Object>(&self, at: Ref<T>) {
        let units = self.units(at);
        for unit in units.clone() {
            let owner = self.owners[unit].get();
            assert!(
                owner == 0,
                "an object is made at {at:?}, where another one is"
            );
            // It was a page of a program, which is no more: of that, the machine is not told.
            self.cleared[unit / (PAGE_BYTES / UNIT_BYTES) as usize].set(false);
        }
        let number = self.store.add::<T>(at.address());
        for unit in units.clone() {
            self.owners[unit].set(number);
        }
        self.owners[units.start].set(number | BEGINS);
    }

    fn remove<T: Object>(&self, at: Ref<T>) {
        assert!(
            self.find(at).is_some(),
            "no {} is at {at:?} to be removed",
            std::any::type_name::<T>()
        );
        if TypeId::of::<T>() == TypeId::of::<Page>() {
            let index = self.unit(at.address()) / (PAGE_BYTES / UNIT_BYTES) as usize;
            self.cleared[index].set(false);
            return;
        }
        self.store.forget::<T>(at.address());
        for unit in self.units(at) {
            self.owners[unit].set(0);
        }
    }

    fn clear(&self, address: u64, bytes: u64) {
        assert!(address.is_multiple_of(PAGE_BYTES) && bytes.is_multiple_of(PAGE_BYTES));
        for page in (address..address + bytes).step_by(PAGE_BYTES as usize) {
            let first = self.unit(page);
            let units = &self.owners[first..first + (PAGE_BYTES / UNIT_BYTES) as usize];
            assert!(
                units.iter().all(|owner| owner.get() == 0),
                "memory at {page:#x} is cleared, where an object is"
            );
            let index = first / units.len();
            self.cleared[index].set(true);
            if let Some(page) = self.pages[index].get() {
                page.iter().for_each(|word| word.set(0));
            }
        }
    }

    fn now(&self) -> u64 {
        self.clock.get()
    }

    fn set_alarm(&self, at: u64) {
        self.alarm.set(at);
    }

    fn interrupted(&self) -> bool {
        let bits = self.interruptions.get();
        self.interruptions.set(bits.rotate_right(1));
        bits & 1 != 0
    }

    fn begin_root(&self, root: Ref<Page>) {
        let table = self.object(root);
        assert!(table.iter().all(|entry| entry.get() == 0));
        if P::KERNEL_IN_EVERY_ROOT {
            table[511].set(kernel_entry::<P>());
        }
    }

    fn load_root(&self, value: u64) {
        self.root.set(value);
    }

    fn flush_page(&self, identifier: u16, at: u64) {
        self.flushes.borrow_mut().push((identifier, Some(at)));
    }

    fn flush_space(&self, identifier: u16) {
        self.flushes.borrow_mut().push((identifier, None));
    }

    fn publish_code(&self, address: u64, bytes: u64) {
        self.published.borrow_mut().push((address, bytes));
    }

    fn enable_line(&self, line: u32, on: bool) {
        if let Some(known) = self.lines.get(line as usize) {
            known.set(on);
        }
    }

    fn has_line(&self, line: u32) -> bool {
        line < LINES
    }

    fn port(&self, port: u16, width: u8, write: Option<u32>) -> Option<u32> {
        match write {
            Some(value) => {
                self.written.borrow_mut().push((port, width, value));
                Some(0)
            }
            None => Some(u32::from(port)),
        }
    }

    /// Nothing here is a machine that could end.
    fn shut_down(&self, _: bool) {}

    fn begin_thread(&self, thread: Ref<Thread>) {
        // It was placed.
        self.object(thread);
    }

    fn forget(&self, thread: Ref<Thread>) {
        self.forgotten.borrow_mut().push(thread);
    }
}

/// What the kernel has in each root.
fn kernel_entry<P: PageTables>() -> u64 {
    let permissions = Permissions {
        access: Access::Read,
        privilege: Privilege::Kernel,
    };
    P::leaf(
        2,
        Leaf {
            physical: 0,
            permissions,
            caching: Caching::WriteBack,
        },
    )
}
