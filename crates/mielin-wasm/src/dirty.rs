//! Which pages of a program's memory have been written.

#[cfg(target_os = "linux")]
mod absent;
mod fingerprint;
mod page_hash;
mod page_set;
mod region;
#[cfg(target_os = "linux")]
mod userfaultfd;

use std::io::{self, PipeReader};

use mielin_safepoint::PAGE_SIZE;

use crate::{EngineError, Instance};

pub use fingerprint::{Fingerprint, PageKey};
pub use page_set::PageSet;
pub(crate) use region::{RegionOwner, RegionSize};

/// `page-hash` here keeps the kernel's help out of the way, for tests and comparisons.
const OVERRIDE: &str = "MIELIN_DIRTY";

/// The best tracker for a memory: the kernel's, if the memory stays in place and the self-test has
/// shown that it works here, and page hashes otherwise.
pub(crate) fn track(
    region: Option<&RegionOwner>,
    memory_bytes: u64,
) -> Result<Box<dyn DirtyTracker>, EngineError> {
    let forced = is_overridden();
    #[cfg(target_os = "linux")]
    if let (Some(region), false) = (region, forced)
        && let Some(tracker) = userfaultfd::track(region)
    {
        return Ok(Box::new(tracker));
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (region, forced);
    Ok(Box::new(page_hash::PageHashes::new(memory_bytes)?))
}

/// Whether a program may run here while pages of its memory are absent.
pub(crate) fn absence_works() -> bool {
    #[cfg(target_os = "linux")]
    return absent::works();
    #[cfg(not(target_os = "linux"))]
    false
}

/// The pages of a memory that the kernel has; none if it does not tell.
pub(crate) fn touched(region: &RegionOwner) -> Option<Vec<u32>> {
    #[cfg(target_os = "linux")]
    if !is_overridden() {
        return userfaultfd::touched(region);
    }
    let _ = region;
    None
}

/// Makes a whole memory zero by giving its pages back; false if the kernel would not.
pub(crate) fn forget(memory: &mut [u8]) -> bool {
    #[cfg(target_os = "linux")]
    if memory.len().is_multiple_of(PAGE_SIZE) {
        let pages = u32::try_from(memory.len() / PAGE_SIZE).unwrap_or(u32::MAX);
        return absent::forget(memory, &[(0, pages)]).is_ok();
    }
    let _ = memory;
    false
}

/// Makes pages of a memory absent that nobody uses at this time.
pub(crate) fn make_absent(
    region: Option<&RegionOwner>,
    memory: &mut [u8],
    runs: &[(u32, u32)],
) -> Result<Box<dyn AbsentPages>, TrackError> {
    #[cfg(target_os = "linux")]
    if let (Some(region), true) = (region, absence_works()) {
        let call = "madvise";
        absent::forget(memory, runs).map_err(|source| TrackError::Kernel { call, source })?;
        return Ok(Box::new(absent::Userfaults::new(region, runs)?));
    }
    let _ = (region, memory, runs);
    Err(TrackError::Unsupported)
}

fn is_overridden() -> bool {
    std::env::var_os(OVERRIDE).is_some_and(|backend| backend == "page-hash")
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

/// The pages of a program's memory that have not come yet. The program may run: where it touches one of them it waits
/// until the page is put in place.
///
/// Dropping this lets every access go on, and what has not come by then is zero. Whoever drops it early drops the
/// program too, and whatever it did since.
pub trait AbsentPages: Send {
    /// How many are still absent.
    fn count(&self) -> u64;

    /// A function that blocks until the program waits for pages that [`wanted`](Self::wanted) has not named, and then
    /// gives true; or gives false once the writing end of `end` is dropped. Whoever drops the pages early ends it
    /// first.
    ///
    /// # Errors
    /// The kernel refuses.
    fn watch(&self, end: PipeReader) -> Result<Watch, TrackError>;

    /// The pages that the program has begun to wait for since the last call. Never blocks.
    ///
    /// # Errors
    /// The kernel refuses, or the instance is gone.
    fn wanted(&mut self) -> Result<Vec<u32>, TrackError>;

    /// Puts pages in place, the first at `first`, and lets whoever waits for them go on. What was not absent is left as
    /// it is. Gives how many were put in place.
    ///
    /// # Errors
    /// The kernel refuses, or the instance is gone.
    fn place(&mut self, first: u32, pages: &[[u8; PAGE_SIZE]]) -> Result<u64, TrackError>;

    /// Says of pages, the first at `first`, that they are zero, as far as they are absent, and lets whoever waits for
    /// them go on. They take no memory before they are touched.
    ///
    /// # Errors
    /// The kernel refuses, or the instance is gone.
    fn place_zeros(&mut self, first: u32, pages: u32) -> Result<(), TrackError>;
}

/// See [`AbsentPages::watch`].
pub type Watch = Box<dyn FnMut() -> io::Result<bool> + Send>;

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
    #[error("the kernel refused {call}: {source}")]
    Kernel {
        /// The system call.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
}
