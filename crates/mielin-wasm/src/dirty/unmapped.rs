//! Where no engine keeps memories in place there is nothing of this kind, and types without values say so.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::DirtyTracker;

/// The place of a memory.
pub(crate) enum RegionOwner {}

/// How large the memory there is.
pub(crate) enum RegionSize {}

impl RegionOwner {
    pub(crate) fn size(&self) -> RegionSize {
        match *self {}
    }

    pub(crate) fn is_shared(&self) -> bool {
        match *self {}
    }
}

pub(super) fn track(region: &RegionOwner) -> Option<Box<dyn DirtyTracker>> {
    match *region {}
}

/// The pages of a memory that the kernel has.
pub(crate) fn touched(region: &RegionOwner) -> Option<Vec<u32>> {
    match *region {}
}

/// Whether a whole memory has become zero by giving its pages back.
pub(crate) fn forget(_memory: &mut [u8]) -> bool {
    false
}
