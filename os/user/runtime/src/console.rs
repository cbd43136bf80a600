//! The machine's console: its device, where that is, and its driver.
#![allow(unsafe_code)]

use mielin_kernel::abi::{Error, Rights};

use crate::boot::Information;
use crate::objects::Cap;
#[cfg(not(target_arch = "x86_64"))]
use crate::objects::Frame;
#[cfg(target_arch = "x86_64")]
use crate::objects::Ports;
use crate::supplies::Supplies;

#[cfg(target_arch = "riscv64")]
mod device {
    //! The 16550 of QEMU's `virt`.
    pub use mielin_hal::drivers::Registers;

    pub(super) type Driver = mielin_hal::drivers::Ns16550<Registers>;
    pub(super) const AT: u64 = 0x1000_0000;
    pub(super) const LINE: u32 = 10;
}

#[cfg(target_arch = "aarch64")]
mod device {
    //! The PL011 of QEMU's `virt`, with its shared interrupt 1.
    pub use mielin_hal::drivers::Registers;

    pub(super) type Driver = mielin_hal::drivers::Pl011;
    pub(super) const AT: u64 = 0x0900_0000;
    pub(super) const LINE: u32 = 33;
}

#[cfg(target_arch = "x86_64")]
mod device {
    //! The first serial port of a PC.
    use mielin_hal::drivers::{ByteRegisters, Ns16550};

    use crate::objects::Ports;

    pub(super) type Driver = Ns16550<Registers>;
    /// COM1.
    pub(super) const AT: u16 = 0x3f8;
    pub(super) const LINE: u32 = 4;

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

/// Its interrupt line.
pub const LINE: u32 = device::LINE;

/// The device, as a capability: a page of registers, or I/O ports.
#[derive(Clone, Copy, Debug)]
pub struct Device(pub Cap);

impl Device {
    /// The console's, for the first thread, which has all devices.
    ///
    /// # Errors
    /// What the kernel says.
    #[cfg(target_arch = "x86_64")]
    pub fn find(supplies: &mut Supplies, information: Information) -> Result<Self, Error> {
        let first = u64::from(device::AT);
        let ports = first << 16 | (first + 7);
        supplies
            .mint(information.ports().0, Rights::ALL, ports)
            .map(Self)
    }

    /// The console's, for the first thread, which has all devices.
    ///
    /// # Errors
    /// What the kernel says.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn find(supplies: &mut Supplies, information: Information) -> Result<Self, Error> {
        let page = supplies.device_page(information, device::AT)?;
        Ok(Self(page.0))
    }
}

/// The console: its driver, and the same registers once more, for whoever wants its interrupts.
#[derive(Debug)]
pub struct Console {
    driver: device::Driver,
    /// The registers. Whoever uses them leaves the line as the driver has it.
    pub registers: Registers,
}

impl Console {
    /// Takes the console's device, for the first thread.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn claim(supplies: &mut Supplies, information: Information) -> Result<Self, Error> {
        let device = Device::find(supplies, information)?;
        Self::of(device, supplies)
    }

    /// Uses the device.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn of(device: Device, supplies: &mut Supplies) -> Result<Self, Error> {
        let registers = registers(device, supplies)?;
        Ok(Self {
            driver: device::Driver::new(registers()),
            registers: registers(),
        })
    }

    /// Whether it interrupts while a byte has come and was not read.
    pub fn interrupt_when_readable(&mut self, on: bool) {
        self.driver.interrupt_when_readable(on);
    }
}

/// What makes the registers, as often as they are wanted.
#[cfg(target_arch = "x86_64")]
fn registers(device: Device, _: &mut Supplies) -> Result<impl Fn() -> Registers, Error> {
    Ok(move || Registers(Ports(device.0)))
}

/// What makes the registers, as often as they are wanted.
#[cfg(not(target_arch = "x86_64"))]
fn registers(device: Device, supplies: &mut Supplies) -> Result<impl Fn() -> Registers, Error> {
    let at = supplies.addresses(4096);
    let rights = Rights::READ.or(Rights::WRITE);
    supplies.map(Frame(device.0), supplies.space(), at, rights)?;
    // SAFETY: the page is mapped, and it is that device's.
    Ok(move || unsafe { Registers::new(at as usize, 0x1000) })
}

impl mielin_hal::Console for Console {
    fn write_byte(&mut self, byte: u8) {
        self.driver.write_byte(byte);
    }

    fn read_byte(&mut self) -> Option<u8> {
        self.driver.read_byte()
    }
}
