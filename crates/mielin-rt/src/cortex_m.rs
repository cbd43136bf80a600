//! The processor: SysTick as the clock, WFI and WFE, sleep and deep sleep.
//!
//! Sources: Armv6-M (B3.2, B3.3), Armv7-M (B1.5, B3.2, B3.3) and Armv8-M Architecture Reference Manuals: system control and SysTick.
//!
//! A firmware makes a [`CortexM`] and calls [`tick`] in its handler of SysTick:
//!
//! ```text
//! #[exception]
//! fn SysTick() {
//!     mielin_rt::cortex_m::tick();
//! }
//! ```
#![allow(unsafe_code)]

use core::arch::asm;
use core::cell::RefCell;

use critical_section::Mutex;
use mielin_hal::cortex_m::IdRegisters;
use mielin_hal::drivers::{Kernel, SysTick};
use mielin_hal::{SleepClock, Timer};

use crate::crash::Registers;
use crate::power::{PowerMode, PowerModes};
use crate::runtime::Machine;

/// SysTick is one, and its handler has to reach it.
static CLOCK: Mutex<RefCell<Option<SysTick>>> = Mutex::new(RefCell::new(None));

/// SCR: a handler that returns to the thread goes to sleep instead.
const SLEEP_ON_EXIT: u32 = 1 << 1;
/// SCR: WFI and WFE stop the clocks, too.
const SLEEP_DEEP: u32 = 1 << 2;

/// Where it is, and what in it says what the processor is and why it faulted.
const SYSTEM_CONTROL_BLOCK: usize = 0xe000_ed00;
const CPUID: usize = 0x00;
const SCR: usize = 0x10;
const CFSR: usize = 0x28;
const HFSR: usize = 0x2c;
const MMFAR: usize = 0x34;
const BFAR: usize = 0x38;
/// CFSR: MMFAR, BFAR have the address.
const MMFAR_VALID: u32 = 1 << 7;
const BFAR_VALID: u32 = 1 << 15;

/// A Cortex-M as a [`Machine`], with the timer that keeps the time in deep sleep, if the board has one.
#[derive(Debug)]
pub struct CortexM<C> {
    clock_hz: u32,
    modes: PowerModes,
    sleep_clock: Option<C>,
}

/// There is no second one: SysTick is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InUse;

impl<C: SleepClock> CortexM<C> {
    /// Starts SysTick. `clock_hz` is the rate of the processor's clock, which is also that of all ticks here. Without a `sleep_clock`, or where `modes` has
    /// none, there is no deep sleep.
    ///
    /// # Errors
    /// [`InUse`] the second time.
    pub fn new(
        kernel: Kernel,
        clock_hz: u32,
        modes: PowerModes,
        sleep_clock: Option<C>,
    ) -> Result<Self, InUse> {
        let modes = PowerModes {
            deep_sleep: modes.deep_sleep.filter(|_| sleep_clock.is_some()),
            ..modes
        };
        critical_section::with(|section| {
            let mut clock = CLOCK.borrow_ref_mut(section);
            if clock.is_some() {
                return Err(InUse);
            }
            let mut systick = SysTick::new(kernel, clock_hz.into());
            // The end of each period is an interrupt, so that none is missed.
            systick.set_alarm(u64::MAX);
            *clock = Some(systick);
            Ok(())
        })?;
        Ok(Self {
            clock_hz,
            modes,
            sleep_clock,
        })
    }

    /// Ticks in a second.
    #[must_use]
    pub fn clock_hz(&self) -> u32 {
        self.clock_hz
    }

    /// Ticks that so many milliseconds take.
    #[must_use]
    pub fn ticks_of_ms(&self, ms: u32) -> u64 {
        u64::from(ms) * u64::from(self.clock_hz) / 1000
    }

    fn sleep(until: Option<u64>) {
        with_clock(|clock| clock.set_alarm(until.unwrap_or(u64::MAX)));
        wait_for_interrupt();
    }

    fn sleep_deeply(&mut self, until: Option<u64>) {
        let Some(sleep_clock) = &mut self.sleep_clock else {
            return Self::sleep(until);
        };
        let (hz, sleep_hz) = (
            u64::from(self.clock_hz.max(1)),
            u64::from(sleep_clock.frequency_hz().max(1)),
        );
        let wait = until.map_or(u64::MAX, |until| {
            until.saturating_sub(with_clock(|clock| clock.now()))
        });
        // At most two days at 32 kHz, and what is waited for is looked at again then. Rounded down: it is woken too early rather than too late.
        let wait = convert(wait.min(u64::from(u32::MAX) * hz / sleep_hz), hz, sleep_hz);
        let wait = u32::try_from(wait).unwrap_or(u32::MAX);

        // The clocks hand over to each other with nothing in between, so that hardly any time is lost.
        with_clock(SysTick::stop);
        sleep_clock.begin(wait);
        let control = system_control(SLEEP_DEEP, SLEEP_DEEP);
        wait_for_interrupt();
        let passed = sleep_clock.end();
        with_clock(SysTick::resume);
        system_control(SLEEP_DEEP, control);
        with_clock(|clock| clock.advance(convert(passed.into(), sleep_hz, hz)));
    }
}

