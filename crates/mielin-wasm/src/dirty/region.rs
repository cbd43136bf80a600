//! Where a program's memory lies, for those who look at it while the program runs.
//!
//! A tracker must neither keep an instance alive nor read the bytes of whoever gets its addresses
//! next. So both share a [`Region`]: its owner declares it gone, under a lock, before the memory is
//! unmapped, and every access happens under that lock.
#![allow(unsafe_code)]

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use mielin_safepoint::PAGE_SIZE;

use super::TrackError;

/// The most pages that one system call copies: `IOV_MAX` on Linux.
const VECTORS_MAX: usize = 1024;

/// Kept by the instance; its drop cuts the trackers off.
pub(crate) struct RegionOwner {
    region: Arc<Region>,
}

/// The address range of a program's memory, which stays in place while it lives.
pub(crate) struct Region {
    base: u64,
    /// What is reserved for it: it never becomes larger.
    reserved_bytes: u64,
    size: RegionSize,
    alive: RwLock<bool>,
}

/// How large the memory is at most by now. Raised before the memory grows, so a tracker that reads
/// it misses nothing; what it sees beyond the end is empty.
#[derive(Clone)]
pub(crate) struct RegionSize {
    bytes: Arc<AtomicU64>,
}

impl RegionSize {
    pub(crate) fn grow_to(&self, bytes: u64) {
        self.bytes.fetch_max(bytes, Ordering::AcqRel);
    }
}

impl RegionOwner {
    /// A memory of `bytes` bytes at `base` that may become up to `reserved_bytes` large there.
    pub(crate) fn new(base: NonNull<u8>, bytes: u64, reserved_bytes: u64) -> Self {
        let size = RegionSize {
            bytes: Arc::new(AtomicU64::new(bytes)),
        };
        let base = base.as_ptr().addr() as u64;
        let reserved_bytes = reserved_bytes.next_multiple_of(PAGE_SIZE as u64);
        let alive = RwLock::new(true);
        Self {
            region: Arc::new(Region {
                base,
                reserved_bytes,
                size,
                alive,
            }),
        }
    }

    pub(crate) fn size(&self) -> RegionSize {
        self.region.size.clone()
    }

    /// Whether somebody else looks at the memory, or places pages in it.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.region) > 1
    }

    pub(super) fn region(&self) -> Arc<Region> {
        Arc::clone(&self.region)
    }
}

impl Drop for RegionOwner {
    fn drop(&mut self) {
        *self
            .region
            .alive
            .write()
            .unwrap_or_else(PoisonError::into_inner) = false;
    }
}

impl Region {
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    pub(super) fn reserved_bytes(&self) -> u64 {
        self.reserved_bytes
    }

    pub(super) fn bytes(&self) -> u64 {
        self.size
            .bytes
            .load(Ordering::Acquire)
            .min(self.reserved_bytes)
    }

    /// Keeps the memory from being unmapped while the result is held.
    pub(super) fn hold(&self) -> Result<RwLockReadGuard<'_, bool>, TrackError> {
        let alive = self.alive.read().unwrap_or_else(PoisonError::into_inner);
        if *alive {
            Ok(alive)
        } else {
            Err(TrackError::Gone)
        }
    }

    /// Copies pages into `out`, one after the other; zeros for what is beyond the end.
    ///
    /// The kernel copies, not this code: the program may be writing at the same time, and a Rust
    /// read would then be a data race.
    pub(super) fn read_pages(
        &self,
        indices: &[u32],
        out: &mut [[u8; PAGE_SIZE]],
    ) -> Result<(), TrackError> {
        let _alive = self.hold()?;
        assert_eq!(out.len(), indices.len(), "one page of room for each index");
        let end = self.bytes();
        for (indices, pages) in indices.chunks(VECTORS_MAX).zip(out.chunks_mut(VECTORS_MAX)) {
            let mut local = Vec::with_capacity(indices.len());
            let mut remote = Vec::with_capacity(indices.len());
            for (index, page) in indices.iter().zip(pages) {
                let offset = u64::from(*index) * PAGE_SIZE as u64;
                if offset + PAGE_SIZE as u64 > end {
                    page.fill(0);
                    continue;
                }
                local.push(vector(page.as_mut_ptr().cast()));
                remote.push(vector((self.base + offset) as *mut libc::c_void));
            }
            copy(&local, &remote)?;
        }
        Ok(())
    }
}

fn vector(base: *mut libc::c_void) -> libc::iovec {
    libc::iovec {
        iov_base: base,
        iov_len: PAGE_SIZE,
    }
}

#[cfg(target_os = "linux")]
fn copy(local: &[libc::iovec], remote: &[libc::iovec]) -> Result<(), TrackError> {
    let count = local.len() as libc::c_ulong;
    if count == 0 {
        return Ok(());
    }
    // SAFETY: the local vectors are distinct pages of a buffer that the caller borrows mutably; the
    // remote ones are only read, by the kernel, which gives an error where nothing is mapped.
    let copied = unsafe {
        let own = libc::getpid();
        libc::process_vm_readv(own, local.as_ptr(), count, remote.as_ptr(), count, 0)
    };
    match usize::try_from(copied) {
        Ok(copied) if copied == local.len() * PAGE_SIZE => Ok(()),
        Ok(_) => Err(kernel(io::Error::from(io::ErrorKind::UnexpectedEof))),
        Err(_) => Err(kernel(io::Error::last_os_error())),
    }
}

#[cfg(not(target_os = "linux"))]
fn copy(_local: &[libc::iovec], _remote: &[libc::iovec]) -> Result<(), TrackError> {
    Err(kernel(io::Error::from(io::ErrorKind::Unsupported)))
}

fn kernel(source: io::Error) -> TrackError {
    TrackError::Kernel {
        call: "process_vm_readv",
        source,
    }
}
