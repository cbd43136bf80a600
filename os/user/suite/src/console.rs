//! The devices that the suite uses: a console for its lines, whose interrupts the tests provoke as well.
//!
//! Addresses and lines are those of QEMU's machines.
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::fmt;

use mielin_hal::Console as _;
use mielin_user::console::Console;
use mielin_user::{Error, Information, Supplies};

#[cfg(any(target_arch = "riscv64", target_arch = "x86_64"))]
mod device {
    use mielin_hal::drivers::ByteRegisters;
    use mielin_user::console::Registers;

    /// Lines that the machine has not: on RISC-V 0 is none, and controllers have fewer than 128; a PC's has 24.
    #[cfg(target_arch = "riscv64")]
    pub(crate) const NO_LINES: [u32; 3] = [0, 200, u32::MAX];
    #[cfg(target_arch = "riscv64")]
    pub(crate) const LINE: u32 = 10;
    #[cfg(target_arch = "x86_64")]
    pub(crate) const NO_LINES: [u32; 3] = [24, 200, u32::MAX];
    #[cfg(target_arch = "x86_64")]
    pub(crate) const LINE: u32 = 4;

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

#[cfg(target_arch = "aarch64")]
mod device {
    use mielin_user::console::Registers;

    /// Shared interrupt 1.
    pub(crate) const LINE: u32 = 33;
    /// Not a line that programs can have.
    pub(crate) const NO_LINES: [u32; 2] = [1024, u32::MAX];

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

struct Place(UnsafeCell<Option<Console>>);

// SAFETY: there is one processor. Only the first thread uses it, and the watchdog, which ends the machine then.
unsafe impl Sync for Place {}

static PLACE: Place = Place(UnsafeCell::new(None));

pub(crate) use device::{LINE, NO_LINES};

fn with<R>(work: impl FnOnce(&mut Console) -> R) -> Option<R> {
    // SAFETY: as for `Place`; `work` does not come here again.
    unsafe { (*PLACE.0.get()).as_mut() }.map(work)
}

/// Takes the console.
pub(crate) fn begin(information: Information, supplies: &mut Supplies) -> Result<(), Error> {
    let console = Console::claim(supplies, information)?;
    // SAFETY: as for `Place`.
    unsafe { *PLACE.0.get() = Some(console) };
    Ok(())
}

/// Has an interrupt come for each [`provoke`], or no more.
pub(crate) fn begin_interrupts(on: bool) {
    with(|console| device::begin_interrupts(&mut console.registers, on));
}

/// Has the device interrupt.
pub(crate) fn provoke() {
    with(|console| device::provoke(&mut console.registers));
}

/// Has the device not interrupt any more.
pub(crate) fn serve() {
    with(|console| device::serve(&mut console.registers));
}

/// Writes text, if there is a console.
pub(crate) struct Lines;

impl fmt::Write for Lines {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        with(|console| {
            for byte in text.bytes() {
                console.write_byte(byte);
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
