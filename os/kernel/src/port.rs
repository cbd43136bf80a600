//! The machine, as the core sees it, and the one kernel there is.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, Ordering};

use mielin_hal::Outcome;
use mielin_hal::paging::PageTables;
use mielin_kernel::{Kernel, Machine, Object, Page, Ref, Thread};

use crate::arch;
use crate::memory;

/// This machine.
pub(crate) struct Port;

impl Machine for Port {
    type Mmu = arch::Mmu;

    #[inline(always)]
    fn object<T: Object>(&self, at: Ref<T>) -> &T {
        memory::object(at)
    }

    #[inline(always)]
    fn place<T: Object>(&self, at: Ref<T>) {
        memory::place(at);
    }

    #[inline(always)]
    fn remove<T: Object>(&self, _: Ref<T>) {}

    fn clear(&self, address: u64, bytes: u64) {
        arch::clear(address, bytes);
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        arch::now()
    }

    fn set_alarm(&self, at: u64) {
        arch::set_alarm(at);
    }

    #[inline(always)]
    fn interrupted(&self) -> bool {
        arch::interrupted()
    }

    fn begin_root(&self, root: Ref<Page>) {
        if !arch::Mmu::KERNEL_IN_EVERY_ROOT {
            return;
        }
        let half = mielin_hal::paging::ENTRIES / 2;
        let kernels = arch::kernel_root();
        for (entry, kernels) in memory::object(root)[half..].iter().zip(&kernels[half..]) {
            entry.set(kernels.get());
        }
        arch::order_root();
    }

    #[inline(always)]
    fn load_root(&self, value: u64) {
        arch::load_root(value);
    }

    fn flush_page(&self, identifier: u16, at: u64) {
        arch::flush_page(identifier, at);
    }

    fn flush_space(&self, identifier: u16) {
        arch::flush_space(identifier);
    }

    fn publish_code(&self, address: u64, bytes: u64) {
        arch::publish_code(address, bytes);
    }

    fn enable_line(&self, line: u32, on: bool) {
        arch::enable_line(line, on);
    }

    fn has_line(&self, line: u32) -> bool {
        arch::has_line(line)
    }

    fn port(&self, port: u16, width: u8, write: Option<u32>) -> Option<u32> {
        arch::port(port, width, write)
    }

    fn shut_down(&self, success: bool) {
        arch::end(match success {
            true => Outcome::Success,
            false => Outcome::Failure,
        });
    }

    fn begin_thread(&self, thread: Ref<Thread>) {
        arch::begin_thread(thread);
    }

    fn forget(&self, thread: Ref<Thread>) {
        arch::forget(thread);
    }
}

/// The place of the kernel.
struct Place(UnsafeCell<MaybeUninit<Kernel<Port>>>);

// SAFETY: there is one processor, and the kernel is not interrupted: nobody else is ever here.
unsafe impl Sync for Place {}

static KERNEL: Place = Place(UnsafeCell::new(MaybeUninit::uninit()));
static BEGUN: AtomicBool = AtomicBool::new(false);

/// Puts the kernel in its place.
///
/// # Safety
/// Called once, before anything else here.
pub(crate) unsafe fn begin(kernel: Kernel<Port>) -> &'static Kernel<Port> {
    // SAFETY: by the caller's promise nobody has a reference to it.
    unsafe { (*KERNEL.0.get()).write(kernel) };
    BEGUN.store(true, Ordering::Relaxed);
    self::kernel()
}

/// The kernel. It is there when programs run.
#[inline(always)]
pub(crate) fn kernel() -> &'static Kernel<Port> {
    // SAFETY: whoever calls comes from a program, which `begin` was before, or has just called `begin`.
    unsafe { (*KERNEL.0.get()).assume_init_ref() }
}

/// The kernel, if it is there.
pub(crate) fn kernel_if_begun() -> Option<&'static Kernel<Port>> {
    BEGUN.load(Ordering::Relaxed).then(kernel)
}
