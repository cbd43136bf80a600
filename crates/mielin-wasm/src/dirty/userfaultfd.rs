//! Dirty pages by the kernel: userfaultfd in asynchronous write-protect mode notes the first write
//! to a page without stopping the writer, and one `PAGEMAP_SCAN` call reads the notes and protects
//! the pages again (Linux 6.7; `Documentation/admin-guide/mm/userfaultfd.rst` and `pagemap.rst`).
//!
//! A page that was never protected counts as written once it is there. So nothing has to be
//! protected at the start: the first scan gives every page that exists, and pages that the memory
//! grows by appear when they are first written. Pages that do not exist are never asked about,
//! because that would create them.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};

use mielin_safepoint::PAGE_SIZE;

use super::region::{Region, RegionOwner};
use super::{DirtyTracker, TrackError};
use crate::Instance;

// linux/userfaultfd.h
const UFFD_USER_MODE_ONLY: libc::c_int = 1;
const UFFD_API: u64 = 0xaa;
const UFFD_FEATURE_WP_UNPOPULATED: u64 = 1 << 13;
const UFFD_FEATURE_WP_ASYNC: u64 = 1 << 15;
const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
const UFFDIO_WAKE: libc::c_ulong = 0x8010_aa02;
const UFFDIO_REGISTER_MODE_WP: u64 = 2;

#[repr(C)]
struct UffdioRange {
    start: u64,
    len: u64,
}

#[repr(C)]
struct UffdioApi {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct UffdioRegister {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

// linux/fs.h
const PAGEMAP_SCAN: libc::c_ulong = 0xc060_6610;
const PM_SCAN_WP_MATCHING: u64 = 1;
const PM_SCAN_CHECK_WPASYNC: u64 = 2;
const PAGE_IS_WRITTEN: u64 = 1 << 1;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;
const PAGE_IS_PFNZERO: u64 = 1 << 5;

#[repr(C)]
struct PmScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

/// Runs of written pages that one scan can give; more take another scan.
const REGIONS: usize = 1024;

/// Tracks one region. Closing its descriptors ends the tracking.
pub(super) struct Userfaultfd {
    region: Arc<Region>,
    /// Keeps the registration; nothing is ever read from it.
    _registration: OwnedFd,
    pagemap: File,
    runs: Vec<PageRegion>,
}

/// A tracker, if the kernel's notes can be relied upon here.
pub(super) fn track(region: &RegionOwner) -> Option<Userfaultfd> {
    static WORKS: OnceLock<bool> = OnceLock::new();
    if !*WORKS.get_or_init(|| self_test().unwrap_or(false)) {
        return None;
    }
    Userfaultfd::new(region.region()).ok()
}

impl Userfaultfd {
    fn new(region: Arc<Region>) -> Result<Self, TrackError> {
        let _alive = region.hold()?;
        // Asynchronous write protection changes nothing that a program can see in the range's memory: a first write
        // is noted by the kernel and goes on.
        let features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED;
        let registration = register(
            region.base(),
            region.reserved_bytes(),
            features,
            UFFDIO_REGISTER_MODE_WP,
        )
        .map_err(|source| TrackError::Kernel {
            call: "userfaultfd",
            source,
        })?;
        let pagemap = File::open("/proc/self/pagemap").map_err(|source| TrackError::Kernel {
            call: "open of pagemap",
            source,
        })?;
        drop(_alive);
        let runs = vec![PageRegion::default(); REGIONS];
        Ok(Self {
            region,
            _registration: registration,
            pagemap,
            runs,
        })
    }

    fn scan(&mut self) -> Result<Vec<u32>, TrackError> {
        scan(&self.region, &self.pagemap, &mut self.runs, Look::Written)
    }
}

/// The pages of a region that exist.
pub(super) fn touched(region: &RegionOwner) -> Option<Vec<u32>> {
    let pagemap = File::open("/proc/self/pagemap").ok()?;
    let mut runs = vec![PageRegion::default(); REGIONS];
    scan(&region.region(), &pagemap, &mut runs, Look::There).ok()
}

fn scan(
    region: &Region,
    pagemap: &File,
    runs: &mut [PageRegion],
    look: Look,
) -> Result<Vec<u32>, TrackError> {
    let _alive = region.hold()?;
    let base = region.base();
    let mut found = Vec::new();
    let (mut start, end) = (base, base + region.bytes());
    while start < end {
        let (runs, walked) =
            scan_once(pagemap.as_raw_fd(), start, end, runs, look).map_err(|source| {
                TrackError::Kernel {
                    call: "PAGEMAP_SCAN",
                    source,
                }
            })?;
        for run in runs {
            let page = |address: u64| ((address - base) / PAGE_SIZE as u64) as u32;
            found.extend(page(run.start)..page(run.end));
        }
        if walked <= start {
            break;
        }
        start = walked;
    }
    Ok(found)
}

impl DirtyTracker for Userfaultfd {
    fn backend(&self) -> &'static str {
        "userfaultfd"
    }

    fn concurrent(&self) -> bool {
        true
    }

    fn harvest(&mut self, _parked: Option<&dyn Instance>) -> Result<Vec<u32>, TrackError> {
        self.scan()
    }

    fn read(
        &self,
        index: u32,
        _parked: Option<&dyn Instance>,
        out: &mut [u8; PAGE_SIZE],
    ) -> Result<(), TrackError> {
        self.region.read_pages(&[index], std::slice::from_mut(out))
    }

