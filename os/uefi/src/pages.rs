//! Memory that firmware gives.

use core::ptr::NonNull;

use mielin_uefi::start_information::PAGE_BYTES;
use uefi::boot::{self, AllocateType};
use uefi::mem::memory_map::MemoryType;

/// Pages of one's own, zeroed. Dropped, they are firmware's again: whoever ends boot services drops none any more.
pub(crate) struct Pages {
    begin: NonNull<u8>,
    count: usize,
}

impl Pages {
    /// Those from this physical address on.
    ///
    /// # Errors
    /// They are not free.
    pub(crate) fn at(address: u64, count: usize, kind: MemoryType) -> uefi::Result<Self> {
        Self::allocate(AllocateType::Address(address), count, kind)
    }

    /// One that code of 32 bits can reach.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn below_4_gib(kind: MemoryType) -> uefi::Result<Self> {
        Self::allocate(AllocateType::MaxAddress(u32::MAX.into()), 1, kind)
    }

    fn allocate(place: AllocateType, count: usize, kind: MemoryType) -> uefi::Result<Self> {
        let begin = boot::allocate_pages(place, kind, count)?;
        // SAFETY: firmware has given these pages to this call alone.
        unsafe { begin.write_bytes(0, count * PAGE_BYTES) };
        Ok(Self { begin, count })
    }

    /// Their physical address: firmware's map has memory where it is.
    pub(crate) fn address(&self) -> u64 {
        self.begin.addr().get() as u64
    }

    /// All their bytes.
    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: they are this value's, were written, and are borrowed with it.
        unsafe { core::slice::from_raw_parts_mut(self.begin.as_ptr(), self.count * PAGE_BYTES) }
    }

    /// The first one.
    pub(crate) fn first(&mut self) -> &mut [u8; PAGE_BYTES] {
        let first = self.as_mut().first_chunk_mut();
        first.expect("there is a page where one was asked for")
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: they were allocated so, and nothing borrows them. What firmware answers changes nothing: they are not used.
        let _ = unsafe { boot::free_pages(self.begin, self.count) };
    }
}
