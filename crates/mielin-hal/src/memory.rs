//! How much memory there is, and in which pages.

use crate::few::Few;

/// The most sizes of pages that are told apart.
const PAGE_SIZES_MAX: usize = 8;

/// The memory of a machine. What is not known is `None`; on bare metal nothing is, and a device tree or the firmware's
/// map says more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Bytes that the operating system manages.
    pub total_bytes: Option<u64>,
    /// Bytes that programs can have without anything being swapped out.
    pub available_bytes: Option<u64>,
    /// Bytes of the smallest page.
    pub page_bytes: Option<u64>,
    /// Sizes of larger pages that the operating system can give, ascending.
    pub huge_page_bytes: Few<u64, PAGE_SIZES_MAX>,
}

impl Memory {
    /// Asks the machine: with `std`, `/proc/meminfo`, the auxiliary vector and `/sys/kernel/mm/hugepages` on Linux, and
    /// sysctl on macOS, which does not say how much is available.
    #[must_use]
    pub fn detect() -> Self {
        #[cfg(all(feature = "std", target_os = "linux"))]
        return crate::linux::memory(std::path::Path::new("/"));
        #[cfg(all(feature = "std", target_os = "macos"))]
        return crate::macos::memory(crate::ask::system_control);
        #[cfg(not(all(feature = "std", any(target_os = "linux", target_os = "macos"))))]
        Self::default()
    }
}
