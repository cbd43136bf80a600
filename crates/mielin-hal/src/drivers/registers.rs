//! The registers of a device, in memory.
#![allow(unsafe_code)]

use core::ptr;

/// A stretch of memory that is the registers of one device.
#[derive(Debug)]
pub struct Registers {
    base: usize,
    len: usize,
}

impl Registers {
    /// The registers from address `base` on, `len` bytes of them.
    ///
    /// # Safety
    /// - For as long as the value lives, these bytes are mapped, as the registers of one device, at this address, which
    ///   is a multiple of 4, and no Rust object lies there.
    /// - The value is given to the driver of this very device only, and what the device does by that driver's orders
    ///   changes no memory but its own.
    #[must_use]
    pub const unsafe fn new(base: usize, len: usize) -> Self {
        Self { base, len }
    }

    /// How many bytes they are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads the byte at this offset.
    ///
    /// # Panics
    /// If it is not within the registers; also in the other functions.
    #[must_use]
    pub fn read8(&self, offset: usize) -> u8 {
        let address = self.address(offset, 1);
        // SAFETY: the address is within registers of which `new` was told that they are mapped and of this driver's
        // device, so that reading has the effects that the driver means, and touches no Rust object.
        unsafe { ptr::read_volatile(ptr::with_exposed_provenance::<u8>(address)) }
    }

    /// Writes the byte at this offset.
    pub fn write8(&mut self, offset: usize, value: u8) {
        let address = self.address(offset, 1);
        // SAFETY: as for `read8`; by `new` the device changes no memory but its own.
        unsafe { ptr::write_volatile(ptr::with_exposed_provenance_mut::<u8>(address), value) }
    }

    /// Reads the word of 32 bits at this offset, a multiple of 4.
    #[must_use]
    pub fn read32(&self, offset: usize) -> u32 {
        let address = self.address(offset, 4);
        // SAFETY: as for `read8`; base and offset are multiples of 4.
        unsafe { ptr::read_volatile(ptr::with_exposed_provenance::<u32>(address)) }
    }

    /// Writes the word of 32 bits at this offset, a multiple of 4.
    pub fn write32(&mut self, offset: usize, value: u32) {
        let address = self.address(offset, 4);
        // SAFETY: as for `write8`; base and offset are multiples of 4.
        unsafe { ptr::write_volatile(ptr::with_exposed_provenance_mut::<u32>(address), value) }
    }

    fn address(&self, offset: usize, size: usize) -> usize {
        let inside = offset.is_multiple_of(size)
            && offset.checked_add(size).is_some_and(|end| end <= self.len);
        assert!(inside, "no register at offset {offset:#x} of a device");
        self.base + offset
    }
}
