//! Registers of floating-point numbers and vectors: x87, SSE and AVX.
//!
//! They are saved and cleared as soon as another thread runs, not when it first uses them: processors have read them ahead of the
//! check (CVE-2018-3665). Threads that do not use them fault on them (CR0.TS), and find nothing in them.

use core::arch::asm;
use core::cell::Cell;

use mielin_hal::x86::Supervisor;
use mielin_kernel::{FLOATS_AT, FLOATS_BYTES, Ref, Thread};

use super::cpu::{self, CR0_TS};
use crate::memory;

const X87_SSE: u64 = 0b011;
const AVX: u64 = 0b100;

/// What XSAVE leaves of a thread's bytes for [`SAVED_AT`] and for the entry.
const AREA_BYTES: u32 = FLOATS_BYTES as u32 - 16;
/// Where the header of an area is, and how many bytes it has.
const HEADER: (usize, usize) = (512, 64);
/// A word behind the area: 1 if there is something in it.
const SAVED_AT: u64 = FLOATS_AT + FLOATS_BYTES - 8;

// Threads begin 256 bytes behind a multiple of 2,048.
const _: () = assert!((256 + FLOATS_AT) % 64 == 0);

/// The unit of this processor.
pub(super) struct Unit {
    /// Whose registers are in it.
    owner: Cell<Option<Ref<Thread>>>,
    /// XCR0; 0 on processors without XSAVE.
    states: Cell<u64>,
}

/// As after FNINIT, and with MXCSR as after a reset. In the form of FXSAVE and XSAVE.
#[repr(C, align(64))]
struct Area([u8; FLOATS_BYTES as usize]);

static FRESH: Area = {
    let mut bytes = [0; FLOATS_BYTES as usize];
    [bytes[0], bytes[1]] = 0x037f_u16.to_le_bytes();
    [bytes[24], bytes[25]] = 0x1f80_u16.to_le_bytes();
    Area(bytes)
};

impl Unit {
    pub(super) const fn new() -> Self {
        Self {
            owner: Cell::new(None),
            states: Cell::new(0),
        }
    }

    /// Takes the unit, which CR4 says is used. Nobody has it.
    pub(super) fn begin(&self, processor: &Supervisor) {
        if let Some(xsave) = &processor.xsave {
            let all = xsave.states & (X87_SSE | AVX);
            let states = match xsave.bytes_here(all) <= AREA_BYTES {
                true => all,
                false => X87_SSE,
            };
            // SAFETY: the processor has XSAVE, which CR4 has switched on, and these states.
            unsafe { cpu::set_xcr0(states) };
            self.states.set(states);
        }
        self.load((&raw const FRESH).cast());
        off();
    }

    /// Gives the unit to a thread that is to run, or takes it from whoever had it.
    #[inline(always)]
    pub(super) fn arrange(&self, thread: Ref<Thread>) {
        let object: &Thread = memory::object(thread);
        if object.uses_floats() || self.owner.get().is_some() {
            self.exchange(thread, object.uses_floats());
        }
    }

    #[cold]
    fn exchange(&self, thread: Ref<Thread>, uses: bool) {
        let owner = self.owner.get();
        if uses && owner == Some(thread) {
            return;
        }
        match owner {
            Some(owner) => {
                self.save(area(owner));
                saved(owner).set(1);
            }
            None => on(),
        }
        if uses {
            self.owner.set(Some(thread));
            match saved(thread).get() {
                0 => self.load((&raw const FRESH).cast()),
                _ => self.load(area(thread)),
            }
        } else {
            self.clear();
        }
    }

    /// A thread is no more.
    pub(super) fn forget(&self, thread: Ref<Thread>) {
        if self.owner.get() == Some(thread) {
            self.clear();
        }
    }

    /// Nobody has the unit, which is on.
    fn clear(&self) {
        self.owner.set(None);
        self.load((&raw const FRESH).cast());
        off();
    }

    fn save(&self, to: *mut u8) {
        // SAFETY: the area is a thread's, of which programs see nothing, and begins at a multiple of 64; the states in XCR0 fit. The unit
        // is on. Without XSAVE, FXSAVE has the same form.
        unsafe {
            match self.states.get() {
                0 => asm!("fxsave64 [{}]", in(reg) to, options(nostack, preserves_flags)),
                states => asm!(
                    "xsave64 [{}]",
                    in(reg) to,
                    in("eax") states as u32,
                    in("edx") 0,
                    options(nostack, preserves_flags),
                ),
            }
        }
    }

    fn load(&self, from: *const u8) {
        // SAFETY: as for `save`; the area is `FRESH`, or was written by `save`. The kernel itself uses none of the registers.
        unsafe {
            match self.states.get() {
                0 => asm!("fxrstor64 [{}]", in(reg) from, options(nostack, preserves_flags)),
                states => asm!(
                    "xrstor64 [{}]",
                    in(reg) from,
                    in("eax") states as u32,
                    in("edx") 0,
                    options(nostack, preserves_flags),
                ),
            }
        }
    }
}

/// A new thread has nothing in its area, and zeros where XSAVE leaves what is there and XRSTOR wants zeros (SDM, volume 1, "Operation
/// of XSAVE").
pub(super) fn begin_thread(thread: Ref<Thread>) {
    saved(thread).set(0);
    let (at, bytes) = HEADER;
    // SAFETY: the header is within the thread's area, in which nothing is yet.
    unsafe { area(thread).add(at).write_bytes(0, bytes) };
}

fn area(thread: Ref<Thread>) -> *mut u8 {
    memory::pointer(thread.address() + FLOATS_AT)
}

fn saved(thread: Ref<Thread>) -> &'static Cell<u64> {
    // SAFETY: the word is in what a thread's memory has for the port, behind the area, and no Rust object is there.
    unsafe { &*memory::pointer::<Cell<u64>>(thread.address() + SAVED_AT) }
}

fn on() {
    // SAFETY: the bit only decides whether using the unit faults.
    unsafe { asm!("clts", options(nostack, preserves_flags)) }
}

fn off() {
    // SAFETY: as for `on`.
    unsafe { cpu::set_cr0(cpu::cr0() | CR0_TS) }
}
