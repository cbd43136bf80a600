//! What the firmware images need to know of the board that they are for: where its devices are, which interrupts they raise, and what
//! becomes of those.
//!
//! | board | processor | serial line | keeps time in deep sleep | watchdog |
//! |---|---|---|---|---|
//! | BBC micro:bit | Cortex-M0 | nRF51 UART | TIMER0, 1 MHz | |
//! | LM3S6965 | Cortex-M3 | PL011 | | CMSDK's kind |
//! | MPS2, AN386 | Cortex-M4 | CMSDK UART | CMSDK timer, 25 MHz | CMSDK |
//! | MPS2, AN505 | Cortex-M33 | CMSDK UART | CMSDK timer, 32 kHz | CMSDK |
//!
//! The MPS2 boards have also a second UART for what people read ([`open_console`]), memory enough for a heap ([`heap`]), and a page that says who they
//! are ([`page`]).
//!
//! An interrupt puts what has come into a queue, which [`received`] empties, and raises [`SIGNALS`]; beside that handlers do only what [`at_tick`] was told.

#![no_std]

#[cfg(mps2)]
mod console;
mod crashes;
mod devices;
#[cfg(mps2)]
mod memory;
mod serial;
mod stack;

use core::cell::Cell;

use critical_section::Mutex;
use mielin_hal::drivers::{Kernel, Nvic, Semihosting};
use mielin_hal::{InterruptController, Outcome, Shutdown};
use mielin_rt::Signals;
use mielin_rt::cortex_m::{CortexM, InUse};

#[cfg(mps2)]
pub use console::{Console, open_console};
pub use crashes::last_crash;
pub use devices::{CLOCK_HZ, MODES, NAME, SLEEP_TICK_NS, SleepClock, Watchdog, witness};
#[cfg(mps2)]
pub use memory::{heap, page};
pub use serial::{Serial, received};

/// What interrupts raise; the bits are in [`signals`].
pub static SIGNALS: Signals = Signals::new();

/// What SysTick's handler calls.
static AT_TICK: Mutex<Cell<Option<fn()>>> = Mutex::new(Cell::new(None));

/// Bits of [`SIGNALS`].
pub mod signals {
    /// There is something [`received`](crate::received).
    pub const SERIAL: u32 = 1 << 0;
}

/// The board's devices, once.
#[derive(Debug)]
pub struct Board {
    /// The processor with its clocks.
    pub machine: CortexM<SleepClock>,
    /// The serial line.
    pub serial: Serial,
}

impl Board {
    /// Takes the devices and switches the interrupts on.
    ///
    /// # Errors
    /// [`InUse`] the second time.
    pub fn take() -> Result<Self, InUse> {
        let machine = CortexM::new(kernel(), CLOCK_HZ, MODES, devices::sleep_clock())?;
        let mut nvic = Nvic::new(kernel());
        let serial = Serial::open();
        nvic.enable(devices::SERIAL_LINE);
        for line in [devices::SLEEP_LINE, devices::WATCHDOG_LINE] {
            line.into_iter().for_each(|line| nvic.enable(line));
        }
        // SAFETY: nothing here relies on interrupts being masked; handlers reach what they need through critical sections.
        unsafe { cortex_m::interrupt::enable() };
        Ok(Self { machine, serial })
    }
}

/// Starts the watchdog: it resets the processor when it was not fed for `ms`. `None` where the board has none that works under QEMU.
#[must_use]
pub fn start_watchdog(ms: u32) -> Option<Watchdog> {
    devices::watchdog(ms)
}

/// Tells the watchdog that all is well.
pub fn feed(watchdog: &mut Watchdog) {
    devices::feed(watchdog);
}

/// Has SysTick's handler call this, in which nothing may wait. The handler comes at each alarm, which is whatever the processor rests until, or
/// [`mielin_rt::cortex_m::alarm`].
pub fn at_tick(call: fn()) {
    critical_section::with(|section| AT_TICK.borrow(section).set(Some(call)));
}

/// The most that the stack has ever had, in bytes.
#[must_use]
pub fn stack_bytes() -> usize {
    stack::used()
}

/// Ends the emulator, with the outcome as its exit status.
pub fn end(outcome: Outcome) -> ! {
    Semihosting::new(kernel()).shut_down(outcome);
    loop {
        mielin_rt::cortex_m::wait_for_interrupt();
    }
}

fn kernel() -> Kernel {
    // SAFETY: the processor starts in privileged Thread mode, and no firmware here leaves it.
    unsafe { Kernel::assume() }
}

mod handlers {
    //! Where the processor goes when something happens.

    use cortex_m_rt::exception;

    #[exception]
    fn SysTick() {
        mielin_rt::cortex_m::tick();
        let call = critical_section::with(|section| super::AT_TICK.borrow(section).get());
        if let Some(call) = call {
            call();
        }
    }

    #[exception]
    unsafe fn DefaultHandler(number: i16) {
        let line = u32::try_from(number).ok();
        if line == Some(super::devices::SERIAL_LINE) {
            super::serial::receive();
            return;
        }
        if line.is_some() && line == super::devices::WATCHDOG_LINE {
            super::crashes::watchdog();
        }
        // The end of a deep sleep has done its work by waking the processor.
        let expected = line.is_some() && line == super::devices::SLEEP_LINE;
        assert!(expected, "interrupt {number} came unasked");
    }
}
