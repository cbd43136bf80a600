//! RISC-V with 64 bits, in supervisor mode over SBI firmware, with Sv39.
//!
//! Source: The RISC-V Instruction Set Manual, volume II, "Supervisor-Level ISA". Addresses of the console and the finisher are those of
//! QEMU's `virt` machine, because a panic wants them before the device tree was read.

mod boot;
mod cpu;
mod entry;

use core::cell::Cell;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mielin_hal::drivers::{Ns16550, Plic, Registers, SifiveTest};
use mielin_hal::{InterruptController, Outcome, Shutdown};
use mielin_kernel::{Ref, Thread};

use crate::floats::Floats;

pub(crate) use self::cpu::{floats_off, floats_on, load_floats, save_floats};
pub(crate) use crate::memory::clear;
pub(crate) use mielin_hal::paging::Sv39 as Mmu;

/// Where all of physical memory is mapped: the beginning of the upper half.
const PHYSICAL_MAP: u64 = 0xffff_ffc0_0000_0000;

/// The same, as pointers are made with it.
#[inline(always)]
pub(crate) fn physical_map() -> u64 {
    PHYSICAL_MAP
}

const UART: u64 = 0x1000_0000;
const FINISHER: u64 = 0x10_0000;

/// What this processor has in hand.
struct Cpu {
    floats: Floats,
    plic: Cell<Option<Plic>>,
}

// SAFETY: there is one processor, and the kernel is not interrupted.
unsafe impl Sync for Cpu {}

static CPU: Cpu = Cpu {
    floats: Floats::new(),
    plic: Cell::new(None),
};

/// Whether the processor has Sstc.
static OWN_ALARM: AtomicBool = AtomicBool::new(false);
/// The value of `satp` for the kernel's own map.
static KERNEL_SATP: AtomicU64 = AtomicU64::new(0);

fn registers(physical: u64, bytes: usize) -> Registers {
    // SAFETY: callers name devices of the machine, which the map of all memory includes; when a panic takes one a second
    // time, the first driver is not used again.
    unsafe { Registers::new((PHYSICAL_MAP + physical) as usize, bytes) }
}

/// The console, taken anew.
pub(crate) fn console() -> Ns16550<Registers> {
    Ns16550::new(registers(UART, 0x100))
}

/// Ends the machine.
pub(crate) fn end(outcome: Outcome) -> ! {
    SifiveTest::new(registers(FINISHER, 0x1000)).shut_down(outcome);
    loop {
        cpu::wait_for_interrupt();
    }
}

#[inline(always)]
pub(crate) fn now() -> u64 {
    cpu::time()
}

pub(crate) fn set_alarm(at: u64) {
    match OWN_ALARM.load(Ordering::Relaxed) {
        true => cpu::set_time_compare(at),
        false => cpu::sbi_set_timer(at),
    }
}

/// The alarm has rung: it does not ring on.
fn silence_alarm() {
    set_alarm(u64::MAX);
}

#[inline(always)]
pub(crate) fn interrupted() -> bool {
    cpu::pending_interrupts() != 0
}

pub(crate) fn kernel_root() -> &'static [Cell<u64>; 512] {
    &boot::ROOT.0
}

/// What was written into a new root is seen before the root is used: the kernel itself lives by it.
pub(crate) fn order_root() {
    cpu::flush_all();
}

#[inline(always)]
pub(crate) fn load_root(value: u64) {
    match value {
        0 => cpu::set_satp(KERNEL_SATP.load(Ordering::Relaxed)),
        value => cpu::set_satp(value),
    }
}

pub(crate) fn flush_page(identifier: u16, at: u64) {
    cpu::flush_page(identifier, at);
}

pub(crate) fn flush_space(identifier: u16) {
    cpu::flush_space(identifier);
}

pub(crate) fn publish_code(_: u64, _: u64) {
    cpu::fence_instructions();
}

pub(crate) fn enable_line(line: u32, on: bool) {
    with_plic(|plic| match on {
        true => plic.enable(line),
        false => plic.disable(line),
    });
}

pub(crate) fn has_line(line: u32) -> bool {
    with_plic(|plic| plic.has(line)).unwrap_or(false)
}

fn with_plic<R>(work: impl FnOnce(&mut Plic) -> R) -> Option<R> {
    let mut plic = CPU.plic.take()?;
    let result = work(&mut plic);
    CPU.plic.set(Some(plic));
    Some(result)
}

pub(crate) fn port(_: u16, _: u8, _: Option<u32>) -> Option<u32> {
    None
}

pub(crate) fn begin_thread(thread: Ref<Thread>) {
    Floats::begin_thread(thread);
}

pub(crate) fn forget(thread: Ref<Thread>) {
    CPU.floats.forget(thread);
}
