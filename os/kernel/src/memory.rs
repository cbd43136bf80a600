//! All memory, as the kernel sees it: each physical address at the same distance.

use core::ptr;

use mielin_kernel::{Object, Ref};

use crate::arch;

/// Where the kernel sees a physical address.
#[inline(always)]
pub(crate) fn pointer<T>(physical: u64) -> *mut T {
    ptr::with_exposed_provenance_mut(arch::physical_map().wrapping_add(physical) as usize)
}

/// The object at this address.
#[inline(always)]
pub(crate) fn object<'a, T: Object>(at: Ref<T>) -> &'a T {
    // SAFETY: by the promise of `Ref`, a `T` was placed there and is there still; its memory came from an untyped, and so is
    // mapped, and nobody else's. All its fields are cells, and only this processor runs the kernel. The alignment is that of
    // the object's size, which `abi::ObjectKind::bits` says, or of an offset in it.
    unsafe { &*pointer(at.address()) }
}

/// Makes memory a new object.
#[inline(always)]
pub(crate) fn place<T: Object>(at: Ref<T>) {
    // SAFETY: as for `object`; nothing is there yet, or something that ended.
    unsafe { pointer::<T>(at.address()).write(T::fresh()) }
}

/// Zeroes memory that is to become a program's.
pub(crate) fn clear(physical: u64, bytes: u64) {
    // SAFETY: the core clears only memory that it has just cut from an untyped, where no object is, or a table that it
    // has taken out of use.
    unsafe { ptr::write_bytes(pointer::<u8>(physical), 0, bytes as usize) }
}
