//! What the kernel does for memories that stay in place: it tells which pages are written and which are there, and lets a
//! program wait for pages that are to come.

use std::io::{self, PipeReader};

use mielin_safepoint::PAGE_SIZE;

use super::{DirtyTracker, RegionOwner, TrackError};
#[cfg(target_os = "linux")]
use super::{absent, userfaultfd};

/// `page-hash` here keeps the kernel's help out of the way, for tests and comparisons.
const OVERRIDE: &str = "MIELIN_DIRTY";

/// The kernel's tracker for a memory, if the self-test has shown that it works here.
pub(super) fn track(region: &RegionOwner) -> Option<Box<dyn DirtyTracker>> {
    #[cfg(target_os = "linux")]
    if !is_overridden() {
        return userfaultfd::track(region).map(|tracker| Box::new(tracker) as Box<_>);
    }
    let _ = region;
    None
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

pub(super) fn is_overridden() -> bool {
    std::env::var_os(OVERRIDE).is_some_and(|backend| backend == "page-hash")
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
