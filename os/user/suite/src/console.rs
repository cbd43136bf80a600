//! The devices that the suite uses: a console for its lines, whose interrupts the tests provoke as well.
//!
//! Addresses and lines are those of QEMU's machines.
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::fmt;

use mielin_hal::Console;
#[cfg(not(target_arch = "x86_64"))]
use mielin_user::Rights;
use mielin_user::{Error, Information, Supplies};

#[cfg(any(target_arch = "riscv64", target_arch = "x86_64"))]
mod device {
    use mielin_hal::drivers::{ByteRegisters, Ns16550};

    pub(super) use super::place::Registers;
    pub(crate) use super::place::{LINE, NO_LINES};

    pub(super) type Driver = Ns16550<Registers>;

    pub(super) fn driver(registers: Registers) -> Driver {
        Ns16550::new(registers)
    }

    /// Has what is written come back in place of going out, and an interrupt come for each byte that was written.
    /// Without FIFOs: when one of them has waited for long, QEMU says again that the line is active, which is another edge to a PC's
    /// controller.
    pub(super) fn begin_interrupts(registers: &mut Registers, on: bool) {
        registers.write(2, if on { 0 } else { 7 });
        registers.write(4, if on { 0x18 } else { 0x08 });
        registers.write(1, if on { 2 } else { 0 });
    }

    pub(super) fn provoke(registers: &mut Registers) {
        registers.write(0, b'.');
    }

    /// Reading the identification ends the transmitter's interrupt.
    pub(super) fn serve(registers: &mut Registers) {
        let _ = registers.read(2);
    }
}

#[cfg(target_arch = "riscv64")]
mod place {
    pub(super) use mielin_hal::drivers::Registers;

    pub(super) const AT: u64 = 0x1000_0000;
    pub(crate) const LINE: u32 = 10;
    /// Not a line of the machine: 0 is none, and the controller has fewer than 128.
    pub(crate) const NO_LINES: [u32; 3] = [0, 200, u32::MAX];
}

#[cfg(target_arch = "x86_64")]
mod place {
    use mielin_hal::drivers::ByteRegisters;
    use mielin_user::objects::Ports;

    /// COM1.
    const FIRST_PORT: u16 = 0x3f8;
    pub(crate) const LINE: u32 = 4;
    /// The controller has 24.
    pub(crate) const NO_LINES: [u32; 3] = [24, 200, u32::MAX];

    /// Registers at ports for which the kernel is asked.
    pub(super) struct Registers(pub(super) Ports);

    impl ByteRegisters for Registers {
        fn read(&self, index: usize) -> u8 {
            // As a bus reads on which nothing is.
            let value = self.0.read(FIRST_PORT + index as u16, 1);
            value.map_or(u8::MAX, |value| value as u8)
        }

        fn write(&mut self, index: usize, value: u8) {
            // Nobody could be told of a failure.
            let _ = self.0.write(FIRST_PORT + index as u16, 1, value.into());
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod place {
    pub(super) const AT: u64 = 0x0900_0000;
}

#[cfg(target_arch = "aarch64")]
mod device {
    use mielin_hal::drivers::Pl011;
    pub(super) use mielin_hal::drivers::Registers;

    /// Shared interrupt 1.
    pub(crate) const LINE: u32 = 33;
    /// Not a line that programs can have.
    pub(crate) const NO_LINES: [u32; 2] = [1024, u32::MAX];

    pub(super) type Driver = Pl011;

    pub(super) fn driver(registers: Registers) -> Driver {
        Pl011::new(registers)
    }

    /// An interrupt comes for each byte that was written.
    pub(super) fn begin_interrupts(registers: &mut Registers, on: bool) {
        registers.write32(0x44, 0x7ff);
        registers.write32(0x38, if on { 0x20 } else { 0 });
    }

    pub(super) fn provoke(registers: &mut Registers) {
        registers.write32(0, 0);
    }

    pub(super) fn serve(registers: &mut Registers) {
        registers.write32(0x44, 0x20);
    }
}

/// The console, and the same registers for the tests of interrupts.
struct Uart {
    driver: device::Driver,
    registers: device::Registers,
}

struct Place(UnsafeCell<Option<Uart>>);

// SAFETY: there is one processor. Only the first thread uses it, and the watchdog, which ends the machine then.
unsafe impl Sync for Place {}

static PLACE: Place = Place(UnsafeCell::new(None));

pub(crate) use device::{LINE, NO_LINES};

fn with<R>(work: impl FnOnce(&mut Uart) -> R) -> Option<R> {
    // SAFETY: as for `Place`; `work` does not come here again.
    unsafe { (*PLACE.0.get()).as_mut() }.map(work)
}

/// Takes the console.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn begin(information: Information, supplies: &mut Supplies) -> Result<(), Error> {
    let frame = supplies.device_page(information, place::AT)?;
    let at = supplies.addresses(4096);
    let rights = Rights::READ.or(Rights::WRITE);
    supplies.map(frame, supplies.space(), at, rights)?;
    // SAFETY: the device's page was mapped there just now; the tests of interrupts leave the driver's state as it was.
    put(|| unsafe { device::Registers::new(at as usize, 0x1000) });
    Ok(())
}

/// Takes the console.
#[cfg(target_arch = "x86_64")]
pub(crate) fn begin(information: Information, _: &mut Supplies) -> Result<(), Error> {
    put(|| place::Registers(information.ports()));
    Ok(())
}

fn put(registers: impl Fn() -> device::Registers) {
    let uart = Uart {
        driver: device::driver(registers()),
        registers: registers(),
    };
    // SAFETY: as for `Place`.
    unsafe { *PLACE.0.get() = Some(uart) };
}

/// Has an interrupt come for each [`provoke`], or no more.
pub(crate) fn begin_interrupts(on: bool) {
    with(|uart| device::begin_interrupts(&mut uart.registers, on));
}

/// Has the device interrupt.
pub(crate) fn provoke() {
    with(|uart| device::provoke(&mut uart.registers));
}

/// Has the device not interrupt any more.
pub(crate) fn serve() {
    with(|uart| device::serve(&mut uart.registers));
}

/// Writes text, if there is a console.
pub(crate) struct Lines;

impl fmt::Write for Lines {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        with(|uart| {
            for byte in text.bytes() {
                uart.driver.write_byte(byte);
            }
        });
        Ok(())
    }
}

/// Prints a line.
macro_rules! say {
    ($($argument:tt)*) => {{
        // The console takes everything.
        let _ = core::fmt::Write::write_fmt(
            &mut $crate::console::Lines,
            format_args!("{}\n", format_args!($($argument)*)),
        );
    }};
}
pub(crate) use say;
