//! The machine's console, for the first thread, which has all devices.
#![allow(unsafe_code)]

#[cfg(not(target_arch = "x86_64"))]
use mielin_kernel::abi::Rights;
use mielin_kernel::abi::{Error, ObjectKind};

use crate::boot::Information;
use crate::objects::{Cap, Frame, Untyped};
use crate::supplies::Supplies;

#[cfg(target_arch = "riscv64")]
mod device {
    //! The 16550 of QEMU's `virt`.
    pub(super) type Device = mielin_hal::drivers::Ns16550<mielin_hal::drivers::Registers>;
    pub(super) const AT: u64 = 0x1000_0000;

    pub(super) fn new(registers: mielin_hal::drivers::Registers) -> Device {
        Device::new(registers)
    }
}

#[cfg(target_arch = "aarch64")]
mod device {
    //! The PL011 of QEMU's `virt`.
    pub(super) type Device = mielin_hal::drivers::Pl011;
    pub(super) const AT: u64 = 0x0900_0000;

    pub(super) fn new(registers: mielin_hal::drivers::Registers) -> Device {
        Device::new(registers)
    }
}

#[cfg(target_arch = "x86_64")]
mod device {
    //! The first serial port of a PC.
    use mielin_hal::drivers::{ByteRegisters, Ns16550};

    use crate::objects::Ports;

    pub(super) type Device = Ns16550<SerialPort>;
    const AT: u16 = 0x3f8;

    /// Its ports, by the capability for them.
    #[derive(Debug)]
    pub(crate) struct SerialPort(pub(super) Ports);

    impl ByteRegisters for SerialPort {
        fn read(&self, index: usize) -> u8 {
            // A port that may not be read reads as if nothing were there.
            self.0
                .read(AT + index as u16, 1)
                .map_or(0xff, |value| value as u8)
        }

        fn write(&mut self, index: usize, value: u8) {
            // There is nobody who could be told.
            let _ = self.0.write(AT + index as u16, 1, u32::from(value));
        }
    }
}

/// The console.
#[derive(Debug)]
pub struct Console(device::Device);

impl Console {
    /// Takes the console's device.
    ///
    /// # Errors
    /// What the kernel says.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn claim(supplies: &mut Supplies, information: Information) -> Result<Self, Error> {
        let frame = supplies.device_frame(information, device::AT)?;
        let at = supplies.addresses(4096);
        let rights = Rights::READ.or(Rights::WRITE);
        supplies.map(frame, supplies.space(), at, rights)?;
        // SAFETY: the page is mapped, and it is that device's; the frame has just been made, so nobody else has it.
        let registers = unsafe { mielin_hal::drivers::Registers::new(at as usize, 0x1000) };
        Ok(Self(device::new(registers)))
    }

    /// Takes the console's device.
    ///
    /// # Errors
    /// None here.
    #[cfg(target_arch = "x86_64")]
    pub fn claim(_: &mut Supplies, information: Information) -> Result<Self, Error> {
        let ports = device::SerialPort(information.ports());
        Ok(Self(device::Device::new(ports)))
    }
}

impl mielin_hal::Console for Console {
    fn write_byte(&mut self, byte: u8) {
        self.0.write_byte(byte);
    }

    fn read_byte(&mut self) -> Option<u8> {
        self.0.read_byte()
    }
}

impl Supplies {
    /// The page of a device's registers, cut out of the untyped that has it.
    ///
    /// # Errors
    /// [`Error::NoMemory`] if no untyped has it, or it was cut already.
    pub fn device_frame(
        &mut self,
        information: Information,
        physical: u64,
    ) -> Result<Frame, Error> {
        let has = |base: u64, bits: u8| base <= physical && physical - base < 1 << bits;
        let mut devices = information.untypeds().filter(|memory| memory.device);
        let found = devices.find(|memory| has(memory.base, memory.bits));
        let found = found.ok_or(Error::NoMemory)?;
        let (mut untyped, mut bits) = (found.untyped, found.bits);
        let offset = physical - found.base;
        while bits > 12 {
            bits -= 1;
            let halves = self.slots(2)?;
            untyped.retype(ObjectKind::Untyped, bits, 2, self.node(), halves)?;
            untyped = Untyped(Cap(halves + (offset >> bits & 1)));
        }
        let slot = self.slot()?;
        untyped.retype(ObjectKind::Frame, 12, 1, self.node(), slot)?;
        Ok(Frame(Cap(slot)))
    }
}
