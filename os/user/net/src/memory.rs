//! Memory that the driver shares with the card, and the card's registers, as `virtio-drivers` wants to know them.
//!
//! The driver asks functions without a place for state, so that where both are is kept here; it is set once.
#![allow(unsafe_code)]

use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU64, Ordering};

use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

/// Bytes of the memory that is shared.
pub(crate) const SHARED_BYTES: u64 = 1 << 21;
/// The part of it from which the driver takes pages for its queues; buffers come behind it.
pub(crate) const QUEUES_BYTES: u64 = 1 << 16;

/// A stretch of memory, as programs and as devices see it.
struct Stretch {
    virtual_base: AtomicU64,
    physical_base: AtomicU64,
    bytes: AtomicU64,
}

impl Stretch {
    const fn none() -> Self {
        Self {
            virtual_base: AtomicU64::new(0),
            physical_base: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// # Panics
    /// If it was set already.
    fn set(&self, virtual_base: u64, physical_base: u64, bytes: u64) {
        let before = self.bytes.swap(bytes, Ordering::Relaxed);
        assert!(before == 0, "memory for the card is given once");
        self.virtual_base.store(virtual_base, Ordering::Relaxed);
        self.physical_base.store(physical_base, Ordering::Relaxed);
    }

    /// The other address of `len` bytes of it.
    fn other(&self, from: &AtomicU64, to: &AtomicU64, address: u64, len: u64) -> Option<u64> {
        let offset = address.checked_sub(from.load(Ordering::Relaxed))?;
        let end = offset.checked_add(len)?;
        (end <= self.bytes.load(Ordering::Relaxed)).then(|| to.load(Ordering::Relaxed) + offset)
    }

    fn physical(&self, address: u64, len: u64) -> Option<u64> {
        self.other(&self.virtual_base, &self.physical_base, address, len)
    }

    fn virtual_address(&self, address: u64, len: u64) -> Option<u64> {
        self.other(&self.physical_base, &self.virtual_base, address, len)
    }
}

static SHARED: Stretch = Stretch::none();
static REGISTERS: Stretch = Stretch::none();
/// Bytes that queues have been given.
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// Says where memory is that is shared with the card.
///
/// # Safety
/// [`SHARED_BYTES`] are mapped there for reading and writing, which are contiguous from that physical address on, and which nobody uses
/// but through this module, and no device but the card.
///
/// # Panics
/// If this was said already.
pub(crate) unsafe fn share(virtual_base: u64, physical_base: u64) {
    SHARED.set(virtual_base, physical_base, SHARED_BYTES);
}

/// Says where the card's registers are.
///
/// # Safety
/// So many bytes are mapped there, which are the registers of the card, and nobody uses them but its driver.
///
/// # Panics
/// If this was said already.
pub(crate) unsafe fn map_registers(virtual_base: u64, physical_base: u64, bytes: u64) {
    REGISTERS.set(virtual_base, physical_base, bytes);
}

/// Where the bytes at an offset of shared memory are: for buffers, which begin at [`QUEUES_BYTES`].
pub(crate) fn shared(offset: u64, len: u64) -> NonNull<[u8]> {
    let end = offset.checked_add(len);
    let is_within = offset >= QUEUES_BYTES && end.is_some_and(|end| end <= SHARED_BYTES);
    let at = SHARED.virtual_base.load(Ordering::Relaxed);
    assert!(is_within && at != 0, "no buffer is at {offset:#x}");
    let first = ptr::with_exposed_provenance_mut::<u8>((at + offset) as usize);
    let first = NonNull::new(first).expect("memory is not at 0");
    NonNull::slice_from_raw_parts(first, len as usize)
}

/// What the driver asks.
#[derive(Debug)]
pub(crate) struct Memory;

// SAFETY: pages that are given come from the part of shared memory that nothing else uses, each once; registers are where
// `map_registers` was told.
unsafe impl Hal for Memory {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let bytes = (pages * PAGE_SIZE) as u64;
        let offset = TAKEN.fetch_add(bytes, Ordering::Relaxed);
        let at = SHARED.virtual_base.load(Ordering::Relaxed) + offset;
        let physical = SHARED.physical(at, bytes);
        let pointer = NonNull::new(ptr::with_exposed_provenance_mut::<u8>(at as usize));
        match (physical, pointer) {
            (Some(physical), Some(pointer)) if offset + bytes <= QUEUES_BYTES => {
                // SAFETY: by the promise of `share` it is mapped; no other pages are there, and these were never given.
                unsafe { pointer.write_bytes(0, bytes as usize) };
                (physical, pointer)
            }
            // An address of 0 says that there are none.
            _ => (0, NonNull::dangling()),
        }
    }

    unsafe fn dma_dealloc(_: PhysAddr, _: NonNull<u8>, _: usize) -> i32 {
        // Nobody gets it again before the program starts anew: the card may still use it.
        0
    }

    unsafe fn mmio_phys_to_virt(at: PhysAddr, bytes: usize) -> NonNull<u8> {
        let at = REGISTERS.virtual_address(at, bytes as u64);
        let at = at.expect("the card has the registers that it had when it was found");
        let pointer = ptr::with_exposed_provenance_mut(at as usize);
        NonNull::new(pointer).expect("registers are not at 0")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        let at = buffer.cast::<u8>().as_ptr().expose_provenance() as u64;
        let physical = SHARED.physical(at, buffer.len() as u64);
        physical.expect("buffers for the card are in shared memory")
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}
