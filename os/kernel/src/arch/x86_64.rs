//! x86-64 in long mode, on PCs whose firmware leaves ACPI tables.
//!
//! Source: Intel 64 and IA-32 Architectures Software Developer's Manual ("SDM"), volume 3A. Ports of the console and the debug
//! exit are those of QEMU's `q35` as `cargo xtask os` starts it.

mod boot;
mod cpu;
mod descriptors;
mod entry;
mod floats;
mod interrupts;
mod machine;

use core::cell::Cell;

use mielin_hal::drivers::{DebugExit, Kernel, Ns16550, Ports};
use mielin_hal::paging::PageTables;
use mielin_hal::{Outcome, Shutdown};
use mielin_kernel::{Page, Ref, Thread};

use floats::Unit;
use interrupts::Interrupts;

use crate::memory;

pub(crate) use crate::memory::clear;
pub(crate) use mielin_hal::paging::FourLevel as Mmu;

/// Where all of physical memory is mapped: the beginning of the upper half.
const PHYSICAL_MAP: u64 = Mmu::KERNEL_BEGIN;

/// The same, as pointers are made with it.
#[inline(always)]
pub(crate) fn physical_map() -> u64 {
    PHYSICAL_MAP
}

const COM1: u16 = 0x3f8;
const COM1_PORTS: u16 = 8;
const EXIT: u16 = 0xf4;

/// How the processor tells address spaces apart.
#[derive(Clone, Copy)]
enum Identifiers {
    /// It does not: loading a root forgets all.
    None,
    /// It does, and can forget one of them only when it is used.
    Own,
    /// It does, and forgets any (INVPCID).
    Any,
}

/// What this processor has in hand.
struct Cpu {
    unit: Unit,
    interrupts: Interrupts,
    identifiers: Cell<Identifiers>,
    /// What of a root's value the processor takes, and what is added to it.
    root_mask: Cell<u64>,
    root_added: Cell<u64>,
    /// The value of CR3 for the kernel's own map.
    kernel_root: Cell<u64>,
}

// SAFETY: there is one processor, and the kernel is not interrupted.
unsafe impl Sync for Cpu {}

static CPU: Cpu = Cpu {
    unit: Unit::new(),
    interrupts: Interrupts::new(),
    identifiers: Cell::new(Identifiers::None),
    root_mask: Cell::new(0),
    root_added: Cell::new(0),
    kernel_root: Cell::new(0),
};

/// Bits of CR3 that are an address space's identifier.
const IDENTIFIER: u64 = 0xfff;

fn kernel() -> Kernel {
    // SAFETY: this is ring 0, which programs never are, and there is no other kernel.
    unsafe { Kernel::assume() }
}

/// Ports of a device.
///
/// # Safety
/// As for [`Ports::new`].
unsafe fn ports(first: u16, count: u16) -> Ports {
    // SAFETY: by the caller's promise.
    unsafe { Ports::new(kernel(), first, count) }
}

/// The console, taken anew.
pub(crate) fn console() -> Ns16550<Ports> {
    // SAFETY: COM1's ports on every PC. The kernel speaks only when it ends: what a program did with them counts no more, and when
    // a panic takes them a second time, the first driver is not used again.
    Ns16550::new(unsafe { ports(COM1, COM1_PORTS) })
}

/// Ends the machine.
pub(crate) fn end(outcome: Outcome) -> ! {
    // SAFETY: the device is at the port that QEMU was told, or nothing is there.
    DebugExit::new(unsafe { ports(EXIT, 1) }).shut_down(outcome);
    cpu::stop()
}

#[inline(always)]
pub(crate) fn now() -> u64 {
    cpu::time()
}

pub(crate) fn set_alarm(at: u64) {
    CPU.interrupts.set_alarm(at);
}

pub(crate) fn interrupted() -> bool {
    CPU.interrupts.has_request()
}

pub(crate) fn kernel_root() -> &'static Page {
    let at = CPU.kernel_root.get() & !IDENTIFIER;
    // SAFETY: the page is the kernel's own for ever, and all of it are cells.
    unsafe { &*memory::pointer::<Page>(at) }
}

/// Writes are seen in their order here.
pub(crate) fn order_root() {}

#[inline(always)]
pub(crate) fn load_root(value: u64) {
    let value = match value {
        0 => CPU.kernel_root.get(),
        value => value & CPU.root_mask.get(),
    };
    cpu::set_cr3(value | CPU.root_added.get());
}

pub(crate) fn flush_page(identifier: u16, at: u64) {
    match CPU.identifiers.get() {
        Identifiers::None => cpu::invalidate_page(at),
        Identifiers::Own if cpu::cr3() & IDENTIFIER == identifier.into() => {
            cpu::invalidate_page(at);
        }
        Identifiers::Own => flush_space(identifier),
        // SAFETY: the processor has the instruction, identifiers are below 4,096, and a program's addresses are canonical.
        Identifiers::Any => unsafe { cpu::invalidate(0, identifier, at) },
    }
}

pub(crate) fn flush_space(identifier: u16) {
    match CPU.identifiers.get() {
        // What is used may be it.
        Identifiers::None => cpu::set_cr3(cpu::cr3()),
        Identifiers::Own => {
            // Used without what keeps translations, and left at once.
            let used = cpu::cr3();
            cpu::set_cr3(CPU.kernel_root.get() | u64::from(identifier));
            cpu::set_cr3(used | Mmu::KEEP_TRANSLATIONS);
        }
        // SAFETY: as in `flush_page`.
        Identifiers::Any => unsafe { cpu::invalidate(1, identifier, 0) },
    }
}

/// The processor sees what was written.
pub(crate) fn publish_code(_: u64, _: u64) {}

pub(crate) fn enable_line(line: u32, on: bool) {
    CPU.interrupts.enable(line, on);
}

pub(crate) fn has_line(line: u32) -> bool {
    CPU.interrupts.has(line)
}

pub(crate) fn port(port: u16, width: u8, write: Option<u32>) -> Option<u32> {
    Some(cpu::port(port, width, write))
}

pub(crate) fn begin_thread(thread: Ref<Thread>) {
    entry::begin_thread(thread);
    floats::begin_thread(thread);
}

pub(crate) fn forget(thread: Ref<Thread>) {
    CPU.unit.forget(thread);
}
