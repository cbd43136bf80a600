//! Which pages of a program's memory have been written.

mod page_hash;
mod region;
#[cfg(target_os = "linux")]
mod userfaultfd;

use mielin_safepoint::PAGE_SIZE;

use crate::{EngineError, Instance};

pub(crate) use region::{RegionOwner, RegionSize, populate};

/// `page-hash` here keeps the kernel's help out of the way, for tests and comparisons.
const OVERRIDE: &str = "MIELIN_DIRTY";

/// The best tracker for a memory: the kernel's, if the memory stays in place and the self-test has
/// shown that it works here, and page hashes otherwise.
pub(crate) fn track(
    region: Option<&RegionOwner>,
    memory_bytes: u64,
) -> Result<Box<dyn DirtyTracker>, EngineError> {
    let forced = std::env::var_os(OVERRIDE).is_some_and(|backend| backend == "page-hash");
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

    /// Copies many pages, appended to `out` in the order of `indices`: the same as
    /// [`read`](Self::read) of each, in far fewer system calls.
    ///
    /// # Errors
    /// As for [`read`](Self::read); what was appended is undefined then.
    fn read_many(
        &self,
        indices: &[u32],
        parked: Option<&dyn Instance>,
        out: &mut Vec<u8>,
    ) -> Result<(), TrackError> {
        let mut page = [0; PAGE_SIZE];
        for index in indices {
            self.read(*index, parked, &mut page)?;
            out.extend_from_slice(&page);
        }
        Ok(())
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
    /// The kernel refused.
    #[error("the kernel refused {call}: {source}")]
    Kernel {
        /// The system call.
        call: &'static str,
        /// Its error.
        source: std::io::Error,
    },
}
