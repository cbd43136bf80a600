//! 64-bit Arm in EL1, with tables of four levels and a GIC of version 2 or 3.
//!
//! Source: Arm Architecture Reference Manual for A-profile, DDI 0487. Addresses of the console and of memory are those of QEMU's
//! `virt` machine, because a panic wants them before the device tree was read.

mod boot;
mod cpu;
mod entry;

use core::cell::Cell;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use mielin_hal::drivers::{Conduit, GicV2, GicV3, Kernel, Pl011, Psci, Registers, Semihosting};
use mielin_hal::{InterruptController, Outcome, Shutdown};
use mielin_kernel::{Ref, Thread};

use crate::floats::Floats;
use crate::memory;

pub(crate) use self::cpu::{floats_off, floats_on, load_floats, save_floats};
pub(crate) use mielin_hal::paging::Stage1 as Mmu;

/// Where all of physical memory is mapped: the beginning of the upper half.
const PHYSICAL_MAP: u64 = 0xffff_0000_0000_0000;

/// The same, as pointers are made with it.
#[inline(always)]
pub(crate) fn physical_map() -> u64 {
    cpu::physical_map()
}

const UART: u64 = 0x0900_0000;
/// Lines from here on come from devices; those before are the processor's own.
const SHARED_FIRST: u32 = 32;

/// Either version of the interrupt controller.
enum Gic {
    V2(GicV2),
    V3(GicV3),
}

impl Gic {
    fn controller(&mut self) -> &mut dyn InterruptController {
        match self {
            Self::V2(gic) => gic,
            Self::V3(gic) => gic,
        }
    }

    fn has(&self, line: u32) -> bool {
        match self {
            Self::V2(gic) => gic.has(line),
            Self::V3(gic) => gic.has(line),
        }
    }
}

/// What this processor has in hand.
struct Cpu {
    floats: Floats,
    gic: Cell<Option<Gic>>,
}

// SAFETY: there is one processor, and the kernel is not interrupted.
unsafe impl Sync for Cpu {}

static CPU: Cpu = Cpu {
    floats: Floats::new(),
    gic: Cell::new(None),
};

/// The line of the virtual timer.
static TIMER_LINE: AtomicU32 = AtomicU32::new(u32::MAX);
/// TTBR0_EL1 when no program has the processor: a table without entries.
static NO_PROGRAM: AtomicU64 = AtomicU64::new(0);
/// Whether firmware, and not a hypervisor, answers to PSCI.
static ASK_FIRMWARE: AtomicBool = AtomicBool::new(false);
/// How many ways to end the machine were tried.
static ENDINGS: AtomicU8 = AtomicU8::new(0);

fn registers(physical: u64, bytes: usize) -> Registers {
    // SAFETY: callers name devices of the machine, which the map of all memory includes; when a panic takes one a second
    // time, the first driver is not used again.
    unsafe { Registers::new((PHYSICAL_MAP + physical) as usize, bytes) }
}

fn privilege() -> Kernel {
    // SAFETY: this is the kernel, in EL1.
    unsafe { Kernel::assume() }
}

/// The console, taken anew.
pub(crate) fn console() -> Pl011 {
    Pl011::new(registers(UART, 0x1000))
}

/// Ends the machine. A debugger, or the emulator, is told how it went; where nobody listens that is an undefined instruction,
/// which leads here again, and then the layer below switches the machine off, to which one cannot say more.
pub(crate) fn end(outcome: Outcome) -> ! {
    match ENDINGS.fetch_add(1, Ordering::Relaxed) {
        0 => Semihosting::new(privilege()).shut_down(outcome),
        1 => {
            let conduit = match ASK_FIRMWARE.load(Ordering::Relaxed) {
                true => Conduit::Smc,
                false => Conduit::Hvc,
            };
            Psci::new(privilege(), conduit).shut_down(outcome);
        }
        _ => {}
    }
    loop {
        cpu::wait_for_interrupt();
    }
}

/// Whether the machine is about to end.
fn is_ending() -> bool {
    ENDINGS.load(Ordering::Relaxed) != 0
}

#[inline(always)]
pub(crate) fn now() -> u64 {
    cpu::counter()
}

pub(crate) fn set_alarm(at: u64) {
    cpu::set_compare_value(at);
}

/// The alarm has rung: it does not ring on.
fn silence_alarm() {
    set_alarm(u64::MAX);
}

#[inline(always)]
pub(crate) fn interrupted() -> bool {
    cpu::is_interrupt_pending()
}

pub(crate) fn kernel_root() -> &'static [Cell<u64>; 512] {
    &boot::ROOT.0
}

/// Programs' roots are not the kernel's here.
pub(crate) fn order_root() {}

#[inline(always)]
pub(crate) fn load_root(value: u64) {
    match value {
        0 => leave_roots(),
        value => cpu::set_program_root(value),
    }
}

/// No program's tables are used. What is flushed after this must not be looked up in the old ones again.
#[cold]
#[inline(never)]
fn leave_roots() {
    cpu::set_program_root(NO_PROGRAM.load(Ordering::Relaxed));
    cpu::synchronise();
}

pub(crate) fn flush_page(identifier: u16, at: u64) {
    cpu::flush_page(identifier, at);
}

pub(crate) fn flush_space(identifier: u16) {
    cpu::flush_space(identifier);
}

/// Zeroes memory, by blocks where the processor does that; before anything that is written after it, such as the entry of a table
/// that leads to it.
pub(crate) fn clear(physical: u64, bytes: u64) {
    match cpu::zero_block_bytes() {
        Some(block) => {
            for at in (physical..physical + bytes).step_by(block) {
                cpu::zero_block(memory::pointer(at));
            }
        }
        None => memory::clear(physical, bytes),
    }
    cpu::order_writes();
}

pub(crate) fn publish_code(physical: u64, bytes: u64) {
    cpu::publish_code(memory::pointer::<u8>(physical).addr() as u64, bytes);
}

pub(crate) fn enable_line(line: u32, on: bool) {
    with_gic(&mut |gic| match on {
        true => gic.controller().enable(line),
        false => gic.controller().disable(line),
    });
}

pub(crate) fn has_line(line: u32) -> bool {
    let mut has = false;
    with_gic(&mut |gic| has = line >= SHARED_FIRST && gic.has(line));
    has
}

/// The line that is to be served, if one is.
fn claim_line() -> Option<u32> {
    let mut line = None;
    with_gic(&mut |gic| line = gic.controller().claim());
    line
}

/// That line was served.
fn complete_line(line: u32) {
    with_gic(&mut |gic| gic.controller().complete(line));
}

/// Does something with the interrupt controller, when there is one. Not inlined, so that taking the controller and putting it back is
/// in the kernel's text once.
#[inline(never)]
fn with_gic(work: &mut dyn FnMut(&mut Gic)) {
    if let Some(mut gic) = CPU.gic.take() {
        work(&mut gic);
        CPU.gic.set(Some(gic));
    }
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