    fn read_many(
        &self,
        indices: &[u32],
        _parked: Option<&dyn Instance>,
        out: &mut [[u8; PAGE_SIZE]],
    ) -> Result<(), TrackError> {
        self.region.read_pages(indices, out)
    }
}

/// Registers a range, for as long as the result is open.
pub(super) fn register(start: u64, len: u64, features: u64, mode: u64) -> io::Result<OwnedFd> {
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK | UFFD_USER_MODE_ONLY;
    // SAFETY: a system call without pointers.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
    let fd = RawFd::try_from(fd)
        .ok()
        .filter(|fd| *fd >= 0)
        .ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the descriptor is new and nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut api = UffdioApi {
        api: UFFD_API,
        features,
        ioctls: 0,
    };
    // SAFETY: the kernel reads and writes exactly this structure, whose size is in the number.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), UFFDIO_API as _, &raw mut api) })?;
    let mut range = UffdioRegister {
        start,
        len,
        mode,
        ioctls: 0,
    };
    // SAFETY: as above. What registering does to accesses of the range is the caller's to say.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), UFFDIO_REGISTER as _, &raw mut range) })?;
    Ok(fd)
}

/// Lets whoever waits for pages of a range look again.
pub(super) fn wake(descriptor: &OwnedFd, start: u64, len: u64) -> io::Result<()> {
    let mut range = UffdioRange { start, len };
    // SAFETY: the kernel reads exactly this structure.
    check(unsafe { libc::ioctl(descriptor.as_raw_fd(), UFFDIO_WAKE as _, &raw mut range) })
}

/// What a scan finds.
#[derive(Clone, Copy)]
enum Look {
    /// Pages that were written since they were last found, which are protected again.
    Written,
    /// All that exist.
    There,
}

/// The runs that are found from `start` on, and where the scan ended.
fn scan_once(
    pagemap: RawFd,
    start: u64,
    end: u64,
    runs: &mut [PageRegion],
    look: Look,
) -> io::Result<(&[PageRegion], u64)> {
    let (flags, which) = match look {
        Look::Written => (PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC, PAGE_IS_WRITTEN),
        Look::There => (0, 0),
    };
    let mut argument = PmScanArg {
        size: size_of::<PmScanArg>() as u64,
        flags,
        start,
        end,
        walk_end: 0,
        vec: runs.as_mut_ptr().expose_provenance() as u64,
        vec_len: runs.len() as u64,
        max_pages: 0,
        // A page that was only read is the kernel's shared page of zeros, and not written.
        category_inverted: PAGE_IS_PFNZERO,
        category_mask: which | PAGE_IS_PFNZERO,
        // Without this the kernel also gives, and creates, pages that nobody has touched.
        category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
        return_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
    };
    // SAFETY: the kernel reads and writes this structure, whose size it is told, and writes at most
    // `vec_len` elements to `vec`, which `runs` holds.
    let count = unsafe { libc::ioctl(pagemap, PAGEMAP_SCAN as _, &raw mut argument) };
    check(count)?;
    let count = usize::try_from(count).unwrap_or(0).min(runs.len());
    Ok((&runs[..count], argument.walk_end))
}

pub(super) fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Whether a write is seen and a read is not, a second look sees nothing, another write is seen again, and the kernel
/// copies the right bytes. Some kernels and sandboxes accept every call and note nothing.
fn self_test() -> Result<bool, TrackError> {
    const PAGES: usize = 32;
    let memory = Mapping::new(PAGES * PAGE_SIZE).map_err(|source| TrackError::Kernel {
        call: "mmap",
        source,
    })?;
    let owner = RegionOwner::new(memory.base, memory.len as u64, memory.len as u64);
    let mut tracker = Userfaultfd::new(owner.region())?;
    memory.write(3, 1);
    memory.write(20, 2);
    let unwritten = memory.get(9);
    let first = tracker.scan()?;
    let second = tracker.scan()?;
    memory.write(20, 7);
    let third = tracker.scan()?;
    let mut page = [0; PAGE_SIZE];
    tracker.read(20, None, &mut page)?;
    Ok(unwritten == 0
        && first == [3, 20]
        && second.is_empty()
        && third == [20]
        && page == [7; PAGE_SIZE])
}

/// Anonymous memory for the self-test.
pub(super) struct Mapping {
    pub(super) base: NonNull<u8>,
    pub(super) len: usize,
}

// SAFETY: whoever shares one only reads from it.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(super) fn new(len: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping, wherever the kernel likes.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, len })
    }

    /// Fills a page.
    fn write(&self, index: usize, byte: u8) {
        assert!((index + 1) * PAGE_SIZE <= self.len, "the page is inside");
        // SAFETY: inside the mapping, as was checked; nothing else has a reference into it.
        unsafe {
            self.base
                .add(index * PAGE_SIZE)
                .write_bytes(byte, PAGE_SIZE)
        };
    }

    /// Reads a page.
    pub(super) fn get(&self, index: usize) -> u8 {
        assert!((index + 1) * PAGE_SIZE <= self.len, "the page is inside");
        // SAFETY: inside the mapping, as was checked; nobody writes meanwhile but the kernel, to a page that does not
        // exist before.
        unsafe { self.base.add(index * PAGE_SIZE).read_volatile() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped, and nobody uses it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