/// Ticks of one clock in those of another, rounded down.
fn convert(ticks: u64, from_hz: u64, to_hz: u64) -> u64 {
    let (seconds, rest) = (ticks / from_hz, ticks % from_hz);
    seconds
        .saturating_mul(to_hz)
        .saturating_add(rest * to_hz / from_hz)
}

impl<C: SleepClock> Machine for CortexM<C> {
    fn now(&mut self) -> u64 {
        with_clock(|clock| clock.now())
    }

    fn modes(&self) -> &PowerModes {
        &self.modes
    }

    fn rest(&mut self, mode: PowerMode, until: Option<u64>) {
        match mode {
            PowerMode::Run => {}
            PowerMode::Sleep => Self::sleep(until),
            PowerMode::DeepSleep => self.sleep_deeply(until),
        }
    }
}

fn with_clock<T: Default>(f: impl FnOnce(&mut SysTick) -> T) -> T {
    critical_section::with(|section| CLOCK.borrow_ref_mut(section).as_mut().map(f))
        .unwrap_or_default()
}

/// What the handler of SysTick has to call: keeps count of its periods.
pub fn tick() {
    with_clock(|clock| clock.now());
}

/// The time in ticks, for handlers and for others that have no [`CortexM`] at hand; 0 before there is one.
#[must_use]
pub fn now() -> u64 {
    with_clock(|clock| clock.now())
}

/// Has SysTick interrupt at `at`, and call whatever calls [`tick`], though the processor does not rest. It interrupts earlier when something else sets an
/// alarm, as each rest does, and may come once more later: whoever sets an alarm looks at the time when it comes.
pub fn alarm(at: u64) {
    with_clock(|clock| clock.set_alarm(at));
}

/// WFI: stops until an interrupt is pending, also a masked one.
pub fn wait_for_interrupt() {
    // SAFETY: the instruction waits and changes nothing but by the handlers that come meanwhile, for which memory counts as changed.
    unsafe { asm!("dsb", "wfi", "isb", options(nostack, preserves_flags)) }
}

/// WFE: stops until an event has happened since the last one: an interrupt, [`send_event`], a debugger's request. The processor remembers one event, so
/// that what came just before is not slept through, with interrupts masked or not.
pub fn wait_for_event() {
    // SAFETY: as in `wait_for_interrupt`.
    unsafe { asm!("dsb", "wfe", options(nostack, preserves_flags)) }
}

/// SEV: an event.
pub fn send_event() {
    // SAFETY: it sets the event register, of this processor and of others, and nothing else. What was written before is to be seen by then.
    unsafe { asm!("dsb", "sev", options(nostack, preserves_flags)) }
}

/// With it on, the processor does not return from a handler to the thread, but sleeps until the next interrupt: for phases in which handlers do all
/// the work. A handler switches it off to let the thread go on.
pub fn sleep_on_exit(on: bool) {
    system_control(SLEEP_ON_EXIT, if on { SLEEP_ON_EXIT } else { 0 });
}

/// Sets these bits of the System Control Register, and returns what they were.
fn system_control(mask: u32, bits: u32) -> u32 {
    let register = core::ptr::with_exposed_provenance_mut::<u32>(SYSTEM_CONTROL_BLOCK + SCR);
    critical_section::with(|_| {
        // SAFETY: the System Control Block is there on every Cortex-M, and firmware is privileged code. Only this function
        // writes SCR, in a critical section, and none of its bits makes the processor touch memory.
        unsafe {
            let before = register.read_volatile();
            register.write_volatile(before & !mask | bits & mask);
            before & mask
        }
    })
}

/// What the processor says of a fault, beside the frame that it has pushed: `pc`, `lr`, `xpsr`, and the stack behind it.
#[must_use]
pub fn fault_registers(pc: u32, lr: u32, xpsr: u32, sp: u32) -> Registers {
    let base = Registers {
        pc,
        lr,
        sp,
        xpsr,
        ..Registers::default()
    };
    // SAFETY: reading the identification and the fault status registers has no effect, and firmware is privileged code. Armv6-M and the
    // baseline of Armv8-M do not have the latter, which the former says.
    let read = |offset: usize| unsafe {
        core::ptr::with_exposed_provenance::<u32>(SYSTEM_CONTROL_BLOCK + offset).read_volatile()
    };
    if !IdRegisters::has_extended_registers(read(CPUID)) {
        return base;
    }
    let cfsr = read(CFSR);
    let address = match cfsr {
        cfsr if cfsr & BFAR_VALID != 0 => read(BFAR),
        cfsr if cfsr & MMFAR_VALID != 0 => read(MMFAR),
        _ => 0,
    };
    Registers {
        cfsr,
        hfsr: read(HFSR),
        address,
        ..base
    }
}
