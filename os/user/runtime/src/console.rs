//! The machine's console, for the first thread, which has all devices.
#![allow(unsafe_code)]

use mielin_kernel::abi::Error;
#[cfg(not(target_arch = "x86_64"))]
use mielin_kernel::abi::Rights;

use crate::boot::Information;
use crate::supplies::Supplies;

#[cfg(target_arch = "riscv64")]
mod device {
    //! The 16550 of QEMU's `virt`.
    pub use mielin_hal::drivers::Registers;

    pub(super) type Driver = mielin_hal::drivers::Ns16550<Registers>;
    pub(super) const AT: u64 = 0x1000_0000;
}

#[cfg(target_arch = "aarch64")]
mod device {
    //! The PL011 of QEMU's `virt`.
    pub use mielin_hal::drivers::Registers;

    pub(super) type Driver = mielin_hal::drivers::Pl011;
    pub(super) const AT: u64 = 0x0900_0000;
}

#[cfg(target_arch = "x86_64")]
mod device {
    //! The first serial port of a PC.
    use mielin_hal::drivers::{ByteRegisters, Ns16550};

    use crate::objects::Ports;

    pub(super) type Driver = Ns16550<Registers>;
    /// COM1.
    const AT: u16 = 0x3f8;

    /// Its ports, by the capability for them.
    #[derive(Debug)]
    pub struct Registers(pub(super) Ports);

    impl ByteRegisters for Registers {
        fn read(&self, index: usize) -> u8 {
            // As a bus reads on which nothing is.
            let value = self.0.read(AT + index as u16, 1);
            value.map_or(u8::MAX, |value| value as u8)
        }

        fn write(&mut self, index: usize, value: u8) {
            // Nobody could be told of a failure.
            let _ = self.0.write(AT + index as u16, 1, u32::from(value));
        }
    }
}

pub use device::Registers;

/// The console: its driver, and the same registers once more, for whoever wants its interrupts.
#[derive(Debug)]
pub struct Console {
    driver: device::Driver,
    /// The registers. Whoever uses them leaves the line as the driver has it.
    pub registers: Registers,
}

impl Console {
    /// Takes the console's device.
    ///
    /// # Errors
    /// What the kernel says.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn claim(supplies: &mut Supplies, information: Information) -> Result<Self, Error> {
        let frame = supplies.device_page(information, device::AT)?;
        let at = supplies.addresses(4096);
        let rights = Rights::READ.or(Rights::WRITE);
        supplies.map(frame, supplies.space(), at, rights)?;
        // SAFETY: the page is mapped, and it is that device's; the frame has just been made, so nobody else has it.
        Ok(Self::of(|| unsafe { Registers::new(at as usize, 0x1000) }))
    }

    /// Takes the console's device.
    ///
    /// # Errors
    /// None here.
    #[cfg(target_arch = "x86_64")]
    pub fn claim(_: &mut Supplies, information: Information) -> Result<Self, Error> {
        Ok(Self::of(|| Registers(information.ports())))
    }

    fn of(registers: impl Fn() -> Registers) -> Self {
        Self {
            driver: device::Driver::new(registers()),
            registers: registers(),
        }
    }
}

impl mielin_hal::Console for Console {
    fn write_byte(&mut self, byte: u8) {
        self.driver.write_byte(byte);
    }

    fn read_byte(&mut self) -> Option<u8> {
        self.driver.read_byte()
    }
}
