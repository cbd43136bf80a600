//! Pages that are still to come: a program runs, and waits where it touches one of them, until somebody puts it in
//! place (userfaultfd for missing pages; `Documentation/admin-guide/mm/userfaultfd.rst`).
//!
//! The kernel lets only accesses by the program's own code wait, and by host functions that touch its memory (the
//! descriptor is a `UFFD_USER_MODE_ONLY` one, which every user may have). A system call that is given a pointer to an
//! absent page would fail instead, so host functions touch what they hand to the kernel first.
#![allow(unsafe_code)]

use std::io::{self, PipeReader};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use mielin_safepoint::PAGE_SIZE;

use super::region::{Region, RegionOwner};
use super::userfaultfd::{self, Mapping, check};
use super::{AbsentPages, PageSet, TrackError, Watch};

// linux/userfaultfd.h
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;
const UFFDIO_COPY: libc::c_ulong = 0xc028_aa03;
const UFFDIO_ZEROPAGE: libc::c_ulong = 0xc020_aa04;
const UFFD_EVENT_PAGEFAULT: u8 = 0x12;
/// Bytes of an event, and where in them a page fault has its address.
const EVENT_BYTES: usize = 32;
const EVENT_ADDRESS: usize = 16;
/// Events taken by one system call.
const EVENTS: usize = 64;
/// Pages around a touched one that is not absent that are made zero at once.
const ZERO_RUN: u32 = 16;
/// How often a copy is tried anew while the process changes its mappings.
const RETRIES: u32 = 1000;

#[repr(C)]
struct UffdioCopy {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    copy: i64,
}

#[repr(C)]
struct UffdioZeropage {
    start: u64,
    len: u64,
    mode: u64,
    zeropage: i64,
}

/// The absent pages of one region. Closing the descriptor ends the waiting.
pub(super) struct Userfaults {
    region: Arc<Region>,
    descriptor: OwnedFd,
    absent: PageSet,
    /// Those of them that [`wanted`](AbsentPages::wanted) has named.
    named: PageSet,
}

/// Whether a program may run while pages of it are absent, on this machine.
pub(crate) fn works() -> bool {
    static WORKS: OnceLock<bool> = OnceLock::new();
    !super::mapped::is_overridden() && *WORKS.get_or_init(|| self_test().unwrap_or(false))
}

impl Userfaults {
    /// Makes `runs` (first index and length of each) of a memory absent, which nobody uses at this time. The caller has
    /// dropped what the kernel had there, and the runs are inside the memory.
    pub(super) fn new(owner: &RegionOwner, runs: &[(u32, u32)]) -> Result<Userfaults, TrackError> {
        let region = owner.region();
        let descriptor = {
            let _alive = region.hold()?;
            userfaultfd::register(
                region.base(),
                region.bytes(),
                0,
                UFFDIO_REGISTER_MODE_MISSING,
            )
            .map_err(kernel("userfaultfd"))?
        };
        let mut absent = PageSet::default();
        for (first, len) in runs {
            absent.insert_run(*first, first + len);
        }
        Ok(Userfaults {
            region,
            descriptor,
            absent,
            named: PageSet::default(),
        })
    }

    /// Has the kernel copy whole pages to where they are absent.
    fn copy(&self, first: u32, bytes: &[u8]) -> Result<(), TrackError> {
        let _alive = self.region.hold()?;
        let start = self.region.base() + u64::from(first) * PAGE_SIZE as u64;
        let mut done = 0;
        for _ in 0..RETRIES {
            let mut argument = UffdioCopy {
                dst: start + done as u64,
                src: bytes[done..].as_ptr().expose_provenance() as u64,
                len: (bytes.len() - done) as u64,
                mode: 0,
                copy: 0,
            };
            // SAFETY: the kernel reads `len` bytes that the slice has, and writes only to pages of the registered
            // range that do not exist yet, which no Rust reference can have been used to look at.
            let result = unsafe {
                libc::ioctl(
                    self.descriptor.as_raw_fd(),
                    UFFDIO_COPY as _,
                    &raw mut argument,
                )
            };
            if result == 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            done += usize::try_from(argument.copy).unwrap_or(0);
            if error.raw_os_error() != Some(libc::EAGAIN) {
                return Err(kernel("UFFDIO_COPY")(error));
            }
        }
        Err(kernel("UFFDIO_COPY")(io::ErrorKind::TimedOut.into()))
    }

    /// Makes a touched page that is not absent what it is: zero.
    fn zero(&self, index: u32) -> Result<(), TrackError> {
        let _alive = self.region.hold()?;
        let page = PAGE_SIZE as u64;
        let end = u32::try_from(self.region.bytes() / page).unwrap_or(u32::MAX);
        let run = (index..end.min(index.saturating_add(ZERO_RUN)))
            .take_while(|index| !self.absent.contains(*index))
            .count() as u64;
        // As many as there are before one that exists, and if that gives none, the one that is waited for.
        for pages in [run, 1] {
            let mut argument = UffdioZeropage {
                start: self.region.base() + u64::from(index) * page,
                len: pages * page,
                mode: 0,
                zeropage: 0,
            };
            // SAFETY: as for `copy`, with zeros.
            let result = unsafe {
                libc::ioctl(
                    self.descriptor.as_raw_fd(),
                    UFFDIO_ZEROPAGE as _,
                    &raw mut argument,
                )
            };
            if result == 0 || argument.zeropage > 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EAGAIN) => {}
                // Somebody else touched it first.
                Some(libc::EEXIST) => return self.wake(index),
                _ => return Err(kernel("UFFDIO_ZEROPAGE")(error)),
            }
        }
        // Whoever waits looks again, and the next event asks again.
        self.wake(index)
    }

    fn wake(&self, index: u32) -> Result<(), TrackError> {
        userfaultfd::wake(
            &self.descriptor,
            self.region.base() + u64::from(index) * PAGE_SIZE as u64,
            PAGE_SIZE as u64,
        )
        .map_err(kernel("UFFDIO_WAKE"))
    }
}

