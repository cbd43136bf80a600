//! Which pages of a program's memory have been written.

#[cfg(all(feature = "wasmtime", target_os = "linux"))]
mod absent;
mod fingerprint;
#[cfg(feature = "wasmtime")]
mod mapped;
mod page_hash;
mod page_set;
#[cfg(feature = "wasmtime")]
mod region;
#[cfg(not(feature = "wasmtime"))]
mod unmapped;
#[cfg(all(feature = "wasmtime", target_os = "linux"))]
mod userfaultfd;

use alloc::boxed::Box;
use alloc::vec::Vec;

use mielin_safepoint::PAGE_SIZE;

use crate::{EngineError, Instance, Platform};

pub use fingerprint::{Fingerprint, PageKey};
#[cfg(feature = "wasmtime")]
pub use mapped::{AbsentPages, Watch};
#[cfg(feature = "wasmtime")]
pub(crate) use mapped::{absence_works, forget, make_absent, touched};
pub use page_set::PageSet;
#[cfg(feature = "wasmtime")]
pub(crate) use region::{RegionOwner, RegionSize};
#[cfg(not(feature = "wasmtime"))]
pub(crate) use unmapped::{RegionOwner, RegionSize, forget, touched};

#[cfg(feature = "wasmtime")]
use mapped as kernel;
#[cfg(not(feature = "wasmtime"))]
use unmapped as kernel;

/// The best tracker for a memory: the kernel's, if the memory stays in place and the self-test has
/// shown that it works here, and page hashes otherwise.
pub(crate) fn track(
    region: Option<&RegionOwner>,
    memory_bytes: u64,
    platform: &dyn Platform,
) -> Result<Box<dyn DirtyTracker>, EngineError> {
    match region.and_then(kernel::track) {
        Some(tracker) => Ok(tracker),
        None => Ok(Box::new(page_hash::PageHashes::new(
            memory_bytes,
            platform,
        )?)),
    }
}

/// Whether all bytes are zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (blocks, rest) = bytes.as_chunks::<64>();
    blocks
        .iter()
        .all(|block| block.iter().fold(0, |all, byte| all | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}

/// Notes the pages that a program writes.
///
/// Pages are 4 KiB, numbered from the start of the program's memory. A tracker holds no reference
/// to its instance: after the instance is gone, every call gives [`TrackError::Gone`].
pub trait DirtyTracker: Send {
    /// `userfaultfd` or `page-hash`.
    fn backend(&self) -> &'static str;

    /// Whether [`harvest`](Self::harvest) and [`read`](Self::read) may be called while the instance
    /// runs on another thread. If not, both need the parked instance.
    fn concurrent(&self) -> bool;

    /// The pages written since the previous harvest, ascending; the first gives every page that is
    /// not zero (and perhaps some that are). What is written while a harvest is under way is in
    /// this one or in the next.
    ///
    /// # Errors
    /// The instance is gone, or it was needed and not given.
    fn harvest(&mut self, parked: Option<&dyn Instance>) -> Result<Vec<u32>, TrackError>;

    /// Copies a page as it is now; beyond the end of the memory there are zeros. While the instance
    /// runs, the copy may hold some writes and not others; the next harvest then names the page
    /// again.
    ///
    /// # Errors
    /// The instance is gone, or it was needed and not given.
    fn read(
        &self,
        index: u32,
        parked: Option<&dyn Instance>,
        out: &mut [u8; PAGE_SIZE],
    ) -> Result<(), TrackError>;

    /// Copies many pages, as many as `out` has room for: the same as [`read`](Self::read) of each, in
    /// far fewer system calls.
    ///
    /// # Errors
    /// As for [`read`](Self::read); what `out` holds is undefined then.
    ///
    /// # Panics
    /// `indices` and `out` differ in length.
    fn read_many(
        &self,
        indices: &[u32],
        parked: Option<&dyn Instance>,
        out: &mut [[u8; PAGE_SIZE]],
    ) -> Result<(), TrackError> {
        assert_eq!(out.len(), indices.len(), "one page of room for each index");
        let mut pages = indices.iter().zip(out);
        pages.try_for_each(|(index, page)| self.read(*index, parked, page))
    }
}

/// A tracker could not look at its instance's memory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrackError {
    /// The instance has been dropped.
    #[error("the instance is gone")]
    Gone,
    /// This backend needs the parked instance.
    #[error("page hashes can only be taken of a parked instance")]
    NeedsParked,
    /// Pages cannot be absent on this machine or with this engine.
    #[error("pages cannot be absent here")]
    Unsupported,
    /// The kernel refused.
    #[cfg(feature = "wasmtime")]
    #[error("the kernel refused {call}: {source}")]
    Kernel {
        /// The system call.
        call: &'static str,
        /// Its error.
        source: std::io::Error,
    },
}
