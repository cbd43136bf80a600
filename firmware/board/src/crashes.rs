//! Panics, faults, and a watchdog that is about to reset: each is written on the serial line and kept for after the reset.
#![allow(unsafe_code)]

use core::fmt::Write;
use core::panic::PanicInfo;

use cortex_m_rt::{ExceptionFrame, exception};
use mielin_hal::Text;
use mielin_rt::cortex_m::fault_registers;
use mielin_rt::{CrashReport, Kept};

use crate::devices;

#[unsafe(link_section = ".uninit.last_crash")]
static LAST_CRASH: Kept<{ CrashReport::BYTES }> = Kept::new();

/// What ended the firmware before the last reset, once.
#[must_use]
pub fn last_crash() -> Option<CrashReport> {
    let mut bytes = [0; CrashReport::BYTES];
    CrashReport::decode(LAST_CRASH.take(&mut bytes)?)
}

/// Keeps a report and says it on the line.
fn report(crash: &CrashReport) {
    let mut bytes = [0; CrashReport::BYTES];
    let len = crash.encode(&mut bytes);
    LAST_CRASH.keep(&bytes[..len]);
    // The line's driver may have been interrupted in the middle of anything: this is another one, and the last.
    let mut uart = uart();
    let _ = writeln!(Text(&mut uart), "\ncrash: {crash}");
}

/// What people read.
fn uart() -> devices::Uart {
    #[cfg(mps2)]
    if crate::console::is_open() {
        return devices::console();
    }
    devices::uart()
}

#[cfg(feature = "messages")]
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    report(&CrashReport::of_panic(info));
    restart()
}

/// Looks at nothing of the panic, not even at its place: the compiler leaves out whatever makes messages only if nobody reads them.
#[cfg(not(feature = "messages"))]
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    report(&CrashReport::of_returns(crate::stack::returns()));
    restart()
}

#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    let sp = core::ptr::from_ref(frame).addr() as u32;
    let registers = fault_registers(frame.pc(), frame.lr(), frame.xpsr(), sp);
    report(&CrashReport::of_fault(registers));
    restart()
}

/// The MPS2's watchdog interrupts so.
#[exception]
unsafe fn NonMaskableInt() {
    watchdog()
}

/// The watchdog has interrupted, and would reset when it was not fed for as long again.
pub(crate) fn watchdog() -> ! {
    report(&CrashReport::of_watchdog(format_args!(
        "no sign of life in time"
    )));
    restart()
}

/// A firmware that has crashed begins anew: what it does about that, and how often, is decided with [`last_crash`] at its start.
fn restart() -> ! {
    cortex_m::peripheral::SCB::sys_reset()
}