impl AbsentPages for Userfaults {
    fn count(&self) -> u64 {
        self.absent.len()
    }

    fn watch(&self, end: PipeReader) -> Result<Watch, TrackError> {
        let descriptor = self.descriptor.try_clone().map_err(kernel("dup"))?;
        Ok(Box::new(move || is_ready(&descriptor, &end)))
    }

    fn wanted(&mut self) -> Result<Vec<u32>, TrackError> {
        let mut wanted = Vec::new();
        let mut events = [0_u8; EVENT_BYTES * EVENTS];
        loop {
            // SAFETY: the kernel writes at most as many bytes as the buffer has.
            let read = unsafe {
                libc::read(
                    self.descriptor.as_raw_fd(),
                    events.as_mut_ptr().cast(),
                    events.len(),
                )
            };
            let Ok(read) = usize::try_from(read) else {
                let error = io::Error::last_os_error();
                return match error.kind() {
                    io::ErrorKind::WouldBlock => Ok(wanted),
                    io::ErrorKind::Interrupted => continue,
                    _ => Err(kernel("a read of userfaultfd")(error)),
                };
            };
            if read == 0 {
                return Ok(wanted);
            }
            for event in events[..read].as_chunks::<EVENT_BYTES>().0 {
                if event[0] != UFFD_EVENT_PAGEFAULT {
                    continue;
                }
                let address = event[EVENT_ADDRESS..]
                    .first_chunk()
                    .map_or(0, |bytes| u64::from_ne_bytes(*bytes));
                let Some(offset) = address.checked_sub(self.region.base()) else {
                    continue;
                };
                let index = (offset / PAGE_SIZE as u64) as u32;
                if self.absent.contains(index) {
                    self.named.insert(index);
                    wanted.push(index);
                } else {
                    self.zero(index)?;
                }
            }
        }
    }

    fn place(&mut self, first: u32, pages: &[[u8; PAGE_SIZE]]) -> Result<u64, TrackError> {
        let mut placed = 0;
        let mut done = 0;
        while done < pages.len() {
            let at = |done: usize| first.saturating_add(u32::try_from(done).unwrap_or(u32::MAX));
            let run = (done..pages.len())
                .take_while(|done| self.absent.contains(at(*done)))
                .count();
            if run == 0 {
                done += 1;
                continue;
            }
            self.copy(at(done), pages[done..done + run].as_flattened())?;
            for index in at(done)..at(done + run) {
                self.absent.remove(index);
            }
            placed += run as u64;
            done += run;
        }
        Ok(placed)
    }

    fn place_zeros(&mut self, first: u32, pages: u32) -> Result<(), TrackError> {
        // Whoever touches one of them later makes an event, which `wanted` answers.
        for index in first..first.saturating_add(pages) {
            if self.absent.remove(index) && self.named.contains(index) {
                self.zero(index)?;
            }
        }
        let _alive = self.region.hold()?;
        Ok(())
    }
}

fn kernel(call: &'static str) -> impl Fn(io::Error) -> TrackError {
    move |source| TrackError::Kernel { call, source }
}

/// Blocks until the first is readable, or the other end of the second is closed, which gives false.
fn is_ready(descriptor: &OwnedFd, end: &PipeReader) -> io::Result<bool> {
    let watched = |fd| libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    let mut both = [descriptor.as_raw_fd(), end.as_raw_fd()].map(watched);
    loop {
        // SAFETY: the kernel reads and writes two elements, which are there; both descriptors are open while borrowed.
        match check(unsafe { libc::poll(both.as_mut_ptr(), 2, -1) }) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(()) => return Ok(both[1].revents == 0),
        }
    }
}

/// Drops what the kernel has for these pages, so that they do not exist.
pub(crate) fn forget(memory: &mut [u8], runs: &[(u32, u32)]) -> io::Result<()> {
    for (first, len) in runs {
        let range = *first as usize * PAGE_SIZE..(*first as usize + *len as usize) * PAGE_SIZE;
        let pages = memory.get_mut(range).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: the range is exactly the borrowed slice, and whole pages of private anonymous memory: its bytes
        // become zeros.
        check(unsafe {
            libc::madvise(pages.as_mut_ptr().cast(), pages.len(), libc::MADV_DONTNEED)
        })?;
    }
    Ok(())
}

/// Whether a thread waits for an absent page and gets it, and one that is not absent is zero at once. Some kernels and
/// sandboxes lack this.
fn self_test() -> Result<bool, TrackError> {
    const PAGES: usize = 8;
    let memory = Mapping::new(PAGES * PAGE_SIZE).map_err(kernel("mmap"))?;
    let owner = RegionOwner::new(memory.base, memory.len as u64, memory.len as u64);
    let mut absent = Userfaults::new(&owner, &[(2, 2)])?;
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| [5, 3].map(|index| memory.get(index)));
        let mut waits = true;
        let mut result = Ok(());
        while waits && result.is_ok() {
            result = absent.wanted().map(|wanted| {
                waits = !wanted.contains(&3) && !reading.is_finished();
                std::thread::yield_now();
            });
        }
        let result = result.and_then(|()| absent.place(2, &[[1; PAGE_SIZE], [9; PAGE_SIZE]]));
        // Whatever happened, this lets the reader go on.
        let count = absent.count();
        drop(absent);
        let read = reading.join().unwrap_or([7, 7]);
        Ok(result? == 2 && count == 0 && read == [0, 9])
    })
}
